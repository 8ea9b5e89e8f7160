"""Paths and conversions against explicit formulas in float64, for every path and prediction."""

import functools
import inspect
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from mixture_support import PATHS, every_pair

from lensjax.diffusion import paths
from lensjax.diffusion.paths import PREDICTIONS, Path
from lensjax.diffusion.schedules import CosinePath, EDMPath, LinearPath, TablePath, ddpm_betas

pytestmark = pytest.mark.usefixtures("quick_compiles")
SHARES = np.array([0.0, 0.02, 0.1, 0.35, 0.5, 0.8, 0.97, 1.0])
SHAPE = (len(SHARES), 6, 4, 2)
LEAST_SNR = np.exp(-10.2)
TABLES = {name: path for name, path in PATHS.items() if isinstance(path, TablePath)}

each_path = pytest.mark.parametrize("name", PATHS)
each_prediction = pytest.mark.parametrize("prediction", PREDICTIONS)


@functools.cache
def usable_times(name: str, *predictions: str, least: float = 0.0) -> Any:
    """Times from the first to the last one that all predictions can use, and of at least `least`.

    Those of a table lie between its entries. Of numpy, for which nothing is compiled.
    """
    path: Path = PATHS[name]
    for prediction in predictions:
        path = paths.usable(path, prediction)
    t_min, t_max = path.interval
    t_min = max(t_min, least)
    times = t_min + (t_max - t_min) * SHARES
    if name in TABLES:
        times = (np.clip(np.floor(times * 1000), 1, t_max * 1000 - 1) + 0.5) / 1000
    return times.astype(np.float32)


def examples(seed: int = 0) -> tuple[Any, Any]:
    random = np.random.default_rng(seed)
    x0, eps = (random.normal(size=SHAPE).astype(np.float32) for _ in range(2))
    return x0, eps


def wide(array: Any) -> np.ndarray:
    return np.asarray(array, np.float64).reshape(-1, 1, 1, 1)


def largest(*arrays: Any) -> float:
    return max(float(np.max(np.abs(np.asarray(array)))) for array in arrays)


def coefficients(path: Path, prediction: str, t: jax.Array) -> tuple[np.ndarray, np.ndarray]:
    """The a and b of `a x0 + b eps` in float64, from the definitions."""
    alpha, sigma = wide(path.alpha(t)), wide(path.sigma(t))
    with np.errstate(divide="ignore"):
        return {
            "velocity": (wide(path.alpha_derivative(t)), wide(path.sigma_derivative(t))),
            "x0": (np.ones_like(alpha), np.zeros_like(alpha)),
            "v": (-sigma, alpha),
            "eps": (np.zeros_like(alpha), np.ones_like(alpha)),
            "score": (np.zeros_like(alpha), -1 / sigma),
        }[prediction]


@each_path
def test_path_offers_the_whole_protocol(name):
    path, t = PATHS[name], jnp.asarray(usable_times(name))
    for method, _ in inspect.getmembers(Path, inspect.isfunction):
        if not method.startswith("_") and method != "narrowed":
            found = getattr(path, method)(t)
            assert found.shape == t.shape
            assert found.dtype == jnp.float32
            assert getattr(path, method)(t[0]).shape == ()
    t_min, t_max = path.interval
    assert 0 <= t_min < t_max <= 1
    assert path.narrowed(t_min, t_max) == path


