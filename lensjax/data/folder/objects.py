"""Folders of objects, each with the same few files: told apart from folders of classes."""

import re
from collections.abc import Collection, Mapping

FEW_NAMES = 20  # of files in a folder of an object
_MANY_FOLDERS = 20
_LEAST_FOLDERS = 4
_NUMBERED = re.compile(r".*\d")


def _stem(name: str) -> str:
    return name.split(".", 1)[0]


def _share_names(names: Mapping[str, Collection[str]]) -> bool:
    """Whether most folders have the same few names."""
    distinct = {name for folder_names in names.values() for name in folder_names}
    if not 0 < len(distinct) <= FEW_NAMES or len(names) < _LEAST_FOLDERS:
        return False
    most = max(sum(name in folder_names for folder_names in names.values()) for name in distinct)
    return most >= 0.8 * len(names) and len(names) > len(distinct)


def _are_numbered(names: Mapping[str, Collection[str]]) -> bool:
    return any(_NUMBERED.fullmatch(_stem(name)) for held in names.values() for name in held)


def are_objects(names: Mapping[str, Collection[str]]) -> bool:
    """Whether many folders have the same few file names in each, as folders of objects do.

    Args:
      names: the names of the image files in each folder.
    """
    return _share_names(names) and not _are_numbered(names)


def may_be_objects(names: Mapping[str, Collection[str]]) -> bool:
    """Whether the same is true, but with numbers in the names, as small classes have them too.

    Args:
      names: the names of the image files in each folder.
    """
    return _share_names(names) and len(names) >= _MANY_FOLDERS and _are_numbered(names)
