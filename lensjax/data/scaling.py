"""Maps between flux and the range in which the network works, with constants of the data set.

One map for the whole set: images are never stretched one by one, which would lose the flux. Each
channel has constants of its own, since bands may differ by orders of magnitude.
"""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import Array

from lensjax.errors import DataError

# The shape of the map is fixed by these images, so that every feed finds the same constants.
NUM_REFERENCE_IMAGES = 4096
_REFERENCE_BYTES = 2**28  # fewer where images are large
_SOFTENING_SHARE_OF_MAXIMUM = 0.01
# A pixel this many times as bright as the peak of a bright image does not fix the constants, such
# as a hit by a cosmic ray. Peaks of simulated images reach 1.5 times the quantile.
_PEAK_QUANTILE = 0.75  # so up to a quarter of the images may have such pixels
_MOST_OVER_PEAK = 30.0


SCALINGS = ("linear", "sqrt", "asinh")
Constant = float | tuple[float, ...]


@dataclasses.dataclass(frozen=True)
class Scaling:
    """`model = (g(flux) - shift) / spread` with g linear, square root or asinh.

    A constant is one number, or one for each channel; lists, as JSON has them, become tuples.

    Attributes:
      kind: one of `SCALINGS`.
      shift: mean of g over the reference images.
      spread: standard deviation of g there over that wanted in the model's range.
      softening: flux at which asinh turns from linear to logarithmic; 1 for the others.
    """

    kind: str
    shift: Constant
    spread: Constant
    softening: Constant = 1.0

    def __post_init__(self) -> None:
        """Turns lists into tuples: the map is a constant of compiled programs, which hash it."""
        for name in CONSTANTS:
            value = getattr(self, name)
            if isinstance(value, list):
                object.__setattr__(self, name, tuple(value))

    def to_model(self, flux: Array) -> Array:
        """Maps flux, `[..., C]`, to the model's range; any shape if the constants are numbers."""
        if self.kind == "sqrt":
            flux = jnp.sqrt(flux)
        elif self.kind == "asinh":
            flux = jnp.arcsinh(flux / _along_channels(self.softening, flux))
        return (flux - _along_channels(self.shift, flux)) / _along_channels(self.spread, flux)

    def to_flux(self, model: Array) -> Array:
        """Maps the model's range to flux; clips values that no flux maps to.

        Args:
          model: `[..., C]`; any shape if the constants are numbers.
        """
        value = model * _along_channels(self.spread, model) + _along_channels(self.shift, model)
        if self.kind == "sqrt":
            return jnp.square(jnp.maximum(value, 0.0))
        if self.kind == "asinh":
            return jnp.sinh(value) * _along_channels(self.softening, model)
        return value

    def to_dict(self) -> dict[str, Any]:
        """The constants as JSON types; `Scaling(**constants)` undoes it."""
        values = dataclasses.asdict(self)
        return {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in values.items()
        }


# The fields that are numbers.
CONSTANTS = ("shift", "spread", "softening")


def _along_channels(constant: Constant, images: Array) -> float | Array:
    """A constant that broadcasts over the last axis of images."""
    if not isinstance(constant, tuple):
        return constant  # a Python number leaves the dtype of the images as it is
    shape = (1,) * (jnp.ndim(images) - 1) + (len(constant),)
    return jnp.asarray(constant, jnp.result_type(images, float)).reshape(shape)


def num_reference_images(image_shape: tuple[int, int, int]) -> int:
    """How many of the first training images fix the constants of a map.

    Args:
      image_shape: `(H, W, C)`.
    """
    height, width, channels = image_shape
    fitting = _REFERENCE_BYTES // (4 * height * width * channels)
    return min(NUM_REFERENCE_IMAGES, max(1, fitting))


