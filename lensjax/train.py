"""The training loop: everything that a step needs is prepared first, then steps and their records.

The state is a function of the configuration and the number of steps, so that a run that was killed
at any moment goes on from its newest checkpoint as if nothing had happened.
"""

import contextlib
import dataclasses
import pathlib
import signal
import time
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
from absl import logging
from jax import Array

from lensjax import workdir as files
from lensjax.assemble import build_train_step, make_init_state, with_sharding
from lensjax.checkpoint import Checkpoints
from lensjax.config import Config, ConfigError
from lensjax.data.dataset import LensSplit
from lensjax.data.pipeline import DevicePlacement, Placement, first_of_each_class, make_batch_fn
from lensjax.data.scaling import Scaling, fit_scaling
from lensjax.figures import lens_grid, save_png
from lensjax.generate import generate_chunks, make_sample_fn
from lensjax.parallel import make_mesh, over_batch, replicated
from lensjax.state import NO_BAD_STEP, StepFn, TrainingError, TrainState
from lensjax.writers import MetricWriters


class StopRequest:
    """Set by the handler of SIGTERM and SIGINT; the loop looks at it after each step."""

    def __init__(self) -> None:
        self.signal_name: str | None = None

    def __call__(self, number: int, frame: object) -> None:
        """Notes the signal; the second one ends the process as if there were no handler."""
        self.signal_name = signal.Signals(number).name
        signal.signal(number, signal.SIG_DFL)


