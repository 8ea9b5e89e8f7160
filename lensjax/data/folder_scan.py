"""Looks at every image of a folder before anything is written: is it sound, and what is it?"""

import collections
import dataclasses
import hashlib
import pathlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from absl import logging

from lensjax.data.dataset import DataError
from lensjax.data.file_image import BadFileError, FileImage
from lensjax.data.folder import FolderFile, Listing, class_name_of
from lensjax.data.image_files import read_images

_DIGEST_BYTES = 16
_SHOWN = 10  # files that a message lists


class Reading(NamedTuple):
    """How a user wants the files read; the fields of `data` of the same names.

    Attributes:
      layout: the axes of an array.
      nan_policy: `refuse`, `mask` or `fill`.
      on_bad_file: `refuse` or `skip`.
      test_share: share of the images that becomes the test split where there is none.
    """

    layout: str = "auto"
    nan_policy: str = "refuse"
    on_bad_file: str = "refuse"
    test_share: float = 0.1


class ScannedImage(NamedTuple):
    """What is remembered of an image; its pixels are not.

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
      masked: pixels that are not finite.
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
    masked: int


def prepare_pixels(image: FileImage, nan_policy: str) -> np.ndarray:
    """Returns the pixels as they are stored, float32 `[H, W, C]`.

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
            "leaves them out of the loss, fill puts the median of the image there"
        )
    value = np.nan if nan_policy == "mask" else np.median(pixels[finite])
    return np.where(finite, pixels, np.float32(value))


def digest_of(pixels: np.ndarray) -> bytes:
    """Returns what identifies an image, whatever file or number type it came in."""
    digest = hashlib.blake2b(digest_size=_DIGEST_BYTES)
    digest.update(np.asarray(pixels.shape, "<i8").tobytes())
    digest.update(np.ascontiguousarray(pixels, "<f4").data)
    return digest.digest()


@dataclasses.dataclass
class _Seen:
    """What the images say that the whole set has to agree on; a file for each answer."""

    units: dict[str | None, pathlib.Path] = dataclasses.field(default_factory=dict)
    scales: set[float | None] = dataclasses.field(default_factory=set)
    psfs: set[float | None] = dataclasses.field(default_factory=set)
    zero_points: set[float | None] = dataclasses.field(default_factory=set)
    parameter_names: dict[str, None] = dataclasses.field(default_factory=dict)
    num_integer: int = 0
    parameters_digest: Any = dataclasses.field(default_factory=hashlib.sha256)

    def note(self, path: pathlib.Path, image: FileImage) -> None:
        self.units.setdefault(image.flux_unit, path)
        self.scales.add(image.pixel_scale_arcsec)
        self.psfs.add(image.psf_fwhm_arcsec)
        self.zero_points.add(image.parameters.get("zero_point_mag"))
        self.parameter_names.update(dict.fromkeys(image.parameters))
        self.num_integer += image.integer
        if image.parameters:
            self.parameters_digest.update(
                repr((path.name, sorted(image.parameters.items()))).encode()
            )


def _common(values: set[float | None]) -> float | None:
    """Returns the value that all images share to a part in a million, else None."""
    numbers = [value for value in values if value is not None]
    if not numbers or None in values or max(numbers) - min(numbers) > 1e-6 * max(map(abs, numbers)):
        return None
    return numbers[0]


@dataclasses.dataclass(frozen=True)
class Scan:
    """A folder whose images were all read once.

    Attributes:
      listing: its files.
      reading: how they were read.
      images: the images that are taken, in the order of the files.
      bad: files that are left out, with what is wrong.
      class_names: the classes; empty for an unlabelled set.
      image_shape: `(H, W, C)`.
      parameter_names: parameters that some image has.
      flux_unit: unit of a pixel's value.
      pixel_scale_arcsec: side of a pixel, where all images agree.
      psf_fwhm_arcsec: width of the point-spread function, where all images agree.
      zero_point_mag: magnitude of one flux unit, where all images agree.
      integer: whether every image is stored as integers.
      fingerprint: identifies what is taken, and how it is read.
    """

    listing: Listing
    reading: Reading
    images: Sequence[ScannedImage]
    bad: Sequence[BadFileError]
    class_names: tuple[str, ...]
    image_shape: tuple[int, int, int]
    parameter_names: tuple[str, ...]
    flux_unit: str
    pixel_scale_arcsec: float | None
    psf_fwhm_arcsec: float | None
    zero_point_mag: float | None
    integer: bool
    fingerprint: str

    def of_split(self, split: str) -> list[ScannedImage]:
        """Returns the images of a split."""
        return [image for image in self.images if image.split == split]


