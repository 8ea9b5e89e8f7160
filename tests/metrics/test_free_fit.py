"""The free fit of the lens: varied lenses are found back, and what errors do to it."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from fit_support import real

from lensjax.data.raytracing import render
from lensjax.data.surveys import SURVEYS
from lensjax.metrics import free_fit

SURVEY = SURVEYS["model_ii"]
NAMES = ("source_x", "source_y", *free_fit.TRUTH)
NUM = 24


@functools.cache
def varied():
    """Lenses around the truth, their images, and the fits."""
    spread = np.array([0.3, 0.3, 0.05, 0.05, 0.05, 0.03, 0.03])
    centre = np.array([0, 0, *free_fit.TRUTH.values()])
    random = np.random.default_rng(0).uniform(-1, 1, size=(NUM, 7))
    parameters = (centre + spread * random).astype(np.float32)

    def render_one(row):
        return render(free_fit._free_lens(row, SURVEY), SURVEY)

    images = np.asarray(jax.jit(jax.vmap(render_one))(jnp.asarray(parameters)))
    return parameters, images, free_fit.fit_free(images, SURVEY)


def test_varied_lenses_are_found():
    parameters, _, fit = varied()
    for name, truth in zip(NAMES, parameters.T, strict=True):
        np.testing.assert_allclose(getattr(fit, name), truth, atol=1e-5, err_msg=name)
    assert np.max(fit.ratio) < 1e-6
    assert fit.converged.all()


@pytest.mark.parametrize(
    ("name", "free_amplitude"),
    [("model_ii", True), pytest.param("model_iii", False, marks=pytest.mark.nightly)],
)
def test_constants_of_real_images(name, free_amplitude):
    images = real("no_sub", 8, name)[0]
    if free_amplitude:
        images = images / images.max(axis=(1, 2), keepdims=True)
    fit = free_fit.fit_free(images, SURVEYS[name], free_amplitude=free_amplitude)
    assert np.max(np.abs(fit.theta_e / free_fit.TRUTH["theta_e"] - 1)) < 1e-5
    for parameter, truth in free_fit.TRUTH.items():
        np.testing.assert_allclose(getattr(fit, parameter), truth, atol=1e-5)


def test_noise_has_no_bias_beyond_its_scatter():
    _, images, clean = varied()
    noise = np.random.default_rng(1).normal(size=images.shape).astype(np.float32)
    noisy = images + 0.01 * images.max(axis=(1, 2), keepdims=True) * noise
    fit = free_fit.fit_free(noisy, SURVEY)
    for name in free_fit.TRUTH:
        error = getattr(fit, name) - getattr(clean, name)
        assert abs(error.mean()) < 4 * error.std() / np.sqrt(NUM)
    theta_error = fit.theta_e / clean.theta_e - 1
    assert 1e-5 < np.std(theta_error) < 2e-3
