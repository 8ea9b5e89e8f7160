"""What importing lensjax brings along, and what it does without."""

import ast
import json
import sys

from run_support import ROOT, run_python

# Each is imported inside the functions that need it.
HEAVY = {
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
}
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
IMPORTING = """
import importlib, json, sys
import jax, flax.linen, optax, numpy
from jax._src import xla_bridge

always, settings = set(sys.modules), dict(jax.config.values)
for name in sys.argv[1:]:
    importlib.import_module(name)
assert dict(jax.config.values) == settings
assert not xla_bridge.backends_are_initialized()
print(json.dumps(sorted(set(sys.modules) - always)))
"""


def test_importing_lensjax_brings_nothing_heavy_changes_no_setting_and_uses_no_device():
    done = run_python("-W", "error", "-c", IMPORTING, *PURE)
    assert done.returncode == 0, done.stderr
    brought = set(json.loads(done.stdout))
    assert set(PURE) <= brought
    assert brought & HEAVY == set()
    packages = {name.partition(".")[0] for name in brought}
    foreign = packages - set(sys.stdlib_module_names) - {"lensjax"}
    assert foreign <= {"jax", "jaxlib", "flax", "optax", "numpy", "absl"}


CORE = {"jax", "flax", "optax", "numpy", "absl"}
# The command line, and what a data set is built and read with.
ALLOWED = {
    "main.py": {"ml_collections"},
    "devices/compiled_programs.py": {"filelock"},
    "data/beam.py": {"tensorflow_datasets"},
    "data/deeplense.py": {"tensorflow_datasets"},
    "data/ordered_builder.py": {"tensorflow_datasets", "array_record", "tqdm"},
    "data/prepared.py": {"tensorflow_datasets"},
    "data/records.py": {"tensorflow_datasets", "array_record"},
    "data/folder/builder.py": {"tensorflow_datasets"},
}


def _packages(statement: ast.AST) -> set[str]:
    """The packages that an import statement names; none of any other statement."""
    if isinstance(statement, ast.Import):
        return {alias.name.partition(".")[0] for alias in statement.names}
    if isinstance(statement, ast.ImportFrom) and statement.module:
        return {statement.module.partition(".")[0]}
    return set()


def _packages_of(statements: list[ast.stmt]) -> set[str]:
    return set().union(*map(_packages, statements)) - set(sys.stdlib_module_names) - {"lensjax"}


def test_each_module_imports_only_what_the_contract_allows():
    """At its top; TensorFlow in writers alone, and inside a function."""
    package = ROOT / "lensjax"
    beyond = {}
    with_tensorflow = []
    for path in package.rglob("*.py"):
        name, text = path.relative_to(package).as_posix(), path.read_text()
        tree = ast.parse(text)
        if foreign := _packages_of(tree.body) - CORE - ALLOWED.get(name, set()):
            beyond[name] = foreign
        if "tensorflow" in text:
            with_tensorflow += [name for one in ast.walk(tree) if "tensorflow" in _packages(one)]
    assert beyond == {}
    assert with_tensorflow == ["run/writers.py"]
