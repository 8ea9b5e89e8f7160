"""The wheel of this tree, and environments that have it, away from the checkout."""

import os
import pathlib
import shutil
import subprocess
import sys
import venv

from run_support import ROOT

BUILT_FROM = ("lensjax", "pyproject.toml", "README.md", "LICENSE")


def run(command: list[object], folder: pathlib.Path, **more: str) -> str:
    """Runs a command away from the checkout and returns what it printed."""
    inherited = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "PYTHONHOME")}
    done = subprocess.run(
        list(map(str, command)),
        cwd=folder,
        env={**inherited, "JAX_PLATFORMS": "cpu", **more},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def build_wheel(folder: pathlib.Path) -> pathlib.Path:
    """Builds the wheel in a folder, from a copy of the tree, since a build leaves files behind."""
    source = folder / "source"
    source.mkdir()
    for name in BUILT_FROM:
        if (ROOT / name).is_dir():
            ignored = shutil.ignore_patterns("__pycache__")
            shutil.copytree(ROOT / name, source / name, ignore=ignored)
        else:
            shutil.copy(ROOT / name, source / name)
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps"]
    run([*pip, f"--wheel-dir={folder}", source], folder)
    (wheel,) = folder.glob("*.whl")
    return wheel


def install(wheel: pathlib.Path, extra: str, folder: pathlib.Path) -> pathlib.Path:
    """Makes an environment from the package index, as a user does, and returns its Python."""
    venv.create(folder, with_pip=False)
    python = folder / "bin" / "python"
    uv = [sys.executable, "-m", "uv", "pip", "install", "--quiet", f"--python={python}"]
    run([*uv, f"{wheel}[{extra}]"], folder)
    return python
