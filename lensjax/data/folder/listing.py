"""A user's folder of image files: the path, split, class and object of each file."""

import collections
import os
import pathlib
import stat
from collections.abc import Sequence
from typing import NamedTuple

from lensjax.data.dataset import SPLITS
from lensjax.data.folder.entries import (
    CLASS_ALIASES,
    FolderFile,
    Listing,
    class_name_of,
    is_class_name,
)
from lensjax.data.folder.objects import FEW_NAMES, are_objects
from lensjax.data.folder.reading import Reading
from lensjax.data.folder.splits import LAYOUTS, looks_like_split, split_of
from lensjax.data.folder.walk import Found, Walk, entries_of
from lensjax.errors import DataError
from lensjax.files.image_files import SUFFIXES


def _subfolders(folder: pathlib.Path) -> list[pathlib.Path]:
    try:
        return [pathlib.Path(entry.path) for entry in entries_of(folder) if _is_folder(entry)]
    except OSError as error:
        raise DataError(f"data.folder: {folder} cannot be read: {error.strerror}") from None


def _readable_subfolders(folder: pathlib.Path) -> list[pathlib.Path]:
    """The folders in a folder; none where it cannot be read, of which the walk tells later."""
    try:
        return _subfolders(folder)
    except DataError:
        return []


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        return False


class _Place(NamedTuple):
    """A folder of images of one split, or of all.

    Attributes:
      split: `train` or `test`; None for the whole set.
      class_name: the class of all images in it; None where folders in it are classes.
      folder: the folder.
    """

    split: str | None
    class_name: str | None
    folder: pathlib.Path


def _places(walk: Walk, root: pathlib.Path) -> list[_Place]:
    """The folders of the splits, in their order; the root alone where it has none."""
    folders = _subfolders(root)
    places = [_place(folder) for folder in folders]
    if not any(place.split for place in places):
        places = _inner_places(walk, folders)
        if not places:
            _check_no_other_splits(folders)
            return [_Place(None, None, root)]
    misplaced = [place.folder.name for place in places if place.split is None]
    misplaced += [found.path.name for found in walk.files(root, recursive=False)]
    if misplaced:
        first = next(place.folder for place in places if place.split)
        raise DataError(
            f"data.folder: {root} has folders of splits ({first.name}) and beside them "
            f"{_some(misplaced)}; move that into one of them or elsewhere. Allowed: {LAYOUTS}"
        )
    _check_splits(root, places)
    return sorted(places, key=lambda place: (place.split or "", place.folder))


def _place(folder: pathlib.Path) -> _Place:
    split, rest = split_of(folder.name)
    return _Place(split, class_name_of(rest) if split and rest else None, folder)


def _inner_places(walk: Walk, folders: Sequence[pathlib.Path]) -> list[_Place]:
    """The folders of splits in folders of classes; empty where there are none."""
    places = []
    for folder in folders:
        inner = [(path, *split_of(path.name)) for path in _readable_subfolders(folder)]
        if not any(split and not rest for _, split, rest in inner):
            continue
        beside = [path.name for path, split, rest in inner if not split or rest]
        beside += [found.path.name for found in walk.files(folder, recursive=False)]
        if beside:
            raise DataError(
                f"data.folder: {folder} has folders of splits and beside them {_some(beside)}. "
                f"Allowed: {LAYOUTS}"
            )
        name = class_name_of(folder.name)
        places += [_Place(split, name, path) for path, split, _ in inner]
    with_splits = {place.folder.parent for place in places}
    without = [folder.name for folder in folders if folder not in with_splits]
    if places and without:
        raise DataError(
            f"data.folder: {sorted(with_splits)[0]} has folders of splits, but {_some(without)} "
            f"beside it has none. Allowed: {LAYOUTS}"
        )
    return places


