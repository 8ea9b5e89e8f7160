"""What a user can break, from every mode of the command line: one line, no traceback, status 2."""

import json
import os
import pathlib
import shutil
import signal
import sys
import time
from collections.abc import Callable

import numpy as np
import pytest
from old_folders_support import CLASSIFIER, GENERATOR, unpack
from run_support import run_commands, run_python, start_python

pytestmark = pytest.mark.usefixtures("quick_compiles")
HERE = "{folder}"
NPZ = "a.npz"


def _json(name: str, content: object) -> Callable[[pathlib.Path], object]:
    return lambda run: (run / name).write_text(json.dumps(content))


def _changed(name: str, **fields: object) -> Callable[[pathlib.Path], object]:
    def change(run: pathlib.Path) -> None:
        content = json.loads((run / name).read_text())
        (run / name).write_text(json.dumps({**content, **fields}))

    return change


def _file_in_place_of(name: str) -> Callable[[pathlib.Path], object]:
    def replace(run: pathlib.Path) -> None:
        shutil.rmtree(run / name, ignore_errors=True)
        (run / name).write_text("")

    return replace


def _folder_in_place_of(name: str) -> Callable[[pathlib.Path], object]:
    def replace(run: pathlib.Path) -> None:
        (run / name).unlink()
        (run / name).mkdir()

    return replace


def _orbax_metadata(run: pathlib.Path) -> None:
    for path in (run / "checkpoints").rglob("_CHECKPOINT_METADATA"):
        path.write_text("[]")


def _truncated_with_its_place_taken(run: pathlib.Path) -> None:
    (run / "damaged_checkpoints").write_text("")
    for path in (run / "checkpoints" / "4").rglob("*"):
        if path.is_file() and path.stat().st_size > 200:
            path.write_bytes(path.read_bytes()[:50])


def _nothing(run: pathlib.Path) -> None:
    pass


def _generated(images: np.ndarray, labels: np.ndarray) -> Callable[[pathlib.Path], object]:
    def write(run: pathlib.Path) -> None:
        (run / "generated").mkdir()
        np.save(run / "generated" / "images.npy", images)
        np.save(run / "generated" / "labels.npy", labels)
        (run / "generated" / "meta.json").write_text(json.dumps({"num_images": len(images)}))

    return write


