"""The spline correction of the potential: its derivatives, a known correction, cdm and errors."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.interpolate
from fit_support import real

from lensjax.data import raytracing
from lensjax.data.surveys import SURVEYS
from lensjax.metrics import fitting, potential_fit
from lensjax.metrics.lensing import fit_smooth

SURVEY = SURVEYS["model_ii"]
NUM = 40
RANDOM = np.random.default_rng(2)


@functools.cache
def cdm() -> tuple[potential_fit.PotentialFit, np.ndarray]:
    images = real("cdm", NUM)[0]
    smooth = fit_smooth(images, SURVEY)
    return potential_fit.fit_potential(images, SURVEY, smooth), smooth.ratio


def corrected(strength):
    """Parameters of a lens with a random correction."""
    coefficients = strength * RANDOM.normal(size=225)
    return jnp.asarray(np.concatenate([[0.1, -0.05, 1.0], coefficients]), jnp.float32)


@pytest.mark.parametrize("name", SURVEYS)
def test_splines_are_those_of_scipy(name):
    survey = SURVEYS[name]
    values, slopes = potential_fit._splines(survey)
    x = raytracing.pixel_centres(survey.num_pixels, survey.pixel_scale_arcsec)
    spacing = potential_fit.SPACING_PER_RING * survey.deflection_factor * 1.2814905676
    for index in range(15):
        knots = (index - 7 + np.arange(-2, 3)) * spacing
        spline = scipy.interpolate.BSpline.basis_element(knots, extrapolate=False)
        np.testing.assert_allclose(values[index], np.nan_to_num(spline(x)), atol=1e-12)
        slope = np.nan_to_num(spline.derivative()(x))
        np.testing.assert_allclose(slopes[index], slope, atol=1e-12)


@pytest.mark.parametrize("name", ["model_ii", pytest.param("model_iii", marks=pytest.mark.nightly)])
def test_expansion_is_that_of_the_model(name):
    """Gradient and normal matrix against automatic differentiation of the model alone."""
    survey = SURVEYS[name]
    parameters = corrected(2e-3).at[2].set(1.2)
    image = jnp.asarray(real("cdm", 1, name)[0][0])
    model = potential_fit._make_model(survey)
    expansion = jax.jit(potential_fit._make_evaluate(survey))(parameters, image)

    def residual(p):
        penalty = jnp.sqrt(potential_fit.PENALTY * jnp.sum(image**2)) * p[3:]
        return jnp.concatenate([(p[2] * model(p) - image).ravel(), penalty])

    value = np.asarray(residual(parameters), np.float64)
    jacobian = np.asarray(jax.jit(jax.jacfwd(residual))(parameters), np.float64)
    normal, gradient = jacobian.T @ jacobian, jacobian.T @ value
    assert expansion.cost == pytest.approx(value @ value, rel=1e-5)
    np.testing.assert_allclose(expansion.normal, normal, atol=1e-5 * normal.max())
    np.testing.assert_allclose(expansion.gradient, gradient, atol=1e-5 * np.abs(gradient).max())


def test_a_correction_made_of_splines_is_taken_up():
    """But for the penalty, which holds it small."""
    model = potential_fit._make_model(SURVEY)
    images = fitting.map_rows(model, np.stack([corrected(5e-3) for _ in range(8)]))
    smooth = fit_smooth(images, SURVEY)
    fit = potential_fit.fit_potential(images, SURVEY, smooth)
    assert np.median(smooth.ratio) > 0.03
    assert np.max(fit.ratio) < 0.15 * np.median(smooth.ratio)


def test_correction_of_cdm_leaves_its_known_residual():
    fit, smooth_ratio = cdm()
    assert np.median(fit.ratio) == pytest.approx(0.015, rel=0.25)
    assert np.percentile(fit.ratio, 90) == pytest.approx(0.026, rel=0.35)
    assert np.all(fit.ratio < smooth_ratio)
    assert fit.coefficients.shape == (NUM, 15, 15)


def test_nothing_is_corrected_where_nothing_is_wrong():
    fit = potential_fit.fit_potential(real("no_sub", 8)[0], SURVEY)
    assert np.max(fit.ratio) < 1e-6
    assert fit.converged.all()


def test_noise_is_left():
    images = real("no_sub", 8)[0]
    peak = images.max(axis=(1, 2), keepdims=True)
    noisy = images + 0.01 * peak * RANDOM.normal(size=images.shape).astype(np.float32)
    smooth = fit_smooth(noisy, SURVEY)
    fit = potential_fit.fit_potential(noisy, SURVEY, smooth)
    assert np.all(fit.ratio > 0.95 * smooth.ratio)


def test_free_amplitude():
    images = real("cdm", NUM)[0][:8]
    scaled = images / 7
    fit = potential_fit.fit_potential(scaled, SURVEY, free_amplitude=True)
    # A correction by a sheet of mass magnifies, which an amplitude can mimic.
    np.testing.assert_allclose(fit.amplitude, 1 / 7, rtol=0.3)
    assert np.all(fit.ratio < 1.1 * cdm()[0].ratio[:8])
    fixed = potential_fit.fit_potential(scaled, SURVEY)
    np.testing.assert_array_equal(fixed.amplitude, 1)
