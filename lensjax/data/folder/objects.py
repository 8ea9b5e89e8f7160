"""Folders of objects, each with the same few files: told apart from folders of classes."""

import re
from collections.abc import Collection, Mapping

FEW_NAMES = 20  # of files in a folder of an object
_MANY_FOLDERS = 20
_LEAST_FOLDERS = 4
_NUMBERED = re.compile(r".*\d")


def _stem(name: str) -> str:
    return name.split(".", 1)[0]


def are_objects(names: Mapping[str, Collection[str]]) -> bool:
    """Whether many folders have the same few file names in each, as folders of objects do.

    Folders of classes have files that differ, or that are numbered: with numbers in the names it
    takes far more folders than names.

    Args:
      names: the names of the image files in each folder.
    """
    distinct = {name for folder_names in names.values() for name in folder_names}
    if len(distinct) > FEW_NAMES or len(names) < _LEAST_FOLDERS:
        return False
    most = max(sum(name in folder_names for folder_names in names.values()) for name in distinct)
    if most < 0.8 * len(names):
        return False
    if any(_NUMBERED.fullmatch(_stem(name)) for name in distinct):
        return len(names) >= max(_MANY_FOLDERS, 5 * len(distinct))
    return len(names) > len(distinct)
