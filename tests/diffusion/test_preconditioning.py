"""Preconditioning against the formulas of EDM, and the unit variances that it is there for."""

import jax.numpy as jnp
import numpy as np
import pytest
from mixture_support import PATHS, every_pair
from support import loss_settings

from lensjax.diffusion import paths
from lensjax.diffusion.losses import squared_error
from lensjax.diffusion.preconditioning import PRECONDITIONINGS, precondition

pytestmark = pytest.mark.usefixtures("quick_compiles")
each_path = pytest.mark.parametrize("name", PATHS)
STDS = [0.2, 0.5, 1.0, 3.0]
MANY = 4_000  # at each time


class Recorder:
    """A network that keeps what it was given and puts out the same numbers whatever that is."""

    def __init__(self, output=0.0):
        self.output = output

    def __call__(self, params, x, t, condition):
        self.given = (params, x, t, condition)
        return jnp.broadcast_to(jnp.asarray(self.output, x.dtype), x.shape)


def times_of(name: str) -> np.ndarray:
    t_min, t_max = PATHS[name].interval
    return t_min + (t_max - t_min) * np.array([0.0, 0.02, 0.1, 0.3, 0.5, 0.7, 0.9, 1.0])


def factors(name: str, t) -> tuple[np.ndarray, np.ndarray]:
    t = jnp.asarray(t, jnp.float32)
    return (
        np.asarray(PATHS[name].alpha(t), np.float64),
        np.asarray(PATHS[name].sigma(t), np.float64),
    )


def noisy(name: str, std: float, times: np.ndarray) -> tuple[np.ndarray, ...]:
    """Data and x_t `[T, N, 2, 1, 1]` and their times `[T, N]`."""
    x0, eps = np.random.default_rng(0).normal(size=(2, len(times), MANY, 2, 1, 1))
    alpha, sigma = (each.reshape(-1, 1, 1, 1, 1) for each in factors(name, times))
    x0 = std * x0
    return x0, alpha * x0 + sigma * eps, np.repeat(times[:, None], MANY, axis=1)


def applied(name: str, kind: str, std: float, network, x_t: np.ndarray, t: np.ndarray):
    """What a preconditioned network says of x_t `[T, N, 2, 1, 1]`, float64 of the same shape."""
    flat = jnp.asarray(x_t.reshape(-1, 2, 1, 1), jnp.float32)
    times = jnp.asarray(t.ravel(), jnp.float32)
    found = precondition(network, PATHS[name], kind, std)({}, flat, times, {})
    return np.asarray(found, np.float64).reshape(x_t.shape)


@each_path
def test_none_is_the_network_itself(name):
    network = Recorder()
    assert precondition(network, PATHS[name], "none", 0.5) is network


@pytest.mark.parametrize("kind", PRECONDITIONINGS)
def test_parameters_times_and_condition_go_through_unchanged(kind):
    network = Recorder()
    x, t, label = jnp.ones((3, 2, 2, 1)), jnp.asarray([0.1, 0.5, 0.9]), jnp.arange(3)
    condition = {"label": label}
    found = precondition(network, PATHS["flow"], kind, 0.5)("weights", x, t, condition)
    assert found.shape == x.shape
    params, _, times, seen = network.given
    assert params == "weights"
    assert times is t
    assert seen is condition


@pytest.mark.parametrize("std", [0.2, 3.0])
def test_edm_is_that_of_its_paper(std):
    """Karras et al. (arXiv:2206.00364, table 1), with numbers of sigma and not of t."""
    sigma = np.array([0.002, 0.02, 0.3, 0.5, 2.0, 80.0])
    t = PATHS["edm"].time_of_log_snr(jnp.asarray(-2 * np.log(sigma), jnp.float32))
    random = np.random.default_rng(0)
    x, output = random.normal(size=(2, len(sigma), 3, 2, 1))
    wide = sigma.reshape(-1, 1, 1, 1)
    x = wide * x
    c_skip = std**2 / (wide**2 + std**2)
    c_out = wide * std / np.sqrt(wide**2 + std**2)
    c_in = 1 / np.sqrt(wide**2 + std**2)
    network = Recorder(output)
    found = precondition(network, PATHS["edm"], "edm", std)({}, jnp.asarray(x, jnp.float32), t, {})
    np.testing.assert_allclose(network.given[1], c_in * x, rtol=2e-5, atol=1e-6)
    np.testing.assert_allclose(found, c_skip * x + c_out * output, rtol=5e-5, atol=1e-6)


