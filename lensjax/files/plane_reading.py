"""Reads chosen planes: images with their variances and masks, bands as channels."""

import contextlib
import dataclasses
import itertools
import math
from collections.abc import Callable, Generator, Iterator, Sequence
from typing import Any

import numpy as np

from lensjax.errors import UnusableError
from lensjax.files.bands import as_channels, band_names
from lensjax.files.file_image import FileImage
from lensjax.files.limits import Limits
from lensjax.files.plane_choice import SampleFn, choose
from lensjax.files.plane_names import MASKS
from lensjax.files.planes import Chosen, Flags, Plane, PlaneRules

_BYTES_PER_PIXEL = 16  # of an image and its variance on their way, and of a mask
_SAMPLED = 8  # images of a stack that are looked at where names say nothing
_GOOD_PIXELS = MASKS[1]

# (plane, how it marks bad pixels if it is a mask) -> its images.
ReadFn = Callable[[Plane, Flags | None], Generator[FileImage, None, None]]


def variance_of(kind: str | None, pixels: np.ndarray) -> np.ndarray:
    """The variance that a plane states; infinite where it states none.

    Args:
      kind: of the plane. Standard deviations are squared, weights inverted.
      pixels: of the plane, any shape.

    Raises:
      UnusableError: for variances that float32 cannot hold.
    """
    with np.errstate(all="ignore"):
        exact = np.asarray(pixels, np.float64)
        if kind == "standard deviation":
            exact = np.where(exact > 0, np.square(exact), 0)
        elif kind in ("inverse variance", "weight"):
            exact = np.where(exact > 0, 1 / exact, np.inf)
        variance = exact.astype(np.float32)
    known = np.isfinite(exact) & (exact > 0)
    if (known & ~((variance >= np.finfo(np.float32).tiny) & np.isfinite(variance))).any():
        raise UnusableError("has variances that float32 cannot hold; scale the images")
    return np.where(known, variance, np.float32(np.inf))


def bad_pixels(values: np.ndarray, flags: Flags) -> np.ndarray:
    """The pixels that a mask marks as bad, 1 or 0 as uint8, from numbers as they are stored.

    Args:
      values: any shape, of any number type; float32 would lose the upper bits.
      flags: how they mark bad pixels.
    """
    if flags.good:
        return (~(values > 0)).astype(np.uint8)
    if values.dtype.kind == "b":
        return values.astype(np.uint8)
    if values.dtype.kind == "f":
        finite = np.isfinite(values)
        whole = np.where(finite, values, 0).astype(np.int64)
        marked = (whole & flags.bits) != 0 if flags.bits else values != 0
        return (~finite | marked).astype(np.uint8)
    marked = (
        (values & np.asarray(flags.bits).astype(values.dtype)) != 0 if flags.bits else values != 0
    )
    return np.asarray(marked, np.uint8)


def _fitted(image: FileImage, other: FileImage, name: object) -> np.ndarray:
    """The pixels of a variance or mask, for every channel of its image."""
    (height, width, channels), pixels = image.pixels.shape, other.pixels
    if pixels.shape[:2] != (height, width) or pixels.shape[2] not in (1, channels):
        raise UnusableError(
            f"has {'x'.join(map(str, pixels.shape))} pixels (rows, columns, channels) in {name}, "
            f"but {height}x{width}x{channels} in {image.plane or 'the image'}"
        )
    return np.broadcast_to(pixels, image.pixels.shape)


def _completed(parts: Sequence[FileImage | None], chosen: Chosen) -> FileImage:
    """An image with its variance and its mask."""
    image, variance, mask = parts
    assert image is not None
    changes: dict[str, Any] = {"companions": tuple(chosen.described())}
    bad = np.zeros(image.pixels.shape, bool)
    if variance is not None:
        pixels = _fitted(image, variance, chosen.variance)
        changes["variance"] = variance_of(chosen.variance_kind, pixels)
        bad |= ~np.isfinite(changes["variance"])
    if mask is not None:
        bad |= _fitted(image, mask, chosen.mask) != 0
    if variance is not None or mask is not None:
        changes["mask"] = bad
    return dataclasses.replace(image, plane=chosen.image.name, **changes)


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


