"""The planes of a file: which are images, which belong to them, and bands that become channels.

A plane is a FITS extension or an array of an .npz or HDF5 file.
"""

import contextlib
import dataclasses
import fnmatch
import itertools
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from lensjax.errors import AmbiguousError, UnusableError
from lensjax.files.bands import as_channels, band_names
from lensjax.files.file_image import FileImage
from lensjax.files.plane_names import MASKS, VARIANCES, kind_of, subject_of

AUTO = "auto"
_FEW_VALUES = 16  # a plane of integers with no more values than that holds flags
_SHOWN = 12  # planes that a message lists


class PlaneRules(NamedTuple):
    """Which planes a user wants; the fields of `data` of the same names.

    Attributes:
      planes: names, patterns or numbers of the images; () for the only one.
      variance_planes: of their variances, in the same order, one pattern, or `("auto",)`.
      mask_planes: of their masks.
      mask_bits: bits of a mask that mark a bad pixel; 0 for any.
      bands: `images` or `channels`.
    """

    planes: tuple[str, ...] = ()
    variance_planes: tuple[str, ...] = ()
    mask_planes: tuple[str, ...] = ()
    mask_bits: int = 0
    bands: str = "images"


class Plane(NamedTuple):
    """One plane of a file.

    Attributes:
      number: of the FITS extension, or the place of the array in the file.
      name: of the extension (EXTNAME) or the array; may be empty.
      version: tells extensions of one name apart (EXTVER).
      shape: its shape.
      is_extension: whether it is a FITS extension, which messages name by its number.
    """

    number: int
    name: str
    version: int
    shape: tuple[int, ...]
    is_extension: bool

    def __str__(self) -> str:
        """Its name in messages, such as `HDU 2 VIS_RMS`."""
        if self.is_extension:
            return f"HDU {self.number} {self.name}".rstrip()
        return repr(self.name)

    def described(self) -> str:
        """Its name, shape, and kind where the name tells it."""
        facts = ["x".join(map(str, self.shape)), kind_of(self.name)]
        said = ", ".join(fact for fact in facts if fact)
        return f"{self} ({said})" if said else str(self)


class Chosen(NamedTuple):
    """An image of a file with the planes that belong to it."""

    image: Plane
    variance: Plane | None
    mask: Plane | None


SampleFn = Callable[[Plane], np.ndarray]


def listed(planes: Iterable[Plane]) -> str:
    """Planes as one line of a message."""
    described = [plane.described() for plane in planes]
    more = f" and {len(described) - _SHOWN} more" if len(described) > _SHOWN else ""
    return ", ".join(described[:_SHOWN]) + more


def matches(plane: Plane, pattern: str) -> bool:
    """Whether a pattern of a user means a plane: its number, or its name in any case."""
    if pattern.isdecimal() and plane.is_extension:
        return plane.number == int(pattern)
    return fnmatch.fnmatchcase(plane.name.upper(), pattern.upper())


def _matching(planes: Sequence[Plane], pattern: str, field: str) -> list[Plane]:
    found = [plane for plane in planes if matches(plane, pattern)]
    if not found:
        raise UnusableError(f"has no plane {pattern!r} ({field}); its planes: {listed(planes)}")
    return found


def _only(planes: Sequence[Plane], pattern: str, field: str) -> Plane:
    found = _matching(planes, pattern, field)
    if len(found) > 1:
        raise UnusableError(
            f"has {len(found)} planes for {pattern!r} ({field}), where one is wanted: "
            f"{listed(found)}"
        )
    return found[0]


def _holds_flags(values: np.ndarray) -> bool:
    """Whether numbers look like a mask or a segmentation: constant, or integers of few values."""
    finite = values[np.isfinite(values)]
    if not finite.size:
        return True
    distinct = np.unique(finite)
    return len(distinct) == 1 or (
        len(distinct) <= _FEW_VALUES and bool((distinct == np.rint(distinct)).all())
    )