@pytest.mark.parametrize(("name", "kind", "std"), every_pair(PATHS, ["input", "edm"], STDS))
def test_what_the_network_sees_has_unit_variance(name, kind, std):
    _, x_t, t = noisy(name, std, times_of(name))
    network = Recorder()
    applied(name, kind, std, network, x_t, t)
    seen = np.asarray(network.given[1]).reshape(len(t), -1)
    np.testing.assert_allclose(np.std(seen, axis=1), 1, atol=0.04)


@each_path
def test_input_leaves_what_the_network_says(name):
    said = np.random.default_rng(1).normal(size=(3, 2, 2, 1)).astype(np.float32)
    t = jnp.asarray(times_of(name)[[1, 3, 5]], jnp.float32)
    found = precondition(Recorder(said), PATHS[name], "input", 0.5)({}, jnp.ones(said.shape), t, {})
    np.testing.assert_array_equal(found, said)


@pytest.mark.parametrize(("name", "std"), list(zip(PATHS, 2 * STDS, strict=False)))
def test_what_a_perfect_network_puts_out_has_unit_variance(name, std):
    """F solved for from the definition: the network of ones and that of zeros give its factors."""
    x0, x_t, t = noisy(name, std, times_of(name)[1:])
    skipped, both = (applied(name, "edm", std, Recorder(value), x_t, t) for value in (0.0, 1.0))
    perfect = ((x0 - skipped) / (both - skipped)).reshape(len(t), -1)
    np.testing.assert_allclose(np.std(perfect, axis=1), 1, atol=0.04)
    np.testing.assert_allclose(np.mean(perfect, axis=1), 0, atol=0.055)
    # And it is not already in what the network sees.
    for one, seen in zip(perfect, x_t.reshape(len(t), -1), strict=True):
        assert abs(np.corrcoef(one, seen)[0, 1]) < 0.055


@pytest.mark.parametrize(("name", "std"), list(zip(PATHS, 2 * STDS, strict=False)))
def test_a_network_of_zeros_is_the_best_guess_for_gaussian_data(name, std):
    """E[x0 | x_t] of N(0, std^2): the slope of the regression of x0 on x_t."""
    t = times_of(name)
    alpha, sigma = factors(name, t)
    x_t = jnp.asarray(np.random.default_rng(2).normal(size=(len(t), 2, 2, 1)), jnp.float32)
    found = precondition(Recorder(), PATHS[name], "edm", std)(
        {}, x_t, jnp.asarray(t, jnp.float32), {}
    )
    slope = alpha * std**2 / (alpha**2 * std**2 + sigma**2)
    expected = slope.reshape(-1, 1, 1, 1) * np.asarray(x_t, np.float64)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-7)


@each_path
def test_the_noise_of_any_output_stays_finite_and_of_order_one(name):
    """x0 near the data comes from x_t almost alone, so that its noise does not blow up."""
    path, t = PATHS[name], jnp.asarray(times_of(name)[1:], jnp.float32)
    said = np.random.default_rng(3).normal(size=(len(t), 8, 8, 1)).astype(np.float32)
    alpha, sigma = (each.reshape(-1, 1, 1, 1) for each in factors(name, t))
    x_t = np.sqrt(alpha**2 * 0.25 + sigma**2) * np.random.default_rng(4).normal(size=said.shape)
    x_t = jnp.asarray(x_t, jnp.float32)
    x0 = precondition(Recorder(said), path, "edm", 0.5)({}, x_t, t, {})
    implied = paths.estimate(path, "x0", x0, x_t, t)
    assert np.max(np.std(np.asarray(implied.eps), axis=(1, 2, 3))) < 1.5


def test_edm_weight_makes_the_loss_of_the_network_itself_uniform():
    """lambda c_out^2 = 1 (arXiv:2206.00364, equation 8)."""
    random = np.random.default_rng(5)
    for name in PATHS:
        path = PATHS[name]
        t = jnp.asarray(times_of(name)[2:-1], jnp.float32)
        alpha, sigma = (each.reshape(-1, 1, 1, 1) for each in factors(name, t))
        x0, eps, output = random.normal(size=(3, len(t), 3, 3, 1)).astype(np.float32)
        x_t = jnp.asarray(alpha * x0 + sigma * eps, jnp.float32)
        scaled = [
            precondition(Recorder(value), path, "edm", 0.5)({}, x_t, t, {})
            for value in (0.0, 1.0, output)
        ]
        perfect = (x0 - scaled[0]) / (scaled[1] - scaled[0])
        settings = loss_settings(
            prediction="x0", space="x0", weight="edm", data_std=0.5, min_sigma=1e-4
        )
        found = squared_error(path, settings, scaled[2], x0, eps, t)
        expected = np.mean(np.square(np.asarray(output - perfect, float)), axis=(1, 2, 3))
        np.testing.assert_allclose(found, expected, rtol=5e-3, err_msg=name)
