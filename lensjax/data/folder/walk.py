"""Finds the image files below a folder; links are followed, but not without end."""

import collections
import os
import pathlib
from collections.abc import Iterator
from typing import NamedTuple

from lensjax.errors import BadFileError, DataError
from lensjax.files.image_files import is_image_file

_MOST_LINKS = 10_000  # to folders; links that lead to each other multiply
_DEEPEST = 100


def entries_of(folder: pathlib.Path) -> list[os.DirEntry[str]]:
    """The entries of a folder in order of their names, without hidden files and the like."""
    with os.scandir(folder) as entries:
        visible = [entry for entry in entries if not entry.name.startswith((".", "__MACOSX"))]
    return sorted(visible, key=lambda entry: entry.name)


class Found(NamedTuple):
    """A file before anything is known about it."""

    path: pathlib.Path
    status: os.stat_result


class Walk:
    """Finds the files below a folder; links are followed, but not in a circle.

    Args:
      root: the user's folder.
      pattern: which files are wanted; None for all.
    """

    def __init__(self, root: pathlib.Path, pattern: str | None = None) -> None:
        self.ignored: collections.Counter[str] = collections.Counter()
        self.bad: list[BadFileError] = []
        self.circles: set[pathlib.Path] = set()
        self._links = 0
        self.root = root
        self._pattern = pattern

    def refusal(self, text: str) -> DataError:
        """The error for a structure that is not allowed, with a bad file that may explain it."""
        if self._pattern is not None:
            text += f" (data.files={self._pattern})"
        return DataError(f"data.folder: {text}" + (f"; {self.bad[0]}" if self.bad else ""))

    def _is_wanted(self, path: pathlib.Path) -> bool:
        return self._pattern is None or path.relative_to(self.root).match(self._pattern)

    def files(
        self,
        folder: pathlib.Path,
        above: frozenset[tuple[int, int]] = frozenset(),
        *,
        recursive: bool = True,
    ) -> Iterator[Found]:
        """Yields the image files of a folder and, if `recursive`, of the folders in it."""
        try:
            status = folder.stat()
            if (status.st_dev, status.st_ino) in above:
                self.bad.append(BadFileError(folder, "is a link to a folder that contains it"))
                self.circles.add(folder)
                return
            entries = entries_of(folder)
        except OSError as error:
            self.bad.append(BadFileError(folder, f"cannot be read: {error.strerror}"))
            return
        above = above | {(status.st_dev, status.st_ino)}
        for entry in entries:
            path = pathlib.Path(entry.path)
            try:
                file_status = entry.stat()
                is_folder = entry.is_dir()
            except OSError as error:  # a link to nowhere, or in a circle
                self.bad.append(BadFileError(path, f"cannot be read: {error.strerror}"))
                continue
            if is_folder:
                if recursive:
                    self._links += entry.is_symlink()
                    if self._links > _MOST_LINKS or len(above) > _DEEPEST:
                        raise DataError(
                            f"data.folder: {path} is one of more than {_MOST_LINKS} links to "
                            f"folders, or {_DEEPEST} folders deep; move the images together"
                        )
                    yield from self.files(path, above)
            elif not is_image_file(entry.name):
                self.ignored[path.suffix.lower() or "no suffix"] += 1
            elif self._is_wanted(path):
                yield Found(path, file_status)
            else:
                self.ignored["image files that data.files leaves out"] += 1
