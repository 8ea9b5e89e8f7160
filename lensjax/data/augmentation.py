"""Random changes to a training image at each use: symmetries, shifts, instrument noise.

Each example is drawn separately. Images have row 0 at the lowest y, so that a rotation is
anti-clockwise on the sky plane.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from lensjax.data.simulator import add_noise
from lensjax.data.surveys import SOURCE_MAGNITUDE, Survey
from lensjax.errors import DataError

Images = TypeVar("Images", Array, np.ndarray)


class Symmetry(NamedTuple):
    """One symmetry of the square: rows and columns may be swapped, then each may be reversed."""

    transposed: bool
    rows_flipped: bool
    columns_flipped: bool


# The group of the square; flip_x turns x into -x.
SYMMETRIES = {
    "none": Symmetry(False, False, False),
    "rotate_90": Symmetry(True, False, True),
    "rotate_180": Symmetry(False, True, True),
    "rotate_270": Symmetry(True, True, False),
    "flip_x": Symmetry(False, False, True),
    "flip_y": Symmetry(False, True, False),
    "transpose": Symmetry(True, False, False),
    "antitranspose": Symmetry(True, True, True),
}
EXACT_FOR_SIMULATED = ("none", "rotate_180")


def chosen_symmetries(names: str) -> tuple[Symmetry, ...]:
    """The symmetries behind `data.augmentation`, the identity first.

    Args:
      names: comma-separated names of `SYMMETRIES`, or `all`.

    Raises:
      ValueError: for an unknown name.
    """
    if not is_augmentation(names):
        raise ValueError(f"augmentation {names!r} is not one of {', '.join(SYMMETRIES)}, all")
    listed = list(SYMMETRIES) if names == "all" else names.split(",")
    chosen = {name.strip() for name in listed} | {"none"}
    return tuple(symmetry for name, symmetry in SYMMETRIES.items() if name in chosen)


def is_augmentation(names: str) -> bool:
    """Whether `chosen_symmetries` accepts the names."""
    return names == "all" or all(name.strip() in SYMMETRIES for name in names.split(","))


def cut_out_shape(image_shape: tuple[int, int, int], margin: int) -> tuple[int, int, int]:
    """The shape `(H, W, C)` of the cut-out that the network sees.

    Args:
      image_shape: `(H, W, C)` of the stored images.
      margin: pixels left out on each side, `data.shift_pixels`.

    Raises:
      DataError: if nothing would be left.
    """
    height, width, channels = image_shape
    if 2 * margin >= min(height, width):
        raise DataError(
            f"data.shift_pixels: got {margin}; allowed: less than half of the smaller side of "
            f"{height}x{width} pixels"
        )
    return height - 2 * margin, width - 2 * margin, channels


def central_cut_out(images: Images, margin: int) -> Images:
    """The unshifted cut-outs of images, `[..., H - 2 margin, W - 2 margin, C]`."""
    height, width = images.shape[-3:-1]
    return images[..., margin : height - margin, margin : width - margin, :]


def _apply(image: Array, transposed: Array, rows_flipped: Array, columns_flipped: Array) -> Array:
    if image.shape[0] == image.shape[1]:
        image = jnp.where(transposed, image.swapaxes(0, 1), image)
    image = jnp.where(rows_flipped, image[::-1], image)
    return jnp.where(columns_flipped, image[:, ::-1], image)


def make_augment_fn(
    names: str, margin: int, image_shape: tuple[int, int, int]
) -> Callable[[Array, Array], Array]:
    """Makes `(key, image [H, W, C]) -> [H - 2 margin, W - 2 margin, C]` for one example.

    The window is shifted by up to `margin` whole pixels along each axis, so that every pixel is a
    measured one; then one of the chosen symmetries is applied, all equally likely.

    Args:
      names: comma-separated names of `SYMMETRIES`, or `all`.
      margin: the largest shift in pixels.
      image_shape: `(H, W, C)` of the stored images.

    Raises:
      DataError: for a margin that leaves nothing, or a symmetry that swaps sides of unequal length.
    """
    symmetries = chosen_symmetries(names)
    shape = cut_out_shape(image_shape, margin)
    if shape[0] != shape[1] and any(symmetry.transposed for symmetry in symmetries):
        raise DataError(
            f"data.augmentation: got {names!r} for images of {shape[0]}x{shape[1]} pixels"
            + (f" ({margin} left out on each side)" if margin else "")
            + "; allowed where the sides differ: none, rotate_180, flip_x, flip_y"
        )
    flags = jnp.asarray(symmetries)

    def augment(key: Array, image: Array) -> Array:
        shift_key, symmetry_key = jax.random.split(key)
        if margin:
            row, column = jax.random.randint(shift_key, (2,), 0, 2 * margin + 1)
            # An image may have its variance behind it, as further channels.
            image = jax.lax.dynamic_slice(image, (row, column, 0), (*shape[:2], image.shape[2]))
        if len(symmetries) > 1:
            index = jax.random.randint(symmetry_key, (), 0, len(symmetries))
            image = _apply(image, *flags[index])
        return image

    return augment


def make_observe_fn(
    survey: Survey, share: float, magnitudes: Sequence[float]
) -> Callable[[Array, Array], Array]:
    """Makes `(key, image [H, W, 1]) -> image`, both in flux, for one example.

    A share of the images gets a source of another magnitude, drawn uniformly from a range, and then
    the noise of the survey; the other images do not change.

    Args:
      survey: the DeepLense model; its images have sources of magnitude 20.
      share: probability of noise.
      magnitudes: the brightest and the faintest source.
    """
    brightest, faintest = magnitudes

    def observe(key: Array, image: Array) -> Array:
        noise_key, magnitude_key, choice_key = jax.random.split(key, 3)
        magnitude = jax.random.uniform(magnitude_key, (), jnp.float32, brightest, faintest)
        dimmed = image[..., 0] * 10 ** (-0.4 * (magnitude - SOURCE_MAGNITUDE))
        noisy = add_noise(noise_key, dimmed, survey)[0][..., None]
        return jnp.where(jax.random.uniform(choice_key) < share, noisy, image)

    return observe
