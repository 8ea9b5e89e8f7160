"""A user's folder of image files: the path, split and class of each file."""

import collections
import dataclasses
import os
import pathlib
import stat
from collections.abc import Iterator, Mapping, Sequence

from lensjax.data.dataset import SPLITS
from lensjax.errors import BadFileError, DataError
from lensjax.files.image_files import SUFFIXES, is_image_file

# Older sets have other names for the three classes of DeepLense.
CLASS_ALIASES = {"vort": "axion", "sphere": "cdm", "no": "no_sub"}
_SPLIT_NAMES = {"train": "train", "test": "test", "val": "test", "validation": "test"}


@dataclasses.dataclass(frozen=True)
class FolderFile:
    """One file of a folder.

    Attributes:
      path: the file.
      split: `train` or `test`; None if there are no folders for splits.
      class_name: the class by the folder that it lies in; None in a flat folder.
      size: bytes.
      modified_ns: time of the last change of its content.
      changed_ns: time of the last change of its content or permissions, which no program can set.
    """

    path: pathlib.Path
    split: str | None
    class_name: str | None
    size: int
    modified_ns: int
    changed_ns: int


@dataclasses.dataclass(frozen=True)
class Listing:
    """The files of a folder.

    Attributes:
      root: the folder.
      files: its image files in the order of their names.
      ignored: number of other files by suffix.
      bad: links and folders that cannot be followed or read.
    """

    root: pathlib.Path
    files: tuple[FolderFile, ...]
    ignored: Mapping[str, int]
    bad: tuple[BadFileError, ...]


def class_name_of(folder_name: str) -> str:
    """The class that a folder's name stands for, `vort` for example for `axion`."""
    class_names = {**CLASS_ALIASES, **{name: name for name in CLASS_ALIASES.values()}}
    return class_names.get(folder_name.lower(), folder_name)


def is_class_name(name: str) -> bool:
    """Whether TFDS can keep a class of this name, a line of a text file."""
    return name.isprintable() and name == name.strip() and bool(name)


def _entries(folder: pathlib.Path) -> list[os.DirEntry[str]]:
    """The entries of a folder in order of their names, without hidden files and the like."""
    with os.scandir(folder) as entries:
        visible = [entry for entry in entries if not entry.name.startswith((".", "__MACOSX"))]
    return sorted(visible, key=lambda entry: entry.name)


class _Walk:
    """Finds the files below a folder; links are followed, but not in a circle."""

    def __init__(self) -> None:
        self.ignored: collections.Counter[str] = collections.Counter()
        self.bad: list[BadFileError] = []
        self.circles: set[pathlib.Path] = set()

    def refusal(self, text: str) -> DataError:
        """The error for a structure that is not allowed, with a bad file that may explain it."""
        return DataError(f"data.folder: {text}" + (f"; {self.bad[0]}" if self.bad else ""))

    def files(
        self,
        folder: pathlib.Path,
        above: frozenset[tuple[int, int]] = frozenset(),
        *,
        recursive: bool = True,
    ) -> Iterator[tuple[pathlib.Path, os.stat_result]]:
        """Yields the image files of a folder and, if `recursive`, of the folders in it."""
        try:
            status = folder.stat()
            if (status.st_dev, status.st_ino) in above:
                self.bad.append(BadFileError(folder, "is a link to a folder that contains it"))
                self.circles.add(folder)
                return
            entries = _entries(folder)
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
                    yield from self.files(path, above)
            elif is_image_file(entry.name):
                yield path, file_status
            else:
                self.ignored[path.suffix.lower() or "no suffix"] += 1


def _subfolders(folder: pathlib.Path) -> list[pathlib.Path]:
    try:
        return [pathlib.Path(entry.path) for entry in _entries(folder) if _is_folder(entry)]
    except OSError as error:
        raise DataError(f"data.folder: {folder} cannot be read: {error.strerror}") from None


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        return False


def _split_folders(walk: _Walk, root: pathlib.Path) -> list[tuple[str | None, pathlib.Path]]:
    """The folders of the splits; the root alone where it has none."""
    named = [(folder, folder.name.lower()) for folder in _subfolders(root)]
    splits = [(folder, _SPLIT_NAMES[name]) for folder, name in named if name in _SPLIT_NAMES]
    if not splits:
        return [(None, root)]
    misplaced = [folder.name for folder, name in named if name not in _SPLIT_NAMES]
    misplaced += [path.name for path, _ in walk.files(root, recursive=False)]
    if misplaced:
        raise DataError(
            f"data.folder: {root} has folders of splits ({splits[0][0].name}) and beside them "
            f"{_some(misplaced)}; move that into one of them or elsewhere"
        )
    for split in SPLITS:
        folders = [folder.name for folder, name in splits if name == split]
        if len(folders) != 1:
            raise DataError(
                f"data.folder: {root} has {', '.join(folders) or 'no folder'} for the {split} "
                f"split; allowed: one folder for train and one for test (or val)"
            )
    return sorted((split, folder) for folder, split in splits)


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def _check_one_folder_a_class(folder: pathlib.Path, inside: list[pathlib.Path]) -> None:
    names: dict[str, str] = {}
    for class_folder in inside:
        name = class_name_of(class_folder.name)
        if name in names:
            raise DataError(
                f"data.folder: {folder} has {names[name]} and {class_folder.name} for the same "
                f"class {name}; put their files into one folder"
            )
        names[name] = class_folder.name


