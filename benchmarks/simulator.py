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

import lensjax
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
    """Images per second, the median of `REPEATS`, compilation excluded."""
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


def _lenstronomy_model(arguments: dict[str, Any]) -> Any:
    """Builds lenstronomy's image model, which is the same for all lenses of a class."""
    from lenstronomy.Data.pixel_grid import PixelGrid
    from lenstronomy.Data.psf import PSF
    from lenstronomy.ImSim.image_model import ImageModel
    from lenstronomy.LensModel.lens_model import LensModel
    from lenstronomy.LightModel.light_model import LightModel

    return ImageModel(
        PixelGrid(**arguments["kwargs_pixel"]),
        PSF(**arguments["kwargs_psf"]),
        lens_model_class=LensModel(arguments["lens_model_list"]),
        source_model_class=LightModel(arguments["source_model_list"]),
        kwargs_numerics=arguments["kwargs_numerics"],
    )


def _run_lenstronomy(arguments: list[dict[str, Any]], barrier: Any) -> float:
    """Renders the images once the other processes are ready; returns images per second."""
    image_model = _lenstronomy_model(arguments[0])
    image_model.image(arguments[0]["kwargs_lens"], arguments[0]["kwargs_source"])
    barrier.wait()
    start = time.perf_counter()
    for one in arguments:
        image_model.image(one["kwargs_lens"], one["kwargs_source"])
    return len(arguments) / (time.perf_counter() - start)


def _worker(arguments: Any, barrier: Any, results: Any) -> None:
    results.put([_run_lenstronomy(arguments, barrier) for _ in range(REPEATS)])


def check_lenstronomy(class_name: str) -> float:
    """The largest difference between the two simulators in parts of the peak."""
    images, table = lensjax.simulate(SURVEY.name, class_name, 3)
    arguments = [lensjax.to_lenstronomy(row) for row in table]
    image_model = _lenstronomy_model(arguments[0])
    errors = []
    for image, one in zip(images[..., 0], arguments, strict=True):
        other = image_model.image(one["kwargs_lens"], one["kwargs_source"])
        errors.append(np.max(np.abs(image - other)) / other.max())
    return float(max(errors))


def time_lenstronomy(class_name: str) -> float:
    """Images per second of all cores together, the median of `REPEATS`."""
    _, table = lensjax.simulate(SURVEY.name, class_name, LENSTRONOMY_IMAGES[class_name])
    arguments = [lensjax.to_lenstronomy(row) for row in table]
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
    """Everything that the table shows."""
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
        arguments.json.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
