"""Realism and variety apart: precision, recall, density and coverage by nearest neighbours.

A ball around each image reaches to its k-th neighbour in its own set. Precision and recall are
those of Kynkaanniemi et al. 2019 (arXiv:1904.06991), density and coverage those of Naeem et al.
2020 (arXiv:2002.09797).
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from lensjax.errors import MeasureError
from lensjax.metrics.frechet import check_features

PRECISION_K = 3
DENSITY_K = 5
_CHUNK = 1024
_TIE = 1e-9  # an image on the edge of a ball is in it, whichever way the distance was rounded


class ManifoldScores(NamedTuple):
    """How much of one set lies among the other.

    Attributes:
      precision: share of generated images inside the ball of any real one.
      recall: share of real images inside the ball of any generated one.
      density: real balls around a generated image, divided by k; about 1 for equal distributions,
        and not bounded by 1.
      coverage: share of real images with a generated one in their ball.
    """

    precision: float
    recall: float
    density: float
    coverage: float


def _squared_distances(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Returns squared distances, float64 `[N, M]`; what rounding leaves between copies is 0."""
    norms = np.sum(np.square(a), axis=1)[:, None] + np.sum(np.square(b), axis=1)[None, :]
    distances = norms - 2 * (a @ b.T)
    rounding = a.shape[1] * np.finfo(np.float64).eps * norms
    return np.where(distances <= rounding, 0.0, distances)


def _chunks(count: int) -> Iterator[slice]:
    return (slice(start, min(start + _CHUNK, count)) for start in range(0, count, _CHUNK))


def ball_radii(features: np.ndarray, ks: tuple[int, ...]) -> np.ndarray:
    """Returns the squared distance of each image to its k-th neighbour in the same set.

    Args:
      features: float64 `[N, D]`.
      ks: which neighbours; the image itself does not count.

    Returns:
      float64 `[len(ks), N]`.
    """
    radii = np.empty((len(ks), len(features)))
    places = [k - 1 for k in ks]
    for rows in _chunks(len(features)):
        distances = _squared_distances(features[rows], features)
        distances[np.arange(len(distances)), np.arange(rows.start, rows.stop)] = np.inf
        radii[:, rows] = np.partition(distances, places, axis=1)[:, places].T
    return radii


def _counts_in_balls(
    points: np.ndarray, centres: np.ndarray, radii: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Counts who is in whose ball.

    Args:
      points: float64 `[N, D]`.
      centres: float64 `[M, D]`.
      radii: squared radii of kinds of balls, float64 `[K, M]`.

    Returns:
      For each point the number of balls that hold it, integers `[K, N]`, and for each ball whether
      it holds any point, bool `[K, M]`.
    """
    holding = np.zeros((len(radii), len(points)), np.int64)
    filled = np.zeros(radii.shape, bool)
    reach = radii * (1 + _TIE)
    for rows in _chunks(len(points)):
        distances = _squared_distances(points[rows], centres)
        for kind in range(len(radii)):
            inside = distances <= reach[kind]
            holding[kind, rows] = inside.sum(axis=1)
            filled[kind] |= inside.any(axis=0)
    return holding, filled


def manifold_scores(
    real: np.ndarray,
    generated: np.ndarray,
    *,
    precision_k: int = PRECISION_K,
    density_k: int = DENSITY_K,
) -> ManifoldScores:
    """Returns precision, recall, density and coverage of generated images.

    Args:
      real: features `[N, D]`.
      generated: features `[M, D]`, best as many: recall and coverage grow with M.
      precision_k: which neighbour a ball reaches to for precision and recall.
      density_k: the same for density and coverage.

    Raises:
      MeasureError: for sets with no such neighbour, unlike numbers of features, or numbers not
        finite.
    """
    real = check_features(real)
    generated = check_features(generated, real.shape[1])
    smallest, needed = min(len(real), len(generated)), max(precision_k, density_k) + 1
    if min(precision_k, density_k) < 1 or smallest < needed:
        raise MeasureError(
            f"got {len(real)} real and {len(generated)} generated images with neighbours "
            f"{precision_k} and {density_k}; needed: neighbours of at least 1, and more images "
            "than the larger of them"
        )
    # A common shift leaves distances as they are, and a small mean costs them fewer digits.
    centre = real.mean(axis=0)
    real, generated = real - centre, generated - centre
    real_radii = ball_radii(real, (precision_k, density_k))
    generated_radii = ball_radii(generated, (precision_k,))
    around, filled = _counts_in_balls(generated, real, real_radii)
    recalled, _ = _counts_in_balls(real, generated, generated_radii)
    return ManifoldScores(
        precision=float(np.mean(around[0] > 0)),
        recall=float(np.mean(recalled[0] > 0)),
        density=float(np.mean(around[1]) / density_k),
        coverage=float(np.mean(filled[1])),
    )
