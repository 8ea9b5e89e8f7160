"""What a training run shows of itself: lines of metrics, sample grids, validation, curves."""

import dataclasses
import pathlib
import time
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from absl import logging
from jax import Array

from lensjax import workdir as files
from lensjax.config import Config
from lensjax.data.augmentation import central_cut_out, cut_out_shape
from lensjax.data.dataset import Split, first_of_each_class
from lensjax.data.scaling import Scaling
from lensjax.evaluation.light import light_scores
from lensjax.figures import lens_grid, save_png, training_curves
from lensjax.sampling import Weights, generate_chunks, make_sample_fn
from lensjax.validation import Report, Validation
from lensjax.writers import MetricWriters, read_metrics


class Samples:
    """Draws images while a network is trained: a grid beside real ones, and a few scores.

    Args:
      config: the configuration.
      split: training images, for the rows of real ones.
      scaling: from the model's range back to flux.
    """

    def __init__(self, config: Config, split: Split, scaling: Scaling) -> None:
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
        self._sample_fn = jax.jit(make_sample_fn(config, scaling, shape, self._sample))

    def draw(self, params: Any) -> tuple[np.ndarray, Mapping[str, float]]:
        """Returns the picture, uint8 `[height, width, 3]`, and the scores of these parameters."""
        count, columns = self._per_class, self._sample.grid_columns
        labels = np.repeat(np.arange(len(self._names), dtype=np.int32), count)
        images = generate_chunks(
            self._sample_fn,
            Weights(params),
            labels,
            seed=self._sample.seed,
            batch_size=min(self._sample.batch_size, len(labels)),
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
    """Writes down a run while it trains.

    Args:
      config: the configuration.
      workdir: the run's folder.
      start: steps that were done before.
      train: training images.
      test: test images; None leaves validation out.
      scaling: from flux to the model's range.
    """

    def __init__(
        self,
        config: Config,
        workdir: pathlib.Path,
        start: int,
        train: Split,
        test: Split | None,
        scaling: Scaling,
    ) -> None:
        self.progress = Progress(config.train.num_steps, config.train.batch_size)
        self._workdir = workdir
        self._samples = Samples(config, train, scaling)
        self._validation = Validation(config, train, test, scaling) if test else None
        self._writers = MetricWriters(workdir / files.METRICS_FILE, start)

    def write_line(
        self, step: int, params: Any | None, scores: Mapping[str, float] | None = None
    ) -> None:
        """Writes the metrics since the last line.

        Args:
          step: the steps done.
          params: those to validate; None for no validation at this step.
          scores: of the images drawn at this step.
        """
        values = self.progress.summary(step) | dict(scores or {})
        validation = None if params is None else self._validation
        if validation is not None:
            self.progress.pause()
            report = validation.run(params)
            _log_report(report, len(validation))
            values |= report.scalars()
            self.progress.go_on()
        self._writers.scalars(step, values)
        if validation is not None:
            self.draw_curves(step)

    def draw_curves(self, step: int) -> None:
        """Draws loss, learning rate and validation of the run so far, beside the samples."""
        picture = training_curves(read_metrics(self._workdir / files.METRICS_FILE))
        save_png(self._workdir / files.SAMPLES / "curves.png", picture)
        self._writers.image(step, "curves", picture)

    def draw_samples(self, step: int, params: Any) -> Mapping[str, float]:
        """Draws the sample grid of a step from the given parameters; returns its scores."""
        self.progress.pause()
        picture, scores = self._samples.draw(params)
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
