"""The record of an image of a user's folder, and its pixels as they are stored."""

import hashlib
from typing import NamedTuple

import numpy as np

from lensjax.data.folder.listing import FolderFile, class_name_of, is_class_name
from lensjax.errors import BadFileError
from lensjax.files.file_image import FileImage

_DIGEST_BYTES = 16
_LARGEST_INTEGER = 2**24  # float32 holds every integer up to here


class Statement(NamedTuple):
    """The facts that a file states about an image; most images of a set share one statement.

    Attributes:
      flux_unit: unit of a pixel's value.
      pixel_scale_arcsec: side of a pixel.
      psf_fwhm_arcsec: width of the point-spread function.
      zero_point_mag: magnitude of one flux unit.
      parameter_names: names of its parameters, sorted.
    """

    flux_unit: str | None
    pixel_scale_arcsec: float | None
    psf_fwhm_arcsec: float | None
    zero_point_mag: float | None
    parameter_names: tuple[str, ...]


class ScannedImage(NamedTuple):
    """The record of an image, without its pixels.

    Attributes:
      file: index of its file in the listing.
      number: which image of the file it is.
      digest: identifies the pixels.
      split: `train` or `test`.
      class_name: None in an unlabelled set.
      shape: `(H, W, C)`.
      minimum: smallest finite pixel.
      maximum: largest finite pixel.
      zeros: pixels that are exactly 0.
      not_finite: pixels that were NaN or infinite in the file.
      is_integer: whether all finite pixels are whole numbers.
      statement: the facts that the file states about it.
      parameters_digest: identifies the values of its parameters; empty where it has none.
    """

    file: int
    number: int
    digest: bytes
    split: str | None
    class_name: str | None
    shape: tuple[int, int, int]
    minimum: float
    maximum: float
    zeros: int
    not_finite: int
    is_integer: bool
    statement: Statement
    parameters_digest: bytes


def prepare_pixels(image: FileImage, nan_policy: str) -> np.ndarray:
    """The pixels as they are stored, float32 `[H, W, C]`.

    Args:
      image: one image of a file.
      nan_policy: `refuse`; `mask` leaves NaN for every pixel that is not finite; `fill` puts the
        median of the finite ones there.

    Raises:
      ValueError: for pixels that the policy refuses, or an image without a finite pixel.
    """
    pixels = image.pixels
    finite = np.isfinite(pixels)
    if finite.all():
        return pixels
    count = pixels.size - int(finite.sum())
    if count == pixels.size:
        raise ValueError("has no finite pixel")
    if nan_policy == "refuse":
        raise ValueError(
            f"has {count} of {pixels.size} pixels that are NaN or infinite; data.nan_policy=mask "
            "leaves them out of the loss, fill replaces them by the median of the image"
        )
    value = np.nan if nan_policy == "mask" else np.median(pixels[finite])
    return np.where(finite, pixels, np.float32(value))


def digest_of(pixels: np.ndarray) -> bytes:
    """Identifies an image by its pixels, whatever its file and its number type."""
    digest = hashlib.blake2b(digest_size=_DIGEST_BYTES)
    digest.update(np.asarray(pixels.shape, "<i8").tobytes())
    digest.update(np.ascontiguousarray(pixels, "<f4").data)
    return digest.digest()


def _statement_of(image: FileImage) -> Statement:
    return Statement(
        image.flux_unit,
        image.pixel_scale_arcsec,
        image.psf_fwhm_arcsec,
        image.parameters.get("zero_point_mag"),
        tuple(sorted(image.parameters)),
    )


def _parameters_digest(image: FileImage) -> bytes:
    if not image.parameters:
        return b""
    text = repr(sorted(image.parameters.items()))
    return hashlib.blake2b(text.encode(), digest_size=_DIGEST_BYTES).digest()


def _class_of(file: FolderFile, image: FileImage) -> str | None:
    """The class that the folder or the file itself states.

    Raises:
      ValueError: if the two disagree, or the file's class name is not allowed.
    """
    own = image.class_name and class_name_of(image.class_name)
    if own and not is_class_name(own):
        raise ValueError(f"has the class name {own!r}, which is not one line of printable text")
    if own and file.class_name and file.class_name != own:
        raise ValueError(f"has the class {own}, but is in a folder of class {file.class_name}")
    return file.class_name or own


def _is_integer(pixels: np.ndarray) -> bool:
    """Whether all pixels are whole numbers in the range where float32 holds every integer."""
    return bool(np.abs(pixels).max() <= _LARGEST_INTEGER and (pixels == np.rint(pixels)).all())


def examine(
    number: int, place: int, file: FolderFile, image: FileImage, nan_policy: str
) -> tuple[ScannedImage, np.ndarray]:
    """The record of an image, and its pixels as they are stored.

    Args:
      number: index of the file in the listing.
      place: which image of the file it is.
      file: the file.
      image: as it was read.
      nan_policy: see `prepare_pixels`.

    Raises:
      BadFileError: for an image that cannot be used.
    """
    try:
        pixels = prepare_pixels(image, nan_policy)
        class_name = _class_of(file, image)
    except ValueError as error:
        where = f" in {image.place}" if image.place else ""
        raise BadFileError(file.path, f"{error}{where}") from None
    finite = pixels
    not_finite = 0
    if pixels is not image.pixels:
        finite = image.pixels[np.isfinite(image.pixels)]
        not_finite = pixels.size - finite.size
    scanned = ScannedImage(
        file=number,
        number=place,
        digest=digest_of(pixels),
        split=file.split,
        class_name=class_name,
        shape=(pixels.shape[0], pixels.shape[1], pixels.shape[2]),
        minimum=float(finite.min()),
        maximum=float(finite.max()),
        zeros=finite.size - int(np.count_nonzero(finite)),
        not_finite=not_finite,
        is_integer=_is_integer(finite),
        statement=_statement_of(image),
        parameters_digest=_parameters_digest(image),
    )
    return scanned, pixels
