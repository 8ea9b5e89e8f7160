"""Files of named arrays (.npz, HDF5): the images, and the labels and parameters beside them."""

import contextlib
import math
from collections.abc import Generator, Iterator, Mapping
from typing import NamedTuple, Protocol

import numpy as np

from lensjax.errors import UnusableError
from lensjax.files.file_image import (
    FileImage,
    check_dtype,
    convert_blocks,
    resolve_layout,
    stack_shape,
)

_IMAGE_NAMES = ("images", "image", "arr_0")
_LABEL_NAMES = ("labels", "label")
_OTHER_NAMES = (*_LABEL_NAMES, "class_names", "parameters", "parameter_names")
MAX_SIDE_BYTES = 2**28  # of labels, names and parameters


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

    def read(self, name: str) -> np.ndarray:
        """A whole array of at most `MAX_SIDE_BYTES`."""

    def blocks(self, name: str, shape: tuple[int, ...]) -> Generator[np.ndarray, None, None]:
        """Reads a numeric array as a stack of this shape, in blocks `[n, ...]`."""


def find_images(shapes: Mapping[str, tuple[int, ...]]) -> str:
    """The name of the array of images.

    Raises:
      UnusableError: if no array, or more than one, may hold the images.
    """
    for name in _IMAGE_NAMES:
        if name in shapes:
            return name
    large = [name for name, shape in shapes.items() if len(shape) >= 2 and name not in _OTHER_NAMES]
    if len(large) == 1:
        return large[0]
    held = ", ".join(f"{name} {shape}" for name, shape in list(shapes.items())[:8]) or "none"
    raise UnusableError(
        f"does not say which array holds the images; name it 'images' (its arrays: {held})"
    )


def _texts(name: str, values: np.ndarray) -> list[str]:
    """An array of text as a list."""
    texts = []
    for value in values.reshape(-1).tolist():
        text = value.decode() if isinstance(value, bytes) else value
        if not isinstance(text, str) or not text.strip():
            raise UnusableError(f"has an array {name!r} with an element that is empty or not text")
        texts.append(text.strip())
    return texts


def _class_names(container: Container, num_images: int) -> list[str] | list[None]:
    """The class of each image, None if the file has no labels."""
    present = [name for name in _LABEL_NAMES if name in container.shapes()]
    if not present:
        return [None] * num_images
    labels = container.read(present[0])
    if labels.size != num_images or labels.ndim > 1:
        raise UnusableError(
            f"has labels of the shape {labels.shape} for {num_images} images; each image needs one "
            "label"
        )
    if labels.dtype.kind in "SUO":
        return _texts(present[0], labels)
    if labels.dtype.kind not in "iu":
        raise UnusableError(f"has labels of the dtype {labels.dtype}; allowed: integers or text")
    indices = labels.reshape(-1).tolist()
    if "class_names" not in container.shapes():
        if min(indices) < 0:
            raise UnusableError(f"has the label {min(indices)}; labels start at 0")
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
    values = container.read("parameters")
    check_dtype(values.dtype)
    shape = (num_images, len(names))
    if values.shape != shape and not (num_images == 1 and values.shape == shape[1:]):
        raise UnusableError(
            f"has parameters of the shape {values.shape} for {num_images} images and {len(names)} "
            f"parameter_names"
        )
    if len(set(names)) < len(names):
        raise UnusableError("names a parameter twice in parameter_names")
    return names, values.reshape(shape).astype(np.float64)


def read_container(container: Container, layout: str) -> Iterator[FileImage]:
    """Reads the images of a file of named arrays, in bounded memory.

    Args:
      container: the open file.
      layout: one of `LAYOUTS`.

    Raises:
      UnusableError: if the arrays do not fit together.
    """
    name = find_images(container.shapes())
    dtype, shape = container.dtype(name), container.shapes()[name]
    check_dtype(dtype)
    layout = resolve_layout(shape, layout)
    stack = stack_shape(shape, layout)
    names, values = _parameters(container, stack[0])
    classes = _class_names(container, stack[0])
    integer = dtype.kind in "iu"
    with contextlib.closing(container.blocks(name, stack)) as blocks:  # also after an error
        images = convert_blocks(blocks, layout, stack[0])
        for (place, pixels), class_name, row in zip(images, classes, values, strict=True):
            parameters = dict(zip(names, row.tolist(), strict=True))
            yield FileImage(pixels, parameters, class_name, place, *container.facts, integer)


def check_side_bytes(name: str, shape: tuple[int, ...], dtype: np.dtype) -> None:
    """Raises `UnusableError` for labels, names or parameters that are absurdly large."""
    num_bytes = math.prod(shape) * dtype.itemsize
    if num_bytes > MAX_SIDE_BYTES:
        raise UnusableError(
            f"has an array {name!r} of {num_bytes} bytes; allowed: at most {MAX_SIDE_BYTES}"
        )
