"""What importing lensjax brings along, and what it does without."""

import ast
import json
import pathlib
import subprocess
import sys

import pytest
from run_support import ROOT, environment, run_python

# Each is imported inside the functions that need it.
HEAVY = (
    "tensorflow",
    "tensorflow_datasets",
    "clu",
    "grain",
    "ml_collections",
    "matplotlib",
    "array_record",
    "PIL",
    "scipy",
    "absl.app",
)
PURE = (
    "lensjax",
    "lensjax.data.simulator",
    "lensjax.data.catalogue",
    "lensjax.models",
    "lensjax.diffusion.paths",
    "lensjax.diffusion.losses",
    "lensjax.diffusion.guidance",
    "lensjax.diffusion.samplers",
    "lensjax.metrics.lensing",
    "lensjax.metrics.axion_fit",
    "lensjax.metrics.c2st",
    "lensjax.evaluation.extractors",
    "lensjax.metrics.inception_features",
    "lensjax.metrics.memory",
    "lensjax.metrics.shapes",
    "lensjax.models.inception_weights",
    "lensjax.run.networks",
    "lensjax.run.learning",
    "lensjax.run.state",
)
# `flax` itself imports Orbax, so that it is there whenever flax is; scipy comes with jax.
BROUGHT_BY_JAX_AND_FLAX = ("jax", "flax.linen", "optax", "numpy")


def _start(code: str) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env=environment(),
        stdout=subprocess.PIPE,
        text=True,
    )


def _modules_after(statement: str) -> set[str]:
    code = f"import json, sys\n{statement}\nprint(json.dumps(sorted(sys.modules)))"
    output, _ = _start(code).communicate()
    return set(json.loads(output))


@pytest.fixture(scope="module")
def always():
    """Modules that jax, flax, optax and numpy bring along."""
    return _modules_after("import " + ", ".join(BROUGHT_BY_JAX_AND_FLAX))


def test_importing_lensjax_brings_nothing_heavy(always):
    everything = _modules_after("import " + ", ".join(PURE))
    assert set(PURE) <= everything
    assert {name for name in HEAVY if name in everything - always} == set()
    packages = {name.partition(".")[0] for name in everything - always}
    foreign = packages - set(sys.stdlib_module_names) - {"lensjax"}
    assert foreign <= {"jax", "jaxlib", "flax", "optax", "numpy", "absl"}


def test_orbax_comes_with_flax_and_not_through_lensjax(always):
    brought = {name for name in always if name.partition(".")[0] == "orbax"}
    everything = _modules_after("import lensjax")
    ours = {name for name in everything if name.partition(".")[0] == "orbax"}
    assert ours <= brought


def test_importing_lensjax_changes_no_setting_and_uses_no_device():
    code = """
import jax
before = dict(jax.config.values)
import lensjax
from jax._src import xla_bridge
assert dict(jax.config.values) == before
assert not xla_bridge.backends_are_initialized()
"""
    done = run_python("-W", "error", "-c", code)
    assert done.returncode == 0, done.stderr


def _top_level_imports(path: pathlib.Path) -> set[str]:
    """Returns the packages that a module imports when it is imported itself."""
    found = set()
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module.partition(".")[0])
    return found


PACKAGE = ROOT / "lensjax"
MODULES = sorted(PACKAGE.rglob("*.py"))


def _name(path: pathlib.Path) -> str:
    return path.relative_to(PACKAGE).as_posix()


# The command line, and what a data set is built and read with.
ALLOWED = {
    "main.py": {"absl", "ml_collections"},
    "devices/compiled_programs.py": {"filelock"},
    "data/beam.py": {"tensorflow_datasets"},
    "data/deeplense.py": {"tensorflow_datasets"},
    "data/ordered_builder.py": {"tensorflow_datasets", "array_record", "tqdm"},
    "data/prepared.py": {"tensorflow_datasets", "absl"},
    "data/records.py": {"tensorflow_datasets", "array_record"},
    "data/folder/builder.py": {"tensorflow_datasets"},
}


@pytest.mark.parametrize("path", MODULES, ids=_name)
def test_each_module_imports_only_what_the_contract_allows_at_its_top(path):
    foreign = _top_level_imports(path) - set(sys.stdlib_module_names) - {"lensjax"}
    core = {"jax", "flax", "optax", "numpy", "absl"}
    assert foreign <= core | ALLOWED.get(_name(path), set())


@pytest.mark.parametrize("path", MODULES, ids=_name)
def test_tensorflow_is_imported_in_writers_alone_and_inside_a_function(path):
    tree = ast.parse(path.read_text())
    names = [
        name
        for node in ast.walk(tree)
        if isinstance(node, (ast.Import, ast.ImportFrom))
        for name in (
            [a.name for a in node.names] if isinstance(node, ast.Import) else [node.module]
        )
        if name and name.partition(".")[0] == "tensorflow"
    ]
    assert names == (["tensorflow"] if _name(path) == "run/writers.py" else [])
    assert "tensorflow" not in _top_level_imports(path)
