"""The requirement files, pyproject.toml and the imports of the package name the same packages."""

import ast
import pathlib
import re
import sys
import tomllib

import pytest
from run_support import ROOT

NAME = re.compile(r"^([A-Za-z0-9_.-]+)(\[[a-z0-9]+\])?(>=[0-9.]+)?")
# What the package imports under another name than the one it is installed by.
INSTALLED_AS = {
    "PIL": "pillow",
    "absl": "absl-py",
    "apache_beam": "apache-beam",
    "array_record": "array-record",
    "ml_collections": "ml-collections",
    "orbax": "orbax-checkpoint",
    "sklearn": "scikit-learn",
    "tensorflow": "tensorflow-cpu",
    "tensorflow_datasets": "tensorflow-datasets",
}
UNIMPORTED = {  # what others of the list import
    "importlib-resources",
    "tensorboard",
}


def bounds(lines: list[str]) -> dict[str, str]:
    """Returns the lower bound of each package, without extras and markers."""
    found = {}
    for line in lines:
        match = NAME.match(line.strip())
        if match:
            found[match[1].replace("tensorflow-cpu", "tensorflow")] = match[3]
    return found


def project() -> dict:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


@pytest.mark.parametrize(
    "name", ["requirements.txt", "requirements-gpu.txt", "requirements-tpu.txt"]
)
def test_a_requirement_file_has_the_bounds_of_the_project(name):
    lines = [line for line in (ROOT / name).read_text().splitlines() if not line.startswith("#")]
    extras = project()["optional-dependencies"]
    expected = bounds(project()["dependencies"] + extras["evaluate"] + extras["tensorboard"])
    assert bounds(lines) == expected
    assert all(bound is not None for bound in expected.values())


def _imported(path: pathlib.Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module.partition(".")[0])
    return names


def test_the_tests_install_what_reads_files_within_the_same_bounds():
    extras = project()["optional-dependencies"]
    assert bounds(extras["files"]).items() <= bounds(extras["test"]).items()


def test_every_import_of_the_package_is_declared_and_every_declaration_used():
    imported = set().union(*map(_imported, (ROOT / "lensjax").rglob("*.py")))
    imported -= set(sys.stdlib_module_names) | {"lensjax"}
    needed = {INSTALLED_AS.get(name, name) for name in imported}
    extras = project()["optional-dependencies"]
    declared = [
        *project()["dependencies"],
        *extras["tensorboard"],
        *extras["files"],
        *extras["evaluate"],
        *extras["beam"],
    ]
    names = {match[1] for match in map(NAME.match, declared) if match} - {"tensorflow"}
    assert needed == names - UNIMPORTED
