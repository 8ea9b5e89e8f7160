"""Programs kept on disk: by many processes at once, on broken disks, and without other results."""

import errno
import json
import os
import pathlib
import subprocess
import sys
from typing import Any

import jax
import pytest
from jax import monitoring
from jax.experimental.compilation_cache import compilation_cache as jax_cache
from run_support import (
    ROOT,
    captured_log,
    environment,
    signal_at,
    states_differ,
    tiny_config,
    tiny_split,
)

from lensjax.cli import modes
from lensjax.devices import compiled_programs
from lensjax.devices.compiled_programs import FOLDER, keep_programs
from lensjax.main import MODES
from lensjax.run import writers
from lensjax.training.loop import train

# Compiles what its argument names, in this order, and fails where JAX would only warn.
COMPILE = """
import json, sys, jax
from lensjax.devices.compiled_programs import keep_programs

keep_programs()
small, rounds, order = json.loads(sys.argv[1])
if small:
    import resource
    resource.setrlimit(resource.RLIMIT_FSIZE, (small, small))
for _ in range(rounds):
    for number in order:
        program = jax.jit(lambda x: jax.numpy.sin(x * number) + number)
        assert abs(float(program(0.0)) - number) < 1e-6
    jax.clear_caches()
"""


def _start(code: str, *arguments: object, cache: pathlib.Path, **more: str) -> subprocess.Popen:
    """Starts a child that has chosen no folder of JAX's."""
    inherited = {
        name: value
        for name, value in environment(LENSJAX_CACHE=os.fspath(cache)).items()
        if not name.startswith(("JAX_COMPILATION_CACHE", "JAX_PERSISTENT_CACHE"))
    }
    path = os.pathsep.join((os.fspath(ROOT), os.fspath(ROOT / "tests" / "support"), *sys.path[1:]))
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)],
        env={**inherited, "PYTHONPATH": path, **more},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def _ended(*children: subprocess.Popen) -> None:
    for child in children:
        output, _ = child.communicate(timeout=240)
        assert (child.returncode, output) == (0, "")


def _entries(cache: pathlib.Path, kind: str = "cache") -> list[pathlib.Path]:
    return sorted((cache / FOLDER).glob(f"*-{kind}"))


def _strict(**more: str) -> dict[str, str]:
    return {"JAX_RAISE_PERSISTENT_CACHE_ERRORS": "true", "PYTHONWARNINGS": "error", **more}


def test_processes_share_a_small_folder_and_none_fails(tmp_path):
    """The folder holds about six of twelve programs, so that all read, write and remove."""
    (tmp_path / FOLDER).mkdir()
    settings = _strict(
        JAX_COMPILATION_CACHE_MAX_SIZE="20000", JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS="0"
    )
    orders = (range(12), range(11, -1, -1), (*range(6, 12), *range(6)))
    children = [
        _start(COMPILE, json.dumps([0, 6, list(order)]), cache=tmp_path, **settings)
        for order in orders
    ]
    _ended(*children)
    sizes = [path.stat().st_size for path in _entries(tmp_path)]
    assert 0 < sum(sizes) <= 20_000
    assert len(sizes) < 12
    assert len(sizes) == len(_entries(tmp_path, "atime"))