def table_slopes(path: TablePath, t: Any) -> dict[str, np.ndarray]:
    """Central differences of a table's alpha and sigma in float64."""
    t, length = np.asarray(t, np.float64), 1e-6
    entries = np.arange(1, len(path.log_snr) + 1) / len(path.log_snr)

    def factors(t: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        log_snr = np.interp(t, entries, path.log_snr)
        return 1 / np.sqrt(1 + np.exp(-log_snr)), 1 / np.sqrt(1 + np.exp(log_snr))

    pairs = zip(factors(t + length), factors(t - length), strict=True)
    slopes = [(after - before) / (2 * length) for after, before in pairs]
    return {"alpha": slopes[0], "sigma": slopes[1]}


@each_path
@pytest.mark.parametrize("factor", ["alpha", "sigma"])
def test_derivatives_are_those_of_alpha_and_sigma(name, factor):
    path, t = PATHS[name], jnp.asarray(usable_times(name))
    if isinstance(path, TablePath):  # JAX would differentiate between rounded entries
        expected = table_slopes(path, t)[factor]
    else:
        _, expected = jax.jvp(getattr(path, factor), (t,), (jnp.ones_like(t),))
    stated = getattr(path, f"{factor}_derivative")(t)
    tolerance = 1e-3 if name in TABLES else 5e-5
    np.testing.assert_allclose(stated, expected, rtol=tolerance, atol=1e-6)


@each_path
def test_path_leads_from_data_to_noise(name):
    path = PATHS[name]
    t = jnp.linspace(path.interval[0], path.interval[1], 1001)
    alpha, sigma = (np.asarray(each, np.float64) for each in (path.alpha(t), path.sigma(t)))
    assert np.all(np.diff(alpha) <= 0)
    assert np.all(np.diff(sigma) > 0)
    if name == "flow":
        np.testing.assert_array_equal([alpha[0], alpha[-1], sigma[0], sigma[-1]], [1, 0, 0, 1])
    elif name == "edm":
        np.testing.assert_array_equal(alpha, 1)
    else:
        np.testing.assert_allclose(alpha**2 + sigma**2, 1, rtol=1e-6)
        assert sigma[0] < 0.05
        assert alpha[-1] < 0.01


@each_path
def test_time_of_log_snr_undoes_log_snr_over_the_usable_times(name):
    path = PATHS[name]
    ends = np.clip(np.asarray(paths.log_snr(path, jnp.asarray(path.interval))), -12, 12)
    log_snr = jnp.linspace(ends[0], ends[1], 101)
    t = path.time_of_log_snr(log_snr)
    assert t.dtype == jnp.float32
    assert path.interval[0] - 1e-6 <= np.min(t) < np.max(t) <= path.interval[1] + 1e-6
    again = 2 * np.log(np.asarray(path.alpha(t), float) / np.asarray(path.sigma(t), float))
    np.testing.assert_allclose(again, log_snr, atol=1e-3 if name in TABLES else 1e-4)
    back = path.time_of_log_snr(paths.log_snr(path, t))
    np.testing.assert_allclose(back, t, atol=2e-6)


@pytest.mark.parametrize("name", sorted(PATHS.keys() - TABLES.keys()))
@pytest.mark.parametrize("ends", [None, (0.1, 0.7)])
def test_equal_shares_are_equal_times(name, ends):
    path = PATHS[name].narrowed(*ends) if ends else PATHS[name]
    t_min, t_max = path.interval
    assert not ends or path.interval == ends
    expected = t_min + (t_max - t_min) * SHARES
    found = path.time_of_share(jnp.asarray(SHARES, jnp.float32))
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_flow_path_is_the_straight_line():
    x0, eps = examples()
    t = jnp.asarray(SHARES, jnp.float32)
    x_t = paths.interpolate(paths.FlowPath(), x0, eps, t)
    expected = (1 - wide(t)) * np.asarray(x0) + wide(t) * np.asarray(eps)
    np.testing.assert_allclose(x_t, expected, atol=1e-6)
    target = paths.target(paths.FlowPath(), "velocity", x0, eps, t)
    np.testing.assert_array_equal(target, np.asarray(eps) - np.asarray(x0))


@each_path
def test_velocity_is_the_slope_of_the_path(name):
    path, t = PATHS[name], jnp.asarray(usable_times(name))
    x0, eps = map(jnp.asarray, examples())
    _, slope = jax.jvp(lambda t: paths.interpolate(path, x0, eps, t), (t,), (jnp.ones_like(t),))
    found = paths.velocity(path, paths.Estimate(x0, eps), t)
    # The slope of an interpolation in float32 is that of rounded differences.
    np.testing.assert_allclose(found, slope, rtol=1e-4, atol=1e-3 if name in TABLES else 1e-5)
    np.testing.assert_allclose(found, paths.target(path, "velocity", x0, eps, t), rtol=1e-6)


@each_path
@each_prediction
def test_target_is_its_definition(name, prediction):
    path, t = PATHS[name], usable_times(name, prediction)
    x0, eps = examples()
    a, b = coefficients(path, prediction, t)
    expected = a * np.asarray(x0, float) + b * np.asarray(eps, float)
    found = paths.target(path, prediction, x0, eps, t)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


@each_path
@each_prediction
def test_perfect_output_gives_back_data_and_noise(name, prediction):
    """As closely as float32 allows: an x_t rounded in its last digit is the bound."""
    path, t = PATHS[name], usable_times(name, prediction, least=1e-3)
    x0, eps = examples()
    x_t = paths.interpolate(path, x0, eps, t)
    output = paths.target(path, prediction, x0, eps, t)
    found = paths.estimate(path, prediction, output, x_t, t)
    a, b = coefficients(path, prediction, t)
    alpha, sigma = wide(path.alpha(t)), wide(path.sigma(t))
    digits = 4e-7 / np.abs(alpha * b - sigma * a)
    input_, said = np.abs(np.asarray(x_t)), np.abs(np.asarray(output))
    for one, true, bound in [
        (found.x0, x0, np.abs(b) * input_ + sigma * said),
        (found.eps, eps, alpha * said + np.abs(a) * input_),
    ]:
        assert np.all(np.abs(np.asarray(one - true, float)) <= digits * bound + 1e-6)
    assert largest(found.x0 - x0) < 1e-3
    assert largest(found.eps - eps) < 1e-3


@pytest.mark.parametrize(("name", "prediction", "to"), every_pair(PATHS, PREDICTIONS, PREDICTIONS))
def test_any_output_survives_a_round_trip(name, prediction, to):
    """Also an output that is wrong, as every trained network's is."""
    path, t = PATHS[name], usable_times(name, prediction, to, least=1e-2)
    output, x_t = examples(1)
    first = paths.estimate(path, prediction, output, x_t, t)
    size = max(1, largest(*first))
    np.testing.assert_allclose(paths.interpolate(path, *first, t), x_t, atol=1e-5 * size)
    other = paths.target(path, to, *first, t)
    second = paths.estimate(path, to, other, x_t, t)
    again = paths.target(path, prediction, *second, t)
    size = max(size, largest(other), largest(paths.target(path, prediction, *first, t)))
    np.testing.assert_allclose(again, output, atol=5e-5 * size)


# Where each prediction ends, from the definitions alone.
FLOW_END = 1 / (1 + np.sqrt(LEAST_SNR))
_S = 0.008
COSINE_END = (1 + _S) * 2 / np.pi * np.arccos(
    np.cos(np.pi / 2 * _S / (1 + _S)) * np.sqrt(LEAST_SNR / (1 + LEAST_SNR))
) - _S
WHOLE = (paths.FIRST_TIME, 1.0)
USABLE = {  # of eps, of score
    "flow": ((0.0, FLOW_END), (paths.FIRST_TIME, FLOW_END)),
    "linear": (WHOLE, WHOLE),
    "cosine": ((paths.FIRST_TIME, COSINE_END), (paths.FIRST_TIME, COSINE_END)),
    "linear table": (WHOLE, WHOLE),
    "cosine table": ((0.001, np.floor(COSINE_END * 1000) / 1000),) * 2,
    "edm": (WHOLE, WHOLE),
}


@each_path
@each_prediction
def test_usable_times_of_each_prediction(name, prediction):
    path = paths.usable(PATHS[name], prediction)
    if prediction in ("velocity", "x0", "v"):
        assert path is PATHS[name]
        return
    expected = USABLE[name][("eps", "score").index(prediction)]
    np.testing.assert_allclose(path.interval, expected, atol=2e-6)
    assert paths.log_snr(path, jnp.float32(path.interval[1])) > -10.21
    assert path == paths.usable(path, prediction)


@each_path
def test_usable_times_are_found_inside_of_jitted_functions_too(name):
    inside: list[Path] = []

    def traced(x):
        inside.extend(paths.usable(PATHS[name], prediction) for prediction in PREDICTIONS)
        return x

    jax.eval_shape(traced, 1.0)
    assert inside == [paths.usable(PATHS[name], prediction) for prediction in PREDICTIONS]


@pytest.mark.parametrize(
    ("path", "predictions"),
    [
        (LinearPath(0.1, 60.0), ("eps", "score", "velocity")),
        (LinearPath(0.1, 1000.0), ("eps", "score", "velocity")),  # alpha is 0 in float32
        (CosinePath(), ("eps", "score")),
        (EDMPath(0.002, 1000.0), ("eps", "score")),
        (TablePath.from_betas(ddpm_betas("linear", 50, 0.1, 20.0)), ("eps", "score")),
    ],
    ids=["linear, 60", "linear, 1000", "cosine", "edm, 1000", "table of 50"],
)
def test_a_path_that_loses_all_data_ends_earlier_for_what_then_says_nothing(path, predictions):
    x0, eps = examples()
    for prediction in PREDICTIONS:
        narrowed = paths.usable(path, prediction)
        last = jnp.full(SHAPE[0], narrowed.interval[1], jnp.float32)
        assert (narrowed.interval[1] < path.interval[1]) == (prediction in predictions)
        if isinstance(path, TablePath) and prediction == "velocity":
            continue
        x_t = paths.interpolate(path, x0, eps, last)
        output = paths.target(path, prediction, x0, eps, last)
        found = paths.estimate(path, prediction, output, x_t, last)
        np.testing.assert_allclose(found.x0, x0, atol=2e-3)
        np.testing.assert_allclose(found.eps, eps, atol=2e-3)


@pytest.mark.parametrize(("name", "of", "seen_as"), every_pair(PATHS, PREDICTIONS, PREDICTIONS))
def test_error_factor_is_the_quotient_of_the_errors_of_two_outputs(name, of, seen_as):
    path, t = PATHS[name], usable_times(name, of, seen_as, least=1e-3)
    error, _ = examples(2)
    # Both are linear, so that an error does not depend on what it is added to: here to nothing.
    implied = paths.estimate(path, of, error, jnp.zeros_like(error), t)
    seen = np.asarray(paths.target(path, seen_as, *implied, t), float)
    measured = np.sum(seen * error, axis=(1, 2, 3)) / np.sum(np.square(error), axis=(1, 2, 3))
    np.testing.assert_allclose(seen, wide(measured) * error, rtol=1e-4)
    found = paths.error_factor(path, of, seen_as, t, min_sigma=0.0)
    assert found.shape == t.shape
    np.testing.assert_allclose(found, measured, rtol=1e-4)
    # The least sigma bounds what is divided by it and nothing else.
    least = float(path.sigma(t)[2])
    floored = paths.error_factor(path, of, seen_as, t, least)
    divisions = 0 if of == seen_as else (of == "x0") + (seen_as == "score")
    share = np.minimum(np.asarray(path.sigma(t), float) / least, 1)
    assert share[0] < 1
    np.testing.assert_allclose(floored, measured * share**divisions, rtol=1e-4)


def test_an_error_is_bounded_where_there_is_no_noise():
    t = jnp.zeros(3)
    for seen_as in PREDICTIONS:
        factor = paths.error_factor(paths.FlowPath(), "x0", seen_as, t, 0.05)
        assert np.all(np.abs(factor) <= 1 / 0.05**2)


@pytest.mark.parametrize("prediction", ["noise", "Velocity", ""])
def test_unknown_prediction_is_refused(prediction):
    x0, eps = examples()
    t = jnp.asarray(SHARES, jnp.float32)
    words = f"prediction '{prediction}' is not one of velocity, x0, v, eps, score"
    with pytest.raises(ValueError, match=words):
        paths.target(paths.FlowPath(), prediction, x0, eps, t)
    with pytest.raises(ValueError, match=words):
        paths.estimate(paths.FlowPath(), prediction, x0, eps, t)
    with pytest.raises(ValueError, match=words):
        paths.usable(paths.FlowPath(), prediction)
