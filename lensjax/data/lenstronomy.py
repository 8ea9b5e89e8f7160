"""A simulated image as the arguments of lenstronomy's image model.

Nothing is imported from lenstronomy; the conventions are those of version 1.14.
"""

import math
from collections.abc import Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lensjax.arguments import finite_number, refuse
from lensjax.data.catalogue import SIMULATED_SETS
from lensjax.data.parameters import PARAMETER_NAMES, lens_from_parameters, needed_parameters
from lensjax.data.raytracing import Lens, pixel_centres
from lensjax.data.simulator import CLASS_NAMES
from lensjax.data.surveys import Survey
from lensjax.errors import DataError, shown

_PSF_TRUNCATION_SIGMAS = 4
_lens_of = jax.jit(lens_from_parameters, static_argnames=("survey", "class_name"))


def image_arguments(survey: Survey) -> dict[str, Any]:
    """The arguments of lenstronomy's pixels, point-spread function and numerics.

    Args:
      survey: the DeepLense model.

    Returns:
      `kwargs_pixel`, `kwargs_psf` and `kwargs_numerics`.
    """
    pixel = survey.pixel_scale_arcsec
    corner = float(pixel_centres(survey.num_pixels, pixel)[0])
    return {
        "kwargs_pixel": {
            "nx": survey.num_pixels,
            "ny": survey.num_pixels,
            "ra_at_xy_0": corner,
            "dec_at_xy_0": corner,
            "transform_pix2angle": np.eye(2) * pixel,
        },
        "kwargs_psf": {
            "psf_type": "GAUSSIAN",
            "fwhm": survey.psf_fwhm_arcsec,
            "pixel_size": pixel,
            "truncation": _PSF_TRUNCATION_SIGMAS,
        },
        "kwargs_numerics": {"supersampling_factor": 1},
    }


def lens_arguments(lens: Lens) -> dict[str, Any]:
    """The arguments of lenstronomy's lens and source models.

    Every deflection carries `lens.deflection_factor`: the ellipsoid's Einstein radius and the shear
    are multiplied by it, Einstein radii of point masses by its root, since a point's deflection
    goes with their square.

    Args:
      lens: one lens, without leading axes.

    Returns:
      `lens_model_list`, `kwargs_lens`, `source_model_list` and `kwargs_source`.
    """
    beta = float(lens.deflection_factor)
    points = np.stack([np.asarray(lens.point_theta_e) * beta**0.5, lens.point_x, lens.point_y])
    halo = {
        "theta_E": beta * float(lens.theta_e),
        "e1": float(lens.e1),
        "e2": float(lens.e2),
        "center_x": 0.0,
        "center_y": 0.0,
    }
    shear = {
        "gamma1": beta * float(lens.gamma1),
        "gamma2": beta * float(lens.gamma2),
        "ra_0": 0.0,
        "dec_0": 0.0,
    }
    source = {
        "amp": float(lens.amplitude),
        "R_sersic": float(lens.radius),
        "n_sersic": float(lens.sersic_index),
        "e1": float(lens.source_e1),
        "e2": float(lens.source_e2),
        "center_x": float(lens.source_x),
        "center_y": float(lens.source_y),
    }
    masses = [
        {"theta_E": theta_e, "center_x": x, "center_y": y} for theta_e, x, y in points.T.tolist()
    ]
    return {
        "lens_model_list": ["SIE", "SHEAR"] + ["POINT_MASS"] * len(masses),
        "kwargs_lens": [halo, shear, *masses],
        "source_model_list": ["SERSIC_ELLIPSE"],
        "kwargs_source": [source],
    }


def _entry(row: Any, column: str) -> Any:
    """One entry of a row; scalars of any table become those of numpy or Python."""
    allowed = "one row of the table of lensjax.simulate or lensjax.load_data"
    try:
        entry = row[column]
    except Exception:  # of any object
        raise DataError(
            f"row: got no column {column} in {shown(row)}; allowed: {allowed}"
        ) from None
    if np.ndim(entry):
        raise DataError(f"row: got {len(entry)} values of {column}; allowed: {allowed}")
    return entry


def _text_of(row: Any, column: str, words: str, allowed: Iterable[str]) -> str:
    value = str(_entry(row, column))
    if value not in allowed:
        raise refuse(f"row: {column}", value, f"{words}, {', '.join(allowed)}", DataError)
    return value


def _number_of(row: Any, column: str, data_set: str) -> float:
    name = f"row of {data_set}: {column}"
    return finite_number(name, _entry(row, column), error=DataError)


def to_lenstronomy(row: Mapping[str, Any] | np.void) -> dict[str, Any]:
    """Lenstronomy's arguments for one image of a simulated set.

    `ImageModel(PixelGrid(**kwargs_pixel), PSF(**kwargs_psf), LensModel(lens_model_list),
    LightModel(source_model_list), kwargs_numerics=kwargs_numerics).image(kwargs_lens,
    kwargs_source)` is then the noise-free image in flux per pixel. (Images of `model_i_noisy` are
    counts: multiply it by `exposure_time_s`.)

    Args:
      row: a row of the table of `lensjax.simulate` or `lensjax.load_data`; a row of a pandas or
        astropy table made of it works as well.

    Returns:
      A dict with `lens_model_list`, `kwargs_lens`, `source_model_list`, `kwargs_source`,
      `kwargs_pixel`, `kwargs_psf` and `kwargs_numerics`. Lengths are in arcsec, amplitudes in flux
      per arcsec^2.

    Raises:
      DataError: for a row of any other data set or class, without a column that is needed, or with
        a number there that is not finite; it names the row's set and the column.
    """
    name = _text_of(row, "data_set", "rows of the simulated sets", SIMULATED_SETS)
    class_name = _text_of(row, "class_name", "classes of the simulated sets", CLASS_NAMES)
    survey = SIMULATED_SETS[name].survey
    needed = needed_parameters(class_name)
    values = [
        _number_of(row, column, name) if column in needed else math.nan
        for column in PARAMETER_NAMES
    ]
    with jax.enable_x64(True):  # as exact as the stored numbers are
        lens = jax.device_get(_lens_of(jnp.asarray(values), survey, class_name))
    return lens_arguments(lens) | image_arguments(survey)
