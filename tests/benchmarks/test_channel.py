"""Children answer, fail, are late and end; rounds go in turn."""

import sys
import textwrap
import time

import pairs
import pytest
from channel import Child, ChildError, ChildTimeoutError
from run_support import ROOT

pytestmark = pytest.mark.nightly

CHILD = """
    import sys
    import time

    import channel

    class Job:
        def __init__(self, settings):
            if settings.get("bad"):
                raise ValueError("a bad setting")
            print("this is not an answer")
            self.settings, self.info = settings, {"first_seconds": settings["seconds"]}

        def run(self, count):
            open(self.settings["log"], "a").write(f"{self.settings['name']}{count} ")
            time.sleep(count * self.settings["seconds"])

    channel.serve({"job": Job}, lambda: {"is": "a child"}, channel.host_peak_bytes)
"""


@pytest.fixture
def start(tmp_path):
    """Starts children; ends them with the test."""
    program = tmp_path / "child.py"
    program.write_text(textwrap.dedent(CHILD))
    started = []

    def start(name: str) -> Child:
        path = {"PYTHONPATH": str(ROOT / "benchmarks")}
        started.append(Child(name, [sys.executable, str(program)], path, quiet=True))
        return started[-1]

    yield start
    for child in started:
        child.close()


def settings(tmp_path, name: str, seconds: float) -> dict:
    return {"name": name, "seconds": seconds, "log": str(tmp_path / "log")}


def test_rounds_go_in_turn_and_are_compared(start, tmp_path):
    children = {"lensjax": start("a"), "PyTorch": start("b")}
    for child, name, seconds in zip(children.values(), "ab", (0.02, 0.06), strict=True):
        assert child.ask("hello") == {"is": "a child"}
        child.ask("build", job="job", settings=settings(tmp_path, name, seconds))
    timed = pairs.in_turn(children, {"lensjax": 2, "PyTorch": 3}, rounds=3, sleep=0.0)
    assert (tmp_path / "log").read_text() == "a2 a2 b3 b3 " * 3
    found = pairs.compared(timed)
    for name, least in (("lensjax", 0.02), ("PyTorch", 0.06)):
        assert len(timed["seconds"][name]) == 3
        assert found["median_seconds"][name] >= least
    (tmp_path / "log").unlink()
    pairs.in_turn(children, {"lensjax": 2, "PyTorch": 3}, rounds=2, sleep=0.0, settle=False)
    assert (tmp_path / "log").read_text() == "a2 b3 " * 2
    memory = pairs.memory(children)["lensjax"]
    assert 2**20 < memory["before_bytes"] <= memory["peak_bytes"] < 2**30


def test_the_ratio_is_that_of_pairs():
    timed = {"seconds": {"lensjax": [1.0, 2.0, 4.0], "PyTorch": [2.0, 2.0, 12.0]}}
    assert pairs.compared(timed) == {
        "median_seconds": {"lensjax": 2.0, "PyTorch": 2.0},
        "ratio": {"median": 2.0, "least": 1.0, "most": 3.0},
    }


def test_a_failure_is_told_and_the_child_goes_on(start, tmp_path):
    child = start("one")
    with pytest.raises(ChildError, match="one: build failed: ValueError: a bad setting"):
        child.ask("build", job="job", settings={"bad": True})
    assert child.ask("build", job="job", settings=settings(tmp_path, "a", 0.0))


def test_a_late_child_is_ended(start, tmp_path):
    child = start("late")
    child.ask("build", job="job", settings=settings(tmp_path, "a", 60.0))
    started = time.monotonic()
    with pytest.raises(ChildTimeoutError, match="late: round took longer than 1 s"):
        child.ask("round", count=1, timeout=1.0)
    assert time.monotonic() - started < 30
    with pytest.raises(ChildError, match="late ended with code -9"):
        child.ask("hello")


def test_a_python_without_the_framework_is_named(start):
    with (
        Child("PyTorch", [sys.executable, "-c", "raise SystemExit(3)"], {}, quiet=True) as child,
        pytest.raises(ChildError, match="PyTorch ended with code 3 when asked for hello"),
    ):
        child.ask("hello")


def test_counts_make_rounds_of_the_wanted_length():
    built = {"lensjax": {"first_seconds": 0.3}, "PyTorch": {"first_seconds": 5.0}}
    assert pairs.counts_for(built, 1.0) == {"lensjax": 4, "PyTorch": 1}


def test_paths_of_this_machine_are_left_out_of_the_command():
    arguments = ["--side=8", "--torch-python", "somewhere/python", "--results=x", "--rounds", "2"]
    assert pairs._shown(arguments) == ["--side=8", "--rounds", "2"]