def _scan_file(
    number: int, file: FolderFile, reading: Reading, seen: _Seen
) -> Iterator[ScannedImage]:
    for place, image in enumerate(read_images(file.path, reading.layout)):
        where = f" in {image.place}" if image.place else ""
        try:
            pixels = prepare_pixels(image, reading.nan_policy)
        except ValueError as error:
            raise BadFileError(file.path, f"{error}{where}") from None
        own_class = image.class_name and class_name_of(image.class_name)
        if file.class_name and own_class and file.class_name != own_class:
            raise BadFileError(file.path, f"says {own_class}{where}, its folder {file.class_name}")
        seen.note(file.path, image)
        measured = pixels if not np.isnan(pixels).any() else pixels[~np.isnan(pixels)]
        yield ScannedImage(
            number,
            place,
            digest_of(pixels),
            file.split,
            file.class_name or own_class,
            (pixels.shape[0], pixels.shape[1], pixels.shape[2]),
            float(measured.min()),
            float(measured.max()),
            int(np.count_nonzero(measured == 0)),
            pixels.size - measured.size,
        )


def _read_all(
    listing: Listing, reading: Reading, seen: _Seen, advance: Callable[[], object]
) -> tuple[list[ScannedImage], list[BadFileError]]:
    """Reads every file once. A stack with one bad image is left out whole."""
    images: list[ScannedImage] = []
    bad = list(listing.bad)
    if bad and reading.on_bad_file == "refuse":
        raise bad[0]
    for number, file in enumerate(listing.files):
        try:
            images.extend(list(_scan_file(number, file, reading, seen)))
        except BadFileError as error:
            if reading.on_bad_file == "refuse":
                raise BadFileError(
                    error.path, f"{error.reason} (data.on_bad_file=skip leaves such files out)"
                ) from error
            bad.append(error)
        advance()
    return images, bad


def _leave_out(
    images: list[ScannedImage],
    wrong: Mapping[int, str],
    listing: Listing,
    reading: Reading,
    bad: list[BadFileError],
) -> list[ScannedImage]:
    """Refuses the first of the wrong files, or leaves them out; `wrong` has reasons by file."""
    errors = [BadFileError(listing.files[file].path, text) for file, text in wrong.items()]
    if errors and reading.on_bad_file == "refuse":
        raise errors[0]
    bad.extend(errors)
    return [image for image in images if image.file not in wrong]


def _odd_shapes(images: Iterable[ScannedImage]) -> tuple[tuple[int, int, int], dict[int, str]]:
    """Returns the shape of most images, and the files that have another."""
    counts = collections.Counter(image.shape for image in images)
    (common, number), *_ = counts.most_common(1)
    usual = "x".join(map(str, common))
    wrong = {
        image.file: f"has an image of {'x'.join(map(str, image.shape))} pixels (rows, columns, "
        f"channels); {number} of {counts.total()} images have {usual}"
        for image in images
        if image.shape != common
    }
    return common, wrong


def _mixed_labels(images: Iterable[ScannedImage]) -> dict[int, str]:
    """Returns the files without a class where others have one."""
    if not any(image.class_name for image in images):
        return {}
    return {
        image.file: "has an image without a class, others have one"
        for image in images
        if image.class_name is None
    }


def _one_unit(seen: _Seen) -> str:
    if len(seen.units) > 1:
        said = [f"{path.name} has {unit or 'none'}" for unit, path in seen.units.items()]
        raise DataError(
            f"data.folder: the images have different flux units: {'; '.join(said[:_SHOWN])}; bring "
            "them to one"
        )
    return next(iter(seen.units), None) or "unknown"


def _rank(digest: bytes) -> float:
    """Returns a number in [0, 1) that depends on the content alone."""
    return int.from_bytes(digest[:6], "little") / 2**48


