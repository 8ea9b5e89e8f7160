"""What the fluxes of a set's images are like, to notice images in other units.

A few numbers describe each image; a range says how far each of them goes in the images that a
network was trained on. Images of another unit, scale or telescope leave it.
"""

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from lensjax.data.scaling import usual_range
from lensjax.files.json_file import is_number

# How each number of an image is called in messages.
FEATURES = {
    "mean": "mean pixel",
    "peak": "brightest pixel",
    "minimum": "faintest pixel",
    "deviation": "standard deviation of its pixels",
    "noise": "noise from pixel to pixel",
}
_NORMAL = statistics.NormalDist()
_FURTHEST = 4.5  # standard deviations; one normal number in 150,000 is further on one side
_LEAST_ROOM = 0.25  # beyond each end: about a quarter of a flux
_LINEAR_BELOW = 0.05  # of the feature's usual size; ratios count above, differences below
_LEAST_SCALE = 1e-3  # of the images' usual standard deviation; smaller changes do not count
_CHUNK_PIXELS = 2**22

_NEVER_NEGATIVE = ("deviation", "noise")
# Lowest and highest value of each of `FEATURES` in flux, one pair for each channel.
FluxRange = Mapping[str, Sequence[Sequence[float]]]


def features(images: np.ndarray) -> dict[str, np.ndarray]:
    """The numbers of each image, by the names of `FEATURES`.

    Args:
      images: flux, float32 `[N, H, W, C]`; NaN where nothing was measured.

    Returns:
      float64 `[N, C]` each, in flux; NaN where a channel has no measurement.
    """
    rows = max(1, _CHUNK_PIXELS // max(1, math.prod(images.shape[1:])))
    parts = [
        _features(images[start : start + rows]) for start in range(0, max(1, len(images)), rows)
    ]
    return {name: np.concatenate([part[name] for part in parts]) for name in FEATURES}


def _features(images: np.ndarray) -> dict[str, np.ndarray]:
    axes = (1, 2)
    measured = np.isfinite(images)
    count = measured.sum(axis=axes)
    masked = not measured.all()
    # A smooth image is the mean of its neighbours; in white noise of deviation 1, the difference
    # from the mean of four has a variance of 1.25.
    with np.errstate(all="ignore"):  # of images in absurd units
        mean = np.sum(images, axis=axes, dtype=np.float64, where=measured) / count
        difference = images - mean[:, None, None].astype(np.float32)
        square = np.sum(difference**2, axis=axes, dtype=np.float64, where=measured) / count
        neighbours = images[:, 1:-1, :-2] + images[:, 1:-1, 2:]
        neighbours = (neighbours + images[:, :-2, 1:-1] + images[:, 2:, 1:-1]) / 4
        residual = np.abs(images[:, 1:-1, 1:-1] - neighbours)
    pixels = residual.shape[1] * residual.shape[2]
    residual = residual.reshape(len(residual), pixels, residual.shape[-1])
    return {
        "mean": mean,
        "peak": np.fmax.reduce(images, axis=axes).astype(np.float64),
        "minimum": np.fmin.reduce(images, axis=axes).astype(np.float64),
        "deviation": np.sqrt(square),
        "noise": _median(residual, masked) / (_NORMAL.inv_cdf(0.75) * math.sqrt(1.25)),
    }


def _median(values: np.ndarray, masked: bool) -> np.ndarray:
    """Medians over axis 1 of `[N, P, C]`; NaN values do not count."""
    if not values.size:
        return np.full((len(values), values.shape[2]), np.nan)
    if not masked:
        return np.median(values, axis=1).astype(np.float64)
    ordered = np.sort(values, axis=1)  # NaN last
    count = np.isfinite(ordered).sum(axis=1)
    places = np.maximum(count - 1, 0) // 2
    found = np.take_along_axis(ordered, places[:, None], axis=1)[:, 0]
    return np.where(count > 0, found, np.nan).astype(np.float64)


def outside(ranges: Sequence[FluxRange], images: np.ndarray) -> list[str]:
    """Says of each image by what it is unlike the images that a network saw; empty if by nothing.

    Args:
      ranges: one for each kind of images, such as those without and with noise; an image is like
        them if it is inside one of the ranges.
      images: flux, float32 `[N, H, W, C]`.
    """
    found = features(images)
    by_range = [_outside(bounds, found) for bounds in ranges]
    nearest = [min(reasons, key=len) for reasons in zip(*by_range, strict=True)]
    return [reasons[0] if reasons else "" for reasons in nearest]


def _outside(bounds: FluxRange, found: Mapping[str, np.ndarray]) -> list[list[str]]:
    """All numbers of each image that are outside one range, in words."""
    reasons: list[list[str]] = [[] for _ in found["mean"]]
    for name, words in FEATURES.items():
        channels = found[name].shape[1]
        for channel, (low, high) in enumerate(bounds[name]):
            values = found[name][:, channel]
            owner = f" of channel {channel}" if channels > 1 else ""
            for index in np.flatnonzero((values < low) | (values > high)):
                reasons[index].append(
                    f"{words}{owner} {values[index]:.3g}, in training {low:.3g} to {high:.3g}"
                )
    return reasons


def is_flux_range(value: Any, channels: int) -> bool:
    """Whether a value is a `FluxRange` for images of so many channels, as JSON has it."""
    return (
        isinstance(value, dict)
        and value.keys() == FEATURES.keys()
        and all(
            isinstance(pairs, list)
            and len(pairs) == channels
            and all(isinstance(pair, list) and len(pair) == 2 for pair in pairs)
            and all(is_number(end) for pair in pairs for end in pair)
            and all(low <= high for low, high in pairs)
            for pairs in value.values()
        )
    )


def fit_flux_range(images: np.ndarray) -> FluxRange:
    """Finds the range of one kind of images that a network sees in training.

    Each end lies beyond the images, by as much as the extreme of many more images would. Images
    with pixels beyond those of the others (`scaling.usual_range`) do not count.

    Args:
      images: flux, float32 `[N, H, W, C]`; NaN where nothing was measured.

    Returns:
      The range in JSON types.
    """
    found = features(images)
    bounds: dict[str, list[list[float]]] = {name: [] for name in FEATURES}
    for channel in range(images.shape[-1]):
        low, high = usual_range(images[..., channel])
        kept = (found["peak"][:, channel] <= high) & (found["minimum"][:, channel] >= low)
        deviation = found["deviation"][kept, channel]
        least_scale = _LEAST_SCALE * float(np.median(deviation)) if kept.any() else 0.0
        for name, pairs in bounds.items():
            values = found[name][kept, channel]
            ends = _ends(values[np.isfinite(values)], least_scale)
            pairs.append([max(0.0, ends[0]) if name in _NEVER_NEGATIVE else ends[0], ends[1]])
    return bounds


def _ends(values: np.ndarray, least_scale: float) -> tuple[float, float]:
    """The ends of one number's range, from its values in some images."""
    if not len(values):
        return -float(np.finfo(np.float32).max), float(np.finfo(np.float32).max)
    scale = max(_LINEAR_BELOW * float(np.median(np.abs(values))), least_scale)
    scale = scale or float(np.finfo(np.float32).tiny)
    # Logarithmic where a ratio is what changes, but defined for 0 and negative numbers.
    bent = np.arcsinh(values / scale)
    middle = float(np.median(bent))
    # The largest of N normal numbers lies about here.
    reached = _NORMAL.inv_cdf(1 - 1 / (len(values) + 2))
    stretch = max(1.0, _FURTHEST / reached)
    low = middle - stretch * (middle - float(bent.min())) - _LEAST_ROOM
    high = middle + stretch * (float(bent.max()) - middle) + _LEAST_ROOM
    return scale * math.sinh(low), scale * math.sinh(high)