@contextlib.contextmanager
def stop_on_signal() -> Iterator[StopRequest]:
    """Yields a request that SIGTERM or SIGINT sets."""
    request = StopRequest()
    before = {number: signal.signal(number, request) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _describe_dataset(split: LensSplit, scaling: Scaling) -> dict[str, Any]:
    """Returns the content of `dataset.json`: all that sampling needs without the data."""
    info = split.info
    return {
        "name": info.name,
        "fingerprint": info.fingerprint,
        "class_names": list(info.class_names),
        "image_shape": list(info.image_shape),
        "flux_unit": info.flux_unit,
        "pixel_scale_arcsec": info.pixel_scale_arcsec,
        "psf_fwhm_arcsec": info.psf_fwhm_arcsec,
        "zero_point_mag": info.zero_point_mag,
        "minimum": info.minimum,
        "maximum": info.maximum,
        "published_scale": info.published_scale,
        "scaling": scaling.to_dict(),
    }


def _claim_dataset(path: pathlib.Path, split: LensSplit, config: Config) -> Scaling:
    """Writes `dataset.json`, or checks that a resumed run meets the data that it began with."""
    if split.info.num_classes != config.model.num_classes:
        raise ConfigError(
            "model.num_classes",
            config.model.num_classes,
            f"allowed: {split.info.num_classes}, the classes of {split.info.name}",
        )
    if path.exists():
        known = files.read_json(path)
        if known["fingerprint"] != split.info.fingerprint:
            raise ConfigError(
                "data.name",
                f"{split.info.name} with fingerprint {split.info.fingerprint}",
                f"this workdir was begun with fingerprint {known['fingerprint']}; take another",
            )
        return Scaling(**known["scaling"])
    data = config.data
    scaling = fit_scaling(data.scaling, data.model_std, split.images, split.info.minimum)
    files.write_json(path, _describe_dataset(split, scaling))
    return scaling


def _log_parameters(state: TrainState) -> None:
    from clu import parameter_overview

    table = parameter_overview.get_parameter_overview(state.params, include_stats=False)
    logging.info("parameters:\n%s", table)


class SampleGrids:
    """Draws the grid of a step: for each class real images above generated ones.

    Args:
      config: the configuration.
      split: training images, for the rows of real ones.
      scaling: from the model's range back to flux.
    """

    def __init__(self, config: Config, split: LensSplit, scaling: Scaling) -> None:
        self._sample = config.sample
        self._real = first_of_each_class(split, config.sample.grid_columns)
        self._names = split.info.class_names or ("images",)
        shape = split.info.image_shape
        self._sample_fn = jax.jit(make_sample_fn(config, scaling, shape, config.sample))

    def draw(self, params: Any) -> np.ndarray:
        """Returns the picture, uint8 `[height, width, 3]`, from the given parameters."""
        columns = self._sample.grid_columns
        labels = np.repeat(np.arange(len(self._names), dtype=np.int32), columns)
        images = generate_chunks(
            self._sample_fn,
            params,
            labels,
            seed=self._sample.seed,
            batch_size=min(self._sample.batch_size, len(labels)),
        )
        generated = np.split(images, len(self._names))
        return lens_grid(generated, self._names, self._real)


@dataclasses.dataclass
class Progress:
    """Gathers the scalars of the steps since the last line of the log."""

    num_steps: int
    batch_size: int
    pending: list[dict[str, Array]] = dataclasses.field(default_factory=list)
    seconds: float = 0.0
    seconds_per_step: float = 0.0
    started: float = dataclasses.field(default_factory=time.monotonic)

    def pause(self) -> None:
        """Stops the clock, for work that is not training."""
        self.seconds += time.monotonic() - self.started

    def go_on(self) -> None:
        """Starts the clock again."""
        self.started = time.monotonic()

    def summary(self, step: int) -> dict[str, float]:
        """Returns the scalars of a line and logs them; begins the next line."""
        # Reading the values waits for the steps, so that the clock is right after it.
        scalars = jax.device_get(self.pending)
        self.pause()
        self.seconds_per_step = self.seconds / len(scalars)
        rate = self.batch_size / self.seconds_per_step
        latest = scalars[-1]
        values = {
            "loss": float(np.mean([one["loss"] for one in scalars])),
            "gradient_norm": float(latest["gradient_norm"]),
            "learning_rate": float(latest["learning_rate"]),
            "images_per_second": rate,
        }
        left = time.gmtime((self.num_steps - step) * self.seconds_per_step)
        days = left.tm_yday - 1
        logging.info(
            "step %d of %d | loss %.4f | gradient norm %.3f | learning rate %.2e | "
            "%.3g images/s | %s left",
            step,
            self.num_steps,
            values["loss"],
            values["gradient_norm"],
            values["learning_rate"],
            rate,
            (f"{days} d " if days else "") + time.strftime("%H:%M:%S", left),
        )
        self.pending, self.seconds = [], 0.0
        self.go_on()
        return values


def _check_finite(state: TrainState) -> None:
    bad_step = int(state.bad_step)
    if bad_step != NO_BAD_STEP:
        raise TrainingError(
            f"the loss or gradient of step {bad_step + 1} was not finite; its update was skipped "
            "and nothing was saved since. Look at the data, or begin in another workdir with a "
            "lower optim.learning_rate or optim.clip_norm, or with model.dtype=float32"
        )


def _place(config: Config, split: LensSplit, sharding: jax.sharding.Sharding) -> Placement:
    if config.data.placement == "auto":
        size = split.images.nbytes / 2**20
        logging.info("data.placement=auto: device, the set has %.0f MB", size)
    return DevicePlacement(split, config.seed, config.train.batch_size, sharding)


def _compile(
    step_fn: StepFn,
    state: TrainState,
    arguments: tuple[Any, ...],
    sharding: jax.sharding.Sharding,
) -> Any:
    """Compiles the step once; a compiled step refuses other shapes instead of compiling again."""
    started = time.monotonic()
    # The sharding is pinned: the step must accept its own output.
    jitted = jax.jit(step_fn, donate_argnums=0, out_shardings=sharding)
    compiled = jitted.lower(state, *arguments).compile()
    logging.info("compiled the train step once, in %.1f s", time.monotonic() - started)
    return compiled


def train(config: Config, workdir: pathlib.Path, split: LensSplit) -> TrainState:
    """Trains, or goes on with, the run in a workdir.

    Args:
      config: the checked configuration.
      workdir: the run's folder.
      split: the training images.

    Returns:
      The state at the end, or where a signal stopped the run.

    Raises:
      ConfigError: where the workdir belongs to another configuration or data set.
      lensjax.workdir.WorkdirError: where another process trains in the workdir.
      TrainingError: where a loss or gradient was not finite.
      lensjax.checkpoint.CheckpointError: where there are checkpoints but none is sound.
    """
    mesh = make_mesh(config)
    files.claim(workdir, config)
    with contextlib.ExitStack() as cleanup:
        cleanup.enter_context(files.training_lock(workdir))
        scaling = _claim_dataset(workdir / files.DATASET_FILE, split, config)
        checkpoints = Checkpoints(
            workdir / files.CHECKPOINTS,
            keep_last=config.train.keep_last,
            keep_every=config.train.keep_every,
        )
        cleanup.callback(checkpoints.close)
        state = _first_state(config, split, mesh, checkpoints)
        start = int(state.step)
        logging.info("resumed at step %d" if start else "starting at step %d", start)
        if start >= config.train.num_steps:
            logging.info("nothing to do: the run has its %d steps", start)
            return state
        files.record_start(workdir, start, config, split.info)
        placement = _place(config, split, replicated(mesh))
        batch_fn = make_batch_fn(
            placement, scaling, config.data.augmentation, config.seed, over_batch(mesh)
        )
        step_fn = _compile(
            build_train_step(config, batch_fn),
            state,
            placement.arguments(start),
            replicated(mesh),
        )
        writers = MetricWriters(workdir / files.METRICS_FILE, start)
        cleanup.callback(writers.close)
        grids = SampleGrids(config, split, scaling)
        stop = cleanup.enter_context(stop_on_signal())
        return _loop(config, workdir, state, step_fn, placement, checkpoints, writers, grids, stop)


def _first_state(
    config: Config, split: LensSplit, mesh: jax.sharding.Mesh, checkpoints: Checkpoints
) -> TrainState:
    """Returns the state of the newest sound checkpoint, or a new one."""
    init = make_init_state(config, split.info.image_shape)
    expected = with_sharding(jax.eval_shape(init), replicated(mesh))
    state = checkpoints.restore(expected)
    if state is None:
        state = jax.jit(init, out_shardings=replicated(mesh))()
        _log_parameters(state)
    return state


def _loop(
    config: Config,
    workdir: pathlib.Path,
    state: TrainState,
    step_fn: Any,
    placement: Placement,
    checkpoints: Checkpoints,
    writers: MetricWriters,
    grids: SampleGrids,
    stop: StopRequest,
) -> TrainState:
    settings = config.train
    progress = Progress(settings.num_steps, settings.batch_size)
    for step in range(int(state.step) + 1, settings.num_steps + 1):
        state, scalars = step_fn(state, *placement.arguments(step - 1))
        progress.pending.append(scalars)
        # Looked at once a step: a signal that comes during a save or a picture is for the next one,
        # or this step would be called saved without being so.
        signal_name = stop.signal_name
        last = step == settings.num_steps or signal_name is not None

        if step % settings.log_every == 0 or last:
            writers.scalars(step, progress.summary(step))
            _check_finite(state)
        saves = step % settings.checkpoint_every == 0 or last
        draws = signal_name is None and (step % settings.sample_every == 0 or last)
        if saves or draws:
            jax.block_until_ready(state.step)  # steps that still run belong on the clock
        progress.pause()
        if saves:
            _check_finite(state)
            checkpoints.save(step, state)
        if draws:
            picture = grids.draw(state.ema)
            save_png(workdir / files.SAMPLES / f"step_{step:08d}.png", picture)
            writers.image(step, "samples", picture)
        progress.go_on()
        if last:
            checkpoints.wait()
        if signal_name is not None:
            logging.info(
                "%s: saved step %d; to go on, run the same command again", signal_name, step
            )
            break
    return state
