"""Where the time of the tests goes: a pytest plugin that `benchmarks/time_of_tests.py` turns on.

Each process charges every second to one cause: the innermost of data set building, training,
fitting and waiting for a child that is running, with compilation taken out of it.
"""

import collections
import functools
import json
import os
import pathlib
import pkgutil
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

COMPILING = {
    "/jax/core/compile/jaxpr_trace_duration": "tracing",
    "/jax/core/compile/jaxpr_to_mlir_module_duration": "lowering",
    "/jax/core/compile/backend_compile_duration": "compilation",
}


class Clock:
    """Seconds of each cause in each test file."""

    def __init__(self) -> None:
        """Starts with nothing charged."""
        self.seconds: dict[str, dict[str, float]] = collections.defaultdict(
            lambda: collections.defaultdict(float)
        )
        self.causes = ["start"]
        self.file = "collection"
        self.since = time.perf_counter()
        self.compilations: list[tuple[float, float]] = []  # begin and seconds of the last ones

    def charge(self) -> None:
        """Charges the time since the last call to the innermost cause."""
        now = time.perf_counter()
        self.seconds[self.file][self.causes[-1]] += now - self.since
        self.since = now

    def compiled(self, event: str, duration_secs: float, **_: Any) -> None:
        """Moves the time of a compilation from the cause that it interrupted."""
        if event not in COMPILING:
            return
        begin, seconds = time.perf_counter() - duration_secs, duration_secs
        while self.compilations and self.compilations[-1][0] >= begin:  # of an inner function
            seconds -= self.compilations.pop()[1]
        self.compilations.append((begin, duration_secs))
        self.seconds[self.file][self.causes[-1]] -= seconds
        self.seconds[self.file][COMPILING[event]] += seconds

    def timed(self, cause: str, function: Callable) -> Callable:
        """A function whose time is charged to a cause."""

        @functools.wraps(function)
        def run(*arguments: Any, **options: Any) -> Any:
            self.charge()
            self.causes.append(cause)
            try:
                return function(*arguments, **options)
            finally:
                self.charge()
                self.causes.pop()

        return run


def _watch(clock: Clock) -> None:
    import jax  # after the settings of conftest.py

    jax.monitoring.register_event_duration_secs_listener(clock.compiled)
    for place, name, cause in (
        ("subprocess:Popen", "wait", "children"),
        ("subprocess:Popen", "communicate", "children"),
        ("run_support", "run_commands", "children"),
        ("tensorflow_datasets:core.DatasetBuilder", "download_and_prepare", "data sets"),
        ("lensjax.metrics.fitting", "minimise", "fits"),
        ("lensjax.metrics.c2st", "judge", "judging networks"),
        ("lensjax.training.loop", "train", "training"),  # last: it imports the others' callers
    ):
        owner = pkgutil.resolve_name(place)
        setattr(owner, name, clock.timed(cause, getattr(owner, name)))


def pytest_configure(config: pytest.Config) -> None:
    """Starts the clock of this process."""
    if "PYTEST_XDIST_WORKER" in os.environ or not config.getoption("numprocesses", None):
        clock = Clock()
        _watch(clock)
        config.pluginmanager.register(_Recorder(clock))


class _Recorder:
    def __init__(self, clock: Clock) -> None:
        self.clock = clock

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[None]:
        self.clock.charge()
        self.clock.file = item.location[0]
        self.clock.causes = ["rest"]
        try:
            return (yield)
        finally:
            self.clock.charge()

    def pytest_sessionfinish(self) -> None:
        self.clock.charge()
        folder = pathlib.Path(os.environ["LENSJAX_TEST_TIMES"])
        worker = os.environ.get("PYTEST_XDIST_WORKER", "main")
        (folder / f"{worker}.json").write_text(json.dumps(self.clock.seconds))
