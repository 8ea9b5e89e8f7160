"""Reads numpy's .npy format: plain arrays in blocks, the published object arrays, never a pickle.

The same functions read the members of an .npz.
"""

import contextlib
import functools
import io
import math
import numbers
import pathlib
import warnings
from collections.abc import Callable, Generator, Iterable, Iterator
from typing import IO, NamedTuple

import numpy as np

from lensjax.errors import UnusableError
from lensjax.files.file_image import (
    BLOCK_BYTES,
    FileImage,
    check_beginning,
    check_dtype,
    check_shape,
    convert_blocks,
    images_per_block,
    resolve_layout,
    stack_shape,
    to_pixels,
)
from lensjax.files.pickle_machine import Other
from lensjax.files.pickles import MAX_PICKLE_BYTES, load_object_array

_PREFIX = 12  # the longer of the two prefixes: magic, version, length of the header
_MAX_HEADER = 10_000  # numpy's own limit


class Header(NamedTuple):
    """What a .npy says of its array.

    Attributes:
      shape: of the array.
      fortran: whether the first axis runs fastest.
      dtype: of an element, in the file's byte order.
      size: bytes in front of the data.
    """

    shape: tuple[int, ...]
    fortran: bool
    dtype: np.dtype
    size: int

    @property
    def num_bytes(self) -> int:
        """Bytes of the data, for a numeric array."""
        return math.prod(self.shape) * self.dtype.itemsize


def _header_size(prefix: bytes) -> int:
    """Returns the bytes in front of the data, by the first 12 or more."""
    check_beginning(prefix, ".npy")
    if len(prefix) < _PREFIX:
        raise UnusableError(f"is truncated: it has {len(prefix)} bytes")
    major, minor = prefix[6], prefix[7]
    if (major, minor) not in ((1, 0), (2, 0)):
        raise UnusableError(
            f"is of .npy version {major}.{minor}; versions 1.0 and 2.0 hold images (np.save writes "
            f"them)"
        )
    end = 10 if major == 1 else 12
    size = end + int.from_bytes(prefix[8:end], "little")
    if not _PREFIX < size <= _MAX_HEADER:
        raise UnusableError(f"is damaged: its header has {size} bytes")
    return size


@functools.lru_cache(maxsize=256)  # the files of a folder share one header
def _parse_header(header: bytes) -> Header:
    stream = io.BytesIO(header)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # headers that Python 2 wrote
            version = np.lib.format.read_magic(stream)
            if version == (1, 0):
                shape, fortran, dtype = np.lib.format.read_array_header_1_0(stream)
            else:
                shape, fortran, dtype = np.lib.format.read_array_header_2_0(stream)
    except Exception as error:  # Python's parser meets any text here
        raise UnusableError("is damaged: its header is not numpy's") from error
    check_shape(shape)
    return Header(shape, fortran, dtype, len(header))


def read_header(stream: IO[bytes]) -> Header:
    """Reads the header of a .npy that begins here.

    Args:
      stream: stands behind the header afterwards.

    Raises:
      UnusableError: if this is no .npy, or one that numpy would not read either.
    """
    prefix = stream.read(_PREFIX)
    size = _header_size(prefix)
    return _whole_header(prefix + stream.read(size - len(prefix)), size)


def _whole_header(header: bytes, size: int) -> Header:
    if len(header) < size:
        raise UnusableError(f"is truncated: it has {len(header)} bytes, its header alone {size}")
    return _parse_header(header)


def check_size(header: Header, size: int) -> None:
    """Raises `UnusableError` unless a numeric array fills the rest of a file of this size."""
    promised = header.size + header.num_bytes
    if size < promised:
        raise UnusableError(f"is truncated: it has {size} bytes, its header promises {promised}")
    if size > promised:
        raise UnusableError(
            f"has {size - promised} bytes behind its array; a .npy file holds one array"
        )


def read_exactly(stream: IO[bytes], count: int) -> bytes:
    """Returns so many bytes; raises `UnusableError` if there are fewer."""
    pieces = []
    while count:
        piece = stream.read(count)
        if not piece:
            raise UnusableError(f"is truncated: {count} bytes of its array are missing")
        pieces.append(piece)
        count -= len(piece)
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


def read_blocks(
    header: Header, shape: tuple[int, ...], open_data: Callable[[], IO[bytes]]
) -> Generator[np.ndarray, None, None]:
    """Reads a numeric stack of any size in bounded memory.

    A stack in Fortran order has its images interleaved, so the data is passed once for each block.

    Args:
      header: of the array.
      shape: its shape as a stack, `[N, ...]`.
      open_data: opens the data anew, behind the header.

    Yields:
      Arrays `[n, ...]`, together the stack.
    """
    step = images_per_block(shape, header.dtype)
    if header.fortran:
        step *= 8  # fewer passes
        for start in range(0, shape[0], step):
            with open_data() as stream:
                block = _read_interleaved(stream, header.dtype, shape, start, start + step)
            yield block
        return
    per_image = math.prod(shape[1:]) * header.dtype.itemsize
    with open_data() as stream:
        for start in range(0, shape[0], step):
            count = min(step, shape[0] - start)
            data = read_exactly(stream, count * per_image)
            yield np.frombuffer(data, header.dtype).reshape(count, *shape[1:])


