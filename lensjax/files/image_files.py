"""Reads image files of users: .npy, .npz, HDF5 and FITS, also hostile and damaged ones."""

import os
import pathlib
import stat
from collections.abc import Iterator

from lensjax.errors import (
    AmbiguousError,
    AmbiguousFileError,
    BadFileError,
    DataError,
    UnusableError,
    printable,
)
from lensjax.files.file_image import LAYOUTS, FileImage, check_beginning
from lensjax.files.fits import read_fits
from lensjax.files.hdf5 import read_hdf5
from lensjax.files.limits import Limits
from lensjax.files.npy import read_npy
from lensjax.files.npz import read_npz
from lensjax.files.planes import PlaneRules

__all__ = [
    "LAYOUTS",
    "SUFFIXES",
    "BadFileError",
    "FileImage",
    "Limits",
    "PlaneRules",
    "is_fits",
    "is_image_file",
    "read_images",
    "stem_of",
]

SUFFIXES = (".npy", ".npz", ".h5", ".hdf5", ".fits", ".fit", ".fts", ".fits.gz", ".fits.fz")
_MAX_REASON = 600
_THE_ONLY_IMAGE = PlaneRules()
_USUAL_LIMITS = Limits()


def _suffix_of(path: str | os.PathLike[str]) -> str:
    name = os.path.basename(path).lower()
    return max((suffix for suffix in SUFFIXES if name.endswith(suffix)), key=len, default="")


def is_fits(path: str | os.PathLike[str]) -> bool:
    """Whether a name is that of a FITS file."""
    return _suffix_of(path).startswith(".f")


def stem_of(path: str | os.PathLike[str]) -> str:
    """The name of a file without its suffix, of which `.fits.gz` is one."""
    name = os.path.basename(path)
    return name[: len(name) - len(_suffix_of(path))]


def is_image_file(path: str | os.PathLike[str]) -> bool:
    """Whether a name ends in one of `SUFFIXES`, in small or capital letters."""
    return bool(_suffix_of(path))


def _read(
    path: pathlib.Path, layout: str, rules: PlaneRules, limits: Limits
) -> Iterator[FileImage]:
    suffix = _suffix_of(path)
    if not suffix:
        raise UnusableError(f"has none of the suffixes {', '.join(SUFFIXES)}")
    status = os.stat(path)
    if not stat.S_ISREG(status.st_mode):  # a pipe would make us wait forever
        directory = stat.S_ISDIR(status.st_mode)
        raise UnusableError(f"is a {'directory' if directory else 'device'}, not a file")
    if status.st_size == 0:
        raise UnusableError("is empty: it has 0 bytes")
    if suffix == ".npy":  # sets have many thousands of these, so each is opened once
        yield from read_npy(path, layout, status.st_size, limits, rules)
        return
    with open(path, "rb") as file:
        head = file.read(64)
    check_beginning(head, suffix)
    if suffix == ".npz":
        yield from read_npz(path, layout, rules, limits)
    elif suffix in (".h5", ".hdf5"):
        yield from read_hdf5(path, layout, rules, limits)
    else:
        size = status.st_size if head.startswith(b"SIMPLE") else None
        yield from read_fits(path, layout, size, rules, limits)


def _reason(text: str) -> str:
    """Text from a file in one line, two at most."""
    short = printable(" ".join(text.split())[:_MAX_REASON])
    return short + (" ..." if len(text) > _MAX_REASON else "")


def _read_or_refuse(
    path: pathlib.Path, layout: str, rules: PlaneRules, limits: Limits
) -> Iterator[FileImage]:
    try:
        yield from limits.timed(_read(path, layout, rules, limits))
    except DataError:
        raise
    except AmbiguousError as error:
        reason = _reason(str(error))
        raise AmbiguousFileError(path, reason, error.planes, error.names) from error
    except UnusableError as error:
        raise BadFileError(path, _reason(str(error))) from error
    except OSError as error:
        raise BadFileError(path, _reason(error.strerror or str(error))) from error
    except Exception as error:  # zlib, HDF5 and astropy raise anything on a damaged file
        reason = f"cannot be read: {type(error).__name__}: {error}"
        raise BadFileError(path, _reason(reason)) from error


def read_images(
    path: pathlib.Path,
    layout: str = "auto",
    rules: PlaneRules = _THE_ONLY_IMAGE,
    limits: Limits = _USUAL_LIMITS,
) -> Iterator[FileImage]:
    """Reads the images of one file, one after the other, in bounded memory.

    No pickle is loaded and no code from the file runs. The published object arrays
    `[image, axion mass in eV, ...]` give the parameter `log10_axion_mass`. In .npz and HDF5 files
    the images are the array `images`, `image` or `arr_0` (if no `arr_1` is there), else the only
    one of two or more axes whose name or content is not that of a mask, a weight or the like;
    `labels` or `label` (text, or integers with `class_names` beside them) and `parameters`
    `[N, P]` with `parameter_names` are read too. Rows run upwards in y in all formats; nothing is
    flipped.

    Args:
      path: a file with one of `SUFFIXES`.
      layout: which axis is which, one of `LAYOUTS`; see `file_image.resolve_layout` for `auto`.
      rules: which planes of a file are images, variances and masks; a .npy file has one plane.
      limits: of the memory and time that a file may take.

    Returns:
      The images. A stack is read while it is iterated, so that damage further back in a file is
      reported after the first images.

    Raises:
      DataError: for an unknown layout; while reading, if h5py or astropy is needed and missing.
      AmbiguousFileError: while reading, for several planes that could be images, without `rules`.
      BadFileError: while reading, for any other file that cannot be used.
    """
    if layout not in LAYOUTS:
        raise DataError(f"data.layout is {layout!r}; choose one of {', '.join(LAYOUTS)}")
    return _read_or_refuse(pathlib.Path(path), layout, rules, limits)
