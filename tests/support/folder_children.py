"""What tests of `deeplense/folder` need processes of their own for: other users, kills, memory.

`folder_children.py FOLDER JOB...` runs the jobs in forks of one process, which has everything
imported, and writes what they return to `FOLDER/results.json`.
"""

import functools
import json
import os
import pathlib
import signal
import sys
import time
import traceback
from collections.abc import Callable
from typing import Any

import numpy as np
from folder_support import prepare, write, write_classes, write_flat

from lensjax.cli import build_data_mode
from lensjax.data import prepared
from lensjax.data.folder import builder
from lensjax.errors import DataError

NOBODY = 65534
_owner: Any = builder
STACK = (3200, 128, 128)  # 200 MiB as float32


def in_fork(work: Callable[[], Any]) -> Callable[[], Any]:
    """Starts work in a fork; the returned function waits and gives its result or exit code.

    Whoever forks has neither built nor read a set: array_record's threads do not survive it.
    """
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        signal.alarm(60)
        try:
            os.write(writing, json.dumps(work()).encode())
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    os.close(writing)

    def wait() -> Any:
        with os.fdopen(reading) as pipe:
            text = pipe.read()
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        return json.loads(text) if text else code

    return wait


def _said(root: pathlib.Path, sets: pathlib.Path, policy: str) -> str:
    """Returns the error, or how many images became a set and how many files were left out."""
    try:
        found = prepare(root, sets, on_bad_file=policy)
    except DataError as error:
        return f"{error}; sets: {sets.exists()}"
    images = sum(len(found.read(name)) for name in ("train", "test"))
    assert found.report is not None
    return f"{images} images, {found.report['left_out_files']}"


def _become_nobody(folder: pathlib.Path, pictures: bool = False) -> None:
    """Gives up what root may do, after a build that imports what a build imports."""
    warm = folder / f"warm_{os.getpid()}"
    found = prepare(write_flat(warm / "root", 2), warm / "sets")
    if pictures:
        build_data_mode.show(found)
    if os.geteuid() == 0:
        os.setgroups([])
        os.setgid(NOBODY)
        os.setuid(NOBODY)


LOCKED = {
    "nothing": (),
    "file": (("cdm/001.npy", 0o000),),
    "class": (("cdm", 0o000),),
    "class without x": (("cdm", 0o444),),
    "root": ((".", 0o000),),
    "above": (("..", 0o000),),
}


def permissions(folder: pathlib.Path) -> dict[str, Any]:
    """What a user who is not root is told of a folder with something locked."""
    results = {}
    folder.chmod(0o755)
    for name, modes in LOCKED.items():
        home = folder / name
        root = write_classes(home / "above" / "root", num=5)
        home.chmod(0o777)
        for path, mode in modes:
            (root / path).chmod(mode)

        def work(root: pathlib.Path = root, home: pathlib.Path = home) -> dict[str, str]:
            _become_nobody(home)
            return {policy: _said(root, home / policy, policy) for policy in ("refuse", "skip")}

        results[name] = in_fork(work)()
        for path, _ in modes:
            (root / path).chmod(0o755)
    return results


def unlocked_later(folder: pathlib.Path) -> list[str]:
    """The same folder before and after a chmod, for a user who is not root."""
    folder.chmod(0o777)
    root = write_classes(folder / "root", num=5)
    locked = root / "cdm" / "001.npy"
    status = locked.stat()
    locked.chmod(0o000)

    def work() -> str:
        _become_nobody(folder)
        return _said(root, folder / "sets", "skip")

    before = in_fork(work)()
    locked.chmod(0o644)
    assert locked.stat().st_mtime_ns == status.st_mtime_ns
    return [before, in_fork(work)()]


