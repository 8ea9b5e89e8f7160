"""Residuals of an image after a correction of the lens's potential: the test of cdm sub-structure.

The 77 parameters of a cdm image cannot be recovered. A smooth correction of the potential absorbs
most effects of sub-haloes, and only errors that are deflections; its residual has a known size.

The correction is `psi = sum c_kl b_k(y) b_l(x)`, 15 x 15 cubic B-splines around the ring; its
gradient is added to the deflection of the smooth lens, and the source may move. The coefficients
are held small by a penalty of `PENALTY` times the image's power times their squares (arcsec^4).
"""

import functools
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array

from lensjax.data import raytracing
from lensjax.data.simulator import HALO_THETA_E, smooth_lens
from lensjax.data.surveys import Survey
from lensjax.metrics import fitting, forward, starts
from lensjax.metrics.lensing import SmoothFit, fit_smooth

SPLINES_PER_AXIS = 15
# Spacing and penalty were chosen so that real cdm images of Model II have a median ratio of 0.015:
# closer splines and a smaller penalty absorb more, noise too.
SPACING_PER_RING = 0.2667
PENALTY = 1e-2
_ITERATIONS = 12
_CHUNK = 8
_FIRST = 3  # coefficients follow source x, source y and amplitude


class PotentialFit(NamedTuple):
    """The smooth lens with a corrected potential for each image.

    Attributes:
      source_x: arcsec, float32 `[N]`.
      source_y: arcsec, float32 `[N]`.
      coefficients: spline coefficients, arcsec^2, float32 `[N, 15, 15]`, rows along y.
      image: the fitted image, flux, float32 `[N, H, W]`.
      ratio: RMS(image - fit) / RMS(image), float32 `[N]`.
      converged: see `fitting.Fitted`, bool `[N]`.
      amplitude: see `fitting.Fitted`, float32 `[N]`.
    """

    source_x: np.ndarray
    source_y: np.ndarray
    coefficients: np.ndarray
    image: np.ndarray
    ratio: np.ndarray
    converged: np.ndarray
    amplitude: np.ndarray


@functools.cache
def _splines(survey: Survey) -> tuple[np.ndarray, np.ndarray]:
    """Cubic B-splines along one axis and their slopes per arcsec, each `[15, n]`."""
    ring = survey.deflection_factor * HALO_THETA_E
    spacing = SPACING_PER_RING * ring
    centres = (np.arange(SPLINES_PER_AXIS) - (SPLINES_PER_AXIS - 1) / 2) * spacing
    x = raytracing.pixel_centres(survey.num_pixels, survey.pixel_scale_arcsec)
    signed = (x[None] - centres[:, None]) / spacing
    t = np.abs(signed)
    tail = np.clip(2 - t, 0, None)
    values = np.where(t < 1, 2 / 3 - t**2 + t**3 / 2, tail**3 / 6)
    slopes = np.where(t < 1, -2 * t + 1.5 * t**2, -(tail**2) / 2) * np.sign(signed) / spacing
    return values, slopes


@functools.cache
def _make_model(survey: Survey) -> fitting.Render:
    """Makes the function from the parameters of `_make_evaluate` to the image of amplitude 1."""
    values, slopes = (jnp.asarray(table, jnp.float32) for table in _splines(survey))

    def model(parameters: Array) -> Array:
        return forward.blur(_trace(parameters, survey, values, slopes)[0], survey)

    return model


def _trace(
    parameters: Array, survey: Survey, values: Array, slopes: Array
) -> tuple[Array, Array, Array]:
    coefficients = parameters[_FIRST:].reshape(SPLINES_PER_AXIS, SPLINES_PER_AXIS)
    extra_x = forward.multiply(values.T, forward.multiply(coefficients, slopes))
    extra_y = forward.multiply(slopes.T, forward.multiply(coefficients, values))
    lens = smooth_lens(survey, parameters[0], parameters[1])
    return forward.trace(lens, survey, extra_x, extra_y)


