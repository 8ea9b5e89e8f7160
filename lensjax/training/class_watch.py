"""Validation and pictures in the training of classifiers and masked autoencoders."""

import functools
import math
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import logging
from jax import Array
from jax.sharding import Mesh

from lensjax import prng
from lensjax.config import Config
from lensjax.data.augmentation import central_cut_out, make_observe_fn
from lensjax.data.catalogue import SIMULATED_SETS
from lensjax.data.dataset import Examples, first_of_each_class
from lensjax.data.pipeline import to_batch
from lensjax.devices.chunks import map_chunks
from lensjax.devices.mesh import on_each_device, put, replicated, rows_of_a_turn
from lensjax.interfaces import Batch
from lensjax.metrics.classification import fit_temperature
from lensjax.models.layers import depth_to_space
from lensjax.models.mae import denormalised
from lensjax.models.vit import patch_grid, pixels_inside, to_patches
from lensjax.run.figures import Row, flux_rows
from lensjax.run.networks import make_image_fn
from lensjax.run.selection import VALIDATION_LOSS
from lensjax.run.task_losses import cross_entropy, masked_errors
from lensjax.training.data import TrainingData

_MAX_BATCH = 128
Draw = tuple[np.ndarray | None, Mapping[str, float]]


def observe_fn(config: Config) -> Callable[[Array, Array], Array]:
    """Makes `(key, image [H, W, C]) -> image` in flux: the configured noise, or nothing."""
    settings = config.classify
    if not settings.noise_share:
        return lambda key, image: image
    survey = SIMULATED_SETS[config.data.name].survey
    return make_observe_fn(survey, settings.noise_share, settings.noise_magnitudes)


