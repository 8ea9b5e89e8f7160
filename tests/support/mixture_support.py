"""Pixels from a mixture of Gaussians, for which every path has a closed-form denoiser."""

import dataclasses
import functools
import itertools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from allpairspy import AllPairs
from jax import Array
from support import Gaussian

from lensjax.diffusion import paths
from lensjax.diffusion.paths import Path
from lensjax.diffusion.samplers import SAMPLERS, Problem, SamplerSettings
from lensjax.diffusion.schedules import CosinePath, EDMPath, LinearPath, TablePath, ddpm_betas
from lensjax.interfaces import Estimate

PATHS: dict[str, Path] = {
    "flow": paths.FlowPath(),
    "linear": LinearPath(),
    "cosine": CosinePath(),
    "linear table": TablePath.from_betas(ddpm_betas("linear", 1000, 0.1, 20.0)),
    "cosine table": TablePath.from_betas(ddpm_betas("cosine", 1000, 0.1, 20.0)),
    "edm": EDMPath(),
}


def every_pair(*options: Sequence[Any]) -> list[Any]:
    """Cases in which every pair of two options meets; the rest of the product runs nightly."""
    pairs = [tuple(case) for case in AllPairs([list(values) for values in options])]
    rest = [case for case in itertools.product(*options) if case not in pairs]
    return [*pairs, *(pytest.param(*case, marks=pytest.mark.nightly) for case in rest)]


NUM_KNOWN = 512  # or a multiple of it, so that programs have the same shapes


class KnownPath(NamedTuple):
    """A path by its values at the times that a sampler asks for, `[K]` each.

    They are arguments of a compiled program, which so serves every path.
    """

    times: Any
    log_snrs: Any
    alphas: Any
    sigmas: Any
    alpha_slopes: Any
    sigma_slopes: Any
    interval: Any

    def _at(self, values: Array, t: Array) -> Array:
        return values[jnp.argmin(jnp.abs(self.times - t))]

    def alpha(self, t: Array) -> Array:
        return self._at(self.alphas, t)

    def sigma(self, t: Array) -> Array:
        return self._at(self.sigmas, t)

    def alpha_derivative(self, t: Array) -> Array:
        return self._at(self.alpha_slopes, t)

    def sigma_derivative(self, t: Array) -> Array:
        return self._at(self.sigma_slopes, t)

    def time_of_log_snr(self, log_snr: Array) -> Array:
        return self.times[jnp.argmin(jnp.abs(self.log_snrs - jnp.clip(log_snr, -1e3, 1e3)))]

    def jumping(self, jumps: bool) -> Any:
        """With usable times that begin after the data, or at them, as a fact of the program."""
        return self._replace(interval=(paths.FIRST_TIME if jumps else 0.0, self.interval[1]))


def known_path(path: Path, settings: SamplerSettings, times: np.ndarray) -> KnownPath:
    """The values of a path at times `[S + 1]`, and where the steps between them look."""
    steps: Any = (jnp.asarray(times[:-1]), jnp.asarray(times[1:]))
    nothing: Any = None
    problem = Problem(path, nothing, settings, len(times) - 1)
    calls = SAMPLERS[settings.name].times(problem, *steps)
    known: Any = np.unique(np.concatenate([times, *map(np.asarray, calls)])).astype(np.float32)
    known = np.pad(known, (0, -len(known) % NUM_KNOWN), mode="edge")
    with np.errstate(all="ignore"):
        values: list[Any] = [
            known,
            np.clip(paths.log_snr(path, known), -1e3, 1e3),
            *(path.alpha(known), path.sigma(known)),
            *(path.alpha_derivative(known), path.sigma_derivative(known)),
        ]
    return KnownPath._make([*(np.asarray(value, np.float32) for value in values), path.interval])


