"""Is this image a possible lens? Fits through the exact renderer, batched in JAX.

The truth of a simulated set is known: a `no_sub` image has two parameters, the source's position.
Fitting them and measuring the residual tests a generated image against the forward model itself.
"""

import functools
from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from lensjax.arguments import array_of
from lensjax.data.raytracing import render
from lensjax.data.simulator import SOURCE_POSITION_LIMIT, smooth_lens
from lensjax.data.surveys import Survey
from lensjax.devices.chunks import map_chunks
from lensjax.errors import MeasureError
from lensjax.metrics import fitting, forward, image_input, starts

FAINT_SHARE_OF_PEAK = 1e-3
_STARTS_PER_AXIS = 15
# Two starts guard against a local minimum near the true one.
_NUM_STARTS = 2
_CHUNK = 64
_BOUNDS = np.full(2, fitting.POSITION_LIMIT)


class SmoothFit(NamedTuple):
    """The best lens without sub-structure for each image.

    Attributes:
      source_x: arcsec, float32 `[N]`.
      source_y: arcsec, float32 `[N]`.
      image: the fitted image, flux, float32 `[N, H, W]`.
      ratio: RMS(image - fit) / RMS(image), float32 `[N]`.
      converged: see `fitting.Fitted`, bool `[N]`.
      amplitude: see `fitting.Fitted`, float32 `[N]`.
    """

    source_x: np.ndarray
    source_y: np.ndarray
    image: np.ndarray
    ratio: np.ndarray
    converged: np.ndarray
    amplitude: np.ndarray


@functools.cache
def _make_render(survey: Survey) -> fitting.Render:
    def render_smooth(position: Array) -> Array:
        return render(smooth_lens(survey, position[0], position[1]), survey)

    return render_smooth


@functools.cache
def _make_evaluate(survey: Survey, free_amplitude: bool) -> fitting.Evaluate:
    def evaluate(position: Array, image: Array) -> fitting.Expansion:
        lens = smooth_lens(survey, position[0], position[1])
        brightness, slope_x, slope_y = forward.trace(lens, survey, 0.0, 0.0)
        blurred = forward.blur(jnp.stack([brightness, -slope_x, -slope_y]), survey)
        model, jacobian = blurred[0], blurred[1:]
        if free_amplitude:
            model, jacobian = fitting.project_amplitude(model, jacobian, image)
        return fitting.expand(model - image, jacobian)

    return evaluate


@functools.partial(jax.jit, static_argnames="free_amplitude")
def _grid_costs(images: Array, candidates: Array, free_amplitude: bool) -> Array:
    return starts.candidate_costs(images, candidates, free_amplitude)


def _starts(images: np.ndarray, survey: Survey, free_amplitude: bool) -> np.ndarray:
    """The best places of a grid of positions, float32 `[N, S, 2]`."""
    positions = np.asarray(starts.position_grid(_STARTS_PER_AXIS))
    candidates = jnp.asarray(fitting.map_rows(_make_render(survey), positions))
    costs = map_chunks(lambda chunk: _grid_costs(chunk, candidates, free_amplitude), _CHUNK, images)
    grid = costs.reshape(-1, _STARTS_PER_AXIS, _STARTS_PER_AXIS)
    return positions[starts.local_minima(grid, _NUM_STARTS)]


def fit_smooth(images: np.ndarray, survey: Survey, *, free_amplitude: bool = False) -> SmoothFit:
    """Fits the source position of the lens without sub-structure to each image.

    Levenberg-Marquardt from the two best points of a 15 x 15 grid. Unless the amplitude is
    free, it is that of the survey, so that a wrong flux counts as an error.

    Args:
      images: flux per pixel, float32 `[N, H, W]`.
      survey: the DeepLense model of the images.
      free_amplitude: for images scaled by their maximum; the flux is then not tested.

    Raises:
      ValueError: for no images, a size other than the survey's, or pixels that are not finite.
    """
    images = fitting.check_images(images, survey)
    minimum = fitting.minimise(
        _make_evaluate(survey, free_amplitude),
        images,
        _starts(images, survey, free_amplitude),
        -_BOUNDS,
        _BOUNDS,
        chunk=_CHUNK,
    )
    inside = fitting.strictly_inside(minimum.parameters, -_BOUNDS, _BOUNDS)
    models = fitting.map_rows(_make_render(survey), minimum.parameters)
    fitted = fitting.finish(images, models, minimum.ended & inside, free_amplitude)
    return SmoothFit(minimum.parameters[:, 0], minimum.parameters[:, 1], **fitted._asdict())


def faint_pixel_rms(images: np.ndarray, fitted: np.ndarray) -> float:
    """The RMS over the pixels below 0.1 % of the fit's peak, in per cent of that peak.

    These pixels are nearly black in a real image; speckle shows here first.

    Args:
      images: flux per pixel, float32 `[N, H, W]`.
      fitted: the images of `fit_smooth`, the same shape.

    Raises:
      lensjax.errors.MeasureError: for other images, or of different shapes.
    """
    images = image_input.check_images(images)
    fitted = image_input.check_images(fitted, "fitted", shape=images.shape[1:])
    if len(images) != len(fitted):
        raise MeasureError(f"fitted: got {len(fitted)} images; allowed: {len(images)}, as given")
    peak = fitted.max(axis=(1, 2), keepdims=True)
    faint = fitted < FAINT_SHARE_OF_PEAK * peak
    return float(100 * np.sqrt(np.mean(np.square(images / peak, dtype=np.float64)[faint])))


def uniform_ks_distance(values: np.ndarray) -> float:
    """The Kolmogorov-Smirnov distance of positions `[N]` from their uniform prior.

    Raises:
      lensjax.errors.MeasureError: for no positions, or anything but numbers.
    """
    values = array_of("values", values, error=MeasureError)
    if values.ndim != 1 or not len(values):
        raise MeasureError(f"values: got shape {values.shape}; allowed: [N], at least one")
    limit = SOURCE_POSITION_LIMIT
    expected = np.clip((np.sort(values.astype(np.float64)) + limit) / (2 * limit), 0, 1)
    observed = np.arange(len(values) + 1) / len(values)
    return float(max(np.max(observed[1:] - expected), np.max(expected - observed[:-1])))


def smooth_scores(images: np.ndarray, survey: Survey) -> Mapping[str, float]:
    """Scores of one class of images against the lens without sub-structure.

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