@functools.cache
def _make_evaluate(survey: Survey) -> fitting.Evaluate:
    """Makes the problem of source x, source y, amplitude and the coefficients, `[3 + 225]`."""
    host_values, host_slopes = _splines(survey)
    values, slopes = (jnp.asarray(table, jnp.float32) for table in (host_values, host_slopes))
    # 1. The blur acts on a spline along each axis separately: `P diag(b_k)`.
    matrix = np.asarray(forward.image_matrix(survey), np.float64)
    rows = np.flatnonzero(np.any(matrix @ np.abs(host_values.T) > 0, axis=1))
    window = slice(rows[0], rows[-1] + 1)  # outside, derivatives by coefficients are 0
    blurred_values = jnp.asarray(matrix[window] * host_values[:, None], jnp.float32)
    blurred_slopes = jnp.asarray(matrix[window] * host_slopes[:, None], jnp.float32)
    right = jnp.concatenate([blurred_slopes, blurred_values], axis=-1)
    size, side = SPLINES_PER_AXIS, len(rows)

    def by_coefficients(slope_x: Array, slope_y: Array) -> Array:
        """The derivatives of the window by the coefficients, `[225, side, side]`."""
        left = jnp.concatenate(
            [forward.multiply(blurred_values, slope_x), forward.multiply(blurred_slopes, slope_y)],
            axis=-1,
        )
        width = left.shape[-1]
        product = forward.multiply(left.reshape(-1, width), right.reshape(-1, width).T)
        product = product.reshape(size, side, size, side)
        return -survey.deflection_factor * product.swapaxes(1, 2).reshape(-1, side, side)

    def evaluate(parameters: Array, image: Array) -> fitting.Expansion:
        brightness, slope_x, slope_y = _trace(parameters, survey, values, slopes)
        amplitude, coefficients = parameters[2], parameters[_FIRST:]
        blurred = forward.blur(
            jnp.stack([-amplitude * slope_x, -amplitude * slope_y, brightness]), survey
        )
        splines = amplitude * by_coefficients(slope_x, slope_y)
        inner = jnp.concatenate([blurred[:, window, window], splines])
        residual = amplitude * blurred[2] - image
        # 2. The splines change the window alone, source and amplitude all pixels.
        by_pixels = fitting.expand(residual, blurred)
        by_window = fitting.expand(residual[window, window], inner)
        # 3. The penalty.
        weight = PENALTY * jnp.sum(jnp.square(image))
        diagonal = jnp.arange(_FIRST, _FIRST + size**2)
        gradient = by_window.gradient.at[_FIRST:].add(weight * coefficients)
        normal = by_window.normal.at[diagonal, diagonal].add(weight)
        return fitting.Expansion(
            by_pixels.cost + weight * jnp.sum(jnp.square(coefficients)),
            gradient.at[:_FIRST].set(by_pixels.gradient),
            normal.at[:_FIRST, :_FIRST].set(by_pixels.normal),
        )

    return evaluate


def fit_potential(
    images: np.ndarray,
    survey: Survey,
    smooth: SmoothFit | None = None,
    *,
    free_amplitude: bool = False,
) -> PotentialFit:
    """Fits the smooth lens with a spline correction of its potential to each image.

    Args:
      images: flux per pixel, float32 `[N, H, W]`.
      survey: the DeepLense model of the images.
      smooth: the smooth fit of the same images, where each search begins; None computes it.
      free_amplitude: for images scaled by their maximum; the flux is then not tested.

    Raises:
      ValueError: for no images, a size other than the survey's, pixels that are not finite, or a
        smooth fit of another number of images.
    """
    images = fitting.check_images(images, survey)
    if smooth is None:
        smooth = fit_smooth(images, survey, free_amplitude=free_amplitude)
    num_coefficients = SPLINES_PER_AXIS**2
    begin = starts.starts_from(
        smooth.source_x, smooth.source_y, np.zeros(1 + num_coefficients), len(images)
    )
    begin[:, 0, 2] = smooth.amplitude
    upper = np.full(_FIRST + num_coefficients, np.inf)
    upper[:2] = fitting.POSITION_LIMIT
    lower = -upper
    # Equal bounds fix the amplitude.
    lower[2], upper[2] = (0.0, np.inf) if free_amplitude else (1.0, 1.0)
    minimum = fitting.minimise(
        _make_evaluate(survey),
        images,
        begin,
        lower,
        upper,
        max_iterations=_ITERATIONS,
        chunk=_CHUNK,
    )
    parameters = minimum.parameters
    inside = fitting.strictly_inside(parameters[:, :2], lower[:2], upper[:2])
    models = fitting.map_rows(_make_model(survey), parameters)
    fitted = fitting.finish(images, models, minimum.ended & inside, free_amplitude)
    coefficients = parameters[:, _FIRST:].reshape(-1, SPLINES_PER_AXIS, SPLINES_PER_AXIS)
    return PotentialFit(parameters[:, 0], parameters[:, 1], coefficients, **fitted._asdict())