def _images(planes: Sequence[Plane], rules: PlaneRules, sample: SampleFn) -> list[Plane]:
    """The planes that are images; see `choose`."""
    if rules.planes and rules.bands == "channels":
        bands = [_only(planes, pattern, "data.planes") for pattern in rules.planes]
        if len(set(bands)) < len(bands):
            raise UnusableError(f"has one plane for two of data.planes={rules.planes}")
        return bands
    if rules.planes:
        wanted = [_matching(planes, pattern, "data.planes") for pattern in rules.planes]
        return list(dict.fromkeys(itertools.chain.from_iterable(wanted)))
    candidates = [plane for plane in planes if plane.name.upper() == "SCI"]
    candidates = candidates or [plane for plane in planes if kind_of(plane.name) is None]
    if not candidates:
        raise UnusableError(
            f"holds no image, by the names of its planes: {listed(planes)}; if one of them is an "
            "image, set data.planes"
        )
    if len(candidates) > 1:
        candidates = [
            plane for plane in candidates if not _holds_flags(sample(plane))
        ] or candidates
    if len(candidates) > 1:
        raise AmbiguousError(
            f"has {len(candidates)} planes that could be images: {listed(candidates)}; set "
            "data.planes to those that are, and data.bands=channels if they are bands of one image",
            tuple(plane.described() for plane in planes),
        )
    return candidates


def _companion(image: Plane, planes: Sequence[Plane], kinds: Sequence[str]) -> Plane | None:
    """The plane of one of some kinds that belongs to an image, by name; the first kind wins."""
    for kind in kinds:
        candidates = [plane for plane in planes if kind_of(plane.name) == kind]
        same = [plane for plane in candidates if subject_of(plane.name) == subject_of(image.name)]
        for group in (same, candidates):
            group = [plane for plane in group if plane.version == image.version] or group
            if len(group) == 1:
                return group[0]
    return None


def _companions(
    images: Sequence[Plane],
    planes: Sequence[Plane],
    patterns: Sequence[str],
    field: str,
    kinds: Sequence[str],
) -> list[Plane | None]:
    """The plane of variances or masks of each image."""
    if not patterns:
        return [None] * len(images)
    if tuple(patterns) == (AUTO,):
        others = [plane for plane in planes if plane not in images]
        found = [_companion(image, others, kinds) for image in images]
        missing = [image for image, plane in zip(images, found, strict=True) if plane is None]
        shared = len({plane for plane in found if plane}) < len(found)
        if missing or (shared and len(images) > 1):
            raise UnusableError(
                f"does not say which plane belongs to {(missing or images)[0]} ({field}=auto); its "
                f"planes: {listed(planes)}"
            )
        return found
    if len(patterns) == len(images):
        return [_only(planes, pattern, field) for pattern in patterns]
    if len(patterns) > 1:
        raise UnusableError(f"has {len(images)} images, but {len(patterns)} names in {field}")
    matched = _matching(planes, patterns[0], field)
    if len(matched) == 1:
        return [matched[0]] * len(images)
    by_subject = [
        [plane for plane in matched if subject_of(plane.name) == subject_of(image.name)]
        for image in images
    ]
    if any(len(found) != 1 for found in by_subject):
        raise UnusableError(
            f"has {len(matched)} planes for {patterns[0]!r} ({field}) and {len(images)} images, "
            f"and their names do not say which belong together: {listed(matched)}"
        )
    return [found[0] for found in by_subject]


def choose(planes: Sequence[Plane], rules: PlaneRules, sample: SampleFn) -> list[Chosen]:
    """Decides which planes of a file are images, and which planes belong to them.

    Without `rules.planes`, SCI planes are the images where there are any; else the planes whose
    names are of no other kind, and among several of these the ones that do not look like flags.

    Args:
      planes: all planes of two or more axes.
      rules: the user's choice.
      sample: reads pixels of a plane, for those whose names say nothing.

    Raises:
      AmbiguousError: if several planes could be images and `rules.planes` is empty.
      UnusableError: if a wanted plane is missing or means several.
    """
    images = _images(planes, rules, sample)
    variances = _companions(
        images, planes, rules.variance_planes, "data.variance_planes", VARIANCES
    )
    masks = _companions(images, planes, rules.mask_planes, "data.mask_planes", MASKS)
    return [Chosen(*planes_of) for planes_of in zip(images, variances, masks, strict=True)]


def variance_of(name: str, pixels: np.ndarray) -> np.ndarray:
    """The variance that a plane states, by its kind; infinite where it states none.

    Args:
      name: of the plane. Standard deviations are squared, weights inverted; a plane whose name
        says nothing holds variances.
      pixels: of the plane, any shape.
    """
    kind = kind_of(name)
    with np.errstate(all="ignore"):
        variance = np.asarray(pixels, np.float64)
        if kind == "standard deviation":
            variance = np.where(variance > 0, np.square(variance), 0)
        elif kind in ("inverse variance", "weight"):
            variance = np.where(variance > 0, 1 / variance, np.inf)
        variance = variance.astype(np.float32)
    return np.where(np.isfinite(variance) & (variance > 0), variance, np.float32(np.inf))


