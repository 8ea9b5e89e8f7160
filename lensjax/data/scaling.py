"""Maps between flux and the range in which the network works, with constants of the data set.

One map for the whole set: images are never stretched one by one, which would lose the flux.
"""

import dataclasses
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import Array

from lensjax.errors import DataError

# The shape of the map is fixed by these images, so that every feed finds the same constants.
NUM_REFERENCE_IMAGES = 4096
_REFERENCE_BYTES = 2**28  # fewer where images are large
_SOFTENING_SHARE_OF_MAXIMUM = 0.01


SCALINGS = ("linear", "sqrt", "asinh")


@dataclasses.dataclass(frozen=True)
class Scaling:
    """`model = (g(flux) - shift) / spread` with g linear, square root or asinh.

    Attributes:
      kind: one of `SCALINGS`.
      shift: mean of g over the reference images.
      spread: standard deviation of g there over that wanted in the model's range.
      softening: flux at which asinh turns from linear to logarithmic; 1 for the others.
    """

    kind: str
    shift: float
    spread: float
    softening: float = 1.0

    def to_model(self, flux: Array) -> Array:
        """Maps flux, any shape, to the model's range."""
        if self.kind == "sqrt":
            flux = jnp.sqrt(flux)
        elif self.kind == "asinh":
            flux = jnp.arcsinh(flux / self.softening)
        return (flux - self.shift) / self.spread

    def to_flux(self, model: Array) -> Array:
        """Maps the model's range, any shape, to flux; clips values that no flux maps to."""
        value = model * self.spread + self.shift
        if self.kind == "sqrt":
            return jnp.square(jnp.maximum(value, 0.0))
        if self.kind == "asinh":
            return jnp.sinh(value) * self.softening
        return value

    def to_dict(self) -> dict[str, Any]:
        """The constants as JSON types; `Scaling(**constants)` undoes it."""
        return dataclasses.asdict(self)


def num_reference_images(image_shape: tuple[int, int, int]) -> int:
    """How many of the first training images fix the constants of a map.

    Args:
      image_shape: `(H, W, C)`.
    """
    height, width, channels = image_shape
    fitting = _REFERENCE_BYTES // (4 * height * width * channels)
    return min(NUM_REFERENCE_IMAGES, max(1, fitting))


def fit_scaling(
    kind: str, model_std: float, images: np.ndarray, minimum: float, *, masked: bool = False
) -> Scaling:
    """Finds the constants of a map from the first training images.

    Args:
      kind: one of `SCALINGS`.
      model_std: the standard deviation wanted in the model's range.
      images: flux, float32 `[N, H, W, C]`; the first `num_reference_images` are used.
      minimum: the smallest pixel of the whole set.
      masked: whether pixels without a measurement are NaN; such pixels do not count.

    Raises:
      DataError: if `sqrt` meets a set with negative pixels, a pixel is not finite, or every
        pixel is the same.
    """
    if kind == "sqrt" and minimum < 0:
        raise DataError(
            f"data.scaling=sqrt cannot be used for this set: its smallest pixel is {minimum:g}; "
            "allowed here: linear, asinh"
        )
    reference = images[: num_reference_images(images.shape[1:])]
    if masked:
        reference = reference[~np.isnan(reference)]
    if not np.isfinite(reference).all():
        raise DataError("the training images contain values that are not finite")
    softening = 1.0
    if kind == "asinh":
        softening = _SOFTENING_SHARE_OF_MAXIMUM * float(np.max(np.abs(reference)))
        reference = np.arcsinh(reference / (softening or 1.0))
    elif kind == "sqrt":
        reference = np.sqrt(reference)
    std = float(reference.std(dtype=np.float64))
    if not std > 0:
        raise DataError("all pixels of the training images are equal; there is nothing to learn")
    return Scaling(kind, float(reference.mean(dtype=np.float64)), std / model_std, softening)
