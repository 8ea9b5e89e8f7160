"""The command line: what it refuses, and how it says so."""

import json
import pathlib

import pytest
from run_support import ROOT, TINY, nested, run_commands, run_python

from lensjax.config import from_config_dict
from lensjax.data.catalogue import SIMULATED_SETS
from lensjax.files.atomic import write_json
from lensjax.run import workdir as files

SMOKE = "--config=configs/smoke.py"
MODES = ("train", "sample", "evaluate", "classify", "export", "build_data")
OF_A_RUN = ("train", "sample", "evaluate")  # these belong to the configuration of a workdir
CONFIG_FILES = {
    "raises": 'def get_config():\n    raise RuntimeError("the moon is full")\n',
    "raises_os_error": 'def get_config():\n    return open("not there")\n',
    "syntax": "def get_config(:\n",
    "exits": "import sys\ndef get_config():\n    sys.exit()\n",
    "exits_at_import": "import sys\nsys.exit('bye')  # before get_config\n",
    "interrupts": "def get_config():\n    raise KeyboardInterrupt\n",
    "without_get_config": "x = 1\n",
    "returns_text": 'def get_config():\n    return "text"\n',
    "typo": "config.train.bach_size = 3",
    "wrong_type": 'config.train.batch_size = "3"',
    "of_defaults": "pass",
}
BODY = """from lensjax.config import default_config

def get_config():
    config = default_config()
    {}
    return config
"""
# Command line (without --workdir), and what the one message must hold; of the values of fields
# those alone that a command line makes, the others are in `config/test_reading.py`.
REFUSED: dict[str, tuple[list[str], list[str]]] = {
    "no config": ([], ["--config is missing"]),
    "config not there": (
        ["--config=configs/smok.py"],
        ["--config: got 'configs/smok.py'", "no such"],
    ),
    "config not there, two words": (
        ["--config", "nope.py"],
        ["--config: got 'nope.py'", "no such"],
    ),
    "config is a folder": (["--config=configs"], ["--config: got 'configs'", "no such file"]),
    "config raises": (["raises"], ["raises.py, line 2", "the moon is full"]),
    "config raises OSError": (["raises_os_error"], ["raises_os_error.py, line 2", "not there"]),
    "config is no Python": (["syntax"], ["syntax.py", "invalid syntax"]),
    **{
        f"config that {name}": ([name], [f"{name}.py ends the program; allowed: a get_config()"])
        for name in ("exits", "exits_at_import", "interrupts")
    },
    "config without get_config": (["without_get_config"], ["without_get_config.py", "get_config"]),
    "config returns text": (["returns_text"], ["returns_text.py", "'str' object"]),
    "config with a typo": (["typo"], ["typo.py, line 5", "config.train.bach_size", "batch_size"]),
    "config with a wrong type": (["wrong_type"], ["line 5", 'train.batch_size = "3"', "int"]),
    "stray argument": ([SMOKE, "extra"], ["unexpected argument 'extra'", "--config.section.field"]),
    "unknown flag": ([SMOKE, "--wrkdir=x"], ["wrkdir", "workdir"]),
    "unknown mode": ([SMOKE, "--mode=trian"], ["--mode=trian", *MODES]),
    "unknown field": (
        [SMOKE, "--config.train.bach_size=3"],
        ["train.bach_size: got '3'", "batch_size"],
    ),
    "text for an integer": (
        [SMOKE, "--config.train.batch_size=x"],
        ["train.batch_size: got 'x'", "integer"],
    ),
    "numbers that are none": (
        [SMOKE, "--config.optim.ema_more_half_lives_images=8,nan"],
        ["optim.ema_more_half_lives_images: got ", "different numbers from 1e-30 to 1e+30"],
    ),
    "an average that is not kept": (
        [SMOKE, "--config.optim.ema_more_half_lives_images=(8, 2.5)", "--config.sample.ema=9"],
        ["sample.ema: got '9'; allowed: main, 8, 2.5, raw"],
    ),
    "too large": ([SMOKE, "--config.optim.learning_rate=1e400"], ["optim.learning_rate: got inf"]),
    "negative seed": ([SMOKE, "--config.seed", "-3"], ["seed: got -3", "from 0 to"]),
    "classes": (
        [SMOKE, "--config.model.num_classes=2"],
        ["model.num_classes: got 2", "allowed: 3"],
    ),
    "unknown data set": (
        [SMOKE, "--config.data.name=deeplense/model_iv"],
        ["data.name: got 'deeplense/model_iv'", *SIMULATED_SETS],
    ),
    "truth without a value": (
        [SMOKE, "--config.train.deterministic", "--config.train.num_steps=0"],
        ["train.num_steps: got 0"],
    ),
    "no truth": (
        [SMOKE, "--noconfig.train.deterministic", "--config.train.num_steps=0"],
        ["train.num_steps: got 0"],
    ),
    "too many devices": (
        [SMOKE, "--config.parallel.num_devices=3"],
        ["parallel.num_devices: got 3", "2"],
    ),
    "batch and devices": (
        [SMOKE, "--config.train.batch_size=15"],
        ["train.batch_size: got 15", "devices, 2"],
    ),
    "sample without a run": (
        [SMOKE, "--mode=sample"],
        ["config.json does not exist", "workdir of a run"],
    ),
    "export of images that nobody drew": (
        [SMOKE, "--mode=export", "--config.export.source=generated"],
        ["config.json does not exist", "workdir of a run"],
    ),
    "unknown format": (
        [SMOKE, "--mode=export", "--config.export.format=hdf"],
        ["export.format: got 'hdf'", "npy, hdf5, fits", "did you mean hdf5?"],
    ),
    "evaluate without a run": ([SMOKE, "--mode=evaluate"], ["config.json does not exist"]),
}


