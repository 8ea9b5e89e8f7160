"""Reads images from the top level of an HDF5 file; needs h5py, which is imported when it is used.

HDF5 can point into other files (links, external storage, virtual datasets). None of that is
followed. The HDF5 library itself trusts its input: a forged file can make its C code loop without
end or crash, which nothing here can catch. Files of unknown origin are better kept as .npy or .npz.
"""

import math
import pathlib
from collections.abc import Generator, Iterator, Mapping
from typing import Any

import numpy as np

from lensjax.errors import UnusableError
from lensjax.files.containers import MAX_NAME, Container, Facts, check_side_bytes, read_container
from lensjax.files.file_image import BLOCK_BYTES, FileImage, images_per_block
from lensjax.files.limits import Limits
from lensjax.files.packages import require_packages
from lensjax.files.planes import PlaneRules

_MOST_DATASETS = 10_000
_LETTER_BYTES = 4
_TEXTS_AT_ONCE = 16
_COPIES_OF_CHUNK = 3  # that HDF5 has in memory while it reads one


def _h5py() -> Any:
    require_packages("an HDF5 file", "files", "h5py")
    import h5py

    return h5py


def _text_fact(attributes: Mapping[str, Any], name: str) -> str | None:
    value = attributes.get(name)
    if isinstance(value, np.ndarray) and value.size == 1:
        value = value.reshape(-1)[0]
    if isinstance(value, bytes):
        value = value.decode()
    if value is not None and not isinstance(value, str):
        raise UnusableError(f"has an attribute {name} that is not text")
    if value and len(value) > MAX_NAME:
        raise UnusableError(f"has an attribute {name} of {len(value)} letters")
    return value.strip() or None if value else None


def _length_fact(attributes: Mapping[str, Any], name: str) -> float | None:
    value = attributes.get(name)
    if value is None:
        return None
    length = np.asarray(value)
    if length.size != 1 or length.dtype.kind not in "iuf" or not 0 < length.item() < math.inf:
        raise UnusableError(f"has an attribute {name} that is not a number above 0")
    return float(length.item())


class Hdf5Container(Container):
    """The datasets at the top level of an HDF5 file.

    Args:
      file: the open `h5py.File`.
      limits: of memory.

    Raises:
      UnusableError: if it has a link, or an attribute that is not a valid unit or length.
    """

    def __init__(self, file: Any, limits: Limits) -> None:
        h5py = _h5py()
        self._limits = limits
        if len(file) > _MOST_DATASETS:
            raise UnusableError(f"has {len(file)} entries; allowed: at most {_MOST_DATASETS}")
        self._datasets = {}
        for name in file:
            if not isinstance(file.get(name, getlink=True), h5py.HardLink):
                raise UnusableError(f"has a link {name!r}; links are not followed")
            if isinstance(file[name], h5py.Dataset):
                self._datasets[name] = file[name]
        self.facts = Facts(
            _text_fact(file.attrs, "flux_unit"),
            _length_fact(file.attrs, "pixel_scale_arcsec"),
            _length_fact(file.attrs, "psf_fwhm_arcsec"),
        )

    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        """The shape of each dataset by name."""
        return {
            name: dataset.shape
            for name, dataset in self._datasets.items()
            if dataset.shape is not None
        }

    def dtype(self, name: str) -> np.dtype:
        """The dtype of a dataset."""
        return self._datasets[name].dtype

    def check_stored(self, name: str) -> None:
        """Refuses data in other files, and data never written, which HDF5 would make up."""
        dataset = self._datasets[name]
        if dataset.external or dataset.is_virtual:
            raise UnusableError(f"keeps {name!r} in other files, which are not read")
        written = dataset.id.get_storage_size() > 0
        if dataset.chunks:
            promised = math.prod(
                -(-side // chunk) for side, chunk in zip(dataset.shape, dataset.chunks, strict=True)
            )
            written = dataset.id.get_num_chunks() == promised
            self._limits.check(
                _COPIES_OF_CHUNK * math.prod(dataset.chunks) * dataset.dtype.itemsize,
                f"keeps {name!r} in chunks, of which one takes",
            )
        if not written and dataset.size:
            raise UnusableError(f"is unfinished: {name!r} was not written completely")

    def read(self, name: str) -> np.ndarray:
        """A whole dataset of numbers or text."""
        dataset = self._datasets[name]
        if dataset.dtype.kind not in "iufSUO":
            raise UnusableError(
                f"has a dataset {name!r} of the dtype {dataset.dtype}; allowed: numbers and text"
            )
        check_side_bytes(name, dataset.shape, dataset.dtype)
        self.check_stored(name)
        if dataset.dtype.kind != "O" or len(dataset.shape) != 1:
            return np.asarray(dataset[()])
        # Texts of any length, of which many may point to one long text in the file.
        values: list[Any] = []
        for start in range(0, dataset.shape[0], _TEXTS_AT_ONCE):
            values += dataset[start : start + _TEXTS_AT_ONCE].tolist()
            longest = max(map(len, values[start:]))
            if longest > _LETTER_BYTES * MAX_NAME:
                raise UnusableError(
                    f"has an array {name!r} with a text of {longest} bytes; allowed: at most "
                    f"{MAX_NAME} letters"
                )
        return np.asarray(values, object)

    def blocks(self, name: str, shape: tuple[int, ...]) -> Generator[np.ndarray, None, None]:
        """Reads a numeric dataset as a stack of this shape, in blocks `[n, ...]`."""
        self.check_stored(name)
        dataset = self._datasets[name]
        if len(dataset.shape) < len(shape):
            yield dataset[()][None]
            return
        step = images_per_block(shape, dataset.dtype)
        chunk = dataset.chunks[0] if dataset.chunks else 1
        if chunk * math.prod(shape[1:]) * dataset.dtype.itemsize <= 8 * BLOCK_BYTES:
            step = max(step // chunk, 1) * chunk  # no chunk is decompressed twice
        for start in range(0, shape[0], step):
            yield dataset[start : start + step]


def read_hdf5(
    path: pathlib.Path,
    layout: str,
    rules: PlaneRules,
    limits: Limits,
) -> Iterator[FileImage]:
    """Reads the images of an HDF5 file; see `image_files.read_images`."""
    with _h5py().File(path, "r") as file:
        yield from read_container(Hdf5Container(file, limits), layout, rules, limits)
