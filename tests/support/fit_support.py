"""Images with known lenses for the tests of the fits."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from lensjax import prng
from lensjax.data.simulator import simulate
from lensjax.data.surveys import SURVEYS

# Images that are drawn at once, if no more are asked for: one program for each class and survey.
NUM_DRAWN = {"model_i": 1, "model_ii": 48, "model_iii": 8}


@functools.cache
def _drawn(class_name: str, count: int, survey: str, conserved: bool):
    keys = prng.keys(prng.key(5, "test"), jnp.arange(count))
    images, draw, _ = simulate(keys, SURVEYS[survey], class_name, conserved=conserved)
    return np.array(images), jax.tree.map(np.asarray, draw)


def real(class_name: str, count: int, survey: str = "model_ii", conserved: bool = False):
    """Images of a class, and the draws behind them."""
    images, draw = _drawn(class_name, max(count, NUM_DRAWN[survey]), survey, conserved)
    chosen = jax.tree.map(lambda leaf: leaf[:count] if np.ndim(leaf) else leaf, draw)
    return images[:count].copy(), chosen


def degenerate(side: int) -> np.ndarray:
    """A black image, noise, one bright pixel, a negative image, and one far too bright."""
    images = np.zeros((5, side, side), np.float32)
    images[1] = np.random.default_rng(0).normal(size=(side, side))
    images[2, 3, 4] = 1
    images[3] = -1
    images[4] = 1e25
    return images
