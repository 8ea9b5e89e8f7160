"""Every sampler on every path with every prediction draws the mixture it was given."""

import functools
from typing import Any

import jax
import numpy as np
import pytest
from mixture_support import PATHS, every_pair, known_path, three_blobs

from lensjax.diffusion import paths
from lensjax.diffusion.paths import usable
from lensjax.diffusion.samplers import SAMPLERS, Problem, SamplerSettings, sample
from lensjax.diffusion.time_grids import time_grid

pytestmark = pytest.mark.usefixtures("quick_compiles")
MIXTURE = three_blobs()
NUM = 4000
# Steps, and what steps of this length may add to the errors, in standard deviations and variances.
ENOUGH = {
    "euler": (120, 0.07),
    "ddim": (120, 0.07),
    "heun": (40, 0.03),
    "midpoint": (40, 0.02),
    "dpmpp_2m": (50, 0.05),
    "ddpm": (160, 0.1),
    "churn": (50, 0.1),
}
NOISE = np.random.default_rng(0).normal(size=(NUM, 1, 2, 1)).astype(np.float32)
KEYS = jax.random.split(jax.random.key(3), NUM)


@functools.cache
def mixture_draw(sampler: str, jumps: bool):
    """One program for all paths and predictions."""
    settings, steps = SamplerSettings(sampler), ENOUGH[sampler][0]

    @jax.jit
    def draw(known, which, times, noise, keys):
        path = known.jumping(jumps)
        problem = Problem(path, MIXTURE.denoiser(path, which), settings, steps)
        return sample(problem, noise, times, keys)

    return draw


@pytest.mark.parametrize(
    ("path_name", "prediction", "sampler"), every_pair(PATHS, paths.PREDICTIONS, SAMPLERS)
)
def test_samples_are_those_of_the_mixture(path_name, prediction, sampler):
    path: Any = usable(PATHS[path_name], prediction)
    times = time_grid(path, ENOUGH[sampler][0], "karras")
    known = known_path(path, SamplerSettings(sampler), times)
    draw = mixture_draw(sampler, path.interval[0] > 0)
    which = paths.PREDICTIONS.index(prediction)
    samples = np.asarray(draw(known, which, times, NOISE, KEYS), np.float64)
    samples, finite_steps = samples.reshape(NUM, 2), ENOUGH[sampler][1]
    kinds = MIXTURE.nearest(samples)
    shares = np.bincount(kinds, minlength=3) / NUM
    weights = MIXTURE.weights
    assert np.all(abs(shares - weights) < 0.01 + 4.5 * np.sqrt(weights * (1 - weights) / NUM))

    roots = np.linalg.cholesky(MIXTURE.covariances)[kinds]
    white = np.linalg.solve(roots, (samples - MIXTURE.means[kinds])[..., None])[..., 0]
    for kind in range(3):
        own = white[kinds == kind]
        assert np.max(np.abs(own.mean(axis=0))) < finite_steps + 4.5 / np.sqrt(len(own))
    error = np.abs(np.cov(white.T) - np.eye(2))
    assert np.max(error) < finite_steps + 4.5 * np.sqrt(2 / NUM)

    # Of the whole: it is far wider than its blobs, so that their weights decide.
    variances = np.diag(MIXTURE.covariance)
    error = np.abs(samples.mean(axis=0) - MIXTURE.mean) / np.sqrt(variances)
    assert np.max(error) < 0.01 + 4.5 / np.sqrt(NUM)
    error = np.abs(np.cov(samples.T) - MIXTURE.covariance) / np.sqrt(np.outer(variances, variances))
    assert np.max(error) < 0.03 + 4.5 * np.sqrt(2 / NUM)
