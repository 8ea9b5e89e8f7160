"""Samplers: one step function each, and one `lax.scan` that drives them from noise to data.

The deterministic solvers work in coordinates in which every path is the straight one: with
`s = sigma / (alpha + sigma)` and `y = x / (alpha + sigma)`, `y = (1 - s) x0 + s eps` and

    dy / ds = eps - x0.

So a solver does not depend on how a path happens to run through time, and Euler's rule is DDIM.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from lensjax.arguments import choice
from lensjax.diffusion.paths import Path, log_snr, noise_share, time_of_noise_share
from lensjax.errors import RequestError
from lensjax.interfaces import DenoiseFn, Estimate


class SamplerSettings(NamedTuple):
    """The settings of the samplers.

    Attributes:
      name: one of `SAMPLERS`.
      eta: `ddim`: noise added anew, 0 for none, 1 for as much as `ddpm`.
      eta_interval: `ddim`: times between which noise is added anew.
      churn: `churn`: noise added before the steps, as a share of sigma summed over all steps.
      churn_noise: `churn`: standard deviation of that noise, in units of the path's.
      churn_interval: `churn`: times between which noise is added.
    """

    name: str = "euler"
    eta: float = 0.0
    eta_interval: tuple[float, float] = (0.0, 1.0)
    churn: float = 10.0
    churn_noise: float = 1.0
    churn_interval: tuple[float, float] = (0.05, 0.95)


class Problem(NamedTuple):
    """The inputs that are the same in all steps.

    Attributes:
      path: the probability path.
      denoise: the guided denoiser.
      settings: see `SamplerSettings`.
      steps: the number of intervals.
    """

    path: Path
    denoise: DenoiseFn
    settings: SamplerSettings
    steps: int


class Interval(NamedTuple):
    """The times and the noise of one step.

    Attributes:
      t: the present time, float32 `[]`.
      t_next: the next, smaller time, float32 `[]`.
      draw_noise: returns the standard normal noise of this step, `[B, ...]`.
    """

    t: Array
    t_next: Array
    draw_noise: Callable[[], Array]


# (problem, x_t [B, ...], memory, interval) -> (x at the next time, memory).
StepFn = Callable[[Problem, Array, Any, Interval], tuple[Array, Any]]


def _slope(problem: Problem, x_t: Array, t: Array) -> Array:
    x0, eps = problem.denoise(x_t, t)
    return eps - x0


def _move(path: Path, x_t: Array, slope: Array, t: Array, t_next: Array) -> Array:
    """Follows a slope `dy / ds` from one time to another."""
    size, size_next = (path.alpha(time) + path.sigma(time) for time in (t, t_next))
    length = noise_share(path, t_next) - noise_share(path, t)
    return size_next * (x_t / size + length * slope)


def _middle(path: Path, t: Array, t_next: Array) -> Array:
    """The time halfway between two times, measured by s."""
    middle = (noise_share(path, t) + noise_share(path, t_next)) / 2
    return time_of_noise_share(path, middle)


def euler_step(
    problem: Problem, x_t: Array, memory: None, interval: Interval
) -> tuple[Array, None]:
    """Follows the slope at the present time; one pass, order 1.

    Args:
      problem: path, denoiser and settings.
      x_t: `[B, ...]`.
      memory: from the step before.
      interval: the times of the step.

    Returns:
      x at the next time, `[B, ...]`, and the memory for the next step.
    """
    t, t_next, _ = interval
    return _move(problem.path, x_t, _slope(problem, x_t, t), t, t_next), None


def midpoint_step(
    problem: Problem, x_t: Array, memory: None, interval: Interval
) -> tuple[Array, None]:
    """Follows the slope in the middle of the interval; two passes, order 2.

    Args and Returns as for `euler_step`.
    """
    path, (t, t_next, _) = problem.path, interval
    middle = _middle(path, t, t_next)
    x_middle = _move(path, x_t, _slope(problem, x_t, t), t, middle)
    return _move(path, x_t, _slope(problem, x_middle, middle), t, t_next), None


def _second_time(path: Path, t: Array, t_next: Array) -> Array:
    """The time of the second slope in Heun's rule.

    At t = 0 the noise in `x_t` is undefined for most predictions, so that an interval that ends
    there takes the slope of its middle instead (the midpoint rule, also of order 2).
    """
    return jnp.where(t_next <= 0, _middle(path, t, t_next), t_next)


def heun_step(problem: Problem, x_t: Array, memory: None, interval: Interval) -> tuple[Array, None]:
    """Follows the mean of the slopes at both ends; two passes, order 2.

    Args and Returns as for `euler_step`.
    """
    path, (t, t_next, _) = problem.path, interval
    first = _slope(problem, x_t, t)
    t_second = _second_time(path, t, t_next)
    second = _slope(problem, _move(path, x_t, first, t, t_second), t_second)
    slope = jnp.where(t_next <= 0, second, (first + second) / 2)
    return _move(path, x_t, slope, t, t_next), None


def _raised_time(problem: Problem, t: Array) -> Array:
    """The time, further towards noise, to which churning goes back."""
    path, settings = problem.path, problem.settings
    low, high = settings.churn_interval
    growth = min(settings.churn / problem.steps, np.sqrt(2).item() - 1)
    raised = path.time_of_log_snr(log_snr(path, t) - 2 * np.log1p(growth).item())
    raised = jnp.clip(raised, t, path.interval[1])
    return jnp.where((low <= t) & (t <= high), raised, t)


def churn_step(
    problem: Problem, x_t: Array, memory: None, interval: Interval
) -> tuple[Array, None]:
    """Adds a little noise, then makes a step of Heun's rule; two passes.

    The stochastic sampler of Karras et al. 2022 (arXiv:2206.00364, algorithm 2): sigma / alpha
    grows by `1 + min(churn / steps, sqrt(2) - 1)` inside the churn interval.

    Args and Returns as for `euler_step`.
    """
    path, t = problem.path, interval.t
    raised = _raised_time(problem, t)
    ratio = jnp.where(raised > t, path.alpha(raised) / path.alpha(t), 1.0)  # 0 / 0 at pure noise
    added = jnp.square(path.sigma(raised)) - jnp.square(ratio * path.sigma(t))
    noise = problem.settings.churn_noise * interval.draw_noise()
    x_raised = ratio * x_t + jnp.sqrt(jnp.maximum(added, 0)) * noise
    return heun_step(problem, x_raised, memory, interval._replace(t=raised))


def _fresh_share(path: Path, t: Array, t_next: Array) -> Array:
    """The share of sigma(t)^2 that the path adds between the next time and t."""
    return -jnp.expm1(log_snr(path, t) - log_snr(path, t_next))


def ddim_step(problem: Problem, x_t: Array, memory: None, interval: Interval) -> tuple[Array, None]:
    """Goes to the next time with some of the noise drawn anew; one pass.

    Song et al. 2021 (arXiv:2010.02502, equations 12 and 16) for any path: `alpha' x0 +
    sqrt(sigma'^2 - v) eps + sqrt(v) noise` with `v = eta^2 sigma'^2 (share)`; eta 0 is order 1.

    Args and Returns as for `euler_step`.
    """
    path, (t, t_next, draw_noise) = problem.path, interval
    x0, eps = problem.denoise(x_t, t)
    sigma_next, eta = path.sigma(t_next), problem.settings.eta
    mean_of = path.alpha(t_next) * x0
    if eta == 0:
        return mean_of + sigma_next * eps, None
    drawn = eta**2 * _fresh_share(path, t, t_next)
    low, high = problem.settings.eta_interval
    if (low, high) != (0, 1):
        drawn = jnp.where((low <= t) & (t <= high), drawn, 0.0)
    x_next = mean_of + sigma_next * (jnp.sqrt(1 - drawn) * eps + jnp.sqrt(drawn) * draw_noise())
    return x_next, None


def ddpm_step(problem: Problem, x_t: Array, memory: None, interval: Interval) -> tuple[Array, None]:
    """Draws from the posterior of the next x, given x_t and the network's x0; one pass.

    Ancestral sampling of Ho et al. 2020 (arXiv:2006.11239, equations 6 and 7) for any path and any
    two times, with the posterior's variance.

    Args and Returns as for `euler_step`.
    """
    path, (t, t_next, draw_noise) = problem.path, interval
    x0, _ = problem.denoise(x_t, t)
    share = _fresh_share(path, t, t_next)
    alpha, sigma = path.alpha(t), path.sigma(t)
    alpha_next, sigma_next = path.alpha(t_next), path.sigma(t_next)
    x_t_factor = alpha / alpha_next * jnp.square(sigma_next / sigma)
    deviation = sigma_next * jnp.sqrt(share)
    return alpha_next * share * x0 + x_t_factor * x_t + deviation * draw_noise(), None


class _Multistep(NamedTuple):
    """The memory of DPM-Solver++: the x0 of the step before, and that step's length."""

    x0: Array
    length: Array


