"""Reads numpy's .npz: a zip of .npy files, stored or deflated."""

import contextlib
import pathlib
import zipfile
from collections.abc import Generator, Iterator, Mapping
from typing import IO

import numpy as np

from lensjax.errors import UnusableError
from lensjax.files.containers import (
    IMAGE_NAMES,
    Container,
    Facts,
    check_side_bytes,
    read_container,
)
from lensjax.files.file_image import FileImage
from lensjax.files.limits import Limits
from lensjax.files.npy import (
    Header,
    check_one_plane,
    check_size,
    read_blocks,
    read_exactly,
    read_header,
    read_objects,
)
from lensjax.files.planes import PlaneRules

_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)  # those of np.savez and np.savez_compressed


class NpzContainer(Container):
    """The arrays of an .npz.

    Args:
      archive: the open zip.

    Raises:
      UnusableError: if a member is encrypted, compressed in another way, or no .npy.
    """

    def __init__(self, archive: zipfile.ZipFile) -> None:
        self.facts = Facts()
        self._archive = archive
        self._members = {
            info.filename[: -len(".npy")]: info
            for info in archive.infolist()
            if info.filename.endswith(".npy")
        }
        self.headers = {name: self._header(name) for name in self._members}

    def _header(self, name: str) -> Header:
        info = self._members[name]
        if info.flag_bits & 1:
            raise UnusableError(f"is encrypted (its member {name!r})")
        if info.compress_type not in _METHODS:
            raise UnusableError(
                f"compresses its member {name!r} by zip method {info.compress_type}; write it with "
                f"np.savez or np.savez_compressed"
            )
        with self._archive.open(info) as stream:
            header = read_header(stream)
        if not header.dtype.hasobject:
            check_size(header, info.file_size)
        return header

    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        """The shape of each array by name."""
        return {name: header.shape for name, header in self.headers.items()}

    def dtype(self, name: str) -> np.dtype:
        """The dtype of an array."""
        return self.headers[name].dtype

    @contextlib.contextmanager
    def _data(self, name: str) -> Iterator[IO[bytes]]:
        with self._archive.open(self._members[name]) as stream:
            read_exactly(stream, self.headers[name].size)
            yield stream

    def check_stored(self, name: str) -> None:
        """Does nothing: sizes were compared when the headers were read."""

    def read(self, name: str) -> np.ndarray:
        """A whole array of numbers or text."""
        header = self.headers[name]
        if header.dtype.kind not in "iufSU" or header.dtype.itemsize == 0:
            raise UnusableError(
                f"has an array {name!r} of the dtype {header.dtype}; allowed: numbers and text"
            )
        check_side_bytes(name, header.shape, header.dtype)
        with self._data(name) as stream:
            data = read_exactly(stream, header.num_bytes)
        array = np.frombuffer(data, header.dtype) if data else np.empty(0, header.dtype)
        return array.reshape(header.shape, order="F" if header.fortran else "C")

    def read_objects(self, name: str, layout: str) -> FileImage:
        """Reads an object array `[image, axion mass, ...]` or `[image]`."""
        with self._data(name) as stream:
            num_bytes = self._members[name].file_size
            return read_objects(stream, self.headers[name], layout, num_bytes)

    def blocks(self, name: str, shape: tuple[int, ...]) -> Generator[np.ndarray, None, None]:
        """Reads a numeric array as a stack of this shape, in blocks `[n, ...]`."""
        with self._data(name) as stream:
            yield from read_blocks(stream, self.headers[name], shape)


def read_npz(
    path: pathlib.Path,
    layout: str,
    rules: PlaneRules,
    limits: Limits,
) -> Iterator[FileImage]:
    """Reads the images of an .npz file; see `image_files.read_images`."""
    with zipfile.ZipFile(path) as archive:
        container = NpzContainer(archive)
        if not container.headers:
            raise UnusableError("holds no array: no member of the zip ends in .npy")
        name = _object_array(container, rules)
        if name is not None:
            check_one_plane(rules._replace(planes=()))
            yield container.read_objects(name, layout)
            return
        yield from read_container(container, layout, rules, limits)


def _object_array(container: NpzContainer, rules: PlaneRules) -> str | None:
    """The array of Python objects that is the image, as the published files have it; else None."""
    objects = [name for name, header in container.headers.items() if header.dtype.hasobject]
    if len(container.headers) == 1 and objects:
        return objects[0]
    wanted = rules.planes or IMAGE_NAMES
    return next((name for name in objects if name in wanted), None)
