"""Images of a split as one HDF5 file, on disks that may become full."""

import math
import pathlib
from collections.abc import Callable
from typing import Any, BinaryIO

import numpy as np

from lensjax.cli.export_formats import Description, image_blocks, scaled
from lensjax.data.dataset import LensSplit

_CHUNK_BYTES = 1 << 20


class _Disk:
    """A file for h5py, which ends the process where a write fails; the error is kept here instead.

    Args:
      file: opened for reading and writing.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.error: OSError | None = None
        self.seek, self.tell = file.seek, file.tell
        self.read, self.readinto = file.read, file.readinto  # type: ignore[attr-defined]

    def _unless_failed(self, *calls: Callable[[], Any]) -> None:
        """Makes calls that write; after an error nothing is written any more."""
        try:
            for call in calls if self.error is None else ():
                call()
        except OSError as error:
            self.error = error

    def write(self, content: memoryview) -> int:
        """Writes all of the content."""
        self._unless_failed(lambda: self._file.write(content), self._file.flush)
        return len(content)

    def truncate(self, size: int) -> int:
        """Makes the file as long as this."""
        self._unless_failed(lambda: self._file.truncate(size))
        return size

    def flush(self) -> None:
        """Does nothing: every write is flushed."""

    def check(self) -> None:
        """Raises the first error of the disk."""
        if self.error is not None:
            raise self.error


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

    with path.open("w+b") as raw:
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