def mask_of(name: str, pixels: np.ndarray, bits: int) -> np.ndarray:
    """The pixels that a mask marks as bad, bool.

    Args:
      name: of the plane; a map of good pixels marks the others.
      pixels: of the plane, any shape.
      bits: that count; 0 for any.
    """
    if kind_of(name) == "map of good pixels":
        return ~(pixels > 0)
    finite = np.isfinite(pixels)
    if not bits:
        return ~finite | (pixels != 0)
    values = np.where(finite, pixels, 0).astype(np.int64)
    return ~finite | ((values & bits) != 0)


def _same_shape(image: FileImage, other: FileImage, name: Any) -> None:
    if other.pixels.shape != image.pixels.shape:
        raise UnusableError(
            f"has {'x'.join(map(str, other.pixels.shape[:2]))} pixels in {name}, but "
            f"{'x'.join(map(str, image.pixels.shape[:2]))} in {image.plane or 'the image'}"
        )


def _completed(parts: Sequence[FileImage | None], chosen: Chosen, rules: PlaneRules) -> FileImage:
    """An image with its variance and its mask."""
    image, variance, mask = parts
    assert image is not None
    changes: dict[str, Any] = {}
    bad = np.zeros(image.pixels.shape, bool)
    if variance is not None and chosen.variance is not None:
        _same_shape(image, variance, chosen.variance)
        changes["variance"] = variance_of(chosen.variance.name, variance.pixels)
        bad |= ~np.isfinite(changes["variance"])
    if mask is not None and chosen.mask is not None:
        _same_shape(image, mask, chosen.mask)
        bad |= mask_of(chosen.mask.name, mask.pixels, rules.mask_bits)
    if changes or mask is not None:
        changes["mask"] = bad
    return dataclasses.replace(image, plane=chosen.image.name, **changes)


ReadFn = Callable[[Plane], Generator[FileImage, None, None]]


def _zipped(
    streams: Sequence[Generator[Any, None, None]], names: Sequence[object]
) -> Generator[tuple, None, None]:
    """Items of several planes side by side; raises where one plane has more than another."""
    end = object()
    with contextlib.ExitStack() as stack:  # files are closed at once where one of them is refused
        for stream in streams:
            stack.enter_context(contextlib.closing(stream))
        for items in itertools.zip_longest(*streams, fillvalue=end):
            if end in items:
                raise UnusableError(
                    f"has different numbers of images in {', '.join(map(str, names))}"
                )
            yield items


def read_planes(
    planes: Sequence[Plane], rules: PlaneRules, read: ReadFn, sample: SampleFn
) -> Iterator[FileImage]:
    """Reads the images of a file with several planes.

    Args:
      planes: all planes of two or more axes.
      rules: the user's choice.
      read: reads the images of one plane.
      sample: see `choose`.

    Yields:
      One image after the other; with `bands=channels` one of all planes.
    """
    chosen = choose(planes, rules, sample)
    used = {plane for one in chosen for plane in one}
    unread = tuple(plane.described() for plane in planes if plane not in used)
    for image in read_chosen(chosen, rules, read):
        yield dataclasses.replace(image, unread=unread) if unread else image


def read_chosen(chosen: Sequence[Chosen], rules: PlaneRules, read: ReadFn) -> Iterator[FileImage]:
    """Reads planes that are chosen already; see `read_planes`."""

    def completed(one: Chosen) -> Generator[FileImage, None, None]:
        used = [plane for plane in one if plane is not None]
        for parts in _zipped([read(plane) for plane in used], used):
            found = iter(parts)
            whole = [next(found) if plane is not None else None for plane in one]
            yield _completed(whole, one, rules)

    if rules.bands == "channels" and rules.planes:
        streams = [completed(one) for one in chosen]
        for images in _zipped(streams, [one.image for one in chosen]):
            yield as_channels(images, band_names(rules.planes, [one.image.name for one in chosen]))
        return
    for one in chosen:
        for image in completed(one):
            where = f"{one.image} {image.place}".rstrip()
            yield image if len(chosen) == 1 else dataclasses.replace(image, place=where)
