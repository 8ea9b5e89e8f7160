"""The batched search on problems with known answers, and what is made of its ends."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from fit_support import degenerate, real

from lensjax.data.surveys import SURVEYS
from lensjax.errors import MeasureError
from lensjax.metrics import fitting
from lensjax.metrics.axion_fit import fit_axion
from lensjax.metrics.free_fit import fit_free
from lensjax.metrics.lensing import fit_smooth
from lensjax.metrics.potential_fit import fit_potential
from lensjax.metrics.ring_radius import fit_ring_radius

SURVEY = SURVEYS["model_ii"]
SIDE = 5
RANDOM = np.random.default_rng(1)
DESIGN = RANDOM.normal(size=(3, SIDE, SIDE)).astype(np.float32)
OPEN = np.full(3, np.inf)


def linear(parameters, image):
    """`image = parameters . DESIGN`; one step solves it."""
    model = jnp.tensordot(parameters, jnp.asarray(DESIGN), 1)
    return fitting.expand(model - image, jnp.asarray(DESIGN))


def curved(parameters, image):
    """Two minima, at 1 and, worse, near -1, whatever the image but for its first pixel."""

    def residual(p):
        return jnp.stack([p[0] ** 2 - 1, 0.3 * (p[0] - 1), image[0, 0] * 0 + 0 * p[0]])

    return fitting.expand(residual(parameters), jax.jacfwd(residual)(parameters).T)


def broken(parameters, image):
    """Not a number but at the start."""
    expansion = linear(parameters, image)
    bad = jnp.where(jnp.any(parameters != 0), jnp.nan, 1.0)
    return fitting.Expansion(*(leaf * bad for leaf in expansion))


def images_of(count):
    truth = RANDOM.normal(size=(count, 3)).astype(np.float32)
    return np.tensordot(truth, DESIGN, 1), truth


def search(evaluate, images, starts, bound=OPEN, **options):
    size = starts.shape[-1]
    return fitting.minimise(evaluate, images, starts, -bound[:size], bound[:size], **options)


@pytest.mark.parametrize("count", [1, 3, 4, 70])
@pytest.mark.parametrize("chunk", [4, 64])
def test_linear_problems_are_solved(count, chunk):
    """Also where the last chunk is not full, and where there are more rows than a block holds."""
    images, truth = images_of(count)
    starts = np.zeros((count, 1, 3), np.float32)
    minimum = search(linear, images, starts, chunk=chunk)
    np.testing.assert_allclose(minimum.parameters, truth, atol=1e-5)
    assert minimum.ended.all()
    assert np.max(minimum.cost) < 1e-8


def test_residual_that_cannot_be_fitted_is_that_of_least_squares():
    images = RANDOM.normal(size=(6, SIDE, SIDE)).astype(np.float32)
    minimum = search(linear, images, np.zeros((6, 1, 3), np.float32))
    columns = DESIGN.reshape(3, -1).T.astype(np.float64)
    for image, parameters, cost in zip(images, minimum.parameters, minimum.cost, strict=True):
        solution, left, *_ = np.linalg.lstsq(columns, image.ravel(), rcond=None)
        np.testing.assert_allclose(parameters, solution, atol=1e-3)
        assert cost == pytest.approx(left[0], rel=1e-5)


def test_bounds_hold_and_the_others_move_as_if_fixed():
    images, truth = images_of(8)
    truth[:, 0] = 2.0
    images = np.tensordot(truth, DESIGN, 1)
    bound = np.array([1.0, np.inf, np.inf])
    minimum = search(linear, images, np.zeros((8, 1, 3), np.float32), bound)
    columns = DESIGN.reshape(3, -1).T.astype(np.float64)
    np.testing.assert_array_equal(minimum.parameters[:, 0], 1)
    for image, parameters in zip(images, minimum.parameters, strict=True):
        rest = np.linalg.lstsq(columns[:, 1:], image.ravel() - columns[:, 0], rcond=None)[0]
        np.testing.assert_allclose(parameters[1:], rest, atol=1e-3)
    assert not fitting.strictly_inside(minimum.parameters, -bound, bound).any()
    assert fitting.strictly_inside(truth / 4, -bound, bound).all()


@pytest.mark.parametrize("order", [(2.0, -2.0), (-2.0, 2.0)])
def test_the_best_of_the_starts_is_kept(order):
    starts = np.array(order, np.float32).reshape(1, 2, 1)
    minimum = search(curved, np.zeros((1, SIDE, SIDE), np.float32), starts)
    assert minimum.parameters[0, 0] == pytest.approx(1, abs=1e-3)
    alone = search(curved, np.zeros((1, SIDE, SIDE), np.float32), starts[:, starts[0, :, 0] < 0])
    assert alone.parameters[0, 0] == pytest.approx(-1, abs=0.1)


def test_no_step_to_what_is_not_a_number():
    images, _ = images_of(3)
    minimum = search(broken, images, np.zeros((3, 1, 3), np.float32))
    np.testing.assert_array_equal(minimum.parameters, 0)
    assert np.isfinite(minimum.cost).all()


def test_a_parameter_without_effect_stays():
    def evaluate(parameters, image):
        expansion = linear(parameters[:3], image)
        pad = functools.partial(jnp.pad, pad_width=(0, 1))
        return fitting.Expansion(expansion.cost, pad(expansion.gradient), pad(expansion.normal))

    images, truth = images_of(2)
    starts = np.full((2, 1, 4), 0.5, np.float32)
    bound = np.full(4, np.inf)
    minimum = fitting.minimise(evaluate, images, starts, -bound, bound)
    np.testing.assert_allclose(minimum.parameters[:, :3], truth, atol=1e-5)
    np.testing.assert_array_equal(minimum.parameters[:, 3], 0.5)


def test_too_few_iterations_show():
    start = np.full((1, 1, 1), 1e6, np.float32)
    image = np.zeros((1, SIDE, SIDE), np.float32)
    assert not search(curved, image, start, max_iterations=4).ended[0]
    assert search(curved, image, start, max_iterations=80).ended[0]


def test_rows_do_not_depend_on_their_neighbours():
    images, _ = images_of(9)
    starts = RANDOM.normal(size=(9, 1, 3)).astype(np.float32)
    together = search(linear, images, starts, chunk=4)
    for index in (0, 5, 8):
        alone = search(linear, images[index : index + 1], starts[index : index + 1], chunk=4)
        np.testing.assert_allclose(alone.parameters[0], together.parameters[index], atol=1e-6)


def test_amplitude_is_that_of_least_squares_and_its_derivative_counts():
    image = jnp.asarray(RANDOM.random((SIDE, SIDE)), jnp.float32)

    def model(p):
        return jnp.exp(jnp.tensordot(p, jnp.asarray(DESIGN), 1))

    def scaled(p):
        return model(p) * jnp.sum(model(p) * image) / jnp.sum(model(p) ** 2)

    point = jnp.array([0.1, -0.2, 0.3])
    jacobian = jnp.moveaxis(jax.jacfwd(model)(point), -1, 0)
    value, slopes = fitting.project_amplitude(model(point), jacobian, image)
    np.testing.assert_allclose(value, scaled(point), rtol=1e-5)
    expected = jnp.moveaxis(jax.jacfwd(scaled)(point), -1, 0)
    np.testing.assert_allclose(slopes, expected, atol=1e-5)


@pytest.mark.parametrize("free_amplitude", [False, True])
def test_ratio_and_amplitude_written_out(free_amplitude):
    models = RANDOM.random((3, 4, 4)).astype(np.float32)
    images = 2 * models + 0.1 * RANDOM.random((3, 4, 4)).astype(np.float32)
    fitted = fitting.finish(images, models, np.array([True, True, False]), free_amplitude)
    for i in range(3):
        factor = np.sum(images[i] * models[i]) / np.sum(models[i] ** 2) if free_amplitude else 1.0
        left = images[i] - factor * models[i]
        assert fitted.amplitude[i] == pytest.approx(factor, rel=1e-5)
        assert fitted.ratio[i] == pytest.approx(
            np.sqrt(np.mean(left**2) / np.mean(images[i] ** 2)), rel=1e-4
        )
    assert fitted.converged.tolist() == ([True, True, False] if free_amplitude else [False] * 3)


@pytest.mark.parametrize("free_amplitude", [False, True])
def test_black_images_have_a_finite_ratio_and_no_fit(free_amplitude):
    models = np.stack([np.zeros((4, 4)), np.ones((4, 4))]).astype(np.float32)
    black = np.zeros((2, 4, 4), np.float32)
    fitted = fitting.finish(black, models, np.ones(2, bool), free_amplitude)
    np.testing.assert_array_equal(fitted.ratio, fitting.MAX_RATIO)
    assert not fitted.converged.any()


FITS: dict[str, Callable[..., Any]] = {
    "smooth": fit_smooth,
    "free": fit_free,
    "potential": fit_potential,
    "axion": fit_axion,
    "ring": fit_ring_radius,
}
fits = pytest.mark.parametrize("fit", FITS.values(), ids=FITS)


@pytest.mark.parametrize(
    "fit",
    [
        pytest.param(fit, id=name, marks=[pytest.mark.nightly] * (name == "axion"))
        for name, fit in FITS.items()
    ],
)
def test_every_fit_takes_what_is_no_lens_and_does_not_mix_images(fit):
    lens = real("axion" if fit is fit_axion else "no_sub", 1)[0]
    images = np.concatenate([degenerate(64), lens, real("axion", 3)[0]])
    together, alone = fit(images, SURVEY), fit(images[7:8], SURVEY)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(together))
    if fit is fit_ring_radius:
        assert np.all(np.abs(together[:6] / together[5] - 1) < 0.301)
        assert alone[0] == pytest.approx(together[7], abs=1e-6)
    else:
        assert together.converged[:6].tolist() == [False] * 5 + [True]
        assert together.ratio[0] > 1
        assert alone.ratio.shape == (1,)
        np.testing.assert_allclose(alone.ratio[0], together.ratio[7], rtol=1e-3, atol=1e-6)
        assert alone.source_x[0] == pytest.approx(together.source_x[7], abs=1e-6)


@fits
def test_other_shapes_and_pixels_that_are_not_finite_are_refused(fit):
    for shape in ((2, 32, 32), (2, 64, 63), (64, 64), (2, 64, 64, 1), (0, 64, 64)):
        with pytest.raises(MeasureError, match=r"allowed: (\[N, 64, 64\]|at least 1)"):
            fit(np.zeros(shape, np.float32), SURVEY)
    for value in (np.nan, np.inf, 1e300):
        images = np.zeros((4, 64, 64))
        images[2, 0, 0] = images[3, 1, 1] = value
        with pytest.raises(MeasureError, match=r"2 of 4 have .* number 2"):
            fit(images, SURVEY)


@pytest.mark.parametrize("fit", [fit_free, fit_potential])
def test_a_smooth_fit_of_other_images_is_refused(fit):
    images = real("no_sub", 8)[0]
    with pytest.raises(MeasureError, match="smooth holds 8 fits for 3 images"):
        fit(images[:3], SURVEY, fit_smooth(images, SURVEY))


@pytest.mark.parametrize("fit", [fit_free, fit_potential])
def test_a_smooth_fit_may_be_handed_in(fit):
    images = real("cdm", 2)[0]
    given = fit(images, SURVEY, fit_smooth(images, SURVEY))
    np.testing.assert_array_equal(given.ratio, fit(images, SURVEY).ratio)
