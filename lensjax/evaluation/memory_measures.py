"""Measures of memory: copies, remembered sub-structure, and a hole in the training set."""

import dataclasses
import math
from typing import Any

import numpy as np

from lensjax.evaluation.rows import ALL, Row, Setting
from lensjax.evaluation.shape_measures import real_of
from lensjax.metrics.memory import (
    NEAR_SHARE,
    Comparison,
    NeighbourTest,
    hole_test,
    neighbour_test,
    planted_copies,
)
from lensjax.metrics.two_sample import LEVEL
from lensjax.metrics.variety import LEAST_IMAGES, twin_test

_NUM_PLANTED = 200
# Only these classes have sub-structure that could be remembered.
_WITH_SUBSTRUCTURE = ("cdm", "axion")


def _compared(comparison: Comparison, name: str) -> dict[str, Any]:
    return {
        f"{name}_share": comparison.share,
        f"{name}_share_high": comparison.share_high,
        f"{name}_expected": comparison.expected_share,
        f"{name}_p": comparison.p_value,
    }


def _scores(test: NeighbourTest, count: int) -> dict[str, Any]:
    return {
        "num_images": count,
        "identical": test.num_identical,
        "p": test.p_value,
        "power": test.power,
        "most_copies": test.most_copies,
        "verdict": test.verdict,
        "nearest_distance": float(test.distance.min()),
        "median_distance": float(np.median(test.distance)),
        **_compared(test.nearness, "near"),
        **_compared(test.isolation, "isolated"),
    }


def _train_of(group: str, setting: Setting) -> np.ndarray:
    """The training images of a group in the scale of the rows, `[T, H, W, C]`."""
    train = setting.train(setting.settings.train_images)
    return train.images if group == ALL else train.of(group)


def _balanced(images: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Images `[N, H, W, C]` with each band divided by its RMS in reference images.

    Otherwise the brightest band, or the one with the smallest unit, alone would decide how near
    images are. A single band stays as it is: the distance ignores a common factor.
    """
    if images.shape[-1] == 1:
        return images
    rms = np.sqrt(np.mean(np.square(reference, dtype=np.float64), axis=(0, 1, 2)))
    return images / np.where(rms > 0, rms, 1).astype(np.float32)


def _planted(train: np.ndarray, row: Row) -> np.ndarray | None:
    """Copies as imperfect as the generator's images; None if its error is unknown."""
    if row.setting.survey is None or "no_sub" not in row.groups:
        return None
    errors = row.residuals("no_sub").reshape(-1, *train.shape[1:])
    return planted_copies(train, errors, _NUM_PLANTED, row.setting.settings.seed)


def _of_bands(setting: Setting) -> str:
    """The words on several bands in the description of a distance."""
    return ", each band divided by its RMS" if setting.info.image_shape[-1] > 1 else ""


def copies(row: Row, real: Row, setting: Setting) -> dict[str, Any]:
    """For each group, how often images are as near to training images as copies are."""
    results = {}
    for group in row.groups:
        train = _train_of(group, setting)
        images, test = (_balanced(x, train) for x in (row.of(group), real_of(real, group)))
        train = _balanced(train, train)
        result = neighbour_test(images, train, test, _planted(train, row))
        results[group] = _scores(result, len(row.of(group)))
    return results


def twins(row: Row, real: Row, setting: Setting) -> dict[str, Any]:
    """For each group, how many images are nearer to each other than any real images are."""
    results = {}
    for group in row.groups:
        originals = real_of(real, group)
        count = min(len(row.of(group)), len(originals))
        if row is not real and count >= LEAST_IMAGES:
            images = _balanced(row.of(group), originals)
            test = twin_test(images, _balanced(originals, originals))
            all_twins = 0.5 ** math.ceil(count / 2)
            results[group] = {**test._asdict(), "has_power": all_twins < LEVEL}
        elif row is not real:
            results[group] = {"num_images": len(row.of(group))}
    return results


def protocol_of_twins(setting: Setting) -> dict[str, Any]:
    """The settings that the numbers of `twins` depend on."""
    return {
        "distance": f"between images of norm 1{_of_bands(setting)}",
        "num_twins": "images nearer to another image than any two of as many real images",
        "p": "2^-(half of the twins)",
    }


def residual_neighbours(row: Row, real: Row, setting: Setting) -> dict[str, Any]:
    """For each class with sub-structure, how often smooth-fit residuals copy training ones."""
    survey = setting.survey
    assert survey is not None
    results = {}
    for group in _WITH_SUBSTRUCTURE:
        if group not in row.groups:
            continue
        train = setting.train_residuals(group)
        test = real.residuals(group)
        result = neighbour_test(row.residuals(group), train, test, _planted(train, row))
        results[group] = _scores(result, len(row.of(group)))
    return results


def hole(row: Row, real: Row, setting: Setting) -> dict[str, Any]:
    """The density of sources in the disc that training left out."""
    if "no_sub" not in row.groups:
        return {}
    fit = row.smooth("no_sub")
    result = hole_test(fit.source_x, fit.source_y, fit.ratio, setting.disc)
    return {"no_sub": dataclasses.asdict(result) | {"verdict": result.verdict}} if result else {}


def protocol_of_neighbours(setting: Setting) -> dict[str, Any]:
    """The settings that the numbers of `copies` and `residual_neighbours` depend on."""
    return {
        "train_images_per_class": setting.settings.train_images,
        "test": "real images of the same number",
        "near": f"nearer to a training image than {NEAR_SHARE:.0%} of the test images are",
        "isolated": "the same for that distance over the distance to the second nearest",
        "distance": f"between images of norm 1{_of_bands(setting)}, also turned by 180 degrees",
        "p": "exact probability of the share if nothing was remembered (beta-binomial)",
    }
