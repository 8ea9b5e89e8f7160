"""All work before the first step: the run is begun or restored, then the step made ready."""

import contextlib
import functools
import pathlib
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

import jax
from absl import logging
from jax.sharding import Mesh

from lensjax.config import Config, check_image_size, check_num_classes
from lensjax.data.augmentation import cut_out_shape, make_augment_fn
from lensjax.data.dataset import DatasetInfo, Split
from lensjax.data.feed import Feed, StepFn, check_batch_size, open_feed
from lensjax.data.fresh import FreshFeed
from lensjax.data.pipeline import make_batch_fn
from lensjax.data.scaling import Scaling
from lensjax.data.subset import without_disc
from lensjax.devices import hosts
from lensjax.devices.spread import Spread
from lensjax.errors import ConfigError
from lensjax.files.atomic import write_text
from lensjax.run import workdir as files
from lensjax.run.checkpoint import Checkpoints
from lensjax.run.learning import (
    branch_step,
    build_spread,
    build_train_step,
    check_memory,
    make_init_state,
    with_shardings,
)
from lensjax.run.selection import Selection
from lensjax.run.state import TrainState
from lensjax.signals import begin_work
from lensjax.training import extension
from lensjax.training.class_watch import observe_fn
from lensjax.training.data import TrainingData, check_dataset, claim_dataset
from lensjax.training.monitor import Monitor
from lensjax.training.tasks import Task, task_of

AugmentFn = Callable[[jax.Array, jax.Array], jax.Array]


class Begun(NamedTuple):
    """A run whose folder is this process's own and whose state is there.

    Attributes:
      config: the configuration.
      workdir: the run's folder.
      task: the task of the run.
      spread: how a batch lies on the devices.
      data: the images to train and to validate on.
      augment_fn: `(key, image) -> image` of a training example, in flux.
      checkpoints: the newest states.
      selection: the best state; None if the newest is wanted.
      state: a new one, or that of the newest sound checkpoint.
      check_there: raises `WorkdirError` if the workdir was deleted or moved.
    """

    config: Config
    workdir: pathlib.Path
    task: Task
    spread: Spread
    data: TrainingData
    augment_fn: AugmentFn
    checkpoints: Checkpoints
    selection: Selection | None
    state: TrainState
    check_there: Callable[[], None]

    @property
    def start(self) -> int:
        """Steps that were made before."""
        return int(self.state.step)

    @property
    def is_finished(self) -> bool:
        """Whether all steps were made, or a classifier has stopped early."""
        exhausted = self.selection is not None and self.selection.exhausted
        return self.start >= self.config.train.num_steps or exhausted


class Ready(NamedTuple):
    """The objects that the training loop needs.

    Attributes:
      feed: gives each dispatch its images.
      step_fn: the compiled dispatch, `(state, *arguments) -> (state, scalars [steps])`.
      monitor: writes metrics and pictures.
    """

    feed: Feed
    step_fn: StepFn
    monitor: Monitor


def begin(
    config: Config,
    workdir: pathlib.Path,
    split: Split,
    test: Split | None,
    cleanup: contextlib.ExitStack,
    mesh: Mesh | None = None,
) -> Begun:
    """Begins a run in a workdir, or restores the run that is there.

    Args:
      config: the checked configuration.
      workdir: the run's folder.
      split: the training images; those in `data.exclude_source_disc` are left out here.
      test: see `loop.train`.
      cleanup: closes all that is opened here.
      mesh: the devices; None for those of the configuration.

    Raises:
      UserError: see `loop.train`.
    """
    spread, task = build_spread(config, mesh), task_of(config)
    split = without_disc(split, config.data.exclude_source_disc)
    image_shape, augment_fn = _check_images(config, task, split.info, len(split))
    init = make_init_state(config, image_shape)
    expected = with_shardings(jax.eval_shape(init), spread.mesh)
    check_memory(config, expected, spread.mesh)
    check = functools.partial(task.check_start, image_shape, split.info.band_names)
    check_there = cleanup.enter_context(_locked(workdir, check))
    train, validation = task.divide(split, test)
    begins, run_id = hosts.from_main(lambda: _check_run(workdir, config, train), "the run's id")
    if not begins:
        config = files.checked_same(workdir, config)
    checkpoints = Checkpoints(
        workdir / files.CHECKPOINTS,
        keep_last=config.train.keep_last,
        keep_every=config.train.keep_every,
        keep_step=branch_step(config),
        run_id=run_id,
    )
    cleanup.callback(checkpoints.close)
    earlier = extension.earlier_config(config, workdir)
    branched = extension.branched_state(config, earlier, workdir, checkpoints, expected)
    state = branched or first_state(task, init, expected, checkpoints)

    def claim() -> Scaling:
        new = begins and hosts.is_main()  # the others read what process 0 has written
        first = task.first_scaling
        scaling = claim_dataset(workdir, train, image_shape, first, config, begins=new)
        if hosts.is_main():
            files.claim(workdir, config, run_id)
        return scaling

    data = TrainingData(train, validation, image_shape, hosts.main_first(claim))
    start = int(state.step)
    logging.info("resumed at step %d" if start else "starting at step %d", start)
    extension.log_rates(config, earlier, start)
    selection = task.selection(workdir, state, run_id)
    if selection:
        cleanup.callback(selection.close)
    run = config, workdir, task, spread, data, augment_fn, checkpoints, selection, state
    return Begun(*run, check_there)


