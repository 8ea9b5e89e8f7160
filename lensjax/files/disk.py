"""What a disk refuses, in one line: the reason, and the room that is there and needed."""

import errno
import os
import pathlib

from lensjax.errors import FileError

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
# Errors of a disk that libraries pass on in words alone.
_IN_WORDS = (*_FULL, errno.EROFS, errno.EACCES, errno.EIO, errno.ENAMETOOLONG)
# numpy's and astropy's own words for a disk that is full, or at a limit of this user.
_CUT_SHORT = (" requested and ", "Not enough space on disk")
_MADE_OF = (errno.ENOENT, errno.EEXIST, errno.ENOTDIR, errno.EISDIR)


def _code_of(error: BaseException) -> int | None:
    """The system's number of an error, as far as it can be told; 0 for a write that was cut."""
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno
    text = str(error)
    for code in _IN_WORDS:
        if os.strerror(code) in text:
            return code
    cut_short = isinstance(error, OSError) and any(words in text for words in _CUT_SHORT)
    return 0 if cut_short else None


def is_refusal(error: BaseException) -> bool:
    """Whether an error of any library says that the system did not read or write a file."""
    return _code_of(error) is not None


def short_reason(error: BaseException) -> str:
    """The cause of an error of any library in a few words; its own text may be a page long."""
    if code := _code_of(error):
        return os.strerror(code)
    return str(error).strip().partition("\n")[0][:200] or type(error).__name__


def _nearest(path: pathlib.Path) -> pathlib.Path:
    """The path itself, or the nearest folder above it that exists."""
    absolute = pathlib.Path(os.path.abspath(path))
    return next(place for place in (absolute, *absolute.parents) if os.path.exists(place))


def _in_the_way(path: pathlib.Path, *, as_folder: bool) -> str:
    """What keeps a path from being made: a dangling link, or a file where a folder should be."""
    for place in (path, *path.parents):
        if os.path.islink(place) and not os.path.exists(place):
            return f"{place} is a link to {os.readlink(place)}, which does not exist"
        if os.path.exists(place):
            no_folder = (as_folder or place != path) and not os.path.isdir(place)
            return f"{place} is not a folder" if no_folder else ""
    return ""


def size_text(num_bytes: float) -> str:
    """A number of bytes for people."""
    for unit, size in (("GiB", 2**30), ("MiB", 2**20)):
        if num_bytes >= size:
            return f"{num_bytes / size:.2f} {unit}"
    return f"{num_bytes / 2**10:.1f} KiB"


def _room(path: pathlib.Path) -> str:
    """How much room there is where a path is to be."""
    place = _nearest(path)
    status = os.statvfs(place)
    files = "" if status.f_favail or not status.f_files else " and no further file can be made"
    return f"{size_text(status.f_bavail * status.f_frsize)} are free in {place}{files}"


def reason_of(error: BaseException, path: pathlib.Path) -> str:
    """Why the system refused to write a path, with the room that is left where that matters.

    Args:
      error: for which `is_refusal` holds.
      path: the file or folder that was to be written.
    """
    code = _code_of(error)
    try:
        no_folder = code == errno.ENOTDIR
        obstacle = _in_the_way(path, as_folder=no_folder) if code in _MADE_OF else ""
        if obstacle:
            return obstacle
        reason = os.strerror(code) if code else "it was cut short, as by a full disk"
        return f"{reason}; {_room(path)}" if code in (0, *_FULL) else reason
    except OSError:  # the place cannot be looked at
        return os.strerror(code) if code else str(error)


def refused(error: BaseException, path: pathlib.Path) -> FileError:
    """The error for users of something that could not be written; arguments as `reason_of`."""
    return FileError(f"{path} cannot be written: {reason_of(error, path)}")


def check_room(path: pathlib.Path, num_bytes: float, advice: str, *, num_files: int = 1) -> None:
    """Checks before a long computation that its result can be written.

    Args:
      path: the folder that will be written.
      num_bytes: its approximate size.
      advice: what else to do, such as `set export.folder to another folder`.
      num_files: how many files there will be.

    Raises:
      FileError: if the place is no folder, may not be written, or has too little room.
    """
    try:
        os.lstat(path)
    except OSError as error:
        if error.errno not in _MADE_OF:  # such as a name that is too long
            raise refused(error, path) from None
    obstacle = _in_the_way(path, as_folder=True)
    place = _nearest(path)
    status = os.statvfs(place)
    folder = place if place.is_dir() else place.parent
    free = status.f_bavail * status.f_frsize
    if not obstacle and not os.access(folder, os.W_OK | os.X_OK):
        obstacle = f"{folder} cannot be written to"
    if not obstacle and num_bytes > free:
        obstacle = f"it needs about {size_text(num_bytes)}, but {_room(path)}"
        advice = f"make room, or {advice}"
    if not obstacle and status.f_files and num_files > status.f_favail:
        obstacle = f"it needs {num_files:,} files, but {status.f_favail:,} more can be made there"
    if obstacle:
        raise FileError(f"{path} cannot be written: {obstacle}; {advice}")
