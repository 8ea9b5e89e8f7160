"""Pixels from a mixture of Gaussians, for which every path has a closed-form denoiser."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from lensjax import paths
from lensjax.paths import Estimate, Path
from lensjax.schedules import CosinePath, EDMPath, LinearPath, TablePath, ddpm_betas

PATHS: dict[str, Path] = {
    "flow": paths.FlowPath(),
    "linear": LinearPath(),
    "cosine": CosinePath(),
    "linear table": TablePath.from_betas(ddpm_betas("linear", 1000, 0.1, 20.0)),
    "cosine table": TablePath.from_betas(ddpm_betas("cosine", 1000, 0.1, 20.0)),
    "edm": EDMPath(),
}


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
        weights, means, covariances = (
            jnp.asarray(part, x_t.dtype) for part in (self.weights, self.means, self.covariances)
        )
        noisy = jnp.square(alpha) * covariances + jnp.square(sigma) * jnp.eye(len(means[0]))
        away = x_t[:, None] - alpha * means[None]  # [N, K, D]
        inverses = jnp.linalg.inv(noisy)
        whitened = jnp.einsum("kij,nkj->nki", inverses, away, precision="highest")
        distances = jnp.sum(away * whitened, axis=-1)
        logits = jnp.log(weights)[None] - 0.5 * (distances + jnp.linalg.slogdet(noisy)[1][None])
        each = means[None] + alpha * jnp.einsum(
            "kij,nkj->nki", covariances, whitened, precision="highest"
        )
        return jnp.einsum("nk,nki->ni", jax.nn.softmax(logits), each, precision="highest")

    def denoiser(self, path: Path, prediction: str) -> Any:
        """The exact denoiser, through what a network with this prediction would put out."""

        def denoise(x_t: Array, t: Array) -> Estimate:
            x0 = self.x0(path, x_t.reshape(len(x_t), -1), t).reshape(x_t.shape)
            eps = (x_t - path.alpha(t) * x0) / path.sigma(t)
            output = paths.target(path, prediction, x0, eps, t)
            return paths.estimate(path, prediction, output, x_t, t)

        return denoise


def three_blobs() -> Mixture:
    """Two pixels, three well-separated blobs of unequal weights and shapes."""
    return Mixture(
        weights=np.array([0.5, 0.3, 0.2]),
        means=np.array([[-1.0, -0.3], [0.7, 0.9], [0.6, -1.0]]),
        covariances=np.array(
            [[[0.02, 0.01], [0.01, 0.03]], [[0.04, -0.02], [-0.02, 0.02]], [[0.01, 0], [0, 0.01]]]
        ),
    )
