"""What all measures of flux images ask of their input."""

import numpy as np

from lensjax.errors import MeasureError

MIN_SIDE = 8


def check_images(images: np.ndarray, name: str = "images", *, min_count: int = 1) -> np.ndarray:
    """Returns images as float32, or says what is wrong with them.

    Args:
      images: flux per pixel, `[N, H, W]`.
      name: what errors call them.
      min_count: the least N.

    Raises:
      MeasureError: for another shape, sides below 8 pixels, too few images, or values that are not
        finite.
    """
    images = np.asarray(images)
    if images.ndim != 3 or min(images.shape[1:], default=0) < MIN_SIDE:
        raise MeasureError(
            f"{name} have shape {images.shape}; needed is [N, H, W], H and W at least {MIN_SIDE}"
            " (one channel: images[..., 0])"
        )
    if len(images) < min_count:
        raise MeasureError(f"{name} are {len(images)}; needed are at least {min_count}")
    bad = ~np.isfinite(images).all(axis=(1, 2))
    if bad.any():
        raise MeasureError(
            f"{np.sum(bad)} of {len(images)} {name} hold NaN or infinity, the first is number"
            f" {np.argmax(bad)}; leave them out and report their number"
        )
    return images.astype(np.float32)
