"""Is this image a possible lens? Fits through the exact renderer, batched in JAX.

On a simulated set the truth is known: a `no_sub` image has two free numbers, the source's position.
Fitting them and looking at what is left tests a generated image against the forward model itself.
"""

import functools
from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from lensjax.data.raytracing import render
from lensjax.data.simulator import SOURCE_POSITION_LIMIT, smooth_lens
from lensjax.data.surveys import Survey

FAINT_SHARE_OF_PEAK = 1e-3
_STARTS_PER_AXIS = 15
_ITERATIONS = 20
_FIT_CHUNK = 64
# A fit may leave the prior a little: a wrong image must not look right because it sits on a wall.
_FIT_LIMIT = 1.3 * SOURCE_POSITION_LIMIT


class SmoothFit(NamedTuple):
    """The best lens without sub-structure for each image, its amplitude fixed.

    Attributes:
      source_x: arcsec, float32 `[N]`.
      source_y: arcsec, float32 `[N]`.
      image: the fitted image, flux, float32 `[N, H, W]`.
      ratio: RMS(image - fit) / RMS(image), float32 `[N]`.
    """

    source_x: np.ndarray
    source_y: np.ndarray
    image: np.ndarray
    ratio: np.ndarray


def _render_smooth(position: Array, survey: Survey) -> Array:
    return render(smooth_lens(survey, position[0], position[1]), survey)


def _levenberg_marquardt(image: Array, start: Array, survey: Survey) -> Array:
    """Returns the source position `[2]` of least squared residual, from one start."""

    def residual(position: Array) -> Array:
        return (_render_smooth(position, survey) - image).ravel()

    def cost(position: Array) -> Array:
        return jnp.sum(jnp.square(residual(position)))

    def iterate(
        carry: tuple[Array, Array, Array], _: None
    ) -> tuple[tuple[Array, Array, Array], None]:
        position, best, damping = carry
        jacobian = jax.jacfwd(residual)(position)
        normal = jnp.matmul(jacobian.T, jacobian, precision="highest")
        gradient = jnp.matmul(jacobian.T, residual(position), precision="highest")
        move = jnp.linalg.solve(normal + damping * jnp.diag(jnp.diag(normal)), gradient)
        moved = jnp.clip(position - move, -_FIT_LIMIT, _FIT_LIMIT)
        moved_cost = cost(moved)
        better = moved_cost < best
        position = jnp.where(better, moved, position)
        damping = jnp.clip(jnp.where(better, damping / 5, damping * 4), 1e-9, 1e6)
        return (position, jnp.minimum(best, moved_cost), damping), None

    first = (start, cost(start), jnp.asarray(1e-3, start.dtype))
    (position, _, _), _ = jax.lax.scan(iterate, first, None, length=_ITERATIONS)
    return position


@functools.partial(jax.jit, static_argnames="survey")
def _fit_chunk(images: Array, survey: Survey) -> tuple[Array, Array]:
    axis = jnp.linspace(-SOURCE_POSITION_LIMIT, SOURCE_POSITION_LIMIT, _STARTS_PER_AXIS)
    starts = jnp.stack(jnp.meshgrid(axis, axis), axis=-1).reshape(-1, 2)
    candidates = jax.vmap(lambda start: _render_smooth(start, survey))(starts)

    def fit_one(image: Array) -> tuple[Array, Array]:
        costs = jnp.sum(jnp.square(candidates - image[None]), axis=(1, 2))
        # The two best places of the grid guard against a local minimum beside the true one.
        _, best = jax.lax.top_k(-costs, 2)
        ends = jax.vmap(lambda start: _levenberg_marquardt(image, start, survey))(starts[best])
        fits = jax.vmap(lambda end: _render_smooth(end, survey))(ends)
        chosen = jnp.argmin(jnp.sum(jnp.square(fits - image[None]), axis=(1, 2)))
        return ends[chosen], fits[chosen]

    return jax.lax.map(fit_one, images, batch_size=16)


def fit_smooth(images: np.ndarray, survey: Survey) -> SmoothFit:
    """Fits the source position of the lens without sub-structure to each image.

    Levenberg-Marquardt from the two best of a 15 x 15 grid of positions; the amplitude stays that
    of the survey, so that a wrong flux counts as an error.

    Args:
      images: flux per pixel, float32 `[N, H, W]`.
      survey: the DeepLense model of the images.

    Raises:
      ValueError: for images of another size than the survey's.
    """
    side = survey.num_pixels
    if images.ndim != 3 or images.shape[1:] != (side, side):
        raise ValueError(
            f"images have shape {images.shape}; {survey.name} needs [N, {side}, {side}]"
        )
    count = len(images)
    positions, fits = [], []
    for start in range(0, count, _FIT_CHUNK):
        chunk = images[start : start + _FIT_CHUNK].astype(np.float32)
        padded = np.concatenate([chunk, np.repeat(chunk[-1:], _FIT_CHUNK - len(chunk), axis=0)])
        ends, fitted = _fit_chunk(jnp.asarray(padded), survey)
        positions.append(np.asarray(ends)[: len(chunk)])
        fits.append(np.asarray(fitted)[: len(chunk)])
    position, fit = np.concatenate(positions), np.concatenate(fits)
    ratio = _rms(images - fit) / np.maximum(_rms(images), np.finfo(np.float32).tiny)
    return SmoothFit(position[:, 0], position[:, 1], fit, ratio)


def _rms(images: np.ndarray) -> np.ndarray:
    return np.sqrt(np.mean(np.square(images, dtype=np.float64), axis=(1, 2)))


def faint_pixel_rms(images: np.ndarray, fitted: np.ndarray) -> float:
    """Returns the RMS over the pixels below 0.1 % of the fit's peak, in per cent of that peak.

    These pixels are nearly black in a real image; speckle shows here first.

    Args:
      images: flux per pixel, float32 `[N, H, W]`.
      fitted: the images of `fit_smooth`, the same shape.
    """
    peak = fitted.max(axis=(1, 2), keepdims=True)
    faint = fitted < FAINT_SHARE_OF_PEAK * peak
    return float(100 * np.sqrt(np.mean(np.square(images / peak, dtype=np.float64)[faint])))


def uniform_ks_distance(values: np.ndarray, limit: float = SOURCE_POSITION_LIMIT) -> float:
    """Returns the Kolmogorov-Smirnov distance of values `[N]` from uniform(-limit, limit)."""
    quantiles = np.clip((np.sort(values.astype(np.float64)) + limit) / (2 * limit), 0, 1)
    ranks = np.arange(len(values) + 1) / len(values)
    return float(max(np.max(ranks[1:] - quantiles), np.max(quantiles - ranks[:-1])))


def smooth_scores(images: np.ndarray, survey: Survey) -> Mapping[str, float]:
    """Returns the numbers of one class of images against the lens without sub-structure.

    Args:
      images: flux per pixel, float32 `[N, H, W]`.
      survey: the DeepLense model of the images.

    Returns:
      `ratio_p50` and `ratio_p90` of RMS(image - fit) / RMS(image), `ks_x` and `ks_y` (distance of
      the fitted source positions from the prior), `faint_rms_percent`, and `num_images`.
    """
    fit = fit_smooth(images, survey)
    return {
        "ratio_p50": float(np.percentile(fit.ratio, 50)),
        "ratio_p90": float(np.percentile(fit.ratio, 90)),
        "ks_x": uniform_ks_distance(fit.source_x),
        "ks_y": uniform_ks_distance(fit.source_y),
        "faint_rms_percent": faint_pixel_rms(images, fit.image),
        "num_images": len(images),
    }
