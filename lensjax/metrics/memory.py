"""Does a generator remember its training images? Tests with exact error rates.

Hole test: training leaves out a disc of source positions (`data.exclude_source_disc`); a generator
that has learned the lenses fills the disc, a generator that remembers images does not. Neighbour
test: without copies, generated images are as far from the training images as test images are.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np

from lensjax.data.disc import inside, share_of_square
from lensjax.data.simulator import SOURCE_POSITION_LIMIT
from lensjax.errors import MeasureError
from lensjax.metrics.image_input import check_images
from lensjax.metrics.nearest import nearest_images
from lensjax.metrics.two_sample import LEVEL

# Share of the test images that are nearest; a generated image nearer than these counts as near.
NEAR_SHARE = 0.01
# A test that recognises a smaller share of planted copies, or of holes, has no power.
LEAST_POWER = 0.5
_CONFIDENCE = 0.95
_HALF = 0.5
_IDENTICAL = 1e-5


def binomial_interval(hits: int, count: int) -> tuple[float, float]:
    """The exact (Clopper and Pearson 1934) 95 % interval of a share."""
    from scipy.stats import binomtest

    interval = binomtest(hits, count).proportion_ci(_CONFIDENCE, method="exact")
    return float(interval.low), float(interval.high)


@dataclasses.dataclass(frozen=True)
class HoleTest:
    """How a generator fills the disc that training left out.

    Attributes:
      density: fitted sources in the disc over the number expected of uniform sources; 1 for a
        generator that has learned the lenses, 0 for a generator that remembers training images.
      density_low: lower end of its exact 95 % interval.
      density_high: upper end.
      density_around: density in the ring of equal area around the disc, where training images lie,
        for comparison. None if the ring leaves the prior.
      ratio_inside: median of RMS(image - fit) / RMS(image) for sources in the disc; None without an
        image there.
      ratio_outside: the same outside the disc; None without an image there.
      num_inside: images in the disc.
      num_images: images with a source within the prior.
      num_beyond: images with a source beyond the prior; they do not count.
      power: probability that the interval lies below 1 for a generator that fills the disc by half.
      p_value: probability of so few images in the disc if it was filled like the rest.
    """

    density: float
    density_low: float
    density_high: float
    density_around: float | None
    ratio_inside: float | None
    ratio_outside: float | None
    num_inside: int
    num_images: int
    num_beyond: int
    power: float
    p_value: float

    @property
    def verdict(self) -> str:
        """`filled`, `thin`, `empty` (at most half filled), or `no power`."""
        if self.density_high < 1:
            return "empty" if self.density_high < _HALF else "thin"
        return "filled" if self.power >= LEAST_POWER else "no power"


def _hole_power(count: int, share: float) -> float:
    """The probability that the interval lies below 1 where the density is a half."""
    from scipy.stats import binom

    hits = np.arange(int(binom.ppf(0.5, count, share)) + 1)
    # The interval lies below the share where so few hits are rarer than one of its tails.
    few = hits[binom.cdf(hits, count, share) < (1 - _CONFIDENCE) / 2]
    return float(binom.cdf(few[-1], count, _HALF * share)) if len(few) else 0.0


def _probability_of_so_few(hits: int, count: int, share: float) -> float:
    from scipy.stats import binom

    return float(binom.cdf(hits, count, share))


def _median(values: np.ndarray) -> float | None:
    return float(np.median(values)) if len(values) else None


def hole_test(
    source_x: np.ndarray,
    source_y: np.ndarray,
    ratio: np.ndarray,
    disc: Sequence[float],
) -> HoleTest | None:
    """Looks for the sources that training left out.

    The positions are those of `lensing.fit_smooth`, so that the images should be `no_sub`: with
    sub-structure the fitted position is off, which blurs the disc's edge.

    Args:
      source_x: fitted source positions of generated images in arcsec, `[N]`.
      source_y: the same along y.
      ratio: RMS(image - fit) / RMS(image), `[N]`.
      disc: `data.exclude_source_disc` of the run, `(x, y, radius)` in arcsec.

    Returns:
      The test; None ("not measured") where no disc was left out, or no source lies in the prior.

    Raises:
      MeasureError: for arrays of other shapes or a disc beyond the prior.
    """
    if not disc:
        return None
    limit = SOURCE_POSITION_LIMIT  # the prior of x and y is uniform in [-limit, limit]
    share = share_of_square(disc, limit)
    if not source_x.shape == source_y.shape == ratio.shape == (len(ratio),) or not 0 < share < 1:
        raise MeasureError(
            f"got positions {source_x.shape}, {source_y.shape}, ratios {ratio.shape} and the disc "
            f"{tuple(disc)}; allowed: three arrays [N] and a disc that contains part of the prior"
        )
    within = np.maximum(np.abs(source_x), np.abs(source_y)) <= limit
    count = int(within.sum())
    if not count:
        return None
    x, y, inner_ratio = source_x[within], source_y[within], ratio[within]
    hole = inside(x, y, disc)
    hits = int(hole.sum())
    low, high = binomial_interval(hits, count)
    wider = (*disc[:2], np.sqrt(2) * disc[2])
    ring_share = share_of_square(wider, limit) - share
    ring_fits = max(abs(disc[0]), abs(disc[1])) + wider[2] <= limit
    ring_hits = int(inside(x, y, wider).sum()) - hits
    return HoleTest(
        density=hits / count / share,
        density_low=low / share,
        density_high=high / share,
        density_around=ring_hits / count / ring_share if ring_fits else None,
        ratio_inside=_median(inner_ratio[hole]),
        ratio_outside=_median(inner_ratio[~hole]),
        num_inside=hits,
        num_images=count,
        num_beyond=len(ratio) - count,
        power=_hole_power(count, share),
        p_value=_probability_of_so_few(hits, count, share),
    )


@dataclasses.dataclass(frozen=True)
class Comparison:
    """A number of generated images beside the same number of test images; copies make it small.

    Attributes:
      threshold: the number below which the share `NEAR_SHARE` of the test images lies.
      share: share of the generated images below the threshold; `expected_share` for images of the
        same distribution as the test split, 1 for copies.
      share_low: lower end of its exact 95 % interval, for a threshold without error.
      share_high: upper end.
      expected_share: mean share of fresh images.
      p_value: exact probability that so many fresh images lie below the threshold, with the error
        that the threshold has from the number of test images.
      power: share of planted copies below the threshold; None without planted copies.
      least_p_value: that of a set in which every image lies below the threshold.
    """

    threshold: float
    share: float
    share_low: float
    share_high: float
    expected_share: float
    p_value: float
    power: float | None
    least_p_value: float


@dataclasses.dataclass(frozen=True)
class NeighbourTest:
    """How near generated images and test images are to the training images.

    Attributes:
      nearness: compares the distance to the nearest training image. Even a small error of the
        generator hides a copy from this comparison.
      isolation: compares the distance to the nearest over the distance to the second nearest. A
        copy with an error is still much nearer to its original than to any other image; in a fresh
        image an error makes both distances more alike and raises no alarm.
      num_identical: generated images that equal a training image up to rounding.
      distance: from each generated image to the nearest training image, float64 `[N]`.
      ratio: `distance` over the distance to the second nearest, float64 `[N]`.
      index: the nearest training image, int64 `[N]`.
      rotated: whether the image is nearest after a turn by 180 degrees, bool `[N]`.
    """

    nearness: Comparison
    isolation: Comparison
    num_identical: int
    distance: np.ndarray
    ratio: np.ndarray
    index: np.ndarray
    rotated: np.ndarray

    @property
    def power(self) -> float | None:
        """The share of planted copies that the better of the two numbers recognises."""
        if self.nearness.power is None or self.isolation.power is None:
            return None
        return max(self.nearness.power, self.isolation.power)

    @property
    def most_copies(self) -> float | None:
        """An upper limit on the share of copies; 1 where the test cannot tell."""
        limits = [
            comparison.share_high / comparison.power if comparison.power else 1.0
            for comparison in (self.nearness, self.isolation)
        ]
        return None if self.power is None else min(1.0, *limits)

    @property
    def p_value(self) -> float:
        """Probability of either number, if nothing was remembered; 0 where images are identical."""
        if self.num_identical:
            return 0.0
        return min(1.0, 2 * min(self.nearness.p_value, self.isolation.p_value))

    @property
    def verdict(self) -> str:
        """`copies`, `no copies found`, or `no power`."""
        if self.p_value < LEVEL:
            return "copies"
        least_p = 2 * min(self.nearness.least_p_value, self.isolation.least_p_value)
        blind = self.power is not None and self.power < LEAST_POWER
        return "no power" if blind or least_p >= LEVEL else "no copies found"


@dataclasses.dataclass(frozen=True)
class _NearestTraining:
    """The nearest training image in either orientation; see `NeighbourTest`."""

    distance: np.ndarray
    ratio: np.ndarray
    index: np.ndarray
    rotated: np.ndarray


def _nearest_training(images: np.ndarray, train: np.ndarray) -> _NearestTraining:
    """Finds the nearest training images of images as they are and turned by 180 degrees."""
    nearest = nearest_images(np.concatenate([images, images[:, ::-1, ::-1]]), train, num=2)
    # [N, 4]: two as they are, two turned
    distance = np.concatenate(np.split(nearest.distance, 2), axis=1)
    place = np.concatenate(np.split(nearest.place, 2), axis=1)
    best = np.argmin(distance, axis=1)[:, None]
    first = np.take_along_axis(distance, best, axis=1)
    index = np.take_along_axis(place, best, axis=1)
    # A nearly symmetric training image is near in both orientations; the second must be another.
    second = np.where(place == index, np.inf, distance).min(axis=1)
    ratio = first[:, 0] / np.maximum(second, np.finfo(np.float64).tiny)
    return _NearestTraining(first[:, 0], ratio, index[:, 0], best[:, 0] >= 2)


def _compare(generated: np.ndarray, test: np.ndarray, planted: np.ndarray | None) -> Comparison:
    from scipy.stats import betabinom

    rank = max(1, int(NEAR_SHARE * len(test)))
    threshold = float(np.sort(test)[rank - 1])
    hits = int(np.sum(generated < threshold))
    low, high = binomial_interval(hits, len(generated))
    # The number of exchangeable values below the k-th of m is beta-binomial (k, m - k + 1).
    fresh = betabinom(len(generated), rank, len(test) - rank + 1)
    return Comparison(
        threshold=threshold,
        share=hits / len(generated),
        share_low=low,
        share_high=high,
        expected_share=rank / (len(test) + 1),
        p_value=float(fresh.sf(hits - 1)),
        power=None if planted is None else float(np.mean(planted < threshold)),
        least_p_value=float(fresh.sf(len(generated) - 1)),
    )


def _check_sets(sets: dict[str, np.ndarray | None], size: tuple[int, ...]) -> None:
    for name, images in sets.items():
        if images is None:
            continue
        least = 1 if name in ("generated", "copies") else 2
        shape = size if len(size) in (2, 3) else (None, None)
        allowed = f"[N, H, W] or [N, H, W, C], of the same size in all sets (train has {size})"
        check_images(images, name, shape=shape, min_side=1, min_count=least, allowed=allowed)


def neighbour_test(
    generated: np.ndarray,
    train: np.ndarray,
    test: np.ndarray,
    copies: np.ndarray | None = None,
) -> NeighbourTest:
    """Compares how generated and test images of one class lie among its training images.

    On images, the test finds exact copies; on the residuals of `lensing.fit_smooth`, it finds the
    sub-structure of a training image behind another source.
    Distances are those of `nearest_images`, which ignores a common factor of the pixels; an image
    turned by 180 degrees counts as the same. The generated images must differ from one another:
    repeated images are not independent.

    Args:
      generated: float32 `[N, H, W]` or `[N, H, W, C]`.
      train: training images of the same class, `[T, H, W]` or `[T, H, W, C]`, two or more.
      test: test images of the same class, two or more; 100 or more for `NEAR_SHARE` to hold.
      copies: training images with this generator's own error (`planted_copies`), which the test
        should recognise; they measure its power.

    Raises:
      MeasureError: for sizes that do not fit, values that are not finite, or too few images.
    """
    sets = {"generated": generated, "train": train, "test": test, "copies": copies}
    _check_sets(sets, train.shape[1:])
    nearest, fresh = _nearest_training(generated, train), _nearest_training(test, train)
    planted = _nearest_training(copies, train) if copies is not None else None
    return NeighbourTest(
        nearness=_compare(nearest.distance, fresh.distance, planted.distance if planted else None),
        isolation=_compare(nearest.ratio, fresh.ratio, planted.ratio if planted else None),
        num_identical=int(np.sum(nearest.distance < _IDENTICAL)),
        **vars(nearest),
    )


def planted_copies(train: np.ndarray, errors: np.ndarray, num: int, seed: int) -> np.ndarray:
    """Copies of training images as imperfect as the generator is.

    Args:
      train: training images, or their residuals of the smooth fit, float32 `[T, H, W]`.
      errors: residuals of the smooth fit to *generated* `no_sub` images, float32 `[E, H, W]`. These
        images have no sub-structure, so that the residuals are the generator's own error.
      num: number of copies.
      seed: for the choice of images and errors.
    """
    random = np.random.default_rng(seed)
    chosen, added = random.integers(len(train), size=num), random.integers(len(errors), size=num)
    return train[chosen] + errors[added]
