"""Signals to a command outside the training loop: one line on standard error, then the end.

Python runs a handler between two instructions of its main thread: not before a compilation has
returned, which may take a minute, and what the handler raises may be swallowed by a callback of
JAX. So a thread learns of each signal at once and ends the process. Files are written atomically;
to them such an end is no more than a `kill -9`. The loop has its own handlers, see
`lensjax.training.stopping`.
"""

import atexit
import contextlib
import os
import signal
import threading

# Exit status that asks a batch system to run the same command again (EX_TEMPFAIL of sysexits.h).
RUN_AGAIN = 75
INTERRUPTED = 130

ENDING = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
_BY_DEFAULT = (signal.SIG_DFL, signal.default_int_handler)

_work = ("starting", "nothing was written")
_is_ending = threading.Lock()


def begin_work(work: str, kept: str | None = None) -> None:
    """Says what this process does from now on; the line of a signal repeats it.

    Args:
      work: such as "building the data set", after "while".
      kept: what a signal leaves of it, as a sentence without a full stop; None for the last one.
    """
    global _work
    _work = (work, kept or _work[1])


def end_on_signals() -> None:
    """Ends this process at SIGTERM, SIGINT and SIGHUP from now on, with a line and a status.

    For the process of a command line, before its first import that takes long. A signal that is
    ignored (by `nohup`, or SIGINT by a shell's background job) stays ignored.
    """
    numbers = [number for number in ENDING if signal.getsignal(number) in _BY_DEFAULT]
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    threading.Thread(target=_watch, args=(reader,), daemon=True).start()
    for number in numbers:
        signal.signal(number, _end)
    atexit.register(_ignore, numbers)


def _watch(reader: int) -> None:
    while True:
        (number,) = os.read(reader, 1)
        if signal.getsignal(number) is _end:  # not while the training loop has handlers
            _end(number, None)


def _ignore(numbers: list[signal.Signals]) -> None:
    """Lets the process end with its own status: Python is about to put its handlers away."""
    for number in numbers:
        signal.signal(number, signal.SIG_IGN)


def _end(number: int, frame: object) -> None:
    if not _is_ending.acquire(blocking=False):  # the other thread ends the process
        return
    work, kept = _work
    name = signal.Signals(number).name
    line = f"lensjax: {name} while {work}: {kept}; to go on, run the same command again\n"
    # Neither `print`, whose buffer the main thread may be in, nor an exception.
    with contextlib.suppress(OSError):  # a closed terminal
        below_bar = "\n" if os.isatty(2) else ""
        os.write(2, f"{below_bar}{line}".encode())
    os._exit(INTERRUPTED if number == signal.SIGINT else RUN_AGAIN)