def _repeated(stream: Generator[FileImage, None, None]) -> Generator[FileImage, None, None]:
    """The only image of a plane again and again: one mask for all images of a stack."""
    with contextlib.closing(stream):
        only = next(stream)
    while True:
        yield only


def _flags_of(chosen: Chosen, rules: PlaneRules) -> Flags:
    return Flags(chosen.mask_kind == _GOOD_PIXELS, rules.mask_bits)


def _completed_images(
    chosen: Chosen, rules: PlaneRules, read: ReadFn
) -> Generator[FileImage, None, None]:
    """The images of one plane with their variances and masks."""
    streams: list[tuple[Plane, Generator[FileImage, None, None]]] = []
    endless: list[tuple[Plane, Generator[FileImage, None, None]]] = []
    for plane in chosen.planes:
        stream = read(plane, _flags_of(chosen, rules) if plane is chosen.mask else None)
        one_for_all = len(plane.shape) == 2 < len(chosen.image.shape)
        (endless if one_for_all else streams).append(
            (plane, _repeated(stream) if one_for_all else stream)
        )
    with contextlib.ExitStack() as stack:
        for _, stream in endless:
            stack.enter_context(contextlib.closing(stream))
        for images in _zipped([stream for _, stream in streams], [plane for plane, _ in streams]):
            parts = dict(zip((plane for plane, _ in streams), images, strict=True))
            parts |= {plane: next(stream) for plane, stream in endless}
            yield _completed([parts.get(plane) if plane else None for plane in chosen[:3]], chosen)


def _check_memory(chosen: Sequence[Chosen], rules: PlaneRules, limits: Limits) -> None:
    """Checks that all planes that are in memory together fit into it."""
    sizes = [
        sum(math.prod(plane.shape[-2:]) for plane in one.planes if len(plane.shape) >= 2)
        for one in chosen
    ]
    together = sum(sizes) if rules.bands == "channels" else max(sizes)
    limits.check(_BYTES_PER_PIXEL * together, "has planes that take together")


def read_planes(
    planes: Sequence[Plane], rules: PlaneRules, limits: Limits, read: ReadFn
) -> Iterator[FileImage]:
    """Reads the images of a file with several planes.

    Args:
      planes: all planes of two or more axes.
      rules: the user's choice.
      limits: of memory.
      read: reads the images of one plane.

    Yields:
      One image after the other; with `bands=channels` one of all planes.
    """

    def sample(plane: Plane) -> Iterator[np.ndarray]:
        with contextlib.closing(read(plane, None)) as images:
            for image in itertools.islice(images, _SAMPLED):
                yield image.pixels

    sample_fn: SampleFn = sample
    chosen = choose(planes, rules, sample_fn)
    _check_memory(chosen, rules, limits)
    used = {plane for one in chosen for plane in one.planes}
    unread = tuple(plane.described() for plane in planes if plane not in used)
    for image in read_chosen(chosen, rules, read):
        yield dataclasses.replace(image, unread=unread) if unread else image


def _distinct(names: Sequence[str], chosen: Sequence[Chosen]) -> tuple[str, ...]:
    """Names of bands, with the number of the plane where two have the same."""
    return tuple(
        f"{name}_{one.image.number}" if names.count(name) > 1 else name
        for name, one in zip(names, chosen, strict=True)
    )


def read_chosen(chosen: Sequence[Chosen], rules: PlaneRules, read: ReadFn) -> Iterator[FileImage]:
    """Reads planes that are chosen already; see `read_planes`."""
    if rules.bands == "channels" and rules.planes:
        names = band_names(rules.planes, [one.image.name for one in chosen])
        names = _distinct(names, chosen)
        streams = [_completed_images(one, rules, read) for one in chosen]
        for images in _zipped(streams, [one.image for one in chosen]):
            yield as_channels(images, names)
        return
    for one in chosen:
        for image in _completed_images(one, rules, read):
            where = f"{one.image} {image.place}".rstrip()
            yield image if len(chosen) == 1 else dataclasses.replace(image, place=where)
