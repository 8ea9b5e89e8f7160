"""Signals that end training: a single process stops by itself, several agree on a step."""

import contextlib
import os
import signal
from collections.abc import Callable, Iterator
from typing import Any

import jax

# Exit status that asks a batch system to run the same command again (EX_TEMPFAIL of sysexits.h).
RUN_AGAIN = 75


class StopRequest:
    """Set by the handler of SIGTERM and SIGINT; the loop checks it after each dispatch."""

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
          count: how often steps were dispatched, from the run's beginning; JAX lets the hosts agree
            on the next number.
        """
        if jax.process_count() > 1 and self.signal_name is None:
            from jax.experimental import multihost_utils

            if multihost_utils.reached_preemption_sync_point(count):
                self.signal_name = "SIGTERM"
        return self.signal_name


@contextlib.contextmanager
def stop_on_signal(request: StopRequest) -> Iterator[StopRequest]:
    """Has SIGTERM and SIGINT set a request while it is open."""
    handlers: dict[signal.Signals, Callable[[int, Any], None]]
    handlers = {signal.SIGTERM: request, signal.SIGINT: request}
    if jax.process_count() > 1:  # JAX has a handler of SIGTERM and tells the other hosts
        handlers = {signal.SIGINT: _forward}
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _forward(number: int, frame: object) -> None:
    signal.signal(number, signal.SIG_DFL)  # the second one ends the process
    os.kill(os.getpid(), signal.SIGTERM)
