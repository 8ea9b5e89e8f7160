"""Does a generator repeat itself? Pairs of its images that are nearer than all real pairs."""

import math
from typing import NamedTuple

import numpy as np

from lensjax.errors import MeasureError
from lensjax.metrics.nearest import nearest_images

LEAST_IMAGES = 3


class TwinTest(NamedTuple):
    """Pairs of generated images beside pairs of real ones.

    Attributes:
      num_images: images of either side that were compared.
      num_twins: generated images that are nearer to another generated image than any two real
        images are to each other.
      p_value: probability of so many twins among as many fresh images. The k nearest pairs of both
        sides are all of generated images once in 2^k cases, and two images make a pair.
      nearest_distance: smallest distance of two generated images, see `nearest_images`.
      real_nearest_distance: the same of real images.
    """

    num_images: int
    num_twins: int
    p_value: float
    nearest_distance: float
    real_nearest_distance: float


def _own_distances(images: np.ndarray) -> np.ndarray:
    return nearest_images(images, images, own=np.arange(len(images))).distance


def twin_test(generated: np.ndarray, real: np.ndarray) -> TwinTest:
    """Looks for images that a generator draws again and again.

    Nearest neighbours are nearer the more images there are; therefore equally many images of either
    side are compared, the first of each.

    Args:
      generated: images of one class, float32 `[N, H, W]` or `[N, H, W, C]`, finite.
      real: images of the same class that are not copies of each other, of the same size.

    Raises:
      MeasureError: for fewer than three images, or sizes that differ.
    """
    count = min(len(generated), len(real))
    if count < LEAST_IMAGES or generated.shape[1:] != real.shape[1:]:
        raise MeasureError(
            f"got generated images {generated.shape} and real ones {real.shape}; allowed: at least "
            f"{LEAST_IMAGES} of each, all of the same size"
        )
    distances, real_distances = _own_distances(generated[:count]), _own_distances(real[:count])
    num_twins = int(np.sum(distances < real_distances.min()))
    return TwinTest(
        num_images=count,
        num_twins=num_twins,
        p_value=0.5 ** math.ceil(num_twins / 2),
        nearest_distance=float(distances.min()),
        real_nearest_distance=float(real_distances.min()),
    )
