"""Can a network tell generated from real? The two-sample network with its control."""

import functools
from typing import Any

import numpy as np

from lensjax.evaluation.baselines import CONTROL, baseline_images
from lensjax.evaluation.noise_levels import levels, with_noise
from lensjax.evaluation.rows import Row, Setting
from lensjax.metrics.baselines import BLUR_FACTOR
from lensjax.metrics.c2st import MIN_COUNT
from lensjax.metrics.c2st import c2st as two_sample_test


@functools.lru_cache(maxsize=1)
def _control(setting: Setting) -> Row:
    """The control: training images with a wider blur, not those of the baseline row."""
    images, labels = baseline_images(CONTROL, setting, setting.settings.seed + 1)
    return Row("control", images, labels, setting)


def _as_many(control: Row, row: Row) -> np.ndarray:
    """Places of the control in the numbers of the row's classes."""
    known = [
        np.flatnonzero(control.labels == label)[: int(np.sum(row.labels == label))]
        for label in np.unique(row.labels)
    ]
    places = np.concatenate(known)
    if len(places):
        return places
    order = np.random.default_rng(control.setting.settings.seed).permutation(len(control.labels))
    return order[: len(row.labels)]  # a row without labels


def c2st(row: Row, real: Row, setting: Setting) -> dict[str, Any]:
    """How well a network tells a row from real images, by noise level.

    None for the real images themselves and for fewer than the test needs.
    """
    if row is real or min(len(row.images), len(real.images)) < MIN_COUNT:
        return {}
    control = _control(setting)
    places = _as_many(control, row)
    row_places = np.arange(len(places))  # a class may have more images than the control
    if len(places) < len(row.images):
        random = np.random.default_rng(setting.settings.seed)
        row_places = np.sort(random.permutation(len(row.images))[: len(places)])
    found: dict[str, Any] = {}
    for level, magnitude in levels(setting).items():
        originals, images, controls = (
            with_noise(one, magnitude)[..., 0] for one in (real, row, control)
        )
        result = two_sample_test(
            originals, images[row_places], controls[places], setting.settings.seed
        )
        found[level] = {
            "num_images": len(places),
            "accuracy": result.accuracy.value,
            "error": result.accuracy.error,
            "control_accuracy": result.control.value,
            "control_error": result.control.error,
            "has_power": result.has_power,
            "verdict": result.verdict,
        }
    return found


def protocol(setting: Setting) -> dict[str, Any]:
    """What the numbers of `c2st` depend on."""
    return {
        "network": "fixed spectra and principal components, a trained layer of 64; three members",
        "judged_on": "the half that it was not trained on, both halves in turn",
        "control": f"training images, point-spread function x {BLUR_FACTOR:g}",
        "least_images": MIN_COUNT,
        "levels": list(levels(setting)),
        "score": "behind the instrument's noise; noise-free numbers are a diagnostic",
    }
