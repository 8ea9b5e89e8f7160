"""What the checkers leave open: they see the whole tree, and functions and files are short."""

import ast
import pathlib
import re
import subprocess
import sys
import tomllib

import pytest
from run_support import ROOT

FOLDERS = ("lensjax", "configs", "tests", "benchmarks")


def test_the_checkers_see_every_file_of_python():
    """`launch/test.sh` runs them on the tree."""
    command = [sys.executable, "-m", "ruff", "check", "--show-files", "."]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    seen = {pathlib.Path(line) for line in done.stdout.splitlines()}
    assert {path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py")} - seen == set()
    mypy = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["mypy"]
    assert set(FOLDERS) <= set(mypy["files"])
    assert "exclude" not in mypy
    assert not any("ignore_errors" in part for part in (mypy, *mypy["overrides"]))


def test_no_function_has_seventy_lines_and_no_file_four_hundred():
    long = []
    for path in (ROOT / "lensjax").rglob("*.py"):
        text = path.read_text()
        long += [path] if text.count("\n") >= 400 or path.name == "utils.py" else []
        long += [
            (path, node.name)
            for node in ast.walk(ast.parse(text))
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
            and (node.end_lineno or 0) - node.lineno >= 69
        ]
    assert long == []


# Written so that this file does not match itself.
PRIVATE = re.compile(
    r"(?<![\w.$}~])/(?:home|root|work|Users|mnt)/\w"
    r"|index[-_]url\s*=|/" + r"simple/?\b(?=.*pip)|artifactory|nexus\.|\.internal\b"
)


def test_no_file_holds_a_path_of_one_machine_or_a_registry():
    for text in ("see /home/me/x", "'/work/main'", "INDEX_URL = 1".lower()):
        assert PRIVATE.search(text)
    # What git has or would add.
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("not a git checkout")
    paths = {ROOT / name for name in done.stdout.splitlines()} - {pathlib.Path(__file__)}
    found = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()}"
        for path in sorted(paths)
        if path.is_file() and path.suffix not in {".npz", ".npy", ".png", ".jpg", ".gif"}
        for number, line in enumerate(path.read_text(errors="replace").splitlines(), 1)
        if PRIVATE.search(line)
    ]
    assert found == []
