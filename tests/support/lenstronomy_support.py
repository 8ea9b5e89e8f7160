"""Reference images by lenstronomy, and what their parameters are called in lensjax."""

import pathlib

import numpy as np

DATA = pathlib.Path(__file__).resolve().parents[1] / "data" / "stored"
FIELDS = {
    "theta_e": "theta_E",
    "e1": "e1",
    "e2": "e2",
    "gamma1": "g1",
    "gamma2": "g2",
    "deflection_factor": "beta",
    "amplitude": "amp",
    "radius": "R",
    "sersic_index": "n",
    "source_e1": "s1",
    "source_e2": "s2",
    "source_x": "sx",
    "source_y": "sy",
    "point_theta_e": "pt_theta",
    "point_x": "pt_x",
    "point_y": "pt_y",
}

with np.load(DATA / "lenstronomy_images.npz") as _file:
    REFERENCE = {name: _file[name] for name in _file.files}
