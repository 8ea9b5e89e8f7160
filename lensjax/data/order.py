"""The order of the examples in an epoch: a permutation that is a function of seed and epoch.

Up to `MAX_DRAWN` examples it is drawn and kept. Beyond, where drawing would take gigabytes, a keyed
Feistel network (Luby & Rackoff 1988) maps places to examples one at a time, without any memory.
"""

import functools

import jax
import numpy as np

from lensjax import prng

MAX_DRAWN = 2**22
_ROUNDS = 8


def _mixed(values: np.ndarray) -> np.ndarray:
    """Returns thoroughly mixed bits (the finaliser of SplitMix64, Steele et al. 2014)."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


@functools.lru_cache(maxsize=4)
def _round_keys(seed: int, epoch: int) -> np.ndarray:
    bits = jax.random.bits(prng.key(seed, "data", epoch), (_ROUNDS, 2), np.uint32)
    high, low = np.asarray(bits).astype(np.uint64).T
    return high << np.uint64(32) | low


def _enciphered(seed: int, epoch: int, num_examples: int, places: np.ndarray) -> np.ndarray:
    """Returns the examples at some places of an order that is never written down."""
    half = np.uint64(((num_examples - 1).bit_length() + 1) // 2)
    mask = (np.uint64(1) << half) - np.uint64(1)
    values = places.astype(np.uint64)
    outside = np.ones(len(values), bool)
    while outside.any():  # a walk along the cycle ends inside: its first value was inside too
        left, right = values[outside] >> half, values[outside] & mask
        for key in _round_keys(seed, epoch):
            left, right = right, left ^ (_mixed(right + key) & mask)
        values[outside] = left << half | right
        outside = values >= num_examples
    return values.astype(np.int64)


def _host_device() -> jax.Device:
    try:
        return jax.local_devices(backend="cpu")[0]
    except RuntimeError:  # JAX_PLATFORMS leaves the CPU out; the integers are the same anywhere
        return jax.local_devices()[0]


@functools.lru_cache(maxsize=3)  # a batch crosses into the next epoch, read-ahead further
def _drawn(seed: int, epoch: int, num_examples: int) -> np.ndarray:
    with jax.default_device(_host_device()):
        return np.asarray(jax.random.permutation(prng.key(seed, "data", epoch), num_examples))


def examples_at(seed: int, epoch: int, num_examples: int, places: np.ndarray) -> np.ndarray:
    """Returns which examples stand at some places of an epoch's order.

    Args:
      seed: the run's seed.
      epoch: the number of the epoch, from 0.
      num_examples: size of the split, N.
      places: integers `[B]` in [0, N).

    Returns:
      Integers `[B]` in [0, N); over all places each example once.
    """
    if num_examples <= MAX_DRAWN:
        return _drawn(seed, epoch, num_examples)[places]
    return _enciphered(seed, epoch, num_examples, places)


def whole_order(seed: int, epoch: int, num_examples: int) -> np.ndarray:
    """Returns an epoch's order, int32 `[N]`."""
    return examples_at(seed, epoch, num_examples, np.arange(num_examples)).astype(np.int32)
