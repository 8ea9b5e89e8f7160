"""Checkpoints: what is kept, that it comes back bit for bit, and what a damaged one does."""

import gc
import json
import pathlib
import re
import shutil
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from run_support import captured_log, states_differ

from lensjax.errors import CheckpointError
from lensjax.run.checkpoint import Checkpoints
from lensjax.run.state import NO_BAD_STEP, TrainState

SHARDING = jax.sharding.SingleDeviceSharding(jax.devices()[0])
OPTIMIZER = optax.adamw(1e-3)
# Orbax joins the names of a path with dots.
AVERAGES = ("main", "1", "1.5", "1e-30", "100000")


def _state(step: int) -> TrainState:
    rng = np.random.default_rng(step)
    params = {
        "dense": {
            "kernel": jnp.asarray(rng.normal(size=(40, 30)), jnp.float32),
            "bias": jnp.asarray(rng.normal(size=30), jnp.bfloat16),
        },
        # What a checksum must see and a comparison by value would not: a NaN and a minus zero.
        "odd": jnp.asarray([np.nan, -0.0, np.inf], jnp.float32),
    }
    return TrainState(
        step=jnp.asarray(step, jnp.int32),
        params=params,
        ema={
            name: jax.tree.map(lambda leaf, more=more: leaf + more, params)
            for more, name in enumerate(AVERAGES, 1)
        },
        opt_state=OPTIMIZER.init(params),
        bad_step=jnp.asarray(NO_BAD_STEP, jnp.int32),
    )


def _abstract(state: TrainState) -> TrainState:
    return jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=SHARDING), state
    )


EXPECTED = _abstract(_state(0))


@pytest.fixture(scope="module")
def two_saved(tmp_path_factory):
    """A folder with the checkpoints 1 and 2."""
    folder = tmp_path_factory.mktemp("saved") / "checkpoints"
    checkpoints = Checkpoints(folder)
    for step in (1, 2):
        checkpoints.save(step, _state(step))
    checkpoints.close()
    return folder


@pytest.fixture
def folder(two_saved, tmp_path):
    """A copy of it that a test may spoil."""
    shutil.copytree(two_saved, tmp_path / "run" / "checkpoints")
    yield tmp_path / "run" / "checkpoints"
    gc.collect()  # what Orbax left of a failed read complains here, and not in another test


def _steps(folder: pathlib.Path) -> list[int]:
    return sorted(int(path.name) for path in folder.iterdir() if path.name.isdigit())


def _restore(folder: pathlib.Path, step: int | None = None, **options) -> TrainState | None:
    checkpoints = Checkpoints(folder, **options)
    try:
        return checkpoints.restore(EXPECTED, step)
    finally:
        checkpoints.close()


@pytest.mark.parametrize(
    ("keep_last", "keep_every", "kept"),
    [
        (1, None, [10]),
        (2, None, [8, 10]),
        (20, None, [2, 4, 6, 8, 10]),
        (2, 4, [4, 8, 10]),
        (1, 2, [2, 4, 6, 8, 10]),
    ],
)
def test_the_last_and_the_multiples_are_kept(tmp_path, keep_last, keep_every, kept):
    checkpoints = Checkpoints(tmp_path / "c", keep_last=keep_last, keep_every=keep_every)
    for step in (2, 4, 6, 8, 10):
        checkpoints.save(step, _state(step))
    checkpoints.close()
    assert _steps(tmp_path / "c") == kept


def test_without_a_checkpoint_there_is_nothing_to_restore(tmp_path):
    assert _restore(tmp_path / "new") is None


@pytest.mark.parametrize("step", [None, 1, 2])
@pytest.mark.parametrize("read_only", [False, True])
def test_a_state_comes_back_bit_for_bit(two_saved, step, read_only):
    state = _restore(two_saved, step, read_only=read_only)
    assert state is not None
    assert states_differ(state, _state(step or 2)) == []
    assert all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(state))


def test_a_save_does_not_see_what_is_donated_after_it(tmp_path):
    """The write goes on beside the next step, which reuses the buffers."""
    checkpoints = Checkpoints(tmp_path / "c")
    state = jax.device_put(_state(3))
    checkpoints.save(3, state)
    spoil = jax.jit(lambda tree: jax.tree.map(jnp.zeros_like, tree), donate_argnums=0)
    jax.block_until_ready(spoil(state))
    checkpoints.close()
    assert states_differ(_restore(tmp_path / "c"), _state(3)) == []


def test_a_step_that_is_there_is_not_written_again(folder):
    checkpoints = Checkpoints(folder)
    checkpoints.save(2, _state(7))
    checkpoints.close()
    assert states_differ(_restore(folder), _state(2)) == []


