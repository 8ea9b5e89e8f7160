"""Images of a split as one HDF5 file, on disks that may become full."""

import io
import math
import os
import pathlib
from collections.abc import Callable
from typing import Any

import numpy as np

from lensjax.cli.export_formats import Description, image_blocks, scaled
from lensjax.data.dataset import LensSplit

_CHUNK_BYTES = 1 << 20


class _Disk(io.RawIOBase):
    """A file for h5py, which ends the process where a read or write fails.

    After an error of the disk it goes on in memory until the writer has looked at `check`: HDF5
    reads again what it has written.

    Args:
      file: opened for reading and writing, without a buffer.
    """

    def __init__(self, file: io.FileIO) -> None:
        self._file = file
        self._position = 0
        self._kept: list[tuple[int, bytes]] = []  # places and contents that are not on the disk
        self._error: OSError | None = None

    def check(self) -> None:
        """Raises the first error of the disk."""
        if self._error is not None:
            raise self._error

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Sets the place of the next read or write."""
        if whence == os.SEEK_END:
            ends = [start + len(content) for start, content in self._kept]
            offset += max(os.fstat(self._file.fileno()).st_size, *ends, 0)
        elif whence == os.SEEK_CUR:
            offset += self._position
        self._position = offset
        return offset

    def tell(self) -> int:
        """The place of the next read or write."""
        return self._position

    def readinto(self, buffer: Any) -> int:
        """Fills a buffer, with zeros behind the end of the file."""
        view, start = memoryview(buffer).cast("B"), self._position
        content = bytearray(os.pread(self._file.fileno(), len(view), start))
        content += bytes(len(view) - len(content))
        for place, kept in self._kept:
            first, last = max(place, start), min(place + len(kept), start + len(view))
            if first < last:
                content[first - start : last - start] = kept[first - place : last - place]
        view[:] = content
        self._position += len(view)
        return len(view)

    def write(self, content: Any) -> int:
        """Writes all of the content."""
        view, done = memoryview(content).cast("B"), 0
        try:
            while self._error is None and done < len(view):
                done += os.pwrite(self._file.fileno(), view[done:], self._position + done)
        except OSError as error:
            self._error = error
        if done < len(view):
            self._kept.append((self._position + done, bytes(view[done:])))
        self._position += len(view)
        return len(view)

    def truncate(self, size: int | None = None) -> int:
        """Makes the file as long as this."""
        size = self._position if size is None else size
        try:
            if self._error is None:
                self._file.truncate(size)
        except OSError as error:
            self._error = error
        return size


def write_hdf5(
    split: LensSplit,
    path: pathlib.Path,
    description: Description,
    advance: Callable[[int], Any],
) -> None:
    """Writes one HDF5 file of a split.

    Datasets: `images` float32 `[N, H, W, C]`, `labels` int32 `[N]`, `class_names`, `parameters`
    float32 `[N, P]`, `parameter_names`, and, where they are known, `band_names`, `variance`
    (float32) and `mask` (uint8, 1 for pixels that are not to be used), like the images. Facts about
    all images are attributes.

    Args:
      split: the images.
      path: the file.
      description: the facts that hold for all images.
      advance: called with the number of images that were written.

    Raises:
      OSError: for a disk that cannot take the file.
    """
    import h5py

    with path.open("w+b", buffering=0) as raw:
        disk = _Disk(raw)
        with h5py.File(disk, "w") as file:
            _write_images(split, file, description, advance, disk)
            _write_facts(split, file, description)
        disk.check()


def _write_images(
    split: LensSplit,
    file: Any,
    description: Description,
    advance: Callable[[int], Any],
    disk: _Disk,
) -> None:
    """Writes images, and variances and masks where there are any, block by block."""
    shape = split.info.image_shape
    per_chunk = max(1, min(len(split), _CHUNK_BYTES // (4 * math.prod(shape))))

    def create(name: str, dtype: type) -> Any:
        return file.create_dataset(
            name, shape=(len(split), *shape), dtype=dtype, chunks=(per_chunk, *shape)
        )

    images = create("images", np.float32)
    variance = None if split.variance is None else create("variance", np.float32)
    mask = None if split.mask is None else create("mask", np.uint8)
    for start, block in image_blocks(split, description.factor):
        rows = slice(start, start + len(block))
        images[rows] = block
        if variance is not None and split.variance is not None:
            variance[rows] = scaled(split.variance[rows], description.factor**2)
        if mask is not None and split.mask is not None:
            mask[rows] = split.mask[rows]
        disk.check()
        advance(len(block))


def _write_facts(split: LensSplit, file: Any, description: Description) -> None:
    """Writes labels, parameters and names, and what holds for all images."""
    import h5py

    text, info = h5py.string_dtype("utf-8"), split.info
    file.create_dataset("labels", data=np.asarray(split.labels, np.int32))
    file.create_dataset("class_names", data=list(info.class_names), dtype=text)
    if info.band_names:
        file.create_dataset("band_names", data=list(info.band_names), dtype=text)
    file.create_dataset("parameters", data=np.asarray(split.parameters, np.float32))
    file.create_dataset("parameter_names", data=list(info.parameter_names), dtype=text)
    file.attrs.update(description.facts())
