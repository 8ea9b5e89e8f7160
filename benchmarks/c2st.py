"""What does the two-sample network find? Its accuracy on real lenses changed in known ways.

    python benchmarks/c2st.py

Both sides are fresh lenses of Model II, as many of each class: on one side as they are, on the
other changed. "null" is real against real: accuracies must scatter around 0.5, within the error
that `c2st` states for them. Without noise, and with instrument noise at source magnitude 20 and 23.
Writes `results/c2st.json` and `results/c2st.md`.
"""

import argparse
import dataclasses
import functools
import json
import os
import pathlib
import time
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lensjax import prng
from lensjax.data.raytracing import render
from lensjax.data.simulator import CLASS_NAMES, sample_lens, simulate
from lensjax.data.surveys import SURVEYS, Survey
from lensjax.metrics.c2st import c2st, judge
from lensjax.metrics.noise import add_instrument_noise
from lensjax.run import provenance

ROOT = pathlib.Path(__file__).resolve().parent.parent
SURVEY = SURVEYS["model_ii"]
MAGNITUDES: tuple[float | None, ...] = (None, 20.0, 23.0)
CONTROL = "PSF 30 % wider"
RENDER_CHUNK = 25


def lenses(
    seed: int, count: int, survey: Survey = SURVEY, classes: tuple[str, ...] = CLASS_NAMES
) -> np.ndarray:
    """Fresh noise-free lenses, as many of each class to one, float32 `[count, H, W]`."""
    images = []
    for number, class_name in enumerate(classes):
        share = count // len(classes) + (number < count % len(classes))
        keys = prng.keys(prng.key(seed, "c2st_benchmark", number), jnp.arange(share))
        images.append(np.asarray(simulate(keys, survey, class_name)[0]))
    return np.concatenate(images)


def wider(seed: int, count: int, factor: float) -> np.ndarray:
    """Lenses behind a wider point-spread function."""
    fwhm = factor * SURVEY.psf_fwhm_arcsec
    return lenses(seed, count, dataclasses.replace(SURVEY, psf_fwhm_arcsec=fwhm))


def speckle(seed: int, count: int, smoothing: float) -> np.ndarray:
    """Lenses with Gaussian speckle of 1 % of each peak, white or smoothed over pixels."""
    from scipy.ndimage import gaussian_filter

    images = lenses(seed, count)
    noise = np.random.default_rng(seed).normal(size=images.shape)
    if smoothing:
        noise = gaussian_filter(noise, (0, smoothing, smoothing))
    noise *= 0.01 * images.max(axis=(1, 2), keepdims=True) / noise.std()
    return (images + noise).astype(np.float32)


@functools.partial(jax.jit, static_argnames="class_name")
def _shifted(keys: jax.Array, class_name: str) -> jax.Array:
    """Renders rays at four times as many places and takes those a quarter pixel to the left."""
    side = SURVEY.num_pixels
    fine = dataclasses.replace(
        SURVEY,
        num_pixels=4 * side + 1,
        pixel_scale_arcsec=SURVEY.pixel_scale_arcsec / 4,
        psf_fwhm_arcsec=1e-6,
    )

    def one(key: jax.Array) -> jax.Array:
        lens_key, _ = jax.random.split(key)
        return render(sample_lens(lens_key, fine, class_name).lens, fine)[2::4, 1::4] * 16

    return jax.vmap(one)(keys)


def shifted(seed: int, count: int) -> np.ndarray:
    """Lenses shifted by a quarter pixel, without interpolation."""
    from scipy.ndimage import gaussian_filter

    images = []
    for number, class_name in enumerate(CLASS_NAMES):
        share = count // len(CLASS_NAMES) + (number < count % len(CLASS_NAMES))
        keys = prng.keys(prng.key(seed, "c2st_benchmark", number), jnp.arange(share))
        for start in range(0, share, RENDER_CHUNK):
            images.append(np.asarray(_shifted(keys[start : start + RENDER_CHUNK], class_name)))
    sharp = np.concatenate(images)
    sigma = SURVEY.psf_fwhm_arcsec / 2.3548200450309493 / SURVEY.pixel_scale_arcsec
    return gaussian_filter(sharp, (0, sigma, sigma), mode="nearest")


CHANGES: Mapping[str, Callable[[int, int], np.ndarray]] = {
    "null": lenses,
    CONTROL: lambda seed, count: wider(seed, count, 1.3),
    "PSF 10 % wider": lambda seed, count: wider(seed, count, 1.1),
    "1 % speckle, white": lambda seed, count: speckle(seed, count, 0),
    "1 % speckle, smooth (1.5 pixels)": lambda seed, count: speckle(seed, count, 1.5),
    "shifted by a quarter pixel": shifted,
    "flipped": lambda seed, count: lenses(seed, count)[:, :, ::-1],
    "flux x 1.1": lambda seed, count: 1.1 * lenses(seed, count),
    "one class missing": lambda seed, count: lenses(seed, count, classes=("axion", "no_sub")),
}


