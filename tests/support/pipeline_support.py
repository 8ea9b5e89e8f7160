"""Small splits and their orders, for the tests of batches and feeds."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from run_support import tiny_config

from lensjax import prng
from lensjax.data.dataset import DatasetInfo, LensSplit
from lensjax.data.feed import Feed, StreamFeed
from lensjax.devices.spread import Spread
from lensjax.interfaces import Batch, Places
from lensjax.run.learning import build_spread

NUM_EPOCHS = 4


def split_of(num: int, shape=(3, 2, 2), num_classes: int = 3) -> LensSplit:
    """Pixels say which image they belong to; labels follow a pattern of their own."""
    images = np.arange(num * np.prod(shape), dtype=np.float32).reshape(num, *shape)
    info = DatasetInfo(
        name="test/set",
        fingerprint="0",
        class_names=("a", "b", "c")[:num_classes],
        parameter_names=(),
        split_sizes={"train": num},
        image_shape=shape,
        flux_unit="e/s",
        minimum=0.0,
        maximum=float(images.max()),
    )
    labels = (np.arange(num) ** 2 % max(num_classes, 1)).astype(np.int32)
    return LensSplit(images, labels, np.zeros((num, 0), np.float32), info)


def batch_at(feed: Feed, batch_size: int, step: int) -> Batch:
    """The batch that a feed gives a step on one device."""
    arguments = feed.arguments(step)
    if isinstance(feed, StreamFeed):  # one tuple for each step of a dispatch
        (arguments,) = arguments
    return feed.batch(jnp.int32(step), whole(batch_size), *arguments)


@functools.cache
def single_device(batch_size: int) -> Spread:
    """Whole batches on the first device."""
    return build_spread(tiny_config(train={"batch_size": batch_size}))


def whole(batch_size: int) -> Places:
    """The places of a batch that is in one piece."""
    return Places(jnp.arange(batch_size), batch_size)


def permutation(seed: int, epoch: int, num: int) -> np.ndarray:
    return np.asarray(jax.random.permutation(prng.key(seed, "data", epoch), num))


def all_examples(seed: int, num: int) -> np.ndarray:
    """The examples of the first epochs one after the other, `[epochs num]`."""
    return np.concatenate([permutation(seed, epoch, num) for epoch in range(NUM_EPOCHS + 1)])


def steps_of(num: int, batch_size: int) -> range:
    return range(NUM_EPOCHS * num // batch_size)
