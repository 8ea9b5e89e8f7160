"""Chunks: one shape for any number of rows, and every row as if alone."""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
import pytest

from lensjax.devices.chunks import map_chunks


class Pair(NamedTuple):
    first: np.ndarray
    second: np.ndarray


@pytest.mark.parametrize("count", [1, 3, 4, 5, 8, 11])
def test_rows_of_trees_go_through_in_chunks_of_one_shape(count):
    numbers = np.arange(count)
    pair, shapes = Pair(numbers, np.stack([numbers, -numbers], axis=1)), []

    def function(pair, weights):
        shapes.append((pair.first.shape, pair.second.shape, weights.shape))
        return {"sum": jnp.asarray(pair.second).sum(axis=1) + weights, "pair": pair}

    found = map_chunks(function, 4, pair, 2 * numbers)
    assert shapes == [((4,), (4, 2), (4,))] * -(-count // 4)
    np.testing.assert_array_equal(found["sum"], 2 * numbers)
    np.testing.assert_array_equal(found["pair"].second, pair.second)
    found["sum"][:] = 0  # the caller's own


def test_the_last_chunk_is_filled_up_with_the_last_row():
    seen = []

    def note(rows):
        seen.append(rows.tolist())
        return rows

    map_chunks(note, 3, np.array([5, 6, 7, 8]))
    assert seen == [[5, 6, 7], [8, 8, 8]]
