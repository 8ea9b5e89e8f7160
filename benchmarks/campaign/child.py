"""A process that has imported lensjax already; its forks run command lines and Python calls.

    python child.py        reads a request a line, as JSON, from stdin

A fork needs no seconds for imports. A keeper waits for each fork and writes its exit status into a
file, so that the campaign may run several at a time and signal each.
"""

import contextlib
import ctypes
import gc
import importlib
import json
import os
import pathlib
import resource
import signal
import sys
import traceback
import warnings
from typing import Any

_MODULES = (
    "lensjax.main",
    "lensjax.cli.modes",
    "lensjax.cli.train_mode",
    "lensjax.cli.build_data_mode",
    "lensjax.data.folder.folder_set",
    "lensjax.inference.generator",
    "lensjax.inference.classifier",
    "lensjax.evaluation.evaluate_generator",
    "clu.parameter_overview",
    "orbax.checkpoint",
    "matplotlib.backends.backend_agg",
)


def _open(path: str) -> int:
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)


def _prepare(request: dict[str, Any]) -> None:
    """Gives the fork its output, folder, environment, limits and rights."""
    os.setsid()
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)  # not the next requests
    os.dup2(_open(request["output"]), 1)
    os.dup2(_open(request["errors"]), 2)
    os.chdir(request["folder"])
    os.environ.update(request["environment"])
    if request["file_bytes"]:
        resource.setrlimit(resource.RLIMIT_FSIZE, (request["file_bytes"],) * 2)
    if request["obeys"]:
        _give_up_root()


class _Header(ctypes.Structure):
    _fields_ = [("version", ctypes.c_uint32), ("pid", ctypes.c_int)]


class _Data(ctypes.Structure):
    _fields_ = [(name, ctypes.c_uint32) for name in ("effective", "permitted", "inherited")]


def _give_up_root() -> None:
    """Makes permissions count for root too: drops CAP_DAC_OVERRIDE, DAC_READ_SEARCH and FOWNER."""
    system, header, data = ctypes.CDLL(None), _Header(0x20080522, 0), (_Data * 2)()
    system.capget(ctypes.byref(header), data)
    for number in (1, 2, 3):
        data[0].effective &= ~(1 << number)
        data[0].permitted &= ~(1 << number)
    if system.capset(ctypes.byref(header), data):
        raise OSError("the rights of root cannot be given up")


def _without_tensorboard() -> None:
    """Spares a command the seconds of importing TensorFlow."""
    writers: Any = importlib.import_module("lensjax.run.writers")
    writers._open_tensorboard = lambda folder: None


def _run_command(arguments: list[str]) -> None:
    main: Any = importlib.import_module("lensjax.main")
    sys.argv = ["lensjax", *arguments]
    main.run()


def _run(request: dict[str, Any]) -> None:
    """Runs a request in this fork and ends it as Python ends."""
    status: Any = 1
    try:
        _prepare(request)
        _without_tensorboard()
        if request["code"]:
            exec(compile(request["code"], "call", "exec"), {"__name__": "call"})
        else:
            _run_command(request["arguments"])
        status = 0
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    _wait_for_threads()
    os._exit(status)


def _wait_for_threads() -> None:
    """Waits for the threads that would keep Python alive, as its end does."""
    import threading

    for thread in threading.enumerate():
        if not thread.daemon and thread is not threading.current_thread():
            thread.join()


def _keep(request: dict[str, Any]) -> None:
    """Runs a request in a fork and writes down its process id and how it ended."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    child = os.fork()
    if not child:
        _run(request)
    place = pathlib.Path(request["ends"])
    place.with_suffix(".pid").write_text(f"{child}\n")
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    place.with_suffix(".new").write_text(f"{status}\n")
    place.with_suffix(".new").rename(place)
    os._exit(0)


def main() -> None:
    """Imports what commands need, then forks for each request until stdin is closed."""
    for module in _MODULES:
        with contextlib.suppress(ImportError):  # of another version of lensjax
            importlib.import_module(module)
    warnings.simplefilter("ignore")  # jax has threads, but has used no device yet
    gc.freeze()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    print("ready", flush=True)
    for line in sys.stdin:
        if not os.fork():
            _keep(json.loads(line))


if __name__ == "__main__":
    main()
