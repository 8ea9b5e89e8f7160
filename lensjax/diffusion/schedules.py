"""Probability paths other than flow matching: variance-preserving paths, and that of EDM."""

import math
from typing import NamedTuple

import numpy as np
from jax import Array

from lensjax.diffusion.paths import FIRST_TIME, at_share, library_of

BETAS = ("linear", "cosine")
_COSINE_OFFSET = 0.008


def _softplus(x: Array) -> Array:
    return library_of(x).logaddexp(x, 0)


def _sigmoid(x: Array) -> Array:
    return library_of(x).exp(-_softplus(-x))


class LinearPath(NamedTuple):
    """The variance-preserving path whose beta grows linearly, in continuous time.

    `log alpha^2 = -(beta_max - beta_min) t^2 / 2 - beta_min t` and `alpha^2 + sigma^2 = 1` (Song et
    al. 2021, arXiv:2011.13456, equation 33; the limit of DDPM's table for many steps).
    """

    beta_min: float = 0.1
    beta_max: float = 20.0
    interval: tuple[float, float] = (FIRST_TIME, 1.0)

    def _log_alpha_squared(self, t: Array) -> Array:
        return -t * (self.beta_min + (self.beta_max - self.beta_min) * t / 2)

    def _beta(self, t: Array) -> Array:
        return self.beta_min + (self.beta_max - self.beta_min) * t

    def alpha(self, t: Array) -> Array:
        """The factor of the data."""
        return library_of(t).exp(self._log_alpha_squared(t) / 2)

    def sigma(self, t: Array) -> Array:
        """The factor of the noise."""
        lib = library_of(t)
        return lib.sqrt(-lib.expm1(self._log_alpha_squared(t)))

    def alpha_derivative(self, t: Array) -> Array:
        """`-beta alpha / 2`."""
        return -self._beta(t) * self.alpha(t) / 2

    def sigma_derivative(self, t: Array) -> Array:
        """`beta alpha^2 / (2 sigma)`."""
        return self._beta(t) * library_of(t).square(self.alpha(t)) / (2 * self.sigma(t))

    def time_of_log_snr(self, log_snr: Array) -> Array:
        """The root of the quadratic equation for t, in the form that loses no digits."""
        lib = library_of(log_snr)
        fall = _softplus(-log_snr)  # -log alpha^2
        slope = self.beta_max - self.beta_min
        return 2 * fall / (self.beta_min + lib.sqrt(self.beta_min**2 + 2 * slope * fall))

    def time_of_share(self, share: Array) -> Array:
        """The time at a share of the interval."""
        return at_share(self.interval, share)

    def narrowed(self, t_min: float, t_max: float) -> "LinearPath":
        """The path with these usable times."""
        return self._replace(interval=(t_min, t_max))


_FIRST_ANGLE = np.pi / 2 * _COSINE_OFFSET / (1 + _COSINE_OFFSET)
_ANGLE_RANGE = np.pi / 2 / (1 + _COSINE_OFFSET)


class CosinePath(NamedTuple):
    """The variance-preserving path whose alpha is a cosine, in continuous time.

    `alpha = cos(u) / cos(u_0)` with `u = (t + s) / (1 + s) pi / 2` and s = 0.008 (Nichol & Dhariwal
    2021, arXiv:2102.09672, equation 17).
    """

    interval: tuple[float, float] = (FIRST_TIME, 1.0)

    def _angle(self, t: Array) -> Array:
        return _FIRST_ANGLE + _ANGLE_RANGE * t

    def alpha(self, t: Array) -> Array:
        """The factor of the data; 0 at t = 1."""
        lib = library_of(t)
        # cos(u) as the sine of the remaining angle, so that alpha is exactly 0 at the end.
        return lib.sin(_ANGLE_RANGE * (1 - t)) / np.cos(_FIRST_ANGLE).item()

    def sigma(self, t: Array) -> Array:
        """The factor of the noise."""
        lib = library_of(t)
        # cos(u_0)^2 - cos(u)^2 = sin(u - u_0) sin(u + u_0)
        product = lib.sin(_ANGLE_RANGE * t) * lib.sin(self._angle(t) + _FIRST_ANGLE)
        return lib.sqrt(product) / np.cos(_FIRST_ANGLE).item()

    def alpha_derivative(self, t: Array) -> Array:
        """The derivative d alpha / dt."""
        return -_ANGLE_RANGE * library_of(t).sin(self._angle(t)) / np.cos(_FIRST_ANGLE).item()

    def sigma_derivative(self, t: Array) -> Array:
        """`-alpha alpha' / sigma`."""
        return -self.alpha(t) * self.alpha_derivative(t) / self.sigma(t)

    def time_of_log_snr(self, log_snr: Array) -> Array:
        """The time of a log-SNR."""
        lib = library_of(log_snr)
        first_sine, first_cosine = np.sin(_FIRST_ANGLE).item(), np.cos(_FIRST_ANGLE).item()
        cosine = lib.sqrt(_sigmoid(log_snr)) * first_cosine
        sine = lib.sqrt(first_sine**2 + _sigmoid(-log_snr) * first_cosine**2)
        return (lib.arctan2(sine, cosine) - _FIRST_ANGLE) / _ANGLE_RANGE

    def time_of_share(self, share: Array) -> Array:
        """The time at a share of the interval."""
        return at_share(self.interval, share)

    def narrowed(self, t_min: float, t_max: float) -> "CosinePath":
        """The path with these usable times."""
        return self._replace(interval=(t_min, t_max))


