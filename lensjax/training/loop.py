"""The training loop: everything that a step needs is prepared first, then steps and their records.

The state is a function of the configuration and the number of steps, so that a run that was killed
at any moment goes on from its newest checkpoint as if nothing had happened.
"""

import contextlib
import pathlib
from collections.abc import Iterator
from typing import Any

import jax
from absl import logging

from lensjax.config import Config
from lensjax.config.model import CLASSIFY
from lensjax.data.augmentation import cut_out_shape
from lensjax.data.dataset import DatasetInfo, Split
from lensjax.data.pipeline import Placement
from lensjax.data.placement import place
from lensjax.data.subset import without_disc
from lensjax.devices import hosts
from lensjax.errors import TrainingError
from lensjax.run import workdir as files
from lensjax.run.checkpoint import Checkpoints
from lensjax.run.learning import build_spread
from lensjax.run.selection import Selection
from lensjax.run.state import NO_BAD_STEP, TrainState, sampling_params
from lensjax.run.writers import only_warnings
from lensjax.training.monitor import Monitor, make_watch
from lensjax.training.prepare import check_images, claim_dataset, compile_step, divided, first_state
from lensjax.training.stopping import StopRequest, stop_on_signal
from lensjax.training.transfer import check_start


def _arguments(placement: Placement, step: int, num_steps: int) -> tuple[Any, ...]:
    """Returns what a dispatch receives beside the state, see `state.make_dispatch`."""
    if placement.gives_rows:
        return tuple(placement.arguments(step + number) for number in range(num_steps))
    return placement.arguments(step)


def train(
    config: Config,
    workdir: pathlib.Path,
    split: Split,
    test: Split | None = None,
    *,
    quiet: bool = False,
    stop: StopRequest | None = None,
) -> TrainState:
    """Trains, or goes on with, the run in a workdir.

    Args:
      config: the checked configuration.
      workdir: the run's folder.
      split: the training images; those in `data.exclude_source_disc` are left out here.
      test: images that are not trained on, for the validation loss of a generator; None leaves it
        out. Classifiers and pre-training validate on a part of `split`, and never see these.
      quiet: for a training that is a part of something else: logs warnings alone, shows nothing in
        TensorBoard, draws no curves, and leaves signals to its caller.
      stop: knows afterwards which signal stopped the run; None where nobody asks.

    Returns:
      The state at the end, or where a signal stopped the run.

    Raises:
      ConfigError: where the workdir belongs to another configuration or data set.
      lensjax.errors.DataError: for data that the configuration cannot take.
      lensjax.errors.WorkdirError: where another process trains in the workdir.
      lensjax.errors.HostError: where the hosts do not share the workdir.
      TrainingError: where a loss or gradient was not finite.
      lensjax.errors.CheckpointError: where there are checkpoints but none is sound.
    """
    spread, stop, settings = build_spread(config), stop or StopRequest(), config.train
    split = without_disc(split, config.data.exclude_source_disc)
    check_images(config, split.info, len(split))
    with contextlib.ExitStack() as cleanup:
        if quiet:
            cleanup.enter_context(only_warnings())
        cleanup.enter_context(_claimed(workdir, config, split.info))
        split, other = divided(split, test, config)
        scaling = hosts.main_first(lambda: claim_dataset(workdir, split, config))
        checkpoints = _open_checkpoints(workdir, config)
        cleanup.callback(checkpoints.close)
        state = first_state(config, split, spread.mesh, checkpoints)
        start = int(state.step)
        logging.info("resumed at step %d" if start else "starting at step %d", start)
        selection = _open_selection(workdir, config, start)
        if selection:
            cleanup.callback(selection.close)
        if start >= settings.num_steps or (selection and selection.exhausted):
            logging.info("nothing to do: the run ended after %d steps", start)
            return state
        if hosts.is_main():
            files.record_start(workdir, start, config, split.info)
        at_once = settings.steps_per_dispatch
        placement = place(split, config.data.placement, config.seed, spread, at_once)
        cleanup.callback(placement.close)
        step_fn = compile_step(config, state, split, scaling, placement, spread)
        watch = make_watch(config, split, other, scaling, spread.mesh)
        monitor = Monitor(config, workdir, start, watch, quiet=quiet)
        cleanup.callback(monitor.close)
        if not quiet:
            cleanup.enter_context(stop_on_signal(stop))
        return _loop(config, state, step_fn, placement, checkpoints, monitor, stop, selection)


