"""Instrument noise: its variance in closed form, and the simulator's own noise beside it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lensjax import prng
from lensjax.data.simulator import add_noise, simulate
from lensjax.data.surveys import SURVEYS
from lensjax.metrics.noise import add_instrument_noise


def lens(survey) -> np.ndarray:
    keys = prng.keys(prng.key(0, "test"), jnp.arange(1))
    return np.asarray(simulate(keys, survey, "cdm")[0])


@pytest.mark.parametrize("name", ["model_ii", "model_iii"])
def test_noise_at_magnitude_20_is_the_simulators(name):
    survey, count = SURVEYS[name], 400
    image = lens(survey)
    ours = add_instrument_noise(np.repeat(image, count, axis=0), survey, 20.0, seed=1)
    keys = prng.keys(prng.key(1, "test"), jnp.arange(count))
    theirs = np.asarray(jax.vmap(lambda key: add_noise(key, image[0], survey)[0])(keys))
    for moment in (np.mean, np.std):
        expected, found = moment(theirs, axis=0), moment(ours, axis=0)
        error = np.std(theirs, axis=0) * np.sqrt(2 / count)
        deviations = (found - expected) / error
        assert abs(deviations.mean()) < 0.1
        assert deviations.std() < 1.1
        assert abs(deviations).max() < 5.5


@pytest.mark.parametrize("magnitude", [18.0, 20.0, 23.0])
def test_moments_in_closed_form(magnitude):
    survey = SURVEYS["model_ii"]
    image = np.linspace(-0.5, 2, 64 * 64).reshape(1, 64, 64)
    scaled = image[0] * 10 ** (0.4 * (20 - magnitude))
    noisy = add_instrument_noise(np.repeat(image, 1000, axis=0), survey, magnitude, seed=0)
    assert noisy.dtype == np.float32
    variance = survey.background_rms**2 + np.maximum(scaled, 0) / 2260
    normal = (noisy - scaled) / np.sqrt(variance)
    assert np.max(abs(normal.mean(axis=0))) < 5.5 / np.sqrt(1000)
    assert np.max(abs(normal.var(axis=0) - 1)) < 5.5 * np.sqrt(2 / 1000)
    assert normal.var() == pytest.approx(1, abs=5 * np.sqrt(2 / normal.size))
    assert np.mean(normal**4) == pytest.approx(3, abs=0.03)


def test_noise_is_a_function_of_seed_and_place():
    survey = SURVEYS["model_ii"]
    images = np.random.default_rng(0).random((5, 16, 16)).astype(np.float32)
    noisy = add_instrument_noise(images, survey, 22.0, seed=3)
    np.testing.assert_array_equal(add_instrument_noise(images[:2], survey, 22.0, 3), noisy[:2])
    assert np.all(add_instrument_noise(images, survey, 22.0, seed=4) != noisy)
    same = add_instrument_noise(np.zeros((2, 16, 16)), survey, 22.0, seed=3)
    assert np.all(same[0] != same[1])
    assert images.max() <= 1  # left as they were


def test_model_i_needs_an_exposure_and_the_others_have_one():
    image = np.ones((1, 16, 16))
    with pytest.raises(ValueError, match=r"model_i draws an exposure time .* pass exposure_time_s"):
        add_instrument_noise(image, SURVEYS["model_i"], 20.0, 0)
    many = np.ones((2000, 8, 8))
    noisy = add_instrument_noise(many, SURVEYS["model_i"], 20.0, 0, exposure_time_s=2000.0)
    assert noisy.var() == pytest.approx(0.01**2 + 1 / 2000, rel=0.02)
    with pytest.raises(ValueError, match="model_ii has its own, 2260 s"):
        add_instrument_noise(image, SURVEYS["model_ii"], 20.0, 0, exposure_time_s=5.0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"images": np.ones((16, 16))}, r"allowed: \[N, H, W\]"),
        ({"images": np.full((2, 16, 16), np.nan)}, "2 of 2 have pixels that are NaN"),
        ({"magnitude": np.inf}, "magnitude is inf; it must be finite"),
        ({"seed": -1}, "seed is -1; it must be 0 or above"),
        ({"survey": SURVEYS["model_i"], "exposure_time_s": 0.0}, "must be finite and above 0"),
    ],
)
def test_bad_input_is_refused(change, message):
    arguments = {"images": np.ones((2, 16, 16)), "survey": SURVEYS["model_ii"], "magnitude": 20.0}
    with pytest.raises(ValueError, match=message):
        add_instrument_noise(**{**arguments, "seed": 0, **change})
