"""Applies a function to many rows in chunks of one shape."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np


def map_chunks(function: Callable[..., Any], size: int, *trees: Any) -> Any:
    """Applies a function of rows to chunks of one shape and joins its outputs.

    Args:
      function: maps trees of arrays `[size, ...]` to a tree of arrays `[size, ...]`, each row by
        itself; an array is a tree.
      size: rows of a chunk; the last one is filled up with its last row.
      *trees: numpy arrays `[N, ...]`, at least one row.

    Returns:
      The tree that the function returns, with numpy arrays `[N, ...]`.
    """
    count = len(jax.tree.leaves(trees)[0])
    chunks = []
    for start in range(0, count, size):
        rows = np.minimum(np.arange(start, start + size), count - 1)
        output = jax.device_get(function(*jax.tree.map(lambda leaf, rows=rows: leaf[rows], trees)))
        chunks.append(jax.tree.map(lambda leaf, start=start: leaf[: count - start], output))
    return jax.tree.map(lambda *leaves: np.concatenate(leaves), *chunks)