def ddpm_betas(kind: str, num_steps: int, beta_min: float, beta_max: float) -> np.ndarray:
    """The betas of a table, float64 `[T]`.

    `linear` runs from beta_min / T to beta_max / T; with T = 1000, 0.1 and 20 these are the 1e-4 to
    0.02 of DDPM (Ho et al. 2020, arXiv:2006.11239). `cosine` is that of Nichol & Dhariwal 2021
    (arXiv:2102.09672, equation 17), at most 0.999.

    Args:
      kind: one of `BETAS`.
      num_steps: T.
      beta_min: for `linear`.
      beta_max: for `linear`.
    """
    if kind == "linear":
        return np.linspace(beta_min / num_steps, beta_max / num_steps, num_steps)
    angles = _FIRST_ANGLE + _ANGLE_RANGE * np.arange(num_steps + 1) / num_steps
    return np.minimum(1 - np.square(np.cos(angles[1:]) / np.cos(angles[:-1])), 0.999)


class TablePath(NamedTuple):
    """The variance-preserving path of a table of T betas.

    Entry k lies at t = (k + 1) / T; between entries the log-SNR is interpolated linearly.

    Attributes:
      log_snr: log SNR of the entries, falling, `[T]`.
      num_unused: entries at the noise end that are not used.
    """

    log_snr: tuple[float, ...]
    num_unused: int = 0

    @classmethod
    def from_betas(cls, betas: np.ndarray) -> "TablePath":
        """The path of betas float64 `[T]`."""
        log_alpha_squared = np.cumsum(np.log1p(-betas))
        log_snr = log_alpha_squared - np.log(-np.expm1(log_alpha_squared))
        return cls(tuple(log_snr.tolist()))

    @property
    def interval(self) -> tuple[float, float]:
        """The times of the first and the last entry in use."""
        size = len(self.log_snr)
        return 1 / size, (size - self.num_unused) / size

    def _falling(self) -> np.ndarray:
        return np.asarray(self.log_snr, np.float32)

    def _log_snr(self, t: Array) -> Array:
        lib = library_of(t)
        size = len(self.log_snr)
        places = lib.arange(1, size + 1, dtype=np.float32)
        return lib.interp(t * size, places, self._falling())

    def _log_snr_derivative(self, t: Array) -> Array:
        lib = library_of(t)
        size = len(self.log_snr)
        slopes = lib.asarray(np.diff(self.log_snr) * size, np.float32)
        return slopes[lib.clip(lib.floor(t * size - 1).astype(lib.int32), 0, size - 2)]

    def alpha(self, t: Array) -> Array:
        """The factor of the data."""
        return library_of(t).sqrt(_sigmoid(self._log_snr(t)))

    def sigma(self, t: Array) -> Array:
        """The factor of the noise."""
        return library_of(t).sqrt(_sigmoid(-self._log_snr(t)))

    def alpha_derivative(self, t: Array) -> Array:
        """The slope d alpha / dt between the entries; at an entry, that towards the noise."""
        lib = library_of(t)
        return self.alpha(t) * lib.square(self.sigma(t)) * self._log_snr_derivative(t) / 2

    def sigma_derivative(self, t: Array) -> Array:
        """The slope d sigma / dt between the entries; at an entry, that towards the noise."""
        lib = library_of(t)
        return -self.sigma(t) * lib.square(self.alpha(t)) * self._log_snr_derivative(t) / 2

    def time_of_log_snr(self, log_snr: Array) -> Array:
        """The time of a log-SNR, within the table."""
        lib = library_of(log_snr)
        size = len(self.log_snr)
        return (
            lib.interp(-log_snr, -self._falling(), lib.arange(1, size + 1, dtype=np.float32)) / size
        )

    def time_of_share(self, share: Array) -> Array:
        """The time of the entry at a share; equal shares meet each entry equally often."""
        lib = library_of(share)
        size = len(self.log_snr)
        used = size - self.num_unused
        return (lib.clip(lib.floor(share * used), 0, used - 1) + 1) / size

    def narrowed(self, t_min: float, t_max: float) -> "TablePath":
        """The path without the entries above t_max; the first entry stays."""
        size = len(self.log_snr)
        return self._replace(num_unused=size - math.floor(t_max * size + 1e-3))


class EDMPath(NamedTuple):
    """The variance-exploding path: alpha = 1, and log sigma is linear in t over the interval.

    Noise levels from `sigma_min` to `sigma_max` as in Karras et al. 2022 (arXiv:2206.00364), whose
    network sees log sigma too.
    """

    sigma_min: float = 0.002
    sigma_max: float = 80.0
    interval: tuple[float, float] = (FIRST_TIME, 1.0)

    def _rate(self) -> float:
        return float(np.log(self.sigma_max / self.sigma_min) / (1 - FIRST_TIME))

    def alpha(self, t: Array) -> Array:
        """The factor of the data, 1."""
        return library_of(t).ones_like(t)

    def sigma(self, t: Array) -> Array:
        """The factor of the noise."""
        return self.sigma_min * library_of(t).exp(self._rate() * (t - FIRST_TIME))

    def alpha_derivative(self, t: Array) -> Array:
        """The derivative of alpha, 0."""
        return library_of(t).zeros_like(t)

    def sigma_derivative(self, t: Array) -> Array:
        """The derivative d sigma / dt."""
        return self._rate() * self.sigma(t)

    def time_of_log_snr(self, log_snr: Array) -> Array:
        """The time of a log-SNR."""
        return FIRST_TIME - (log_snr / 2 + float(np.log(self.sigma_min))) / self._rate()

    def time_of_share(self, share: Array) -> Array:
        """The time at a share of the interval."""
        return at_share(self.interval, share)

    def narrowed(self, t_min: float, t_max: float) -> "EDMPath":
        """The path with these usable times."""
        return self._replace(interval=(t_min, t_max))
