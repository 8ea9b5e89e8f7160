"""Saves: read back before older checkpoints go, and refused in one line if they cannot be kept."""

import collections
import pathlib
import shutil
import threading

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from run_support import captured_log, states_differ

from lensjax.errors import CheckpointError
from lensjax.run import checkpoint_folder
from lensjax.run.checkpoint import Checkpoints
from lensjax.run.checkpoint_folder import CheckpointFolder
from lensjax.run.state import NO_BAD_STEP, TrainState

pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")

SHARDING = jax.sharding.SingleDeviceSharding(jax.devices()[0])


def _state(step: int) -> TrainState:
    kernel = jnp.asarray(np.random.default_rng(step).normal(size=(40, 30)), jnp.float32)
    step_array, none = jnp.asarray(step, jnp.int32), jnp.asarray(NO_BAD_STEP, jnp.int32)
    return TrainState(step_array, {"kernel": kernel}, {}, (), none)


EXPECTED = jax.tree.map(
    lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=SHARDING), _state(0)
)


def _save(folder: pathlib.Path, *steps: int, **options) -> None:
    checkpoints = Checkpoints(folder, **options)
    for step in steps:
        checkpoints.save(step, _state(step))
    checkpoints.close()


def _restored(folder: pathlib.Path, step: int | None = None, **options) -> TrainState | None:
    checkpoints = Checkpoints(folder, **options)
    try:
        return checkpoints.restore(EXPECTED, step)
    finally:
        checkpoints.close()