def _write_configs(folder: pathlib.Path) -> None:
    for name, text in CONFIG_FILES.items():
        body = text if "get_config" in text or name == "without_get_config" else BODY.format(text)
        (folder / f"{name}.py").write_text(body)


def _command(folder: pathlib.Path, arguments: list[str]) -> list[str]:
    if arguments and arguments[0] in CONFIG_FILES:
        arguments = [f"--config={folder / arguments[0]}.py", *arguments[1:]]
    return arguments


@pytest.fixture(scope="module")
def claimed(tmp_path_factory):
    """A workdir that belongs to the defaults with seed 3 and 8 steps."""
    folder = tmp_path_factory.mktemp("claimed")
    changes = TINY | {"seed": 3, "parallel.num_devices": None}
    files.claim(folder, from_config_dict(nested(changes)))
    write_json(folder / "dataset.json", {"image_shape": [16, 16, 1]})
    (folder / "checkpoints" / "8").mkdir(parents=True)  # a workdir without any belongs to nobody
    return folder


@pytest.fixture(scope="module")
def results(tmp_path_factory, claimed):
    """Exit code and output of every command line of this file, on two virtual devices."""
    folder = tmp_path_factory.mktemp("commands")
    _write_configs(folder)
    target = f"--workdir={folder / 'run'}"
    commands = {
        name: [*_command(folder, arguments), target] for name, (arguments, _) in REFUSED.items()
    }
    for mode in MODES:
        stopped = ["--config.sample.steps=0"] if mode == "build_data" else []
        commands[f"{mode} without workdir"] = [SMOKE, f"--mode={mode}", *stopped]
    for source in ("data", "generated"):
        fields = [f"--config.export.source={source}", f"--config.export.folder={folder}"]
        commands[f"export {source} without workdir"] = [SMOKE, "--mode=export", *fields]
    for mode in OF_A_RUN:
        commands[f"{mode} of another run"] = [SMOKE, f"--mode={mode}", f"--workdir={claimed}"]
    commands["workdir in a file"] = [SMOKE, f"--workdir={folder / 'raises.py' / 'run'}"]
    two = "--xla_force_host_platform_device_count=2"
    empty = str(folder / "no_sets")
    found = run_commands(folder, commands, XLA_FLAGS=two, TFDS_DATA_DIR=empty)
    assert not (folder / "no_sets").exists(), "a refused command built a data set"
    return found, folder