def _read_interleaved(
    stream: IO[bytes], dtype: np.dtype, shape: tuple[int, ...], start: int, stop: int
) -> np.ndarray:
    """Returns images `start` to `stop` of a stack in Fortran order."""
    num, pixels = shape[0], math.prod(shape[1:])
    kept = np.empty((pixels, min(stop, num) - start), dtype)
    step = max(1, BLOCK_BYTES // (num * dtype.itemsize))
    for first in range(0, pixels, step):
        count = min(step, pixels - first)
        data = read_exactly(stream, count * num * dtype.itemsize)
        kept[first : first + count] = np.frombuffer(data, dtype).reshape(count, num)[:, start:stop]
    return kept.T.reshape(-1, *shape[1:], order="F")


def _describe(item: object) -> str:
    """Says what an element is; never prints it, since a file may hold lists of lists of lists."""
    if isinstance(item, Other):
        return item.what
    if isinstance(item, np.ndarray):
        return f"an array of the shape {item.shape}"
    if item is None or isinstance(item, (int, float)):
        return f"the value {item}"
    return {"str": "text", "bytes": "bytes"}.get(type(item).__name__, f"a {type(item).__name__}")


def _is_number(item: object) -> bool:
    return isinstance(item, numbers.Real) and not isinstance(item, bool)


def _parameters_of(items: tuple) -> dict[str, float]:
    """Returns `log10_axion_mass` of what stands behind the image."""
    for place, item in enumerate(items[1:], 1):
        if not _is_number(item) and not isinstance(item, np.ndarray):
            raise UnusableError(
                f"is an object array whose element {place} is {_describe(item)}; behind the image "
                f"stand the axion mass in eV, then numbers and arrays"
            )
    if len(items) < 2:
        return {}
    mass = items[1].item() if isinstance(items[1], np.ndarray) and items[1].ndim == 0 else items[1]
    if not _is_number(mass) or not 0 < mass < math.inf:
        raise UnusableError(
            f"is an object array whose element 1 is {_describe(mass)}; the axion mass in eV, a "
            f"number above 0, stands there"
        )
    return {"log10_axion_mass": math.log10(mass)}


def object_image(data: bytes, shape: tuple[int, ...], layout: str) -> FileImage:
    """Reads an object array `[image, axion mass, ...]` or `[image]`.

    Args:
      data: its pickle.
      shape: of the object array, by its header.
      layout: of the image, one of `LAYOUTS`.

    Raises:
      UnusableError: if it holds something else, or asks to run something.
    """
    found = load_object_array(data)
    if found.shape != shape:
        raise UnusableError(
            f"is damaged: its header promises the shape {shape}, its data has {found.shape}"
        )
    if len(shape) > 1 or not found.items:
        raise UnusableError(f"is an object array of the shape {shape}; [image, axion mass] is read")
    image = found.items[0]
    if not isinstance(image, np.ndarray):
        raise UnusableError(
            f"is an object array whose element 0 is {_describe(image)}; an image stands there"
        )
    parameters = _parameters_of(found.items)
    layout = resolve_layout(image.shape, layout)
    if layout[0] == "N":
        if len(image) > 1:
            raise UnusableError(f"is an object array with {len(image)} images; one is read")
        image, layout = image[0], layout[1:]
    pixels = to_pixels(image, layout)
    return FileImage(pixels, parameters, None, "", None, None, None, image.dtype.kind in "iu")


def read_npy(path: pathlib.Path, layout: str, size: int) -> Iterator[FileImage]:
    """Reads the images of a .npy file; see `image_files.read_images`.

    Args:
      path: the file.
      layout: one of `LAYOUTS`.
      size: of the file, in bytes.
    """
    if size > BLOCK_BYTES:
        yield from _read_large(path, layout, size)
        return
    with open(path, "rb", buffering=0) as file:
        data = file.read()
    length = _header_size(data[:64])
    header = _whole_header(data[:length], length)
    if header.dtype.hasobject:
        yield _read_objects(data[length:], header, layout)
        return
    check_dtype(header.dtype)
    check_size(header, len(data))
    layout = resolve_layout(header.shape, layout)
    shape = stack_shape(header.shape, layout)
    flat = np.frombuffer(data, header.dtype, offset=length)
    stack = flat.reshape(shape, order="F" if header.fortran else "C")
    yield from _images([stack], header, layout, shape[0])


def _read_objects(data: bytes, header: Header, layout: str) -> FileImage:
    if header.dtype != np.dtype(object):
        check_dtype(header.dtype)
    return object_image(data, header.shape, layout)


def _read_large(path: pathlib.Path, layout: str, size: int) -> Iterator[FileImage]:
    with open(path, "rb") as file:
        header = read_header(file)
        if header.dtype.hasobject:
            if size > MAX_PICKLE_BYTES:
                raise UnusableError(f"is an object array of {size} bytes; one image is read")
            yield _read_objects(file.read(), header, layout)
            return
    check_dtype(header.dtype)
    check_size(header, size)
    layout = resolve_layout(header.shape, layout)
    shape = stack_shape(header.shape, layout)

    def open_data() -> IO[bytes]:
        stream = open(path, "rb")  # noqa: SIM115 (read_blocks closes it)
        stream.seek(header.size)
        return stream

    with contextlib.closing(read_blocks(header, shape, open_data)) as blocks:
        yield from _images(blocks, header, layout, shape[0])


def _images(
    blocks: Iterable[np.ndarray], header: Header, layout: str, num: int
) -> Iterator[FileImage]:
    integer = header.dtype.kind in "iu"
    for place, pixels in convert_blocks(blocks, layout, num):
        yield FileImage(pixels, {}, None, place, None, None, None, integer)
