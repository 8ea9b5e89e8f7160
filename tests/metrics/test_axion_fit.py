"""The four-parameter fit of axion images: closed truth, the edges, and what is no lens."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from fit_support import real

from lensjax.data.raytracing import render
from lensjax.data.surveys import SURVEYS
from lensjax.metrics import axion_fit

SURVEY = SURVEYS["model_ii"]
NUM = 16
# Points off a line through the grid, so that no pixel lies on one.
EDGES = np.array(
    [
        [0.35, 0.35, -22.0, 0.0],
        [-0.35, 0.35, -22.0, 3.1],
        [0.35, -0.35, -22.8, 0.02],
        [-0.35, -0.35, -22.8, 3.12],
        [0.0, 0.0, -23.0, 1.6],
    ],
    np.float32,
)


def rendered(parameters, conserved=False):
    def render_one(row):
        return render(axion_fit.axion_lens(row, SURVEY, conserved=conserved), SURVEY)

    return np.asarray(jax.jit(jax.vmap(render_one))(jnp.asarray(parameters)))


@functools.cache
def fitted() -> axion_fit.AxionFit:
    """Real images and images at the edges of the prior, all in one batch."""
    images = np.concatenate([real("axion", NUM)[0], rendered(EDGES)])
    return axion_fit.fit_axion(images, SURVEY)


def turned(angle):
    """A line has the same direction after half a turn."""
    return np.exp(2j * np.asarray(angle, np.float64))


@pytest.mark.parametrize("conserved", [True, pytest.param(False, marks=pytest.mark.nightly)])
def test_derivatives_are_those_of_the_renderer(conserved):
    points = jnp.array([[0.1, -0.2, log10_mass, 0.7] for log10_mass in (-23.6, -22.9, -22.1)])

    def render_at(row):
        return render(axion_fit.axion_lens(row, SURVEY, conserved=conserved), SURVEY)

    model = jax.jit(jax.vmap(lambda row: axion_fit._model(row, SURVEY, conserved)))
    images, jacobians = model(points)
    expected = jax.jit(jax.vmap(render_at))(points)
    np.testing.assert_allclose(images, expected, atol=2e-6 * expected.max())
    slopes = jnp.moveaxis(jax.jit(jax.vmap(jax.jacfwd(render_at)))(points), -1, 1)
    for found, wanted in zip(jacobians.reshape(12, -1), slopes.reshape(12, -1), strict=True):
        np.testing.assert_allclose(found, wanted, atol=1e-4 * np.abs(wanted).max())


def test_real_axion_images_are_described():
    fit = jax.tree.map(lambda leaf: leaf[:NUM], fitted())
    assert np.median(fit.ratio) < 2e-7
    assert np.mean(fit.ratio < 0.03) >= 0.95
    assert np.mean((fit.log10_axion_mass >= -24) & (fit.log10_axion_mass <= -22)) >= 0.95


def test_an_exact_fit_has_the_true_parameters():
    fit, draw = fitted(), real("axion", NUM)[1]
    exact = np.flatnonzero(fit.ratio[:NUM] < 1e-6)
    assert len(exact) > NUM / 2
    np.testing.assert_allclose(fit.source_x[exact], draw.lens.source_x[exact], atol=1e-5)
    np.testing.assert_allclose(fit.source_y[exact], draw.lens.source_y[exact], atol=1e-5)
    mass = np.asarray(draw.log10_axion_mass)[exact]
    np.testing.assert_allclose(fit.log10_axion_mass[exact], mass, atol=1e-2)
    resolved = exact[mass < -22.5]
    direction = turned(draw.vortex_angle)[resolved]
    np.testing.assert_allclose(turned(fit.angle)[resolved], direction, atol=1e-3)
    assert np.all((fit.angle >= 0) & (fit.angle <= np.float32(np.pi)))


def test_the_edges_of_the_prior_are_found():
    fit = jax.tree.map(lambda leaf: leaf[NUM : NUM + len(EDGES)], fitted())
    assert np.max(fit.ratio) < 1e-6
    assert fit.converged.all()
    np.testing.assert_allclose(fit.source_x, EDGES[:, 0], atol=1e-5)
    np.testing.assert_allclose(fit.log10_axion_mass, EDGES[:, 2], atol=0.02)
    resolved = EDGES[:, 2] < -22.5
    np.testing.assert_allclose(turned(fit.angle)[resolved], turned(EDGES[resolved, 3]), atol=1e-3)


@pytest.mark.nightly
@pytest.mark.parametrize("name", ["model_ii", "model_iii"])
def test_conserved_mass_and_free_amplitude(name):
    images, draw = real("axion", 12, name, conserved=True)
    scaled = images / images.max(axis=(1, 2), keepdims=True)
    fit = axion_fit.fit_axion(scaled, SURVEYS[name], conserved=True, free_amplitude=True)
    assert np.mean(fit.ratio < 0.03) > 0.9
    exact = fit.ratio < 1e-6
    assert np.mean(exact) > 0.5
    np.testing.assert_allclose(fit.amplitude[exact], 1 / images.max(axis=(1, 2))[exact], rtol=1e-5)
    np.testing.assert_allclose(fit.source_x[exact], draw.lens.source_x[exact], atol=1e-5)
    mass = np.asarray(draw.log10_axion_mass)
    np.testing.assert_allclose(fit.log10_axion_mass[exact], mass[exact], atol=1e-2)


@pytest.mark.nightly
def test_other_models():
    images, draw = real("axion", 6, "model_iii")
    fit = axion_fit.fit_axion(images, SURVEYS["model_iii"])
    assert np.max(fit.ratio) < 0.05
    assert np.median(fit.ratio) < 1e-6
    np.testing.assert_allclose(fit.source_x, draw.lens.source_x, atol=0.02)
