"""The records of a training run: lines of metrics, pictures, validation, curves."""

import math
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
from lensjax.devices.progress import SECONDS_BETWEEN_LINES, progress_bar, shows_bars
from lensjax.run import workdir as files
from lensjax.run.figures import save_png, training_curves
from lensjax.run.writers import MetricWriters, NoWriters, Writers, read_metrics


class Progress:
    """Gathers the scalars of the dispatches since the last line of the metrics, and shows them.

    A terminal gets a bar with the loss and the time left; a log file gets a line now and then.

    Args:
      config: the configuration.
      start: steps that were made before.
      quiet: shows no bar.

    Attributes:
      pending: the scalars of each dispatch since the last line, each `[steps]`.
    """

    def __init__(self, config: Config, start: int, *, quiet: bool = False) -> None:
        self.pending: list[dict[str, Array]] = []
        self._num_steps, self._batch_size = config.train.num_steps, config.train.batch_size
        self._steps_per_dispatch = config.train.steps_per_dispatch
        self._seconds, self._started = 0.0, time.monotonic()
        self._last_line = -math.inf
        self._bar = None
        if shows_bars() and not quiet:
            self._bar = progress_bar(self._num_steps, "Training", start, unit=" steps")

    def add(self, scalars: dict[str, Array]) -> None:
        """Adds the scalars of a dispatch that may still run; the bar never waits for them."""
        self.pending.append(scalars)
        if self._bar is not None and self._bar.update(self._steps_per_dispatch):
            losses: list[Any] = [dispatch["loss"] for dispatch in self.pending]
            ready = next((loss for loss in reversed(losses) if loss.is_ready()), None)
            if ready is not None:
                self._show_loss(float(ready[-1]))

    def pause(self) -> None:
        """Stops the clock, for work that is not training."""
        self._seconds += time.monotonic() - self._started

    def go_on(self) -> None:
        """Starts the clock again."""
        self._started = time.monotonic()

    def summary(self, step: int) -> dict[str, float]:
        """Sums up the scalars since the last line of the metrics; begins the next line."""
        # Reading the values waits for the steps, so that the clock is right after it.
        dispatches = jax.device_get(self.pending)
        scalars = {
            name: np.concatenate([dispatch[name] for dispatch in dispatches])
            for name in dispatches[0]
        }
        self.pause()
        seconds_per_step = self._seconds / len(scalars["loss"])
        values = {
            "loss": float(np.mean(scalars["loss"])),
            "gradient_norm": float(scalars["gradient_norm"][-1]),
            "learning_rate": float(scalars["learning_rate"][-1]),
            "images_per_second": self._batch_size / seconds_per_step,
        }
        if self._bar is not None:
            self._show_loss(values["loss"])
        elif step == self._num_steps or time.monotonic() - self._last_line >= SECONDS_BETWEEN_LINES:
            self._last_line = time.monotonic()
            self._log(step, values, (self._num_steps - step) * seconds_per_step)
        self.pending, self._seconds = [], 0.0
        self.go_on()
        return values

    def close(self) -> None:
        """Ends the bar."""
        if self._bar is not None:
            self._bar.close()

    def _show_loss(self, loss: float) -> None:
        assert self._bar is not None
        self._bar.set_postfix_str(f"loss {loss:.4f}", refresh=False)

    def _log(self, step: int, values: Mapping[str, float], seconds_left: float) -> None:
        left = time.gmtime(seconds_left)
        days = left.tm_yday - 1
        logging.info(
            "step %d of %d | loss %.4f | gradient norm %.3f | learning rate %.2e | "
            "%.3g images/s | %s left",
            step,
            self._num_steps,
            values["loss"],
            values["gradient_norm"],
            values["learning_rate"],
            values["images_per_second"],
            (f"{days} d " if days else "") + time.strftime("%H:%M:%S", left),
        )


class Watch(Protocol):
    """Pictures and validation of a network while it is trained, by its task."""

    def draw(self, params: Any) -> tuple[np.ndarray | None, Mapping[str, float]]:
        """Draws a picture, uint8 `[height, width, 3]` or None, with scores of it."""
        ...

    def validate(self, step: int, params: Any) -> Mapping[str, float]:
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
        self.progress = Progress(config, start, quiet=quiet)
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
            validation = self._watch.validate(step, params)
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
            logging.info("residual of the smooth lens at step %d | %s", step, " | ".join(texts))
        self.progress.go_on()
        return scores

    def flush(self) -> None:
        """Brings the records up to a checkpoint to the disk."""
        self._writers.flush()

    def close(self) -> None:
        """Ends the bar, and waits until everything is written."""
        self.progress.close()
        self._writers.close()
