"""Named random streams: every random number is a function of a seed, a name and counters.

Nothing carries a key from step to step, so that a resumed run, another batch size or another
number of devices draws the same numbers.
"""

import zlib

import jax
from jax import Array

MAX_SEED = 2**31 - 1


def key(seed: int | Array, stream: str, *counters: int | Array) -> Array:
    """The typed key of one named stream at the given counters.

    Args:
      seed: integer in [0, 2**31 - 1], or a traced int32 scalar.
      stream: the stream's name, such as `"noise"`; different names give independent streams.
      *counters: integers folded in one after the other, such as the step and the example's index.

    Returns:
      A typed threefry key, shape `[]`.
    """
    stream_key = jax.random.fold_in(
        jax.random.key(seed, impl="threefry2x32"), zlib.crc32(stream.encode())
    )
    for counter in counters:
        stream_key = jax.random.fold_in(stream_key, counter)
    return stream_key


def keys(base: Array, indices: Array) -> Array:
    """One key for each index.

    Args:
      base: a typed key from `key`.
      indices: int32 `[N]`.

    Returns:
      Typed keys, shape `[N]`.
    """
    return jax.vmap(jax.random.fold_in, in_axes=(None, 0))(base, indices)
