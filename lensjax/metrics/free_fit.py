"""The free fit of the lens: Einstein radius, ellipticity and shear, besides the source position.

In a DeepLense model these are constants; the values fitted to generated images have a bias and a
scatter. The Einstein radius is nearly independent of the rest (correlations of 0.2 or less, in the
median of Model II under white noise). Ellipticity and shear along the same axis stretch the ring
alike and differ only in its width: e1 with gamma1 and e2 with gamma2 are correlated by 0.93, so
that an error of the image changes both.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from lensjax.data.raytracing import Lens, render
from lensjax.data.simulator import (
    HALO_THETA_E,
    LENS_E1,
    LENS_E2,
    SHEAR_GAMMA1,
    SHEAR_GAMMA2,
    smooth_lens,
)
from lensjax.data.surveys import Survey
from lensjax.metrics import fitting, starts
from lensjax.metrics.lensing import SmoothFit, fit_smooth

_CHUNK = 16
TRUTH = {
    "theta_e": HALO_THETA_E,
    "e1": LENS_E1,
    "e2": LENS_E2,
    "gamma1": SHEAR_GAMMA1,
    "gamma2": SHEAR_GAMMA2,
}
_ROOM = np.array([0.3 * HALO_THETA_E, 0.3, 0.3, 0.2, 0.2])  # on either side of the truth
# Searches begin near the true values, so that they have to find them.
_OFFSETS = np.array([0.04 * HALO_THETA_E, 0.03, 0.03, -0.02, -0.02])


class FreeFit(NamedTuple):
    """The best smooth lens with free Einstein radius, ellipticity and shear for each image.

    Attributes:
      source_x: arcsec, float32 `[N]`.
      source_y: arcsec, float32 `[N]`.
      theta_e: Einstein radius of the halo in arcsec before the deflection factor, float32 `[N]`.
      e1: ellipticity component of the halo, float32 `[N]`.
      e2: ellipticity component of the halo, float32 `[N]`.
      gamma1: shear component, float32 `[N]`.
      gamma2: shear component, float32 `[N]`.
      image: the fitted image, flux, float32 `[N, H, W]`.
      ratio: RMS(image - fit) / RMS(image), float32 `[N]`.
      converged: see `fitting.Fitted`, bool `[N]`.
      amplitude: see `fitting.Fitted`, float32 `[N]`.
    """

    source_x: np.ndarray
    source_y: np.ndarray
    theta_e: np.ndarray
    e1: np.ndarray
    e2: np.ndarray
    gamma1: np.ndarray
    gamma2: np.ndarray
    image: np.ndarray
    ratio: np.ndarray
    converged: np.ndarray
    amplitude: np.ndarray


def _free_lens(parameters: Array, survey: Survey) -> Lens:
    x, y, theta_e, e1, e2, gamma1, gamma2 = parameters
    lens = smooth_lens(survey, x, y, theta_e)
    return lens._replace(e1=e1, e2=e2, gamma1=gamma1, gamma2=gamma2)


@functools.cache
def _make_render(survey: Survey) -> fitting.Render:
    def render_free(parameters: Array) -> Array:
        return render(_free_lens(parameters, survey), survey)

    return render_free


@functools.cache
def _make_evaluate(survey: Survey, free_amplitude: bool) -> fitting.Evaluate:
    def evaluate(parameters: Array, image: Array) -> fitting.Expansion:
        model, push = jax.linearize(_make_render(survey), parameters)
        jacobian = jax.vmap(push)(jnp.eye(len(parameters), dtype=parameters.dtype))
        if free_amplitude:
            model, jacobian = fitting.project_amplitude(model, jacobian, image)
        return fitting.expand(model - image, jacobian)

    return evaluate


def fit_free(
    images: np.ndarray,
    survey: Survey,
    smooth: SmoothFit | None = None,
    *,
    free_amplitude: bool = False,
) -> FreeFit:
    """Fits source position, Einstein radius, ellipticity and shear to each image.

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
    truth = np.array(list(TRUTH.values()))
    lower = np.append(np.full(2, -fitting.POSITION_LIMIT), truth - _ROOM)
    upper = np.append(np.full(2, fitting.POSITION_LIMIT), truth + _ROOM)
    begin = starts.starts_from(smooth.source_x, smooth.source_y, truth + _OFFSETS, len(images))
    minimum = fitting.minimise(
        _make_evaluate(survey, free_amplitude), images, begin, lower, upper, chunk=_CHUNK
    )
    inside = fitting.strictly_inside(minimum.parameters, lower, upper)
    models = fitting.map_rows(_make_render(survey), minimum.parameters)
    fitted = fitting.finish(images, models, minimum.ended & inside, free_amplitude)
    return FreeFit(
        **dict(zip(("source_x", "source_y", *TRUTH), minimum.parameters.T, strict=True)),
        **fitted._asdict(),
    )
