"""Fits of the smooth lens: known truth, known errors, and the numbers made of them."""

import dataclasses
import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from lenstronomy_support import REFERENCE

from lensjax import prng
from lensjax.data.raytracing import render
from lensjax.data.simulator import SOURCE_POSITION_LIMIT, simulate, smooth_lens
from lensjax.data.surveys import SURVEYS
from lensjax.metrics import lensing

SURVEY = SURVEYS["model_ii"]
NUM = 64
MEDIAN_RATIO = {"cdm": 0.076, "axion": 0.147}


@functools.cache
def real(class_name: str):
    """Images of a class, and the draws behind them."""
    keys = prng.keys(prng.key(11, "test"), jnp.arange(NUM))
    images, draw, _ = simulate(keys, SURVEY, class_name)
    return np.asarray(images), draw


@functools.cache
def fit_of(class_name: str) -> lensing.SmoothFit:
    return lensing.fit_smooth(real(class_name)[0], SURVEY)


_render_all = jax.jit(jax.vmap(lambda x, y: render(smooth_lens(SURVEY, x, y), SURVEY)))


def rendered(positions) -> np.ndarray:
    return np.asarray(_render_all(*np.asarray(positions, np.float32).T))


def test_fit_finds_every_source():
    lens, fit = real("no_sub")[1].lens, fit_of("no_sub")
    np.testing.assert_allclose(fit.source_x, lens.source_x, atol=1e-6)
    np.testing.assert_allclose(fit.source_y, lens.source_y, atol=1e-6)
    assert np.max(fit.ratio) < 1e-6
    assert fit.ratio.shape == (NUM,)
    assert fit.image.shape == (NUM, 64, 64)


def test_fit_finds_sources_at_the_edges_of_the_prior():
    edge = SOURCE_POSITION_LIMIT
    positions = np.array(list(itertools.product((-edge, -edge / 3, 0.0, edge), repeat=2)))
    fit = lensing.fit_smooth(rendered(positions), SURVEY)
    np.testing.assert_allclose(np.stack([fit.source_x, fit.source_y], 1), positions, atol=1e-6)
    assert np.max(fit.ratio) < 1e-6


@pytest.mark.parametrize("class_name", MEDIAN_RATIO)
def test_substructure_leaves_its_known_residual(class_name):
    median = np.median(fit_of(class_name).ratio)
    assert median == pytest.approx(MEDIAN_RATIO[class_name], rel=0.2)


def test_ratio_is_that_of_the_returned_fit():
    images, fit = real("cdm")[0], fit_of("cdm")
    for index in (0, 17, NUM - 1):
        left = images[index].astype(np.float64) - fit.image[index]
        expected = np.sqrt(np.mean(left**2) / np.mean(images[index].astype(np.float64) ** 2))
        assert fit.ratio[index] == pytest.approx(expected, rel=1e-5)
        position = [(fit.source_x[index], fit.source_y[index])]
        peak = fit.image[index].max()
        np.testing.assert_allclose(fit.image[index], rendered(position)[0], atol=1e-5 * peak)


@pytest.mark.parametrize("class_name", ["cdm", pytest.param("axion", marks=pytest.mark.nightly)])
def test_no_place_of_a_fine_grid_fits_better(class_name):
    """An independent search around the fit and over the whole prior."""
    axis = np.linspace(-1.2, 1.2, 61) * SOURCE_POSITION_LIMIT
    candidates = rendered(np.stack(np.meshgrid(axis, axis), -1).reshape(-1, 2))
    images, fit = real(class_name)[0][:16], fit_of(class_name)
    for image, fitted in zip(images, fit.image, strict=False):
        on_grid = np.min(np.sum(np.square(candidates - image), axis=(1, 2)))
        assert np.sum(np.square(fitted - image)) <= on_grid * (1 + 1e-4)


@pytest.mark.parametrize(("share", "ratio"), [(0.001, 0.010), (0.003, 0.029), (0.01, 0.100)])
def test_white_noise_is_an_error(share, ratio):
    images = real("no_sub")[0]
    noise = np.random.default_rng(0).normal(size=images.shape).astype(np.float32)
    noisy = images + share * images.max(axis=(1, 2), keepdims=True) * noise
    fit = lensing.fit_smooth(noisy, SURVEY)
    assert np.median(fit.ratio) == pytest.approx(ratio, rel=0.1)
    # Faint pixels hold next to nothing but the noise.
    assert lensing.faint_pixel_rms(noisy, fit.image) == pytest.approx(100 * share, rel=0.05)


