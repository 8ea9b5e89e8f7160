"""Files of named arrays (.npz, HDF5): the images, and the labels and parameters beside them."""

import contextlib
import itertools
import math
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple, Protocol

import numpy as np

from lensjax.errors import AmbiguousError, UnusableError
from lensjax.files.file_image import (
    FileImage,
    check_dtype,
    convert_blocks,
    resolve_layout,
    stack_shape,
)
from lensjax.files.limits import Limits
from lensjax.files.plane_reading import bad_pixels, read_planes
from lensjax.files.planes import Flags, Plane, PlaneRules

# The usual names of the array of images, the first ones first.
IMAGE_NAMES = ("images", "image", "arr_0")
_LABEL_NAMES = ("labels", "label")
_OTHER_NAMES = (*_LABEL_NAMES, "class_names", "parameters", "parameter_names")
MAX_SIDE_BYTES = 2**28  # of labels, names and parameters
MAX_NAME = 200  # letters of the name of a class or parameter
_LETTER_BYTES = 4
_MAX_NAMES = 10_000  # classes or parameters


class Facts(NamedTuple):
    """Facts that a file states about all its images; see `FileImage`."""

    flux_unit: str | None = None
    pixel_scale_arcsec: float | None = None
    psf_fwhm_arcsec: float | None = None


class Container(Protocol):
    """A file of named arrays."""

    facts: Facts

    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        """The shape of each array by name."""

    def dtype(self, name: str) -> np.dtype:
        """The dtype of an array."""

    def check_stored(self, name: str) -> None:
        """Raises `UnusableError` for an array that the file promises but does not hold."""

    def read(self, name: str) -> np.ndarray:
        """A whole array of at most `MAX_SIDE_BYTES`."""

    def blocks(self, name: str, shape: tuple[int, ...]) -> Generator[np.ndarray, None, None]:
        """Reads a numeric array as a stack of this shape, in blocks `[n, ...]`."""


def planes_of(container: Container) -> list[Plane]:
    """The arrays of two or more axes that are no labels, names or parameters."""
    return [
        Plane(number, name, 1, shape, False)
        for number, (name, shape) in enumerate(container.shapes().items())
        if len(shape) >= 2 and name not in _OTHER_NAMES
    ]


def usual_images(planes: Sequence[Plane], rules: PlaneRules) -> PlaneRules:
    """The rules, with the usual name of the array of images where nobody has named any.

    `arr_0` says nothing where there are more arrays without names.
    """
    if rules.planes:
        return rules
    unnamed = [plane for plane in planes if plane.name.startswith("arr_")]
    for name in IMAGE_NAMES:
        usual = [plane for plane in planes if plane.name == name]
        if usual and not (name == "arr_0" and len(unnamed) > 1):
            return rules._replace(planes=(name,), bands="images")
    return rules


def _texts(name: str, values: np.ndarray) -> list[str]:
    """An array of text as a list."""
    texts = []
    for value in values.reshape(-1).tolist():
        text = value.decode() if isinstance(value, bytes) else value
        if not isinstance(text, str) or not text.strip():
            raise UnusableError(f"has an array {name!r} with an element that is empty or not text")
        if len(text) > MAX_NAME:
            raise UnusableError(
                f"has an array {name!r} with a text of {len(text)} letters; allowed: at most "
                f"{MAX_NAME}"
            )
        texts.append(text.strip())
    if len(set(texts)) > _MAX_NAMES:
        raise UnusableError(
            f"has an array {name!r} with {len(set(texts))} different texts; allowed: at most "
            f"{_MAX_NAMES} classes or parameters"
        )
    return texts


def _class_names(container: Container, num_images: int) -> Iterable[str | None]:
    """The class of each image, None if the file has no labels."""
    present = [name for name in _LABEL_NAMES if name in container.shapes()]
    if not present:
        return itertools.repeat(None, num_images)
    shape = container.shapes()[present[0]]
    if math.prod(shape) != num_images or len(shape) > 1:
        raise UnusableError(
            f"has labels of the shape {shape} for {num_images} images; each image needs one label"
        )
    labels = container.read(present[0])
    if labels.dtype.kind in "SUO":
        return _texts(present[0], labels)
    if labels.dtype.kind not in "iu":
        raise UnusableError(f"has labels of the dtype {labels.dtype}; allowed: integers or text")
    indices = labels.reshape(-1).tolist()
    if "class_names" not in container.shapes():
        if min(indices) < 0:
            raise UnusableError(f"has the label {min(indices)}; labels start at 0")
        if len(set(indices)) > _MAX_NAMES:
            raise UnusableError(
                f"has {len(set(indices))} different labels; allowed: at most {_MAX_NAMES} classes"
            )
        return [f"class_{index}" for index in indices]
    names = _texts("class_names", container.read("class_names"))
    if not 0 <= min(indices) <= max(indices) < len(names):
        raise UnusableError(
            f"has labels from {min(indices)} to {max(indices)}, but {len(names)} class_names"
        )
    return [names[index] for index in indices]


