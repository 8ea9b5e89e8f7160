"""Writes files and folders so that each is complete or absent, even if the process is killed."""

import contextlib
import ctypes
import errno
import fcntl
import json
import os
import pathlib
import re
import shutil
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from lensjax.errors import FileError, UserError
from lensjax.files import disk

# From the system's headers; Python has no function that swaps two folders in one step.
_AT_FDCWD, _RENAME_EXCHANGE = -100, 2
_PARTIAL, _PREVIOUS = "partial", "previous"
# The system's answers where a disk cannot swap folders.
_NO_EXCHANGE = (errno.ENOSYS, errno.EINVAL, errno.ENOTSUP, errno.EPERM)

# The entries of a folder that lensjax wrote; all others are its user's.
Ours = Callable[[pathlib.Path], Iterable[pathlib.Path]]


def _remove(path: pathlib.Path) -> None:
    with contextlib.suppress(OSError):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


def _hidden_beside(path: pathlib.Path, ending: str) -> list[pathlib.Path]:
    """The files or folders that a writer of `path` has left beside it, or is working on."""
    pattern = re.compile(rf"\.{re.escape(path.name)}\.[0-9a-f]{{8}}\.{ending}")
    return [path.with_name(name) for name in os.listdir(path.parent) if pattern.fullmatch(name)]


@contextlib.contextmanager
def _unless_in_use(path: pathlib.Path) -> Iterator[bool]:
    """Yields whether the writer of a partial file or folder has ended without finishing it."""
    try:
        lock = os.open(path, os.O_RDONLY)
    except OSError:
        yield False
        return
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield True
    except OSError:  # in use, or a disk without locks, where nobody can tell
        yield False
    finally:
        os.close(lock)


@contextlib.contextmanager
def _partial(path: pathlib.Path, make: Callable[[pathlib.Path], None]) -> Iterator[pathlib.Path]:
    """Yields a new name beside `path` and holds a lock on it; what is left of it is removed.

    What killed processes left for the same path is removed first.
    """
    for leftover in _hidden_beside(path, _PARTIAL):
        with _unless_in_use(leftover) as unused:
            if unused:
                _remove(leftover)
    while True:
        partial = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.{_PARTIAL}")
        make(partial)
        try:
            lock = os.open(partial, os.O_RDONLY)
        except FileNotFoundError:  # taken for a leftover before it was locked
            continue
        with contextlib.suppress(OSError):  # a disk without locks
            fcntl.flock(lock, fcntl.LOCK_EX)
        if partial.exists():
            break
        os.close(lock)
    try:
        yield partial
    finally:
        os.close(lock)
        if os.path.lexists(partial):
            _remove(partial)


@contextlib.contextmanager
def _explained(path: pathlib.Path) -> Iterator[None]:
    """Turns errors of the disk about `path`, or what is written for it, into a `FileError`."""
    try:
        yield
    except (UserError, BrokenPipeError):
        raise
    except Exception as error:
        if not disk.is_refusal(error):
            raise
        name = error.filename if isinstance(error, OSError) else None
        beginning = os.fspath(path.with_name(f".{path.name}."))
        known = (None, *map(os.fspath, (path, *path.parents)))
        # Other errors are about files that were read meanwhile.
        if name not in known and not str(name).startswith((beginning, f"{path}{os.sep}")):
            raise
        raise disk.refused(error, path) from error


@contextlib.contextmanager
def replacing(path: pathlib.Path) -> Iterator[pathlib.Path]:
    """Yields an empty file to write, which replaces `path` unless an exception is raised.

    Several processes may do so at once; the last one wins. A partial file that a killed process
    left is removed.

    Args:
      path: the file; its folder is made.

    Raises:
      FileError: if the disk or its permissions do not allow it.
    """
    with _explained(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with _partial(path, pathlib.Path.touch) as partial:
            yield partial
            os.replace(partial, path)


@contextlib.contextmanager
def replacing_folder(path: pathlib.Path, ours: Ours) -> Iterator[pathlib.Path]:
    """Yields an empty folder to fill, which takes the place of `path` unless there is an exception.

    Folders are swapped in one step, so that a kill at any time leaves the whole old one or the
    whole new one. Entries that are not `ours` move from the old into the new folder. Where the disk
    cannot swap folders (NFS), a kill between two renames leaves the old folder under a hidden name
    beside it, and `recover_folder` puts it back. A mount point cannot be swapped at all: its
    entries are replaced one by one, JSON files last, which describe the others.

    Args:
      path: the folder; those above it are made. A link to a folder stays one.
      ours: lists the entries of a folder that are replaced.

    Raises:
      FileError: if the disk or its permissions do not allow it; `path` is then as it was.
    """
    path = _with_name(path)
    kept = f"; the earlier {path.name} is as it was" if os.path.isdir(path) else ""
    with _explained(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        if os.path.lexists(path) and not os.path.isdir(path):
            raise OSError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), os.fspath(path))
        recover_folder(path, ours)
        beside = path / path.name if path.is_dir() and _stands_alone(path) else path
        with _partial(beside, pathlib.Path.mkdir) as partial:
            try:
                with _explained(path):
                    yield partial
                    _put_in_place(partial, path, ours)
            except FileError as error:  # names the file, in a folder that nobody knows
                said = str(error).replace(os.fspath(partial), os.fspath(path))
                raise FileError(said + kept) from error


