"""Settings for all tests, and what is built once a session for the workers of all of them."""

import contextlib
import gc
import importlib.metadata
import itertools
import os
import pathlib
import sys

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
# Compiled programs are kept from run to run, for all workers and their children. JAX locks a folder
# of bounded size.
os.environ.setdefault(
    "JAX_COMPILATION_CACHE_DIR",
    str(pathlib.Path(__file__).resolve().parent.parent / ".pytest_cache" / "programs"),
)
os.environ.setdefault("JAX_COMPILATION_CACHE_MAX_SIZE", str(2**30))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.01")
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "-1")
# Loops are compiled by XLA's older emitters, in a third of the time, while jaxlib has them. The
# nightly tests set an empty XLA_FLAGS and so compile as a user's process does.
if int(importlib.metadata.version("jaxlib").split(".")[1]) < 12:
    os.environ.setdefault("XLA_FLAGS", "--xla_cpu_use_fusion_emitters=false")

import jax
import pytest
from jax._src.lru_cache import LRUCache

from lensjax.devices.compiled_programs import remove_cut_entries

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "configs"), str(ROOT / "tests" / "support")]
sys.path.append(str(ROOT / "benchmarks"))  # last: its programs have common names

_evict = LRUCache._evict_if_needed
_puts = itertools.count()


def _evict_seldom(cache: LRUCache, *, additional_size: int = 0) -> None:
    """Looks at the size of the cache at every 1000th program alone: it opens a file for each."""
    if next(_puts) % 1000 == 0:
        _evict(cache, additional_size=additional_size)


LRUCache._evict_if_needed = _evict_seldom  # type: ignore

jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_debug_key_reuse", True)


_LONG_FIRST = ("end_to_end", "training", "devices", "cli", "inference", "evaluation", "models")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Puts rooms with long tests first, so that no worker begins one while the other has ended."""

    def rank(item: pytest.Item) -> int:
        room = item.path.relative_to(ROOT / "tests").parts[0]
        return _LONG_FIRST.index(room) if room in _LONG_FIRST else len(_LONG_FIRST)

    items.sort(key=rank)


@pytest.fixture(scope="session")
def shared_folder(tmp_path_factory) -> pathlib.Path:
    """A folder that the tests of all workers of one session share."""
    base = tmp_path_factory.getbasetemp()
    return base.parent if "PYTEST_XDIST_WORKER" in os.environ else base


def pytest_configure() -> None:
    """Collects garbage less often, and removes what a killed process left in the cache half."""
    # JAX's objects are many: a visit of all of them at every turn takes a twentieth of the time.
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)
    if "PYTEST_XDIST_WORKER" not in os.environ:
        folder = pathlib.Path(os.environ["JAX_COMPILATION_CACHE_DIR"])
        remove_cut_entries(folder, bounded=True)


@pytest.fixture(scope="session")
def tfds_directory(shared_folder) -> pathlib.Path:
    """A folder for data sets that the tests of all workers of one session share."""
    folder = shared_folder / "tfds"
    folder.mkdir(exist_ok=True)
    return folder


@pytest.fixture(scope="session")
def trained_generator(shared_folder):
    """Workdir, which a test copies before it changes it, and last state of a tiny generator."""
    from run_support import SHARED_GENERATOR, trained_once

    with _quick_compiles():
        return trained_once(shared_folder / "generator", SHARED_GENERATOR)


@pytest.fixture(scope="session")
def trained_classifier(shared_folder) -> pathlib.Path:
    """Workdir, which a test copies before it changes it, of a tiny classifier."""
    from run_support import SHARED_CLASSIFIER, trained_once

    with _quick_compiles():
        return trained_once(shared_folder / "classifier", SHARED_CLASSIFIER)[0]


@pytest.fixture(scope="session")
def smoke_run(shared_folder, tfds_directory):
    """Each mode of the smoke config from the command line; a test copies what it changes."""
    from run_support import smoke_once

    with _quick_compiles():
        return smoke_once(shared_folder / "smoke", tfds_directory)


@contextlib.contextmanager
def _quick_compiles():
    before = jax.config.read("jax_disable_most_optimizations")
    environment = pytest.MonkeyPatch()
    environment.setenv("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")  # for children
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    environment.undo()
    jax.config.update("jax_disable_most_optimizations", before)
    if not before:
        jax.clear_caches()  # what was compiled so rounds otherwise


@pytest.fixture(scope="module")
def quick_compiles():
    """Compiles faster and to slower code, for tests that run a program a few times."""
    with _quick_compiles():
        yield
