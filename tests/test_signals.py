"""How a command meets signals: at once, whatever it does, with one line and a status."""

import inspect
import json
import signal

from run_support import block_in_c, run_python

import lensjax.main  # noqa: F401
from lensjax import signals

FORKS = """
import ctypes, json, os, signal, sys, time
from lensjax import signals

cases, results = json.loads(sys.argv[1]), {}
for name, (code, number, *ignored) in cases.items():
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        os.dup2(writer, 2)
        for each in (signal.SIGTERM, signal.SIGHUP):
            signal.signal(each, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        for each in ignored:
            signal.signal(each, signal.SIG_IGN)
        signals.end_on_signals()
        signals.begin_work("counting", "the numbers are kept")
        os.write(2, b"ready\\n")
        exec(code)
        os._exit(99)
    os.close(writer)
    said = open(reader)
    assert said.readline() == "ready\\n"
    time.sleep(0.05)  # until it is in its code
    os.kill(child, number)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    results[name] = [status, said.read()]
print(json.dumps(results))
"""
SWALLOWING = """
class Swallowing:
    def __del__(self):
        block = [time.sleep(1) for _ in range(60)]
Swallowing()
"""
OWN_HANDLER = """
signal.signal(signal.SIGTERM, lambda *_: os._exit(5))
while True: time.sleep(1)
"""
# What a process does when a signal comes, the signal, those that are ignored, and its status.
CASES: dict[str, tuple[str, int, tuple[int, ...], int]] = {
    "in Python": ("time.sleep(60)", signal.SIGTERM, (), 75),
    "in C": ("block_in_c()", signal.SIGTERM, (), 75),
    "interrupted": ("block_in_c()", signal.SIGINT, (), 130),
    "hung up": ("block_in_c()", signal.SIGHUP, (), 75),
    "exceptions are swallowed": (SWALLOWING, signal.SIGINT, (), 130),
    "the loop has a handler": (OWN_HANDLER, signal.SIGTERM, (), 5),
    "in the background": ("time.sleep(0.2)", signal.SIGINT, (signal.SIGINT,), 99),
    "under nohup": ("time.sleep(0.2)", signal.SIGHUP, (signal.SIGHUP,), 99),
}


def test_a_signal_ends_a_command_at_once_with_one_line_unless_it_is_ignored():
    cases = {name: (code, number, *ignored) for name, (code, number, ignored, _) in CASES.items()}
    done = run_python("-c", inspect.getsource(block_in_c) + FORKS, json.dumps(cases))
    assert done.returncode == 0, done.stderr
    for name, (status, said) in json.loads(done.stdout).items():
        _, number, _, expected = CASES[name]
        assert status == expected, name
        rest = "while counting: the numbers are kept; to go on, run the same command again\n"
        line = f"lensjax: {signal.Signals(number).name} {rest}"
        assert said == (line if status in (75, 130) else ""), name


def test_a_signal_after_the_work_does_not_change_its_status():
    code = """
import os, signal, sys
from lensjax import signals
signals.end_on_signals()
class Last:
    def __del__(self, kill=os.kill, pid=os.getpid(), number=int(sys.argv[1])):
        kill(pid, number)
last = Last()
sys.exit(3)
"""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        done = run_python("-c", code, int(number))
        assert (done.returncode, done.stderr) == (3, "")


def test_importing_the_command_line_leaves_signals_alone():
    handlers = [signal.getsignal(number) for number in signals.ENDING]
    assert signals._end not in handlers
