"""Selects the best step of a classifier's training, and says when to stop early.

The decision is a function of the validation losses in `metrics.jsonl`, so that a resumed run
decides as one that was never stopped.
"""

import math
import pathlib
from collections.abc import Mapping
from typing import Any

from lensjax.devices.hosts import from_main, is_main
from lensjax.files.atomic import write_json
from lensjax.run import workdir as files
from lensjax.run.checkpoint import Checkpoints
from lensjax.run.state import TrainState
from lensjax.run.writers import read_metrics

_PREFIX = "validation/"
VALIDATION_LOSS = f"{_PREFIX}loss"


class Selection:
    """Keeps the state with the lowest validation loss beside the newest ones.

    Args:
      workdir: the run's folder.
      state: the state that the run goes on from; later lines of `metrics.jsonl` do not count.
      patience: validations without a lower loss after which training ends; 0 for none.
      run_id: see `Checkpoints`.
    """

    def __init__(
        self, workdir: pathlib.Path, state: TrainState, patience: int, run_id: str | None = None
    ) -> None:
        start = int(state.step)
        self._workdir, self._patience = workdir, patience
        self._losses: list[float] = []
        # All processes use process 0's losses, so that they decide alike to the last bit.
        for loss in from_main(lambda: _losses(workdir / files.METRICS_FILE, start), "losses"):
            self._losses.append(math.inf if loss is None else loss)  # JSON has no infinity
        self._checkpoints = Checkpoints(workdir / files.BEST, keep_last=1, run_id=run_id)
        self._checkpoints.set_unsound_aside(state)
        self._checkpoints.drop_after(start)
        # If the best state was set aside or dropped, none is left, as only one is kept: the next
        # validation with a finite loss is then saved as the best.
        has_best = from_main(lambda: files.has_steps(workdir / files.BEST), "the best state")
        self._lowest = min(self._losses, default=math.inf) if has_best else math.inf

    def add(self, step: int, values: Mapping[str, float], state: TrainState) -> None:
        """Notes a validation; saves the state with its metrics where it is the best so far.

        Args:
          step: steps that were made.
          values: the metrics of the step, validation included; a loss that is not finite is never
            the best.
          state: the state after that step.
        """
        loss = from_main(lambda: _plain(values[VALIDATION_LOSS]), f"the loss of step {step}")
        loss = math.inf if loss is None else loss
        self._losses.append(loss)
        if loss < self._lowest:
            self._lowest = loss
            self._checkpoints.save(step, state)
            self._checkpoints.wait()
            metrics = {
                name.removeprefix(_PREFIX): value
                for name, value in values.items()
                if name.startswith(_PREFIX)
            }
            if is_main():
                write_json(self._workdir / files.CLASSIFIER_FILE, {"step": step, **metrics})

    @property
    def exhausted(self) -> bool:
        """Whether the last `patience` validations brought no lower loss."""
        if not self._patience or not self._losses:
            return False
        since = len(self._losses) - 1 - self._losses.index(min(self._losses))
        return since >= self._patience

    def close(self) -> None:
        """Waits until everything is on disk."""
        self._checkpoints.close()


def _plain(loss: float) -> float | None:
    return loss if math.isfinite(loss) else None


def _losses(path: pathlib.Path, start: int) -> list[float | None]:
    """The validation losses up to a step, None where one was not finite."""
    lines = read_metrics(path) if path.exists() else []
    return [
        line[VALIDATION_LOSS] for line in lines if line["step"] <= start and VALIDATION_LOSS in line
    ]


def restore_best(
    workdir: pathlib.Path, expected: Any, step: int | None = None, run_id: str | None = None
) -> Any:
    """The best state of a run, None if there is none yet or it is of another step.

    Args:
      workdir: the run's folder.
      expected: shapes, dtypes and shardings, see `Checkpoints.restore`.
      step: the step that it must be of; None for any.
      run_id: see `Checkpoints`.
    """
    folder = workdir / files.BEST

    def is_there() -> bool:
        return files.has_steps(folder) if step is None else (folder / str(step)).is_dir()

    if not from_main(is_there, "the best state"):
        return None
    checkpoints = Checkpoints(folder, read_only=True, run_id=run_id)
    try:
        return checkpoints.restore(expected, step)
    finally:
        checkpoints.close()
