"""KID: the unbiased squared maximum mean discrepancy between two sets of features.

The kernel is that of Binkowski et al. 2018 (arXiv:1801.01401), `k(x, y) = (x . y / D + 1)^3`. All
pairs of images count, each once, so that the value is unbiased: it is negative about half of the
time where both sets come from the same distribution. The value grows with the sixth power of the
features' units, so that only values from the same extractor can be compared.
"""

from typing import NamedTuple

import numpy as np

from lensjax.arguments import whole_number
from lensjax.errors import MeasureError
from lensjax.metrics.frechet import check_features

_DEGREE = 3
_OFFSET = 1.0
_NUM_BLOCKS = 20
_MIN_BLOCKS = 4
_TILE = 1024  # a Gram matrix of this side is the largest in memory


class KernelDistance(NamedTuple):
    """A squared maximum mean discrepancy and its standard error.

    Attributes:
      value: the unbiased estimate; may be negative.
      error: its standard error.
    """

    value: float
    error: float


def _diagonal_sum(a: np.ndarray) -> float:
    return float(np.sum((np.einsum("nd,nd->n", a, a) / a.shape[1] + _OFFSET) ** _DEGREE))


def _block_sums(
    a: np.ndarray, b: np.ndarray, in_a: np.ndarray, in_b: np.ndarray, symmetric: bool
) -> np.ndarray:
    """The sums of the kernel over all pairs of two blocks.

    Args:
      a: features `[N, D]`.
      b: features `[M, D]`.
      in_a: 1 where an image belongs to a block, else 0, float64 `[N, m]`.
      in_b: the same `[M, m]`.
      symmetric: whether both sets are the same, which halves the work.

    Returns:
      float64 `[m, m]`.
    """
    sums = np.zeros((in_a.shape[1], in_b.shape[1]))
    for row in range(0, len(a), _TILE):
        rows = slice(row, row + _TILE)
        for column in range(row if symmetric else 0, len(b), _TILE):
            columns = slice(column, column + _TILE)
            gram = a[rows] @ b[columns].T
            gram /= a.shape[1]
            gram += _OFFSET
            tile_sums = in_a[rows].T @ (gram * gram * gram @ in_b[columns])
            sums += tile_sums
            if symmetric and column > row:
                sums += tile_sums.T
    return sums


def _variance(pairs: np.ndarray) -> float:
    """The variance of the mean of a symmetric statistic over all pairs of blocks.

    With s1 the covariance of two pairs that share a block and s2 the variance of a pair, it is
    `2 (2 (m - 2) s1 + s2) / (m (m - 1))` (Hoeffding 1948). Both come from averages over distinct
    blocks; a jackknife would count s2 twice, and between equal distributions there is only s2.

    Args:
      pairs: the statistic of blocks i and j, float64 `[m, m]`; the diagonal is not used.
    """
    m = len(pairs)
    pairs = np.where(np.eye(m, dtype=bool), 0.0, pairs)
    total, rows, squares = pairs.sum(), pairs.sum(axis=1), np.sum(np.square(pairs))
    num_pairs = m * (m - 1)
    rows_squared = np.sum(np.square(rows))
    # The mean of products of pairs without a common block: an estimate of the squared mean.
    apart = (total**2 - 4 * rows_squared + 2 * squares) / (num_pairs * (m - 2) * (m - 3))
    sharing = (rows_squared - squares) / (num_pairs * (m - 2)) - apart
    single = squares / num_pairs - apart
    return float(2 * (2 * (m - 2) * max(sharing, 0.0) + max(single, 0.0)) / num_pairs)


def kernel_distance(a: np.ndarray, b: np.ndarray, *, seed: int = 0) -> KernelDistance:
    """KID between two sets of features, with its standard error.

    The error comes from the kernel's means between disjoint random blocks of either set. Between
    equal distributions it is 10 to 30 % too large, because a negative variance component counts
    as 0.

    Args:
      a: features `[N, D]`.
      b: features `[M, D]`; the sets must be independent of each other.
      seed: for the division into blocks; the value does not depend on it.

    Raises:
      MeasureError: for fewer than 4 images, different numbers of features, NaN or infinity, or
        another seed than an integer of at least 0.
    """
    seed = whole_number("seed", seed, error=MeasureError)
    a = check_features(a)
    b = check_features(b, a.shape[1])
    num_blocks = min(_NUM_BLOCKS, len(a), len(b))
    if num_blocks < _MIN_BLOCKS:
        raise MeasureError(
            f"got {len(a)} and {len(b)} images; KID and its error need at least {_MIN_BLOCKS} each"
        )
    random = np.random.default_rng(seed)
    in_a, in_b = (
        np.eye(num_blocks)[random.permutation(len(values)) % num_blocks] for values in (a, b)
    )
    aa = _block_sums(a, a, in_a, in_a, symmetric=True)
    bb = _block_sums(b, b, in_b, in_b, symmetric=True)
    ab = _block_sums(a, b, in_a, in_b, symmetric=False)
    value = (
        (aa.sum() - _diagonal_sum(a)) / (len(a) * (len(a) - 1))
        + (bb.sum() - _diagonal_sum(b)) / (len(b) * (len(b) - 1))
        - 2 * ab.sum() / (len(a) * len(b))
    )
    sizes_a, sizes_b = in_a.sum(axis=0), in_b.sum(axis=0)
    cross = ab / np.outer(sizes_a, sizes_b)
    within = aa / np.outer(sizes_a, sizes_a) + bb / np.outer(sizes_b, sizes_b)
    return KernelDistance(float(value), _variance(within - cross - cross.T) ** 0.5)
