"""Images in other units than flux are noticed, and those of a poor generator are not."""

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from lensjax.data.units import evidence, summarise, suspicion

AXES = (1, 2, 3)


def rings(num: int, seed: int, unit: float = 0.8) -> np.ndarray:
    """Rings of various size and brightness with some noise, `[num, 16, 16, 1]`."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[-8:8, -8:8] + 0.5
    radius = random.uniform(3, 6, (num, 1, 1))
    images = np.exp(-0.5 * (np.hypot(x, y) - radius) ** 2) * random.uniform(0.7, 1.4, (num, 1, 1))
    images += 0.01 * random.normal(size=images.shape)
    return (unit * images).astype(np.float32)[..., None]


REAL, GIVEN = rings(60, seed=0), rings(40, seed=1)
LOW, HIGH = GIVEN.min(axis=AXES, keepdims=True), GIVEN.max(axis=AXES, keepdims=True)
UNIT = (GIVEN - LOW) / (HIGH - LOW)
TOGETHER = np.clip(GIVEN, 0, None) / GIVEN.max()
WRONG = {
    "each was scaled to 0..255": (np.round(255 * UNIT), "image_scale=minmax"),
    "like 8-bit pictures: whole numbers from 0 to 255": (
        np.round(255 * TOGETHER),
        "image_scale=minmax",
    ),
    "each was scaled to 0..1": (UNIT, "image_scale=minmax"),
    "each was scaled to -1..1": (2 * UNIT - 1, "image_scale=minmax"),
    "each was divided by its maximum": (GIVEN / HIGH, "image_scale=max"),
    "all were scaled to 0..1 together": (TOGETHER, "image_factor="),
    "all were scaled to -1..1 together": (2 * TOGETHER - 1, "image_scale=minmax"),
    "like the negative of lenses": (-GIVEN, "image_factor=-1"),
    "times as bright as those of the set": (1000 * GIVEN, "image_factor="),
}


def found(images: np.ndarray, real: np.ndarray = REAL):
    return suspicion(summarise(images.astype(np.float32)), summarise(real))


@pytest.mark.parametrize("words", WRONG)
def test_images_in_other_units_are_noticed(words):
    images, remedy = WRONG[words]
    said = found(images)
    assert said is not None
    assert words in said.words
    assert said.remedy.startswith(remedy)
    assert said.certain


@pytest.mark.parametrize("factor", [0.003, 0.1, 20, 1000])
def test_the_factor_is_named(factor):
    said = found(factor * GIVEN)
    assert float(said.remedy.partition("=")[2]) == pytest.approx(factor, rel=0.1)
    assert said.certain


@pytest.mark.parametrize("factor", [2, 0.4])
def test_a_small_factor_is_a_doubt_alone(factor):
    said = found(factor * GIVEN)
    assert said is not None
    assert not said.certain


@pytest.mark.parametrize(
    "images",
    [
        GIVEN,
        1.3 * GIVEN,
        0.7 * GIVEN,
        0 * GIVEN,
        np.ones_like(GIVEN),
        gaussian_filter(GIVEN, (0, 3, 3, 0)),
        (GIVEN + GIVEN[::-1]) / 2,
        np.random.default_rng(0).permuted(GIVEN, axis=1),
        np.random.default_rng(0).normal(GIVEN.mean(), GIVEN.std(), GIVEN.shape),
        GIVEN[:2],
        GIVEN[:1],
    ],
)
def test_poor_generators_are_not_taken_for_other_units(images):
    assert found(images) is None


def test_a_generator_that_clips_is_a_doubt_alone():
    said = found(np.clip(GIVEN, 0, 0.37))
    assert said is None or not said.certain


def test_counts_below_256_are_flux_where_the_set_is_of_counts():
    counts = np.round(np.clip(100 * REAL, 0, None))
    assert found(np.round(np.clip(100 * GIVEN, 0, None)), counts) is None


def test_a_set_whose_images_are_scaled_one_by_one_says_nothing_about_scales():
    real_low, real_high = REAL.min(axis=AXES, keepdims=True), REAL.max(axis=AXES, keepdims=True)
    assert found(UNIT, (REAL - real_low) / (real_high - real_low)) is None


def test_lenses_of_very_different_flux_allow_a_large_factor():
    spread = np.random.default_rng(0).lognormal(0, 2, (60, 1, 1, 1))
    said = found(7 * GIVEN, (REAL * spread).astype(np.float32))
    assert said is None or not said.certain


def test_the_evidence_has_the_numbers_of_both():
    text = evidence(summarise(1000 * GIVEN), summarise(REAL), "counts")
    assert f"{np.median(1000 * GIVEN.sum(axis=AXES)):.3g}" in text
    assert f"{np.median(REAL.max(axis=AXES)):.3g} counts" in text
