"""Colours against magnitudes in closed form, also of fluxes that have no logarithm."""

import numpy as np
import pytest

from lensjax.errors import MeasureError
from lensjax.metrics.colours import (
    APERTURE_SHARE,
    LEAST_SOFTENING,
    aperture_fluxes,
    measure_colours,
    softenings,
)

RANDOM = np.random.default_rng(0)
NOISE = np.array([0.1, 2.0, 30.0])
FLUX = np.array([50.0, 400.0, 9000.0])


def images_of(flux, num: int = 40, noise=NOISE, side: int = 21) -> np.ndarray:
    """Images whose flux is all in the central pixel, with noise around it."""
    images = RANDOM.normal(size=(num, side, side, 3)) * noise
    images[:, side // 2, side // 2] = flux
    return images.astype(np.float32)


def test_the_aperture_is_a_circle_around_the_centre():
    ones = np.ones((1, 41, 61, 2), np.float32)
    area = aperture_fluxes(ones)
    assert area.shape == (1, 2)
    np.testing.assert_allclose(area, np.pi * (APERTURE_SHARE * 41 / 2) ** 2, rtol=0.02)
    corner = np.zeros((1, 9, 9, 2), np.float32)
    corner[:, :2, :2] = 1
    np.testing.assert_array_equal(aperture_fluxes(corner), 0)


def test_a_bright_image_has_the_usual_colours():
    images = images_of(FLUX, noise=np.zeros(3))
    softening = softenings(images)
    np.testing.assert_allclose(softening, LEAST_SOFTENING * FLUX, rtol=1e-6)
    magnitudes = -2.5 * np.log10(FLUX)
    expected = magnitudes[:-1] - magnitudes[1:]
    np.testing.assert_allclose(
        measure_colours(images, softening), expected[None] + 0 * images[:, 0, 0, :2], atol=1e-4
    )


def test_the_softening_is_the_noise_of_the_aperture():
    images = images_of(0.0, num=400)
    inside = np.hypot(*np.mgrid[-10:11, -10:11]) <= APERTURE_SHARE * 21 / 2
    expected = NOISE * np.sqrt(inside.sum())
    np.testing.assert_allclose(softenings(images), expected, rtol=0.05)
    np.testing.assert_allclose(aperture_fluxes(images).std(axis=0), expected, rtol=0.1)


@pytest.mark.parametrize("factor", [-3.0, -1.0, 0.0, 1.0])
def test_flux_of_zero_and_below_has_finite_colours_that_grow(factor):
    """The first band's flux alone changes: fainter is a larger magnitude, so a larger colour."""
    softening = np.array([1.0, 20.0, 300.0])
    images = images_of(np.array([factor, 10.0, 100.0]), num=1, noise=np.zeros(3))
    brighter = images_of(np.array([factor + 0.5, 10.0, 100.0]), num=1, noise=np.zeros(3))
    one, other = (measure_colours(x, softening)[0] for x in (images, brighter))
    assert np.isfinite(one).all()
    assert other[0] < one[0]
    assert other[1] == one[1]


def test_black_bands_have_a_colour_and_wrong_images_have_none():
    black = np.zeros((3, 9, 9, 2), np.float32)
    np.testing.assert_array_equal(measure_colours(black, softenings(black)), 0)
    with pytest.raises(MeasureError, match=r"allowed: \[N, H, W, 2\]"):
        measure_colours(black[..., :1], np.ones(2))
    with pytest.raises(MeasureError, match="NaN or infinite"):
        measure_colours(np.full_like(black, np.nan), np.ones(2))
