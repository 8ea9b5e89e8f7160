"""Signals to whole commands, in every mode and at many moments."""

import json
import os
import pathlib
import shutil
import signal
import subprocess
import time

import numpy as np
import pytest
from run_support import SMOKE, metrics_of, run_commands, smoke_set_once, start_python

pytestmark = pytest.mark.usefixtures("quick_compiles")
# A mode, its signal, the function in which it comes, and what the line says.
MOMENTS = (
    ("train", signal.SIGTERM, "lensjax.config:from_config_dict", "starting: nothing was written"),
    ("train", signal.SIGINT, "lensjax.run.datasets:prepare", "preparing the data set: a data set"),
    ("train", signal.SIGHUP, "lensjax.training.loop:begin", "preparing the training: earlier"),
    ("train", signal.SIGTERM, "lensjax.training.prepare:compile_step", "compiling the training st"),
    ("sample", signal.SIGTERM, "lensjax.cli.sample_mode:load_generator", "drawing images: images"),
    (
        *("evaluate", signal.SIGTERM),
        *("lensjax.run.workdir:check_same", "evaluating: results are written"),
    ),
    ("classify", signal.SIGTERM, "lensjax.cli.classify_mode:load_classifier", "classifying: the"),
    ("export", signal.SIGTERM, "lensjax.cli.export_mode:_write", "exporting: an earlier export"),
    ("build_data", signal.SIGINT, "lensjax.run.datasets:prepare", "building the data set: a data"),
)


@pytest.mark.parametrize(("mode", "number", "function", "words"), MOMENTS)
def test_a_signal_in_a_mode_is_one_line_that_says_how_to_go_on(
    tmp_path, tfds_directory, mode, number, function, words
):
    smoke_set_once(tfds_directory)
    arguments = [SMOKE, f"--workdir={tmp_path / 'run'}", f"--mode={mode}"]
    arguments += [f"--images={tmp_path}"] if mode == "classify" else []
    more = {"SIGNAL": f"{int(number)} {function}", "TFDS_DATA_DIR": str(tfds_directory)}
    status, output = run_commands(tmp_path, {"command": arguments}, **more)["command"]
    assert status == (130 if number == signal.SIGINT else 75), output
    (line,) = (line for line in output.splitlines() if line.startswith("lensjax: "))
    assert line.startswith(f"lensjax: {number.name} while {words}")
    assert line.endswith("; to go on, run the same command again")
    assert output.endswith(f"{line}\n")
    for name in ("metrics.jsonl", "generated", "evaluation", "classified.csv"):
        assert not (tmp_path / "run" / name).exists()


def _handles(process: subprocess.Popen, number: int) -> bool:
    """Whether a process has a handler of a signal."""
    lines = pathlib.Path(f"/proc/{process.pid}/status").read_text().splitlines()
    caught = next(line for line in lines if line.startswith("SigCgt:"))
    return bool(int(caught.split()[1], 16) >> (number - 1) & 1)


def _signalled(
    log: pathlib.Path,
    arguments: list[str],
    number: signal.Signals,
    delay: float,
    sets: pathlib.Path,
) -> tuple[int, str]:
    """Sends a command a signal some time after it has its handlers; returns status and output."""
    cache = os.fspath(log.with_suffix(".cache"))  # so that every command compiles
    more = {"TFDS_DATA_DIR": os.fspath(sets), "LENSJAX_CACHE": cache}
    more |= {"JAX_COMPILATION_CACHE_DIR": cache} | {"XLA_FLAGS": ""}
    process = start_python(log, "-m", "lensjax.main", *arguments, **more)
    try:
        while process.poll() is None and not _handles(process, signal.SIGTERM):
            time.sleep(0.01)
        time.sleep(delay)
        process.send_signal(number)
        sent = time.monotonic()
        status = process.wait(500)
    finally:
        process.kill()
        process.wait()
    text = log.read_text()
    took = time.monotonic() - sent
    assert "saved step" in text or status == 0 or took < 5, f"{took:.1f} s\n{text}"
    return status, text


def _check_end(status: int, output: str, number: signal.Signals) -> None:
    assert "Traceback" not in output
    assert "Exception ignored" not in output
    lines = [line for line in output.splitlines() if line.startswith("lensjax: ")]
    if status == 0 or "saved step" in output:
        assert status in (0, 75)
        assert lines == []
        return
    assert status == (130 if number == signal.SIGINT else 75), output
    assert len(lines) == 1
    assert lines[0].startswith(f"lensjax: {number.name} while ")


DELAYS = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0, 11.0)


@pytest.mark.nightly
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("mode", ["train", "sample", "evaluate", "export", "build_data"])
def test_a_command_that_gets_signals_at_many_moments_works_at_last(
    tmp_path, smoke_run, tfds_directory, mode, number
):
    """Each command goes on where the last one was ended; the last one is left alone."""
    workdir, sets = tmp_path / "run", tmp_path / "sets"
    if mode in ("sample", "evaluate"):
        shutil.copytree(smoke_run.workdir, workdir)
        shutil.rmtree(workdir / "generated")
        shutil.rmtree(workdir / "evaluation")
        sets = tfds_directory
    arguments = [SMOKE, f"--workdir={workdir}", f"--mode={mode}", "--config.evaluate.num_images=6"]
    for moment, delay in enumerate(DELAYS):
        status, output = _signalled(tmp_path / f"{moment}", arguments, number, delay, sets)
        _check_end(status, output, number)
        if status:
            assert not (workdir / "generated" / "meta.json").exists()
            assert not (workdir / "evaluation" / "metrics.json").exists()
            record = workdir / "export" / "export.json"
            assert not record.exists() or not json.loads(record.read_text())["complete"]
    done, output = _signalled(tmp_path / "last", arguments, signal.SIGCONT, 0.0, sets)
    assert done == 0, output
    if mode == "train":
        assert [line["step"] for line in metrics_of(workdir)] == list(range(1, 61))
    if mode == "sample":
        assert len(np.load(workdir / "generated" / "images.npy")) == 12
