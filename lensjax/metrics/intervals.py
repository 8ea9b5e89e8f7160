"""Errors of scores from disjoint blocks, and the floor of a Frechet distance.

Nothing is drawn with replacement: copies of an image bias a Frechet distance upwards.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import numpy as np

from lensjax.errors import MeasureError
from lensjax.metrics.frechet import Moments, frechet_distance

NUM_FLOOR_SETS = 6
_MIN_BLOCKS = 2

# (places of some images, integers `[n]` in any order) -> their score.
Statistic = Callable[[np.ndarray], float]


class Interval(NamedTuple):
    """A score with its uncertainty.

    Attributes:
      value: the value on all images.
      error: standard error.
      low: lower end of the interval.
      high: upper end.
    """

    value: float
    error: float
    low: float
    high: float


def block_interval(
    statistic: Statistic,
    count: int,
    *,
    num_blocks: int = 10,
    confidence: float = 0.95,
    rate: float = 0.5,
    seed: int = 0,
) -> Interval:
    """A score of all images with its error from disjoint blocks.

    The scores of blocks of b images spread `(n / b)^rate` times as much as that of all n. Only
    their spread is used: a bias that changes with the number of images does not enter.

    Args:
      statistic: the score of some of the images.
      count: number of images n.
      num_blocks: at least 2; the last blocks may have one image less.
      confidence: the interval's (Student's t).
      rate: how fast the score's error falls, n^-rate; 1/2 for means and smooth functions of them.
      seed: for the division into blocks.

    Raises:
      MeasureError: for fewer images than blocks, or a number that is not allowed.
    """
    from scipy.stats import t

    if num_blocks < _MIN_BLOCKS:
        raise MeasureError(f"num_blocks: got {num_blocks}; allowed: at least {_MIN_BLOCKS}")
    if count < num_blocks:
        raise MeasureError(
            f"got {num_blocks} blocks for {count} images; each block needs at least 1 image"
        )
    if not 0 < confidence < 1:
        raise MeasureError(f"confidence: got {confidence!r}; allowed: a number between 0 and 1")
    order = np.random.default_rng(seed).permutation(count)
    scores = [statistic(block) for block in np.array_split(order, num_blocks)]
    error = float(np.std(scores, ddof=1)) * num_blocks**-rate
    value = float(statistic(np.arange(count)))
    reach = error * float(t.ppf((1 + confidence) / 2, num_blocks - 1))
    return Interval(value, error, value - reach, value + reach)


class Floor(NamedTuple):
    """The Frechet distance between real images and other real images.

    Attributes:
      mean: mean of the distances of the disjoint sets.
      deviation: their standard deviation.
      num_sets: the number of sets.
    """

    mean: float
    deviation: float
    num_sets: int

    def ratio(self, distance: float) -> float:
        """Distance / floor, infinite over a floor of 0."""
        return distance / self.mean if self.mean else math.inf

    def z(self, distance: float) -> float:
        """(distance - floor) / deviation of the floor, infinite without any deviation."""
        above = distance - self.mean
        return above / self.deviation if self.deviation else math.copysign(math.inf, above)


def frechet_floor(reference: Moments, sets: Iterable[Moments]) -> Floor:
    """The floor of a Frechet distance.

    Args:
      reference: moments of the test split.
      sets: moments of disjoint sets of real training images, each as large as the set to be judged;
        see `disjoint_sets`. An iterator is read one set at a time.

    Raises:
      MeasureError: for fewer than 2 sets.
    """
    distances = [frechet_distance(reference, moments) for moments in sets]
    if len(distances) < _MIN_BLOCKS:
        raise MeasureError(
            f"got {len(distances)} set(s); a floor needs at least {_MIN_BLOCKS}, "
            f"and the protocol asks for {NUM_FLOOR_SETS}"
        )
    return Floor(float(np.mean(distances)), float(np.std(distances, ddof=1)), len(distances))


def disjoint_sets(
    labels: np.ndarray, per_class: int, num_sets: int = NUM_FLOOR_SETS, seed: int = 0
) -> Sequence[np.ndarray]:
    """Random disjoint sets of places, each with equally many images of every class.

    Args:
      labels: int32 `[N]`.
      per_class: images of a class in each set.
      num_sets: the number of sets.
      seed: for the choice.

    Returns:
      `num_sets` arrays of places, sorted, integers `[per_class * number of classes]`.

    Raises:
      MeasureError: for a class with too few images.
    """
    random = np.random.default_rng(seed)
    needed = num_sets * per_class
    class_places = []
    for label in np.unique(labels):
        places = np.flatnonzero(labels == label)
        if len(places) < needed:
            raise MeasureError(
                f"class {label} has {len(places):,} images; {num_sets} disjoint sets of "
                f"{per_class:,} need {needed:,}. Ask for fewer images per class or fewer sets"
            )
        class_places.append(random.permutation(places)[:needed].reshape(num_sets, per_class))
    return [np.sort(places) for places in np.concatenate(class_places, axis=1)]
