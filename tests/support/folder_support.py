"""Folders of image files, for the tests of `deeplense/folder`."""

import gzip
import io
import os
import pathlib
from collections.abc import Callable
from typing import Any

import numpy as np

from lensjax.data.folder import folder_set
from lensjax.data.folder import scan as folder_scan
from lensjax.data.folder.listing import list_files
from lensjax.data.folder.reading import Reading
from lensjax.data.folder.scan import Scan
from lensjax.data.prepared import PreparedSet

SIDE = 12
CLASSES = ("axion", "cdm", "no_sub")
MASSES = {seed: 10.0 ** -(22 + seed / 10) for seed in range(6)}  # eV


def pixels(seed: int, shape: tuple[int, ...] = (SIDE, SIDE)) -> np.ndarray:
    """Positive float64 numbers that float32 holds exactly."""
    return np.random.default_rng(seed).gamma(2.0, 1.0, shape).astype(np.float32).astype(np.float64)


def counts(seed: int, shape: tuple[int, ...] = (SIDE, SIDE)) -> np.ndarray:
    """Whole numbers that every number type of 8 bits or more holds."""
    return np.random.default_rng(seed).integers(0, 120, shape)


def object_array(image: np.ndarray, *rest: object) -> np.ndarray:
    """The published form of an axion image, `[image, mass]`."""
    content = np.empty(1 + len(rest), object)
    content[:] = image, *rest
    return content


def write(path: pathlib.Path, array: np.ndarray) -> None:
    """Writes a .npy and the folders above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, array, allow_pickle=array.dtype == object)


def write_classes(
    root: pathlib.Path, names: tuple[str, ...] = CLASSES, num: int = 4, seed: int = 0
) -> pathlib.Path:
    """Writes `num` images into a folder for each class, and returns the root."""
    for label, name in enumerate(names):
        for index in range(num):
            write(root / name / f"{index:03d}.npy", pixels(seed + 1000 * label + index))
    return root


def write_flat(root: pathlib.Path, num: int = 6, seed: int = 0) -> pathlib.Path:
    """Writes `num` images without classes, and returns the root."""
    for index in range(num):
        write(root / f"{index:03d}.npy", pixels(seed + index))
    return root


def write_published(root: pathlib.Path, names: tuple[str, ...] = CLASSES) -> pathlib.Path:
    """Axion as object arrays, the others plain, as the public sets are."""
    for label, name in enumerate(names):
        for index in range(6):
            image = pixels(100 * label + index)
            content = object_array(image, MASSES[index]) if label == 0 else image
            write(root / name / f"{name}_{index}.npy", content)
    return root


class Bomb:
    """Leaves a file behind if anybody unpickles it."""

    def __init__(self, flag: pathlib.Path) -> None:
        self.flag = flag

    def __reduce__(self):
        return (os.system, (f"touch {self.flag}",))


def _write_npz(path: pathlib.Path, array: np.ndarray) -> None:
    np.savez(path, images=array)


def _write_compressed(path: pathlib.Path, array: np.ndarray) -> None:
    with path.open("wb") as file:  # numpy would add a suffix to the name alone
        np.savez_compressed(file, images=array)


def _write_hdf5(path: pathlib.Path, array: np.ndarray) -> None:
    import h5py

    with h5py.File(path, "w") as file:
        file["images"] = array


def _write_fits(path: pathlib.Path, array: np.ndarray) -> None:
    from astropy.io import fits

    content = io.BytesIO()
    fits.PrimaryHDU(array).writeto(content)
    data = content.getvalue()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)


WRITERS: dict[str, Callable[..., None]] = {
    ".npy": np.save,
    ".npz": _write_npz,
    ".NPZ": _write_compressed,
    ".h5": _write_hdf5,
    ".fits": _write_fits,
    ".fits.gz": _write_fits,
}


def prepare(root: pathlib.Path, sets: pathlib.Path, **reading: Any) -> PreparedSet:
    """Makes the folder a set in `sets`; fields of `Reading` are keywords."""
    return folder_set.prepare(os.fspath(root), Reading(**reading), os.fspath(sets))


def scan(root: pathlib.Path, **reading: Any) -> Scan:
    """Reads and checks a folder."""
    chosen = Reading(**reading)
    return folder_scan.scan(list_files(root, chosen), chosen, lambda: None)


def class_of_pixels(prepared: PreparedSet) -> dict[bytes, str]:
    """Returns the class name (empty for none) of each image of a set by its pixels."""
    found = {}
    for name in ("train", "test"):
        split = prepared.read(name)
        names = (*split.info.class_names, "")
        for image, label in zip(split.images, split.labels, strict=True):
            found[image.tobytes()] = names[label]
    return found


def finished(sets_folder: pathlib.Path) -> list[str]:
    """The fingerprints of the sets that look finished."""
    found = sets_folder.glob("deeplense_folder/*/1.0.0")
    return sorted(path.parent.name for path in found)