def test_each_array_has_a_checksum_beside_it(two_saved):
    leaves = json.loads((two_saved / "2" / "leaves" / "metadata").read_text())["arrays"]
    names = jax.tree_util.tree_leaves_with_path(_state(2))
    assert len(leaves) == len(names)
    kernels = [leaves[f"ema/{name}/dense/kernel"]["crc32"] for name in AVERAGES]
    assert len({*kernels, leaves["params/dense/kernel"]["crc32"]}) == len(AVERAGES) + 1
    assert leaves["params/dense/bias"]["dtype"] == "bfloat16"
    assert leaves["params/dense/kernel"]["shape"] == [40, 30]
    assert isinstance(leaves["params/dense/kernel"]["crc32"], int)


def _files(folder: pathlib.Path) -> list[pathlib.Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file() and path.stat().st_size)


def _flip(path: pathlib.Path, place: float) -> None:
    content = bytearray(path.read_bytes())
    content[int(place * (len(content) - 1))] ^= 0x10
    path.write_bytes(bytes(content))


def _cut(path: pathlib.Path, place: float) -> None:
    path.write_bytes(path.read_bytes()[: int(place * path.stat().st_size)])


def _remove(path: pathlib.Path, place: float) -> None:
    path.unlink()


def _arrays(folder: pathlib.Path) -> pathlib.Path:
    """Returns the file with the arrays' content: the largest."""
    return max(_files(folder), key=lambda path: path.stat().st_size)


def _assert_named_and_set_aside(folder: pathlib.Path, log: list[str], state: object) -> None:
    assert states_differ(state, _state(1)) == []
    assert any(re.match(r"checkpoint 2 is damaged \(.+\)$", line) for line in log), log
    assert f"moved to {folder.parent / 'damaged_checkpoints'}: 2" in log
    assert _steps(folder) == [1]
    assert (folder.parent / "damaged_checkpoints" / "2").is_dir()


@pytest.mark.parametrize("spoil", [_flip, _cut, _remove], ids=lambda f: f.__name__.strip("_"))
def test_damaged_arrays_are_named_and_the_one_before_is_taken(folder, spoil):
    spoil(_arrays(folder / "2"), 0.6)
    with captured_log() as log:
        state = _restore(folder)
    _assert_named_and_set_aside(folder, log, state)
    # The run goes on: the same step can be saved again and is then sound.
    checkpoints = Checkpoints(folder)
    checkpoints.save(2, _state(2))
    checkpoints.close()
    assert states_differ(_restore(folder), _state(2)) == []


def test_a_failed_read_leaves_no_complaints_of_its_other_threads(tmp_path, two_saved, monkeypatch):
    complaints: list[object] = []
    monkeypatch.setattr(sys, "unraisablehook", complaints.append)
    for number in range(10):
        folder = tmp_path / str(number) / "checkpoints"
        shutil.copytree(two_saved, folder)
        _remove(_arrays(folder / "2"), 0.6)
        state = _restore(folder)
        assert state is not None
        assert int(state.step) == 1
    gc.collect()
    assert complaints == []


def test_a_checkpoint_without_its_arrays_or_its_checksums_is_damaged(folder, two_saved):
    for item in ("state", "leaves"):
        shutil.rmtree(folder)
        shutil.copytree(two_saved, folder)
        shutil.rmtree(folder / "2" / item)
        with captured_log() as log:
            state = _restore(folder)
        _assert_named_and_set_aside(folder, log, state)


@pytest.mark.parametrize(
    ("spoil", "place"),
    [
        (_flip, 0.5),
        (_remove, 0.5),
        *(pytest.param(_flip, place, marks=pytest.mark.nightly) for place in (0.0, 1.0)),
        pytest.param(_cut, 0.5, marks=pytest.mark.nightly),
    ],
)
def test_whatever_file_is_damaged_no_wrong_state_comes_back(folder, two_saved, spoil, place):
    """Each file in turn: the state is the right one, or the one before it."""
    names = [path.relative_to(two_saved) for path in _files(two_saved / "2")]
    fell_back = set()
    for name in names:
        shutil.rmtree(folder.parent)
        shutil.copytree(two_saved, folder)
        spoil(folder / name, place)
        with captured_log() as log:
            state = _restore(folder)
        assert state is not None
        step = int(state.step)
        assert states_differ(state, _state(step)) == [], name
        if step != 2:
            _assert_named_and_set_aside(folder, log, state)
            fell_back.add(name)
    if place == 0.5:  # the last byte may be one that nothing reads
        assert _arrays(two_saved / "2").relative_to(two_saved) in fell_back


