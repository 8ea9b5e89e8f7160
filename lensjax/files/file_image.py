"""One image of a user's file, and which axis of its array is which."""

import dataclasses
import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from lensjax.errors import AmbiguousError, UnusableError

LAYOUTS = ("auto", "HW", "CHW", "HWC", "NHW", "NHWC", "NCHW")
BLOCK_BYTES = 2**24  # read at a time from a stack
_MAX_CHANNELS = 4  # `auto` takes an axis up to this long as channels
_MANY_CHANNELS = 8  # more are images of a stack without doubt
_MIN_SIDE = 8
_MAX_PIXELS = 2**28  # in one image, all channels: 1 GiB as float32
# The first bytes of a file, its kind, and the suffixes of that kind.
_SIGNATURES = (
    (b"\x93NUMPY", "a .npy file", (".npy",)),
    (b"PK", "a zip, as an .npz is", (".npz",)),
    (b"\x89HDF\r\n\x1a\n", "an HDF5 file", (".h5", ".hdf5")),
    (b"SIMPLE  =", "a FITS file", (".fits", ".fit", ".fts", ".fits.fz")),
    (b"\x1f\x8b", "a gzip file", (".fits.gz", ".fits", ".fit", ".fts")),
)
_DTYPE_KINDS = {
    "b": "true-or-false values",
    "c": "complex numbers",
    "S": "text",
    "U": "text",
    "V": "structured or raw records",
    "M": "dates",
    "m": "time differences",
    "O": "Python objects",
    "f": "floats of more than 64 bits",
}


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class FileImage:
    """One image of a file.

    Attributes:
      pixels: float32 `[H, W, C]` in its own memory; may hold NaN and infinities.
      parameters: numbers that the file states, such as `log10_axion_mass` (of the mass in eV),
        `zero_point_mag`, `exposure_time_s`; usually empty.
      class_name: the class that the file itself names; None if it names none.
      place: where in the file, such as `[12]`, `HDU 2` or `HDU 2 [12]`; empty for the only image.
      flux_unit: unit of a pixel's value; None if not stated.
      pixel_scale_arcsec: side of a pixel; None if not stated.
      psf_fwhm_arcsec: full width at half maximum of the point-spread function; None if not
        stated.
      integer: whether the pixels are stored as integers.
      row: which image of a stack it is; 0 for the only one.
      plane: name of the plane that it was read from; empty where planes have no names.
      variance: variance of each pixel, float32 `[H, W, C]`; None where no plane has it.
      mask: bool `[H, W, C]`, True for pixels that are not to be used; None for no mask.
      band_names: the bands of the channels where they come from several planes; else empty.
      wcs: astropy's world coordinate system of the pixels; None if there is none.
      unread: descriptions of the planes of its file that belong to no image.
      companions: descriptions of the planes that its variance and mask come from.
    """

    pixels: np.ndarray
    parameters: Mapping[str, float]
    class_name: str | None
    place: str
    flux_unit: str | None
    pixel_scale_arcsec: float | None
    psf_fwhm_arcsec: float | None
    integer: bool
    row: int = 0
    plane: str = ""
    variance: np.ndarray | None = None
    mask: np.ndarray | None = None
    band_names: tuple[str, ...] = ()
    wcs: Any = None
    unread: tuple[str, ...] = ()
    companions: tuple[str, ...] = ()


def check_beginning(head: bytes, suffix: str) -> None:
    """Raises `UnusableError` unless a file begins as its suffix says.

    Args:
      head: its first bytes, up to 64.
      suffix: such as `.npy`.
    """
    if head.startswith(b"version https://git-lfs"):
        raise UnusableError("is a Git LFS pointer, not the file itself; run `git lfs pull`")
    for magic, kind, suffixes in _SIGNATURES:
        if head.startswith(magic):
            if suffix in suffixes:
                return
            raise UnusableError(f"is {kind}, not what its suffix {suffix} says")
    plain = head.isascii() and b"\0" not in head
    kind = "text" if plain else "of another kind, or damaged"
    raise UnusableError(f"is {kind}, not what its suffix {suffix} says")


def check_dtype(dtype: np.dtype) -> None:
    """Raises `UnusableError` unless it is a float of 16, 32 or 64 bits or an integer."""
    if dtype.kind in "iu" or (dtype.kind == "f" and dtype.itemsize <= 8):
        return
    raise UnusableError(
        f"holds {_DTYPE_KINDS.get(dtype.kind, 'values')} ({dtype}); allowed: float16, float32, "
        f"float64 and integers"
    )


def check_shape(shape: tuple[int, ...]) -> None:
    """Raises `UnusableError` for a shape that no array has."""
    if len(shape) > 32 or not all(type(side) is int and 0 <= side < 2**48 for side in shape):
        raise UnusableError("is damaged: it states a shape that no array has")


