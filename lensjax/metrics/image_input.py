"""The check of flux images that measures, networks and likelihoods share."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from lensjax.arguments import array_of
from lensjax.errors import MeasureError, UserError

MIN_SIDE = 8


def check_images(
    images: Any,
    name: str = "images",
    *,
    shape: Sequence[int | None] = (None, None),
    min_side: int = MIN_SIDE,
    min_count: int = 1,
    allowed: str = "",
    error: type[UserError] = MeasureError,
) -> np.ndarray:
    """Checks images and converts them to float32.

    Args:
      images: flux per pixel, `[N, *shape]`, integers or floats.
      name: the images' name in errors.
      shape: shape of one image; None for a side of any length.
      min_side: the least length of such a side.
      min_count: the least N.
      allowed: the allowed shape in the words of an error, if not `[N, *shape]`.
      error: the class of the errors.

    Raises:
      MeasureError: or the class `error`, for another dtype or shape, too few images, or pixels that
        are not finite in float32.
    """
    images = array_of(name, images, "real numbers, flux per pixel", error=error)
    sides = zip(images.shape[1:], shape, strict=False)
    fits = all(side >= min_side if wanted is None else side == wanted for side, wanted in sides)
    if images.ndim != len(shape) + 1 or not fits:
        letters = zip("HWC", shape, strict=False)
        sizes = ", ".join(letter if wanted is None else str(wanted) for letter, wanted in letters)
        least = f", H and W at least {min_side}" if None in shape else ""
        remedy = " (one channel: images[..., 0])" if images.ndim > len(shape) + 1 else ""
        allowed = allowed or f"[N, {sizes}]{least}{remedy}"
        raise error(f"{name}: got shape {images.shape}; allowed: {allowed}")
    if len(images) < min_count:
        raise error(f"{name}: got {len(images)} images; allowed: at least {min_count}")
    with np.errstate(over="ignore"):  # numbers beyond float32 become infinite
        converted = images.astype(np.float32)
    bad = np.flatnonzero(~np.isfinite(converted).all(axis=tuple(range(1, images.ndim))))
    if len(bad):
        raise error(
            f"{name}: {len(bad)} of {len(images)} have pixels that are NaN or infinite in float32, "
            f"the first is number {bad[0]}; allowed: finite numbers (leave out or fill such images)"
        )
    return converted
