"""The two-sample network: finds its control, finds nothing where there is nothing, and says so."""

import dataclasses
import functools
import math

import jax.numpy as jnp
import numpy as np
import pytest
import scipy.fft

from lensjax import prng
from lensjax.data.simulator import simulate
from lensjax.data.surveys import SURVEYS
from lensjax.metrics import c2st, c2st_inputs
from lensjax.metrics.noise import add_instrument_noise

SURVEY = SURVEYS["model_ii"]
COUNT = 120


@functools.cache
def lenses(seed: int, psf: float = 1.0, magnitude: float | None = 20.0) -> np.ndarray:
    """Fresh images for each seed, and another noise."""
    survey = dataclasses.replace(SURVEY, psf_fwhm_arcsec=psf * SURVEY.psf_fwhm_arcsec)
    keys = prng.keys(prng.key(seed, "test"), jnp.arange(COUNT))
    images = np.asarray(simulate(keys, survey, "cdm")[0])
    return images if magnitude is None else add_instrument_noise(images, SURVEY, magnitude, seed)


@functools.cache
def result() -> c2st.C2ST:
    """Real images in the place of the generated ones, and the control."""
    return c2st.c2st(lenses(0), lenses(1), lenses(2, 1.3))


def test_real_images_are_not_told_apart_and_the_control_is():
    found = result()
    assert abs(found.accuracy.value - 0.5) < 3 * found.accuracy.error
    assert found.control.value > 0.8
    assert found.has_power
    assert found.verdict == "not told apart"


@pytest.mark.parametrize("magnitude", [20.0, pytest.param(None, marks=pytest.mark.nightly)])
def test_wider_psf_is_told_apart(magnitude):
    real, generated = lenses(0, magnitude=magnitude), lenses(3, 1.3, magnitude)
    found = c2st.c2st(real, generated, lenses(2, 1.3, magnitude))
    assert found.accuracy.value > 0.8
    assert found.verdict == "told apart"


def test_without_a_control_that_is_found_there_is_no_power():
    garbage = np.random.default_rng(0).normal(size=(COUNT, 64, 64)).astype(np.float32)
    found = c2st.c2st(lenses(0), garbage, lenses(2))
    assert found.accuracy.value > 0.98
    assert not found.has_power
    assert found.verdict == "no power"


def test_control_does_not_depend_on_the_generator():
    garbage = 1e3 * np.random.default_rng(1).normal(size=(COUNT, 64, 64)).astype(np.float32)
    assert c2st.c2st(lenses(0), garbage, lenses(2, 1.3)).control == result().control


def test_seed_decides_everything():
    again, other = (c2st.c2st(lenses(0), lenses(1), lenses(2, 1.3), seed) for seed in (0, 1))
    assert again[:4] == result()[:4]
    np.testing.assert_array_equal(again.logits[0], result().logits[0])
    assert np.all(other.logits[0] != again.logits[0])


def test_accuracy_is_that_of_the_logits():
    found = result()
    real, generated = found.logits
    assert real.shape == generated.shape == (COUNT,)
    assert found.accuracy.real == np.mean(real < 0)
    assert found.accuracy.other == np.mean(generated > 0)
    assert found.accuracy.value == (found.accuracy.real + found.accuracy.other) / 2


def test_unit_of_the_flux_does_not_matter():
    real, generated, control = (1e-3 * images for images in (lenses(0), lenses(1), lenses(2, 1.3)))
    found = c2st.c2st(real, generated, control)
    assert found.control.value == pytest.approx(result().control.value, abs=0.03)


def test_odd_and_unequal_numbers():
    """Every image is judged, whatever falls to which half."""
    random = np.random.default_rng(0)
    real = random.normal(size=(51, 16, 16)).astype(np.float32)
    other = random.normal(2.0, size=(64, 16, 16)).astype(np.float32)
    found = c2st.c2st(real, other, other[::-1])
    assert [len(side) for side in found.logits] == [51, 64]
    assert all(np.isfinite(side).all() for side in found.logits)
    assert found.accuracy.value > 0.97
    assert found.verdict == "told apart"


def test_error_in_closed_form():
    logits = np.concatenate([-np.ones(600), np.ones(400)])
    found = c2st._accuracy(logits, -logits)
    assert found.value == pytest.approx(0.6)
    # Two shares of 1,000 images, of which half count: sqrt(2 * 0.24 / 500) / 2.
    assert found.error == pytest.approx(math.sqrt(2 * 0.24 / 500) / 2, rel=1e-3)
    perfect = c2st._accuracy(-np.ones(100), np.ones(100))
    assert perfect.value == 1
    assert 0 < perfect.error < 0.02