def read_only(folder: pathlib.Path) -> list[Any]:
    """A user finds a set in a place that is not theirs: text of the report, and what was built."""
    folder.chmod(0o755)
    root, sets = write_classes(folder / "root", num=5), folder / "sets"
    in_fork(lambda: _said(root, sets, "refuse"))()

    def work() -> list[Any]:
        _become_nobody(folder, pictures=True)
        for path in sorted(sets.glob(".known/*")):
            assert not os.access(path.parent, os.W_OK)
        again = prepare(root.with_name("copy"), sets)
        try:
            return [build_data_mode.show(again)[0]]
        except DataError as error:
            return [str(error)]

    write_classes(root.with_name("copy"), num=5)
    first = in_fork(work)()
    in_fork(lambda: build_data_mode.show(prepare(root, sets))[0])()  # with the contact sheet
    return [first, in_fork(work)()]


def killed(folder: pathlib.Path) -> dict[str, Any]:
    """A build that dies in its middle, and the next one."""
    root, sets = write_classes(folder / "root", num=9), folder / "sets"

    def dies() -> None:
        look = builder.examine
        seen: list[None] = []

        def examine(*arguments: Any) -> Any:
            seen.append(None)
            if len(seen) > 10:
                os.kill(os.getpid(), signal.SIGKILL)
            return look(*arguments)

        _owner.examine = examine
        prepare(root, sets)

    code = in_fork(dies)()
    left = sorted(path.name.split(".")[0] for path in sets.glob("deeplense_folder/[0-9a-f]*/*"))
    said = in_fork(lambda: _said(root, sets, "refuse"))()
    after = sorted(path.name for path in sets.glob("deeplense_folder/[0-9a-f]*/*"))
    return {"code": code, "left": left, "said": said, "after": after}


def two_at_once(folder: pathlib.Path) -> dict[str, Any]:
    """Two processes that want the same set at the same time."""
    root, sets = write_flat(folder / "root", 30), folder / "sets"
    lines: list[str] = []

    def work() -> list[str]:
        look = builder.examine

        def slow(*arguments: Any) -> Any:
            time.sleep(0.02)
            return look(*arguments)

        _owner.examine = slow
        prepared.logging.info = lambda text, *rest: lines.append(text % rest)
        return [_said(root, sets, "refuse"), *lines]

    both = [in_fork(work), in_fork(work)]
    return {"both": [wait() for wait in both]}


def memory(folder: pathlib.Path) -> dict[str, float]:
    """Growth of the peak of resident memory in MiB while a set is built from one stack."""
    small = write_classes(folder / "small")
    path = folder / "root" / "stack.npy"
    write(path, np.random.default_rng(0).random(STACK, np.float32))

    def work() -> dict[str, float]:
        def peak() -> float:
            lines = pathlib.Path("/proc/self/status").read_text().splitlines()
            (line,) = (line for line in lines if line.startswith("VmHWM"))
            return int(line.split()[1]) / 1024

        build_data_mode.show(prepare(small, folder / "sets"))  # what any set takes
        before = peak()
        build_data_mode.show(prepare(path.parent, folder / "sets"))
        growth = peak() - before
        whole = np.load(path)  # the measure sees what is held
        return {"growth": growth, "with_images": peak() - before, "size": whole.nbytes / 2**20}

    return in_fork(work)()


def unchanged(folder: pathlib.Path) -> list[int]:
    """How many files two starts open for reading."""
    root = write_classes(folder / "root")
    opened: list[str] = []
    watching = [False]

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if watching[0] and event == "open" and str(arguments[0]).startswith(str(root)):
            opened.append(str(arguments[0]))

    sys.addaudithook(hook)
    numbers = []
    for _ in range(2):
        opened.clear()
        watching[0] = True
        prepare(root, folder / "sets")
        watching[0] = False
        numbers.append(len(opened))
    return numbers


JOBS = (permissions, unlocked_later, read_only, killed, two_at_once, memory, unchanged)


def main() -> None:
    folder = pathlib.Path(sys.argv[1])
    results = {}
    for job in JOBS:
        own = folder / job.__name__
        own.mkdir()
        results[job.__name__] = in_fork(functools.partial(job, own))()
    (folder / "results.json").write_text(json.dumps(results))


if __name__ == "__main__":
    main()