def fit_scaling(
    kind: str,
    model_std: float,
    images: np.ndarray,
    minimum: float,
    *,
    masked: bool = False,
    band_names: Sequence[str] = (),
) -> Scaling:
    """Finds the constants of a map from the first training images.

    Pixels far beyond the peaks of the other images do not count (`usual_range`); the map takes
    them like any other pixel.

    Args:
      kind: one of `SCALINGS`.
      model_std: the standard deviation wanted in the model's range.
      images: flux, float32 `[N, H, W, C]`; the first `num_reference_images` are used.
      minimum: the smallest pixel of the whole set.
      masked: whether pixels without a measurement are NaN; such pixels do not count.
      band_names: names of the channels for messages, C of them or none.

    Returns:
      The map: each constant is a number for one channel, else a tuple of C numbers.

    Raises:
      DataError: if `sqrt` meets a set with negative pixels, a pixel is not finite, or every
        pixel of a channel is the same.
    """
    if kind == "sqrt" and minimum < 0:
        raise DataError(
            f"data.scaling=sqrt cannot be used for this set: its smallest pixel is {minimum:g}; "
            "allowed here: linear, asinh"
        )
    reference = images[: num_reference_images(images.shape[1:])]
    if np.isinf(reference).any() or not (masked or np.isfinite(reference).all()):
        raise DataError("the training images contain values that are not finite")
    channels = reference.shape[-1]
    fits = []
    for channel in range(channels):
        shift, std, softening = _fit(kind, reference[..., channel])
        if not std > 0:
            raise DataError(_nothing_to_learn(channel, channels, band_names))
        fits.append((shift, std / model_std, softening))
    if channels == 1:
        return Scaling(kind, *fits[0])
    return Scaling(kind, *zip(*fits, strict=True))


def _nothing_to_learn(channel: int, channels: int, band_names: Sequence[str]) -> str:
    if channels == 1:
        return "all pixels of the training images are equal; there is nothing to learn"
    name = f" ({band_names[channel]})" if band_names else ""
    return (
        f"all pixels of channel {channel}{name} of the training images are equal; there is nothing "
        "to learn in it, so leave this channel out"
    )


def _fit(kind: str, reference: np.ndarray) -> tuple[float, float, float]:
    """Mean and standard deviation of g over one channel `[N, H, W]`, and the softening."""
    low, high = usual_range(reference)
    unusual = (reference < low) | (reference > high)  # False for NaN
    if unusual.any() or np.isnan(reference).any():
        reference = reference[~(unusual | np.isnan(reference))]
    if not reference.size:
        return 0.0, 0.0, 1.0
    softening = 1.0
    if kind == "asinh":
        softening = _SOFTENING_SHARE_OF_MAXIMUM * float(np.max(np.abs(reference)))
        reference = np.arcsinh(reference / (softening or 1.0))
    elif kind == "sqrt":
        reference = np.sqrt(reference)
    std = float(reference.std(dtype=np.float64))
    return float(reference.mean(dtype=np.float64)), std, softening


def usual_range(images: np.ndarray) -> tuple[float, float]:
    """The pixels beyond which something else than a lens is seen, such as a cosmic ray.

    The quantile is one of images: one of pixels would cut off the arcs, which are few pixels of
    each image.

    Args:
      images: one channel, `[N, H, W]`; NaN where nothing was measured.

    Returns:
      The lowest and the highest pixel that is usual, infinite for images without any contrast.
    """
    axes = (1, 2)
    measured = np.isfinite(images)
    count = measured.sum(axis=axes)
    total = np.asarray(np.sum(images, axis=axes, dtype=np.float64, where=measured))
    if not count.any():
        return -math.inf, math.inf
    sky = float(np.median(total[count > 0] / count[count > 0]))
    highest, lowest = np.fmax.reduce(images, axis=axes), np.fmin.reduce(images, axis=axes)
    peaks = np.fmax(highest - sky, sky - lowest)
    peaks = peaks[peaks > 0]  # an image without contrast says nothing about peaks
    if not peaks.size:
        return -math.inf, math.inf
    usual = float(np.quantile(peaks, _PEAK_QUANTILE, method="lower"))
    return sky - _MOST_OVER_PEAK * usual, sky + _MOST_OVER_PEAK * usual
