"""Probability paths between data and noise, and the conversions between what a network predicts.

The time convention of all of lensjax: t = 0 is data, t = 1 is noise, and

    x_t = alpha(t) x0 + sigma(t) eps,    eps ~ N(0, I).

Every prediction is `a x0 + b eps` for known a and b, so that one two-by-two system, solved in
`estimate`, serves all of them.
"""

from typing import NamedTuple, Protocol

import jax.numpy as jnp
from jax import Array

PREDICTIONS = ("velocity", "x0")


class Path(Protocol):
    """What a probability path gives; times are float32 arrays in [0, 1] of any shape."""

    @property
    def interval(self) -> tuple[float, float]:
        """The usable times `(t_min, t_max)`."""
        ...

    def alpha(self, t: Array) -> Array:
        """Returns the factor of the data."""
        ...

    def sigma(self, t: Array) -> Array:
        """Returns the factor of the noise."""
        ...

    def alpha_derivative(self, t: Array) -> Array:
        """Returns d alpha / dt."""
        ...

    def sigma_derivative(self, t: Array) -> Array:
        """Returns d sigma / dt."""
        ...

    def time_of_log_snr(self, log_snr: Array) -> Array:
        """Returns the time at which `log(alpha^2 / sigma^2)` has the given value."""
        ...


class FlowPath(NamedTuple):
    """The straight path of flow matching, alpha = 1 - t and sigma = t.

    Its velocity is `eps - x0` (Lipman et al. 2023, arXiv:2210.02747; Liu et al. 2023,
    arXiv:2209.03003).
    """

    interval: tuple[float, float] = (0.0, 1.0)

    def alpha(self, t: Array) -> Array:
        """Returns 1 - t."""
        return 1 - t

    def sigma(self, t: Array) -> Array:
        """Returns t."""
        return t

    def alpha_derivative(self, t: Array) -> Array:
        """Returns -1."""
        return -jnp.ones_like(t)

    def sigma_derivative(self, t: Array) -> Array:
        """Returns 1."""
        return jnp.ones_like(t)

    def time_of_log_snr(self, log_snr: Array) -> Array:
        """Returns `1 / (1 + exp(log_snr / 2))`."""
        return 1 / (1 + jnp.exp(log_snr / 2))


class Estimate(NamedTuple):
    """The data and the noise that a network sees in `x_t`, each `[B, H, W, C]`."""

    x0: Array
    eps: Array


def per_example(t: Array, like: Array) -> Array:
    """Returns `t` `[B]` with trailing axes of length 1, so that it scales `like` `[B, ...]`."""
    return t.reshape(t.shape + (1,) * (like.ndim - t.ndim))


def interpolate(path: Path, x0: Array, eps: Array, t: Array) -> Array:
    """Returns `x_t = alpha(t) x0 + sigma(t) eps`.

    Args:
      path: the probability path.
      x0: data, `[B, ...]`.
      eps: noise, `[B, ...]`.
      t: times, `[B]`.
    """
    t = per_example(t, x0)
    return path.alpha(t) * x0 + path.sigma(t) * eps


def _coefficients(path: Path, prediction: str, t: Array) -> tuple[Array, Array]:
    """Returns a and b of the prediction `a x0 + b eps`."""
    if prediction == "velocity":
        return path.alpha_derivative(t), path.sigma_derivative(t)
    if prediction == "x0":
        return jnp.ones_like(t), jnp.zeros_like(t)
    raise ValueError(f"prediction {prediction!r} is not one of {', '.join(PREDICTIONS)}")


def target(path: Path, prediction: str, x0: Array, eps: Array, t: Array) -> Array:
    """Returns what a network with this prediction should put out, `[B, ...]`.

    Args:
      path: the probability path.
      prediction: one of `PREDICTIONS`.
      x0: data, `[B, ...]`.
      eps: noise, `[B, ...]`.
      t: times, `[B]`.

    Raises:
      ValueError: for an unknown prediction.
    """
    a, b = _coefficients(path, prediction, per_example(t, x0))
    return a * x0 + b * eps


def estimate(path: Path, prediction: str, output: Array, x_t: Array, t: Array) -> Estimate:
    """Converts a network's output into the data and the noise that it implies.

    Solves `x_t = alpha x0 + sigma eps`, `output = a x0 + b eps`. With x0 prediction the noise is
    singular at t = 0.

    Args:
      path: the probability path.
      prediction: one of `PREDICTIONS`.
      output: the network's output, `[B, ...]`.
      x_t: the network's input, `[B, ...]`.
      t: times, `[B]`.

    Raises:
      ValueError: for an unknown prediction.
    """
    t = per_example(t, x_t)
    a, b = _coefficients(path, prediction, t)
    alpha, sigma = path.alpha(t), path.sigma(t)
    determinant = alpha * b - sigma * a
    return Estimate(
        x0=(b * x_t - sigma * output) / determinant, eps=(alpha * output - a * x_t) / determinant
    )


def velocity(path: Path, estimated: Estimate, t: Array) -> Array:
    """Returns dx_t / dt of the probability-flow equation, `alpha' x0 + sigma' eps`, `[B, ...]`."""
    t = per_example(t, estimated.x0)
    return path.alpha_derivative(t) * estimated.x0 + path.sigma_derivative(t) * estimated.eps
