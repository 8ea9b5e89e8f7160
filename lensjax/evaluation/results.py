"""The folder of an evaluation's results, which is replaced as a whole."""

import contextlib
import pathlib
from collections.abc import Iterator

from lensjax.devices.hosts import is_main
from lensjax.files import disk
from lensjax.files.atomic import recover_folder, replacing_folder
from lensjax.run import workdir as files

_FILES = ("metrics.json", "report.html")
_PICTURES = ("grid.png", "roc.png", "confusion.png", "calibration.png")
_BYTES = 2**22  # of a report with its pictures, at least


def _written(folder: pathlib.Path) -> list[pathlib.Path]:
    """The files that an evaluation replaces; drawn images, event files and others stay."""
    return [folder / name for name in (*_FILES, *_PICTURES)]


def results_folder(output: pathlib.Path) -> pathlib.Path:
    """The folder of results in a workdir or another folder, checked before anything is measured.

    Raises:
      FileError: if the disk has no room for results, or they may not be written there.
    """
    target = output / files.EVALUATION
    if is_main():
        recover_folder(target, _written)
        disk.check_room(target, _BYTES, "set --output to a folder on another disk")
    return target


@contextlib.contextmanager
def new_results(target: pathlib.Path) -> Iterator[pathlib.Path]:
    """Yields a folder for new results, which replace those in `target` once all are written."""
    with replacing_folder(target, _written) as new:
        yield new