IMAGES = np.zeros((3, 64, 64, 1), np.float32)
EXPORT = ("--mode=export", "--config.export.source=generated")
# Name of a case: whose workdir, what is done to it, the flags, and words of the message.
CASES: dict[str, tuple[str, Callable[[pathlib.Path], object], tuple[str, ...], str]] = {
    "dataset a list": (
        "generator",
        _json("dataset.json", []),
        ("--mode=sample",),
        "no JSON object",
    ),
    "dataset empty": (
        "generator",
        _json("dataset.json", {}),
        (),
        "dataset.json: image_shape is missing; allowed: [H, W, C], integers from 1",
    ),
    "shape of text": (
        "generator",
        _changed("dataset.json", image_shape=["a", 64, 1]),
        ("--mode=sample",),
        "image_shape is ['a', 64, 1]; allowed: [H, W, C], integers from 1",
    ),
    "scaling not finite": (
        "generator",
        _changed("dataset.json", scaling={"kind": "linear", "shift": 0, "spread": float("nan")}),
        ("--mode=sample",),
        "scaling.spread is nan; allowed: a finite number above 0",
    ),
    "no classes": (
        "generator",
        _changed("dataset.json", class_names=[]),
        ("--mode=sample",),
        "names 0 classes; allowed: 3",
    ),
    "dataset of a classifier": (
        "classifier",
        _json("dataset.json", None),
        ("--mode=classify", f"--images={HERE}/given.npy"),
        "no JSON object",
    ),
    "temperature": (
        "classifier",
        _changed("classifier.json", temperature=0),
        ("--mode=classify", f"--images={HERE}/given.npy"),
        "temperature is 0; allowed",
    ),
    "provenance": (
        "generator",
        _json("provenance.json", {"starts": 3}),
        (),
        "provenance.json: starts is 3; allowed: a list",
    ),
    "config of a section": (
        "generator",
        _json("config.json", {"config": {"data": 3}}),
        ("--mode=sample",),
        "config.json: config.data is 3; allowed: an object with fields",
    ),
    "checkpoints a file": (
        "generator",
        _file_in_place_of("checkpoints"),
        (),
        "checkpoints cannot be written in",
    ),
    "orbax metadata": (
        "generator",
        _orbax_metadata,
        ("--mode=sample",),
        "cannot be read: Metadata",
    ),
    "no place for damage": (
        "generator",
        _truncated_with_its_place_taken,
        (),
        "damaged checkpoints cannot be moved to",
    ),
    "metrics a folder": (
        "generator",
        _folder_in_place_of("metrics.jsonl"),
        (),
        "metrics.jsonl is not a file; move it away",
    ),
    "generated a file": (
        "generator",
        _file_in_place_of("generated"),
        ("--mode=sample",),
        "generated is not a folder",
    ),
    "evaluation a file": (
        "generator",
        _file_in_place_of("evaluation"),
        ("--mode=evaluate",),
        "evaluation is not a folder",
    ),
    "images in a damaged npz": (
        "generator",
        _nothing,
        ("--mode=evaluate", f"--images={HERE}/{NPZ}"),
        "a.npz: is text, not what its suffix .npz says",
    ),
    "images in a pipe": (
        "generator",
        _nothing,
        ("--mode=evaluate", f"--images={HERE}/pipe.npy"),
        "pipe.npy: is a device, not a file",
    ),
    "images beyond float32": (
        "generator",
        _nothing,
        ("--mode=evaluate", f"--images={HERE}/huge.npy"),
        "huge.npy: holds pixels beyond 3.4e38",
    ),
    "wrong hash of Inception": (
        "generator",
        _nothing,
        (
            "--mode=evaluate",
            "--config.evaluate.measures=inception",
            f"--config.evaluate.inception_weights={HERE}/given.npy",
        ),
        "has the SHA-256",
    ),
    "exported labels": (
        "generator",
        _generated(IMAGES, np.array([0, 1, 9])),
        EXPORT,
        "integers from 0 to 3",
    ),
    "exported dtype": (
        "generator",
        _generated(IMAGES.astype(complex), np.array([0, 1, 2])),
        EXPORT,
        "images of complex128",
    ),
    "export of nothing": (
        "generator",
        _generated(IMAGES[:0], np.array([0, 1])),
        EXPORT,
        "holds images (0, 64, 64, 1)",
    ),
    "nobody's home": (
        "generator",
        _nothing,
        ("--mode=evaluate", "--images=~nobody_of_this_name/x"),
        "--images: got '~nobody_of_this_name/x'",
    ),
    "nobody's export": (
        "generator",
        _nothing,
        ("--mode=export", "--config.export.folder=~nobody_of_this_name/x"),
        "export.folder: got",
    ),
    "an address": (
        "generator",
        _nothing,
        ("--mode=build_data", "--config.data.directory=gs://bucket/sets"),
        "data.directory: got 'gs://bucket/sets'",
    ),
    "a long name": (
        "generator",
        _nothing,
        ("--mode=build_data", f"--config.data.directory={HERE}/{'x' * 300}"),
        "File name too long",
    ),
    "no workdir": ("generator", _nothing, ("--workdir=",), "--workdir is missing"),
    "many steps": (
        "generator",
        _nothing,
        ("--mode=sample", "--config.sample.steps=100000000000"),
        "sample.steps: got 100000000000; allowed",
    ),
    "a config that ends the program": (
        "generator",
        _nothing,
        (f"--config={HERE}/ends.py",),
        "ends the program",
    ),
    "a config that returns nothing": (
        "generator",
        _nothing,
        (f"--config={HERE}/none.py",),
        "get_config() returns None",
    ),
    "a config with an argument": (
        "generator",
        _nothing,
        (f"--config={HERE}/argument.py",),
        "missing 1 required positional argument",
    ),
}


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory):
    """Exit code and output of every case, each in a copy of a workdir that 0.1.0 wrote."""
    folder = tmp_path_factory.mktemp("refusals")
    unpack(folder)
    np.save(folder / "given.npy", IMAGES)
    np.save(folder / "huge.npy", np.full((3, 64, 64), 1e300))
    (folder / NPZ).write_text("no zip")
    os.mkfifo(folder / "pipe.npy")
    (folder / "ends.py").write_text("import sys\n\ndef get_config():\n    sys.exit(0)\n")
    (folder / "none.py").write_text("def get_config():\n    pass\n")
    (folder / "argument.py").write_text("def get_config(a):\n    return a\n")
    commands = {}
    for number, (name, (kind, damage, flags, _)) in enumerate(CASES.items()):
        run = folder / f"run_{number}"
        shutil.copytree(folder / kind, run)
        damage(run)
        fields = GENERATOR if kind == "generator" else CLASSIFIER
        own = [flag.replace(HERE, str(folder)) for flag in flags]
        given = {flag.partition("=")[0] for flag in own}
        usual = [*fields, f"--workdir={run}"]
        commands[name] = [one for one in usual if one.partition("=")[0] not in given] + own
        if any(flag.endswith(".py") and "config" in flag for flag in own):
            commands[name] = [f"--workdir={run}", *own]
    return run_commands(folder, commands, TFDS_DATA_DIR=str(folder / "sets"), TRAININGS="1")