@contextlib.contextmanager
def _claimed(workdir: pathlib.Path, config: Config, info: DatasetInfo) -> Iterator[None]:
    """Makes a workdir this run's own, and keeps other trainings out while it is open."""
    hosts.check_shared(workdir)
    if not hosts.is_main():
        yield
        return
    if config.classify.start_from is not None and not files.is_begun(workdir):
        check_start(config, cut_out_shape(info.image_shape, config.data.shift_pixels))
    files.claim(workdir, config)
    with files.training_lock(workdir):
        yield


def _open_selection(workdir: pathlib.Path, config: Config, start: int) -> Selection | None:
    """Returns what keeps the best state of a classifier; a generator has none."""
    if config.task != CLASSIFY:
        return None
    return Selection(workdir, start, config.classify.patience)


def _open_checkpoints(workdir: pathlib.Path, config: Config) -> Checkpoints:
    keep_last, keep_every = config.train.keep_last, config.train.keep_every
    return Checkpoints(workdir / files.CHECKPOINTS, keep_last=keep_last, keep_every=keep_every)


def _check_finite(state: TrainState) -> None:
    bad_step = int(state.bad_step)
    if bad_step != NO_BAD_STEP:
        raise TrainingError(
            f"the loss or gradient of step {bad_step + 1} was not finite; its update was skipped "
            "and nothing was saved since. Look at the data, or begin in another workdir with a "
            "lower optim.learning_rate or optim.clip_norm, or with model.dtype=float32"
        )


def _loop(
    config: Config,
    state: TrainState,
    step_fn: Any,
    placement: Placement,
    checkpoints: Checkpoints,
    monitor: Monitor,
    stop: StopRequest,
    selection: Selection | None,
) -> TrainState:
    settings, ema, progress = config.train, config.sample.ema, monitor.progress
    patience, at_once = config.classify.patience, settings.steps_per_dispatch
    for step in range(int(state.step) + at_once, settings.num_steps + 1, at_once):
        state, scalars = step_fn(state, *_arguments(placement, step - at_once, at_once))
        progress.pending.append(scalars)
        # Looked at once a dispatch: a signal that comes during a save or a picture is for the next
        # one, or this step would be called saved without being so.
        signal_name = stop.reached(step // at_once)
        done = step == settings.num_steps
        last = done or signal_name is not None

        # A selection needs every validation: what is best must not depend on when a signal came.
        validates = (signal_name is None or selection is not None) and (
            step % settings.evaluate_every == 0 or done
        )
        draws = signal_name is None and (step % settings.sample_every == 0 or done)
        saves = step % settings.checkpoint_every == 0 or last
        if saves or draws:
            jax.block_until_ready(state.step)  # steps that still run belong on the clock
        scores = monitor.draw_samples(step, sampling_params(state, ema)) if draws else None
        if step % settings.log_every == 0 or validates or draws or last:
            params = sampling_params(state, ema) if validates else None
            values = monitor.write_line(step, params, scores)
            _check_finite(state)
            if selection and validates:
                progress.pause()
                selection.add(step, values, state)
                progress.go_on()
                if selection.exhausted and not last:
                    logging.info("stops early: %d validations without a lower loss", patience)
                    last = saves = True
        if saves:
            progress.pause()
            _check_finite(state)
            checkpoints.save(step, state)
            progress.go_on()
        if last:
            checkpoints.wait()
        if signal_name is not None and not done:
            logging.info(
                "%s: saved step %d; to go on, run the same command again", signal_name, step
            )
        if last:
            break
    return state
