"""The record of an image of a user's folder, and its pixels as they are stored."""

import dataclasses
import hashlib
import sys
from collections.abc import Generator, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from lensjax.data.folder.entries import FolderFile, class_name_of, is_class_name
from lensjax.data.folder.reading import Reading
from lensjax.errors import BadFileError, UnusableError
from lensjax.files.file_image import FileImage
from lensjax.files.image_files import read_images
from lensjax.files.plane_reading import read_chosen
from lensjax.files.planes import Flags, Plane, PlaneRules

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
      band_names: the bands of its channels; empty where they have no names.
      band_zero_points_mag: magnitude of one flux unit in each band; empty where a band has none.
    """

    flux_unit: str | None
    pixel_scale_arcsec: float | None
    psf_fwhm_arcsec: float | None
    zero_point_mag: float | None
    parameter_names: tuple[str, ...]
    band_names: tuple[str, ...] = ()
    band_zero_points_mag: tuple[float, ...] = ()


class BlankImageError(BadFileError):
    """An image of which a channel has the same value everywhere; only this image is left out."""


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
      row: which image of a stack it is.
      object_name: the object that it shows; None for one of its own, that of its file and row.
      flux: sum of the measured pixels of each channel.
      brightest: place of the pixel that is farthest from 0, of all `H W C`.
      masked: pixels that a mask or a variance marks as bad.
      masked_flux: share of the sum of absolute pixels that these hold.
      planes_digest: identifies its variance and its mask; empty where it has none.
      plane: which plane of its file it is; empty for a file with one image or stack.
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
    row: int = 0
    object_name: str | None = None
    flux: tuple[float, ...] = ()
    brightest: int = 0
    masked: int = 0
    masked_flux: float = 0.0
    planes_digest: bytes = b""
    plane: str = ""


class StoredPlanes(NamedTuple):
    """An image as it is stored.

    Attributes:
      pixels: float32 `[H, W, C]`; NaN where nothing was measured.
      variance: float32 `[H, W, C]`, infinite where nothing was measured; None without variances.
      mask: bool `[H, W, C]`, True for pixels that are not to be used; None without a mask.
    """

    pixels: np.ndarray
    variance: np.ndarray | None
    mask: np.ndarray | None


def read_unit(file: FolderFile, reading: Reading) -> Iterator[FileImage]:
    """Reads the images of one file, or of the files of one object together.

    Raises:
      BadFileError: while reading, for files that cannot be used.
    """
    if not file.chosen:
        count = 0
        for image in read_images(file.path, reading.layout, reading.rules, reading.limits):
            count = max(count, image.row + 1)
            yield image
        if file.row_names and count != len(file.row_names):
            raise BadFileError(
                file.path,
                f"has {count} images, but the table has {len(file.row_names)} lines for it",
            )
        return

    def read(plane: Plane, flags: Flags | None) -> Generator[FileImage, None, None]:
        path = file.members[plane.number].path
        is_image = any(plane is one.image for one in file.chosen)
        rules = file.inside if is_image else PlaneRules(one_plane=True, flags=flags)
        yield from read_images(path, reading.layout, rules, reading.limits)

    try:
        for image in read_chosen(file.chosen, reading.rules, read):
            # Each of the files is one plane: where it lies in its file says nothing.
            yield dataclasses.replace(image, place=f"[{image.row}]" if image.row else "")
    except UnusableError as error:
        raise BadFileError(file.path, f"(object {file.object_name}) {error}") from error


def _object_of(file: FolderFile, image: FileImage) -> str | None:
    """The object that an image shows, where a name or a table says so.

    Raises:
      ValueError: for an image that the table has no line for.
    """
    if file.row_names:
        if image.row >= len(file.row_names):
            raise ValueError(
                f"has more images than the {len(file.row_names)} lines that the table has for it"
            )
        return file.row_names[image.row]
    if file.object_name is not None and file.chosen:
        return f"{file.object_name} [{image.row}]"  # rows of stacks of bands are objects
    return file.object_name


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
    usable = finite if image.mask is None else finite & ~image.mask
    if not usable.any():
        raise ValueError("has no finite pixel" + (" that is not masked" if finite.any() else ""))
    if finite.all():
        return pixels
    # A pixel that is masked anyhow may hold anything.
    count = int((~finite if image.mask is None else ~finite & ~image.mask).sum())
    if nan_policy == "refuse" and count:
        raise ValueError(
            f"has {count} of {pixels.size} pixels that are NaN or infinite; data.nan_policy=mask "
            "leaves them out of the loss, fill replaces them by the median of the image"
        )
    value = np.median(pixels[usable]) if nan_policy == "fill" else np.nan
    return np.where(finite, pixels, np.float32(value))


def digest_of(pixels: np.ndarray) -> bytes:
    """Identifies an image by its pixels, whatever its file and its number type."""
    digest = hashlib.blake2b(digest_size=_DIGEST_BYTES)
    digest.update(np.asarray(pixels.shape, "<i8").tobytes())
    digest.update(np.ascontiguousarray(pixels, "<f4").data)
    return digest.digest()


def _band_zero_points(image: FileImage) -> tuple[float, ...]:
    common = image.parameters.get("zero_point_mag")
    found = [image.parameters.get(f"zero_point_mag_{band}", common) for band in image.band_names]
    return tuple(value for value in found if value is not None) if None not in found else ()


def _statement_of(image: FileImage) -> Statement:
    return Statement(
        image.flux_unit,
        image.pixel_scale_arcsec,
        image.psf_fwhm_arcsec,
        image.parameters.get("zero_point_mag"),
        tuple(sorted(image.parameters)),
        image.band_names,
        _band_zero_points(image),
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


def _planes_digest(planes: StoredPlanes) -> bytes:
    if planes.variance is None and planes.mask is None:
        return b""
    digest = hashlib.blake2b(digest_size=_DIGEST_BYTES)
    for plane, dtype in ((planes.variance, "<f4"), (planes.mask, "u1")):
        digest.update(b"-" if plane is None else np.ascontiguousarray(plane, dtype).tobytes())
    return digest.digest()


def _check_not_blank(pixels: np.ndarray, measured: np.ndarray, band_names: Sequence[str]) -> None:
    """Raises ValueError for a channel without measured pixels, or with one value in all of them."""
    for channel in range(pixels.shape[-1]):
        values = pixels[..., channel][measured[..., channel]]
        if values.size and values.min() < values.max():
            continue
        where = ""
        if pixels.shape[-1] > 1:
            where = f" in band {band_names[channel] if band_names else channel + 1}"
        value = f"every pixel is {values[0]:g}" if values.size else "no pixel was measured"
        raise ValueError(f"is blank: {value}{where}")


def _share_of_flux(pixels: np.ndarray, mask: np.ndarray) -> float:
    """The share of the absolute flux that masked pixels hold, those beyond all others cut off."""
    finite = np.where(np.isfinite(pixels), np.abs(pixels), 0)
    cut = np.minimum(finite, np.quantile(finite, 0.999))
    total = float(cut.sum(dtype=np.float64))
    return float(cut[mask].sum(dtype=np.float64)) / total if total else 0.0


def examine(
    number: int, place: int, file: FolderFile, image: FileImage, nan_policy: str
) -> tuple[ScannedImage, StoredPlanes]:
    """The record of an image, and its planes as they are stored.

    Args:
      number: index of the file in the listing.
      place: which image of the file it is.
      file: the file.
      image: as it was read.
      nan_policy: see `prepare_pixels`.

    Raises:
      BlankImageError: for an image with a channel of one value.
      BadFileError: for another image that cannot be used.
    """
    where = f" in {image.place}" if image.place else ""
    try:
        pixels = prepare_pixels(image, nan_policy)
        class_name, object_name = _class_of(file, image), _object_of(file, image)
    except ValueError as error:
        raise BadFileError(file.path, f"{error}{where}") from None
    measured = np.isfinite(image.pixels)
    not_finite = pixels.size - int(measured.sum())
    if image.mask is not None:
        measured &= ~image.mask
    try:
        _check_not_blank(image.pixels, measured, image.band_names)
    except ValueError as error:
        raise BlankImageError(file.path, f"{error}{where}") from None
    values = filled = image.pixels
    if not measured.all():
        values, filled = values[measured], np.where(measured, values, np.float32(0))
    planes = StoredPlanes(pixels, image.variance, image.mask)
    scanned = ScannedImage(
        file=number,
        number=place,
        digest=digest_of(pixels),
        split=file.split,
        class_name=class_name,
        shape=(pixels.shape[0], pixels.shape[1], pixels.shape[2]),
        minimum=float(values.min()),
        maximum=float(values.max()),
        zeros=values.size - int(np.count_nonzero(values)),
        not_finite=not_finite,
        is_integer=_is_integer(values),
        statement=_statement_of(image),
        parameters_digest=_parameters_digest(image),
        row=image.row,
        object_name=object_name,
        flux=tuple(filled.sum((0, 1), np.float64).tolist()),
        brightest=int(np.abs(filled).argmax()),
        masked=0 if image.mask is None else int(image.mask.sum()),
        masked_flux=0.0 if image.mask is None else _share_of_flux(image.pixels, image.mask),
        planes_digest=_planes_digest(planes),
        plane=sys.intern(image.place.partition(" [")[0]) if image.place[:1] != "[" else "",
    )
    return scanned, planes
