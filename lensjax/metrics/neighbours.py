"""Realism and variety apart: precision, recall, density and coverage by nearest neighbours.

A ball around each image reaches to its k-th neighbour in its own set. Precision and recall are
those of Kynkaanniemi et al. 2019 (arXiv:1904.06991), density and coverage those of Naeem et al.
2020 (arXiv:2002.09797).
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from lensjax.arguments import whole_number
from lensjax.devices.chunks import map_chunks
from lensjax.errors import MeasureError
from lensjax.metrics.frechet import check_features

PRECISION_K = 3
DENSITY_K = 5
_CHUNK = 1024
_TIE = 1e-9  # an image on the edge of a ball is in it, whichever way the distance was rounded


class ManifoldScores(NamedTuple):
    """How much two sets of images overlap.

    Attributes:
      precision: share of generated images inside the ball of any real image.
      recall: share of real images inside the ball of any generated image.
      density: balls of real images around a generated image, divided by k; about 1 for equal
        distributions, and not bounded by 1.
      coverage: share of real images with a generated image in their ball.
    """

    precision: float
    recall: float
    density: float
    coverage: float


def _squared_distances(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Squared distances, float64 `[N, M]`; exactly 0 between copies, in spite of rounding."""
    norms = np.sum(np.square(a), axis=1)[:, None] + np.sum(np.square(b), axis=1)[None, :]
    distances = norms - 2 * (a @ b.T)
    rounding = a.shape[1] * np.finfo(np.float64).eps * norms
    return np.where(distances <= rounding, 0.0, distances)


def ball_radii(features: np.ndarray, ks: tuple[int, ...]) -> np.ndarray:
    """The squared distance of each image to its k-th neighbour in the same set.

    Args:
      features: float64 `[N, D]`.
      ks: which neighbours; the image itself does not count.

    Returns:
      float64 `[N, len(ks)]`.
    """
    places = [k - 1 for k in ks]

    def radii(points: np.ndarray, numbers: np.ndarray) -> np.ndarray:
        distances = _squared_distances(points, features)
        distances[np.arange(len(numbers)), numbers] = np.inf
        return np.partition(distances, places, axis=1)[:, places]

    return _map_rows(radii, features, np.arange(len(features)))


def _map_rows(function: Callable[..., Any], *arrays: np.ndarray) -> Any:
    return map_chunks(function, min(_CHUNK, len(arrays[0])), *arrays)


def manifold_scores(
    real: np.ndarray,
    generated: np.ndarray,
    *,
    precision_k: int = PRECISION_K,
    density_k: int = DENSITY_K,
) -> ManifoldScores:
    """Precision, recall, density and coverage of generated images.

    Args:
      real: features `[N, D]`.
      generated: features `[M, D]`, best with M = N: recall and coverage grow with M.
      precision_k: the neighbour that a ball reaches to, for precision and recall.
      density_k: the same for density and coverage.

    Raises:
      MeasureError: for sets without such a neighbour, different numbers of features, or numbers
        that are not finite.
    """
    precision_k = whole_number("precision_k", precision_k, 1, error=MeasureError)
    density_k = whole_number("density_k", density_k, 1, error=MeasureError)
    real = check_features(real)
    generated = check_features(generated, real.shape[1])
    smallest, needed = min(len(real), len(generated)), max(precision_k, density_k) + 1
    if smallest < needed:
        raise MeasureError(
            f"got {len(real)} real and {len(generated)} generated images with {precision_k} and "
            f"{density_k} neighbours; allowed: more images of each kind than neighbours"
        )
    # A common shift does not change distances, and near a mean of 0 they lose less precision.
    centre = real.mean(axis=0)
    real, generated = real - centre, generated - centre
    near, wide = (1 + _TIE) * ball_radii(real, (precision_k, density_k)).T
    (generated_near,) = (1 + _TIE) * ball_radii(generated, (precision_k,)).T

    def score_generated(points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        distances = _squared_distances(points, real)
        return (distances <= near).any(axis=1), (distances <= wide).sum(axis=1)

    def score_real(points: np.ndarray, reach: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        distances = _squared_distances(points, generated)
        return (distances <= generated_near).any(axis=1), distances.min(axis=1) <= reach

    realistic, num_balls = _map_rows(score_generated, generated)
    recalled, covered = _map_rows(score_real, real, wide)
    return ManifoldScores(
        precision=float(np.mean(realistic)),
        recall=float(np.mean(recalled)),
        density=float(np.mean(num_balls) / density_k),
        coverage=float(np.mean(covered)),
    )
