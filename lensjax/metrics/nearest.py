"""The nearest image of a large set, by matrix products over blocks of it."""

from typing import NamedTuple

import numpy as np

_QUERY_BLOCK = 1024
_REFERENCE_BLOCK = 2048


class Nearest(NamedTuple):
    """The nearest reference of each query.

    Attributes:
      distance: `|q / |q| - r / |r||`, from 0 (the same but for a positive factor) over the square
        root of 2 (orthogonal) to 2 (the negative); float64 `[N]`.
      place: its place among the references, int64 `[N]`.
    """

    distance: np.ndarray
    place: np.ndarray


def _directions(images: np.ndarray) -> np.ndarray:
    """Returns images as float32 rows of length 1; a black image stays 0."""
    rows = images.reshape(len(images), -1).astype(np.float32)
    length = np.sqrt(np.einsum("nd,nd->n", rows, rows, dtype=np.float64))
    rows /= np.where(length > 0, length, 1)[:, None].astype(np.float32)
    return rows


def _nearest_of_block(
    queries: np.ndarray, references: np.ndarray, others: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray]:
    """Returns squared distances, float64, and places within a block of references."""
    cosines = queries @ references.T
    if others is not None:
        (rows,) = np.nonzero((others >= 0) & (others < len(references)))
        cosines[rows, others[rows]] = -np.inf
    places = np.argmax(cosines, axis=1)
    # Not 2 - 2 cos, whose rounding would hide how close a copy is.
    squares = np.square(queries - references[places], dtype=np.float64).sum(axis=1)
    squares[np.isneginf(cosines[np.arange(len(queries)), places])] = np.inf
    return squares, places


def nearest_images(
    queries: np.ndarray, references: np.ndarray, own: np.ndarray | None = None
) -> Nearest:
    """Finds the nearest reference of each query, as vectors of length 1.

    Takes time in proportion to N M D and memory for a few blocks beside its arguments.

    Args:
      queries: float32 `[N, ...]`.
      references: float32 `[M, ...]` with the same axes but for the first.
      own: integers `[N]`, for each query a reference that does not count, such as itself.

    Raises:
      ValueError: for shapes that do not fit, or no reference.
    """
    if queries.shape[1:] != references.shape[1:] or not len(references):
        raise ValueError(
            f"queries have the shape {queries.shape}, references {references.shape}; allowed: one "
            "or more references of the size of the queries"
        )
    count = len(queries)
    best = np.full(count, np.inf)
    index = np.zeros(count, np.int64)
    directions = [
        _directions(queries[first : first + _QUERY_BLOCK])
        for first in range(0, count, _QUERY_BLOCK)
    ]
    for start in range(0, len(references), _REFERENCE_BLOCK):
        block = _directions(references[start : start + _REFERENCE_BLOCK])
        for number, part in enumerate(directions):
            rows = slice(number * _QUERY_BLOCK, number * _QUERY_BLOCK + len(part))
            others = None if own is None else own[rows] - start
            squares, places = _nearest_of_block(part, block, others)
            better = squares < best[rows]
            best[rows] = np.where(better, squares, best[rows])
            index[rows] = np.where(better, places + start, index[rows])
    return Nearest(np.sqrt(best), index)