def _assign_splits(images: list[ScannedImage], share: float) -> list[ScannedImage]:
    """Splits each class by the content of its images, with one at least on either side.

    Copies of an image have one digest, so that they come to lie on one side.
    """
    by_class: dict[str | None, set[bytes]] = collections.defaultdict(set)
    for image in images:
        by_class[image.class_name].add(image.digest)
    test: set[bytes] = set()
    for name, digests in by_class.items():
        if len(digests) < 2:
            raise DataError(
                f"data.folder: {'class ' + name if name else 'the set'} has one image (copies "
                "aside); a training and a test split need two at least"
            )
        lowest, *_, highest = sorted(digests, key=_rank)
        chosen = {digest for digest in digests if _rank(digest) < share}
        test |= (chosen or {lowest}) - {highest}
    return [image._replace(split="test" if image.digest in test else "train") for image in images]


def _leaks(images: Iterable[ScannedImage], listing: Listing) -> dict[int, str]:
    """Returns the training files that hold an image of the test split."""
    test = {image.digest: image for image in images if image.split == "test"}
    return {
        image.file: "has an image that the test split has too, in "
        f"{listing.files[test[image.digest].file].path}; a test on it would prove nothing"
        for image in images
        if image.split == "train" and image.digest in test
    }


def _fingerprint(
    images: Iterable[ScannedImage], class_names: Sequence[str], unit: str, seen: _Seen
) -> str:
    digest = hashlib.sha256()
    digest.update(repr((READER_VERSION, tuple(class_names), unit)).encode())
    digest.update(seen.parameters_digest.digest())
    for image in images:
        digest.update(image.digest)
        digest.update(f"{image.split} {image.class_name}\n".encode())
    return digest.hexdigest()[:16]


# Counts up when the same files come to mean something else.
READER_VERSION = 1


def scan(listing: Listing, reading: Reading, advance: Callable[[], object]) -> Scan:
    """Reads every image of a folder once and checks all of them.

    Args:
      listing: the files.
      reading: how to read them.
      advance: called after each file, for a progress bar.

    Raises:
      DataError: for the first file that cannot be used, unless `reading.on_bad_file` is `skip`; for
        a set that has no image left, a class of one image, or images with different flux units.
    """
    seen = _Seen()
    images, bad = _read_all(listing, reading, seen, advance)
    if not images:
        raise DataError(f"data.folder: no image of {listing.root} can be used; {_first(bad)}")
    shape, wrong = _odd_shapes(images)
    images = _leave_out(images, wrong, listing, reading, bad)
    images = _leave_out(images, _mixed_labels(images), listing, reading, bad)
    own_split = any(image.split for image in images)
    if own_split:
        images = _leave_out(images, _leaks(images, listing), listing, reading, bad)
    else:
        images = _assign_splits(images, reading.test_share)
    names = tuple(sorted({image.class_name for image in images if image.class_name}))
    _check_classes(images, listing, bad)
    unit = _one_unit(seen)
    for error in bad:
        logging.warning("left out: %s", error)
    return Scan(
        listing=listing,
        reading=reading,
        images=images,
        bad=bad,
        class_names=names,
        image_shape=shape,
        parameter_names=tuple(seen.parameter_names),
        flux_unit=unit,
        pixel_scale_arcsec=_common(seen.scales),
        psf_fwhm_arcsec=_common(seen.psfs),
        zero_point_mag=_common(seen.zero_points),
        integer=seen.num_integer >= len(images),
        fingerprint=_fingerprint(images, names, unit, seen),
    )


def _first(bad: Sequence[BadFileError]) -> str:
    return f"the first of {len(bad)} that cannot: {bad[0]}" if bad else "it has none"


def _check_classes(
    images: Iterable[ScannedImage], listing: Listing, bad: Sequence[BadFileError]
) -> None:
    """Checks that each class of the folder has images in both splits."""
    expected = {file.class_name for file in listing.files} | {image.class_name for image in images}
    if len(expected) > 1:
        expected -= {None}
    found = {(image.class_name, image.split) for image in images}
    for name in sorted(expected, key=str):
        for split in ("train", "test"):
            if (name, split) not in found:
                what = f"class {name}" if name else "the set"
                raise DataError(
                    f"data.folder: {what} has no image in the {split} split of {listing.root}"
                    + (f"; {_first(bad)}" if bad else "")
                )
