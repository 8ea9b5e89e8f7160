"""The Frechet distance between two sets of features, from moments that are added up in a stream.

`|m1 - m2|^2 + tr C1 + tr C2 - 2 tr (C1 C2)^(1/2)` (Dowson & Landau 1982), float64 throughout. With
`C = F F^T` from symmetric eigenvalues, the last trace is the sum of the singular values of
`F1^T F2`: real for any covariances, and exact where they have no full rank.
"""

from typing import Self

import numpy as np

from lensjax.arguments import array_of, instance
from lensjax.errors import MeasureError

MIN_IMAGES = 2


def check_features(features: np.ndarray, num_features: int | None = None) -> np.ndarray:
    """Features as float64 `[N, D]`.

    Args:
      features: numbers `[N, D]`.
      num_features: the D that is needed; None for any.

    Raises:
      MeasureError: for another shape, or a number that is not finite.
    """
    values = array_of("features", features, error=MeasureError).astype(np.float64)
    if values.ndim != 2 or not values.shape[1]:
        raise MeasureError(
            f"features have shape {values.shape}; allowed: [number of images, number of features]"
        )
    if num_features is not None and values.shape[1] != num_features:
        raise MeasureError(
            f"got {values.shape[1]} features per image, but the others have {num_features}; "
            "compare features of the same extractor and layer"
        )
    if not np.isfinite(values).all():
        bad = int((~np.isfinite(values).all(axis=1)).sum())
        raise MeasureError(
            f"the features of {bad} of {len(values)} images are NaN or infinite; look for such "
            "pixels in these images"
        )
    return values


class Moments:
    """Number, mean and covariance of features that come in batches, without storing features.

    Batches are merged as Chan, Golub & LeVeque (1979) do, so that a large mean costs no precision.
    """

    def __init__(self) -> None:
        """Starts without any images; the first batch sets the number of features."""
        self._count = 0
        self._mean = np.zeros(0)
        self._scatter = np.zeros((0, 0))
        self._root: np.ndarray | None = None

    @classmethod
    def of(cls, features: np.ndarray) -> Self:
        """The moments of one array of features `[N, D]`."""
        moments = cls()
        moments.update(features)
        return moments

    @property
    def count(self) -> int:
        """Number of images."""
        return self._count

    @property
    def num_features(self) -> int:
        """Number of features of an image, 0 before the first batch."""
        return len(self._mean)

    @property
    def mean(self) -> np.ndarray:
        """The mean, float64 `[D]`."""
        return self._mean.copy()

    @property
    def covariance(self) -> np.ndarray:
        """The unbiased covariance, float64 `[D, D]`.

        Raises:
          MeasureError: for fewer than 2 images.
        """
        self._require_images()
        return self._scatter / (self._count - 1)

    def update(self, features: np.ndarray) -> None:
        """Adds a batch.

        Args:
          features: numbers `[B, D]`; B may be 0.

        Raises:
          MeasureError: for another shape or number of features, or a number that is not finite.
        """
        values = check_features(features, self.num_features or None)
        if not len(values):
            return
        mean = values.mean(axis=0)
        centred = values - mean
        self._add(len(values), mean, centred.T @ centred)

    def _add(self, count: int, mean: np.ndarray, scatter: np.ndarray) -> None:
        self._root = None
        if not self._count:
            self._count, self._mean, self._scatter = count, mean.copy(), scatter.copy()
            return
        total = self._count + count
        move = mean - self._mean
        self._scatter += scatter
        self._scatter += np.outer(move, move * (self._count * count / total))
        self._mean = self._mean + move * (count / total)
        self._count = total

    def root(self) -> np.ndarray:
        """`F` with `covariance = F F^T`, float64 `[D, R]`; computed once.

        R, the rank, is less than the number of images. Directions whose variance is lost in the
        rounding of the largest variance are left out.

        Raises:
          MeasureError: for fewer than 2 images.
        """
        if self._root is None:
            variances, directions = np.linalg.eigh(self.covariance)
            rounding = max(variances[-1], 0.0) * len(variances) * np.finfo(np.float64).eps
            rank = min(int((variances > rounding).sum()), self._count - 1)
            largest = slice(len(variances) - rank, None)
            self._root = directions[:, largest] * np.sqrt(variances[largest])
        return self._root

    def _require_images(self) -> None:
        if self._count < MIN_IMAGES:
            raise MeasureError(
                f"got {self._count} image(s); a covariance needs at least {MIN_IMAGES}"
            )


def frechet_distance(a: Moments, b: Moments) -> float:
    """The Frechet distance between two normal distributions with these moments.

    Args:
      a: moments of one set of images.
      b: moments of the other set.

    Returns:
      The distance (a squared length, as FID is), at least 0.

    Raises:
      MeasureError: for anything but moments, fewer than 2 images, or different numbers of features.
    """
    for moments in (a, b):
        instance("moments", moments, Moments, "Moments.of(features)", error=MeasureError)
        moments._require_images()
    if a.num_features != b.num_features:
        raise MeasureError(
            f"got {a.num_features} and {b.num_features} features per image; compare features of "
            "the same extractor and layer"
        )
    shift = np.sum(np.square(a.mean - b.mean))
    product = a.root().T @ b.root()
    shared = np.linalg.svd(product, compute_uv=False).sum() if product.size else 0.0
    # Traces of the roots: a direction that the roots leave out must not count in the traces alone.
    spread = np.sum(np.square(a.root())) + np.sum(np.square(b.root()))
    return max(float(shift + spread - 2 * shared), 0.0)


def few_images_warning(count: int, num_features: int) -> str | None:
    """The warning beside a distance from too few images; None if there are enough.

    Args:
      count: images of the smaller set.
      num_features: features of an image.
    """
    if count > num_features:
        return None
    return (
        f"{count:,} images for {num_features:,} features: the covariance has no full rank, and "
        "the distance can only be compared with distances from as many images"
    )
