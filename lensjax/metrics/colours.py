"""Colours of lens images in several bands: differences of asinh magnitudes in an aperture."""

import numpy as np

from lensjax.data.raytracing import pixel_centres
from lensjax.metrics.image_input import check_images
from lensjax.metrics.shapes import outer_frame

APERTURE_SHARE = 0.75  # diameter of the aperture in shorter sides of the image
LEAST_SOFTENING = 1e-3  # of the typical flux, for images without noise
_SIGMA_PER_DEVIATION = 1.4826  # of a Gaussian, over its median absolute deviation
_POGSON = 2.5 / np.log(10)


def _aperture(shape: tuple[int, ...]) -> np.ndarray:
    """The pixels of a circle around the image's centre, bool `[H, W]`."""
    height, width = shape
    x, y = pixel_centres(width, 1.0)[None, :], pixel_centres(height, 1.0)[:, None]
    return np.hypot(x, y) <= APERTURE_SHARE * min(shape) / 2


def aperture_fluxes(images: np.ndarray) -> np.ndarray:
    """The flux of each band in the aperture, float64 `[N, C]`; images are `[N, H, W, C]`."""
    return images[:, _aperture(images.shape[1:3])].sum(axis=1, dtype=np.float64)


def softenings(images: np.ndarray) -> np.ndarray:
    """The flux of each band below which a magnitude is linear, float64 `[C]`.

    It is the noise of an aperture's flux, from the outer frame of the images, as recommended for
    these magnitudes; where there is next to no noise, a thousandth of the typical flux.

    Args:
      images: real images, which all sets that are compared share, `[N, H, W, C]`.
    """
    pixels = images[:, outer_frame(images.shape[1:3])[0]].astype(np.float64)
    deviation = np.median(np.abs(pixels - np.median(pixels, axis=(0, 1))), axis=(0, 1))
    noise = _SIGMA_PER_DEVIATION * deviation * np.sqrt(_aperture(images.shape[1:3]).sum())
    typical = np.median(np.abs(aperture_fluxes(images)), axis=0)
    softening = np.maximum(noise, LEAST_SOFTENING * typical)
    return np.where(softening > 0, softening, 1.0)  # a black band


def measure_colours(images: np.ndarray, softening: np.ndarray) -> np.ndarray:
    """The colours of neighbouring bands: magnitude in a band minus magnitude in the next.

    `m = -2.5 / ln 10 (asinh(f / 2b) + ln b)`, which is the usual magnitude of bright images and
    stays finite for a flux of zero or below (Lupton, Gunn & Szalay 1999, AJ 118, 1406). The zero
    point of each band is that of its flux unit: a constant, which distances of distributions do
    not see.

    Args:
      images: flux per pixel, `[N, H, W, C]`.
      softening: b of each band, see `softenings`, `[C]`.

    Returns:
      float64 `[N, C - 1]`.

    Raises:
      ValueError: for images of another shape or that are not finite.
    """
    images = check_images(images, shape=(None, None, len(softening)))
    scaled = aperture_fluxes(images) / (2 * softening)
    magnitudes = -_POGSON * (np.arcsinh(scaled) + np.log(softening))
    return magnitudes[:, :-1] - magnitudes[:, 1:]
