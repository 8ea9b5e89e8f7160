"""Tiny runs for the tests of training, checkpoints, generation and the command line.

As a script it is a child of a test: `run_support.py train WORKDIR SETTINGS` is a run that can be
killed, `run_support.py commands` runs command lines that it reads, each in a fork of itself.
"""

import atexit
import contextlib
import ctypes
import dataclasses
import fcntl
import functools
import gc
import importlib
import json
import logging
import os
import pathlib
import pickle
import shutil
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import numpy as np

from lensjax import config as configuration
from lensjax.config.model import TASKS
from lensjax.data.dataset import DatasetInfo, LensSplit
from lensjax.run import workdir as workdirs

ROOT = pathlib.Path(__file__).resolve().parents[2]
DATA = ROOT / "tests" / "data" / "stored"
CLASS_NAMES = ("axion", "cdm", "no_sub")
MINI_SET = "deeplense/model_ii_mini"
SIDE = 16
TINY = {
    "data.name": MINI_SET,
    "model.patch_size": 8,
    "model.width": 8,
    "model.depth": 1,
    "model.num_heads": 2,
    "model.widths": (8,),
    "model.blocks": 1,
    "model.condition_width": 8,
    "optim.learning_rate": 1e-2,
    "optim.warmup_steps": 2,
    "optim.ema_half_life_images": 32.0,
    "train.batch_size": 8,
    "train.num_steps": 12,
    "train.log_every": 1,
    "train.sample_every": 100,
    "train.evaluate_every": 100,
    "train.evaluate_images": 6,
    "train.checkpoint_every": 4,
    "train.keep_last": 2,
    "sample.sampler": "euler",
    "sample.steps": 2,
    "sample.time_grid": "uniform",
    "sample.guidance": 2.0,
    "sample.num_images": 6,
    "sample.batch_size": 6,
    "sample.grid_columns": 2,
    "evaluate.num_images": 4,
    "parallel.num_devices": 1,
}
# What the networks beside the generators get in place of TINY's settings for sampling.
TINY_PARTS: dict[str, dict[str, Any]] = {
    "cnn": {"model.num_features": 8, "model.cells": 2},
    "rescnn": {"model.num_features": 8, "model.cells": 2},
    "resnet18": {},
    "vit": {},
    "mae": {"model.decoder_width": 8, "model.decoder_depth": 1, "model.decoder_heads": 2},
}

# Neither `sys.modules["tensorflow"] = None` nor a finder that raises would do: TFDS takes the key
# for a loaded module, and etils asks for the spec. So TensorFlow looks as if not installed.
HIDE_TENSORFLOW = """
import sys

class Hide:
    def __init__(self, finder):
        self.finder = finder
    def __getattr__(self, name):
        return getattr(self.finder, name)
    def find_spec(self, name, path=None, target=None):
        hidden = name.split(".")[0] == "tensorflow"
        return None if hidden else self.finder.find_spec(name, path, target)

sys.meta_path[:] = [Hide(finder) for finder in sys.meta_path]
"""


def nested(flat: dict[str, Any]) -> dict[str, Any]:
    """Returns the defaults of every field as nested dicts, changed at the given paths."""
    values = dataclasses.asdict(configuration.Config())
    for path, value in flat.items():
        *sections, leaf = path.split(".")
        owner = values
        for section in sections:
            owner = owner[section]
        assert leaf in owner, path
        owner[leaf] = value
    return values


def tiny_values(changes: dict[str, Any]) -> dict[str, Any]:
    """Returns TINY with changes; networks that draw nothing get no settings for it."""
    values = TINY | changes
    if TASKS.get(str(values.get("model.name", "dit")), "generate") == "generate":
        return values
    return {path: v for path, v in values.items() if path in changes or path[:7] != "sample."}


