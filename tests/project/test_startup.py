"""What a command imports: nothing heavy before it is needed, TensorFlow after the first step."""

import importlib
import json
import os
import pathlib

import pytest
from run_support import ROOT, run_python

from lensjax.main import MODES

# Of what each mode imports at its beginning; some is imported later, inside functions.
MODULES = {
    "train": ("lensjax.training.loop", "lensjax.training.stopping"),
    "sample": ("lensjax.cli.sample_mode",),
    "evaluate": ("lensjax.evaluation.evaluate_generator", "lensjax.evaluation.evaluate_classifier"),
    "classify": ("lensjax.cli.classify_mode",),
    "export": ("lensjax.cli.export_mode",),
    "build_data": ("lensjax.cli.build_data_mode",),
}
READING = {"tensorflow_datasets", "array_record", "PIL"}  # Pillow comes with TFDS
ALLOWED = {"evaluate": READING, "build_data": READING}
HEAVY = (
    *("tensorflow", "tensorflow_datasets", "torch", "pandas", "h5py", "astropy", "sklearn"),
    *("jinja2", "matplotlib", "clu", "grain", "array_record", "safetensors", "PIL"),
)

# One start of Python; each mode is a fork of it.
BEGINNINGS = """
import importlib, json, os, sys, warnings
import lensjax.main, lensjax.cli.modes, lensjax.config
warnings.simplefilter("ignore")  # jax has threads, but has used no device yet
modes, heavy = json.loads(sys.argv[1])
for mode, modules in modes.items():
    if not os.fork():
        for name in modules:
            importlib.import_module(name)
        found = sorted({name.partition(".")[0] for name in sys.modules} & set(heavy))
        print(json.dumps([mode, found]), flush=True)
        os._exit(0)
    assert os.wait()[1] == 0, mode
"""
# Trains two steps, and says what is there before the first is done and when its line is written.
TRAINING = """
import json, pathlib, sys
from run_support import tiny_config, tiny_split
from lensjax.training import loop as training
from lensjax.training import prepare
from lensjax.run import writers

heavy, workdir = json.loads(sys.argv[1])
found = []

def look():
    found.append(sorted({name.partition(".")[0] for name in sys.modules} & set(heavy)))

compiled = prepare.compile_step
def compile_and_look(*arguments):
    step = compiled(*arguments)
    def looking(*state):
        if not found:
            look()
        return step(*state)
    return looking

prepare.compile_step = compile_and_look
writers._open_tensorboard = lambda folder: look()
config = tiny_config(train={"num_steps": 2, "checkpoint_every": 2})
training.train(config, pathlib.Path(workdir), tiny_split())
print("FOUND" + json.dumps(found))
"""


def test_a_mode_begins_without_what_it_may_not_need():
    assert set(MODULES) == set(MODES)
    arguments = json.dumps([{"no mode yet": [], **MODULES}, HEAVY])
    done = run_python("-c", BEGINNINGS, arguments)
    assert done.returncode == 0, done.stderr
    beginnings = dict(json.loads(line) for line in done.stdout.splitlines())
    assert set(beginnings) == {"no mode yet", *MODES}
    needless = {mode: set(heavy) - ALLOWED.get(mode, set()) for mode, heavy in beginnings.items()}
    assert not any(needless.values()), needless


def test_a_training_needs_neither_tensorflow_nor_matplotlib_before_its_first_line(tmp_path):
    path = os.pathsep.join((os.fspath(ROOT), os.fspath(ROOT / "tests" / "support")))
    arguments = json.dumps([["tensorflow", "matplotlib", "PIL"], os.fspath(tmp_path / "run")])
    code = f"import sys; sys.path[:0] = {path.split(os.pathsep)!r}\n{TRAINING}"
    done = run_python("-c", code, arguments, JAX_DISABLE_MOST_OPTIMIZATIONS="1")
    assert done.returncode == 0, done.stderr
    line = next(one for one in done.stdout.splitlines() if one.startswith("FOUND"))
    assert json.loads(line.removeprefix("FOUND")) == [[], []]


@pytest.mark.parametrize("flag", ["--help", "--helpshort", "-help"])
def test_help_ends_well_and_imports_no_jax(flag):
    done = run_python("-X", "importtime", "-m", "lensjax.main", flag)
    assert done.returncode == 0
    assert "configs/NAME.py" in done.stdout
    imported = {
        line.rpartition("|")[2].strip().partition(".")[0] for line in done.stderr.split("\n")
    }
    assert "absl" in imported
    assert not imported & {*HEAVY, "jax", "jaxlib", "flax", "optax", "numpy", "orbax"}


@pytest.mark.nightly
def test_the_benchmark_counts_a_package_once_with_what_it_imports(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    heavy_imports = importlib.import_module("startup").heavy_imports
    report = """import time: self [us] | cumulative | imported package
import time:       100 |        100 |       numpy.core
import time:       300 |        400 |     numpy
import time:       200 |        600 |   jax.numpy
import time:       400 |       1000 | jax
import time:        50 |         50 | numpy.late
import time:        70 |         70 |   json
import time:       500 |        570 | mine
"""
    expected = {"jax": 0.001, "numpy": 0.00045}
    assert heavy_imports(report) == {name: round(one, 3) for name, one in expected.items()}


def test_a_public_name_is_imported_at_its_first_use():
    code = """
import sys, lensjax
assert "jax" not in sys.modules
assert set(lensjax.__all__) <= set(dir(lensjax))
for name in lensjax.__all__:
    assert getattr(lensjax, name) is getattr(lensjax, name)
from lensjax import *
assert load is lensjax.load
try:
    lensjax.laod
except AttributeError as error:
    assert "laod" in str(error)
else:
    raise SystemExit("no error")
assert not hasattr(lensjax, "main")
"""
    done = run_python("-W", "error", "-c", code)
    assert done.returncode == 0, done.stderr


def test_the_benchmark_has_a_command_of_every_mode(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    commands = importlib.import_module("startup")._commands(pathlib.Path(tmp_path))
    modes = [
        next((one[7:] for one in command if one.startswith("--mode=")), "train")
        for name, command in commands.items()
        if name != "--help"
    ]
    assert set(modes) == set(MODES)
