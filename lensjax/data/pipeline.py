"""Batches as a function of the step: `batch = f(seed, step)`, wherever the images live.

Example number `n = step * batch_size + place` of a run is `order[epoch][n mod N]` with
`epoch = n // N`. The orders of this epoch and the next are handed to the step as an argument, made
once an epoch. Nothing else decides what a batch holds, so that a resumed run needs no iterator.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from lensjax import prng
from lensjax.data.order import whole_order
from lensjax.data.scaling import Scaling
from lensjax.interfaces import Batch, Places


class EpochOrder(NamedTuple):
    """The order of the examples from one step on.

    Attributes:
      order: int32 `[2 N]`, the permutation of this epoch and then that of the next.
      first_step: the first step that begins in this epoch, int32 `[]`.
      first_place: the place in `order` of that step's first example, int32 `[]`.
    """

    order: Array
    first_step: Array
    first_place: Array


def epoch_of(step: int, batch_size: int, num_examples: int) -> int:
    """Finds the epoch in which a step's first example lies."""
    return step * batch_size // num_examples


def epoch_order(seed: int, epoch: int, batch_size: int, num_examples: int) -> EpochOrder:
    """Makes the order of an epoch.

    Args:
      seed: the run's seed.
      epoch: the number of the epoch, from 0.
      batch_size: images per step, at most `num_examples`.
      num_examples: size of the split, N.
    """
    orders = [whole_order(seed, number, num_examples) for number in (epoch, epoch + 1)]
    first_step = -(-epoch * num_examples // batch_size)
    return EpochOrder(
        order=jnp.asarray(np.concatenate(orders)),
        first_step=jnp.asarray(first_step, jnp.int32),
        first_place=jnp.asarray(first_step * batch_size - epoch * num_examples, jnp.int32),
    )


def batch_indices(epoch: EpochOrder, step: Array, places: Places) -> Array:
    """Looks up which examples stand at places of a step's batch, int32 `[b]`.

    Args:
      epoch: the epoch in which the step begins.
      step: int32 `[]`.
      places: places of the batch.
    """
    first = epoch.first_place + (step - epoch.first_step) * places.total
    return epoch.order[first + places.indices]


def to_batch(scaling: Scaling, image: Array, label: Array) -> Batch:
    """Brings a batch into the model's range; pixels without a measurement get no weight.

    Args:
      scaling: from flux to the model's range.
      image: flux, float32 `[B, H, W, C]`; NaN where a set is masked.
      label: int32 `[B]`.
    """
    measured = jnp.isfinite(image)
    # Zero is the mean of the training images in the model's range.
    return Batch(jnp.where(measured, scaling.to_model(image), 0.0), label, measured)


MAX_WEIGHT = 10.0  # of a pixel; one of hardly any variance would be all that counts


def pixel_weights(variance: Array, measured: Array) -> Array:
    """`min(median variance / variance, 10)` of each pixel, float32 `[B, H, W, C]`.

    The median is that of the image and band, so that no image counts more than another: a network
    that learns deep images above all draws too few shallow ones.

    Args:
      variance: flux squared, `[B, H, W, C]`.
      measured: bool `[B, H, W, C]`; other pixels get no weight.
    """
    usable = measured & jnp.isfinite(variance) & (variance > 0)
    median = jnp.nanmedian(jnp.where(usable, variance, jnp.nan), axis=(1, 2), keepdims=True)
    weights = jnp.minimum(median / jnp.where(usable, variance, 1.0), MAX_WEIGHT)
    return jnp.where(usable, weights, 0.0)


def make_batch_fn(
    gather_fn: Callable[..., Batch],
    scaling: Scaling,
    augment_fn: Callable[[Array, Array], Array],
    seed: int,
    *,
    masked: bool,
) -> Callable[..., Batch]:
    """Makes `(step, places, *arguments) -> Batch` in the model's range.

    Args:
      gather_fn: `(step, places, *arguments) -> Batch` in flux units, see `Feed.batch`.
      scaling: from flux to the model's range.
      augment_fn: `(key, image) -> image`, from `augmentation.make_augment_fn`.
      seed: the run's seed.
      masked: whether the images hold NaN where there is no measurement.
    """

    def batch_fn(step: Array, places: Places, *arguments: Any) -> Batch:
        examples = gather_fn(step, places, *arguments)
        keys = prng.keys(prng.key(seed, "augmentation", step), places.indices)
        if examples.variance is None:
            image = jax.vmap(augment_fn)(keys, examples.image)
            if masked:
                return to_batch(scaling, image, examples.label)
            return Batch(scaling.to_model(image), examples.label)
        # A variance turns with its image, as further channels of it.
        both = jnp.concatenate([examples.image, examples.variance], axis=-1)
        image, variance = jnp.split(jax.vmap(augment_fn)(keys, both), 2, axis=-1)
        batch = to_batch(scaling, image, examples.label)
        return batch._replace(weight=pixel_weights(variance, jnp.isfinite(image)))

    return batch_fn
