"""Where the campaign runs its children: their environment, starting, waiting and ending them."""

import contextlib
import itertools
import json
import os
import pathlib
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

_CHILD = pathlib.Path(__file__).with_name("child.py")
HANG_S = 180.0  # generous: others may use the cores too
_TICK = 0.02


class Ended(NamedTuple):
    """How a process ended.

    Attributes:
      status: of its exit, negative for the signal that killed it; None where it hung.
      output: its stdout.
      errors: its stderr.
      seconds: by the clock.
    """

    status: int | None
    output: str
    errors: str
    seconds: float


class Running:
    """A process of the campaign.

    Args:
      place: the files of its output are named after it.
      process: the process, or None for a fork of a server, which writes its id and end into files.
    """

    def __init__(self, place: pathlib.Path, process: subprocess.Popen | None = None) -> None:
        self._place, self._process = place, process
        self._started = time.monotonic()
        self.most_cpu = 0.0

    @property
    def pid(self) -> int | None:
        """Its process id; None until the server has forked."""
        if self._process is not None:
            return self._process.pid
        with contextlib.suppress(OSError, ValueError):
            return int(self._place.with_suffix(".pid").read_text())
        return None

    def status(self) -> int | None:
        """Its exit status; None while it runs."""
        if self._process is not None:
            return self._process.poll()
        with contextlib.suppress(OSError, ValueError):
            return int(self._place.with_suffix(".end").read_text())
        return None

    def cpu_seconds(self) -> float:
        """Seconds of processor time that it has used, all its threads together."""
        with contextlib.suppress(OSError, IndexError, ValueError):
            fields = pathlib.Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
            return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
        return 0.0

    def send(self, number: int) -> None:
        """Sends it a signal, if it still runs."""
        pid = self.pid
        if pid is not None and self.status() is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    def wait(self, limit_s: float = HANG_S) -> Ended:
        """Waits for its end; a process that takes longer is killed and has no status."""
        end = time.monotonic() + limit_s
        while (status := self.status()) is None and time.monotonic() < end:
            self.most_cpu = max(self.most_cpu, self.cpu_seconds())
            time.sleep(_TICK)
        seconds = time.monotonic() - self._started
        if status is None and self.pid is not None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, signal.SIGKILL)
        if self._process is not None:
            self._process.wait()
        output, errors = self._text(".out"), self._text(".err")
        return Ended(status, output, errors, round(seconds, 1))

    def _text(self, suffix: str) -> str:
        path = self._place.with_suffix(suffix)
        return path.read_text(errors="replace") if path.exists() else ""


class Lab:
    """Starts children that run one checkout of lensjax in one scratch folder.

    Args:
      tree: the root of the checkout.
      scratch: the folder for everything that is written.
    """

    def __init__(self, tree: pathlib.Path, scratch: pathlib.Path) -> None:
        self.tree, self.scratch = tree, scratch
        self._numbers = itertools.count()
        self._lock = threading.Lock()
        self._server: subprocess.Popen | None = None
        for name in ("home", "cache", "sets", "logs"):
            (scratch / name).mkdir(parents=True, exist_ok=True)

    def environment(self, changes: Mapping[str, str] | None = None) -> dict[str, str]:
        """The environment of a child."""
        own = {
            "JAX_PLATFORMS": "cpu",
            "PYTHONPATH": os.fspath(self.tree),
            "HOME": os.fspath(self.scratch / "home"),
            "LENSJAX_CACHE": os.fspath(self.scratch / "cache"),
            "TFDS_DATA_DIR": os.fspath(self.scratch / "sets"),
            "TF_CPP_MIN_LOG_LEVEL": "2",
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
            "XLA_FLAGS": "--xla_cpu_use_fusion_emitters=false",
        }
        kept = {name: os.environ[name] for name in ("PATH", "LANG") if name in os.environ}
        return kept | own | dict(changes or {})

    def _place(self) -> pathlib.Path:
        return self.scratch / "logs" / f"{next(self._numbers):05}.end"

    def fresh(self, arguments: Sequence[str], folder: pathlib.Path, **environment: str) -> Running:
        """Starts `python -m lensjax.main` with arguments as a process of its own."""
        place = self._place()
        with (
            place.with_suffix(".out").open("w") as output,
            place.with_suffix(".err").open("w") as errors,
        ):
            process = subprocess.Popen(
                [sys.executable, "-m", "lensjax.main", *arguments],
                cwd=folder,
                env=self.environment(environment),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=errors,
                start_new_session=True,
            )
        return Running(place, process)

    def start(
        self,
        arguments: Sequence[str] = (),
        folder: pathlib.Path | None = None,
        *,
        code: str = "",
        file_bytes: int = 0,
        obeys: bool = False,
        output: str = "",
        **environment: str,
    ) -> Running:
        """Starts a command line, or Python code, in a fork of a process that has imported lensjax.

        Args:
          arguments: of the command line.
          folder: in which it runs.
          code: runs instead of a command line.
          file_bytes: the largest file that it may write; 0 for any.
          obeys: whether permissions count for it, even if this user is root.
          output: a file for its stdout, such as /dev/full.
          **environment: changes.
        """
        place = self._place()
        request: dict[str, Any] = {
            "arguments": list(arguments),
            "code": code,
            "folder": os.fspath(folder or self.scratch),
            "output": output or os.fspath(place.with_suffix(".out")),
            "errors": os.fspath(place.with_suffix(".err")),
            "ends": os.fspath(place),
            "file_bytes": file_bytes,
            "obeys": obeys,
            "environment": environment,
        }
        with self._lock:
            if self._server is None:
                self._server = self._open_server()
            assert self._server.stdin is not None
            self._server.stdin.write(json.dumps(request) + "\n")
            self._server.stdin.flush()
        return Running(place)

    def run(self, *arguments: Any, **options: Any) -> Ended:
        """Starts a child as `start` does and waits for its end."""
        return self.start(*arguments, **options).wait()

    def _open_server(self) -> subprocess.Popen:
        with (self.scratch / "logs" / "server.txt").open("w") as log:
            server = subprocess.Popen(
                [sys.executable, os.fspath(_CHILD)],
                cwd=self.scratch,
                env=self.environment(),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        assert server.stdout is not None
        if server.stdout.readline() != "ready\n":
            raise SystemExit(f"{self.tree} cannot be imported; see {log.name}")
        return server

    def close(self) -> None:
        """Ends the server."""
        if self._server is not None:
            self._server.communicate()