def _steps(folder: pathlib.Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("name", ["w=[64,128]", "a*b?", "[!x]"])
def test_a_path_that_looks_like_a_pattern_holds_checkpoints_as_any_other(tmp_path, name):
    folder = tmp_path / name / "checkpoints"
    _save(folder, 1, 2, 3, keep_last=2)
    assert _steps(folder) == ["2", "3"]
    for options in ({}, {"read_only": True}):
        assert states_differ(_restored(folder, **options), _state(3)) == []
    shutil.move(folder, tmp_path / "plain")
    assert states_differ(_restored(tmp_path / "plain", 2), _state(2)) == []


def test_such_a_path_is_refused_before_the_first_step_where_it_cannot_work(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint_folder, "_DESCRIPTORS", tmp_path / "nothing")
    with pytest.raises(CheckpointError, match=r"holds one of \* \? \[ \]; allowed: a --workdir"):
        Checkpoints(tmp_path / "[1]" / "checkpoints")


def test_an_older_checkpoint_stays_until_the_new_one_was_read_back(tmp_path, monkeypatch):
    reached, go_on, verify = threading.Event(), threading.Event(), Checkpoints._verify

    def slow(self, *arguments):
        reached.set()
        assert go_on.wait(60)
        verify(self, *arguments)

    _save(tmp_path, 1)
    monkeypatch.setattr(Checkpoints, "_verify", slow)
    checkpoints = Checkpoints(tmp_path, keep_last=1)
    checkpoints.save(2, _state(2))  # returns, although nothing was read back yet
    assert reached.wait(60)
    assert _steps(tmp_path) == ["1", "2"]
    go_on.set()
    checkpoints.wait()
    assert _steps(tmp_path) == ["2"]
    checkpoints.close()


def _flip(path: pathlib.Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0x10
    path.write_bytes(bytes(content))


def _spoiled(monkeypatch, spoil) -> None:
    """Has each checkpoint spoiled between its writing and its reading."""
    verify = Checkpoints._verify

    def after_damage(self, step, *arguments):
        spoil(self._directory / str(step))
        verify(self, step, *arguments)

    monkeypatch.setattr(Checkpoints, "_verify", after_damage)


def _largest(folder: pathlib.Path) -> pathlib.Path:
    files = (path for path in folder.rglob("*") if path.is_file())
    return max(files, key=lambda path: path.stat().st_size)


@pytest.mark.parametrize("asked", ["save", "wait", "check", "close"])
def test_a_run_whose_checkpoint_cannot_be_read_back_stops_and_keeps_the_older(
    tmp_path, monkeypatch, asked
):
    _save(tmp_path, 1)
    _spoiled(monkeypatch, lambda folder: _flip(_largest(folder)))
    checkpoints = Checkpoints(tmp_path, keep_last=1)
    checkpoints.save(2, _state(2))
    if asked == "check":
        assert checkpoints._pending is not None
        checkpoints._pending.join()
    call = (lambda: checkpoints.save(3, _state(3))) if asked == "save" else None
    with pytest.raises(CheckpointError, match=r"checkpoint 2 in .* cannot be read back \("):
        (call or getattr(checkpoints, asked))()
    checkpoints.close()
    monkeypatch.undo()
    with captured_log():
        assert states_differ(_restored(tmp_path), _state(1)) == []


def test_damage_that_its_own_checksums_fit_is_seen_too(tmp_path, monkeypatch):
    """Such as a disk that gives back the content of another save."""
    _save(tmp_path / "other", 2)
    saved = tmp_path / "run"
    _save(saved, 1)

    def replace(folder: pathlib.Path) -> None:
        shutil.rmtree(folder)
        shutil.copytree(tmp_path / "other" / "2", folder)

    _spoiled(monkeypatch, replace)
    checkpoints = Checkpoints(saved, keep_last=1)
    checkpoints.save(2, _state(7)._replace(step=jnp.asarray(2, jnp.int32)))
    with pytest.raises(CheckpointError, match="it lists other arrays than were saved"):
        checkpoints.wait()
    checkpoints.close()


def test_a_step_is_not_believed_from_a_name(tmp_path):
    folder = tmp_path / "checkpoints"
    for name in ("3", "900"):
        _save(folder, 1, 2)
        shutil.copytree(folder / "2", folder / name)
        with captured_log() as log:
            assert states_differ(_restored(folder, read_only=True), _state(2)) == []
            assert f"checkpoint {name} is left out: it holds step 2" in log
            assert _steps(folder) == ["1", "2", name]
            with pytest.raises(CheckpointError, match=f"damaged: {name}"):
                _restored(folder, int(name), read_only=True)
            assert states_differ(_restored(folder), _state(2)) == []
        assert f"moved to {tmp_path / 'damaged_checkpoints'}: {name}" in log
        assert _steps(folder) == ["1", "2"]
        _save(folder, 3)
        assert states_differ(_restored(folder), _state(3)) == []
        shutil.rmtree(folder)


def test_nothing_that_was_set_aside_is_lost_to_the_next(tmp_path):
    folder = tmp_path / "checkpoints"
    _save(folder, 1)
    for _ in range(3):
        shutil.copytree(folder / "1", folder / "5")
        _restored(folder)
    assert _steps(tmp_path / "damaged_checkpoints") == ["5", "5_2", "5_3"]


@pytest.mark.parametrize(
    ("saved_with", "read_with", "is_taken"),
    [
        ("a", "a", True),
        ("a", "b", False),
        (None, "b", False),
        (None, None, True),
        ("a", None, True),
    ],
)
def test_a_checkpoint_of_another_run_is_set_aside(tmp_path, saved_with, read_with, is_taken):
    folder = tmp_path / "checkpoints"
    _save(folder, 1, run_id=read_with)
    _save(tmp_path / "other", 2, run_id=saved_with)
    shutil.copytree(tmp_path / "other" / "2", folder / "2")
    with captured_log() as log:
        state = _restored(folder, run_id=read_with)
    assert state is not None
    assert int(state.step) == (2 if is_taken else 1)
    assert _steps(folder) == (["1", "2"] if is_taken else ["1"])
    assert any("it belongs to another run" in line for line in log) != is_taken


Usage = collections.namedtuple("Usage", "total used free")


def test_a_save_without_room_says_what_is_free_and_needed_and_writes_nothing(tmp_path, monkeypatch):
    _save(tmp_path, 1)
    checkpoints = Checkpoints(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(10**9, 10**9, 4000))
    words = (
        r"checkpoint 2 was not written in .*: No space left on device \(3\.9 KiB free, .* needed"
    )
    with pytest.raises(CheckpointError, match=words) as caught:
        checkpoints.save(2, _state(2))
    assert "\n" not in str(caught.value)
    checkpoints.close()
    assert _steps(tmp_path) == ["1"]


@pytest.mark.parametrize("become", ["nothing", "a file", "another folder"])
def test_a_folder_that_was_deleted_is_named_and_not_made_again(tmp_path, become):
    folder = tmp_path / "run" / "checkpoints"
    checkpoints = Checkpoints(folder)
    shutil.rmtree(tmp_path / "run")
    if become == "a file":
        (tmp_path / "run").write_text("")
    elif become == "another folder":
        folder.mkdir(parents=True)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(CheckpointError, match="was deleted or moved while the run was training"):
        checkpoints.save(1, _state(1))
    checkpoints.close()
    assert sorted(tmp_path.rglob("*")) == before


def _save_and_wait(checkpoints: Checkpoints, step: int) -> None:
    checkpoints.save(step, _state(step))
    checkpoints.wait()


def test_no_thread_of_a_failed_save_keeps_the_process(tmp_path, monkeypatch):
    """Orbax's threads wait for each other where its first folder could not be made."""
    checkpoints = Checkpoints(tmp_path / "c")
    checkpoints.save(1, _state(1))
    checkpoints.wait()
    monkeypatch.setattr(CheckpointFolder, "check_ready", lambda self, step, state_bytes: None)
    monkeypatch.setattr(CheckpointFolder, "check_there", lambda self, step: None)
    shutil.rmtree(tmp_path / "c")
    (tmp_path / "c").write_text("")
    before = set(threading.enumerate())
    with pytest.raises(CheckpointError, match=r"checkpoint 2 was not written in .*Not a directory"):
        _save_and_wait(checkpoints, 2)
    left = set(threading.enumerate()) - before
    assert left
    assert all(thread.daemon for thread in left)
    checkpoints.close()


def test_a_killed_removal_leaves_no_half_that_looks_whole(tmp_path, monkeypatch):
    _save(tmp_path, 1, 2)
    monkeypatch.setattr(shutil, "rmtree", lambda path: None)
    folder = CheckpointFolder(tmp_path, writable=True)
    folder.keep(2, 1, None)
    folder.close()
    assert checkpoint_folder.steps_in(tmp_path) == [2]
    monkeypatch.undo()
    assert states_differ(_restored(tmp_path), _state(2)) == []
    _save(tmp_path, 3)
    assert _steps(tmp_path) == ["2", "3"]
