"""Probability paths between data and noise, and the conversions between predictions of a network.

The time convention of all of lensjax: t = 0 is data, t = 1 is noise, and

    x_t = alpha(t) x0 + sigma(t) eps,    eps ~ N(0, I).

Every prediction is `a x0 + b eps` for known a and b, so that one two-by-two system, solved in
`estimate`, serves all of them.
"""

from typing import Any, NamedTuple, Protocol, cast

import jax.numpy as jnp
import numpy as np
from jax import Array

from lensjax.interfaces import Estimate

PREDICTIONS = ("velocity", "x0", "v", "eps", "score")
# Where the noise or its slope is singular at t = 0, the usable times begin here.
FIRST_TIME = 1e-3
# A network that predicts the noise says nothing about the data where x_t contains no data.
# DDPM's linear betas end at log SNR -10.12, where an error of 1 in the noise is 158 in x0.
_LEAST_LOG_SNR = -10.2
_LARGEST_FACTOR = 164.0  # exp(10.2 / 2)


class Path(Protocol):
    """The interface of a probability path; times are float32 arrays in [0, 1] of any shape."""

    @property
    def interval(self) -> tuple[float, float]:
        """The usable times `(t_min, t_max)`; t = 0 is the data, usable or not."""
        ...

    def alpha(self, t: Array) -> Array:
        """The factor of the data."""
        ...

    def sigma(self, t: Array) -> Array:
        """The factor of the noise."""
        ...

    def alpha_derivative(self, t: Array) -> Array:
        """The derivative d alpha / dt."""
        ...

    def sigma_derivative(self, t: Array) -> Array:
        """The derivative d sigma / dt."""
        ...

    def time_of_log_snr(self, log_snr: Array) -> Array:
        """The time at which `log(alpha^2 / sigma^2)` has the given value."""
        ...

    def time_of_share(self, share: Array) -> Array:
        """The usable time at a share in [0, 1] of the interval."""
        ...

    def narrowed(self, t_min: float, t_max: float) -> "Path":
        """The path limited to these times."""
        ...


def library_of(t: Array | np.ndarray) -> Any:
    """The module, jax.numpy or numpy, that computes with times of this type.

    A configuration is checked with numpy, which does not start JAX: JAX's flags and
    hosts are not settled yet.
    """
    return jnp if isinstance(t, Array) else np


def at_share(interval: tuple[float, float], share: Array) -> Array:
    """The times at shares in [0, 1] of an interval."""
    t_min, t_max = interval
    return t_min + (t_max - t_min) * share


class FlowPath(NamedTuple):
    """The straight path of flow matching, alpha = 1 - t and sigma = t.

    Its velocity is `eps - x0` (Lipman et al. 2023, arXiv:2210.02747; Liu et al. 2023,
    arXiv:2209.03003).
    """

    interval: tuple[float, float] = (0.0, 1.0)

    def alpha(self, t: Array) -> Array:
        """The factor of the data, 1 - t."""
        return 1 - t

    def sigma(self, t: Array) -> Array:
        """The factor of the noise, t."""
        return t

    def alpha_derivative(self, t: Array) -> Array:
        """Constant, -1."""
        return -library_of(t).ones_like(t)

    def sigma_derivative(self, t: Array) -> Array:
        """Constant, 1."""
        return library_of(t).ones_like(t)

    def time_of_log_snr(self, log_snr: Array) -> Array:
        """`1 / (1 + exp(log_snr / 2))`."""
        return 1 / (1 + library_of(log_snr).exp(log_snr / 2))

    def time_of_share(self, share: Array) -> Array:
        """The time at a share of the interval."""
        return at_share(self.interval, share)

    def narrowed(self, t_min: float, t_max: float) -> "FlowPath":
        """The path limited to these times."""
        return self._replace(interval=(t_min, t_max))


def usable(path: Path, prediction: str) -> Path:
    """The path limited to times at which a prediction gives both data and noise.

    Where alpha is nearly 0, noise and score do not determine the data; nor does a velocity where
    the slope of alpha is nearly 0 too. A score is infinite where sigma is 0.

    Args:
      path: the probability path.
      prediction: one of `PREDICTIONS`.
    """
    t_min, t_max = path.interval
    unscaled = "eps" if prediction == "score" else prediction  # a score is scaled noise
    end, least_log_snr = cast(Any, np.array([t_max, _LEAST_LOG_SNR], np.float32))
    with np.errstate(divide="ignore", invalid="ignore"):
        factor = abs(error_factor(path, unscaled, "x0", end, min_sigma=0.0))
    if not factor <= _LARGEST_FACTOR:
        t_max = float(path.time_of_log_snr(least_log_snr))
    if prediction == "score":
        t_min = max(t_min, FIRST_TIME)
    return path if (t_min, t_max) == path.interval else path.narrowed(t_min, t_max)