def _validation_images(config: Config, data: TrainingData) -> Examples:
    """Takes the first images of each class as a network will see them, noise included."""
    validation = data.validation
    assert validation is not None  # `divide` leaves at least one image of each class
    num_classes = max(1, validation.info.num_classes)
    images = first_of_each_class(validation, max(1, config.train.evaluate_images // num_classes))
    labels = np.repeat(np.arange(num_classes, dtype=np.int32), [len(rows) for rows in images])
    flux = central_cut_out(np.concatenate(images), config.data.shift_pixels)
    keys = prng.keys(prng.key(config.seed, "validation"), jnp.arange(len(flux)))
    return Examples(np.asarray(jax.jit(jax.vmap(observe_fn(config)))(keys, flux)), labels)


class ClassifierWatch:
    """Validates a classifier: loss, accuracy, and the temperature that calibrates it.

    Args:
      config: the configuration.
      data: its `validation` is the part of the training split that is not trained on.
      mesh: the devices.
    """

    def __init__(self, config: Config, data: TrainingData, mesh: Mesh) -> None:
        self._images = _validation_images(config, data)
        self._turn = rows_of_a_turn(mesh, len(self._images.labels), _MAX_BATCH)
        classify = make_image_fn(config)

        def logits_fn(params: Any, flux: Array, label: Array) -> Array:
            return classify(params, to_batch(data.scaling, flux, label).image, None).logits

        self._mesh = mesh
        self._logits_fn = on_each_device(logits_fn, mesh)

    def __len__(self) -> int:
        """Counts the images that are validated on."""
        return len(self._images.labels)

    def draw(self, params: Any) -> Draw:
        """Draws no picture and takes no scores."""
        return None, {}

    def validate(self, step: int, params: Any) -> Mapping[str, float]:
        """Measures the scalars of a validation and logs them."""
        images, labels = self._images.images, self._images.labels
        params = put(params, replicated(self._mesh))  # gathered once, if they are divided
        logits = map_chunks(
            lambda *rows: self._logits_fn(params, *rows), self._turn, images, labels
        )
        loss = float(jnp.mean(cross_entropy(jnp.asarray(logits), jnp.asarray(labels))))
        accuracy = float(np.mean(logits.argmax(axis=1) == labels))
        logging.info(
            "validation on %d images of the training split at step %d | loss %.4f | "
            "accuracy %.2f %%",
            len(self),
            step,
            loss,
            100 * accuracy,
        )
        return {
            VALIDATION_LOSS: loss,
            "validation/accuracy": accuracy,
            "validation/temperature": (
                fit_temperature(logits, labels) if np.isfinite(logits).all() else math.nan
            ),
        }


class PretrainingWatch:
    """Validates a masked autoencoder, and draws its reconstruction of masked patches.

    Args:
      config: the configuration.
      data: its `validation` is the part of the training split that is not trained on.
      mesh: the devices.
    """

    def __init__(self, config: Config, data: TrainingData, mesh: Mesh) -> None:
        self._config, self._scaling, self._mesh = config, data.scaling, mesh
        self._images = _validation_images(config, data)
        self._names = data.train.info.class_names or ("images",)
        self._bands = data.train.info.bands
        self._masked = data.train.info.masked
        self._turn = rows_of_a_turn(mesh, len(self._images.labels), _MAX_BATCH)
        self._apply = make_image_fn(config)
        self._errors_fn = on_each_device(self._errors, mesh)
        self._reconstruct_fn = on_each_device(self._reconstruct, mesh)

    def _prepared(self, flux: Array, numbers: Array) -> tuple[Batch, Array]:
        """Gives images in the model's range and the keys of their masks."""
        keys = prng.keys(prng.key(self._config.seed, "validation mask"), numbers)
        return to_batch(self._scaling, flux, numbers), keys

    def _errors(self, params: Any, flux: Array, numbers: Array) -> Array:
        batch, keys = self._prepared(flux, numbers)
        model = self._config.model
        return masked_errors(
            self._apply,
            params,
            batch.image,
            keys,
            model.patch_size,
            model.normalise_patches,
            batch.measured if self._masked else None,
        )

    def _reconstruct(self, params: Any, flux: Array, numbers: Array) -> tuple[Array, Array]:
        """Gives images with masked patches black, and with masked patches estimated, in flux."""
        batch, keys = self._prepared(flux, numbers)
        images, model = batch.image, self._config.model
        output = self._apply(params, images, keys)
        estimate = output.patches
        if model.normalise_patches:  # brightness and contrast are those of the true patch
            patches = to_patches(images, model.patch_size)
            estimate = denormalised(
                estimate, patches, pixels_inside(images.shape[1:], model.patch_size)
            )
        height, width = images.shape[1:3]
        rows, columns = patch_grid(height, width, model.patch_size)

        def to_pixels(values: Array) -> Array:
            grid = values.reshape(len(values), rows, columns, -1)
            return depth_to_space(grid, model.patch_size)[:, :height, :width]

        is_visible = to_pixels(jnp.broadcast_to(output.seen[..., None], estimate.shape))
        black = jnp.min(images, axis=(0, 1, 2), keepdims=True)  # of each band
        visible = jnp.where(is_visible, images, black)
        reconstructed = jnp.where(is_visible, images, to_pixels(estimate))
        return self._scaling.to_flux(visible), self._scaling.to_flux(reconstructed)

    def draw(self, params: Any) -> Draw:
        """Draws rows of true images, of their visible patches, and of reconstructions."""
        columns = self._config.sample.grid_columns
        rows: list[Row] = []
        for label, name in enumerate(self._names):
            places = np.flatnonzero(self._images.labels == label)[:columns]
            flux = self._images.images[places]
            turn = rows_of_a_turn(self._mesh, len(places), columns)
            reconstruct_fn = functools.partial(self._reconstruct_fn, params)
            visible, reconstructed = map_chunks(reconstruct_fn, turn, flux, places.astype(np.int32))
            rows += [
                Row(name, "real", flux),
                Row(name, "seen", visible),
                Row(name, "found", reconstructed),
            ]
        return flux_rows(rows, [self._images.images], self._bands), {}

    def validate(self, step: int, params: Any) -> Mapping[str, float]:
        """Measures the scalars of a validation and logs them."""
        images = self._images.images
        params = put(params, replicated(self._mesh))
        numbers = np.arange(len(images), dtype=np.int32)
        errors = map_chunks(functools.partial(self._errors_fn, params), self._turn, images, numbers)
        loss = float(errors.mean())
        logging.info(
            "validation on %d images of the training split at step %d | loss %.4f",
            len(images),
            step,
            loss,
        )
        return {VALIDATION_LOSS: loss}
