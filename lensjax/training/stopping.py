"""Signals that end training: a single process stops by itself, several agree on a step."""

import contextlib
import ctypes
import os
import signal
from collections.abc import Callable, Iterator

import jax

from lensjax.signals import ENDING

_SIGACTION_BYTES = 256  # more than the structure has on any Linux
_of_jax: bytes | None = None


class StopRequest:
    """Set by the handler of `signals.ENDING`; the loop checks it after each dispatch."""

    def __init__(self) -> None:
        self.signal_name: str | None = None

    def __call__(self, number: int, frame: object) -> None:
        """Notes the signal; the second one ends the process as if there were no handler."""
        self.signal_name = signal.Signals(number).name
        signal.signal(number, signal.SIG_DFL)

    def reached(self, count: int) -> str | None:
        """The signal that ends training now; None to go on.

        On several hosts a signal to one ends all, after the same step; each must check after
        each dispatch.

        Args:
          count: how often steps were dispatched since this process began to train. JAX lets the
            hosts agree on the next number, which is 1 after a signal before the first dispatch.
        """
        if jax.process_count() > 1 and self.signal_name is None:
            from jax.experimental import multihost_utils

            if multihost_utils.reached_preemption_sync_point(count):
                self.signal_name = "SIGTERM"
        return self.signal_name


@contextlib.contextmanager
def stop_on_signal(request: StopRequest) -> Iterator[StopRequest]:
    """Has `signals.ENDING` set a request while it is open; those that are ignored stay ignored."""
    handlers: dict[signal.Signals, Callable[[int, object], None]]
    handlers = dict.fromkeys(ENDING, request)
    several_hosts = jax.process_count() > 1
    if several_hosts:  # JAX's handler of SIGTERM tells the other hosts
        handlers = dict.fromkeys(set(ENDING) - {signal.SIGTERM}, _forward)
        system_handler = _exchange(_of_jax)
    before = {
        number: signal.signal(number, handler)
        for number, handler in handlers.items()
        if signal.getsignal(number) != signal.SIG_IGN
    }
    try:
        yield request
    finally:
        for number, former in before.items():
            signal.signal(number, former)
        if several_hosts:
            _exchange(system_handler)


@contextlib.contextmanager
def jax_handler_set_aside() -> Iterator[None]:
    """Keeps the handler of SIGTERM that JAX installs while this is open for `stop_on_signal` alone.

    JAX only notes the signal, so before the first step nobody would act on it.
    """
    global _of_jax
    before = _exchange(None)
    try:
        yield
    finally:
        _of_jax = _exchange(before)


def _exchange(handler: bytes | None) -> bytes:
    """Gives SIGTERM a handler, which may be C code that Python knows nothing of; None changes none.

    Returns:
      The former handler.
    """
    former = ctypes.create_string_buffer(_SIGACTION_BYTES)
    ctypes.CDLL(None).sigaction(int(signal.SIGTERM), handler, former)
    return former.raw


def _forward(number: int, frame: object) -> None:
    signal.signal(number, signal.SIG_DFL)  # the second one ends the process
    os.kill(os.getpid(), signal.SIGTERM)