def _check_run(workdir: pathlib.Path, config: Config, train: Split) -> tuple[bool, str | None]:
    """Checks a run that goes on against its folder; says whether it begins, and its id."""
    begins = not files.is_begun(workdir)
    run_id = files.id_to_run_with(workdir, config)
    if not begins:
        check_dataset(workdir, train)
    return begins, run_id


def get_ready(run: Begun, cleanup: contextlib.ExitStack, *, quiet: bool = False) -> Ready:
    """Brings the images to the devices, compiles the step, and opens the records of the run.

    Args:
      run: the run.
      cleanup: closes all that is opened here.
      quiet: see `loop.train`.
    """
    config, train = run.config, run.data.train
    if hosts.is_main():
        files.record_start(run.workdir, run.start, config, train.info)
        if run.start == 0:
            _write_parameters(run.workdir, run.state)
    feed = _open_feed(config, train, run.spread)
    cleanup.callback(feed.close)
    if not quiet:
        begin_work("compiling the training step")
    step_fn = compile_step(run, feed)
    watch = run.task.watch(run.data, run.spread.mesh)
    monitor = Monitor(config, run.workdir, run.start, watch, quiet=quiet)
    cleanup.callback(monitor.close)
    return Ready(feed, step_fn, monitor)


def _open_feed(config: Config, train: Split, spread: Spread) -> Feed:
    steps_per_dispatch = config.train.steps_per_dispatch
    if config.data.fresh:
        logging.info("data.fresh: the lenses of each step are simulated in it")
        return FreshFeed(train.info.name, config.seed, spread, steps_per_dispatch)
    return open_feed(
        train,
        config.data.placement,
        config.seed,
        spread,
        steps_per_dispatch,
        variance=config.loss.weighting == "inverse_variance",
    )


@contextlib.contextmanager
def _locked(workdir: pathlib.Path, check_start: Callable[[], None]) -> Iterator[Callable[[], None]]:
    """Keeps other runs out of a workdir while it is open; nothing is written there before.

    Args:
      workdir: the run's folder.
      check_start: checks a run that is begun for the first time.

    Yields:
      A check that the workdir is still there.
    """
    hosts.check_shared(workdir)
    if not hosts.is_main():
        yield lambda: None
        return
    if not files.is_begun(workdir):
        check_start()
    with files.training_lock(workdir) as check_there:
        yield check_there


def _check_images(
    config: Config, task: Task, info: DatasetInfo, num_images: int
) -> tuple[tuple[int, int, int], AugmentFn]:
    """Checks the configuration against the images, and makes their augmentation.

    Returns:
      `(H, W, C)` of the network's input, and `(key, image) -> image` of a training example.
    """
    check_batch_size(config.train.batch_size, info, num_images)
    if config.train.batch_size * config.train.steps_per_dispatch > num_images:
        # A dispatch has the order of this epoch and the next alone.
        raise ConfigError(
            "train.steps_per_dispatch",
            config.train.steps_per_dispatch,
            f"allowed: at most {num_images // config.train.batch_size}, the batches in the "
            f"{num_images} images of {info.name}",
        )
    task.check(info)
    check_num_classes(config.model, info.name, info.class_names)
    data, observe = config.data, observe_fn(config)
    move = make_augment_fn(data.augmentation, data.shift_pixels, info.image_shape)
    image_shape = cut_out_shape(info.image_shape, data.shift_pixels)
    check_image_size(config.model, *image_shape[:2])

    def augment(key: jax.Array, image: jax.Array) -> jax.Array:
        return observe(jax.random.fold_in(key, 1), move(key, image))

    return image_shape, augment


def first_state(
    task: Task, init: Callable[[], TrainState], expected: TrainState, checkpoints: Checkpoints
) -> TrainState:
    """Restores the newest sound checkpoint, or makes a new state."""
    state = checkpoints.restore(expected)
    if state is None:
        shardings = jax.tree.map(lambda leaf: leaf.sharding, expected)
        state = task.first_state(jax.jit(init, out_shardings=shardings)())
    return state


def _write_parameters(workdir: pathlib.Path, state: TrainState) -> None:
    from clu import parameter_overview

    total = parameter_overview.count_parameters(state.params)
    table = parameter_overview.get_parameter_overview(state.params, include_stats=False)
    write_text(workdir / files.PARAMETERS_FILE, table + "\n")
    logging.info("%s parameters, listed in %s", f"{total:,}", workdir / files.PARAMETERS_FILE)


def compile_step(run: Begun, feed: Feed) -> StepFn:
    """Compiles the step once; a compiled step refuses other shapes instead of compiling again."""
    config, train = run.config, run.data.train
    batch_fn = make_batch_fn(
        feed.batch, run.data.scaling, run.augment_fn, config.seed, masked=train.info.masked
    )
    step_fn = build_train_step(config, run.task.loss_fn(train), batch_fn, feed.spread)
    started = time.monotonic()
    compiled = feed.compile(step_fn, run.state)
    logging.info("compiled the train step once, in %.1f s", time.monotonic() - started)
    return compiled
