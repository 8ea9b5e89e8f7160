"""Paths and conversions against explicit formulas, for every prediction."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lensjax import paths

PATHS = {"flow": paths.FlowPath()}
TIMES = np.array([0.02, 0.1, 0.35, 0.5, 0.8, 0.99, 1.0], np.float32)
SHAPE = (len(TIMES), 6, 4, 2)

each_path = pytest.mark.parametrize("path", PATHS.values(), ids=PATHS)
each_prediction = pytest.mark.parametrize("prediction", paths.PREDICTIONS)


def examples():
    random = np.random.default_rng(0)
    x0, eps = (jnp.asarray(random.normal(size=SHAPE), jnp.float32) for _ in range(2))
    return x0, eps, jnp.asarray(TIMES)


def wide(t):
    return np.asarray(t).reshape(-1, 1, 1, 1)


def largest(array) -> float:
    return float(np.max(np.abs(np.asarray(array))))


@each_path
def test_path_offers_the_whole_protocol(path):
    for name, _ in inspect.getmembers(paths.Path, inspect.isfunction):
        if not name.startswith("_"):
            assert getattr(path, name)(jnp.asarray(TIMES)).shape == TIMES.shape
    t_min, t_max = path.interval
    assert 0 <= t_min < t_max <= 1


@each_path
def test_derivatives_are_those_of_alpha_and_sigma(path):
    for name in ("alpha", "sigma"):
        _, slope = jax.jvp(getattr(path, name), (jnp.asarray(TIMES),), (jnp.ones(len(TIMES)),))
        stated = getattr(path, f"{name}_derivative")(jnp.asarray(TIMES))
        np.testing.assert_allclose(stated, slope, rtol=1e-6)


@each_path
def test_path_leads_from_data_to_noise(path):
    ends = jnp.asarray([0.0, 1.0])
    np.testing.assert_array_equal(path.alpha(ends), [1, 0])
    np.testing.assert_array_equal(path.sigma(ends), [0, 1])
    t_min, t_max = path.interval
    t = jnp.linspace(t_min, t_max, 101)
    assert np.all(np.diff(path.alpha(t)) <= 0)
    assert np.all(np.diff(path.sigma(t)) >= 0)


@each_path
def test_time_of_log_snr_undoes_log_snr(path):
    log_snr = jnp.linspace(-12.0, 12.0, 49)
    t = path.time_of_log_snr(log_snr)
    again = 2 * (
        np.log(np.asarray(path.alpha(t), float)) - np.log(np.asarray(path.sigma(t), float))
    )
    np.testing.assert_allclose(again, log_snr, atol=1e-4)


def test_flow_path_is_the_straight_line():
    x0, eps, t = examples()
    x_t = paths.interpolate(paths.FlowPath(), x0, eps, t)
    expected = (1 - wide(t)) * np.asarray(x0) + wide(t) * np.asarray(eps)
    np.testing.assert_allclose(x_t, expected, atol=1e-6)
    target = paths.target(paths.FlowPath(), "velocity", x0, eps, t)
    np.testing.assert_array_equal(target, np.asarray(eps) - np.asarray(x0))


@each_path
def test_velocity_is_the_slope_of_the_path(path):
    x0, eps, t = examples()
    _, slope = jax.jvp(lambda t: paths.interpolate(path, x0, eps, t), (t,), (jnp.ones_like(t),))
    found = paths.velocity(path, paths.Estimate(x0, eps), t)
    np.testing.assert_allclose(found, slope, atol=1e-5)
    np.testing.assert_allclose(found, paths.target(path, "velocity", x0, eps, t), atol=1e-5)


@each_path
@each_prediction
def test_perfect_output_gives_back_data_and_noise(path, prediction):
    x0, eps, t = examples()
    x_t = paths.interpolate(path, x0, eps, t)
    output = paths.target(path, prediction, x0, eps, t)
    found = paths.estimate(path, prediction, output, x_t, t)
    # x0 prediction divides a difference of rounded numbers by sigma, 0.02 at least here.
    np.testing.assert_allclose(found.x0, x0, atol=1e-5)
    np.testing.assert_allclose(found.eps, eps, atol=1e-5 / TIMES.min())


@each_path
@pytest.mark.parametrize("to", paths.PREDICTIONS)
@each_prediction
def test_any_output_survives_a_round_trip(path, prediction, to):
    """Also an output that is wrong, as every trained network's is."""
    _, _, t = examples()
    random = np.random.default_rng(1)
    output, x_t = (jnp.asarray(random.normal(size=SHAPE), jnp.float32) for _ in range(2))
    first = paths.estimate(path, prediction, output, x_t, t)
    np.testing.assert_allclose(
        paths.interpolate(path, *first, t), x_t, atol=1e-5 * max(largest(first.eps), 1)
    )
    other = paths.target(path, to, *first, t)
    second = paths.estimate(path, to, other, x_t, t)
    again = paths.target(path, prediction, *second, t)
    np.testing.assert_allclose(again, output, atol=2e-5 * max(largest(other), largest(first.eps)))


@pytest.mark.parametrize("prediction", ["eps", "Velocity", ""])
def test_unknown_prediction_is_refused(prediction):
    x0, eps, t = examples()
    with pytest.raises(ValueError, match="not one of velocity, x0"):
        paths.target(paths.FlowPath(), prediction, x0, eps, t)
    with pytest.raises(ValueError, match="not one of velocity, x0"):
        paths.estimate(paths.FlowPath(), prediction, x0, eps, t)