def tiny_config(**sections: dict[str, Any]) -> configuration.Config:
    """Returns a checked configuration that trains in a second; `train={"num_steps": 3}` changes."""
    changes = {f"{name}.{leaf}": v for name, part in sections.items() for leaf, v in part.items()}
    parts = TINY_PARTS.get(changes.get("model.name", ""), {})
    return configuration.from_config_dict(nested(tiny_values(parts | changes)))


def tiny_split(
    num: int = 24,
    seed: int = 0,
    class_names: tuple[str, ...] = CLASS_NAMES,
    shape: tuple[int, int, int] = (SIDE, SIDE, 1),
    band_names: tuple[str, ...] = (),
) -> Any:
    """Returns a split of random images, brighter with each class."""
    rng = np.random.default_rng(seed)
    labels = np.arange(num, dtype=np.int32) % max(1, len(class_names))
    images = rng.gamma(2.0, 1.0, (num, *shape)) * (1 + labels.reshape(-1, 1, 1, 1))
    images = images.astype(np.float32)
    info = DatasetInfo(
        name=MINI_SET,
        fingerprint=f"made for tests with seed {seed}",
        class_names=class_names,
        parameter_names=(),
        split_sizes={"train": num},
        image_shape=shape,
        flux_unit="counts",
        minimum=float(images.min()),
        maximum=float(images.max()),
        pixel_scale_arcsec=0.1,
        band_names=band_names,
    )
    return LensSplit(images, labels, np.zeros((num, 0), np.float32), info)


# The runs that `trained_generator` and `trained_classifier` share, of sets of the user's own: the
# forward model of a simulated set does not know images so small.
SHARED_SPLIT = tiny_split(60, seed=1)
OWN_SET = {"name": "deeplense/folder", "folder": "images"}
SHARED_GENERATOR = tiny_config(
    data=OWN_SET,
    train={"checkpoint_every": 6},
    optim={"ema_more_half_lives_images": (12.5, 2_000.0), "ema_warmup_share": 0.5},
)
SHARED_CLASSIFIER = tiny_config(
    data=OWN_SET,
    model={"name": "rescnn", "num_features": 8, "cells": 2, "widths": (8,)},
    train={"num_steps": 4, "evaluate_every": 2, "checkpoint_every": 4},
    classify={"validation_share": 0.2, "batch_size": 4},
)


def built_once(folder: pathlib.Path, build: Callable[[], object]) -> None:
    """Calls `build`, which fills a folder, in the first test process that comes; others wait."""
    done = folder.with_suffix(".built")
    with locked(folder.with_suffix(".lock")):
        if not done.exists():
            shutil.rmtree(folder, ignore_errors=True)  # of one that failed
            build()
            done.touch()


def trained_once(workdir: pathlib.Path, config: configuration.Config) -> tuple[pathlib.Path, Any]:
    """Trains in one of all test processes; returns the workdir and the state after the last step.

    The state is not read from the checkpoint, so that a test can compare the two.
    """
    from lensjax.training.loop import train

    state_file = workdir.with_suffix(".pickle")

    def build() -> None:
        state = train(config, workdir, SHARED_SPLIT, quiet=True)
        state_file.write_bytes(pickle.dumps(jax.device_get(state)))

    built_once(workdir, build)
    return workdir, pickle.loads(state_file.read_bytes())


def saved_run(
    workdir: pathlib.Path, config: configuration.Config, split: LensSplit, step: int = 3
) -> Any:
    """Writes a run that was never trained, quickly; random numbers stand in all parameters."""
    from support import random_like

    from lensjax.run.checkpoint import Checkpoints
    from lensjax.run.learning import abstract_state
    from lensjax.training.data import claim_dataset, scaling_of_images

    workdirs.claim(workdir, config)
    shape = split.info.image_shape
    claim_dataset(workdir, split, shape, lambda split: scaling_of_images(split, config.data))
    shapes = abstract_state(config, shape)
    state = random_like(shapes, seed=step)._replace(step=jax.numpy.int32(step))
    checkpoints = Checkpoints(workdir / workdirs.CHECKPOINTS)
    checkpoints.save(step, state)
    checkpoints.close()
    return state


