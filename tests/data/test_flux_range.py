"""Ranges of flux: a set's own images are inside, images in other units are not."""

import json

import numpy as np
import pytest

from lensjax.data.arrays import simulate
from lensjax.data.flux_range import FEATURES, features, fit_flux_range, is_flux_range, outside

CLASS_NAMES = ("axion", "cdm", "no_sub")


def rings(num: int, seed: int, noise: float = 0.0, spread: float = 0.2) -> np.ndarray:
    """Rings of various brightness, `[num, 24, 24, 1]`."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[-12:12, -12:12] + 0.5
    radius = random.uniform(5, 8, (num, 1, 1))
    images = np.exp(-0.5 * (np.hypot(x, y) - radius) ** 2) * random.lognormal(
        0.0, spread, (num, 1, 1)
    )
    return (images + noise * random.normal(size=images.shape)).astype(np.float32)[..., None]


def in_other_units(images: np.ndarray) -> dict[str, np.ndarray]:
    """The images as other programs hand them on."""
    axes = (1, 2, 3)
    low, high = images.min(axis=axes, keepdims=True), images.max(axis=axes, keepdims=True)
    unit = (images - low) / (high - low)
    return {
        "8 bits": np.round(255 * unit),
        "-1..1": 2 * unit - 1,
        "zeros": 0 * images,
        "ten times": 10 * images,
        "negative": -images,
    }


def share_outside(ranges, images: np.ndarray) -> float:
    return float(np.mean([bool(reason) for reason in outside(ranges, images.astype(np.float32))]))


def test_the_numbers_of_an_image_are_what_their_names_say():
    images = rings(5, seed=0, noise=0.05)
    found = features(images)
    assert set(found) == set(FEATURES)
    axes = (1, 2)
    np.testing.assert_allclose(found["mean"], images.mean(axis=axes), rtol=1e-5)
    np.testing.assert_allclose(found["deviation"], images.std(axis=axes), rtol=1e-5)
    np.testing.assert_array_equal(found["peak"], images.max(axis=axes))
    np.testing.assert_array_equal(found["minimum"], images.min(axis=axes))


def test_noise_is_measured_beside_a_smooth_image():
    random = np.random.default_rng(0)
    noise = random.normal(0, 0.3, (20, 64, 64, 1)).astype(np.float32)
    slope = np.linspace(0, 50, 64, dtype=np.float32)[:, None, None]
    np.testing.assert_allclose(features(noise + slope)["noise"], 0.3, rtol=0.1)
    assert np.all(features(0 * noise + slope)["noise"] < 1e-5)


def test_pixels_without_a_measurement_do_not_count():
    images = rings(6, seed=1, noise=0.05)
    masked = np.concatenate([images, np.full_like(images, np.nan)], axis=1)
    masked[5] = np.nan
    found, expected = features(masked), features(images)
    for name in FEATURES:
        # The row beside the masked half has no neighbours, so the noise is of fewer pixels.
        tolerance = 0.1 if name == "noise" else 1e-5
        np.testing.assert_allclose(found[name][:5], expected[name][:5], rtol=tolerance)
        assert np.isnan(found[name][5]).all()
    assert not outside([fit_flux_range(images)], masked[5:])[0]


@pytest.mark.parametrize("num", [100, 1000])
@pytest.mark.parametrize("noise", [0.0, 0.02])
def test_own_images_are_inside_and_other_units_outside(num, noise):
    ranges = [fit_flux_range(rings(num, seed=2, noise=noise))]
    test = rings(1000, seed=3, noise=noise)
    assert share_outside(ranges, test) == 0
    for name, images in in_other_units(test).items():
        assert share_outside(ranges, images) == 1, name


def test_a_dozen_images_give_a_range_too():
    ranges = [fit_flux_range(rings(12, seed=2))]
    assert share_outside(ranges, rings(1000, seed=3)) < 0.01
    assert share_outside(ranges, 255 * rings(1000, seed=3)) == 1


def test_noise_tells_the_scale_where_lenses_differ_much():
    """A set whose fluxes reach over a factor of a thousand."""
    ranges = [fit_flux_range(rings(1000, seed=4, noise=0.02, spread=1.2))]
    test = rings(1000, seed=5, noise=0.02, spread=1.2)
    assert share_outside(ranges, test) == 0
    assert share_outside(ranges, 10 * test) == 1


def test_an_image_is_inside_one_of_several_kinds_or_outside():
    quiet, noisy = rings(300, seed=6), 0.2 * rings(300, seed=7, noise=0.5)
    ranges = [fit_flux_range(quiet), fit_flux_range(noisy)]
    assert share_outside(ranges, rings(300, seed=8)) == 0
    assert share_outside(ranges, 0.2 * rings(300, seed=9, noise=0.5)) == 0
    # As faint as the noisy kind, but without its noise.
    assert share_outside(ranges, 0.05 * rings(300, seed=10)) == 1


def test_a_few_bright_pixels_do_not_widen_the_range():
    images = rings(1000, seed=11)
    hit = images.copy()
    hit[:12, 3, 3] = 1e6
    assert fit_flux_range(hit)["peak"][0][1] < 1.2 * fit_flux_range(images)["peak"][0][1]


def test_the_reason_names_the_number_the_channel_and_what_is_usual():
    images = np.concatenate([rings(50, seed=12), rings(50, seed=13)], axis=-1)
    bright = images[:2].copy()
    bright[1, 4, 5, 1] = 1e3
    first, second = outside([fit_flux_range(images)], bright)
    assert first == ""
    assert "of channel 1" in second
    assert "in training" in second


def test_ranges_survive_json_and_others_are_recognised():
    bounds = fit_flux_range(np.concatenate([rings(50, seed=1)] * 2, axis=-1))
    assert json.loads(json.dumps(bounds)) == bounds
    assert is_flux_range(bounds, 2)
    for other in (
        None,
        {},
        [bounds],
        {**bounds, "peak": [[0, 1]]},
        {**bounds, "more": [[0, 1]] * 2},
    ):
        assert not is_flux_range(other, 2)
    assert not is_flux_range({**bounds, "peak": [[0, 1], [0, float("nan")]]}, 2)


def test_no_images_are_no_trouble():
    assert outside([fit_flux_range(rings(20, seed=1))], rings(20, seed=1)[:0]) == []


@pytest.mark.nightly
@pytest.mark.parametrize("name", ["model_ii", "model_ii_noisy", "model_ii_conserved", "model_iii"])
def test_simulated_lenses_are_inside_and_in_other_units_outside(name):
    train, test = (
        np.concatenate([simulate(name, label, 340, seed=seed)[0] for label in CLASS_NAMES])
        for seed in (1, 2)
    )
    ranges = [fit_flux_range(train)]
    assert share_outside(ranges, test) == 0
    for kind, images in in_other_units(test).items():
        assert share_outside(ranges, images) == 1, kind
