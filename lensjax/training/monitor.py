"""The records of a training run: lines of metrics, pictures, validation, curves."""

import dataclasses
import pathlib
import time
from collections.abc import Mapping
from typing import Any, Protocol

import jax
import numpy as np
from absl import logging
from jax import Array

from lensjax.config import Config
from lensjax.devices.hosts import is_main
from lensjax.run import workdir as files
from lensjax.run.figures import save_png, training_curves
from lensjax.run.writers import MetricWriters, NoWriters, Writers, read_metrics


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
        """Sums up the scalars of a line and logs them; begins the next line."""
        # Reading the values waits for the steps, so that the clock is right after it.
        dispatches = jax.device_get(self.pending)
        scalars = {
            name: np.concatenate([dispatch[name] for dispatch in dispatches])
            for name in dispatches[0]
        }
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
    """Pictures and validation of a network while it is trained, by its task."""

    def draw(self, params: Any) -> tuple[np.ndarray | None, Mapping[str, float]]:
        """Draws a picture, uint8 `[height, width, 3]` or None, with scores of it."""
        ...

    def validate(self, params: Any) -> Mapping[str, float]:
        """Measures the scalars of a validation, none where there is nothing to validate on."""
        ...


class Monitor:
    """Writes down a run while it trains; on several hosts one writes, and all take part.

    Args:
      config: the configuration.
      workdir: the run's folder.
      start: steps that were made before.
      watch: draws and validates for the task.
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
          step: steps that were made.
          params: the parameters to validate; None for no validation at this step.
          scores: scores of the images drawn at this step.
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
            texts = [f"{name[6:-6]} {value:.3f}" for name, value in ratios.items()]
            logging.info("left by the smooth lens at step %d | %s", step, " | ".join(texts))
        self.progress.go_on()
        return scores

    def close(self) -> None:
        """Waits until everything is written."""
        self._writers.close()