def test_every_fit_of_a_real_image_has_converged():
    assert fit_of("no_sub").converged.all()
    assert fit_of("cdm").converged.all()
    np.testing.assert_array_equal(fit_of("no_sub").amplitude, 1)


def test_free_amplitude_is_found():
    images = real("no_sub")[0][:20]
    factor = np.linspace(0.01, 40, 20).astype(np.float32)
    scaled = images * factor[:, None, None]
    fit = lensing.fit_smooth(scaled, SURVEY, free_amplitude=True)
    np.testing.assert_allclose(fit.amplitude, factor, rtol=1e-6)
    np.testing.assert_allclose(fit.source_x, real("no_sub")[1].lens.source_x[:20], atol=1e-6)
    assert np.max(fit.ratio) < 1e-6


@pytest.mark.parametrize(
    "model", ["III", *(pytest.param(name, marks=pytest.mark.nightly) for name in ("I", "II"))]
)
def test_floor_on_images_by_lenstronomy(model):
    """In float64 by other code; with the multi-plane factor of the file."""
    prefix = f"{model}/no_sub/ss1/"
    survey = SURVEYS[f"model_{model.lower()}"]
    survey = dataclasses.replace(survey, deflection_factor=float(REFERENCE[prefix + "beta"][0]))
    fit = lensing.fit_smooth(REFERENCE[prefix + "image"], survey)
    np.testing.assert_allclose(fit.source_x, REFERENCE[prefix + "sx"], atol=1e-6)
    np.testing.assert_allclose(fit.source_y, REFERENCE[prefix + "sy"], atol=1e-6)
    assert np.max(fit.ratio) < 1e-6


def test_faint_pixels_by_a_loop():
    random = np.random.default_rng(0)
    fitted = (random.random((3, 5, 4)) ** 12).astype(np.float32) * np.array(
        [[[1.0]], [[7]], [[0.2]]]
    )
    images = fitted + 0.01 * random.normal(size=fitted.shape)
    squares = []
    for image, fit in zip(images, fitted, strict=True):
        for value, expected in zip(image.ravel(), fit.ravel(), strict=True):
            if expected < 0.001 * fit.max():
                squares.append((100 * value / fit.max()) ** 2)
    assert 5 < len(squares) < 55
    found = lensing.faint_pixel_rms(images, fitted)
    assert found == pytest.approx(np.sqrt(np.mean(squares)), rel=1e-6)


@pytest.mark.parametrize("num", [1, 2, 7, 500])
@pytest.mark.parametrize("spread", [0.1, 0.35, 0.6])
def test_distance_from_uniform_agrees_with_scipy(num, spread):
    values = np.random.default_rng(num).uniform(-spread, spread, size=num)
    limit = SOURCE_POSITION_LIMIT
    expected = scipy.stats.kstest(values, "uniform", (-limit, 2 * limit)).statistic
    assert lensing.uniform_ks_distance(values) == pytest.approx(expected, abs=1e-12)


def test_scores_of_real_images():
    images, _ = real("no_sub")
    fit, scores = fit_of("no_sub"), lensing.smooth_scores(images, SURVEY)
    assert scores["num_images"] == NUM
    assert scores["ratio_p50"] == pytest.approx(np.percentile(fit.ratio, 50))
    assert scores["ratio_p90"] == pytest.approx(np.percentile(fit.ratio, 90))
    assert scores["faint_rms_percent"] == pytest.approx(
        lensing.faint_pixel_rms(images, fit.image), rel=1e-6
    )
    for name, values in (("ks_x", fit.source_x), ("ks_y", fit.source_y)):
        assert scores[name] == pytest.approx(lensing.uniform_ks_distance(values))
        assert scores[name] < 1.95 / np.sqrt(NUM)


def test_collapsed_generator_shows_in_the_positions():
    """One image again and again has a perfect ratio."""
    images = np.repeat(real("no_sub")[0][:1], 20, axis=0)
    scores = lensing.smooth_scores(images, SURVEY)
    assert scores["ratio_p90"] < 1e-6
    assert max(scores["ks_x"], scores["ks_y"]) > 0.5