def test_false_alarms_of_the_error():
    """Accuracies of networks that guess, halves perfectly tied: the error is their spread."""
    random = np.random.default_rng(0)
    values = []
    for _ in range(500):
        half = random.normal(size=(2, 100))
        values.append(c2st._accuracy(np.tile(half[0], 2), np.tile(half[1], 2)))
    spread = np.std([found.value for found in values])
    assert np.mean([found.error for found in values]) == pytest.approx(spread, rel=0.1)


def test_band_powers_by_filtering():
    """The last 15 bands are mean squared responses to cosine filters, the first rings."""
    images = np.random.default_rng(0).normal(size=(2, 12, 16)).astype(np.float32)
    found = np.exp(c2st_inputs.log_band_powers(images))
    assert found.shape == (2, 7 + 15)
    basis = scipy.fft.dct(np.eye(4), norm="ortho", axis=0)
    for index, image in enumerate(images):
        for number in range(1, 16):
            kernel = np.outer(basis[number // 4], basis[number % 4])
            response = sum(
                kernel[row, column] * np.roll(image, (row, column), (0, 1))
                for row in range(4)
                for column in range(4)
            )
            # The kernel's power sums to H W over all frequencies.
            expected = np.mean(np.square(response))
            assert found[index, 6 + number] == pytest.approx(expected, rel=1e-4)


def test_components_are_those_of_a_singular_value_decomposition():
    random = np.random.default_rng(1)
    basis = random.normal(size=(40, 90)) * 0.8 ** np.arange(90)
    images = random.normal(size=(7, 90))
    found = c2st_inputs._project(
        jnp.asarray(basis, jnp.float32), jnp.asarray(images, jnp.float32), 5
    )
    rows = np.linalg.svd(basis - basis.mean(axis=0), full_matrices=False)[2][:5]
    expected = (images - basis.mean(axis=0)) @ rows.T
    np.testing.assert_allclose(abs(np.asarray(found)), abs(expected), atol=1e-3)


@pytest.mark.parametrize("channels", [1, 3])
def test_inputs_are_standardised_on_the_training_part(channels):
    random = np.random.default_rng(2)
    images = random.exponential(size=(120, 16, 16, channels)).astype(np.float32)
    scales = np.ones(channels, np.float32), np.full(channels, 0.5, np.float32)
    layer = c2st_inputs.InputLayer(images, *scales)
    real, other = np.arange(0, 50), np.arange(60, 110)
    groups = layer.groups(real, other)
    powers = (9 + 15) * (2 * channels - 1)  # of channels and of neighbours' differences
    assert [group.shape[1] for group in groups] == [powers, 25, powers, 25]
    train = np.concatenate([real, other])
    for group in groups:
        np.testing.assert_allclose(group[train].mean(axis=0), 0, atol=1e-3)
        np.testing.assert_allclose(group[train].std(axis=0), 1, atol=1e-3)
    changed = images.copy()
    changed[115] *= 5  # an image that is judged
    others = c2st_inputs.InputLayer(changed, *scales).groups(real, other)
    for before, after in zip(groups, others, strict=True):
        np.testing.assert_allclose(after[:115], before[:115], atol=1e-4)


def test_each_channel_has_scales_of_its_own_and_one_channel_is_the_image_itself():
    random = np.random.default_rng(3)
    images = random.exponential(size=(60, 16, 16, 2)).astype(np.float32) * np.array(
        [1, 1e4], np.float32
    )
    rms, median = c2st._scales(images)
    np.testing.assert_allclose(rms, np.sqrt((images**2).mean(axis=(0, 1, 2))), rtol=1e-5)
    np.testing.assert_allclose(median, np.median(images, axis=(0, 1, 2)), rtol=1e-5)
    black = np.zeros_like(images)
    assert all(np.isfinite(scale).all() and (scale > 0).all() for scale in c2st._scales(black))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"generated": np.ones((49, 16, 16))},
            "generated images: got 49 images; allowed: at least 50",
        ),
        ({"generated": np.ones((60, 16, 16, 1))}, r"generated images: got shape .* \[N, H, W\]"),
        (
            {"generated": np.full((60, 16, 16), np.nan)},
            "generated images: 60 of 60 have pixels that are NaN",
        ),
        ({"generated": np.ones((60, 16, 17))}, r"images differ in size: real \(16, 16\)"),
        ({"control": np.ones((61, 16, 16))}, "got 61 control images and 60 generated ones"),
        ({"real": np.zeros((60, 16, 16))}, "real images are black"),
    ],
)
def test_bad_input_is_refused(change, message):
    images = {name: np.ones((60, 16, 16)) for name in ("real", "generated", "control")}
    with pytest.raises(ValueError, match=message):
        c2st.c2st(**{**images, **change})