def test_a_disk_that_gets_full_costs_nothing_and_is_mended(tmp_path):
    """Files beyond a few bytes are cut short, as on a disk that gets full while one is written."""
    always = {"JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
    _ended(_start(COMPILE, "[100, 1, [1, 2]]", cache=tmp_path, **always))
    short = _entries(tmp_path)
    assert short
    assert {path.stat().st_size for path in short} == {100}
    assert not _entries(tmp_path, "atime")
    _ended(_start(COMPILE, "[0, 2, [1, 2]]", cache=tmp_path, **_strict(**always)))
    assert {path.name for path in short} <= {path.name for path in _entries(tmp_path)}
    assert min(path.stat().st_size for path in _entries(tmp_path)) > 100
    assert len(_entries(tmp_path)) == len(_entries(tmp_path, "atime"))


@pytest.fixture
def no_folder(monkeypatch, tmp_path):
    """JAX as it is where nobody has chosen a folder; afterwards as it was."""
    names = (
        "jax_compilation_cache_dir",
        "jax_enable_compilation_cache",
        "jax_raise_persistent_cache_errors",
    )
    before = {name: jax.config.values[name] for name in (*names, *compiled_programs._SETTINGS)}
    for name in compiled_programs._SETTINGS:
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.setenv("LENSJAX_CACHE", os.fspath(tmp_path / "cache"))
    jax.config.update("jax_compilation_cache_dir", None)
    jax_cache.reset_cache()
    yield tmp_path / "cache" / FOLDER
    for name, value in before.items():
        jax.config.update(name, value)
    jax_cache.reset_cache()


def _settings() -> dict:
    return {name: jax.config.values[name] for name in compiled_programs._SETTINGS}


def test_the_folder_lies_in_the_cache_and_is_bounded(no_folder):
    keep_programs()
    assert jax.config.values["jax_compilation_cache_dir"] == os.fspath(no_folder)
    assert no_folder.is_dir()
    assert _settings() == compiled_programs._SETTINGS
    assert jax.config.values["jax_compilation_cache_max_size"] > 0  # or JAX takes no lock


@pytest.mark.parametrize("name", compiled_programs._SETTINGS)
def test_a_setting_of_the_environment_stays(no_folder, monkeypatch, name):
    monkeypatch.setenv(name.upper(), "7")
    before = _settings()[name]
    keep_programs()
    others = {key: value for key, value in compiled_programs._SETTINGS.items() if key != name}
    assert _settings() == {**others, name: before}


def test_home_folder_and_variables_of_a_chosen_folder_are_replaced(no_folder, monkeypatch):
    monkeypatch.setenv("SCRATCH", "/scratch/of/mine")
    for chosen, expected in {
        "$SCRATCH/programs": "/scratch/of/mine/programs",
        "~/programs": os.path.expanduser("~/programs"),
        "gs://bucket/$x": "gs://bucket/$x",
    }.items():
        jax.config.update("jax_compilation_cache_dir", chosen)
        keep_programs()
        assert jax.config.values["jax_compilation_cache_dir"] == expected


@pytest.mark.parametrize("chosen", ["", "elsewhere", None])
def test_who_has_chosen_a_folder_or_none_keeps_that(no_folder, chosen):
    jax.config.update("jax_compilation_cache_dir", chosen)
    jax.config.update("jax_enable_compilation_cache", chosen is not None)
    before = _settings()
    keep_programs()
    assert jax.config.values["jax_compilation_cache_dir"] == chosen
    assert _settings() == before
    assert not no_folder.exists()


def _in_a_file(patch: pytest.MonkeyPatch, folder: pathlib.Path) -> None:
    folder.parent.parent.mkdir(exist_ok=True)
    folder.parent.write_text("a file")


def _full(patch: pytest.MonkeyPatch, folder: pathlib.Path) -> None:
    def refuse(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    patch.setattr(pathlib.Path, "write_bytes", refuse)


def _without_locks(patch: pytest.MonkeyPatch, folder: pathlib.Path) -> None:
    def refuse(*_, **__):
        raise NotImplementedError("no flock here")

    patch.setattr(compiled_programs.filelock, "FileLock", refuse)


def _held(patch: pytest.MonkeyPatch, folder: pathlib.Path) -> None:
    folder.mkdir(parents=True)
    held = compiled_programs.filelock.FileLock(folder / ".lockfile")
    held.acquire()
    patch.setattr(compiled_programs, "_LOCK_SECONDS", 0.1)
    patch.setattr(compiled_programs, "held_by_a_test", held, raising=False)


def _without_home(patch: pytest.MonkeyPatch, folder: pathlib.Path) -> None:
    def refuse(self):
        raise RuntimeError("Could not determine home directory.")

    patch.setattr(pathlib.Path, "expanduser", refuse)


@pytest.mark.parametrize("fault", [_in_a_file, _full, _without_locks, _held, _without_home])
def test_a_folder_that_cannot_be_used_costs_one_warning(no_folder, monkeypatch, fault):
    fault(monkeypatch, no_folder)
    before = _settings()
    with captured_log() as log:
        keep_programs()
    assert len(log) == 1
    assert log[0].startswith("compiled programs are not kept for the next run: ")
    assert jax.config.values["jax_compilation_cache_dir"] is None
    assert _settings() == before


@pytest.mark.parametrize("mode", MODES)
def test_every_mode_keeps_its_programs(monkeypatch, tmp_path, mode):
    class ReachedError(Exception):
        pass

    def reached() -> None:
        raise ReachedError

    monkeypatch.setattr(modes, "keep_programs", reached)
    with pytest.raises(ReachedError):
        modes.run(mode, tiny_config(), tmp_path)


def _train(workdir: pathlib.Path, stop: int | None = None) -> tuple[Any, int, int]:
    """Returns the state at the end, and how many programs came from disk and how many did not."""
    events: list[str] = []

    def listen(event: str, **_: Any) -> None:
        events.append(event)

    jax.clear_caches()  # as in another process
    jax_cache.reset_cache()
    monitoring.register_event_listener(listen)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(writers.MetricWriters, "scalars", writers.MetricWriters.scalars)
        patch.setattr(writers, "_open_tensorboard", lambda folder: None)
        if stop:
            signal_at(stop)
        state = train(tiny_config(), workdir, tiny_split())
    monitoring.unregister_event_listener(listen)
    hits, misses = (f"/jax/compilation_cache/cache_{name}" for name in ("hits", "misses"))
    return state, events.count(hits), events.count(misses)


@pytest.mark.nightly
@pytest.mark.usefixtures("quick_compiles")
def test_programs_from_disk_end_in_the_same_parameters(no_folder, tmp_path):
    """Compiled without the cache; stopped where all is compiled, resumed where it is read."""
    jax.config.update("jax_raise_persistent_cache_errors", True)
    expected, *counts = _train(tmp_path / "without")
    assert counts == [0, 0]
    keep_programs()
    stopped, hits, misses = _train(tmp_path / "stopped", stop=6)
    assert (int(stopped.step), hits) == (7, 0)
    assert misses >= 1
    state, hits, _ = _train(tmp_path / "stopped")
    assert hits >= 1
    assert int(state.step) == 12
    assert states_differ(state, expected) == []


def test_a_machine_without_a_home_costs_a_warning():
    code = "from lensjax.devices.compiled_programs import keep_programs\nkeep_programs()"
    process = _start(code, cache=pathlib.Path("~nobody_of_this_name/x"))
    process.communicate()
    assert process.returncode == 0
