"""Samplers: orders of convergence, DDPM written out, churning, passes and noise on the way."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from mixture_support import PATHS, factors_at, gaussian_denoiser, gaussian_flow, known_path
from support import smooth_gaussian

from lensjax.diffusion import paths
from lensjax.diffusion.samplers import (
    SAMPLERS,
    Interval,
    Problem,
    SamplerSettings,
    evaluation_times,
    sample,
)
from lensjax.diffusion.schedules import TablePath
from lensjax.diffusion.time_grids import check_times, time_grid
from lensjax.errors import RequestError
from lensjax.interfaces import Estimate

pytestmark = pytest.mark.usefixtures("quick_compiles")
DETERMINISTIC = [name for name in SAMPLERS if SAMPLERS[name].order]
STOCHASTIC = [name for name in SAMPLERS if not SAMPLERS[name].order]

each_path = pytest.mark.parametrize("path_name", PATHS)


def many_keys(num: int):
    return jax.random.split(jax.random.key(3), num)


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


@pytest.fixture
def scan_in_python(monkeypatch):
    """Runs the loop of a sampler step by step, so that a denoiser sees numbers."""

    def scan(body, carry, rows):
        for row in zip(*rows, strict=True):
            carry, _ = body(carry, row)
        return carry, None

    monkeypatch.setattr(jax.lax, "scan", scan)


# Orders of convergence, on correlated pixels.

GAUSSIAN = smooth_gaussian(4, num_labels=1)


MOST_STEPS = 48


def middle_times(path, steps: int) -> np.ndarray:
    """Times that are even in the coordinate s; the last interval has a test of its own."""
    levels = np.linspace(0.9, 0.1, steps + 1)
    wanted = (2 * np.log((1 - levels) / levels)).astype(np.float32)
    return np.asarray(path.time_of_log_snr(wanted), np.float32)


@functools.cache
def steps_of(sampler: str):
    """The step function of a sampler in one program for all paths and numbers of steps."""

    @jax.jit
    def run(known, x, times, count):
        path = known.jumping(False)
        denoise = gaussian_denoiser(GAUSSIAN, path)
        problem = Problem(path, denoise, SamplerSettings(sampler), MOST_STEPS)

        def step(index, carry):
            interval = Interval(times[index], times[index + 1], lambda: x)
            return SAMPLERS[sampler].step(problem, carry[0], carry[1], interval)

        first = (x, SAMPLERS[sampler].first_memory(x))
        return jax.lax.fori_loop(0, count, step, first)[0]

    return run


def end_of(path, sampler: str, times: np.ndarray, start) -> np.ndarray:
    """Runs the step function of a sampler over times that need not reach the data."""
    count = len(times) - 1
    times = np.pad(times, (0, MOST_STEPS - count), mode="edge")
    known = known_path(path, SamplerSettings(sampler), times)
    return np.asarray(steps_of(sampler)(known, start, times, count), np.float64)


def root_mean_square(error) -> float:
    return float(np.sqrt(np.mean(np.square(error))))


@pytest.mark.parametrize("sampler", DETERMINISTIC)
def test_order_of_convergence(sampler):
    wrong = {}
    # The leading errors of this symmetric rule cancel; with more steps only rounding is left.
    cancels = sampler == "midpoint"
    steps = np.array([12, 24] if cancels else [12, 24, MOST_STEPS])
    for path_name, path in PATHS.items():
        errors = []
        for count in steps:
            times = middle_times(path, int(count))
            x = normal(64, 16) * np.float32(factors_at(path, times[0])[1])
            exact = gaussian_flow(GAUSSIAN, path, x.astype(np.float64), times[0], times[-1])
            errors.append(root_mean_square(end_of(path, sampler, times, x) - exact))
        slope, _ = np.polyfit(np.log(steps), np.log(errors), 1)
        if abs(-slope - SAMPLERS[sampler].order - cancels) > 0.2:
            wrong[path_name] = -slope
    assert not wrong


@functools.cache
def way_of(settings: SamplerSettings, steps: int, jumps: bool):
    """A sampler from noise to data in one program for all paths."""

    @jax.jit
    def run(known, times, noise, keys):
        path = known.jumping(jumps)
        problem = Problem(path, gaussian_denoiser(GAUSSIAN, path), settings, steps)
        return sample(problem, noise, times, keys)

    return run


def whole_way(path, settings: SamplerSettings, times: np.ndarray, noise) -> np.ndarray:
    """Where a sampler carries noise `[N, 16]`."""
    run = way_of(settings, len(times) - 1, path.interval[0] > 0)
    found = run(known_path(path, settings, times), times, noise, many_keys(len(noise)))
    return np.asarray(found, np.float64)


@each_path
def test_whole_way_ends_where_the_exact_flow_does(path_name):
    """With the grids and the last pass as they are used, from noise to data."""
    path = PATHS[path_name]
    times, noise = time_grid(path, 100, "karras"), normal(64, 16)
    denoise = gaussian_denoiser(GAUSSIAN, path)
    start = factors_at(path, times[0])[1] * noise.astype(np.float64)
    exact = gaussian_flow(GAUSSIAN, path, start, times[0], path.interval[0])
    if path.interval[0] > 0:
        exact = np.asarray(denoise(jnp.asarray(exact, jnp.float32), jnp.asarray(times[-2])).x0)
    ends = {name: whole_way(path, SamplerSettings(name), times, noise) for name in DETERMINISTIC}
    errors = {name: root_mean_square(end - exact) for name, end in ends.items()}
    bounds = {name: 0.03 if SAMPLERS[name].order == 1 else 0.003 for name in ends}
    assert {name: error for name, error in errors.items() if error >= bounds[name]} == {}
    # Euler's rule is DDIM without noise, and a little churning is nearly Heun's rule.
    np.testing.assert_allclose(ends["euler"], ends["ddim"], atol=2e-5)
    times, noise = time_grid(path, 20, "karras"), noise[:16]
    heun, churned = (
        whole_way(path, settings, times, noise)
        for settings in (SamplerSettings("heun"), SamplerSettings("churn", churn=1e-5))
    )
    assert 0 < np.max(np.abs(churned - heun)) < 0.02


@pytest.mark.parametrize("sampler", DETERMINISTIC)
def test_last_interval_is_as_exact_as_the_others(sampler):
    """Over the whole way a worse last step would hide behind the others."""
    path, noise = PATHS["flow"], np.random.default_rng(0).normal(size=(64, 16))
    exact = gaussian_flow(GAUSSIAN, path, noise, 1.0, 0.0)
    lengths, errors = np.array([0.16, 0.08, 0.04]), []
    for length in lengths.astype(np.float32):
        start = gaussian_flow(GAUSSIAN, path, noise, 1.0, length).astype(np.float32)
        end = end_of(path, sampler, np.array([length, 0], np.float32), start)
        errors.append(root_mean_square(end - exact))
    slope, _ = np.polyfit(np.log(lengths), np.log(errors), 1)
    # The error of one step falls by one order more than that of the whole way; a first step
    # remembers nothing, but a posterior mean this near the data is off by t^2.
    assert slope > min(SAMPLERS[sampler].order, 1 if sampler == "dpmpp_2m" else 2) + 0.8


@each_path
@pytest.mark.parametrize("steps", [1, 4])
def test_a_single_image_is_reached_exactly_with_the_passes_that_are_foreseen(
    scan_in_python, path_name, steps
):
    """With one image in the world every path is straight, and one step is enough."""
    path, image, noise = PATHS[path_name], normal(1, 4, 6, 2, seed=1), normal(5, 4, 6, 2)
    times, seen = time_grid(path, steps, "karras"), []

    def denoise(x_t, t):
        assert t.shape == ()
        seen.append(np.asarray(t))
        return paths.estimate(path, "x0", jnp.broadcast_to(image, x_t.shape), x_t, t)

    for sampler in SAMPLERS:
        seen.clear()
        settings = SamplerSettings(sampler)
        problem = Problem(path, denoise, settings, steps)
        found = sample(problem, jnp.asarray(noise), jnp.asarray(times), many_keys(5))
        reached = np.broadcast_to(image, noise.shape)
        np.testing.assert_allclose(found, reached, atol=3e-5, err_msg=sampler)

        foreseen = evaluation_times(path, settings, times)
        np.testing.assert_allclose(np.sort(foreseen), np.sort(seen), rtol=1e-5, err_msg=sampler)
        assert foreseen.dtype == np.float32
        # Beside the last pass of a path that ends before the data.
        per_step = 2 if sampler in ("heun", "midpoint", "churn") else 1
        jumps = path.interval[0] > 0
        assert len(seen) == (steps - jumps) * per_step + jumps, sampler
        assert max(path.interval[0], 1e-6) * 0.9999 <= min(seen)
        assert max(seen) <= path.interval[1]


# DDPM, written out from the betas in float64 (Ho et al. 2020, algorithm 2).


def step_noise(keys, step: int, shape: tuple[int, ...]) -> np.ndarray:
    draws = [jax.random.normal(jax.random.fold_in(key, step), shape) for key in keys]
    return np.asarray(draws, np.float64)


@functools.partial(jax.jit, static_argnames=("steps", "size"))
def all_noise(keys, steps: int, size: int):
    """The same for all steps at once, `[steps, N, size]`."""

    def draw(key, step):
        return jax.random.normal(jax.random.fold_in(key, step), (size,))

    each_key = jax.vmap(draw, in_axes=(0, None))
    return jax.lax.map(lambda step: each_key(keys, step), jnp.arange(steps))


def ancestral(betas: np.ndarray, x: np.ndarray, keys) -> np.ndarray:
    """Algorithm 2 with the posterior variance, for pixels with the covariance of `GAUSSIAN`."""
    kept = np.cumprod(1 - betas)
    variances, directions = GAUSSIAN.modes
    mean = GAUSSIAN.means[0]
    noise = np.asarray(all_noise(keys, len(betas), x.shape[1]), np.float64)
    for step, t in enumerate(reversed(range(len(betas)))):
        beta, total = betas[t], kept[t]
        away = (x - np.sqrt(total) * mean) @ directions
        # E[eps | x_t], along each mode of the data.
        eps = np.sqrt(1 - total) * away / (total * variances + 1 - total) @ directions.T
        x = (x - beta / np.sqrt(1 - total) * eps) / np.sqrt(1 - beta)
        if t > 0:
            posterior = (1 - kept[t - 1]) / (1 - total) * beta
            x = x + np.sqrt(posterior) * noise[step]
    return x


def betas_of(path: TablePath, entries: np.ndarray) -> np.ndarray:
    """The betas that lead over some entries of a table: `1 - total / total before`."""
    totals = 1 / (1 + np.exp(-np.array(path.log_snr)[entries]))
    return 1 - totals / np.append(1.0, totals[:-1])


ANCESTRAL = [SamplerSettings("ddpm"), SamplerSettings("ddim", eta=1.0)]


@pytest.mark.parametrize(
    ("steps", "settings"), [(1000, ANCESTRAL[0]), (50, ANCESTRAL[1]), (7, ANCESTRAL[0])]
)
def test_ancestral_sampling_is_that_of_ddpm(steps, settings):
    """All entries of a table, or some of them with the betas between these."""
    for path_name in ("linear table", "cosine table"):
        path = PATHS[path_name]
        assert isinstance(path, TablePath)
        times, noise = time_grid(path, steps), normal(8, 16)
        entries = np.round(times[-2::-1] * 1000).astype(int) - 1
        np.testing.assert_allclose((entries + 1) / 1000, times[-2::-1], atol=1e-7)
        assert entries[0] == 0
        assert entries[-1] == 999
        found = whole_way(path, settings, times, noise)
        betas = betas_of(path, entries)
        start = np.asarray(noise, np.float64) * np.sqrt(1 / (1 + np.exp(path.log_snr[-1])))
        expected = ancestral(betas, start, many_keys(8))
        np.testing.assert_allclose(found, expected, atol=2e-4, err_msg=path_name)


def test_ddim_between_no_noise_and_all_of_it():
    """Equations 12 and 16 of Song et al. (2021) in their own letters, for one step."""
    path, eta, keys, x = PATHS["linear"], 0.6, many_keys(5), normal(5, 16)
    now, later = jnp.float32(0.5), jnp.float32(0.4)
    total, total_later = (float(path.alpha(t)) ** 2 for t in (now, later))
    x0, eps = gaussian_denoiser(GAUSSIAN, path)(x, now)
    spread = eta * np.sqrt((1 - total_later) / (1 - total) * (1 - total / total_later))
    noise = step_noise(keys, 0, (16,))
    expected = np.sqrt(total_later) * x0 + np.sqrt(1 - total_later - spread**2) * eps
    problem = Problem(path, gaussian_denoiser(GAUSSIAN, path), SamplerSettings("ddim", eta=eta), 1)
    found, _ = SAMPLERS["ddim"].step(
        problem, jnp.asarray(x), None, Interval(now, later, lambda: jnp.asarray(noise, jnp.float32))
    )
    np.testing.assert_allclose(found, expected + spread * noise, atol=2e-5)


@each_path
def test_noise_of_ddim_is_drawn_within_its_interval_alone(path_name):
    path, keys, x = PATHS[path_name], many_keys(5), normal(5, 16)
    noise = jnp.asarray(step_noise(keys, 0, (16,)), jnp.float32)

    def step(t, t_next, **settings):
        problem = Problem(
            path, gaussian_denoiser(GAUSSIAN, path), SamplerSettings("ddim", **settings), 1
        )
        interval = Interval(jnp.float32(t), jnp.float32(t_next), lambda: noise)
        return np.asarray(SAMPLERS["ddim"].step(problem, jnp.asarray(x), None, interval)[0])

    for t, eta in ((0.5, 0.6), (0.1, 0.0), (0.95, 0.0)):
        found = step(t, t - 0.05, eta=0.6, eta_interval=(0.3, 0.9))
        np.testing.assert_allclose(found, step(t, t - 0.05, eta=eta), atol=1e-6)


# Churning.

LARGE = normal(200_000, 1), normal(200_000, 1, seed=1)


@each_path
@pytest.mark.parametrize(("churn", "growth"), [(2.0, 0.2), (100.0, np.sqrt(2) - 1)])
def test_churned_images_have_the_noise_that_their_time_asks_for(path_name, churn, growth):
    """Variance `alpha^2 s + sigma^2` at a sigma / alpha that has grown as in EDM."""
    path, seen = PATHS[path_name], []

    def denoise(x_t, t):
        seen.append((np.asarray(x_t), t))
        return Estimate(x_t, x_t)

    t, variance = path.time_of_log_snr(jnp.float32(0.5)), 0.49
    alpha, sigma = factors_at(path, t)
    x = jnp.asarray(np.sqrt(alpha**2 * variance + sigma**2).astype(np.float32) * LARGE[0])
    problem = Problem(
        path, denoise, SamplerSettings("churn", churn=churn, churn_interval=(0, 1)), 10
    )
    interval = Interval(t, path.time_of_log_snr(jnp.float32(2.0)), lambda: jnp.asarray(LARGE[1]))
    SAMPLERS["churn"].step(problem, x, None, interval)
    churned, raised = seen[0]
    ratio = path.sigma(raised) / path.alpha(raised)
    assert ratio == pytest.approx(float((1 + growth) * sigma / alpha), rel=1e-3)
    expected = path.alpha(raised) ** 2 * variance + path.sigma(raised) ** 2
    assert np.var(churned) == pytest.approx(float(expected), rel=0.015)


@pytest.mark.parametrize("time", [0.0499, 0.05, 0.5, 0.95, 0.9501])
def test_churning_keeps_to_its_times(time):
    t = np.array([time, 0.01], np.float32)
    settings = SamplerSettings("churn", churn_interval=(0.05, 0.95))
    asked = evaluation_times(PATHS["flow"], settings, t)
    assert (asked[0] > t[0]) == (0.05 <= time <= 0.95)


# Passes, and the noise on the way.


@pytest.mark.parametrize("sampler", STOCHASTIC)
def test_noise_of_an_image_depends_on_its_key_and_the_step_alone(sampler):
    path, noise, keys = PATHS["flow"], normal(6, 4, 3), many_keys(6)
    times = jnp.asarray(check_times(path, [1, 0.8, 0.5, 0.2, 0]))

    def draw(chosen):
        problem = Problem(
            path,
            lambda x_t, t: paths.estimate(path, "x0", 0.5 * x_t, x_t, t),
            SamplerSettings(sampler, eta=1.0),
            4,
        )
        return np.asarray(sample(problem, noise[chosen], times, keys[chosen]))

    every = np.arange(6)
    whole = draw(every)
    for chosen in (every[:1], every[3:], every[::-1], every[[4, 4, 1]]):
        np.testing.assert_array_equal(draw(chosen), whole[chosen])


def test_each_step_draws_its_own_noise(scan_in_python, monkeypatch):
    steps = 4
    path, keys, drawn = PATHS["flow"].narrowed(0.1, 1.0), many_keys(4), []

    def step(problem, x_t, memory, interval):
        drawn.append(np.asarray(interval.draw_noise()))
        return x_t, None

    monkeypatch.setitem(SAMPLERS, "ddpm", SAMPLERS["ddpm"]._replace(step=step))
    problem = Problem(path, lambda x, t: Estimate(x, x), SamplerSettings("ddpm"), steps)
    sample(problem, jnp.asarray(normal(4, 2)), jnp.asarray(time_grid(path, steps)), keys)
    assert len(drawn) == steps - 1
    for index, noise in enumerate(drawn):
        np.testing.assert_array_equal(noise, step_noise(keys, index, (2,)).astype(np.float32))
    assert all(not np.array_equal(a, b) for a, b in itertools.combinations(drawn, 2))


@pytest.mark.parametrize("sampler", STOCHASTIC)
def test_samplers_that_draw_noise_need_keys(sampler):
    path = PATHS["flow"]
    settings = SamplerSettings(sampler, eta=1.0)
    problem = Problem(path, gaussian_denoiser(GAUSSIAN, path), settings, 2)
    with pytest.raises(RequestError, match=f"the sampler {sampler} draws noise and needs keys"):
        sample(problem, jnp.asarray(normal(2, 16)), jnp.asarray(time_grid(path, 2)))