def log_snr(path: Path, t: Array) -> Array:
    """`log(alpha^2 / sigma^2)`; infinite where alpha or sigma is 0."""
    lib = library_of(t)
    return 2 * (lib.log(path.alpha(t)) - lib.log(path.sigma(t)))


def noise_share(path: Path, t: Array) -> Array:
    """`s = sigma / (alpha + sigma)`, the t of a path once it is rescaled to the straight one.

    With `y = x_t / (alpha + sigma)`, `y = (1 - s) x0 + s eps` on every path.
    """
    sigma = path.sigma(t)
    return sigma / (path.alpha(t) + sigma)


def time_of_noise_share(path: Path, share: Array) -> Array:
    """The time at which `noise_share` has a value in (0, 1)."""
    return path.time_of_log_snr(2 * jnp.log((1 - share) / share))


def per_example(t: Array, like: Array) -> Array:
    """`t` `[B]` or `[]` with axes of length 1, so that it scales `like` `[B, ...]`."""
    return t.reshape(t.shape + (1,) * (like.ndim - t.ndim))


def interpolate(path: Path, x0: Array, eps: Array, t: Array) -> Array:
    """`x_t = alpha(t) x0 + sigma(t) eps`.

    Args:
      path: the probability path.
      x0: data, `[B, ...]`.
      eps: noise, `[B, ...]`.
      t: times, `[B]` or `[]`.
    """
    t = per_example(t, x0)
    return path.alpha(t) * x0 + path.sigma(t) * eps


def _coefficients(path: Path, prediction: str, t: Array) -> tuple[Array, Array]:
    """The factors a and b of the prediction `a x0 + b eps`."""
    lib = library_of(t)
    ones, zeros = lib.ones_like(t), lib.zeros_like(t)
    if prediction == "velocity":
        return path.alpha_derivative(t), path.sigma_derivative(t)
    if prediction == "x0":
        return ones, zeros
    if prediction == "v":
        return -path.sigma(t), path.alpha(t)
    if prediction == "eps":
        return zeros, ones
    if prediction == "score":
        return zeros, -1 / path.sigma(t)
    raise ValueError(f"prediction {prediction!r} is not one of {', '.join(PREDICTIONS)}")


def target(path: Path, prediction: str, x0: Array, eps: Array, t: Array) -> Array:
    """The output that a network with this prediction should give, `[B, ...]`.

    These are `alpha' x0 + sigma' eps` (velocity), `x0`, `alpha eps - sigma x0` (v, Salimans & Ho
    2022, arXiv:2202.00512), `eps`, and `-eps / sigma` (score).

    Args:
      path: the probability path.
      prediction: one of `PREDICTIONS`.
      x0: data, `[B, ...]`.
      eps: noise, `[B, ...]`.
      t: times, `[B]` or `[]`.

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
      t: times, `[B]` or `[]`.

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


def error_factor(path: Path, of: str, seen_as: str, t: Array, min_sigma: float) -> Array:
    """The factor that turns the error of one prediction into the error of another.

    With x_t fixed, `alpha d x0 = -sigma d eps`, so that an error of `a x0 + b eps` is
    `(a sigma - b alpha) / sigma d x0`; the factor is the ratio of two such errors.

    Args:
      path: the probability path.
      of: the network's prediction.
      seen_as: the prediction whose error is wanted.
      t: times, any shape.
      min_sigma: floor of sigma where the factor divides by it.

    Returns:
      float32, the shape of t.
    """
    if of == seen_as:
        return library_of(t).ones_like(t)
    alpha, sigma = path.alpha(t), path.sigma(t)
    floored = library_of(t).maximum(sigma, min_sigma)

    def per_x0(prediction: str, divisor: bool) -> Array:
        """Error of a prediction per error of x0, times sigma (floored in a divisor)."""
        if prediction == "x0":
            return floored if divisor else sigma
        if prediction == "score":
            return alpha / (sigma if divisor else floored)
        a, b = _coefficients(path, prediction, t)
        return a * sigma - b * alpha

    return per_x0(seen_as, divisor=False) / per_x0(of, divisor=True)


def velocity(path: Path, estimated: Estimate, t: Array) -> Array:
    """The slope dx_t / dt of the probability flow, `alpha' x0 + sigma' eps`, `[B, ...]`."""
    t = per_example(t, estimated.x0)
    return path.alpha_derivative(t) * estimated.x0 + path.sigma_derivative(t) * estimated.eps
