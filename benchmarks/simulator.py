"""Images per second of lensjax's simulator beside lenstronomy's, for the classes of Model II.

`python benchmarks/simulator.py [--json PATH]` prints a table. lensjax renders batches on all cores
(or on the accelerator); lenstronomy, where it is installed, renders one image after the other with
its objects built once, one process a core, and without noise. Both draw from the same priors.
"""

import argparse
import functools
import importlib.metadata
import importlib.util
import json
import multiprocessing
import os
import pathlib
import platform
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lensjax import prng
from lensjax.data import simulator
from lensjax.data.surveys import SURVEYS

SURVEY = SURVEYS["model_ii"]
BATCH_SIZE = 128
BATCHES = 24
REPEATS = 5
LENSTRONOMY_IMAGES = {"no_sub": 1000, "cdm": 400, "axion": 150}  # a process and repeat
ORDER = ("no_sub", "cdm", "axion")


def time_lensjax(class_name: str, noisy: bool) -> float:
    """Returns images per second, the median of `REPEATS`, compilation excluded."""
    keys = [
        prng.keys(prng.key(0, "benchmark", number), jnp.arange(BATCH_SIZE))
        for number in range(BATCHES)
    ]
    run = functools.partial(simulator.simulate, survey=SURVEY, class_name=class_name, noisy=noisy)
    jax.block_until_ready(run(keys[0]))
    speeds = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        jax.block_until_ready([run(batch)[0] for batch in keys])
        speeds.append(BATCHES * BATCH_SIZE / (time.perf_counter() - start))
    return float(np.median(speeds))


def _lenstronomy_model(num_points: int) -> tuple[Any, dict[str, Any], list[dict[str, float]]]:
    """Builds lenstronomy's image model once and the arguments that do not vary."""
    from lenstronomy.Data.imaging_data import ImageData
    from lenstronomy.Data.psf import PSF
    from lenstronomy.ImSim.image_model import ImageModel
    from lenstronomy.LensModel.lens_model import LensModel
    from lenstronomy.LightModel.light_model import LightModel

    side, pixel = SURVEY.num_pixels, SURVEY.pixel_scale_arcsec
    corner = -(side - 1) / 2 * pixel
    data = ImageData(
        image_data=np.zeros((side, side)),
        ra_at_xy_0=corner,
        dec_at_xy_0=corner,
        transform_pix2angle=np.eye(2) * pixel,
    )
    image_model = ImageModel(
        data,
        PSF(psf_type="GAUSSIAN", fwhm=SURVEY.psf_fwhm_arcsec, pixel_size=pixel, truncation=4),
        lens_model_class=LensModel(["SIE", "SHEAR"] + ["POINT_MASS"] * num_points),
        source_model_class=LightModel(["SERSIC_ELLIPSE"]),
        kwargs_numerics={"supersampling_factor": 1},
    )
    beta = SURVEY.deflection_factor
    halo = {
        "theta_E": beta * simulator.ARCSEC_PER_SQRT_MASS * simulator.HALO_MASS**0.5,
        "e1": simulator.LENS_E1,
        "e2": simulator.LENS_E2,
        "center_x": 0.0,
        "center_y": 0.0,
    }
    shear = {
        "gamma1": beta * simulator.SHEAR_GAMMA1,
        "gamma2": beta * simulator.SHEAR_GAMMA2,
        "ra_0": 0.0,
        "dec_0": 0.0,
    }
    source = {
        "amp": SURVEY.source_amplitude,
        "R_sersic": simulator.SOURCE_RADIUS,
        "n_sersic": simulator.SOURCE_INDEX,
        "e1": simulator.SOURCE_E1,
        "e2": simulator.SOURCE_E2,
    }
    return image_model, source, [halo, shear]


def _lenstronomy_arguments(class_name: str, num: int) -> list[tuple[float, float, list[Any]]]:
    """Returns source positions and point masses drawn by lensjax."""
    keys = prng.keys(prng.key(0, "lenstronomy"), jnp.arange(num))
    _, draws, _ = simulator.simulate(keys, SURVEY, class_name)
    lens = jax.tree.map(np.asarray, draws.lens)
    theta_e = lens.point_theta_e * SURVEY.deflection_factor**0.5
    return [
        (
            float(lens.source_x[i]),
            float(lens.source_y[i]),
            [
                {"theta_E": float(theta), "center_x": float(x), "center_y": float(y)}
                for theta, x, y in zip(theta_e[i], lens.point_x[i], lens.point_y[i], strict=True)
            ],
        )
        for i in range(num)
    ]