def dpmpp_2m_step(
    problem: Problem, x_t: Array, memory: _Multistep, interval: Interval
) -> tuple[Array, _Multistep]:
    """DPM-Solver++ with two steps' memory; one pass, order 2.

    Lu et al. 2022 (arXiv:2211.01095, algorithm 2), with lengths in `log(alpha / sigma)`. The
    first step, a step after a step of infinite length, and a step that ends at the data are of
    order 1.

    Args and Returns as for `euler_step`.
    """
    path, (t, t_next, _) = problem.path, interval
    x0, _ = problem.denoise(x_t, t)
    length = (log_snr(path, t_next) - log_snr(path, t)) / 2
    sigma, sigma_next = path.sigma(t), path.sigma(t_next)
    correction = jnp.where(jnp.isfinite(length), length / (2 * memory.length), 0.0)
    data = x0 + correction * (x0 - memory.x0)
    factor = path.alpha(t_next) - path.alpha(t) * sigma_next / sigma  # alpha' (1 - exp(-length))
    return sigma_next / sigma * x_t + factor * data, _Multistep(x0, length)


def _no_memory(x: Array) -> None:
    return None


def _first_memory(x: Array) -> _Multistep:
    return _Multistep(jnp.zeros_like(x), jnp.full((), jnp.inf, x.dtype))


