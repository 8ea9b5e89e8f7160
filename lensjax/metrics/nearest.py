"""The nearest image of a large set, by matrix products over blocks of it."""

from typing import NamedTuple

import numpy as np

from lensjax.errors import MeasureError

_QUERY_BLOCK = 1024
_REFERENCE_BLOCK = 2048


class Nearest(NamedTuple):
    """The nearest references of each query, nearest first.

    Attributes:
      distance: `|q / |q| - r / |r||`, from 0 (equal up to a positive factor) over the square
        root of 2 (orthogonal) to 2 (the negative); float64 `[N, num]`.
      place: their places among the references, int64 `[N, num]`.
    """

    distance: np.ndarray
    place: np.ndarray


def _directions(images: np.ndarray) -> np.ndarray:
    """Images as float32 rows of length 1; a black image stays 0."""
    rows = images.reshape(len(images), -1).astype(np.float32)
    length = np.sqrt(np.einsum("nd,nd->n", rows, rows, dtype=np.float64))
    rows /= np.where(length > 0, length, 1)[:, None].astype(np.float32)
    return rows


def _nearest_of_block(
    queries: np.ndarray, references: np.ndarray, excluded: np.ndarray | None, num_nearest: int
) -> tuple[np.ndarray, np.ndarray]:
    """Squared distances, float64 `[B, <= num_nearest]`, and places within a block."""
    cosines = queries @ references.T
    if excluded is not None:
        (rows,) = np.nonzero((excluded >= 0) & (excluded < len(references)))
        cosines[rows, excluded[rows]] = -np.inf
    if num_nearest < len(references):
        places = np.argpartition(cosines, -num_nearest, axis=1)[:, -num_nearest:]
    else:
        places = np.tile(np.arange(len(references)), (len(queries), 1))
    squares = np.empty(places.shape)
    for column, chosen in enumerate(places.T):
        # Not 2 - 2 cos, whose rounding would hide how close a copy is.
        squares[:, column] = np.square(queries - references[chosen], dtype=np.float64).sum(axis=1)
    squares[np.isneginf(np.take_along_axis(cosines, places, axis=1))] = np.inf
    return squares, places


def nearest_images(
    queries: np.ndarray, references: np.ndarray, num: int = 1, own: np.ndarray | None = None
) -> Nearest:
    """Finds the nearest references of each query, as vectors of length 1.

    Takes time in proportion to N M D and memory for the queries and a few blocks of references.

    Args:
      queries: float32 `[N, ...]`.
      references: float32 `[M, ...]`; only the first axis may differ in length.
      num: references for each query.
      own: for each query a reference that does not count, such as itself, integers `[N]`.

    Raises:
      MeasureError: for shapes that do not fit, or fewer references than asked for.
    """
    least = num + (own is not None)
    if queries.shape[1:] != references.shape[1:] or len(references) < least:
        raise MeasureError(
            f"queries have the shape {queries.shape}, references {references.shape}; allowed: at "
            f"least {least} references of the same size as the queries"
        )
    count = len(queries)
    best, place = np.full((count, num), np.inf), np.zeros((count, num), np.int64)
    blocks = [_directions(queries[i : i + _QUERY_BLOCK]) for i in range(0, count, _QUERY_BLOCK)]
    for start in range(0, len(references), _REFERENCE_BLOCK):
        reference_block = _directions(references[start : start + _REFERENCE_BLOCK])
        for number, block in enumerate(blocks):
            rows = slice(number * _QUERY_BLOCK, number * _QUERY_BLOCK + len(block))
            excluded = None if own is None else own[rows] - start
            squares, places = _nearest_of_block(block, reference_block, excluded, num)
            squares = np.concatenate([best[rows], squares], axis=1)
            places = np.concatenate([place[rows], places + start], axis=1)
            order = np.argsort(squares, axis=1, kind="stable")[:, :num]
            best[rows] = np.take_along_axis(squares, order, axis=1)
            place[rows] = np.take_along_axis(places, order, axis=1)
    return Nearest(np.sqrt(best), place)
