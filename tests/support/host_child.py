"""One process of a run on several: `host_child.py WORKDIR SETTINGS`, a child of a test.

SETTINGS: `changes` to the tiny configuration by full path, the `tasks` to do, a `signal` (number,
step) that this process sends itself, a checkpoint that is `damaged` for it, and a `report` for what
the tasks found.
"""

import dataclasses
import json
import os
import pathlib
import signal
import sys
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from absl import app
from absl import logging as absl_logging
from run_support import TINY, hide_tensorboard, nested, tiny_split

from lensjax.cli import rendezvous
from lensjax.cli.sample_mode import sample_mode
from lensjax.config import Config, from_config_dict
from lensjax.devices import hosts
from lensjax.errors import HostError, TrainingError, UserError
from lensjax.run.checkpoint import Checkpoints
from lensjax.run.learning import build_spread, make_init_state, with_shardings
from lensjax.signals import RUN_AGAIN
from lensjax.training import stopping
from lensjax.training.loop import train

# A batch over eight devices, and a network large enough to be divided among them.
PAIR = {"parallel.num_devices": None, "train.batch_size": 16, "model.width": 32}


def _send_at(workdir: pathlib.Path, number: int, step: int) -> None:
    reached = stopping.StopRequest.reached

    def send(self: stopping.StopRequest, at: int) -> str | None:
        if at == step:
            while number == signal.SIGKILL and not (workdir / "checkpoints" / "4").is_dir():
                time.sleep(0.05)  # what the test goes on from
            os.kill(os.getpid(), number)
            time.sleep(0.5)  # a signal's news take a moment to the other host
        return reached(self, at)

    stopping.StopRequest.reached = send  # type: ignore[method-assign, assignment]


def _train(config: Config, workdir: pathlib.Path) -> dict[str, Any]:
    stop = stopping.StopRequest()
    splits = tiny_split(24), tiny_split(12, seed=1)
    state = train(config, workdir, *splits, stop=stop)
    return {"step": int(state.step), "signal": stop.signal_name}


def _sample(config: Config, workdir: pathlib.Path) -> dict[str, Any]:
    sample_mode(config, workdir)
    return {}


def _agree(config: Config, workdir: pathlib.Path) -> dict[str, Any]:
    """What the processes find together, to be compared with what one finds."""
    number, num = jax.process_index(), jax.process_count()
    rows = np.arange(10, dtype=np.float32).reshape(5, 2)
    seen: list[int] = []

    def double(tree: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        seen.append(len(tree["a"]))
        return {"a": 2 * tree["a"], "b": tree["b"] > 2}

    found = hosts.share_rows(double, {"a": rows, "b": np.arange(5)})
    np.testing.assert_array_equal(found["a"], 2 * rows)
    np.testing.assert_array_equal(found["b"], np.arange(5) > 2)
    assert hosts.gather_texts(f"ä{number}" * (1 + number)) == [
        f"ä{other}" * (1 + other) for other in range(num)
    ]
    assert (hosts.all_agree(True) and not hosts.all_agree(number == 0)) or num == 1
    assert hosts.from_main(lambda: {"number": number}) == {"number": 0}
    return {"rows": seen, "main": hosts.is_main()}


def _apart(config: Config, workdir: pathlib.Path) -> dict[str, Any]:
    """What this process is told when each sees a folder of its own."""
    hosts._SHARED_SECONDS = 0.1
    own = workdir / f"disk_{jax.process_index()}"
    own.mkdir(parents=True)
    told = {}
    if hosts.is_main():
        (own / "8").mkdir()
    for name, check in (("run", hosts.check_shared), ("8", hosts.check_seen)):
        try:
            check(own / name)
        except HostError as error:
            told[name] = str(error)
    return told


def _wait(config: Config, workdir: pathlib.Path) -> dict[str, Any]:
    """Waits for the others within JAX, as a training does; the second process does not come."""
    workdir.mkdir(exist_ok=True)
    (workdir / f"joined_{jax.process_index()}").touch()
    if jax.process_index() == 1:
        time.sleep(60)
    hosts.barrier("the second process")
    return {}


def _fail(number: int) -> Callable[[Config, pathlib.Path], dict[str, Any]]:
    """A task that fails on one process while the other waits for it."""

    def fail(config: Config, workdir: pathlib.Path) -> dict[str, Any]:
        if jax.process_index() == number:
            raise TrainingError("the disk of this host is full")
        hosts.barrier("the one that fails")
        return {}

    return fail


def _fail_at(step: int) -> None:
    """Makes one checkpoint look damaged to this process, as a bad disk of one host would."""
    read = Checkpoints._read_sound

    def read_sound(self: Checkpoints, reader: Any, at: int, expected: Any) -> Any:
        if at == step:
            raise ValueError("the disk of this host is bad")
        return read(self, reader, at, expected)

    Checkpoints._read_sound = read_sound  # type: ignore[method-assign, assignment]


def _restore(config: Config, workdir: pathlib.Path) -> dict[str, Any]:
    """Reads the newest sound checkpoint as a training does that divides its state."""
    mesh = build_spread(config).mesh
    init = make_init_state(config, tiny_split().info.image_shape)
    checkpoints = Checkpoints(workdir / "checkpoints")
    state = checkpoints.restore(with_shardings(jax.eval_shape(init), mesh))
    checkpoints.close()
    assert state is not None
    return {"step": int(state.step)}


TASKS = {
    "restore": _restore,
    "train": _train,
    "sample": _sample,
    "agree": _agree,
    "apart": _apart,
    "wait": _wait,
    "fail_0": _fail(0),
    "fail_1": _fail(1),
}


def main(arguments: list[str]) -> None:
    """Joins, does the tasks, and reports; what a user can put right is one line."""
    workdir, settings = pathlib.Path(arguments[1]), json.loads(arguments[2])
    absl_logging.set_verbosity(absl_logging.INFO)
    hide_tensorboard()
    if "signal" in settings:
        _send_at(workdir, *settings["signal"])
    if "damaged" in settings:
        _fail_at(settings["damaged"])
    try:
        config = from_config_dict(nested(TINY | PAIR | settings.get("changes", {})))
        found: dict[str, Any] = {}
        with rendezvous.joined(config):
            for task in settings["tasks"]:
                found |= TASKS[task](config, workdir)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)
    pathlib.Path(settings["report"]).write_text(json.dumps(found))
    unfinished = found.get("signal") and found["step"] < config.train.num_steps
    sys.exit(RUN_AGAIN if unfinished else 0)


if __name__ == "__main__":
    assert dataclasses.is_dataclass(Config)
    app.run(main)
