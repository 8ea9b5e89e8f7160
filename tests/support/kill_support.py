"""Kills a process at each of its calls to the system while it replaces a folder.

`python kill_support.py FOLDER` prints the number of kills, where a disk can swap folders and where
it cannot; a lost or mixed folder is an AssertionError. Without JAX, whose threads do not survive a
fork.
"""

import errno
import os
import pathlib
import signal
import sys

from lensjax.files import atomic

NAMES = ("a.npy", "b.json")


def ours(folder: pathlib.Path) -> list[pathlib.Path]:
    """What is replaced."""
    return [folder / name for name in NAMES]


def _replace(path: pathlib.Path, content: str) -> None:
    with atomic.replacing_folder(path, ours) as new:
        for name in NAMES:
            atomic.write_text(new / name, content)


def _killed_at(call: int, path: pathlib.Path) -> bool:
    """Whether a child that replaces a folder was killed at a call, and not done before it."""
    child = os.fork()
    if not child:
        calls = 0

        def count(event: str, arguments: tuple) -> None:
            nonlocal calls
            if event.split(".")[0] in ("os", "open", "shutil", "fcntl", "ctypes"):
                calls += 1
                if calls == call:
                    os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(count)
        _replace(path, "new")
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL


def _content(folder: pathlib.Path) -> list[str]:
    return [(folder / name).read_text() for name in NAMES]


def kills(folder: pathlib.Path, *, exchange: bool) -> int:
    """Kills at every call in turn; returns how many there were."""
    for call in range(1, 1000):
        path = folder / str(call) / "generated"
        _replace(path, "old")
        (path / "notes").mkdir()
        (path / "notes" / "mine.txt").write_text("mine")
        killed = _killed_at(call, path)
        if exchange:  # else there may be nothing between two renames
            assert _content(path) in (["old", "old"], ["new", "new"])
        atomic.recover_folder(path, ours)
        assert _content(path) in (["old", "old"], ["new", "new"])
        assert (path / "notes" / "mine.txt").read_text() == "mine"
        _replace(path, "third")
        assert _content(path) == ["third", "third"]
        assert (path / "notes" / "mine.txt").read_text() == "mine"
        assert os.listdir(path.parent) == ["generated"]
        if not killed:
            return call - 1
    raise AssertionError


def no_exchange(first: pathlib.Path, second: pathlib.Path) -> None:
    """Stands for a disk that cannot swap two folders."""
    raise OSError(errno.EINVAL, "Invalid argument", os.fspath(second))


if __name__ == "__main__":
    folder = pathlib.Path(sys.argv[1])
    print(kills(folder / "exchange", exchange=True))
    atomic._exchange = no_exchange
    print(kills(folder / "no_exchange", exchange=False))
