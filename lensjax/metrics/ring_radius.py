"""The ring's radius as a classifier: how far one fitted number tells the classes apart.

Sub-structure adds mass, more mass makes a wider ring, and so a classifier can be right without ever
seeing sub-structure. Its scores mean something only beside the scores of the radius alone.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from lensjax.data import raytracing
from lensjax.data.raytracing import render
from lensjax.data.simulator import HALO_THETA_E, LENS_E1, LENS_E2, smooth_lens
from lensjax.data.surveys import Survey
from lensjax.devices.chunks import map_chunks
from lensjax.errors import MeasureError
from lensjax.metrics import fitting, forward, starts

NUM_NEIGHBOURS = 50
_ROOM = 0.3  # of the published Einstein radius, on either side
_CHUNK = 64
_ROUNDING = 1e-12
_POSITIONS_PER_AXIS = 11
_NUM_RADII = 13


@functools.cache
def _make_render(survey: Survey) -> fitting.Render:
    def render_smooth(parameters: Array) -> Array:
        return render(smooth_lens(survey, parameters[0], parameters[1], parameters[2]), survey)

    return render_smooth


@functools.cache
def _make_evaluate(survey: Survey, free_amplitude: bool) -> fitting.Evaluate:
    def evaluate(parameters: Array, image: Array) -> fitting.Expansion:
        lens = smooth_lens(survey, parameters[0], parameters[1], parameters[2])
        brightness, slope_x, slope_y = forward.trace(lens, survey, 0.0, 0.0)
        x, y = forward.image_grid(survey)
        unit_x, unit_y = raytracing.ellipsoid_deflection(x, y, LENS_E1, LENS_E2)
        wider = -survey.deflection_factor * (slope_x * unit_x + slope_y * unit_y)
        blurred = forward.blur(jnp.stack([brightness, -slope_x, -slope_y, wider]), survey)
        model, jacobian = blurred[0], blurred[1:]
        if free_amplitude:
            model, jacobian = fitting.project_amplitude(model, jacobian, image)
        return fitting.expand(model - image, jacobian)

    return evaluate


def _candidates() -> np.ndarray:
    """Source x, source y and Einstein radius of a grid of lenses, float32 `[T, 3]`."""
    positions = np.asarray(starts.position_grid(_POSITIONS_PER_AXIS))
    radii = HALO_THETA_E * np.linspace(1 - _ROOM, 1 + _ROOM, _NUM_RADII + 2, dtype=np.float32)[1:-1]
    return np.column_stack(
        [np.tile(positions, (_NUM_RADII, 1)), np.repeat(radii, len(positions))]
    ).astype(np.float32)


@functools.partial(jax.jit, static_argnames="free_amplitude")
def _nearest(images: Array, candidates: Array, free_amplitude: bool) -> Array:
    return jnp.argmin(starts.candidate_costs(images, candidates, free_amplitude), axis=1)


def _starts(images: np.ndarray, survey: Survey, free_amplitude: bool) -> np.ndarray:
    """The best lens of a grid for each image, float32 `[N, 1, 3]`."""
    parameters = _candidates()
    candidates = jnp.asarray(fitting.map_rows(_make_render(survey), parameters))
    best = map_chunks(lambda chunk: _nearest(chunk, candidates, free_amplitude), _CHUNK, images)
    return parameters[best][:, None]


def fit_ring_radius(
    images: np.ndarray, survey: Survey, *, free_amplitude: bool = False
) -> np.ndarray:
    """Fits source position and Einstein radius of the lens without sub-structure to each image.

    Levenberg-Marquardt from the best of a grid of 11 x 11 positions and 13 radii. An image that is
    no lens has a radius too: the best within 30 % of the published one.

    Without noise, lenses without sub-structure have the same radius to the last digits of float32,
    a precision that no observer has; only radii of noisy images show what the ring gives away.

    Args:
      images: flux per pixel, noise-free or noisy, `[N, H, W]`.
      survey: the DeepLense model of the images.
      free_amplitude: for images of another brightness, such as dimmed ones or those scaled by their
        maximum.

    Returns:
      The ring's radius in arcsec, which is the Einstein radius times the survey's deflection factor
      (0.8129 for a Model II lens without sub-structure), float32 `[N]`.

    Raises:
      MeasureError: for no images, a size other than the survey's, or pixels that are not finite.
    """
    images = fitting.check_images(images, survey)
    limit = fitting.POSITION_LIMIT
    minimum = fitting.minimise(
        _make_evaluate(survey, free_amplitude),
        images,
        _starts(images, survey, free_amplitude),
        np.array([-limit, -limit, (1 - _ROOM) * HALO_THETA_E]),
        np.array([limit, limit, (1 + _ROOM) * HALO_THETA_E]),
        chunk=_CHUNK,
    )
    return np.float32(survey.deflection_factor) * minimum.parameters[:, 2]


@dataclasses.dataclass(frozen=True)
class RadiusClassifier:
    """Classes by the ring's radius: shares of the classes among the nearest training radii.

    Neighbours and not a smooth density, because without noise all radii of one class are equal to
    six digits. All radii as near as the last neighbour count, so that equal radii count alike, and
    one more image is shared out among the classes, so that no probability is 0.

    Attributes:
      radii: radii of the training images, sorted, float64 `[M]`.
      num_below: training images of each class among the first i radii, int64 `[M + 1, K]`.
      num_neighbours: the number of nearest radii.
    """

    radii: np.ndarray
    num_below: np.ndarray
    num_neighbours: int

    @classmethod
    def fit(
        cls,
        radii: np.ndarray,
        labels: np.ndarray,
        num_classes: int,
        *,
        num_neighbours: int = NUM_NEIGHBOURS,
    ) -> "RadiusClassifier":
        """Stores the radii of training images; as many of each class give the classes equal odds.

        Args:
          radii: arcsec, `[M]`.
          labels: integers `[M]` in 0 to `num_classes` - 1.
          num_classes: K, at least 2.
          num_neighbours: 1 to M.

        Raises:
          MeasureError: for other shapes, radii that are not finite, or numbers out of range.
        """
        radii, labels = _check_radii(radii), np.asarray(labels)
        if labels.shape != radii.shape or not np.issubdtype(labels.dtype, np.integer):
            raise MeasureError(
                f"labels have shape {labels.shape} and type {labels.dtype}; allowed: integers"
                f" [{len(radii)}], one for each radius"
            )
        if not 1 <= num_neighbours <= len(radii):
            raise MeasureError(
                f"num_neighbours: got {num_neighbours}; allowed: 1 to {len(radii)}, the number of"
                " training images"
            )
        if num_classes < 2 or labels.min() < 0 or labels.max() >= num_classes:
            raise MeasureError(
                f"num_classes is {num_classes} and labels go from {labels.min()} to"
                f" {labels.max()}; allowed: at least 2 classes and labels from 0 to"
                f" {num_classes - 1}"
            )
        order = np.argsort(radii, kind="stable")
        member = labels[order][:, None] == np.arange(num_classes)[None]
        num_below = np.concatenate([np.zeros((1, num_classes), int), np.cumsum(member, axis=0)])
        return cls(radii[order], num_below, num_neighbours)

    def predict_probabilities(self, radii: np.ndarray) -> np.ndarray:
        """The probability of each class, float32 `[N, K]`.

        Args:
          radii: arcsec, `[N]`.

        Raises:
          MeasureError: for another shape or radii that are not finite.
        """
        from sklearn.neighbors import NearestNeighbors

        radii = _check_radii(radii)
        # A tree, because scikit-learn's brute force loses the last digits of distances in products.
        search = NearestNeighbors(n_neighbors=self.num_neighbours, algorithm="kd_tree")
        distances, _ = search.fit(self.radii[:, None]).kneighbors(radii[:, None])
        # A little further than the last neighbour: sums of float64 are rounded.
        reach = distances[:, -1] + _ROUNDING * (np.abs(radii) + distances[:, -1])
        first = np.searchsorted(self.radii, radii - reach, side="left")
        last = np.searchsorted(self.radii, radii + reach, side="right")
        counts = self.num_below[last] - self.num_below[first] + 1 / self.num_below.shape[1]
        return (counts / counts.sum(axis=1, keepdims=True)).astype(np.float32)


def _check_radii(radii: np.ndarray) -> np.ndarray:
    radii = np.asarray(radii)
    if radii.ndim != 1 or not len(radii) or not np.isfinite(radii).all():
        raise MeasureError(
            f"radii have shape {radii.shape}, {np.sum(~np.isfinite(radii))} are not finite;"
            " allowed: finite numbers [N] with N > 0"
        )
    return radii.astype(np.float64)
