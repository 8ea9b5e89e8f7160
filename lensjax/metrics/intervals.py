"""Errors of scores from disjoint blocks, and the floor of a Frechet distance.

Nothing is drawn with replacement: copies of an image bias a Frechet distance upwards.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from lensjax.errors import MeasureError
from lensjax.metrics.frechet import Moments, frechet_distance

NUM_FLOOR_SETS = 6
_MIN_BLOCKS = 2
_TINY = 1e-300
_MOST_LOG = 700.0

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
      log_mean: mean of the logarithms of the distances.
      log_deviation: their standard deviation.
    """

    mean: float
    deviation: float
    num_sets: int
    log_mean: float
    log_deviation: float

    def ratio(self, distance: float) -> float:
        """Distance / floor, infinite over a floor of 0."""
        return distance / self.mean if self.mean else math.inf

    def z(self, distance: float) -> float:
        """(distance - floor) / deviation of the floor, infinite without any deviation."""
        above = distance - self.mean
        return above / self.deviation if self.deviation else math.copysign(math.inf, above)

    def p(self, distance: float) -> float:
        """The probability that one more set of real images is at least as far away.

        Student's t of the logarithms: the distances themselves have a long tail, and six of them
        would call 4 to 7 % of all sets of real images rarer than 1 %.
        """
        from scipy.stats import t

        above = math.log(max(distance, _TINY)) - self.log_mean
        scale = self._scale
        if not scale:
            return 0.5 if above == 0 else float(above < 0)
        return float(t.sf(above / scale, self.num_sets - 1))

    def limit(self, level: float) -> float:
        """The z that one more set of real images exceeds with probability `level`."""
        from scipy.stats import t

        above = float(t.isf(level, self.num_sets - 1)) * self._scale
        # Two sets have a limit beyond all numbers.
        return self.z(math.exp(min(self.log_mean + above, _MOST_LOG)))

    @property
    def _scale(self) -> float:
        """Of one more set above the mean of `num_sets`, which varies too."""
        return self.log_deviation * math.sqrt(1 + 1 / self.num_sets)


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
    logs = np.log(np.maximum(distances, _TINY))
    return Floor(
        mean=float(np.mean(distances)),
        deviation=float(np.std(distances, ddof=1)),
        num_sets=len(distances),
        log_mean=float(np.mean(logs)),
        log_deviation=float(np.std(logs, ddof=1)),
    )


def disjoint_sets(
    labels: np.ndarray,
    per_class: int | Mapping[int, int],
    num_sets: int = NUM_FLOOR_SETS,
    seed: int = 0,
) -> Sequence[np.ndarray]:
    """Random disjoint sets of places, each with the same number of images of a class.

    Args:
      labels: int32 `[N]`.
      per_class: images of a class in each set: one number for every class, or by label; a label
        that is not named has none.
      num_sets: the number of sets.
      seed: for the choice.

    Returns:
      `num_sets` arrays of places, sorted, integers.

    Raises:
      MeasureError: for a class with too few images.
    """
    random = np.random.default_rng(seed)
    class_places = []
    for label in np.unique(labels):
        count = per_class if isinstance(per_class, int) else per_class.get(int(label), 0)
        needed = num_sets * count
        places = np.flatnonzero(labels == label)
        if len(places) < needed:
            raise MeasureError(
                f"class {label} has {len(places):,} images; {num_sets} disjoint sets of "
                f"{count:,} need {needed:,}. Ask for fewer images per class or fewer sets"
            )
        class_places.append(random.permutation(places)[:needed].reshape(num_sets, count))
    return [np.sort(places) for places in np.concatenate(class_places, axis=1)]
