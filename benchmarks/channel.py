"""Processes that compute when they are told to: JSON lines over stdin and stdout.

A child holds one job at a time. It answers
- `hello`: what it is and what it runs on;
- `build`, with the name of a job and its settings: makes the job, compiles, runs it once;
- `round`, with a count: runs the job so often and says how long it took;
- `memory`: the peak so far, and what it was before the first job.

Nothing but numpy and the standard library is imported here, so that the child of either framework
can use it.
"""

import contextlib
import json
import os
import pathlib
import resource
import select
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

# Large pages spare both frameworks the time in which the system hands out memory.
MEMORY_SETTINGS = {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}
Answer = dict[str, Any]


class ChildError(RuntimeError):
    """A child that could not do what it was asked."""


class ChildTimeoutError(ChildError):
    """A child that took longer than it was given."""


class Job(Protocol):
    """What a child can repeat.

    Attributes:
      info: what is known once it is built, as JSON types.
    """

    info: Answer

    def run(self, count: int) -> None:
        """Does it so often and waits for the last one."""
        ...


def host_peak_bytes() -> int:
    """The largest resident memory of this process so far.

    Linux's own line is of this program alone; `ru_maxrss` begins with what the parent had when it
    started the child.
    """
    try:
        lines = pathlib.Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
        return next(1024 * int(line.split()[1]) for line in lines if line.startswith("VmHWM"))
    except (OSError, StopIteration):  # not Linux
        return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def first_and_second(run: Callable[[int], None]) -> tuple[float, float]:
    """The seconds of a job's first run and of its second; the first one compiles."""
    seconds = []
    for _ in range(2):
        started = time.perf_counter()
        run(1)
        seconds.append(time.perf_counter() - started)
    return seconds[0], seconds[1]


def serve(
    jobs: Mapping[str, Callable[[Answer], Job]],
    hello: Callable[[], Answer],
    peak_bytes: Callable[[], int],
) -> None:
    """Answers requests until stdin ends; what others print goes to stderr.

    Args:
      jobs: makes a job from its settings, by name.
      hello: what this child is.
      peak_bytes: the peak of the memory that counts.
    """
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    job: Job | None = None
    before = 0

    def respond(request: Answer) -> Answer:
        nonlocal job, before
        if request["do"] == "hello":
            return hello()
        if request["do"] == "memory":
            return {"peak_bytes": peak_bytes(), "before_bytes": before}
        if request["do"] == "build":
            before = before or peak_bytes()
            job = None  # its memory goes first
            job = jobs[request["job"]](request["settings"])
            return job.info
        assert job is not None
        started = time.perf_counter()
        job.run(request["count"])
        return {"seconds": time.perf_counter() - started}

    for line in sys.stdin:
        try:
            answer = respond(json.loads(line))
        except Exception as error:  # the parent shall say it, not a broken pipe
            traceback.print_exc()
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), file=answers, flush=True)


class Child:
    """A process that answers.

    Args:
      name: how messages call it.
      command: program and arguments.
      environment: variables that it has beside this process's own.
      quiet: whether to drop what it prints.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        environment: Mapping[str, str],
        *,
        quiet: bool = False,
    ) -> None:
        self.name = name
        self._process = subprocess.Popen(
            command,
            env={**os.environ, **environment},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL if quiet else None,
            text=True,
        )

    def ask(self, do: str, *, timeout: float | None = None, **more: Any) -> Answer:
        """The answer to a request.

        Args:
          do: `hello`, `build`, `round` or `memory`.
          timeout: seconds after which the child is ended; None for none.
          more: the request's other fields.

        Raises:
          ChildTimeoutError: where it took longer.
          ChildError: where it failed or ended.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps({"do": do, **more}) + "\n")
            self._process.stdin.flush()
        except (BrokenPipeError, ValueError):  # it ended by itself, or by `close`
            raise ChildError(self._ended(do)) from None
        if timeout is not None:
            # One line answers one request, so that nothing waits in a buffer of Python's.
            ready, _, _ = select.select([self._process.stdout], [], [], max(timeout, 0.0))
            if not ready:
                self.close()
                raise ChildTimeoutError(f"{self.name}: {do} took longer than {timeout:.0f} s")
        line = self._process.stdout.readline()
        if not line:
            raise ChildError(self._ended(do))
        answer = json.loads(line)
        if "error" in answer:
            raise ChildError(f"{self.name}: {do} failed: {answer['error']}")
        return answer

    def _ended(self, do: str) -> str:
        return f"{self.name} ended with code {self._process.wait()} when asked for {do}"

    def close(self) -> None:
        """Ends the process."""
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None and not pipe.closed:
                with contextlib.suppress(BrokenPipeError):  # a request that was never read
                    pipe.close()

    def __enter__(self) -> "Child":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()
