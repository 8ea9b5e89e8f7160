"""The training loop: a run is prepared, then steps are made and their results written down.

The state is a function of the configuration and the number of steps, so that a run that was killed
at any moment goes on from its newest checkpoint as if nothing had happened.
"""

import contextlib
import pathlib
from typing import NamedTuple

import jax
from absl import logging
from jax.sharding import Mesh

from lensjax.config import Config, TrainConfig
from lensjax.data.dataset import Split
from lensjax.errors import TrainingError
from lensjax.run.learning import branch_step
from lensjax.run.state import NO_BAD_STEP, TrainState, sampling_params
from lensjax.run.writers import only_warnings
from lensjax.signals import begin_work
from lensjax.training.prepare import Begun, Ready, begin, get_ready
from lensjax.training.stopping import StopRequest, stop_on_signal


def train(
    config: Config,
    workdir: pathlib.Path,
    split: Split,
    test: Split | None = None,
    *,
    quiet: bool = False,
    mesh: Mesh | None = None,
    stop: StopRequest | None = None,
) -> TrainState:
    """Trains, or goes on with, the run in a workdir.

    Args:
      config: the checked configuration.
      workdir: the run's folder.
      split: the training images; those in `data.exclude_source_disc` are left out here.
      test: images that are not trained on, for the validation loss of a generator; None leaves it
        out. Classifiers and pre-training validate on a part of `split`, and never see these.
      quiet: for training inside another program: logs warnings alone, shows nothing in
        TensorBoard, draws no curves, and leaves signals to its caller.
      mesh: the devices; None for those of the configuration.
      stop: names, afterwards, the signal that stopped the run; None if no caller needs it.

    Returns:
      The state at the end, or where a signal stopped the run.

    Raises:
      ConfigError: if the workdir belongs to another configuration or data set.
      lensjax.errors.DataError: for data that the configuration cannot take.
      lensjax.errors.WorkdirError: if another process trains in the workdir.
      lensjax.errors.HostError: if the hosts do not share the workdir.
      TrainingError: if a loss or gradient was not finite.
      lensjax.errors.CheckpointError: if there are checkpoints but none is sound.
    """
    stop = stop or StopRequest()
    with contextlib.ExitStack() as cleanup:
        if quiet:
            cleanup.enter_context(only_warnings())
        run = begin(config, workdir, split, test, cleanup, mesh)
        if run.is_finished:
            logging.info("nothing to do: the run has ended after %d steps", run.start)
            return run.state
        ready = get_ready(run, cleanup, quiet=quiet)
        if not quiet:
            cleanup.enter_context(stop_on_signal(stop))
        state = _loop(run, ready, stop)
        if not quiet:
            begin_work("finishing the training", "its last state is saved")
        return state


class _Due(NamedTuple):
    """The work that is due after a step; `last` says that the loop ends with this step."""

    line: bool
    validation: bool
    samples: bool
    checkpoint: bool
    last: bool


def _due(
    settings: TrainConfig, step: int, branch: int | None, *, stopped: bool, selects: bool
) -> _Due:
    """Decides what is due after a step.

    Args:
      settings: the section `train`.
      step: steps that were made.
      branch: see `learning.branch_step`.
      stopped: whether a signal asks for the end.
      selects: whether the best state is kept, which needs every validation: the best state must
        not depend on the time of a signal.
    """
    is_finished = step == settings.num_steps
    last = is_finished or stopped
    validation = (selects or not stopped) and (step % settings.evaluate_every == 0 or is_finished)
    samples = not stopped and (step % settings.sample_every == 0 or is_finished)
    return _Due(
        line=step % settings.log_every == 0 or validation or samples or last,
        validation=validation,
        samples=samples,
        checkpoint=step % settings.checkpoint_every == 0 or step == branch or last,
        last=last,
    )


def _check_finite(state: TrainState) -> None:
    bad_step = int(state.bad_step)
    if bad_step != NO_BAD_STEP:
        raise TrainingError(
            f"the loss or gradient of step {bad_step + 1} was not finite; its update was skipped "
            "and nothing has been saved since. Check the data, or start in another workdir with a "
            "lower optim.learning_rate or optim.clip_norm, or with model.dtype=float32"
        )


def _loop(run: Begun, ready: Ready, stop: StopRequest) -> TrainState:
    settings, ema, state = run.config.train, run.config.sample.ema, run.state
    selection, monitor, progress = run.selection, ready.monitor, ready.monitor.progress
    steps, start = settings.steps_per_dispatch, run.start
    branch = branch_step(run.config)
    for step in range(start + steps, settings.num_steps + 1, steps):
        state, scalars = ready.step_fn(state, *ready.feed.arguments(step - steps))
        progress.add(scalars)
        # Asked once a dispatch: a signal that comes during a save or a picture stops the next
        # dispatch, since the log must not call this step saved if it is not.
        signal_name = stop.reached((step - start) // steps)
        stopped, selects = signal_name is not None, selection is not None
        due = _due(settings, step, branch, stopped=stopped, selects=selects)
        if due.line:
            run.check_there()
            run.checkpoints.check()
        if due.checkpoint or due.samples:
            jax.block_until_ready(state.step)  # the clock includes steps that still run
        scores = monitor.draw_samples(step, sampling_params(state, ema)) if due.samples else None
        stops_early = False
        if due.line:
            params = sampling_params(state, ema) if due.validation else None
            values = monitor.write_line(step, params, scores)
            _check_finite(state)
            if selection and due.validation:
                progress.pause()
                selection.add(step, values, state)
                progress.go_on()
                stops_early = selection.exhausted and not due.last
        if stops_early:
            logging.info(
                "stopping early: %d validations without a lower loss", run.config.classify.patience
            )
        if due.checkpoint or stops_early:
            progress.pause()
            _check_finite(state)
            monitor.flush()
            run.checkpoints.save(step, state)
            progress.go_on()
        if due.last or stops_early:
            run.checkpoints.wait()
            if signal_name is not None and step < settings.num_steps:
                logging.info(
                    "%s: saved step %d; to continue, run the same command again", signal_name, step
                )
            break
    return state
