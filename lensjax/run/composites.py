"""Colour composites of images in three bands."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

_GREEN = (0.0, 128 / 255, 0.0)  # pixels without a measurement, as in pictures of one band
_WHITE_PERCENTILE = 99.8
_SIGMA_PER_DEVIATION = 1.4826  # of a Gaussian, over its median absolute deviation
# Softening as a share of the white level: noise-free images would have none at all, and very
# noisy ones no stretch.
_LEAST_SOFTENING, _MOST_SOFTENING = 0.1, 1.0


class Stretch(NamedTuple):
    """How fluxes become colours.

    Attributes:
      black: the flux of each band that is black, `[3]`.
      white: the flux of each band that is white, `[3]`.
      softening: mean of the three scaled bands up to which brightness is about linear in flux.
    """

    black: np.ndarray
    white: np.ndarray
    softening: float


def composite_bands(num_bands: int) -> tuple[int, int, int] | None:
    """The bands of red, green and blue: last, middle and first; None for fewer than three bands."""
    return (num_bands - 1, num_bands // 2, 0) if num_bands >= 3 else None


def fit_stretch(images: Sequence[np.ndarray]) -> Stretch:
    """Finds the stretch of images by statistics that a few strange pixels do not move.

    Black is the median of a band, white its 99.8th percentile. The softening is the standard
    deviation of the mean of the scaled bands, by their median absolute deviation, within limits.

    Args:
      images: flux of red, green and blue, `[..., 3]` each; pixels that are not finite do not count.
    """
    pixels = np.concatenate([image.reshape(-1, 3) for image in images]).astype(np.float64)
    pixels = pixels[np.isfinite(pixels).all(axis=1)]
    if not len(pixels):
        return Stretch(np.zeros(3), np.ones(3), _MOST_SOFTENING)
    black, white = np.percentile(pixels, (50, _WHITE_PERCENTILE), axis=0)
    white = np.where(white > black, white, black + 1)
    mean = ((pixels - black) / (white - black)).mean(axis=1)
    deviation = _SIGMA_PER_DEVIATION * float(np.median(np.abs(mean - np.median(mean))))
    return Stretch(black, white, float(np.clip(deviation, _LEAST_SOFTENING, _MOST_SOFTENING)))


def lupton_rgb(image: np.ndarray, stretch: Stretch) -> np.ndarray:
    """A colour picture whose brightness is `asinh(I / softening)`, I the mean of the bands.

    The ratio of the bands, and so the colour, is the same for faint and bright parts; a pixel with
    a band above 1 is divided by that band. Source: Lupton et al. 2004, PASP 116, 133.

    Args:
      image: flux of red, green and blue, `[..., 3]`.
      stretch: see `fit_stretch`.

    Returns:
      float `[..., 3]` in [0, 1]; green where a band is not finite.
    """
    finite = np.isfinite(image).all(axis=-1, keepdims=True)
    flux = np.where(finite, image, stretch.black).astype(np.float64)
    scaled = np.maximum((flux - stretch.black) / (stretch.white - stretch.black), 0)
    mean = scaled.mean(axis=-1, keepdims=True)
    bright = np.arcsinh(mean / stretch.softening) / np.arcsinh(1 / stretch.softening)
    colours = scaled * bright / np.where(mean > 0, mean, 1)
    colours /= np.maximum(colours.max(axis=-1, keepdims=True), 1)
    return np.where(finite, colours, _GREEN)