def _check_class(folder: pathlib.Path, files: list[tuple[pathlib.Path, os.stat_result]]) -> None:
    """Checks the name of a class folder, and that no splits or other classes are hidden in it."""
    own = class_name_of(folder.name)
    if not is_class_name(own):
        raise DataError(
            f"data.folder: {str(folder)!r} is not a valid class name; allowed: printable text "
            "without blanks around it"
        )
    for parent in {path.parent for path, _ in files} - {folder}:
        for name in parent.relative_to(folder).parts:
            inner = class_name_of(name)
            if name.lower() in _SPLIT_NAMES or (inner in CLASS_ALIASES.values() and inner != own):
                raise DataError(
                    f"data.folder: {parent} is inside {folder}, whose files are all of one class; "
                    "allowed: [train|test/]CLASS/FILE below data.folder"
                )


def _list_split(
    walk: _Walk, folder: pathlib.Path, split: str | None, above: frozenset[tuple[int, int]]
) -> list[FolderFile]:
    """The files of one split: flat, or in a folder for each class."""
    direct = list(walk.files(folder, above, recursive=False))
    above = above | {_identity(folder)}
    by_folder = {inner: list(walk.files(inner, above)) for inner in _subfolders(folder)}
    classes = [inner for inner, files in by_folder.items() if files]
    if not classes:
        return [_folder_file(path, status, split, None) for path, status in direct]
    empty = [
        inner.name for inner in by_folder if inner not in classes and inner not in walk.circles
    ]
    if empty:
        raise walk.refusal(
            f"{folder} has no image in {_some(empty)}; a class needs images; move folders that are "
            "not classes elsewhere"
        )
    if direct:
        raise walk.refusal(
            f"{folder} has both class folders ({classes[0].name}) and files beside them "
            f"({direct[0][0].name}); allowed: one or the other"
        )
    _check_one_folder_a_class(folder, classes)
    for inner in classes:
        _check_class(inner, by_folder[inner])
    return [
        _folder_file(path, status, split, class_name_of(inner.name))
        for inner in classes
        for path, status in by_folder[inner]
    ]


def _identity(folder: pathlib.Path) -> tuple[int, int]:
    status = folder.stat()
    return status.st_dev, status.st_ino


def _folder_file(
    path: pathlib.Path, status: os.stat_result, split: str | None, class_name: str | None
) -> FolderFile:
    return FolderFile(
        path, split, class_name, status.st_size, status.st_mtime_ns, status.st_ctime_ns
    )


def _check_root(root: pathlib.Path) -> None:
    try:
        status = root.stat()
    except (FileNotFoundError, NotADirectoryError):
        raise DataError(f"data.folder: got {str(root)!r}; there is no such folder") from None
    except (OSError, ValueError) as error:  # ValueError: a zero byte
        reason = getattr(error, "strerror", None) or error
        raise DataError(f"data.folder: got {str(root)!r}, which cannot be read: {reason}") from None
    if not stat.S_ISDIR(status.st_mode):
        raise DataError(f"data.folder: got {str(root)!r}; that is a file, not a folder")


def list_files(root: pathlib.Path) -> Listing:
    """Finds the image files of a folder without opening them.

    `<root>/[train|test/][CLASS/]FILE`: with or without folders for the splits (`val` counts as
    `test`), with a folder for each class or flat and unlabelled. Older names of the classes are
    known (`CLASS_ALIASES`); hidden files are skipped.

    Args:
      root: the folder.

    Raises:
      DataError: for a folder that is not there or cannot be read, has no image files, an empty
        class, or another structure.
    """
    _check_root(root)
    walk = _Walk()
    splits = _split_folders(walk, root)
    above = frozenset({_identity(root)} if splits[0][0] else ())
    files = {split: _list_split(walk, folder, split, above) for split, folder in splits}
    for split, folder in splits:
        if not files[split]:
            raise walk.refusal(f"{folder} has no image file; looked for {', '.join(SUFFIXES)}")
    classes = [{file.class_name for file in split_files} for split_files in files.values()]
    if any(names != classes[0] for names in classes):
        only = sorted(str(name) for name in classes[0] ^ classes[-1])
        raise walk.refusal(
            f"the train and test folders of {root} have different classes; only one of them has "
            f"{', '.join(only)}"
        )
    all_files = tuple(file for split_files in files.values() for file in split_files)
    return Listing(root, all_files, dict(walk.ignored), tuple(walk.bad))