@pytest.mark.parametrize("name", CASES)
def test_it_is_said_in_one_line(outcomes, name):
    code, output = outcomes[name]
    assert "Traceback" not in output, output
    said = [line for line in output.splitlines() if line.startswith("lensjax: ")]
    assert len(said) == 1, output
    assert CASES[name][3] in said[0]
    assert code == 2


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("JAX_PLATFORMS", "nonsense", "JAX_PLATFORMS: got 'nonsense'; allowed: devices of this"),
        ("JAX_ENABLE_X64", "maybe", "environment variable: invalid truth"),
    ],
)
def test_a_setting_of_the_environment_is_refused(tmp_path, name, value, words):
    arguments = ("--config=configs/smoke.py", f"--workdir={tmp_path / 'run'}")
    done = run_python("-m", "lensjax.main", *arguments, **{name: value})
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert words in done.stderr


INTERRUPTED = """
import signal, time
signal.signal(signal.SIGINT, signal.default_int_handler)  # a background shell has it ignored
import lensjax.main
def wait(arguments):
    print("started", flush=True)
    time.sleep(60)
lensjax.main.main = wait
lensjax.main.run()
"""


def test_an_interrupt_before_the_loop_is_no_traceback(tmp_path):
    process = start_python(tmp_path / "log", "-c", INTERRUPTED, "x")
    try:
        deadline = time.monotonic() + 60
        while "started" not in (tmp_path / "log").read_text() and time.monotonic() < deadline:
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 130
    finally:
        process.kill()
        process.wait()
    log = (tmp_path / "log").read_text()
    assert "Traceback" not in log
    line = (
        "lensjax: SIGINT while starting: nothing was written; to go on, run the same command again"
    )
    assert log == f"started\n{line}\n"


def test_a_reader_that_has_gone_costs_no_traceback(tmp_path):
    code = "import lensjax.main as m\n"
    code += "m.main = lambda arguments: print('x' * 100_000, flush=True)\nm.run()"
    script = f'"{sys.executable}" -c "{code}" x | true; exit ${{PIPESTATUS[0]}}'
    (tmp_path / "pipe.sh").write_text(script)
    done = run_python("-c", f"import os, sys; sys.exit(os.system('bash {tmp_path}/pipe.sh') >> 8)")
    assert "Traceback" not in done.stderr
    assert done.returncode == 1
