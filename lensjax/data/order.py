"""The order of the examples in an epoch: a permutation that is a function of seed and epoch.

It is drawn as a whole and kept, 4 bytes per example. Drawing costs 2 seconds of one core and, for
that time, 54 MB a million examples (measured up to 67 million): at 10^8 some four minutes and
5.4 GB an epoch.
"""

import functools
import threading

import jax
import numpy as np

from lensjax import prng

_DRAWING = threading.Lock()  # the threads that read ahead would all draw the same order


def _host_device() -> jax.Device:
    try:
        return jax.local_devices(backend="cpu")[0]
    except RuntimeError:  # JAX_PLATFORMS leaves the CPU out; the integers are the same anywhere
        return jax.local_devices()[0]


@functools.lru_cache(maxsize=3)  # a batch crosses into the next epoch, read-ahead further
def _drawn(seed: int, epoch: int, num_examples: int) -> np.ndarray:
    with jax.default_device(_host_device()):
        return np.asarray(jax.random.permutation(prng.key(seed, "data", epoch), num_examples))


def whole_order(seed: int, epoch: int, num_examples: int) -> np.ndarray:
    """An epoch's order, int32 `[N]`: each example once.

    Args:
      seed: the run's seed.
      epoch: the number of the epoch, from 0.
      num_examples: size of the split, N.
    """
    with _DRAWING:
        return _drawn(seed, epoch, num_examples)
