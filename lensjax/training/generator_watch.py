"""Pictures and validation of a generator: images beside real ones, losses of both splits."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
from absl import logging
from jax.sharding import Mesh

from lensjax.config import Config
from lensjax.data.augmentation import central_cut_out
from lensjax.data.dataset import first_of_each_class
from lensjax.inference.sampling import Drawing, Weights, generate_chunks, make_sample_fn
from lensjax.run.figures import lens_grid
from lensjax.training.data import TrainingData
from lensjax.training.light_scores import light_scores
from lensjax.training.validation import Report, Validation


class Samples:
    """Draws images while a network is trained: a grid beside real ones, and a few scores.

    Args:
      config: the configuration.
      data: its training images stand beside the drawn ones.
      mesh: the devices that draw.
    """

    def __init__(self, config: Config, data: TrainingData, mesh: Mesh) -> None:
        # A guide is a checkpoint that need not be there yet.
        sample = config.sample
        unguided = dataclasses.replace(sample, guidance=1.0, guidance_rescale=0.0)
        self._sample = unguided if sample.autoguided else sample
        self._data_name = config.data.name
        self._judged = config.evaluate.while_training
        self._per_class = max(sample.grid_columns, self._judged)
        self._real = [
            central_cut_out(images, config.data.shift_pixels)
            for images in first_of_each_class(data.train, self._per_class)
        ]
        self._names = data.train.info.class_names or ("images",)
        self._bands = data.train.info.bands
        sample_fn = make_sample_fn(config, data.scaling, data.image_shape, self._sample)
        self._drawing = Drawing(sample_fn, mesh)

    def draw(self, params: Any) -> tuple[np.ndarray, Mapping[str, float]]:
        """Draws the picture, uint8 `[height, width, 3]`, and scores its images."""
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
        shown = [[rows[:columns] for rows in by_class] for by_class in (generated, real)]
        picture = lens_grid(shown[0], self._names, shown[1], self._bands)
        if not self._judged:
            return picture, {}
        ours, theirs = (
            [rows[: self._judged] for rows in by_class] for by_class in (generated, real)
        )
        return picture, light_scores(ours, theirs, self._names, self._data_name, self._bands)


class GeneratorWatch:
    """Draws images, and compares the denoising losses of both splits.

    Args:
      config: the configuration.
      data: the training images, and the test images as `validation` if there are any.
      mesh: the devices.
    """

    def __init__(self, config: Config, data: TrainingData, mesh: Mesh) -> None:
        self._samples = Samples(config, data, mesh)
        self._validation = Validation(config, data, mesh) if data.validation else None

    def draw(self, params: Any) -> tuple[np.ndarray | None, Mapping[str, float]]:
        """Draws images beside real ones, and takes a few scores."""
        return self._samples.draw(params)

    def validate(self, step: int, params: Any) -> Mapping[str, float]:
        """Measures the losses of both splits and logs them."""
        if self._validation is None:
            return {}
        report = self._validation.run(params)
        _log_report(report, step, len(self._validation))
        return report.scalars()


def _log_report(report: Report, step: int, num_images: int) -> None:
    test, train = float(np.mean(report.test)), float(np.mean(report.train))
    logging.info(
        "validation on %d images of each split at step %d | test loss %.4f | train loss %.4f | gap "
        "%.2g +- %.2g%s",
        num_images,
        step,
        test,
        train,
        report.gap,
        report.gap_error,
        " | the network is beginning to memorise its training images" if report.alarm else "",
    )
