"""How long commands take to begin: `--help`, what each mode imports, the first step of quickstart.

    python benchmarks/startup.py

prints tables and writes `benchmarks/results/startup.json`. Modes that need a run take that of the
quickstart's measurement. Each mode runs once more under `-X importtime` and ends where it has
imported what it needs: after the first step, the first drawn chunk, or its own small end.
"""

import argparse
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time
from typing import Any

from lensjax.run import provenance

ROOT = pathlib.Path(__file__).resolve().parent.parent
RESULT = ROOT / "benchmarks" / "results" / "startup.json"
HEAVY = (
    *("jax", "flax", "optax", "numpy", "scipy", "ml_collections", "tensorflow"),
    *("tensorflow_datasets", "orbax", "clu", "grain", "array_record", "matplotlib", "sklearn"),
    *("jinja2", "pandas", "h5py", "astropy", "torch", "PIL", "safetensors", "tqdm", "filelock"),
)
# Ends the process after the first step, and says when what began and ended.
PHASES = """
import json, os, sys, time
from absl import app
import lensjax.main
from lensjax.cli import command_line
begun = float(os.environ["BEGUN"])
times = {}

def mark(name):
    times.setdefault(name, (time.time() - begun, time.process_time()))

def hook():
    import jax
    from lensjax.run import datasets
    from lensjax.cli import modes
    from lensjax.training import prepare as training
    mark("imports")
    prepare, first, compiled = datasets.prepare, training.first_state, training.compile_step

    def prepare_marked(data):
        result = prepare(data)
        mark("data")
        return result

    def first_marked(*arguments):
        mark("workdir, scaling")
        result = first(*arguments)
        jax.block_until_ready(result)
        mark("initialisation")
        return result

    def compile_marked(*arguments):
        mark("images on the device")
        step = compiled(*arguments)
        mark("compilation")

        def once(*state):
            mark("monitor")
            jax.block_until_ready(step(*state))
            mark("first step")
            print("PHASES" + json.dumps(times), flush=True)
            os._exit(0)
        return once

    datasets.prepare = prepare_marked
    training.first_state, training.compile_step = first_marked, compile_marked

main = lensjax.main.main
def hooked(arguments):
    hook()
    main(arguments)
app.run(hooked, flags_parser=command_line.parse)
"""


def _environment(cache: pathlib.Path, **more: str) -> dict[str, str]:
    """An environment in which lensjax keeps its programs in `cache`."""
    kept = {name: value for name, value in os.environ.items() if "COMPILATION_CACHE" not in name}
    path = os.pathsep.join(filter(None, (os.fspath(ROOT), os.environ.get("PYTHONPATH"))))
    return {**kept, "PYTHONPATH": path, "LENSJAX_CACHE": os.fspath(cache), **more}


def _run(arguments: list[str], cache: pathlib.Path, **more: str) -> tuple[float, str]:
    """Runs Python and returns seconds and output; raises where it failed."""
    begun = time.time()
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT,
        env=_environment(cache, BEGUN=str(begun), **more),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    if done.returncode:
        raise SystemExit(f"{' '.join(arguments)} ended with {done.returncode}:\n{done.stdout}")
    return time.time() - begun, done.stdout


def first_step(cache: pathlib.Path, workdir: pathlib.Path) -> dict[str, dict[str, float]]:
    """How long each phase of the quickstart takes, from the process' start to a step.

    `seconds` are those of a clock; `processor_seconds` do not grow beside other work.

    Args:
      cache: `LENSJAX_CACHE`; cold where it is empty.
      workdir: to be made.
    """
    flags = ["--config=configs/quickstart.py", f"--workdir={workdir}"]
    _, output = _run(["-c", PHASES, *flags], cache)
    line = next(one for one in output.splitlines() if one.startswith("PHASES"))
    ends = json.loads(line.removeprefix("PHASES"))
    found: dict[str, dict[str, float]] = {"seconds": {}, "processor_seconds": {}}
    for place, phases in enumerate(found.values()):
        before = 0.0
        for name, moments in ends.items():
            phases[name], before = round(moments[place] - before, 2), moments[place]
        phases["total"] = round(before, 2)
    return found