@pytest.mark.parametrize("name", REFUSED)
def test_bad_input_is_refused_with_one_message_before_any_work(results, name):
    found, folder = results
    code, output = found[name]
    assert code == 2
    assert "Traceback" not in output
    said = [line for line in output.splitlines() if line.startswith("lensjax: ")]
    assert len(said) == 1, output
    for words in REFUSED[name][1]:
        assert words in said[0], output
    # What else is printed is at most a line of the log, about the devices.
    assert len(output.splitlines()) <= 2, output
    assert not (folder / "run").exists()


@pytest.mark.parametrize("mode", MODES)
def test_a_missing_workdir_is_refused_but_for_build_data(results, mode):
    code, output = results[0][f"{mode} without workdir"]
    assert code == 2
    expected = "sample.steps: got 0" if mode == "build_data" else "--workdir is missing"
    assert expected in output


@pytest.mark.parametrize(
    ("source", "expected"),
    # The folder that is named holds the config files of this test.
    [("data", "export.folder: got"), ("generated", "--workdir is missing")],
)
def test_an_export_needs_a_workdir_where_it_reads_or_writes_one(results, source, expected):
    code, output = results[0][f"export {source} without workdir"]
    assert code == 2
    assert expected in output
    assert "Traceback" not in output


@pytest.mark.parametrize("mode", OF_A_RUN)
def test_a_workdir_of_another_configuration_is_refused_with_every_difference(
    results, claimed, mode
):
    before = json.loads((claimed / "config.json").read_text())
    code, output = results[0][f"{mode} of another run"]
    assert code == 2
    assert "Traceback" not in output
    assert "it belongs to another configuration" in output
    for path, was, is_now in (
        ("seed", 3, 0),
        ("model.width", 8, 64),
        ("model.widths", [8], [48, 96, 144]),
        ("train.batch_size", 8, 16),
    ):
        (line,) = (one.strip() for one in output.splitlines() if one.strip().startswith(path + ":"))
        assert repr(was) in line
        assert line.endswith(repr(is_now))
    for path in ("train.num_steps", "sample.steps", "evaluate.num_images", "train.log_every"):
        assert path not in output  # they may differ
    assert json.loads((claimed / "config.json").read_text()) == before
    left = sorted(path.name for path in claimed.iterdir())
    assert left == ["checkpoints", "config.json", "dataset.json"]


def test_a_workdir_that_cannot_be_made_is_named(results):
    code, output = results[0]["workdir in a file"]
    assert code == 2
    assert "cannot be created" in output
    assert "raises.py" in output
    assert "Traceback" not in output


def test_help_names_each_flag_and_mode():
    done = run_python("-m", "lensjax.main", "--help")
    assert "Traceback" not in done.stdout + done.stderr
    for words in ("--config", "--workdir", "--mode", *MODES, "configs/NAME.py"):
        assert words in done.stdout


def test_the_real_command_line_ends_with_one_line_and_code_2(tmp_path):
    target = tmp_path / "run"
    done = run_python(
        "-m", "lensjax.main", SMOKE, f"--workdir={target}", "--config.train.bach_size=3"
    )
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("lensjax: train.bach_size: got '3'; there is no such field;")
    assert done.stderr.count("\n") == 1
    assert not target.exists()


@pytest.mark.nightly
def test_names_of_files_are_utf8_in_a_locale_without_it(tmp_path):
    folder = tmp_path / "köln"
    folder.mkdir()
    (folder / "größe.py").write_text(BODY.format('config.export.folder = "ü"'), encoding="utf-8")
    (folder / "empty").mkdir()
    arguments = (
        f"--config={folder / 'größe.py'}",
        f"--workdir={folder / 'empty'}",
        "--mode=sample",
    )
    posix = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    done = run_python("-m", "lensjax.main", *arguments, **posix)
    assert done.returncode == 2
    assert f"{folder / 'empty' / 'config.json'} does not exist" in done.stderr
    assert "Traceback" not in done.stderr


def test_main_holds_no_logic():
    from lensjax import main

    assert main.MODES == MODES
    assert len((ROOT / "lensjax" / "main.py").read_text().splitlines()) < 150
