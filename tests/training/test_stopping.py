"""Signals while the loop runs: noted, unless they are ignored; then everything is as before."""

import os
import signal

from lensjax.signals import ENDING
from lensjax.training.stopping import StopRequest, stop_on_signal


def test_a_signal_is_noted_and_one_that_is_ignored_stays_ignored():
    found = {number: signal.getsignal(number) for number in ENDING}
    before = {
        signal.SIGTERM: signal.SIG_DFL,
        signal.SIGINT: signal.SIG_IGN,  # of a shell's background job
        signal.SIGHUP: signal.SIG_DFL,
    }
    try:
        for number, handler in before.items():
            signal.signal(number, handler)
        with stop_on_signal(StopRequest()) as stop:
            os.kill(os.getpid(), signal.SIGINT)
            assert stop.reached(1) is None
            os.kill(os.getpid(), signal.SIGHUP)
            assert stop.reached(2) == "SIGHUP"
            assert signal.getsignal(signal.SIGHUP) == signal.SIG_DFL  # the second one ends it
        assert {number: signal.getsignal(number) for number in ENDING} == before
    finally:
        for number, found_handler in found.items():
            signal.signal(number, found_handler)
