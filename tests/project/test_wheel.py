"""The wheel: all that the package needs is in it, and it works where there is no checkout."""

import configparser
import importlib
import json
import pathlib
import re
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile

import pytest
from old_folders_support import GENERATOR, unpack
from run_support import ROOT
from wheel_support import build_wheel, install, run

import lensjax


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> pathlib.Path:
    """The wheel of this tree."""
    return build_wheel(tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def python(wheel, tmp_path_factory) -> pathlib.Path:
    """The Python of an environment that has the wheel, and the packages of this one."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=False, symlinks=True)
    python = folder / "bin" / "python"
    (site,) = folder.glob("lib/python*/site-packages")
    # A folder that a .pth file names brings its packages and not what its own .pth files name, so
    # that the checkout, which is installed there to be edited, is not on the path.
    (site / "packages.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
    pip = [sys.executable, "-m", "pip", f"--python={python}", "install", "--quiet", "--no-deps"]
    run([*pip, "--no-index", "--ignore-installed", wheel], folder)
    home = run([python, "-c", "import lensjax; print(lensjax.__file__)"], folder).strip()
    assert pathlib.Path(home).is_relative_to(site)
    return python


def test_every_file_of_the_package_is_in_the_wheel(wheel):
    files = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "lensjax").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    names = zipfile.ZipFile(wheel).namelist()
    assert files - set(names) == set()
    assert {name for name in names if ".dist-info/" not in name} - files == set()
    assert sum(name.endswith(".jinja") for name in names) >= 3
    assert "lensjax/py.typed" in names


def test_the_version_has_one_source(wheel):
    assert re.fullmatch(r"\d+\.\d+\.\d+", lensjax.__version__)
    assert wheel.name == f"lensjax-{lensjax.__version__}-py3-none-any.whl"


def test_the_console_script_calls_what_is_there(wheel):
    (name,) = (one for one in zipfile.ZipFile(wheel).namelist() if one.endswith("entry_points.txt"))
    scripts = configparser.ConfigParser()
    scripts.read_string(zipfile.ZipFile(wheel).read(name).decode())
    module, _, function = scripts["console_scripts"]["lensjax"].partition(":")
    assert callable(getattr(importlib.import_module(module), function))


@pytest.mark.nightly
def test_the_console_script_is_the_same_as_the_module(python, tmp_path):
    script = [python.parent / "lensjax"]
    module = [python, "-m", "lensjax.main"]
    helps = [run([*command, "--help"], tmp_path) for command in (script, module)]
    assert all("--config" in text and "--workdir" in text for text in helps)
    for command in (script, module):
        done = subprocess.run(
            [*command, "--mode=sing"], cwd=tmp_path, capture_output=True, text=True, timeout=60
        )
        assert done.returncode == 2
        assert done.stderr.startswith("lensjax: ")
        assert "Traceback" not in done.stderr


@pytest.mark.nightly
def test_it_draws_from_what_ships(python, tmp_path):
    code = (
        "import lensjax\n"
        "images = lensjax.load('pretrained/model_ii').generate('cdm', num=2, seed=1)\n"
        "print(images.shape, images.dtype, bool(images.max() > 0.05))"
    )
    assert run([python, "-c", code], tmp_path).strip() == "(2, 64, 64, 1) float32 True"


@pytest.mark.nightly
def test_it_renders_the_report_of_an_evaluation(python, tmp_path):
    unpack(tmp_path)
    shutil.copy(ROOT / "configs" / "smoke.py", tmp_path / "mine.py")
    fields = [field for field in GENERATOR[1:] if "measures" not in field]
    command = [python.parent / "lensjax", "--config=mine.py", "--workdir=generator", *fields]
    command += ["--mode=evaluate", "--config.evaluate.measures=shapes"]
    run(command, tmp_path, TFDS_DATA_DIR=str(tmp_path / "sets"))
    evaluation = tmp_path / "generator" / "evaluation"
    page = (evaluation / "report.html").read_text()
    assert "<html" in page
    assert page.count("data:image/png;base64") >= 3
    numbers = json.loads((evaluation / "metrics.json").read_text())
    assert numbers["measures"]["shapes"]["status"] == "measured"


@pytest.mark.nightly
def test_it_needs_no_more_than_it_declares(wheel, tmp_path):
    """A new environment from the package index, as `pip install` makes it for a user."""
    python = install(wheel, "evaluate", tmp_path)
    test_it_draws_from_what_ships(python, tmp_path)
    test_it_renders_the_report_of_an_evaluation(python, tmp_path)