def noised(images: np.ndarray, magnitude: float | None, seed: int) -> np.ndarray:
    """Float32 images with the instrument's noise, or as they are."""
    if magnitude is None:
        return images.astype(np.float32)
    return add_instrument_noise(images, SURVEY, magnitude, seed)


def measure(change: str, magnitude: float | None, count: int, repeats: int) -> dict[str, Any]:
    """The accuracies of independent trials, and the errors stated for them."""
    values, errors = [], []
    for repeat in range(repeats):
        # Seeds of every table entry are its own; a repeat has the same lenses at each magnitude.
        seed = 1000 * (1 + list(CHANGES).index(change)) + 2 * repeat
        real = noised(lenses(seed, count), magnitude, seed)
        other = noised(CHANGES[change](seed + 1, count), magnitude, seed + 1)
        accuracy, _ = judge(real, other, repeat)
        values.append(accuracy.value)
        errors.append(accuracy.error)
    above = np.sum((np.array(values) - 0.5) / np.array(errors) > 3)
    return {
        "change": change,
        "magnitude": magnitude,
        "images_a_side": count,
        "accuracies": [round(value, 4) for value in values],
        "mean": float(np.mean(values)),
        "standard_deviation": float(np.std(values, ddof=1)),
        "stated_error": float(np.mean(errors)),
        "told_apart": int(above),
    }


def time_calls(count: int) -> dict[str, Any]:
    """What `c2st` at the three noise levels costs: six networks, compilation included."""
    sets = [lenses(1, count), lenses(2, count), wider(3, count, 1.3)]
    wall, processor = time.perf_counter(), time.process_time()
    for magnitude in MAGNITUDES:
        real, generated, control = (
            noised(images, magnitude, seed) for seed, images in enumerate(sets)
        )
        c2st(real, generated, control)
    return {
        "images_a_side": count,
        "wall_s": time.perf_counter() - wall,
        "cpu_s": time.process_time() - processor,
    }


def table(results: Mapping[str, Any]) -> str:
    """The results as a page of Markdown."""
    rows = results["rows"]
    count = rows[0]["images_a_side"]
    lines = [
        "# The two-sample network's power",
        "",
        f"`python benchmarks/c2st.py`: accuracy on fresh Model II lenses, {count} against {count},"
        f" in equal parts of the three classes ({results['hardware']}, jax"
        f" {results['versions']['jax']}). Mean of {len(rows[-1]['accuracies'])} independent trials"
        " +- their standard deviation. 0.5 is chance.",
        "",
        "| generated images | noise-free | magnitude 20 | magnitude 23 |",
        "|---|--:|--:|--:|",
    ]
    for change in CHANGES:
        cells = [
            f"{row['mean']:.3f} +- {row['standard_deviation']:.3f}"
            for row in rows
            if row["change"] == change
        ]
        lines.append(f"| {change} | " + " | ".join(cells) + " |")
    lines += ["", "Real against real, the false alarms (more than 3 stated errors above 0.5):", ""]
    lines += [
        "| noise | trials | mean | deviation | stated error | smallest | largest | alarms |",
        "|---|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for row in rows:
        if row["change"] == "null":
            values = row["accuracies"]
            name = "noise-free" if row["magnitude"] is None else f"magnitude {row['magnitude']:g}"
            lines.append(
                f"| {name} | {len(values)} | {row['mean']:.3f} | {row['standard_deviation']:.3f} |"
                f" {row['stated_error']:.3f} | {min(values):.3f} | {max(values):.3f} |"
                f" {row['told_apart']} |"
            )
    lines += [
        "",
        "Six networks (generated and control at three noise levels), compilation included:",
        "",
        "| images a side | processor seconds | wall seconds |",
        "|--:|--:|--:|",
    ]
    lines += [
        f"| {timing['images_a_side']} | {timing['cpu_s']:.0f} | {timing['wall_s']:.0f} |"
        for timing in results["times"]
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measures, prints and writes the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=500, help="images on each side")
    parser.add_argument("--repeats", type=int, default=3, help="trials of each change")
    parser.add_argument("--null-repeats", type=int, default=20, help="trials of real against real")
    parser.add_argument("--output", type=pathlib.Path, default=ROOT / "benchmarks" / "results")
    arguments = parser.parse_args()
    times = [time_calls(count) for count in (arguments.images, 2 * arguments.images)]
    rows = []
    for change in CHANGES:
        repeats = arguments.null_repeats if change == "null" else arguments.repeats
        for magnitude in MAGNITUDES:
            rows.append(measure(change, magnitude, arguments.images, repeats))
            print(f"{change}, {magnitude}: {rows[-1]['mean']:.3f}", flush=True)
    hardware = provenance.hardware()
    results = {
        "hardware": f"{os.cpu_count()} cores, {hardware['cpu_model']}",
        "versions": provenance.versions(),
        "times": times,
        "rows": rows,
    }
    (arguments.output / "c2st.json").write_text(
        json.dumps(results, indent=2) + "\n", encoding="utf-8"
    )
    (arguments.output / "c2st.md").write_text(table(results), encoding="utf-8")
    print(table(results))


if __name__ == "__main__":
    main()