# (problem, t [S], t_next [S]) -> the times at which the network is called, each [S].
TimesFn = Callable[[Problem, Array, Array], tuple[Array, ...]]


class Sampler(NamedTuple):
    """A step function and its properties.

    Attributes:
      step: the step function.
      times: at which the step calls the network, for counting passes.
      first_memory: the memory before the first step.
      order: order of convergence as a solver of the probability-flow equation; 0 for none.
    """

    step: StepFn
    times: TimesFn
    first_memory: Callable[[Array], Any] = _no_memory
    order: int = 0


def _once(problem: Problem, t: Array, t_next: Array) -> tuple[Array, ...]:
    return (t,)


def _heun_times(problem: Problem, t: Array, t_next: Array) -> tuple[Array, ...]:
    return t, _second_time(problem.path, t, t_next)


def _midpoint_times(problem: Problem, t: Array, t_next: Array) -> tuple[Array, ...]:
    return t, _middle(problem.path, t, t_next)


def _churn_times(problem: Problem, t: Array, t_next: Array) -> tuple[Array, ...]:
    return _heun_times(problem, _raised_time(problem, t), t_next)


SAMPLERS: dict[str, Sampler] = {
    "euler": Sampler(euler_step, _once, order=1),
    "heun": Sampler(heun_step, _heun_times, order=2),
    "midpoint": Sampler(midpoint_step, _midpoint_times, order=2),
    "dpmpp_2m": Sampler(dpmpp_2m_step, _once, _first_memory, order=2),
    "ddim": Sampler(ddim_step, _once, order=1),
    "ddpm": Sampler(ddpm_step, _once),
    "churn": Sampler(churn_step, _churn_times),
}


def _num_scanned(path: Path, num_times: int) -> int:
    """The intervals that a step function serves: all but a last one from t_min > 0 to the data."""
    return num_times - (2 if path.interval[0] > 0 else 1)


def sample(problem: Problem, noise: Array, times: Array, keys: Array | None = None) -> Array:
    """Carries noise to data through the given times.

    Args:
      problem: path, denoiser, and which sampler.
      noise: standard normal, `[B, ...]`; x at `times[0]` is `sigma(times[0])` times this noise.
      times: from `time_grid`, float32 `[S + 1]`.
      keys: one typed key per image, `[B]`, for samplers that draw noise: a function of the image's
        key and the step's number. None for samplers without noise.

    Returns:
      Samples in the model's range, `[B, ...]`.

    Raises:
      RequestError: for a sampler that does not exist, or draws noise but got no keys, and for
        shapes that do not go together.
    """
    choice("sampler", problem.settings.name, SAMPLERS)
    if jnp.ndim(noise) < 1 or jnp.ndim(times) != 1 or len(times) < 2:
        raise RequestError(
            f"got noise {jnp.shape(noise)} and times {jnp.shape(times)}; allowed: noise [B, ...] "
            "and times [S + 1], at least two"
        )
    if keys is not None and jnp.shape(keys) != jnp.shape(noise)[:1]:
        raise RequestError(
            f"keys: got shape {jnp.shape(keys)}; allowed: {jnp.shape(noise)[:1]}, one an image"
        )
    path, sampler = problem.path, SAMPLERS[problem.settings.name]

    def draw_noise(index: Array) -> Array:
        if keys is None:
            raise RequestError(f"the sampler {problem.settings.name} draws noise and needs keys")
        step_keys = jax.vmap(jax.random.fold_in, in_axes=(0, None))(keys, index)
        return jax.vmap(lambda key: jax.random.normal(key, noise.shape[1:], noise.dtype))(step_keys)

    def interval(carry: tuple[Array, Any], row: tuple[Array, Array, Array]) -> Any:
        t, t_next, index = row
        return sampler.step(problem, *carry, Interval(t, t_next, lambda: draw_noise(index))), None

    count = _num_scanned(path, len(times))
    start = path.sigma(times[0]) * noise
    rows = (times[:count], times[1 : count + 1], jnp.arange(count))
    (x, _), _ = jax.lax.scan(interval, (start, sampler.first_memory(start)), rows)
    return problem.denoise(x, times[count]).x0 if path.interval[0] > 0 else x


def evaluation_times(path: Path, settings: SamplerSettings, times: np.ndarray) -> np.ndarray:
    """Every time at which a sampler calls the denoiser, float32 `[calls]`.

    Args:
      path: the probability path.
      settings: see `SamplerSettings`.
      times: from `time_grid`, `[S + 1]`.
    """

    def denoise(x_t: Array, t: Array) -> Estimate:
        raise AssertionError("times do not depend on the network")

    problem = Problem(path, denoise, settings, len(times) - 1)
    count = _num_scanned(path, len(times))
    starts, ends = jnp.asarray(times[:count]), jnp.asarray(times[1 : count + 1])
    step_times = SAMPLERS[settings.name].times(problem, starts, ends)
    last = [times[count : count + 1]] if path.interval[0] > 0 else []
    return np.concatenate([np.asarray(call_times) for call_times in [*step_times, *last]])
