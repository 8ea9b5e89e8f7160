"""Notices that images are not in the flux unit of a data set, and says what they look like."""

import math
from typing import NamedTuple

import numpy as np

# Beyond this ratio of both total flux and peak, no poor generator is meant: poor ones are some ten
# per cent off, and those that blur or blend lower the peak alone.
_MOST_RATIO = 5.0
_DOUBTFUL_RATIO = 1.6
_AGREEING_RATIO = 3.0  # a factor changes total flux and peak alike
_EQUAL = 1e-5  # extremes of images that were scaled one by one, relative
_BYTE = 255
_USUAL_ENDS = (1, _BYTE, 65535)  # to which programs scale images


class Summary(NamedTuple):
    """A few numbers of each image.

    Attributes:
      total: sums of the pixels, float64 `[N]`.
      lowest: smallest pixels.
      highest: largest pixels.
      whole: whether all pixels are whole numbers.
    """

    total: np.ndarray
    lowest: np.ndarray
    highest: np.ndarray
    whole: bool

    @property
    def medians(self) -> tuple[float, float, float]:
        """Of total flux, smallest and largest pixel."""
        total, lowest, highest = (float(np.median(values)) for values in self[:3])
        return total, lowest, highest


class Suspicion(NamedTuple):
    """A reason to think that images are not in flux.

    Attributes:
      words: what they look like, after "the images look".
      remedy: the value of `image_scale` or `image_factor` that suits them, such as
        `image_scale=minmax`.
      certain: whether neither a class nor a poor generator can be the reason.
    """

    words: str
    remedy: str
    certain: bool


def summarise(images: np.ndarray) -> Summary:
    """The summary of images `[N, H, W, C]`; pixels that are NaN do not count."""
    axes = (1, 2, 3)
    total = np.nansum(images, axis=axes, dtype=np.float64)
    lowest, highest = np.fmin.reduce(images, axis=axes), np.fmax.reduce(images, axis=axes)
    whole = bool(np.all(images == np.floor(images)))
    return Summary(np.asarray(total), lowest.astype(np.float64), highest.astype(np.float64), whole)


def _constant(values: np.ndarray, size: float) -> bool:
    """Whether all values are equal but for rounding."""
    return bool(np.ptp(values) <= _EQUAL * size)


def _scaled_one_by_one(given: Summary) -> Suspicion | None:
    """Images that all have the same extremes, which fluxes of different lenses never have."""
    contrast = given.highest > given.lowest
    if contrast.sum() < 2:
        return None
    lowest, highest = given.lowest[contrast], given.highest[contrast]
    size = float(np.max(highest - lowest))
    if not _constant(highest, size):
        return None
    high = float(np.median(highest))
    if _constant(lowest, size):
        low = float(np.median(lowest))
        low = 0.0 if abs(low) <= _EQUAL * size else low
        low = -high if abs(low + high) <= _EQUAL * size else low
        # Other ends may be those of a generator that clips.
        usual = any(abs(high - end) <= _EQUAL * size for end in _USUAL_ENDS)
        certain = usual and low in (0.0, -high)
        words = f"as if each was scaled to {low:.4g}..{high:.4g}"
        return Suspicion(words, "image_scale=minmax", certain)
    if abs(high - 1) <= _EQUAL:
        return Suspicion("as if each was divided by its maximum", "image_scale=max", certain=True)
    return None


def _bytes(given: Summary, real: Summary) -> Suspicion | None:
    """Whole numbers from 0 to 255 where the set has fractions."""
    highest = float(given.highest.max())
    if real.whole or not given.whole or given.lowest.min() < 0 or not 1 < highest <= _BYTE:
        return None
    return Suspicion(
        f"like 8-bit pictures: whole numbers from {given.lowest.min():g} to {highest:g}",
        "image_scale=minmax",
        certain=True,
    )


def _scaled_together(given: Summary, real: Summary) -> Suspicion | None:
    """Images that were scaled to 0..1 or -1..1 with the extremes of the whole set."""
    lowest, highest = float(given.lowest.min()), float(given.highest.max())
    if abs(highest - 1) > _EQUAL or abs(float(real.highest.max()) - 1) < 0.05:
        return None
    if lowest >= 0:
        factor = 1 / float(real.highest.max())
        return Suspicion(
            "as if all were scaled to 0..1 together", f"image_factor={_short(factor)}", certain=True
        )
    _, sky, peak = real.medians
    if lowest >= -1 - _EQUAL and np.median(given.lowest) < -0.8 and sky > -0.2 * peak:
        return Suspicion(
            "as if all were scaled to -1..1 together", "image_scale=minmax", certain=True
        )
    return None


def _of_other_flux(given: Summary, real: Summary) -> Suspicion | None:
    """Images whose total flux and peak are larger or smaller by about one factor."""
    total, lowest, highest = given.medians
    usual_total, usual_lowest, usual_peak = real.medians
    if usual_total <= 0 or usual_peak <= 0:
        return None  # of a set with more noise than flux, totals say nothing
    size = usual_total / _AGREEING_RATIO, usual_total * _AGREEING_RATIO
    if size[0] < -total < size[1] and -lowest > _AGREEING_RATIO * max(highest, -usual_lowest):
        return Suspicion("like the negative of lenses", "image_factor=-1", certain=True)
    if total <= 0 or highest <= 0:
        return None  # such as a generator that draws nothing
    ratios = total / usual_total, highest / usual_peak
    if max(ratios) > _AGREEING_RATIO * min(ratios):
        return None
    ratio = math.sqrt(ratios[0] * ratios[1])
    if max(ratio, 1 / ratio) < _DOUBTFUL_RATIO or min(abs(math.log(r)) for r in ratios) < 0.3:
        return None
    beyond = all(
        not np.quantile(usual, 0.005) <= value <= np.quantile(usual, 0.995)
        for value, usual in ((total, real.total), (highest, real.highest))
    )
    certain = beyond and all(max(r, 1 / r) > _MOST_RATIO for r in ratios)
    return Suspicion(
        f"about {_short(ratio)} times as bright as those of the set",
        f"image_factor={_short(ratio)}",
        certain,
    )


def _short(ratio: float) -> str:
    """A ratio with three digits, such as 1010 or 0.0953."""
    return f"{float(f'{ratio:.3g}'):g}"


def suspicion(given: Summary, real: Summary) -> Suspicion | None:
    """What images look like if not like flux of a data set; None if they may be flux.

    Args:
      given: of the images.
      real: of images of the set.
    """
    if not np.any(given.highest > given.lowest):
        return None
    one_by_one = None if _scaled_one_by_one(real) else _scaled_one_by_one(given)
    return (
        one_by_one
        or _bytes(given, real)
        or _scaled_together(given, real)
        or _of_other_flux(given, real)
    )


def evidence(given: Summary, real: Summary, flux_unit: str) -> str:
    """The numbers behind a suspicion, in one line."""
    total, lowest, highest = given.medians
    usual_total, usual_lowest, usual_highest = real.medians
    return (
        f"in the median their total flux is {total:.3g} and their pixels go from {lowest:.3g} to "
        f"{highest:.3g}; in the test images it is {usual_total:.3g}, and they go from "
        f"{usual_lowest:.3g} to {usual_highest:.3g} {flux_unit}"
    )