def states_differ(one: Any, other: Any) -> list[str]:
    """Returns the names of the leaves that are not the same bit for bit."""
    pairs = zip(
        jax.tree_util.tree_leaves_with_path(one), jax.tree.leaves(other), strict=True
    )  # raises where the trees have other numbers of leaves
    return [
        jax.tree_util.keystr(path)
        for (path, left), right in pairs
        if left.dtype != right.dtype or np.asarray(left).tobytes() != np.asarray(right).tobytes()
    ]


def metrics_of(workdir: pathlib.Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


@contextlib.contextmanager
def captured_log() -> Iterator[list[str]]:
    """Yields the lines that lensjax itself logs meanwhile."""
    lines: list[str] = []

    class Keep(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if pathlib.Path(record.pathname).is_relative_to(ROOT / "lensjax"):  # Orbax logs as well
                lines.append(record.getMessage())

    logger, keep = logging.getLogger("absl"), Keep()
    before = logger.level
    logger.addHandler(keep)
    logger.setLevel(logging.INFO)
    try:
        yield lines
    finally:
        logger.removeHandler(keep)
        logger.setLevel(before)


def environment(**more: str) -> dict[str, str]:
    """Returns the environment of a child that runs this checkout on the CPU."""
    settings = {"JAX_PLATFORMS": "cpu", "PYTHONPATH": os.fspath(ROOT), "TF_CPP_MIN_LOG_LEVEL": "2"}
    return {**os.environ, **settings, **more}


def run_python(*arguments: object, **more: str) -> subprocess.CompletedProcess:
    """Runs Python on the checkout and returns how it ended; keywords go to its environment."""
    command = [sys.executable, *map(str, arguments)]
    return subprocess.run(
        command, cwd=ROOT, env=environment(**more), capture_output=True, text=True, timeout=300
    )


def start_python(log: pathlib.Path, *arguments: object, **more: str) -> subprocess.Popen:
    """Starts Python on the checkout; stdout and stderr go to a file."""
    with log.open("w") as output:
        return subprocess.Popen(
            [sys.executable, *map(str, arguments)],
            cwd=ROOT,
            env=environment(**more),
            stdout=output,
            stderr=subprocess.STDOUT,
        )


def wait_for(path: pathlib.Path, process: subprocess.Popen, seconds: float = 240.0) -> None:
    """Waits until a file is there; fails where the process ends before."""
    end = time.monotonic() + seconds
    while not path.exists():
        assert process.poll() is None, f"ended with {process.returncode} before {path.name}"
        assert time.monotonic() < end, f"{path.name} did not come in {seconds} s"
        time.sleep(0.02)


@contextlib.contextmanager
def locked(path: pathlib.Path) -> Iterator[None]:
    """Holds a lock between test processes, so that one of them builds what all use."""
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def hide_tensorboard() -> None:
    """Makes training write no event files, which saves the seconds of importing TensorFlow."""
    from lensjax.run import writers

    writers._open_tensorboard = lambda folder: None


def _stall_after(step: int, flag: pathlib.Path) -> None:
    """Makes the loop stand still once a step's line is written, for a kill between two saves."""
    from lensjax.run import writers

    owner: Any = writers.MetricWriters
    write = owner.scalars

    def scalars(self: Any, at: int, values: Any) -> None:
        write(self, at, values)
        while at == step and signal.getsignal(signal.SIGTERM) != signal.SIG_DFL:
            flag.touch()
            time.sleep(0.01)

    owner.scalars = scalars


def signal_at(step: int, number: int = signal.SIGTERM) -> None:
    """Sends this process a signal while the given step is being written down."""
    from lensjax.run import writers

    if signal.getsignal(number) == signal.SIG_IGN:  # as a test run in the background has it
        signal.signal(number, signal.SIG_DFL)

    owner: Any = writers.MetricWriters
    write = owner.scalars

    def scalars(self: Any, at: int, values: Any) -> None:
        write(self, at, values)
        if at == step:
            os.kill(os.getpid(), number)

    owner.scalars = scalars


def block_in_c() -> None:
    """Waits for ever in a function of C, as a compilation does: no Python handler runs."""
    signal.alarm(60)  # where the signal was ignored
    mutex = ctypes.create_string_buffer(64)
    for _ in range(2):  # the second time it is locked already
        ctypes.CDLL(None).pthread_mutex_lock(mutex)


def _signal_in(number: str, function: str) -> None:
    """Has a command meet a signal in a function, such as `lensjax.run.datasets:prepare`."""
    from lensjax import signals

    module, name = function.split(":")

    def meet(*arguments: Any, **keywords: Any) -> None:
        os.kill(os.getpid(), int(number))
        block_in_c()

    owner = importlib.import_module(module)
    *owners, leaf = name.split(".")
    setattr(functools.reduce(getattr, owners, owner), leaf, meet)
    for ending in signals.ENDING:  # those of a test run in the background may be ignored
        signal.signal(ending, signal.SIG_DFL)
    signals.end_on_signals()


def _train_child(workdir: pathlib.Path, settings: dict[str, Any]) -> None:
    from absl import logging as absl_logging

    from lensjax.training.loop import train

    absl_logging.use_absl_handler()
    absl_logging.set_verbosity(absl_logging.INFO)
    hide_tensorboard()
    if "stall_after" in settings:
        _stall_after(settings["stall_after"], workdir / "stalled")
    if "end_after" in settings:
        signal_at(settings["end_after"])
    config = configuration.from_config_dict(nested(TINY | settings.get("changes", {})))
    train(config, workdir, tiny_split())


def _run_command(request: dict[str, Any]) -> None:
    """Runs `python -m lensjax.main` with arguments; what it prints goes to a file."""
    from absl import app

    import lensjax.main

    with open(request["output"], "w") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    with open(os.devnull) as nothing:
        os.dup2(nothing.fileno(), 0)  # not the next requests
    os.environ.update(request["environment"])
    jax.config.update("jax_disable_most_optimizations", request["quick"])
    if "WITHOUT_PICTURES" in os.environ:
        report: Any = importlib.import_module("lensjax.evaluation.report")
        report._pictures = lambda *arguments: []
    if "TRAININGS" in os.environ:
        hide_tensorboard()
    sys.argv = ["lensjax", *request["arguments"]]
    if "SIGNAL" in os.environ:
        _signal_in(*os.environ["SIGNAL"].split())
    code: Any = 99
    try:
        app.run(lensjax.main.main, flags_parser=lensjax.main.command_line.parse)
    except SystemExit as end:
        code = end.code
    except BaseException:
        traceback.print_exc()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code if isinstance(code, int) else int(code is not None))


def _commands_child() -> None:
    import warnings

    for module in (  # once for all forks
        "lensjax.main",
        "lensjax.cli.modes",
        "lensjax.cli.build_data_mode",
        "lensjax.data.folder.folder_set",
        "lensjax.inference.generator",
        "lensjax.evaluation.evaluate_generator",
        "clu.parameter_overview",
        "orbax.checkpoint",
        "matplotlib.backends.backend_agg",
    ):
        importlib.import_module(module)
    warnings.simplefilter("ignore")  # jax has threads, but has used no device yet
    gc.freeze()
    for line in sys.stdin:
        child = os.fork()
        if not child:
            _run_command(json.loads(line))
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)


