"""Colour composites: the formula, and a stretch that strange pixels do not move."""

import numpy as np
import pytest

from lensjax.run.composites import Stretch, composite_bands, fit_stretch, lupton_rgb

RANDOM = np.random.default_rng(0)
IMAGES = RANDOM.normal(size=(4, 29, 31, 3)) * (1.0, 20.0, 300.0) + (5.0, 0.0, -7.0)


@pytest.mark.parametrize(
    ("num", "bands"), [(1, None), (2, None), (3, (2, 1, 0)), (4, (3, 2, 0)), (5, (4, 2, 0))]
)
def test_red_is_the_last_band_and_blue_the_first(num, bands):
    assert composite_bands(num) == bands


def test_the_picture_is_that_of_lupton_and_others():
    """Equations 2 and 3 of the paper, pixel by pixel: I, then f(I) / I times each band."""
    stretch = Stretch(np.array([1.0, 2.0, 3.0]), np.array([2.0, 4.0, 7.0]), 0.2)
    image = RANDOM.uniform(0.0, 8.0, (50, 3))
    found = lupton_rgb(image, stretch)
    for pixel, colour in zip(image, found, strict=True):
        bands = [
            max(0.0, (flux - b) / (w - b)) for flux, b, w in zip(pixel, *stretch[:2], strict=True)
        ]
        mean = sum(bands) / 3
        factor = np.arcsinh(mean / 0.2) / np.arcsinh(1 / 0.2) / mean if mean else 0.0
        expected = np.array(bands) * factor
        np.testing.assert_allclose(colour, expected / max(1.0, expected.max()), rtol=1e-12)


def test_the_stretch_is_robust_and_knows_each_band():
    stretch = fit_stretch(list(IMAGES))
    spoilt = IMAGES.copy()
    spoilt[0, 0, 0] = 1e9
    spoilt[1, 2, 3, 1] = np.nan
    for one, other in zip(stretch, fit_stretch([spoilt]), strict=True):
        np.testing.assert_allclose(np.asarray(other), np.asarray(one), rtol=0.3, atol=0.5)
    flux = IMAGES.reshape(-1, 3)
    np.testing.assert_allclose(stretch.black, np.median(flux, axis=0))
    assert (stretch.white > np.percentile(flux, 99, axis=0)).all()
    np.testing.assert_allclose(lupton_rgb(stretch.white, stretch), 1.0)
    np.testing.assert_allclose(lupton_rgb(stretch.black, stretch), 0.0)


@pytest.mark.parametrize("value", [0.0, 3.0, np.nan, np.inf])
def test_images_without_contrast_or_measurement_are_drawn(value):
    image = np.full((2, 5, 5, 3), value, np.float32)
    picture = lupton_rgb(image, fit_stretch([image]))
    assert np.isfinite(picture).all()
    assert (picture == (0, 128 / 255, 0)).all() or (picture == 0).all()