def _run_lenstronomy(arguments: list[tuple[float, float, list[Any]]], barrier: Any) -> float:
    """Renders the images once the other processes are ready; returns images per second."""
    image_model, source, smooth = _lenstronomy_model(len(arguments[0][2]))

    def render(source_x: float, source_y: float, points: list[Any]) -> np.ndarray:
        moved = {**source, "center_x": source_x, "center_y": source_y}
        image = image_model.image(smooth + points, [moved])
        return image

    render(*arguments[0])
    barrier.wait()
    start = time.perf_counter()
    for one in arguments:
        render(*one)
    return len(arguments) / (time.perf_counter() - start)


def _worker(arguments: Any, barrier: Any, results: Any) -> None:
    results.put([_run_lenstronomy(arguments, barrier) for _ in range(REPEATS)])


def check_lenstronomy(class_name: str) -> float:
    """Returns the largest difference between the two simulators in parts of the peak."""
    keys = prng.keys(prng.key(0, "lenstronomy"), jnp.arange(3))
    images, _, _ = simulator.simulate(keys, SURVEY, class_name)
    arguments = _lenstronomy_arguments(class_name, 3)
    image_model, source, smooth = _lenstronomy_model(len(arguments[0][2]))
    errors = []
    for image, (x, y, points) in zip(np.asarray(images), arguments, strict=True):
        other = image_model.image(smooth + points, [{**source, "center_x": x, "center_y": y}])
        errors.append(np.max(np.abs(image - other)) / other.max())
    return float(max(errors))


def time_lenstronomy(class_name: str) -> float:
    """Returns images per second of all cores together, the median of `REPEATS`."""
    arguments = _lenstronomy_arguments(class_name, LENSTRONOMY_IMAGES[class_name])
    context = multiprocessing.get_context("spawn")
    cores = os.cpu_count() or 1
    barrier, results = context.Barrier(cores), context.Queue()
    workers = [
        context.Process(target=_worker, args=(arguments, barrier, results)) for _ in range(cores)
    ]
    for worker in workers:
        worker.start()
    speeds = [results.get() for _ in workers]
    for worker in workers:
        worker.join()
    return float(np.median(np.sum(speeds, axis=0)))


def _versions() -> dict[str, str]:
    versions = {"python": platform.python_version()}
    for package in ("jax", "jaxlib", "numpy", "lenstronomy"):
        if importlib.util.find_spec(package):
            versions[package] = importlib.metadata.version(package)
    return versions


def measure() -> dict[str, Any]:
    """Returns everything that the table shows."""
    device = jax.devices()[0]
    rows: dict[str, dict[str, float | None]] = {}
    for class_name in ORDER:
        row: dict[str, float | None] = {
            "lensjax": time_lensjax(class_name, noisy=False),
            "lensjax_with_noise": time_lensjax(class_name, noisy=True),
            "lenstronomy": None,
        }
        if importlib.util.find_spec("lenstronomy"):
            row["lenstronomy"] = time_lenstronomy(class_name)
            row["largest_difference_of_peak"] = check_lenstronomy(class_name)
        rows[class_name] = row
    return {
        "images_per_second": rows,
        "survey": SURVEY.name,
        "batch_size": BATCH_SIZE,
        "device": device.device_kind,
        "platform": device.platform,
        "cpu_cores": os.cpu_count(),
        "load_average_before": os.getloadavg()[0],
        "versions": _versions(),
    }


def print_table(result: dict[str, Any]) -> None:
    """Prints the speeds, one class a line."""
    versions = " ".join(f"{name} {version}" for name, version in result["versions"].items())
    print(f"{result['survey']} on {result['device']}, {result['cpu_cores']} CPU cores; {versions}")
    print(f"{'images/s':10}{'lensjax':>10}{'with noise':>12}{'lenstronomy':>13}{'ratio':>8}")
    for class_name, row in result["images_per_second"].items():
        other, ratio = "-", "-"
        if row["lenstronomy"]:
            other = f"{row['lenstronomy']:,.0f}"
            ratio = f"{row['lensjax'] / row['lenstronomy']:.1f}"
        ours, noisy = f"{row['lensjax']:,.0f}", f"{row['lensjax_with_noise']:,.0f}"
        print(f"{class_name:10}{ours:>10}{noisy:>12}{other:>13}{ratio:>8}")


def main() -> None:
    """Measures, prints, and writes a file if asked."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=pathlib.Path, help="file for the result")
    arguments = parser.parse_args()
    result = measure()
    print_table(result)
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
