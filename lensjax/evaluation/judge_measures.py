"""Can a network tell generated from real? The two-sample network with its control."""

from typing import Any

import numpy as np

from lensjax.evaluation.baselines import control_row
from lensjax.evaluation.noise_levels import levels, with_noise
from lensjax.evaluation.rows import Row, Setting
from lensjax.metrics.baselines import BLUR_FACTOR
from lensjax.metrics.c2st import MIN_COUNT
from lensjax.metrics.c2st import c2st as two_sample_test


def _as_many(control: Row, row: Row) -> np.ndarray:
    """Places of control images, as many of each class as the row has."""
    places = np.concatenate(
        [
            np.flatnonzero(control.labels == label)[: int(np.sum(row.labels == label))]
            for label in np.unique(row.labels)
        ]
    )
    if len(places):
        return places
    order = np.random.default_rng(control.setting.settings.seed).permutation(len(control.labels))
    return order[: len(row.labels)]  # a row without labels


def c2st(row: Row, real: Row, setting: Setting) -> dict[str, Any]:
    """How well a network tells a row from real images, by noise level.

    {} for the real images themselves; for fewer images than the test needs, only their number.
    """
    if row is real:
        return {}
    if min(len(row.images), len(real.images)) < MIN_COUNT:
        return {level: {"num_images": len(row.images)} for level in levels(setting)}
    control = control_row(setting, row.most_per_class)
    places = _as_many(control, row)
    row_places = np.arange(len(places))  # a class may have more images than the control
    if len(places) < len(row.images):
        random = np.random.default_rng(setting.settings.seed)
        row_places = np.sort(random.permutation(len(row.images))[: len(places)])
    scores: dict[str, Any] = {}
    for level, magnitude in levels(setting).items():
        originals, images, controls = (
            with_noise(compared, magnitude) for compared in (real, row, control)
        )
        result = two_sample_test(
            originals, images[row_places], controls[places], setting.settings.seed
        )
        scores[level] = {
            "num_images": len(places),
            "accuracy": result.accuracy.value,
            "error": result.accuracy.error,
            "control_accuracy": result.control.value,
            "control_error": result.control.error,
            "has_power": result.has_power,
            "verdict": result.verdict,
        }
    return scores


def protocol(setting: Setting) -> dict[str, Any]:
    """The settings that the numbers of `c2st` depend on."""
    return {
        "network": "fixed spectra and principal components, a trained layer of 64; three members",
        "judged_on": "the half not used for training, both halves in turn",
        "control": f"training images, point-spread function x {BLUR_FACTOR:g}",
        "least_images": MIN_COUNT,
        "levels": list(levels(setting)),
        "score": "with the instrument's noise; noise-free numbers are a diagnostic",
    }
