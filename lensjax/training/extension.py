"""A run that goes on with another number of steps: from which checkpoint, and at which rates.

The learning rate depends on `train.num_steps`, so such a run is that of the new number from the
beginning only if it goes on from a step before the rates differ.
"""

import dataclasses
import pathlib
import shutil
from typing import Any

import jax.numpy as jnp
import numpy as np
from absl import logging

from lensjax.config import Config
from lensjax.devices import hosts
from lensjax.errors import CheckpointError
from lensjax.run import workdir as files
from lensjax.run.checkpoint import Checkpoints
from lensjax.run.learning import branch_step, build_schedule
from lensjax.run.state import TrainState

# Where the checkpoints, pictures and metrics of a cooldown go when its run is extended.
COOLED = "cooled_checkpoints"


def earlier_config(config: Config, workdir: pathlib.Path) -> Config | None:
    """The configuration with the number of steps that a workdir's run had; None where it is new.

    Raises:
      lensjax.errors.WorkdirError: if `config.json` cannot be read.
    """
    num_steps = hosts.from_main(lambda: files.saved_num_steps(workdir), "the number of steps")
    if num_steps is None:
        return None
    return dataclasses.replace(config, train=dataclasses.replace(config.train, num_steps=num_steps))


def branched_state(
    config: Config,
    earlier: Config | None,
    workdir: pathlib.Path,
    checkpoints: Checkpoints,
    expected: TrainState,
) -> TrainState | None:
    """Goes back to the checkpoint before the cooldown if the run gets more steps than it had.

    The checkpoints of the cooldown are moved to `cooled_checkpoints/`, with their pictures and a
    copy of the metrics. This comes before `config.json` is written: after a kill it is found again.

    Args:
      config: the configuration.
      earlier: see `earlier_config`.
      workdir: the run's folder.
      checkpoints: of the run.
      expected: see `Checkpoints.restore`.

    Returns:
      The state; None where the newest checkpoint is the right one, or the only choice.
    """
    branch = branch_step(earlier) if earlier else None
    steps = checkpoints.steps()
    if earlier is None or not steps or config.train.num_steps <= earlier.train.num_steps:
        return None
    if branch is None or steps[-1] <= branch:
        return None
    for step in [step for step in reversed(steps) if step <= branch]:
        try:
            state = checkpoints.restore(expected, step)
        except CheckpointError as error:
            logging.warning("%s", error)
            continue
        logging.info(
            "going back to step %d, before the cooldown of the run of %d steps began",
            step,
            earlier.train.num_steps,
        )
        _set_later_aside(workdir, step, checkpoints)
        return state
    logging.warning(
        "no checkpoint before the cooldown of the run of %d steps, at step %d or earlier, was kept",
        earlier.train.num_steps,
        branch,
    )
    return None


def _set_later_aside(workdir: pathlib.Path, step: int, checkpoints: Checkpoints) -> None:
    def copy() -> None:
        target = workdir / COOLED
        target.mkdir(exist_ok=True)
        if (workdir / files.METRICS_FILE).exists():
            shutil.copy(workdir / files.METRICS_FILE, target)
        for picture in (workdir / files.SAMPLES).glob("step_*.png"):
            number = picture.stem.removeprefix("step_")
            if number.isdecimal() and int(number) > step:
                picture.replace(target / picture.name)

    hosts.main_first(lambda: copy() if hosts.is_main() else None)
    checkpoints.set_later_aside(step, COOLED)


def log_rates(config: Config, earlier: Config | None, start: int) -> None:
    """Says what another number of steps does to the learning rate; nothing if it is the same.

    Args:
      config: the configuration.
      earlier: see `earlier_config`.
      start: the step that the run goes on from.
    """
    if earlier is None or earlier.train.num_steps == config.train.num_steps:
        return
    new, old = build_schedule(config), build_schedule(earlier)
    step: Any = jnp.int32(start)
    made = jnp.arange(start, dtype=jnp.int32)
    same = bool(np.all(np.asarray(new(made)) == np.asarray(old(made))))
    logging.info(
        "train.num_steps is %d, was %d: the learning rate of step %d is %.3g, was %.3g; %s",
        config.train.num_steps,
        earlier.train.num_steps,
        start + 1,
        float(new(step)),
        float(old(step)),
        f"the result is that of a run of {config.train.num_steps} steps"
        if same
        else "earlier steps had other rates than a run of this number has, so the result is "
        "that of neither",
    )
