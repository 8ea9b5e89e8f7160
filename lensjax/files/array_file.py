"""Reads one array of numbers from a `.npy` file, which may be damaged or hostile."""

import pathlib
import tokenize
from typing import Literal

import numpy as np

from lensjax.errors import DataError

# How a .npy file begins, and an .npz one, which numpy would open as well.
_NPY, _ZIP = b"\x93NUMPY", b"PK"
# numpy's errors for a damaged header; some are no ValueError.
_DAMAGE = (OSError, ValueError, EOFError, OverflowError, MemoryError, SyntaxError)
_DAMAGE_OF_TEXT = (tokenize.TokenError, RecursionError)


def _load(path: pathlib.Path, mmap_mode: Literal["r"] | None) -> np.ndarray | str:
    """The array, or the reason why it cannot be read."""
    try:
        with path.open("rb") as file:
            beginning = file.read(len(_NPY))
        if beginning.startswith(_ZIP):
            return "it is a zip, as an .npz with several arrays is"
        if beginning != _NPY:
            return "it is no .npy file"
        return np.load(path, mmap_mode=mmap_mode, allow_pickle=False)
    except (*_DAMAGE, *_DAMAGE_OF_TEXT) as error:
        if "allow_pickle" in str(error):  # numpy's advice would run code from the file
            return "it holds Python objects"
        return str(error).partition("\n")[0][:200] or type(error).__name__


def read_array(
    path: pathlib.Path, name: str, *, mmap_mode: Literal["r"] | None = None
) -> np.ndarray:
    """Reads a `.npy` file without running anything that it holds.

    Args:
      path: the file.
      name: the file's name in messages, such as `--images`.
      mmap_mode: `r` leaves the numbers on disk until they are used.

    Raises:
      DataError: for a file that is not there or holds anything else.
    """
    if not path.exists():
        raise DataError(f"{name} {path} does not exist")
    if not path.is_file():  # reading a pipe would wait for ever
        raise DataError(f"{name} {path} is not a file; allowed: a .npy file")
    array = _load(path, mmap_mode)
    if isinstance(array, str):
        raise DataError(
            f"{name} {path} cannot be read ({array}); allowed: one array of numbers, written by "
            "np.save"
        )
    return array