@dataclasses.dataclass(frozen=True)
class Mixture:
    """Images `[1, D, 1]` from a mixture of K Gaussians.

    Attributes:
      weights: `[K]`.
      means: `[K, D]`.
      covariances: `[K, D, D]`.
    """

    weights: np.ndarray
    means: np.ndarray
    covariances: np.ndarray

    @property
    def mean(self) -> np.ndarray:
        """Of the whole mixture, `[D]`."""
        return self.weights @ self.means

    @property
    def covariance(self) -> np.ndarray:
        """Of the whole mixture, `[D, D]`."""
        away = self.means - self.mean
        between = np.einsum("k,ki,kj->ij", self.weights, away, away)
        return np.einsum("k,kij->ij", self.weights, self.covariances) + between

    @property
    def modes(self) -> tuple[np.ndarray, np.ndarray]:
        """Variances `[K, D]` and directions `[K, D, D]` (in columns) of the covariances."""
        variances, directions = np.linalg.eigh(self.covariances)
        return variances, directions

    def draw(self, seed: int, num: int) -> np.ndarray:
        """Samples, float64 `[N, D]`."""
        random = np.random.default_rng(seed)
        kinds = random.choice(len(self.weights), size=num, p=self.weights)
        roots = np.linalg.cholesky(self.covariances)[kinds]
        normal = random.normal(size=(num, self.means.shape[1]))
        return self.means[kinds] + np.einsum("nij,nj->ni", roots, normal)

    def nearest(self, samples: np.ndarray) -> np.ndarray:
        """The component whose mean is nearest, `[N]`."""
        away = samples[:, None] - self.means
        return np.argmin(np.sum(np.square(away), axis=-1), axis=1)

    def x0(self, path: Path, x_t: Array, t: Array) -> Array:
        """E[x0 | x_t] for pixels `[N, D]` at a time `[]`."""
        alpha, sigma = path.alpha(t), path.sigma(t)
        variances, directions = (jnp.asarray(part, x_t.dtype) for part in self.modes)
        weights, means = (jnp.asarray(part, x_t.dtype) for part in (self.weights, self.means))
        noisy = jnp.square(alpha) * variances + jnp.square(sigma)  # [K, D]
        away = x_t[:, None] - alpha * means[None]  # [N, K, D]
        modes = jnp.sum(away[..., None] * directions[None], axis=2)
        logits = jnp.log(weights / jnp.sqrt(jnp.prod(noisy, axis=1)))
        logits = logits[None] - jnp.sum(jnp.square(modes) / noisy[None], axis=-1) / 2
        along = (alpha * variances / noisy)[None] * modes
        each = means[None] + jnp.sum(along[:, :, None] * directions[None], axis=-1)
        return jnp.sum(jax.nn.softmax(logits)[..., None] * each, axis=1)

    def denoiser(self, path: Path, which: Array) -> Any:
        """The exact denoiser, through what a network would put out.

        Args:
          path: the probability path.
          which: the number of the network's prediction in `paths.PREDICTIONS`.
        """
        branches = [functools.partial(through, prediction) for prediction in paths.PREDICTIONS]

        def denoise(x_t: Array, t: Array) -> Estimate:
            x0 = self.x0(path, x_t.reshape(len(x_t), -1), t).reshape(x_t.shape)
            values = (path.alpha(t), path.sigma(t))
            slopes = (path.alpha_derivative(t), path.sigma_derivative(t))
            return jax.lax.switch(which, branches, AtTime(values, slopes), x0, x_t, t)

        return denoise


class AtTime(NamedTuple):
    """What a path says at one time: evaluated once, it compiles sooner than in each branch."""

    values: tuple[Array, Array]
    slopes: tuple[Array, Array]

    def alpha(self, t: Array) -> Array:
        return self.values[0].reshape(t.shape)

    def sigma(self, t: Array) -> Array:
        return self.values[1].reshape(t.shape)

    def alpha_derivative(self, t: Array) -> Array:
        return self.slopes[0].reshape(t.shape)

    def sigma_derivative(self, t: Array) -> Array:
        return self.slopes[1].reshape(t.shape)


def through(prediction: str, path: Any, x0: Array, x_t: Array, t: Array) -> Estimate:
    """Data and noise by way of a network's output."""
    eps = (x_t - path.alpha(t) * x0) / path.sigma(t)
    output = paths.target(path, prediction, x0, eps, t)
    return paths.estimate(path, prediction, output, x_t, t)


def three_blobs() -> Mixture:
    """Two pixels, three well-separated blobs of unequal weights and shapes."""
    return Mixture(
        weights=np.array([0.5, 0.3, 0.2]),
        means=np.array([[-1.0, -0.3], [0.7, 0.9], [0.6, -1.0]]),
        covariances=np.array(
            [[[0.02, 0.01], [0.01, 0.03]], [[0.04, -0.02], [-0.02, 0.02]], [[0.01, 0], [0, 0.01]]]
        ),
    )


def gaussian_denoiser(gaussian: Gaussian, path: Path) -> Any:
    """The exact denoiser of flat pixels `[N, D]` from N(first mean, covariance), on any path.

    Along each mode x_t has the variance `alpha^2 s + sigma^2`.
    """
    variances, directions = gaussian.modes

    def denoise(x_t: Array, t: Array) -> Estimate:
        v, d, mean = (
            jnp.asarray(part, x_t.dtype) for part in (variances, directions, gaussian.means[0])
        )
        alpha, sigma = path.alpha(t), path.sigma(t)
        away = jnp.matmul(x_t - alpha * mean[None], d, precision="highest")
        whitened = away / (jnp.square(alpha) * v + jnp.square(sigma))[None]
        x0 = mean[None] + alpha * jnp.matmul(v[None] * whitened, d.T, precision="highest")
        return Estimate(x0, sigma * jnp.matmul(whitened, d.T, precision="highest"))

    return denoise


def factors_at(path: Path, t: float) -> tuple[float, float]:
    """alpha and sigma at a time, by numpy."""
    time: Any = np.float32(t)
    return float(path.alpha(time)), float(path.sigma(time))


def gaussian_flow(
    gaussian: Gaussian, path: Path, x_t: np.ndarray, t: float, t_next: float
) -> np.ndarray:
    """Where the exact flow carries x_t `[N, D]`, float64.

    Along each mode the distance from the mean over the standard deviation stays as it is.
    """
    variances, directions = gaussian.modes
    (alpha, sigma), (alpha_next, sigma_next) = (factors_at(path, time) for time in (t, t_next))
    ratio = (alpha_next**2 * variances + sigma_next**2) / (alpha**2 * variances + sigma**2)
    away = (x_t - alpha * gaussian.means[0]) @ directions
    return alpha_next * gaussian.means[0] + (away * np.sqrt(ratio)) @ directions.T