def _check_no_other_splits(folders: Sequence[pathlib.Path]) -> None:
    """Checks that no folder is called like a split that is not understood."""
    for folder in folders:
        for path in (folder, *_readable_subfolders(folder)):
            if looks_like_split(path.name):
                raise DataError(
                    f"data.folder: {path} is called like a split, in a way that is not understood. "
                    f"Allowed: {LAYOUTS}"
                )


def _check_splits(root: pathlib.Path, places: Sequence[_Place]) -> None:
    """Checks that both splits are there, one folder a class, with classes for all or none."""
    for split in SPLITS:
        names = [place.folder.name for place in places if place.split == split]
        if not names:
            raise DataError(
                f"data.folder: {root} has no folder for the {split} split. Allowed: {LAYOUTS}"
            )
    if len({place.class_name is None for place in places}) > 1:
        raise DataError(
            f"data.folder: {root} has folders of splits with and without a class: "
            f"{_some([place.folder.name for place in places])}. Allowed: {LAYOUTS}"
        )
    words = collections.Counter(
        (place.split, place.class_name, split_of(place.folder.name)[1]) for place in places
    )
    train = [key for key, number in words.items() if number > 1 and key[0] == "train"]
    if train:
        names = [place.folder.name for place in places if place.split == "train"]
        raise DataError(
            f"data.folder: {root} has {', '.join(names)} for the train split; allowed: one folder, "
            "or one for each class"
        )


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


def _check_class(folder: pathlib.Path, own: str, files: list[Found]) -> None:
    """Checks the name of a class, and that no splits or other classes are hidden in its folder."""
    if not is_class_name(own):
        raise DataError(
            f"data.folder: {str(folder)!r} is not a valid class name; allowed: printable text "
            "without blanks around it"
        )
    for parent in {found.path.parent for found in files} - {folder}:
        for name in parent.relative_to(folder).parts:
            inner = class_name_of(name)
            if looks_like_split(name) or (inner in CLASS_ALIASES.values() and inner != own):
                raise DataError(
                    f"data.folder: {parent} is inside {folder}, whose files are all of one class. "
                    f"Allowed: {LAYOUTS}"
                )


def _identity(folder: pathlib.Path) -> tuple[int, int]:
    status = folder.stat()
    return status.st_dev, status.st_ino


def _relative(path: pathlib.Path, place: _Place, root: pathlib.Path) -> str:
    """A path below the user's folder, without the folders of splits."""
    return path.relative_to(root if place.split is None else place.folder).as_posix()


def _folder_file(
    found: Found,
    place: _Place,
    class_name: str | None,
    root: pathlib.Path,
    object_name: str | None = None,
) -> FolderFile:
    path, status = found
    stamps = status.st_size, status.st_mtime_ns, status.st_ctime_ns
    relative = _relative(path, place, root)
    return FolderFile(path, place.split, class_name, *stamps, relative, object_name)


def _by_class(walk: Walk, place: _Place, above: frozenset[tuple[int, int]]) -> list[FolderFile]:
    """The files of a place: flat, or in a folder for each class."""
    folder = place.folder
    if place.class_name is not None:
        files = list(walk.files(folder, above))
        _check_class(folder, place.class_name, files)
        return [_folder_file(found, place, place.class_name, walk.root) for found in files]
    direct = list(walk.files(folder, above, recursive=False))
    above = above | {_identity(folder)}
    by_folder = {inner: list(walk.files(inner, above)) for inner in _subfolders(folder)}
    classes = [inner for inner, files in by_folder.items() if files]
    if not classes:
        return [_folder_file(found, place, None, walk.root) for found in direct]
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
            f"({direct[0].path.name}); allowed: one or the other"
        )
    _check_one_folder_a_class(folder, classes)
    for inner in classes:
        _check_class(inner, class_name_of(inner.name), by_folder[inner])
    return [
        _folder_file(found, place, class_name_of(inner.name), walk.root)
        for inner in classes
        for found in by_folder[inner]
    ]


