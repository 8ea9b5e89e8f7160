"""Checks and describes every image of a folder before anything is written."""

import collections
import dataclasses
import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from absl import logging

from lensjax.data.dataset import SPLITS
from lensjax.data.folder.bad_files import BadFiles
from lensjax.data.folder.entries import FolderFile, Listing
from lensjax.data.folder.findings import warnings_of
from lensjax.data.folder.grouping import grouped
from lensjax.data.folder.image import (
    BlankImageError,
    ScannedImage,
    Statement,
    examine,
    read_unit,
)
from lensjax.data.folder.questions import check_names
from lensjax.data.folder.reading import Reading
from lensjax.data.folder.splitting import assign_splits, without_leaks
from lensjax.errors import AmbiguousFileError, BadFileError, DataError, printable_name
from lensjax.files.file_image import FileImage

_SHOWN = 10  # files that a message lists
_PLANES = 30  # planes that a question lists


def _common(values: set[float | None]) -> float | None:
    """The value that all images share to a part in a million, else None."""
    numbers = [value for value in values if value is not None]
    if not numbers or None in values or max(numbers) - min(numbers) > 1e-6 * max(map(abs, numbers)):
        return None
    return numbers[0]


def _common_tuple(values: set[tuple[float, ...]]) -> tuple[float, ...]:
    return next(iter(values)) if len(values) == 1 else ()


