"""Reads numpy's .npy format: plain arrays in blocks, the published object arrays, never a pickle.

The same functions read the members of an .npz.
"""

import functools
import io
import math
import numbers
import pathlib
import warnings
from collections.abc import Iterator
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
from lensjax.files.limits import Limits
from lensjax.files.pickle_machine import Placeholder
from lensjax.files.pickles import MAX_PICKLE_BYTES, load_object_array
from lensjax.files.plane_reading import bad_pixels
from lensjax.files.planes import PlaneRules

_PREFIX = 12  # the longer of the two prefixes: magic, version, length of the header
_MAX_HEADER = 10_000  # numpy's own limit


class Header(NamedTuple):
    """The header of a .npy file.

    Attributes:
      shape: shape of the array.
      fortran: whether the first axis runs fastest.
      dtype: dtype of an element, in the file's byte order.
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
    except Exception as error:  # the text may be anything, and Python parses it
        raise UnusableError("is damaged: its header is not numpy's") from error
    check_shape(shape)
    return Header(shape, fortran, dtype, len(header))


def read_header(stream: IO[bytes]) -> Header:
    """Reads the header of a .npy that begins at the position of a stream.

    Args:
      stream: stands after the header on return.

    Raises:
      UnusableError: for data that is no .npy, or that numpy would not read either.
    """
    beginning = stream.read(64)
    check_beginning(beginning, ".npy")
    if len(beginning) < _PREFIX:
        raise UnusableError(f"is truncated: it has {len(beginning)} bytes")
    major, minor = beginning[6], beginning[7]
    if (major, minor) not in ((1, 0), (2, 0)):
        raise UnusableError(
            f"has .npy version {major}.{minor}; allowed: versions 1.0 and 2.0, which np.save writes"
        )
    end = 10 if major == 1 else 12
    size = end + int.from_bytes(beginning[8:end], "little")
    if not _PREFIX < size <= _MAX_HEADER:
        raise UnusableError(f"is damaged: its header has {size} bytes")
    if size < len(beginning):
        stream.seek(size)
    text = beginning[:size] + stream.read(max(0, size - len(beginning)))
    if len(text) < size:
        raise UnusableError(f"is truncated: it has {len(text)} bytes, its header alone {size}")
    return _parse_header(text)


def check_size(header: Header, size: int) -> None:
    """Raises `UnusableError` unless a numeric array fills the rest of a file of this size."""
    promised = header.size + header.num_bytes
    if size < promised:
        raise UnusableError(f"is truncated: it has {size} bytes, its header promises {promised}")
    if size > promised:
        raise UnusableError(
            f"has {size - promised} bytes after its array; a .npy file holds one array"
        )


def read_exactly(stream: IO[bytes], count: int) -> bytes:
    """Reads exactly `count` bytes; raises `UnusableError` if there are fewer."""
    data = stream.read(count)
    while len(data) < count:  # a read gives 2 GiB at most
        piece = stream.read(count - len(data))
        if not piece:  # the file was cut while it was read
            raise UnusableError(f"is truncated: {count - len(data)} bytes of its array are missing")
        data += piece
    return data


def read_blocks(stream: IO[bytes], header: Header, shape: tuple[int, ...]) -> Iterator[np.ndarray]:
    """Reads a numeric stack of any size in bounded memory.

    The file is read and not mapped: truncating a mapped file kills the process that maps it, and
    the members of an .npz are compressed. A stack in Fortran order has its images interleaved, so
    all data is read once for each block.

    Args:
      stream: stands after the header.
      header: the array's header.
      shape: its shape as a stack, `[N, ...]`.

    Yields:
      Arrays `[n, ...]`, together the stack.
    """
    step = images_per_block(shape, header.dtype)
    pixels, itemsize = math.prod(shape[1:]), header.dtype.itemsize
    if not header.fortran:
        for start in range(0, shape[0], step):
            count = min(step, shape[0] - start)
            data = read_exactly(stream, count * pixels * itemsize)
            yield np.frombuffer(data, header.dtype).reshape(count, *shape[1:])
        return
    step *= 8  # fewer passes
    rows = max(1, BLOCK_BYTES // (shape[0] * itemsize))
    for start in range(0, shape[0], step):
        if start:
            stream.seek(header.size)
        block = np.empty((pixels, min(step, shape[0] - start)), header.dtype)
        for first in range(0, pixels, rows):
            piece = block[first : first + rows]
            data = read_exactly(stream, len(piece) * shape[0] * itemsize)
            interleaved = np.frombuffer(data, header.dtype).reshape(len(piece), shape[0])
            piece[:] = interleaved[:, start : start + step]
        yield block.T.reshape(-1, *shape[1:], order="F")


def _describe(item: object) -> str:
    """Says what an element is; never prints it, since a file may hold lists of lists of lists."""
    if isinstance(item, Placeholder):
        return item.description
    if isinstance(item, np.ndarray):
        return f"an array of the shape {item.shape}"
    if item is None or isinstance(item, (int, float)):
        return f"the value {item}"
    return {"str": "text", "bytes": "bytes"}.get(type(item).__name__, f"a {type(item).__name__}")


def _is_number(item: object) -> bool:
    return isinstance(item, numbers.Real) and not isinstance(item, bool)


def _parameters_of(items: tuple) -> dict[str, float]:
    """`log10_axion_mass` from the elements after the image."""
    for place, item in enumerate(items[1:], 1):
        if not _is_number(item) and not isinstance(item, np.ndarray):
            raise UnusableError(
                f"is an object array whose element {place} is {_describe(item)}; after the image "
                f"come the axion mass in eV, then numbers and arrays"
            )
    if len(items) < 2:
        return {}
    mass = items[1].item() if isinstance(items[1], np.ndarray) and items[1].ndim == 0 else items[1]
    if not _is_number(mass) or not 0 < mass < math.inf:
        raise UnusableError(
            f"is an object array whose element 1 is {_describe(mass)}; it must be the axion mass "
            f"in eV, a number above 0"
        )
    return {"log10_axion_mass": math.log10(mass)}


def read_objects(stream: IO[bytes], header: Header, layout: str, num_bytes: int) -> FileImage:
    """Reads an object array `[image, axion mass, ...]` or `[image]`.

    Args:
      stream: stands after the header.
      header: the object array's header.
      layout: layout of the image, one of `LAYOUTS`.
      num_bytes: size of the .npy.

    Raises:
      UnusableError: if it holds anything else, or asks to run a function.
    """
    shape = header.shape
    if header.dtype != np.dtype(object):
        check_dtype(header.dtype)
    if num_bytes > MAX_PICKLE_BYTES:
        raise UnusableError(f"is an object array of {num_bytes} bytes; allowed: one image")
    array = load_object_array(read_exactly(stream, num_bytes - header.size))
    if array.shape != shape:
        raise UnusableError(
            f"is damaged: its header promises the shape {shape}, its data has {array.shape}"
        )
    if len(shape) > 1 or not array.items:
        raise UnusableError(
            f"is an object array of the shape {shape}; allowed: [image, axion mass]"
        )
    image = array.items[0]
    if not isinstance(image, np.ndarray):
        raise UnusableError(
            f"is an object array whose element 0 is {_describe(image)}; it must be an image"
        )
    parameters = _parameters_of(array.items)
    layout = resolve_layout(image.shape, layout)
    if layout[0] == "N":
        if len(image) > 1:
            raise UnusableError(f"is an object array with {len(image)} images; allowed: one")
        image, layout = image[0], layout[1:]
    pixels = to_pixels(image, layout)
    return FileImage(pixels, parameters, None, "", None, None, None, image.dtype.kind in "iu")


def check_one_plane(rules: PlaneRules) -> None:
    """Checks that nobody wants planes of a file that has one.

    Raises:
      UnusableError: for rules that name any.
    """
    for field in ("planes", "variance_planes", "mask_planes"):
        names = getattr(rules, field)
        if names:
            raise UnusableError(
                f"has one plane, but data.{field} is {names}; planes are FITS extensions and "
                "arrays of .npz and HDF5 files, or, with data.group or folders of objects, files "
                "of an object"
            )


def read_npy(
    path: pathlib.Path, layout: str, size: int, limits: Limits, rules: PlaneRules
) -> Iterator[FileImage]:
    """Reads the images of a .npy file; see `image_files.read_images`.

    Args:
      path: the file.
      layout: one of `LAYOUTS`.
      size: size of the file in bytes.
      limits: of memory.
      rules: a .npy file is one plane, of which only `flags` can say more.
    """
    check_one_plane(rules)
    with open(path, "rb", buffering=0) as stream:
        header = read_header(stream)
        if header.dtype.hasobject:
            yield read_objects(stream, header, layout, size)
            return
        if rules.flags is None or header.dtype.kind != "b":
            check_dtype(header.dtype)
        check_size(header, size)
        layout = resolve_layout(header.shape, layout)
        shape = stack_shape(header.shape, layout)
        limits.check_image(shape[1:], header.dtype)
        integer = header.dtype.kind in "iu"
        stored = read_blocks(stream, header, shape)
        if rules.flags is not None:
            stored = (bad_pixels(block, rules.flags) for block in stored)
        blocks = convert_blocks(stored, layout, shape[0])
        for row, (place, pixels) in enumerate(blocks):
            yield FileImage(pixels, {}, None, place, None, None, None, integer, row)
