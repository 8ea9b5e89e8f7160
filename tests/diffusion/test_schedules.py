"""Variance-preserving and EDM paths against the formulas and numbers of their papers."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest
from mixture_support import PATHS

from lensjax.config import PathConfig
from lensjax.config.diffusion import build_path
from lensjax.diffusion import paths
from lensjax.diffusion.schedules import (
    BETAS,
    CosinePath,
    EDMPath,
    LinearPath,
    TablePath,
    ddpm_betas,
)

pytestmark = pytest.mark.usefixtures("quick_compiles")
TIMES = np.array([0.001, 0.0015, 0.01, 0.1, 0.3, 0.5, 0.8, 0.95, 0.999])


def entry_times(size: int) -> np.ndarray:
    return (np.arange(size) + 1) / size


def alpha_bars(path: TablePath) -> np.ndarray:
    """alpha^2 of the entries in float64."""
    return 1 / (1 + np.exp(-np.array(path.log_snr)))


# DDPM (arXiv:2006.11239, section 4): betas from 1e-4 to 0.02 in 1,000 steps.


def test_linear_betas_are_those_of_ddpm():
    betas = ddpm_betas("linear", 1000, 0.1, 20.0)
    assert betas.dtype == np.float64
    np.testing.assert_allclose(betas[[0, -1]], [1e-4, 0.02], rtol=1e-12)
    np.testing.assert_allclose(np.diff(betas), (0.02 - 1e-4) / 999, rtol=1e-9)


def test_linear_table_has_the_alpha_bars_of_ddpm():
    """The product of `1 - beta`, one factor after the other."""
    found = alpha_bars(TablePath.from_betas(ddpm_betas("linear", 1000, 0.1, 20.0)))
    product, expected = 1.0, []
    for k in range(1000):
        product *= 1 - (1e-4 + (0.02 - 1e-4) * k / 999)
        expected.append(product)
    np.testing.assert_allclose(found, expected, rtol=1e-9)
    assert found[0] == pytest.approx(0.9999, rel=1e-9)
    assert found[499] == pytest.approx(0.0786, abs=1e-4)
    assert found[-1] == pytest.approx(4.04e-5, rel=2e-3)


# Improved DDPM (arXiv:2102.09672, equation 17).


def cosine_alpha_bar(t: np.ndarray) -> np.ndarray:
    def f(t: np.ndarray) -> np.ndarray:
        return np.cos((t + 0.008) / 1.008 * np.pi / 2) ** 2

    return f(t) / f(np.zeros(()))


@pytest.mark.parametrize("size", [10, 1000, 4000])
def test_cosine_table_is_that_of_improved_ddpm(size):
    bars = cosine_alpha_bar(np.arange(size + 1) / size)
    betas = np.minimum(1 - bars[1:] / bars[:-1], 0.999)
    found = ddpm_betas("cosine", size, 0.1, 20.0)
    np.testing.assert_allclose(found, betas, rtol=1e-7)
    assert found[-1] == 0.999
    assert np.sum(found == 0.999) == 1
    path = TablePath.from_betas(found)
    np.testing.assert_allclose(alpha_bars(path), np.cumprod(1 - betas), rtol=1e-7)
    # All but the clipped entry are on the curve itself.
    np.testing.assert_allclose(alpha_bars(path)[:-1], bars[1:-1], rtol=1e-7)


def test_cosine_path_is_that_of_improved_ddpm():
    t = jnp.asarray(TIMES, jnp.float32)
    bar = cosine_alpha_bar(np.asarray(t, np.float64))
    np.testing.assert_allclose(CosinePath().alpha(t), np.sqrt(bar), rtol=2e-6)
    np.testing.assert_allclose(CosinePath().sigma(t), np.sqrt(1 - bar), rtol=2e-6)
    assert CosinePath().alpha(jnp.float32(1)) == 0
    assert CosinePath().sigma(jnp.float32(1)) == 1


# Song et al. (arXiv:2011.13456, equation 33).


@pytest.mark.parametrize(("beta_min", "beta_max"), [(0.1, 20.0), (0.5, 6.0)])
def test_linear_path_is_that_of_song_et_al(beta_min, beta_max):
    path, t = LinearPath(beta_min, beta_max), jnp.asarray(TIMES, jnp.float32)
    exact = np.asarray(t, np.float64)
    exponent = -(exact**2) * (beta_max - beta_min) / 4 - exact * beta_min / 2
    np.testing.assert_allclose(path.alpha(t), np.exp(exponent), rtol=2e-6)
    np.testing.assert_allclose(path.sigma(t), np.sqrt(-np.expm1(2 * exponent)), rtol=2e-6)
    beta = beta_min + (beta_max - beta_min) * exact
    alpha = np.exp(exponent)
    np.testing.assert_allclose(path.alpha_derivative(t), -beta * alpha / 2, rtol=2e-6)


def test_linear_path_is_the_limit_of_tables():
    """Its error falls like 1 / T."""
    sizes, places = np.array([100, 200, 400, 800]), np.array([0.25, 0.5, 0.75, 1.0])
    errors = []
    for size in sizes:
        table = TablePath.from_betas(ddpm_betas("linear", size, 0.1, 20.0))
        found = np.log(alpha_bars(table)[(places * size).astype(int) - 1])
        errors.append(np.abs(found - (-19.9 * places**2 / 2 - 0.1 * places)))
    slopes = np.polyfit(np.log(sizes), np.log(np.array(errors)), 1)[0]
    np.testing.assert_allclose(slopes, -1, atol=0.1)
    assert np.max(errors[-1]) < 0.2


@pytest.mark.parametrize(("kind", "path"), [("linear", LinearPath()), ("cosine", CosinePath())])
def test_a_fine_table_stands_where_its_path_does(kind, path):
    table = TablePath.from_betas(ddpm_betas(kind, 20_000, 0.1, 20.0))
    t = jnp.asarray([0.1, 0.3, 0.6, 0.9], jnp.float32)
    np.testing.assert_allclose(table.alpha(t), path.alpha(t), rtol=3e-3)
    np.testing.assert_allclose(table.sigma(t), path.sigma(t), rtol=3e-3)


# Tables.

SMALL = TablePath.from_betas(ddpm_betas("linear", 40, 0.1, 20.0))


@pytest.mark.parametrize("size", [2, 40, 1000])
@pytest.mark.parametrize("kind", BETAS)
def test_entry_k_of_a_table_stands_at_its_time(kind, size):
    """t = (k + 1) / T."""
    betas = ddpm_betas(kind, size, 0.1 if size > 20 else 0.01, 20.0 if size > 20 else 1.0)
    path, bar = TablePath.from_betas(betas), np.cumprod(1 - betas)
    t = jnp.asarray(entry_times(size), jnp.float32)
    # A time in float32 is off by up to 6e-5 of an entry, the last of which is a step of 6.9.
    np.testing.assert_allclose(path.alpha(t), np.sqrt(bar), rtol=3e-4)
    np.testing.assert_allclose(path.sigma(t), np.sqrt(1 - bar), rtol=3e-4)
    np.testing.assert_allclose(path.interval, (1 / size, 1))
    np.testing.assert_allclose(path.time_of_log_snr(jnp.asarray(path.log_snr)), t, rtol=1e-6)


def test_log_snr_is_linear_between_entries():
    size = len(SMALL.log_snr)
    places = np.linspace(1, size, 301)
    expected = np.interp(places, np.arange(1, size + 1), SMALL.log_snr)
    t = jnp.asarray(places / size, jnp.float32)
    np.testing.assert_allclose(paths.log_snr(SMALL, t), expected, atol=2e-5)
    middle = (np.array(SMALL.log_snr[:-1]) + np.array(SMALL.log_snr[1:])) / 2
    times = jnp.asarray((np.arange(1, size) + 0.5) / size, jnp.float32)
    np.testing.assert_allclose(paths.log_snr(SMALL, times), middle, atol=2e-5)


@pytest.mark.parametrize("size", [2, 40, 1000])
@pytest.mark.parametrize("unused", [0, 1])
def test_equal_shares_meet_each_entry_equally_often(size, unused):
    log_snr = TablePath.from_betas(np.linspace(0.01, 0.5, size)).log_snr
    path = TablePath(log_snr, unused)
    used = size - unused
    shares = (np.arange(7 * used) + 0.5) / (7 * used)
    t = np.asarray(path.time_of_share(jnp.asarray(shares, jnp.float32)), np.float64)
    times, counts = np.unique(np.round(t * size, 3), return_counts=True)
    np.testing.assert_array_equal(times, np.arange(1, used + 1))
    np.testing.assert_array_equal(counts, 7)
    ends = path.time_of_share(jnp.asarray([0.0, 1.0]))
    np.testing.assert_allclose(ends, [1 / size, used / size], rtol=1e-6)


@pytest.mark.parametrize("last", [2, 20, 39, 40])
def test_a_narrowed_table_has_fewer_entries(last):
    for t_max in (last / 40, float(np.float32(last / 40)), (last + 0.5) / 40):
        narrowed = SMALL.narrowed(1 / 40, min(t_max, 1.0))
        assert narrowed.interval == (1 / 40, last / 40)
        assert narrowed.log_snr == SMALL.log_snr
        t = jnp.asarray(entry_times(40)[:last], jnp.float32)
        np.testing.assert_array_equal(narrowed.alpha(t), SMALL.alpha(t))
        assert narrowed.narrowed(1 / 40, 1.0) == SMALL


# EDM (arXiv:2206.00364, table 1).


def test_edm_path_has_the_noise_of_its_paper():
    path = EDMPath()
    ends = path.sigma(jnp.asarray(path.interval))
    np.testing.assert_allclose(ends, [0.002, 80.0], rtol=5e-6)
    t = jnp.linspace(path.interval[0], path.interval[1], 50)
    np.testing.assert_array_equal(path.alpha(t), 1)
    steps = np.diff(np.log(np.asarray(path.sigma(t), np.float64)))
    np.testing.assert_allclose(steps, np.log(40_000) / 49, rtol=1e-4)
    np.testing.assert_allclose(
        path.time_of_log_snr(jnp.asarray([-2 * np.log(80), -2 * np.log(0.002)], jnp.float32)),
        [1, 0.001],
        atol=1e-6,
    )


def test_other_ends_of_edm():
    path = EDMPath(0.01, 10.0)
    middle = path.sigma(jnp.float32((1 + paths.FIRST_TIME) / 2))
    np.testing.assert_allclose(middle, np.sqrt(0.01 * 10), rtol=1e-5)


# Configurations.

BUILT: dict[str, tuple[PathConfig, paths.Path]] = {
    "flow": (PathConfig(), paths.FlowPath()),
    "linear": (PathConfig(name="vp"), LinearPath()),
    "linear with its own betas": (
        PathConfig(name="vp", beta_min=0.5, beta_max=6.0),
        LinearPath(0.5, 6.0),
    ),
    "cosine": (PathConfig(name="vp", betas="cosine"), CosinePath()),
    "linear table": (PathConfig(name="vp", table_steps=1000), PATHS["linear table"]),
    "cosine table": (
        PathConfig(name="vp", betas="cosine", table_steps=1000),
        PATHS["cosine table"],
    ),
    "short table": (
        PathConfig(name="vp", table_steps=50, beta_min=0.5, beta_max=6.0),
        TablePath.from_betas(np.linspace(0.01, 0.12, 50)),
    ),
    "edm": (PathConfig(name="edm"), EDMPath()),
    "edm with its own ends": (
        PathConfig(name="edm", sigma_min=0.1, sigma_max=9.0),
        EDMPath(0.1, 9),
    ),
}


@pytest.mark.parametrize("prediction", paths.PREDICTIONS)
@pytest.mark.parametrize("name", BUILT)
def test_a_configuration_gives_its_path_with_the_usable_times(name, prediction):
    config, path = BUILT[name]
    found, expected = build_path(config, prediction), paths.usable(path, prediction)
    assert type(found) is type(expected)
    assert isinstance(found, tuple)
    assert isinstance(expected, tuple)
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-9)
    assert found == build_path(dataclasses.replace(config), prediction)