def recover_folder(path: pathlib.Path, ours: Ours) -> None:
    """Finishes a swap of `replacing_folder` that was killed; does nothing where none was.

    Args:
      path: as for `replacing_folder`.
      ours: as for `replacing_folder`.
    """
    path = _with_name(path)
    if not path.parent.is_dir():
        return
    for previous in _hidden_beside(path, _PREVIOUS):
        with _unless_in_use(previous) as unused:
            if unused and not os.path.lexists(path):
                os.rename(previous, path)
            elif unused:
                _move_strays(previous, path, ours)


def _with_name(path: pathlib.Path) -> pathlib.Path:
    """The folder itself, where a path is a link to one, or has no name of its own like `.`."""
    if path.name in ("", "..") or (os.path.islink(path) and os.path.isdir(path)):
        return path.resolve()
    return path


def _stands_alone(path: pathlib.Path) -> bool:
    """Whether nothing can be put beside a folder and swapped with it."""
    return os.path.ismount(path) or not os.access(path.parent, os.W_OK | os.X_OK)


def _put_in_place(partial: pathlib.Path, path: pathlib.Path, ours: Ours) -> None:
    """Makes the content of a folder that of `path`; see `replacing_folder`."""
    if partial.parent == path:
        for old in sorted(ours(path), key=lambda entry: entry.suffix != ".json"):
            _remove(old)
        for new in sorted(partial.iterdir(), key=lambda entry: entry.suffix == ".json"):
            os.replace(new, path / new.name)
        return
    if not path.exists():
        os.rename(partial, path)
        return
    # Under this name it is not removed as unfinished: after the swap it has the user's entries.
    previous = partial.with_suffix(f".{_PREVIOUS}")
    os.rename(partial, previous)
    try:
        _exchange(previous, path)
    except OSError as error:
        os.rename(previous, partial)
        if error.errno not in _NO_EXCHANGE:
            raise
        os.rename(path, previous)
        os.rename(partial, path)
    _move_strays(previous, path, ours)


def _exchange(first: pathlib.Path, second: pathlib.Path) -> None:
    """Swaps two folders in one step; raises OSError where the disk cannot."""
    try:
        renameat2 = ctypes.CDLL(None, use_errno=True).renameat2
    except AttributeError:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS)) from None
    names = map(os.fsencode, (first, second))
    if renameat2(_AT_FDCWD, next(names), _AT_FDCWD, next(names), _RENAME_EXCHANGE):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), os.fspath(second))


def _move_strays(previous: pathlib.Path, path: pathlib.Path, ours: Ours) -> None:
    """Moves the user's entries of a folder that was replaced into the new one, and removes it."""
    for own in list(ours(previous)):
        _remove(own)
    with contextlib.suppress(OSError):  # another process does the same
        for stray in list(previous.iterdir()):
            target = path / stray.name
            while os.path.lexists(target):
                target = target.with_name(f"{target.name}.{_PREVIOUS}")
            os.rename(stray, target)
        previous.rmdir()


@contextlib.contextmanager
def read_together(folder: pathlib.Path) -> Iterator[None]:
    """Checks that files which are read meanwhile belong together.

    Args:
      folder: holds them.

    Raises:
      FileError: if `replacing_folder` has replaced the folder.
    """
    before = folder.stat()
    yield
    if not os.path.samestat(before, folder.stat()):
        raise FileError(f"{folder} was replaced while it was read; run the same command again")


def write_bytes(path: pathlib.Path, content: bytes) -> None:
    """Writes a file; arguments and errors as for `replacing`."""
    with replacing(path) as partial:
        partial.write_bytes(content)


def write_text(path: pathlib.Path, text: str) -> None:
    """Writes a text file in UTF-8; arguments and errors as for `replacing`."""
    write_bytes(path, text.encode())


def write_json(path: pathlib.Path, content: Mapping[str, Any]) -> None:
    """Writes a JSON file; arguments and errors as for `replacing`."""
    write_text(path, json.dumps(content, indent=2) + "\n")


def write_array(path: pathlib.Path, array: np.ndarray) -> None:
    """Writes a `.npy` file; errors as for `replacing`."""
    with replacing(path) as partial, partial.open("wb") as file:
        np.save(file, array, allow_pickle=False)