def test_a_changed_list_of_checksums_is_damage_and_not_another_configuration(folder):
    path = folder / "2" / "leaves" / "metadata"
    text = path.read_text()
    assert '"float32"' in text
    path.write_text(text.replace('"float32"', '"float23"', 1))
    with captured_log() as log:
        state = _restore(folder)
    _assert_named_and_set_aside(folder, log, state)


def test_if_all_are_damaged_the_error_names_them(folder):
    for step in ("1", "2"):
        _flip(_arrays(folder / step), 0.6)
    with (
        captured_log() as log,
        pytest.raises(CheckpointError, match=r"no sound checkpoint in .*: 2, 1$"),
    ):
        _restore(folder)
    assert sum(" is damaged (" in line for line in log) == 2
    assert _steps(folder) == [1, 2]  # for somebody who knows more


def test_a_reader_takes_the_one_before_and_moves_nothing(folder):
    _flip(_arrays(folder / "2"), 0.6)
    before = sorted(path.relative_to(folder.parent) for path in folder.parent.rglob("*"))
    with captured_log() as log:
        state = _restore(folder, read_only=True)
    assert states_differ(state, _state(1)) == []
    assert any(line.startswith("checkpoint 2 is damaged") for line in log)
    assert sorted(path.relative_to(folder.parent) for path in folder.parent.rglob("*")) == before
    with pytest.raises(CheckpointError, match="damaged: 2"):
        _restore(folder, 2, read_only=True)


def test_a_reader_leaves_a_write_in_progress_alone_and_a_trainer_removes_its_rest(folder):
    unfinished = folder / "3.orbax-checkpoint-tmp"
    shutil.copytree(folder / "2", unfinished)
    state = _restore(folder, read_only=True)
    assert states_differ(state, _state(2)) == []
    assert unfinished.is_dir()
    _restore(folder)
    assert not unfinished.exists()


def test_a_checkpoint_that_is_not_there_is_answered_by_those_that_are(two_saved, tmp_path):
    with pytest.raises(CheckpointError, match=r"there is no checkpoint 7; .*: 1, 2"):
        _restore(two_saved, 7)
    with pytest.raises(CheckpointError, match=r"there are no checkpoints in .*; train first"):
        _restore(tmp_path / "nothing", read_only=True)
    assert not (tmp_path / "nothing").exists()


def _other(change: str) -> TrainState:
    """Returns what another configuration would expect."""
    state = _state(2)
    kernel = state.params["dense"]["kernel"]
    params = {
        "dtype": state.params | {"odd": state.params["odd"].astype(jnp.bfloat16)},
        "shape": state.params | {"dense": state.params["dense"] | {"kernel": kernel.T}},
        "more": state.params | {"new": kernel},
        "fewer": {"dense": state.params["dense"]},
    }[change]
    return _abstract(state._replace(params=params))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("dtype", "params/odd is ([3], 'float32') and should be ([3], 'bfloat16')"),
        ("shape", "params/dense/kernel is ([40, 30], 'float32') and should be ([30, 40]"),
        ("more", "params/new is not there and should be ([40, 30], 'float32')"),
        ("fewer", "params/odd is ([3], 'float32') and should be not there"),
    ],
)
def test_other_arrays_are_refused_and_nothing_is_cast_or_moved(two_saved, change, words):
    checkpoints = Checkpoints(two_saved)
    with pytest.raises(CheckpointError) as caught:
        checkpoints.restore(_other(change))
    checkpoints.close()
    assert "checkpoint 2 does not fit this configuration" in str(caught.value)
    assert words in str(caught.value)
    assert _steps(two_saved) == [1, 2]


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (AVERAGES[:-1], "ema/100000/dense/bias is ([30], 'bfloat16') and should be not there"),
        ((*AVERAGES, "7"), "ema/7/dense/bias is not there and should be ([30], 'bfloat16')"),
    ],
    ids=["fewer", "more"],
)
def test_other_averages_are_refused(two_saved, names, words):
    expected = EXPECTED._replace(ema=dict.fromkeys(names, EXPECTED.ema["main"]))
    checkpoints = Checkpoints(two_saved)
    with pytest.raises(CheckpointError) as caught:
        checkpoints.restore(expected)
    checkpoints.close()
    assert words in str(caught.value)


def test_importing_the_module_does_not_import_orbax_itself():
    source = pathlib.Path(sys.modules["lensjax.run.checkpoint"].__file__ or "").read_text()
    assert not re.search(r"^(import|from) orbax", source, re.MULTILINE)
