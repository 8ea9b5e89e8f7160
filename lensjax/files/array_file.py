"""One array of numbers in a `.npy` file, whatever the file may be."""

import pathlib
import tokenize
import zipfile
from typing import Literal

import numpy as np

from lensjax.errors import DataError

# What numpy raises on a file that is not what its name says; some are no ValueError.
_DAMAGE: tuple[type[Exception], ...] = (
    *(OSError, ValueError, EOFError, OverflowError, MemoryError, SyntaxError),
    *(tokenize.TokenError, zipfile.BadZipFile),
)


def read_array(
    path: pathlib.Path, what: str, *, mmap_mode: Literal["r"] | None = None
) -> np.ndarray:
    """Reads a `.npy` file without running anything that it holds.

    Args:
      path: the file.
      what: it is, for messages, such as `--images`.
      mmap_mode: `r` leaves the numbers on disk until they are used.

    Raises:
      DataError: for a file that is not there or holds anything else.
    """
    if not path.exists():
        raise DataError(f"{what} {path} is not there")
    if not path.is_file():  # reading a pipe would wait for ever
        raise DataError(f"{what} {path} is no file; allowed: a .npy file")
    try:
        array = np.load(path, mmap_mode=mmap_mode, allow_pickle=False)
    except _DAMAGE as error:
        reason = str(error).partition(". If you trust")[0].partition("\n")[0][:200]
        if "allow_pickle" in reason:  # numpy's advice would run what the file holds
            reason = "it holds Python objects, or is no .npy file"
        array, fault = None, reason or type(error).__name__
    else:
        fault = "it holds several arrays"
    if not isinstance(array, np.ndarray):
        raise DataError(
            f"{what} {path} cannot be read ({fault}); allowed: one array of numbers as np.save "
            "writes it"
        )
    return array
