"""Radial profiles and power spectra: closed forms and loops over pixels."""

import numpy as np
import pytest

from lensjax.metrics import spectra


def test_profile_of_a_gaussian_disc():
    place = np.arange(64) - 31.5
    distance = np.hypot(place[None, :], place[:, None])
    images = np.exp(-0.5 * (distance / 7) ** 2).astype(np.float32)[None] * np.float32(3.0)
    radii, profiles = spectra.radial_profiles(images, 0.1)
    np.testing.assert_allclose(radii, 0.1 * (np.arange(32) + 0.5))
    assert profiles.shape == (1, 32)
    expected = np.maximum(-0.5 * (radii / 0.7) ** 2 / np.log(10), -4)
    np.testing.assert_allclose(profiles[0, 1:], expected[1:], atol=0.03)
    assert profiles[0, -1] == -4


@pytest.mark.parametrize("shape", [(16, 16), (15, 15), (12, 21)])
def test_profiles_and_spectra_by_loops(shape):
    height, width = shape
    images = np.random.default_rng(0).exponential(size=(2, *shape)).astype(np.float32)
    _, profiles = spectra.radial_profiles(images, 1.0)
    power = spectra.power_spectra(images)
    side = min(shape)
    assert profiles.shape == (2, side // 2)
    assert power.shape == (2, side // 2 + 1)
    for index, image in enumerate(images.astype(np.float64)):
        rings: dict[int, list[float]] = {k: [] for k in range(99)}
        bins: dict[int, list[float]] = {k: [] for k in range(99)}
        square = abs(np.fft.fft2(image)) ** 2 / image.size
        for row in range(height):
            for column in range(width):
                distance = np.hypot(row - (height - 1) / 2, column - (width - 1) / 2)
                rings[int(distance)].append(image[row, column])
                frequency = np.hypot(np.fft.fftfreq(height)[row], np.fft.fftfreq(width)[column])
                bins[int(np.floor(frequency * side + 0.5))].append(square[row, column])
        for k in range(side // 2):
            expected = np.log10(np.mean(rings[k]) / image.max())
            assert profiles[index, k] == pytest.approx(expected, abs=1e-5)
        for k in range(side // 2 + 1):
            assert power[index, k] == pytest.approx(np.mean(bins[k]), rel=1e-4)


def test_white_noise_has_its_variance_at_every_frequency():
    noise = np.random.default_rng(0).normal(scale=0.3, size=(300, 32, 32)).astype(np.float32)
    power = spectra.power_spectra(noise)
    np.testing.assert_allclose(power[:, 1:].mean(axis=0), 0.09, rtol=0.1)
    assert power.shape == (300, 17)


def test_wave_has_one_frequency():
    wave = np.cos(2 * np.pi * 5 * np.arange(32) / 32)[None, :] * np.ones((32, 1))
    power = spectra.power_spectra(wave[None])[0]
    assert np.argmax(power) == 5
    assert np.sum(np.delete(power, 5)) < 1e-6 * power[5]


def test_profile_of_black_and_negative_images_is_at_the_floor():
    for value in (0.0, -1.0):
        _, profiles = spectra.radial_profiles(np.full((1, 16, 16), value), 0.1)
        assert (profiles == -4).all()


@pytest.mark.parametrize(
    "measure", [lambda x: spectra.radial_profiles(x, 0.1), spectra.power_spectra]
)
def test_bad_images_are_refused(measure):
    with pytest.raises(ValueError, match=r"allowed: \[N, H, W\]"):
        measure(np.zeros((2, 16, 16, 1)))
    with pytest.raises(ValueError, match="2 of 2 have pixels that are NaN"):
        measure(np.full((2, 16, 16), np.nan))
