"""Reads one array of numbers from a `.npy` file, which may be damaged or hostile."""

import pathlib
from typing import Literal

import numpy as np

from lensjax.errors import DataError, UnusableError, printable
from lensjax.files.npy import check_size, read_header


def _load(path: pathlib.Path, mmap_mode: Literal["r"] | None) -> np.ndarray:
    with path.open("rb", buffering=0) as stream:
        if stream.read(2) == b"PK":
            raise UnusableError("is a zip, as an .npz with several arrays is")
        stream.seek(0)
        header = read_header(stream)
        if header.dtype.hasobject:
            raise UnusableError("holds Python objects")
        check_size(header, path.stat().st_size)
    return np.load(path, mmap_mode=mmap_mode, allow_pickle=False)


def read_array(
    path: pathlib.Path, name: str, *, mmap_mode: Literal["r"] | None = None
) -> np.ndarray:
    """Reads a `.npy` file without running anything that it holds.

    Args:
      path: the file.
      name: the file's name in messages, such as `--images`.
      mmap_mode: `r` leaves the numbers on disk until they are used.

    Raises:
      DataError: for a file that is not there or holds anything else, also more than one array.
    """
    if not path.exists():
        raise DataError(f"{name} {path} does not exist")
    if not path.is_file():  # reading a pipe would wait for ever
        raise DataError(f"{name} {path} is not a file; allowed: a .npy file")
    try:
        return _load(path, mmap_mode)
    except UnusableError as error:
        reason = f"it {printable(str(error), keep='')[:200]}"
    except (OSError, MemoryError) as error:
        reason = getattr(error, "strerror", None) or "it is too large for the memory"
    raise DataError(
        f"{name} {path} cannot be read: {reason}; allowed: one array of numbers, written by np.save"
    )
