"""The files of a user's folder as the listing describes them, and the names of classes."""

import dataclasses
import pathlib
from collections.abc import Mapping

from lensjax.errors import BadFileError
from lensjax.files.planes import Chosen, PlaneRules

# Older sets have other names for the three classes of DeepLense.
CLASS_ALIASES = {"vort": "axion", "sphere": "cdm", "no": "no_sub"}


@dataclasses.dataclass(frozen=True)
class FolderFile:
    """One file of a folder, or the files of an object that are read together.

    Attributes:
      path: the file; the first one of several.
      split: `train` or `test`; None if there are no folders for splits.
      class_name: the class by the folder that it lies in; None in a flat folder.
      size: bytes.
      modified_ns: time of the last change of its content.
      changed_ns: time of the last change of its content or permissions, which no program can set.
      relative: its path below the user's folder, without the folders of splits.
      object_name: the object that it shows, where a folder or `data.group` says so.
      row_names: the object of each of its images, where `data.group` is a column of a table.
      chosen: the planes of the object, if each of them is a file.
      members: the files of these planes by the planes' numbers.
      inside: which planes of each of these files are read.
    """

    path: pathlib.Path
    split: str | None
    class_name: str | None
    size: int
    modified_ns: int
    changed_ns: int
    relative: str = ""
    object_name: str | None = None
    row_names: tuple[str, ...] = ()
    chosen: tuple[Chosen, ...] = ()
    members: Mapping[int, "FolderFile"] = dataclasses.field(default_factory=dict)
    inside: PlaneRules = dataclasses.field(default_factory=PlaneRules)

    @property
    def stamps(self) -> tuple[int, int, int]:
        """Numbers that differ once the file has changed."""
        return self.size, self.modified_ns, self.changed_ns


@dataclasses.dataclass(frozen=True)
class Listing:
    """The files of a folder.

    Attributes:
      root: the folder.
      files: its image files in the order of their names.
      ignored: number of other files by suffix.
      bad: links and folders that cannot be followed or read.
      objects: whether its folders are objects.
      sure: whether the user said so.
    """

    root: pathlib.Path
    files: tuple[FolderFile, ...]
    ignored: Mapping[str, int]
    bad: tuple[BadFileError, ...]
    objects: bool = False
    sure: bool = False


def class_name_of(folder_name: str) -> str:
    """The class that a folder's name stands for, `vort` for example for `axion`."""
    class_names = {**CLASS_ALIASES, **{name: name for name in CLASS_ALIASES.values()}}
    return class_names.get(folder_name.lower(), folder_name)


def is_class_name(name: str) -> bool:
    """Whether TFDS can keep a class of this name, a line of a text file."""
    return name.isprintable() and name == name.strip() and bool(name)
