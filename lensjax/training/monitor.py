"""What a training run shows of itself: lines of metrics, pictures, validation, curves."""

import dataclasses
import pathlib
import time
from collections.abc import Mapping
from typing import Any, Protocol

import jax
import numpy as np
from absl import logging
from jax import Array
from jax.sharding import Mesh

from lensjax.config import Config
from lensjax.config.model import CLASSIFY, GENERATE
from lensjax.data.augmentation import central_cut_out, cut_out_shape
from lensjax.data.dataset import Split, first_of_each_class
from lensjax.data.scaling import Scaling
from lensjax.devices.hosts import is_main
from lensjax.inference.sampling import Drawing, Weights, generate_chunks, make_sample_fn
from lensjax.run import workdir as files
from lensjax.run.figures import lens_grid, save_png, training_curves
from lensjax.run.writers import MetricWriters, NoWriters, Writers, read_metrics
from lensjax.training.class_watch import ClassifierWatch, PretrainingWatch
from lensjax.training.light_scores import light_scores
from lensjax.training.validation import Report, Validation


class Samples:
    """Draws images while a network is trained: a grid beside real ones, and a few scores.

    Args:
      config: the configuration.
      split: training images, for the rows of real ones.
      scaling: from the model's range back to flux.
      mesh: the devices that draw.
    """

    def __init__(self, config: Config, split: Split, scaling: Scaling, mesh: Mesh) -> None:
        # A guide is a checkpoint that need not be there yet.
        sample = config.sample
        unguided = dataclasses.replace(sample, guidance=1.0, guidance_rescale=0.0)
        self._sample = unguided if sample.autoguided else sample
        margin = config.data.shift_pixels
        self._data_name = config.data.name
        self._judged = config.evaluate.while_training
        self._per_class = max(sample.grid_columns, self._judged)
        self._real = [
            central_cut_out(images, margin)
            for images in first_of_each_class(split, self._per_class)
        ]
        self._names = split.info.class_names or ("images",)
        shape = cut_out_shape(split.info.image_shape, margin)
        self._drawing = Drawing(make_sample_fn(config, scaling, shape, self._sample), mesh)

    def draw(self, params: Any) -> tuple[np.ndarray, Mapping[str, float]]:
        """Returns the picture, uint8 `[height, width, 3]`, and the scores of these parameters."""
        count, columns = self._per_class, self._sample.grid_columns
        labels = np.repeat(np.arange(len(self._names), dtype=np.int32), count)
        images = generate_chunks(
            self._drawing,
            self._drawing.placed(Weights(params)),
            np.arange(len(labels), dtype=np.int32),
            labels,
            seed=self._sample.seed,
            batch_size=min(self._sample.batch_size, -(-len(labels) // self._drawing.mesh.size)),
        )
        generated = np.split(images, len(self._names))
        real = self._real
        shown = [[rows[:columns] for rows in one] for one in (generated, real)]
        picture = lens_grid(shown[0], self._names, shown[1])
        if not self._judged:
            return picture, {}
        ours, theirs = ([rows[: self._judged] for rows in one] for one in (generated, real))
        return picture, light_scores(ours, theirs, self._names, self._data_name)


@dataclasses.dataclass
class Progress:
    """Gathers the scalars of the dispatches since the last line of the log, each `[steps]`."""

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
        found = jax.device_get(self.pending)
        scalars = {name: np.concatenate([one[name] for one in found]) for name in found[0]}
        self.pause()
        self.seconds_per_step = self.seconds / len(scalars["loss"])
        rate = self.batch_size / self.seconds_per_step
        values = {
            "loss": float(np.mean(scalars["loss"])),
            "gradient_norm": float(scalars["gradient_norm"][-1]),
            "learning_rate": float(scalars["learning_rate"][-1]),
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


class Watch(Protocol):
    """What a task shows of a network while it is trained."""

    def draw(self, params: Any) -> tuple[np.ndarray | None, Mapping[str, float]]:
        """Returns a picture, uint8 `[height, width, 3]` or None, and scores of what it shows."""
        ...

    def validate(self, params: Any) -> Mapping[str, float]:
        """Returns the scalars of a validation, none where there is nothing to validate on."""
        ...


class GeneratorWatch:
    """Draws images, and compares the denoising losses of both splits.

    Args:
      config: the configuration.
      train: training images.
      test: test images; None leaves validation out.
      scaling: from flux to the model's range.
      mesh: the devices.
    """

    def __init__(
        self, config: Config, train: Split, test: Split | None, scaling: Scaling, mesh: Mesh
    ) -> None:
        self._samples = Samples(config, train, scaling, mesh)
        self._validation = Validation(config, train, test, scaling, mesh) if test else None

    def draw(self, params: Any) -> tuple[np.ndarray | None, Mapping[str, float]]:
        """Returns images beside real ones, and a few scores."""
        return self._samples.draw(params)

    def validate(self, params: Any) -> Mapping[str, float]:
        """Returns the losses of both splits and logs them."""
        if self._validation is None:
            return {}
        report = self._validation.run(params)
        _log_report(report, len(self._validation))
        return report.scalars()


def make_watch(
    config: Config, train: Split, other: Split | None, scaling: Scaling, mesh: Mesh
) -> Watch:
    """Returns what the configured task shows.

    Args:
      config: the configuration.
      train: training images.
      other: images that are not trained on: the test split for generators, the validation part of
        the training split for the others.
      scaling: from flux to the model's range.
      mesh: the devices that validate and draw; on several hosts all of them call what it returns.
    """
    if config.task == GENERATE:
        return GeneratorWatch(config, train, other, scaling, mesh)
    assert other is not None  # `divide` leaves at least one image of each class
    watch = ClassifierWatch if config.task == CLASSIFY else PretrainingWatch
    return watch(config, other, scaling, mesh)


def _log_report(report: Report, num_images: int) -> None:
    test, train = float(np.mean(report.test)), float(np.mean(report.train))
    logging.info(
        "validation on %d images of each split | test loss %.4f | train loss %.4f | gap %.2g +- "
        "%.2g%s",
        num_images,
        test,
        train,
        report.gap,
        report.gap_error,
        " | the network begins to remember its training images" if report.alarm else "",
    )


class Monitor:
    """Writes down a run while it trains; on several hosts one writes, and all take part.

    Args:
      config: the configuration.
      workdir: the run's folder.
      start: steps that were done before.
      watch: what the task shows.
      quiet: writes lines of metrics alone: no curves, nothing in TensorBoard.
    """

    def __init__(
        self,
        config: Config,
        workdir: pathlib.Path,
        start: int,
        watch: Watch,
        *,
        quiet: bool = False,
    ) -> None:
        self.progress = Progress(config.train.num_steps, config.train.batch_size)
        self._workdir = workdir
        self._watch = watch
        self._quiet = quiet
        self._main = is_main()
        self._writers: Writers = NoWriters()
        if self._main:
            path = workdir / files.METRICS_FILE
            self._writers = MetricWriters(path, start, tensorboard=not quiet)

    def write_line(
        self, step: int, params: Any | None, scores: Mapping[str, float] | None = None
    ) -> Mapping[str, float]:
        """Writes the metrics since the last line and returns them.

        Args:
          step: the steps done.
          params: those to validate; None for no validation at this step.
          scores: of the images drawn at this step.
        """
        values = self.progress.summary(step) | dict(scores or {})
        validation: Mapping[str, float] = {}
        self.progress.pause()
        if params is not None:
            validation = self._watch.validate(params)
            values |= validation
        self._writers.scalars(step, values)
        if validation and self._main and not self._quiet:
            self.draw_curves(step)
        self.progress.go_on()
        return values

    def draw_curves(self, step: int) -> None:
        """Draws loss, learning rate and validation of the run so far, beside the samples."""
        picture = training_curves(read_metrics(self._workdir / files.METRICS_FILE))
        save_png(self._workdir / files.SAMPLES / "curves.png", picture)
        self._writers.image(step, "curves", picture)

    def draw_samples(self, step: int, params: Any) -> Mapping[str, float]:
        """Draws the picture of a step from the given parameters; returns its scores."""
        self.progress.pause()
        picture, scores = self._watch.draw(params)
        if picture is not None and self._main:
            save_png(self._workdir / files.SAMPLES / f"step_{step:08d}.png", picture)
            self._writers.image(step, "samples", picture)
        ratios = {name: value for name, value in scores.items() if name.endswith("_ratio")}
        if ratios:
            parts = [f"{name[6:-6]} {value:.3f}" for name, value in ratios.items()]
            logging.info("left by the smooth lens at step %d | %s", step, " | ".join(parts))
        self.progress.go_on()
        return scores

    def close(self) -> None:
        """Waits until everything is written."""
        self._writers.close()
