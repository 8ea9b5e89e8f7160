"""The training loop: everything that a step needs is prepared first, then steps and their records.

The state is a function of the configuration and the number of steps, so that a run that was killed
at any moment goes on from its newest checkpoint as if nothing had happened.
"""

import contextlib
import pathlib
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
from absl import logging

from lensjax import hosts
from lensjax import workdir as files
from lensjax.assemble import build_train_step, make_init_state, with_shardings
from lensjax.checkpoint import Checkpoints
from lensjax.class_watch import observe_fn
from lensjax.config import Config, DataConfig, check_attention, check_mask
from lensjax.config_classify import BALANCED
from lensjax.config_task import CLASSIFY, GENERATE, TRANSFORMERS
from lensjax.data.augmentation import cut_out_shape, make_augment_fn
from lensjax.data.catalogue import is_same_content
from lensjax.data.dataset import DatasetInfo, Split
from lensjax.data.division import divide
from lensjax.data.pipeline import Placement, make_batch_fn
from lensjax.data.placement import check_batch_size, place
from lensjax.data.scaling import Scaling, fit_scaling, num_reference_images
from lensjax.data.subset import without_disc
from lensjax.errors import ConfigError, DataError, TrainingError
from lensjax.interfaces import Batch
from lensjax.monitor import Monitor, make_watch
from lensjax.parallel import state_shardings
from lensjax.selection import Selection
from lensjax.spread import Spread, make_spread
from lensjax.state import NO_BAD_STEP, TrainState, make_dispatch, sampling_params
from lensjax.stopping import StopRequest, stop_on_signal
from lensjax.transfer import check_start, scaling_of, with_encoder
from lensjax.writers import only_warnings


def _describe_dataset(
    split: Split, scaling: Scaling, image_shape: tuple[int, int, int]
) -> dict[str, Any]:
    """Returns the content of `dataset.json`: all that sampling needs without the data."""
    info = split.info
    return {
        "name": info.name,
        "fingerprint": info.fingerprint,
        "class_names": list(info.class_names),
        "image_shape": list(image_shape),
        "flux_unit": info.flux_unit,
        "pixel_scale_arcsec": info.pixel_scale_arcsec,
        "psf_fwhm_arcsec": info.psf_fwhm_arcsec,
        "zero_point_mag": info.zero_point_mag,
        "minimum": info.minimum,
        "maximum": info.maximum,
        "published_scale": info.published_scale,
        "num_train_images": len(split),
        "scaling": scaling.to_dict(),
    }


def _fit_scaling(split: Split, data: DataConfig) -> Scaling:
    """Finds the scaling from the first images of those that are trained on.

    What is left out must not be known to the network at all.
    """
    info = split.info
    count = min(num_reference_images(info.image_shape), len(split))
    reference = split.examples(np.arange(count)).images
    return fit_scaling(data.scaling, data.model_std, reference, info.minimum, masked=info.masked)


def _claim_dataset(workdir: pathlib.Path, split: Split, config: Config) -> Scaling:
    """Writes `dataset.json`, or checks that a resumed run meets the data that it began with."""
    path = workdir / files.DATASET_FILE
    if path.exists():
        known = files.read_json(path)
        if not is_same_content(known["fingerprint"], split.info.fingerprint):
            raise ConfigError(
                "data.name",
                f"{split.info.name} with fingerprint {split.info.fingerprint}",
                f"this workdir was begun with fingerprint {known['fingerprint']}; take another",
            )
        return Scaling(**known["scaling"])
    shape = cut_out_shape(split.info.image_shape, config.data.shift_pixels)
    if config.classify.start_from is not None:
        scaling = scaling_of(config)
    else:
        scaling = _fit_scaling(split, config.data)
    files.write_json(path, _describe_dataset(split, scaling, shape))
    return scaling


def _log_parameters(state: TrainState) -> None:
    from clu import parameter_overview

    table = parameter_overview.get_parameter_overview(state.params, include_stats=False)
    logging.info("parameters:\n%s", table)


def _check_finite(state: TrainState) -> None:
    bad_step = int(state.bad_step)
    if bad_step != NO_BAD_STEP:
        raise TrainingError(
            f"the loss or gradient of step {bad_step + 1} was not finite; its update was skipped "
            "and nothing was saved since. Look at the data, or begin in another workdir with a "
            "lower optim.learning_rate or optim.clip_norm, or with model.dtype=float32"
        )


def _arguments(placement: Placement, step: int, num_steps: int) -> tuple[Any, ...]:
    """Returns what a dispatch receives beside the state, see `state.make_dispatch`."""
    if placement.gives_rows:
        return tuple(placement.arguments(step + number) for number in range(num_steps))
    return placement.arguments(step)


