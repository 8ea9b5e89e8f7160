"""Batches as a function of the step: `batch = f(seed, step)`, whatever the placement.

Example number `n = step * batch_size + place` of a run is `order[epoch][n mod N]` with
`epoch = n // N`. The orders of this epoch and the next are handed to the step as an argument, made
once an epoch. Nothing else decides what a batch holds, so that a resumed run needs no iterator.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from lensjax import prng
from lensjax.data.dataset import DataError, LensSplit
from lensjax.data.scaling import Scaling
from lensjax.losses import Batch


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
    """Returns the epoch in which a step's first example lies."""
    return step * batch_size // num_examples


def epoch_order(seed: int, epoch: int, batch_size: int, num_examples: int) -> EpochOrder:
    """Makes the order of an epoch.

    Args:
      seed: the run's seed.
      epoch: the number of the epoch, from 0.
      batch_size: images a step, at most `num_examples`.
      num_examples: size of the split, N.
    """
    permutations = [
        jax.random.permutation(prng.key(seed, "data", number), num_examples)
        for number in (epoch, epoch + 1)
    ]
    first_step = -(-epoch * num_examples // batch_size)
    return EpochOrder(
        order=jnp.concatenate(permutations).astype(jnp.int32),
        first_step=jnp.asarray(first_step, jnp.int32),
        first_place=jnp.asarray(first_step * batch_size - epoch * num_examples, jnp.int32),
    )


def batch_indices(epoch: EpochOrder, step: Array, batch_size: int) -> Array:
    """Returns which examples a step reads, int32 `[batch_size]`; `step` begins in the epoch."""
    place = epoch.first_place + (step - epoch.first_step) * batch_size
    return jax.lax.dynamic_slice(epoch.order, (place,), (batch_size,))


class Placement(Protocol):
    """Where the images live; the train step is the same for each."""

    def arguments(self, step: int) -> tuple[Any, ...]:
        """Returns what the step receives beside the state, shapes alike for every step."""
        ...

    def batch(self, step: Array, *arguments: Any) -> Batch:
        """Returns the batch in flux units; traced inside the step."""
        ...


class DevicePlacement:
    """Keeps a whole split on the devices and gathers inside the step.

    Args:
      split: the examples.
      seed: the run's seed.
      batch_size: images a step.
      sharding: how the arrays lie on the devices; each needs all of them.

    Raises:
      DataError: for a batch larger than the split.
    """

    def __init__(
        self, split: LensSplit, seed: int, batch_size: int, sharding: jax.sharding.Sharding
    ) -> None:
        if batch_size > len(split):
            raise DataError(
                f"train.batch_size: got {batch_size}; allowed: at most the {len(split)} images of "
                f"{split.info.name}"
            )
        self._seed = seed
        self._batch_size = batch_size
        self._num_examples = len(split)
        self._sharding = sharding
        self._images = jax.device_put(split.images, sharding)
        self._labels = jax.device_put(split.labels, sharding)
        self._epoch = -1
        self._order: EpochOrder | None = None

    def arguments(self, step: int) -> tuple[Any, ...]:
        """Returns images `[N, H, W, C]`, labels `[N]` and the `EpochOrder` of the step."""
        epoch = epoch_of(step, self._batch_size, self._num_examples)
        if epoch != self._epoch:
            order = epoch_order(self._seed, epoch, self._batch_size, self._num_examples)
            self._order, self._epoch = jax.device_put(order, self._sharding), epoch
        return self._images, self._labels, self._order

    def batch(self, step: Array, *arguments: Any) -> Batch:
        """Gathers the step's examples, in flux units."""
        images, labels, order = arguments
        indices = batch_indices(order, step, self._batch_size)
        return Batch(images[indices], labels[indices])


def make_batch_fn(
    placement: Placement,
    scaling: Scaling,
    augmentation: str,
    seed: int,
    batch_sharding: jax.sharding.Sharding,
) -> Callable[..., Batch]:
    """Returns `(step, *arguments) -> Batch` in the model's range, spread over the devices.

    Args:
      placement: where the images live.
      scaling: from flux to the model's range.
      augmentation: `none`, or `rotate_180` for half of the examples, drawn for each.
      seed: the run's seed.
      batch_sharding: how a batch lies on the devices.
    """

    def rotate(key: Array, image: Array) -> Array:
        return jnp.where(jax.random.bernoulli(key), image[::-1, ::-1], image)

    def batch_fn(step: Array, *arguments: Any) -> Batch:
        image, label = jax.lax.with_sharding_constraint(
            placement.batch(step, *arguments), batch_sharding
        )
        image = scaling.to_model(image)
        if augmentation == "rotate_180":
            keys = prng.keys(prng.key(seed, "augmentation", step), jnp.arange(len(label)))
            image = jax.vmap(rotate)(keys, image)
        return Batch(image, label)

    return batch_fn


def first_of_each_class(split: LensSplit, num: int) -> list[np.ndarray]:
    """Returns the first images of each class in flux units, `[<= num, H, W, C]` each.

    An unlabelled set counts as one class.
    """
    classes = range(max(1, split.info.num_classes))
    return [split.images[np.flatnonzero(split.labels == label)[:num]] for label in classes]