def heavy_imports(report: str) -> dict[str, float]:
    """The seconds that heavy packages took to import, by the output of `-X importtime`.

    What a package imports counts as its own too, unless it was there already.
    """
    found: dict[str, float] = {}
    open_at: dict[str, int] = {}
    for line in reversed(report.splitlines()):  # children stand above what imports them
        if not line.startswith("import time:") or "cumulative" in line:
            continue
        _, cumulative, name = line.removeprefix("import time:").split("|")
        depth, package = len(name) - len(name.lstrip()), name.strip().partition(".")[0]
        open_at = {one: at for one, at in open_at.items() if at < depth}
        if package in HEAVY and package not in open_at:
            found[package] = found.get(package, 0.0) + int(cumulative) / 1e6
            open_at[package] = depth
    ordered = sorted(found.items(), key=lambda one: -one[1])
    return {name: round(seconds, 3) for name, seconds in ordered}


def _commands(folder: pathlib.Path) -> dict[str, list[str]]:
    """A small command of each mode; `train` and `sample` come before what needs them."""
    run, smoke = f"--workdir={folder / 'smoke'}", "--config=configs/smoke.py"
    tells = "--config=configs/smoke_classifier.py"
    other = f"--workdir={folder / 'classifier'}"
    steps = ["--config.train.num_steps=2"]
    measures = ["--config.evaluate.measures=shapes", "--config.evaluate.baselines=False"]
    export = ["--mode=export", f"--config.export.folder={folder / 'export'}"]
    return {
        "--help": ["--help"],
        "train": [smoke, run, *steps],
        "train, a classifier": [tells, other, *steps],
        "sample": [smoke, run, "--mode=sample"],
        "evaluate": [smoke, run, "--mode=evaluate", *measures],
        "classify": [
            *(tells, other, "--mode=classify"),
            f"--images={folder / 'smoke' / 'generated' / 'images.npy'}",
        ],
        "export": [smoke, *export, "--config.export.split=test"],
        "build_data": [smoke, "--mode=build_data"],
    }


def imports(folder: pathlib.Path, cache: pathlib.Path) -> dict[str, dict[str, float]]:
    """What each mode imports, and the seconds that takes."""
    found = {}
    for mode, arguments in _commands(folder).items():
        _, output = _run(["-X", "importtime", "-m", "lensjax.main", *arguments], cache)
        found[mode] = heavy_imports(output)
        shown = ", ".join(f"{name} {seconds:.2f}" for name, seconds in found[mode].items())
        print(f"{mode:20} {shown or 'nothing'}", flush=True)
    return found


def main() -> None:
    """Measures, prints and writes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=3, help="of which the fastest counts")
    parser.add_argument("--output", type=pathlib.Path, default=RESULT)
    arguments = parser.parse_args()
    result: dict[str, Any] = {
        "command": "python benchmarks/startup.py",
        "versions": provenance.versions(),
        "hardware": provenance.hardware(),
        "git_revision": provenance.git_revision(),
    }
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        warm = folder / "cache"
        times = [_run(["-m", "lensjax.main", "--help"], warm)[0] for _ in range(arguments.repeats)]
        result["help_seconds"] = round(min(times), 2)
        print(f"--help: {result['help_seconds']} s")
        cold = first_step(warm, folder / "cold")
        again = [first_step(warm, folder / f"warm_{i}") for i in range(arguments.repeats)]
        result["first_step"] = {
            "cold": cold,
            "warm": min(again, key=lambda phases: phases["seconds"]["total"]),
        }
        for kind, phases in result["first_step"].items():
            print(f"first step, {kind}: {phases}")
        result["import_seconds"] = imports(folder, warm)
    arguments.output.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