def layout_question(shape: tuple[int, ...], readings: str, layout: str) -> AmbiguousError:
    """The error that asks whether an array has the bands of one image, or images of their own.

    Args:
      shape: its shape.
      readings: what it may be.
      layout: the layout of one image with bands.
    """
    return AmbiguousError(
        f"has the shape {shape}, which may be {readings}; set data.layout={layout} (bands of one "
        "image) or data.layout=NHW (images of their own)"
    )


def _guess_layout(shape: tuple[int, ...]) -> str:
    if len(shape) == 2:
        return "HW"
    first, last = shape[0], shape[-1]
    if len(shape) == 3:
        if first == 1:
            return "CHW"
        if last <= _MAX_CHANNELS < min(shape[:2]):
            return "HWC"
        if first <= _MAX_CHANNELS < min(shape[1:]):
            said = f"{first} images or one image of {first} channels"
            raise layout_question(shape, said, "CHW")
        if last <= _MANY_CHANNELS and shape[0] == shape[1] >= 4 * last:
            said = f"one image of {last} channels or {first} images of {shape[1]} x {last} pixels"
            raise layout_question(shape, said, "HWC")
        return "NHW"
    if len(shape) == 4 and last <= _MAX_CHANNELS:
        return "NHWC"
    if len(shape) == 4 and shape[1] <= _MAX_CHANNELS:
        return "NCHW"
    raise UnusableError(
        f"has the shape {shape}, which looks like neither an image nor a stack of images; if it is "
        f"one, set data.layout to one of {', '.join(LAYOUTS[1:])}"
    )


def resolve_layout(shape: tuple[int, ...], layout: str) -> str:
    """Says which axis is which.

    Args:
      shape: the shape of the stored array.
      layout: one of `LAYOUTS`; `auto` takes two axes as HW; three as CHW if the first is 1, else
        as HWC if only the last is at most 4, else as NHW; four as NHWC if the last is at most 4,
        else as NCHW if the second is.

    Returns:
      One of `LAYOUTS[1:]`.

    Raises:
      UnusableError: for an array that does not fit, is ambiguous, is empty, or whose images are
        smaller than 8 pixels a side or larger than 2^28 pixels.
    """
    check_shape(shape)
    if len(shape) < 2:
        raise UnusableError(f"has the shape {shape}; an image has at least two axes")
    if 0 in shape:
        raise UnusableError(f"is empty: it has the shape {shape}")
    if layout == "auto":
        layout = _guess_layout(shape)
    elif len(layout) != len(shape):
        raise UnusableError(f"has the shape {shape}, which data.layout={layout} does not fit")
    sides = shape[layout.index("H")], shape[layout.index("W")]
    if min(sides) < _MIN_SIDE:
        raise UnusableError(
            f"has the shape {shape}, so images of {sides[0]} x {sides[1]} pixels "
            f"({layout}); a side needs at least {_MIN_SIDE}"
        )
    if math.prod(stack_shape(shape, layout)[1:]) > _MAX_PIXELS:
        raise UnusableError(f"has the shape {shape}; an image has at most {_MAX_PIXELS} pixels")
    return layout


def stack_shape(shape: tuple[int, ...], layout: str) -> tuple[int, ...]:
    """The shape as a stack; that of a single image becomes `[1, ...]`."""
    return shape if layout[0] == "N" else (1, *shape)


def images_per_block(shape: tuple[int, ...], dtype: np.dtype) -> int:
    """The number of images of a stack of this shape that are read together."""
    return max(1, BLOCK_BYTES // (math.prod(shape[1:]) * dtype.itemsize))


def to_pixels(image: np.ndarray, layout: str, place: str = "") -> np.ndarray:
    """Converts one stored image.

    Args:
      image: numeric, with the axes of `layout` except N.
      layout: one of `LAYOUTS[1:]`.
      place: where the image is in its file, for the error.

    Returns:
      float32 `[H, W, C]`.

    Raises:
      UnusableError: for a finite pixel that float32 cannot hold.
    """
    if layout[-1] == "W":
        image = np.moveaxis(image, 0, -1) if "C" in layout else image[..., None]
    if image.dtype.itemsize < 8 or image.dtype.kind != "f":
        return np.array(image, np.float32, order="C")
    with np.errstate(all="ignore"):
        pixels = np.array(image, np.float32, order="C")
    if np.isinf(pixels).any() and (np.isinf(pixels) & np.isfinite(image)).any():
        raise UnusableError(
            f"{place and f'image {place} '}holds pixels beyond 3.4e38, the largest float32; "
            f"scale the images"
        )
    return pixels


def convert_blocks(
    blocks: Iterable[np.ndarray], layout: str, num_images: int
) -> Iterator[tuple[str, np.ndarray]]:
    """Converts a stack that comes in blocks.

    Args:
      blocks: arrays `[n, ...]` that make up the stack.
      layout: one of `LAYOUTS[1:]`.
      num_images: images in the stack.

    Yields:
      Place (`[index]`, empty for a single image) and float32 `[H, W, C]`.
    """
    index = 0
    for block in blocks:
        for image in block:
            place = f"[{index}]" if num_images > 1 else ""
            yield place, to_pixels(image, layout, place)
            index += 1