def _compile(
    config: Config,
    state: TrainState,
    split: Split,
    scaling: Scaling,
    placement: Placement,
    spread: Spread,
) -> Any:
    """Compiles the step once; a compiled step refuses other shapes instead of compiling again."""
    batch_fn, rows = _batch_fn(config, placement, scaling, split.info), placement.gives_rows
    train_step = build_train_step(config, batch_fn, spread, rows, _class_counts(config, split))
    dispatch = make_dispatch(train_step, config.train.steps_per_dispatch, rows)
    started = time.monotonic()
    # Those of every step are alike; the steps of a dispatch are read when it is due.
    arguments = placement.arguments(int(state.step))
    if rows:
        arguments = (arguments,) * config.train.steps_per_dispatch
    compiled = spread.compile(dispatch, state, arguments, rows)
    logging.info("compiled the train step once, in %.1f s", time.monotonic() - started)
    return compiled


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
    spread, stop, settings = make_spread(config), stop or StopRequest(), config.train
    split = without_disc(split, config.data.exclude_source_disc)
    _check_images(config, split.info, len(split))
    with contextlib.ExitStack() as cleanup:
        if quiet:
            cleanup.enter_context(only_warnings())
        cleanup.enter_context(_claimed(workdir, config, split.info))
        split, other = _parts(split, test, config)
        scaling = hosts.main_first(lambda: _claim_dataset(workdir, split, config))
        checkpoints = _open_checkpoints(workdir, config)
        cleanup.callback(checkpoints.close)
        state = _first_state(config, split, spread.mesh, checkpoints)
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
        step_fn = _compile(config, state, split, scaling, placement, spread)
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


def _parts(split: Split, test: Split | None, config: Config) -> tuple[Split, Split | None]:
    """Returns what is trained on, and what is validated on beside it."""
    if config.task == GENERATE:
        return split, test
    settings = config.classify
    return divide(split, config.seed, settings.validation_share, settings.label_share)


def _check_images(config: Config, info: DatasetInfo, num_images: int) -> None:
    """Checks what depends on the images and is known only once the data is there."""
    check_batch_size(config.train.batch_size, info, num_images)
    if config.train.batch_size * config.train.steps_per_dispatch > num_images:
        # A dispatch knows the order of this epoch and the next.
        raise ConfigError(
            "train.steps_per_dispatch",
            config.train.steps_per_dispatch,
            f"allowed: at most {num_images // config.train.batch_size}, the batches in the "
            f"{num_images} images of {info.name}",
        )
    if config.task == CLASSIFY and info.num_classes < 2:
        raise DataError(
            f"{info.name} has {info.num_classes or 'no'} class"
            f"{f' ({info.class_names[0]})' if info.num_classes else ', it is unlabelled'}; a "
            "classifier needs at least two: one folder for each class"
        )
    if info.num_classes != config.model.num_classes:
        raise ConfigError(
            "model.num_classes",
            config.model.num_classes,
            f"allowed: {info.num_classes}, the classes of {info.name} "
            f"({', '.join(info.class_names) or 'unlabelled'})",
        )
    data = config.data
    make_augment_fn(data.augmentation, data.shift_pixels, info.image_shape)  # refuses what it must
    height, width, _ = cut_out_shape(info.image_shape, data.shift_pixels)
    patch = config.model.patch_size
    if config.model.name in TRANSFORMERS and (height % patch or width % patch):
        raise ConfigError(
            "model.patch_size",
            patch,
            f"allowed: a divisor of both sides of the images, {height}x{width} pixels "
            "(model.name=unet, cnn, rescnn and resnet18 take any)",
        )
    check_mask(config.model, height, width)
    check_attention(config.model, height)


def _class_counts(config: Config, split: Split) -> list[int] | None:
    """Returns the training images of each class where the loss asks for them."""
    if config.classify.class_weights != BALANCED:
        return None
    return np.bincount(split.all_labels(), minlength=config.model.num_classes).tolist()


def _batch_fn(
    config: Config,
    placement: Placement,
    scaling: Scaling,
    info: DatasetInfo,
) -> Callable[..., Batch]:
    data = config.data
    augment_fn = make_augment_fn(data.augmentation, data.shift_pixels, info.image_shape)
    observe = observe_fn(config)

    def prepare(key: jax.Array, image: jax.Array) -> jax.Array:
        return observe(jax.random.fold_in(key, 1), augment_fn(key, image))

    return make_batch_fn(placement, scaling, prepare, config.seed, masked=info.masked)


def _first_state(
    config: Config, split: Split, mesh: jax.sharding.Mesh, checkpoints: Checkpoints
) -> TrainState:
    """Returns the state of the newest sound checkpoint, or a new one."""
    shape = cut_out_shape(split.info.image_shape, config.data.shift_pixels)
    init = make_init_state(config, shape)
    expected = with_shardings(jax.eval_shape(init), mesh)
    state = checkpoints.restore(expected)
    if state is None:
        state = jax.jit(init, out_shardings=state_shardings(mesh, expected))()
        if config.classify.start_from is not None:
            state = with_encoder(state, config)
        _log_parameters(state)
    return state


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
        if signal_name is not None:
            logging.info(
                "%s: saved step %d; to go on, run the same command again", signal_name, step
            )
        if last:
            break
    return state