def _by_object(walk: Walk, place: _Place, above: frozenset[tuple[int, int]]) -> list[FolderFile]:
    """The files of a place where each folder is an object, perhaps in a folder of its class."""
    files = []
    found_files = list(walk.files(place.folder, above))
    with_classes = place.class_name is None and _have_classes(place, found_files)
    for found in found_files:
        *folders, _ = found.path.relative_to(place.folder).parts
        class_name = place.class_name
        if with_classes and len(folders) > 1:
            class_name, *folders = class_name_of(folders[0]), *folders[1:]
        elif with_classes or not folders:
            raise walk.refusal(
                f"{found.path} lies beside folders of objects (data.folders=objects); put it into "
                "the folder of its object"
            )
        # An object may have a folder for each of its bands. Classes may number theirs alike.
        parts = _relative(found.path, place, walk.root).split("/")
        name = "/".join(parts[: -len(folders)])
        files.append(_folder_file(found, place, class_name, walk.root, name))
    return files


def _have_classes(place: _Place, files: Sequence[Found]) -> bool:
    """Whether the folders of objects lie in folders of classes.

    If not, deeper folders are parts of an object: they have the same few names in each.
    """
    inner: dict[str, set[str]] = collections.defaultdict(set)
    for found in files:
        folders = found.path.relative_to(place.folder).parts[:-1]
        if len(folders) < 2:
            return False
        inner[folders[0]].add(folders[1])
    return not are_objects(inner)


def _are_objects(walk: Walk, places: Sequence[_Place], reading: Reading) -> bool:
    """Whether the folders that hold the files are objects."""
    if reading.folders != "auto":
        return reading.folders == "objects"
    looking = Walk(walk.root, reading.files)  # so that nothing is counted twice
    names: dict[str, list[str]] = collections.defaultdict(list)
    distinct: set[str] = set()
    for place in places:
        for found in looking.files(place.folder):
            names[os.fspath(found.path.parent)].append(found.path.name)
            distinct.add(found.path.name)
            if found.path.parent == place.folder or len(distinct) > FEW_NAMES:
                return False
    known = {*CLASS_ALIASES, *CLASS_ALIASES.values()}
    if any(pathlib.Path(folder).name.lower() in known for folder in names):
        return False
    return are_objects(names)


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


def list_files(root: pathlib.Path, reading: Reading = Reading()) -> Listing:  # noqa: B008
    """Finds the image files of a folder without opening them.

    With or without folders for the splits and for the classes, see `splits.LAYOUTS`; or with a
    folder for each object, see `objects.are_objects`. Older names of the classes are known
    (`CLASS_ALIASES`); hidden files are skipped.

    Args:
      root: the folder.
      reading: `files` and `folders` decide what is found.

    Raises:
      DataError: for a folder that is not there or cannot be read, has no image files, an empty
        class, or another structure.
    """
    _check_root(root)
    walk = Walk(root, reading.files)
    places = _places(walk, root)
    objects = _are_objects(walk, places, reading)
    list_place = _by_object if objects else _by_class
    above = frozenset({_identity(root)} if places[0].split else ())
    files: dict[str | None, list[FolderFile]] = collections.defaultdict(list)
    for place in places:
        in_place = list_place(walk, place, above)
        if not in_place:
            raise walk.refusal(
                f"{place.folder} has no image file; looked for {', '.join(SUFFIXES)}"
            )
        files[place.split] += in_place
    classes = [{file.class_name for file in split_files} for split_files in files.values()]
    if any(names != classes[0] for names in classes):
        only = sorted(str(name) for name in classes[0] ^ classes[-1])
        raise walk.refusal(
            f"the train and test folders of {root} have different classes; only one of them has "
            f"{', '.join(only)}"
        )
    all_files = tuple(file for split_files in files.values() for file in split_files)
    sure = reading.folders != "auto"
    return Listing(root, all_files, dict(walk.ignored), tuple(walk.bad), objects, sure)