def _parameters(container: Container, num_images: int) -> tuple[list[str], np.ndarray]:
    """The names of the parameters and float64 `[N, P]`."""
    if "parameters" not in container.shapes():
        return [], np.empty((num_images, 0))
    if "parameter_names" not in container.shapes():
        raise UnusableError("has parameters without parameter_names")
    names = _texts("parameter_names", container.read("parameter_names"))
    stored, shape = container.shapes()["parameters"], (num_images, len(names))
    if stored != shape and not (num_images == 1 and stored == shape[1:]):
        raise UnusableError(
            f"has parameters of the shape {stored} for {num_images} images and {len(names)} "
            f"parameter_names"
        )
    values = container.read("parameters")
    check_dtype(values.dtype)
    if len(set(names)) < len(names):
        raise UnusableError("names a parameter twice in parameter_names")
    return names, values.reshape(shape).astype(np.float64)


def _read_array(
    container: Container, plane: Plane, layout: str, limits: Limits, flags: Flags | None
) -> Iterator[FileImage]:
    """Reads one array as images, with the labels and parameters that stand beside it."""
    dtype = container.dtype(plane.name)
    if flags is None or dtype.kind != "b":
        check_dtype(dtype)
    container.check_stored(plane.name)
    layout = resolve_layout(plane.shape, layout)
    stack = stack_shape(plane.shape, layout)
    limits.check_image(stack[1:], dtype)
    names, values = _parameters(container, stack[0])
    classes = _class_names(container, stack[0])
    integer = dtype.kind in "iu"
    with contextlib.closing(container.blocks(plane.name, stack)) as blocks:  # also after an error
        stored = (bad_pixels(block, flags) for block in blocks) if flags else blocks
        images = convert_blocks(stored, layout, stack[0])
        parts = zip(images, classes, values, strict=True)
        for row, ((place, pixels), class_name, numbers) in enumerate(parts):
            parameters = dict(zip(names, numbers.tolist(), strict=True))
            facts = container.facts
            yield FileImage(pixels, parameters, class_name, place, *facts, integer, row)


def read_container(
    container: Container, layout: str, rules: PlaneRules, limits: Limits
) -> Iterator[FileImage]:
    """Reads the images of a file of named arrays, in bounded memory.

    Args:
      container: the open file.
      layout: one of `LAYOUTS`.
      rules: which arrays are wanted.
      limits: of memory and time.

    Raises:
      UnusableError: if the arrays do not fit together.
    """
    planes = planes_of(container)
    if not planes:
        for name in IMAGE_NAMES:
            if name in container.shapes():
                resolve_layout(container.shapes()[name], layout)  # says what is wrong with it
        raise UnusableError(
            f"has no array of images; name it 'images' (its arrays: {_held(container)})"
        )
    rules = usual_images(planes, rules)

    def read(plane: Plane, flags: Flags | None) -> Generator[FileImage, None, None]:
        try:
            yield from _read_array(container, plane, layout, limits, flags or rules.flags)
        except UnusableError as error:
            if len(planes) == 1 or isinstance(error, AmbiguousError):
                raise
            raise UnusableError(f"(array {plane}) {error}") from error

    yield from read_planes(planes, rules, limits, read)


def _held(container: Container) -> str:
    shapes = list(container.shapes().items())[:8]
    return ", ".join(f"{name} {shape}" for name, shape in shapes) or "none"


def check_side_bytes(name: str, shape: tuple[int, ...], dtype: np.dtype) -> None:
    """Raises `UnusableError` for labels, names or parameters that are absurdly large."""
    num_bytes = math.prod(shape) * dtype.itemsize
    if num_bytes > MAX_SIDE_BYTES:
        raise UnusableError(
            f"has an array {name!r} of {num_bytes} bytes; allowed: at most {MAX_SIDE_BYTES}"
        )
    if dtype.kind in "SU" and dtype.itemsize > _LETTER_BYTES * MAX_NAME:
        raise UnusableError(
            f"has an array {name!r} of texts of {dtype.itemsize} bytes; allowed: at most "
            f"{MAX_NAME} letters"
        )
