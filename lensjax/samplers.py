"""Samplers: one step function each, and one `lax.scan` that drives them from noise to data."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from lensjax.paths import Estimate, Path, velocity

# (x_t [B, ...], t [B]) -> the data and noise in x_t.
DenoiseFn = Callable[[Array, Array], Estimate]
# (path, denoise, x_t, t [], next t []) -> x at the next t.
StepFn = Callable[[Path, DenoiseFn, Array, Array, Array], Array]


def _velocity_at(path: Path, denoise: DenoiseFn, x_t: Array, t: Array) -> Array:
    times = jnp.full((x_t.shape[0],), t)
    return velocity(path, denoise(x_t, times), times)


def euler_step(path: Path, denoise: DenoiseFn, x_t: Array, t: Array, t_next: Array) -> Array:
    """Goes from `t` to `t_next` along the velocity at `t`; one pass, order 1.

    Args:
      path: the probability path.
      denoise: the guided denoiser.
      x_t: `[B, ...]`.
      t: the present time, `[]`.
      t_next: the next, smaller time, `[]`.

    Returns:
      x at `t_next`, `[B, ...]`.
    """
    return x_t + (t_next - t) * _velocity_at(path, denoise, x_t, t)


def heun_step(path: Path, denoise: DenoiseFn, x_t: Array, t: Array, t_next: Array) -> Array:
    """Goes from `t` to `t_next` along the mean of the velocities at both; two passes, order 2.

    At t = 0 the noise in `x_t` is undefined for most predictions, so that an interval that ends
    there takes the velocity of its middle instead (the midpoint rule, also of order 2).

    Args and Returns as for `euler_step`.
    """
    first = _velocity_at(path, denoise, x_t, t)
    ends_at_data = t_next <= 0
    t_second = jnp.where(ends_at_data, (t + t_next) / 2, t_next)
    second = _velocity_at(path, denoise, x_t + (t_second - t) * first, t_second)
    slope = jnp.where(ends_at_data, second, (first + second) / 2)
    return x_t + (t_next - t) * slope


STEPS: dict[str, StepFn] = {"euler": euler_step, "heun": heun_step}
PASSES_PER_STEP = {"euler": 1, "heun": 2}


def time_grid(path: Path, steps: int) -> np.ndarray:
    """Returns evenly spaced times from noise to data, float32 `[steps + 1]`.

    Args:
      path: the probability path.
      steps: the number of intervals, at least 1.
    """
    t_min, t_max = path.interval
    return np.linspace(t_max, t_min, steps + 1).astype(np.float32)


def sample(path: Path, denoise: DenoiseFn, noise: Array, times: Array, step: StepFn) -> Array:
    """Carries noise to data through the given times.

    Args:
      path: the probability path.
      denoise: the guided denoiser.
      noise: standard normal, `[B, ...]`; times[0] is taken as pure noise.
      times: falling times, `[S + 1]`.
      step: a step function, such as `STEPS["heun"]`.

    Returns:
      Samples in the model's range, `[B, ...]`.
    """

    def interval(x_t: Array, ends: tuple[Array, Array]) -> tuple[Array, None]:
        return step(path, denoise, x_t, *ends), None

    samples, _ = jax.lax.scan(interval, noise, (times[:-1], times[1:]))
    return samples