@functools.cache
def _commands_process() -> subprocess.Popen:
    """The process of this test process whose forks run command lines."""
    process = subprocess.Popen(
        [sys.executable, __file__, "commands"],
        cwd=ROOT,
        env=environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    atexit.register(process.communicate)  # closes its stdin, at which it ends
    return process


def run_commands(
    folder: pathlib.Path, commands: dict[str, list[str]], **more: str
) -> dict[str, tuple[int, str]]:
    """Runs command lines of lensjax and returns exit code and output of each.

    All of a test process share one start of Python and its imports, which take longer than most
    of them. Keywords go to the environment; `TRAININGS` leaves out event files,
    `WITHOUT_PICTURES` the pictures of reports, which take longer than the rest of one, and
    `SIGNAL` is a signal and the function in which it comes.
    """
    process, output = _commands_process(), folder / "output"
    assert process.stdin
    assert process.stdout
    request: dict[str, Any] = {
        "output": os.fspath(output),
        "environment": environment(**more),
        "quick": jax.config.read("jax_disable_most_optimizations"),
    }
    results = {}
    for name, arguments in commands.items():
        print(json.dumps(request | {"arguments": arguments}), file=process.stdin, flush=True)
        results[name] = (int(process.stdout.readline()), output.read_text())
    return results


class SmokeRun(NamedTuple):
    """What the commands of `configs/smoke.py` left.

    Attributes:
      workdir: of a training without TensorFlow, with images and an evaluation.
      built: what `--mode=build_data` printed.
      log: of the training.
      modes: exit code and output of the other modes.
      exported: the folder of `--mode=export`.
    """

    workdir: pathlib.Path
    built: str
    log: str
    modes: dict[str, tuple[int, str]]
    exported: pathlib.Path


SMOKE = "--config=configs/smoke.py"
WITHOUT_TENSORFLOW = f"""
{HIDE_TENSORFLOW}
from absl import app
import lensjax.main
app.run(lensjax.main.main, flags_parser=lensjax.cli.command_line.parse)
"""


def smoke_set_once(sets: pathlib.Path) -> str:
    """Builds the smoke config's set in one of all test processes; returns what was printed."""
    printed = sets / "smoke_set.txt"

    def build() -> None:
        command = ("-m", "lensjax.main", SMOKE, "--mode=build_data")
        done = run_python(*command, TFDS_DATA_DIR=str(sets))
        assert done.returncode == 0, done.stderr
        printed.write_text(done.stdout)

    built_once(sets / "smoke_set", build)
    return printed.read_text()


def smoke_once(folder: pathlib.Path, sets: pathlib.Path) -> SmokeRun:
    """Runs each mode of the smoke config in one of all test processes, with few images judged."""
    workdir, results = folder / "run", folder / "results.pickle"

    def build() -> None:
        folder.mkdir()
        environment = {"TFDS_DATA_DIR": str(sets)}
        built = smoke_set_once(sets)
        run = [SMOKE, f"--workdir={workdir}"]
        trained = run_python("-c", WITHOUT_TENSORFLOW, *run, **environment)
        assert trained.returncode == 0, trained.stderr
        commands = {
            "sample": [*run, "--mode=sample"],
            "evaluate": [*run, "--mode=evaluate", "--config.evaluate.num_images=6"],
            "build_data": [SMOKE, "--mode=build_data"],
            "export": [
                SMOKE,
                "--mode=export",
                f"--config.export.folder={folder / 'files'}",
                "--config.export.split=test",
            ],
        }
        environment |= {"TRAININGS": "1", "WITHOUT_PICTURES": "1"}
        modes = run_commands(folder, commands, **environment)
        run_results = SmokeRun(workdir, built, trained.stderr, modes, folder / "files")
        results.write_bytes(pickle.dumps(tuple(run_results)))

    built_once(folder, build)
    return SmokeRun(*pickle.loads(results.read_bytes()))


if __name__ == "__main__":
    if sys.argv[1] == "commands":
        _commands_child()
    else:
        _train_child(pathlib.Path(sys.argv[2]), json.loads(sys.argv[3]))
