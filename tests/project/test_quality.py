"""The style of the tree: the checkers see and pass all of it, functions and files are short."""

import ast
import pathlib
import re
import shutil
import subprocess
import sys

import pytest
from run_support import ROOT

FOLDERS = ("lensjax", "configs", "tests", "benchmarks")
BAD = '"""A file with a fault for each checker."""\n\nimport os\nx: int = "text"\ny  =  1\n'
CHECKERS = {
    "ruff check": ["ruff", "check", "--no-cache"],
    "ruff format": ["ruff", "format", "--check", "--no-cache"],
    "mypy": ["mypy"],
}
COMPLAINTS = {"ruff check": "F401", "ruff format": "reformat", "mypy": "Incompatible types"}


def _python_files() -> list[pathlib.Path]:
    return [path for folder in FOLDERS for path in sorted((ROOT / folder).rglob("*.py"))]


def _run(checker: str, folder: pathlib.Path, cache: pathlib.Path) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", *CHECKERS[checker]]
    command += [f"--cache-dir={cache}"] if checker == "mypy" else ["."]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300)


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("mypy")


@pytest.mark.parametrize("checker", CHECKERS)
def test_the_tree_passes(checker, cache):
    done = _run(checker, ROOT, cache)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("folder", FOLDERS)
@pytest.mark.parametrize("checker", CHECKERS)
def test_the_checkers_see_a_fault_in_each_folder(tmp_path, cache, checker, folder):
    """In a copy of the settings, with one file in each folder, one of them bad."""
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    for name in FOLDERS:
        (tmp_path / name).mkdir()
        (tmp_path / name / f"fine_{name}.py").write_text('"""Fine."""\n')
    assert _run(checker, tmp_path, cache).returncode == 0
    (tmp_path / folder / "bad.py").write_text(BAD)
    done = _run(checker, tmp_path, cache)
    assert done.returncode != 0
    assert "bad.py" in done.stdout
    assert COMPLAINTS[checker] in done.stdout


def _functions(path: pathlib.Path) -> list[tuple[str, int]]:
    return [
        (node.name, (node.end_lineno or 0) - node.lineno + 1)
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
    ]


PACKAGE = sorted((ROOT / "lensjax").rglob("*.py"))


@pytest.mark.parametrize("path", PACKAGE, ids=lambda path: path.name)
def test_no_function_has_seventy_lines_and_no_file_four_hundred(path):
    assert {name: lines for name, lines in _functions(path) if lines >= 70} == {}
    assert len(path.read_text().splitlines()) < 400
    assert path.name != "utils.py"


def _tracked() -> list[pathlib.Path]:
    """Returns the text files of the project: what git knows or would add."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("not a git checkout")
    paths = [ROOT / name for name in done.stdout.splitlines()]
    binary = {".npz", ".npy", ".png", ".jpg", ".gif"}
    return [path for path in paths if path.is_file() and path.suffix not in binary]


# Written so that this file does not match itself.
PRIVATE = re.compile(
    r"(?<![\w.$}~])/(?:home|root|work|Users|mnt)/\w"
    r"|index[-_]url\s*=|/" + r"simple/?\b(?=.*pip)|artifactory|nexus\.|\.internal\b"
)


def test_no_file_holds_a_path_of_one_machine_or_a_registry():
    found = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()}"
        for path in _tracked()
        for number, line in enumerate(path.read_text(errors="replace").splitlines(), 1)
        if PRIVATE.search(line) and path != pathlib.Path(__file__)
    ]
    assert found == []


@pytest.mark.parametrize("text", ["see /home/me/x", "'/work/main'", "INDEX_URL = 1".lower()])
def test_the_search_for_such_paths_finds_them(text):
    assert PRIVATE.search(text)


@pytest.mark.parametrize("path", _python_files(), ids=lambda p: str(p.relative_to(ROOT)))
def test_lines_fit_even_in_long_texts(path):
    """The linter leaves lines alone that end in an address."""
    long = [n for n, line in enumerate(path.read_text().splitlines(), 1) if len(line) > 100]
    assert long == []
