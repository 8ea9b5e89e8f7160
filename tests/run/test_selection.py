"""The best step and the end of a training as functions of the validation losses."""

import json
import pathlib
from typing import Any

import jax
import numpy as np
import pytest
from run_support import states_differ

from lensjax.run.selection import VALIDATION_LOSS, Selection, restore_best
from lensjax.run.state import TrainState

INF = float("inf")


def state_of(step: int) -> TrainState:
    params = {"w": np.full(2, step, np.float32)}
    counts: Any = (np.asarray(step, np.int32), np.asarray(-1, np.int32))
    return TrainState(counts[0], params, {}, (), counts[1])


EXPECTED = jax.tree.map(
    lambda leaf: jax.ShapeDtypeStruct(
        leaf.shape, leaf.dtype, sharding=jax.sharding.SingleDeviceSharding(jax.devices()[0])
    ),
    state_of(0),
)


def write_line(workdir: pathlib.Path, step: int, loss: float) -> dict[str, float]:
    """Writes a line as the run does: what is not finite becomes null."""
    plain = loss if np.isfinite(loss) else None
    line = {"step": step, "loss": 1.0, VALIDATION_LOSS: plain}
    with (workdir / "metrics.jsonl").open("a") as file:
        file.write(json.dumps(line) + "\n")
    return {"loss": 1.0, VALIDATION_LOSS: loss, "validation/temperature": 1.0 + step}


def validate(workdir: pathlib.Path, losses, patience: int = 0, start: int = 0) -> list[bool]:
    """Runs validations at the steps after `start`; returns whether each was the last wanted."""
    selection = Selection(workdir, state_of(start), patience)
    ends = [selection.exhausted]
    for step, loss in enumerate(losses, start + 1):
        selection.add(step, write_line(workdir, step, loss), state_of(step))
        ends.append(selection.exhausted)
    selection.close()
    return ends


def best_of(workdir: pathlib.Path) -> int | None:
    state = restore_best(workdir, EXPECTED)
    return None if state is None else int(state.step)


@pytest.mark.parametrize(
    ("losses", "best"),
    [
        ((3.0, 2.0, 2.5, 1.0, 1.5), 4),
        ((1.0, 2.0), 1),
        ((2.0, 1.0, 1.0), 2),  # the first of equals
        ((INF, float("nan"), 4.0, -INF), 3),
        ((float("nan"),), None),
        ((), None),
    ],
)
def test_the_lowest_finite_loss_is_the_best(tmp_path, losses, best):
    validate(tmp_path, losses)
    assert best_of(tmp_path) == best
    if best is None:
        assert not (tmp_path / "classifier.json").exists()
        return
    known = json.loads((tmp_path / "classifier.json").read_text())
    assert known == {"step": best, "loss": losses[best - 1], "temperature": 1.0 + best}
    assert [path.name for path in (tmp_path / "best").iterdir()] == [str(best)]


LOSSES = (3.0, float("nan"), 2.0, 2.0, float("nan"), 2.5, 1.0, 4.0)
EXHAUSTED = {
    0: [False] * 9,
    1: [False, False, True, False, True, True, True, False, True],
    2: [False, False, False, False, False, True, True, False, False],
    3: [False, False, False, False, False, False, True, False, False],
}


@pytest.mark.parametrize("patience", EXHAUSTED)
def test_patience_counts_the_validations_since_the_lowest_loss(tmp_path, patience):
    assert validate(tmp_path, LOSSES, patience) == EXHAUSTED[patience]


@pytest.mark.parametrize("start", range(1, 8))
def test_a_resumed_run_decides_as_one_that_was_never_stopped(tmp_path, start):
    """Steps after `start` were done as well before the run was killed, and are done again."""
    validate(tmp_path, LOSSES[: min(8, start + 3)], 2)
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    (tmp_path / "metrics.jsonl").write_text("".join(f"{line}\n" for line in lines[:start]))
    assert validate(tmp_path, LOSSES[start:], 2, start) == EXHAUSTED[2][start:]
    assert best_of(tmp_path) == 7
    assert json.loads((tmp_path / "classifier.json").read_text())["step"] == 7


def test_lines_of_later_steps_and_without_validation_do_not_count(tmp_path):
    write_line(tmp_path, 9, 0.1)
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 1, "loss": 0.5}\n')
    assert validate(tmp_path, (3.0, 2.0), patience=1) == [False, False, False]
    assert best_of(tmp_path) == 2


def test_a_best_state_that_was_dropped_is_followed_by_the_next(tmp_path):
    """A resume may validate at other steps, so that the dropped one never comes again."""
    validate(tmp_path, (2.0, 1.0))  # the state of step 2 takes the place of that of step 1
    (tmp_path / "metrics.jsonl").write_text("")
    write_line(tmp_path, 1, 2.0)
    selection = Selection(tmp_path, state_of(1), 0)
    assert best_of(tmp_path) is None
    selection.add(3, write_line(tmp_path, 3, 2.5), state_of(3))
    selection.add(4, write_line(tmp_path, 4, 2.7), state_of(4))
    selection.close()
    assert best_of(tmp_path) == 3


def test_no_best_state_and_another_step_than_the_best(tmp_path):
    assert restore_best(tmp_path / "nothing", EXPECTED) is None
    validate(tmp_path, (2.0, 1.0))
    assert states_differ(restore_best(tmp_path, EXPECTED, 2), state_of(2)) == []