@dataclasses.dataclass(frozen=True)
class Scan:
    """A folder whose images were all read once.

    Attributes:
      listing: its files.
      reading: how they were read.
      images: the images that are taken, in the order of the files.
      bad: files that are left out, with the reasons.
      class_names: the classes; empty for an unlabelled set.
      image_shape: `(H, W, C)`.
      parameter_names: parameters that some image has.
      flux_unit: unit of a pixel's value.
      pixel_scale_arcsec: side of a pixel, where all images agree.
      psf_fwhm_arcsec: width of the point-spread function, where all images agree.
      zero_point_mag: magnitude of one flux unit, where all images agree.
      integer: whether every pixel of every image is a whole number.
      fingerprint: identifies the images that are taken, and how they are read.
      band_names: the bands of the channels; empty where they have no names.
      band_zero_points_mag: magnitude of one flux unit in each band, where all images agree.
      has_variance: whether every pixel has a variance.
      has_mask: whether images have masks.
      warnings: what a user should look at, a line each.
      unread: planes of files that belong to no image, by number of files.
      companions: planes that variances and masks come from, by number of files.
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
    band_names: tuple[str, ...] = ()
    band_zero_points_mag: tuple[float, ...] = ()
    has_variance: bool = False
    has_mask: bool = False
    warnings: tuple[str, ...] = ()
    unread: Mapping[str, int] = dataclasses.field(default_factory=dict)
    companions: Mapping[str, int] = dataclasses.field(default_factory=dict)

    def of_split(self, split: str) -> list[ScannedImage]:
        """The images of a split."""
        return [image for image in self.images if image.split == split]


def _read_all(
    listing: Listing,
    reading: Reading,
    bad: BadFiles,
    found: "_Planes",
    advance: Callable[[], object],
) -> list[ScannedImage]:
    """Reads every file once. A stack with one bad image is left out whole, a blank one alone.

    `found` learns which planes were read.
    """
    for error in listing.bad:
        bad.add(error)
    statements: dict[Statement, Statement] = {}

    def examined(number: int, file: FolderFile) -> Iterator[ScannedImage]:
        for place, image in enumerate(read_unit(file, reading)):
            try:
                scanned, _ = examine(number, place, file, image, reading.nan_policy)
            except BlankImageError as error:
                if not bad.skip:
                    raise
                bad.errors.append(error)
                continue
            if place == 0:
                found.add(file, image)
            if image.row and listing.objects and not listing.sure and not file.chosen:
                raise _stacks_question(file, listing)
            # Equal statements share one object, since there may be very many images.
            statement = statements.setdefault(scanned.statement, scanned.statement)
            yield scanned._replace(statement=statement)

    images: list[ScannedImage] = []
    questions: list[AmbiguousFileError] = []
    for number, file in enumerate(listing.files):
        try:
            images.extend(list(examined(number, file)))
        except AmbiguousFileError as error:
            questions.append(error)
        except BadFileError as error:
            bad.add(error)
        advance()
    if questions:
        raise _planes_question(questions)
    found.check(reading)
    return images


class _Planes:
    """Which planes of the files were read, and which were not."""

    def __init__(self) -> None:
        self.unread: collections.Counter[str] = collections.Counter()
        self.companions: collections.Counter[str] = collections.Counter()
        self._images: dict[str, FolderFile] = {}

    def add(self, file: FolderFile, image: FileImage) -> None:
        """Notes the planes of a file."""
        self.unread.update(image.unread)
        self.companions.update(image.companions)
        if image.unread:
            self._images.setdefault(image.plane, file)

    def check(self, reading: Reading) -> None:
        """Asks where names and contents led to other planes in some files than in others."""
        if len(self._images) > 1 and not reading.rules.planes:
            said = [f"{name} in {file.path.name}" for name, file in self._images.items()]
            raise DataError(
                f"data.folder: different planes look like images in different files: "
                f"{'; '.join(said[:_SHOWN])}; set data.planes"
            )


def _stacks_question(file: FolderFile, listing: Listing) -> DataError:
    return DataError(
        f"data.folder: folders of {listing.root} have the same file names, like folders of "
        f"objects, but {printable_name(file.path)} holds several images; set data.folders=classes "
        "if the folders are classes, or data.folders=objects if all images in a folder show one "
        "object"
    )


def _planes_question(questions: Sequence[AmbiguousFileError]) -> DataError:
    """Asks which planes are images, with all that the files have."""
    first = questions[0]
    if not first.names:  # it is about something else, such as the axes
        return first
    counts = collections.Counter(plane for error in questions for plane in error.planes)
    lines = [f"  {plane} in {number:,} files" for plane, number in counts.most_common(_PLANES)]
    if len(counts) > _PLANES:
        lines.append(f"  and {len(counts) - _PLANES} more")
    names = ",".join(first.names[:_SHOWN])
    return DataError(
        f"data.folder: {len(questions):,} files have several planes that could be images, such as "
        f"{printable_name(first.path)}. The planes of these files:\n"
        + "\n".join(lines)
        + f"\nSet data.planes to those that are images, such as data.planes={names}; each is then "
        "an image of the same object, or, with data.bands=channels, a channel of one image, in "
        "this order. data.variance_planes and data.mask_planes name planes of errors and of flags, "
        "or are auto"
    )


def _odd_shapes(images: Iterable[ScannedImage]) -> tuple[tuple[int, int, int], dict[int, str]]:
    """The shape of most images, and the files that have another."""
    counts = collections.Counter(image.shape for image in images)
    (common, number), *_ = counts.most_common(1)
    usual = "x".join(map(str, common))
    wrong = {
        image.file: f"has an image of {'x'.join(map(str, image.shape))} pixels (rows, columns, "
        f"channels){' in ' * bool(image.plane)}{image.plane}; {number} of {counts.total()} images "
        f"have {usual}"
        for image in images
        if image.shape != common
    }
    return common, wrong


def _mixed_labels(images: Iterable[ScannedImage]) -> dict[int, str]:
    """The files without a class, if other files have one."""
    if not any(image.class_name for image in images):
        return {}
    return {
        image.file: "has an image without a class, but other images have one"
        for image in images
        if image.class_name is None
    }


def _one_unit(images: Iterable[ScannedImage], listing: Listing) -> str:
    units: dict[str | None, str] = {}
    for image in images:
        units.setdefault(image.statement.flux_unit, str(listing.files[image.file].path))
    if len(units) > 1:
        said = [f"{path} has {unit or 'none'}" for unit, path in units.items()]
        raise DataError(
            f"data.folder: the images have different flux units: {'; '.join(said[:_SHOWN])}; "
            "convert them to one unit"
        )
    return next(iter(units)) or "unknown"


def _in_order(images: Iterable[ScannedImage]) -> list[ScannedImage]:
    """Images by split and class, and by the names of the files within."""
    return sorted(images, key=lambda image: (image.split or "", image.class_name or ""))


def _fingerprint(images: Iterable[ScannedImage], class_names: Sequence[str]) -> str:
    digest = hashlib.sha256(repr((READER_VERSION, tuple(class_names))).encode())
    for image in images:
        digest.update(image.digest)
        *facts, band_names, _ = image.statement
        said = (image.split, image.class_name, *facts, image.parameters_digest)
        digest.update(repr(said).encode())
        if band_names or image.planes_digest:  # as in version 0.2 without them
            digest.update(repr((band_names, image.planes_digest)).encode())
    return digest.hexdigest()[:16]


# Goes up by one when the same files would give another set.
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
    bad = BadFiles(reading)
    check_names(listing, reading)
    listing, left_out = grouped(listing, reading)
    for error in left_out:
        bad.add(error)
    planes = _Planes()
    images = _read_all(listing, reading, bad, planes, advance)
    if not images:
        raise DataError(f"data.folder: no image of {listing.root} can be used{bad.explanation()}")
    shape, wrong = _odd_shapes(images)
    images = bad.leave_out(images, wrong, listing)
    images = bad.leave_out(images, _mixed_labels(images), listing)
    if any(image.split for image in images):
        images = without_leaks(images, listing, bad)
    else:
        images = assign_splits(images, reading.test_share, listing, bad)
    _check_classes(images, listing, bad)
    unit = _one_unit(images, listing)
    for error in bad.errors:
        logging.warning("left out: %s", error)
    return _scan_of(listing, reading, _in_order(images), bad.errors, shape, unit, planes)


def _scan_of(
    listing: Listing,
    reading: Reading,
    images: list[ScannedImage],
    bad: list[BadFileError],
    shape: tuple[int, int, int],
    unit: str,
    planes: "_Planes",
) -> Scan:
    names = tuple(sorted({image.class_name for image in images if image.class_name}))
    statements = {image.statement for image in images}
    return Scan(
        listing=listing,
        reading=reading,
        images=images,
        bad=bad,
        class_names=names,
        image_shape=shape,
        parameter_names=tuple(
            sorted({name for statement in statements for name in statement.parameter_names})
        ),
        flux_unit=unit,
        pixel_scale_arcsec=_common({statement.pixel_scale_arcsec for statement in statements}),
        psf_fwhm_arcsec=_common({statement.psf_fwhm_arcsec for statement in statements}),
        zero_point_mag=_common({statement.zero_point_mag for statement in statements}),
        integer=all(image.is_integer for image in images),
        fingerprint=_fingerprint(images, names),
        band_names=next(iter({statement.band_names for statement in statements})),
        band_zero_points_mag=_common_tuple(
            {statement.band_zero_points_mag for statement in statements}
        ),
        has_variance=bool(reading.rules.variance_planes),
        has_mask=bool(reading.rules.variance_planes or reading.rules.mask_planes),
        warnings=warnings_of(images, listing, statements, grouped=reading.group is not None),
        unread=dict(planes.unread),
        companions=dict(planes.companions),
    )


def _check_classes(images: Iterable[ScannedImage], listing: Listing, bad: BadFiles) -> None:
    """Checks that each class of the folder has images in both splits."""
    expected = {file.class_name for file in listing.files} | {image.class_name for image in images}
    if len(expected) > 1:
        expected -= {None}
    present = {(image.class_name, image.split) for image in images}
    for name in sorted(expected, key=str):
        for split in SPLITS:
            if (name, split) not in present:
                owner = f"class {name}" if name else "the set"
                raise DataError(
                    f"data.folder: {owner} has no image in the {split} split of {listing.root}"
                    f"{bad.explanation()}"
                )
