"""Radial profiles and power spectra of images, one vector for each image."""

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from lensjax.data.raytracing import pixel_centres
from lensjax.devices.chunks import map_chunks
from lensjax.metrics.image_input import check_images

PROFILE_FLOOR = 1e-4  # of the image's peak
_CHUNK = 128


def _means(bins: np.ndarray, num_bins: int, copies: np.ndarray | float = 1.0) -> np.ndarray:
    """The matrix `[pixels, bins]` that averages the pixels of each bin."""
    weights = np.broadcast_to(copies, bins.shape).ravel()[:, None]
    members = (bins.ravel()[:, None] == np.arange(num_bins)) * weights
    return members / members.sum(axis=0)


def _profile_bins(shape: tuple[int, ...]) -> tuple[np.ndarray, int]:
    height, width = shape
    distance = np.hypot(pixel_centres(width, 1.0)[None, :], pixel_centres(height, 1.0)[:, None])
    return np.floor(distance).astype(int), min(shape) // 2


def band_means(shape: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Weights that average the output of `rfft2` of an image over rings of frequency.

    Args:
      shape: height and width in pixels.

    Returns:
      Weights `[H * (W // 2 + 1), K]`, each column with the sum 1; and how often each frequency
      occurs in the full transform, `[1, W // 2 + 1]`.
    """
    height, width = shape
    frequency = np.hypot(np.fft.rfftfreq(width)[None, :], np.fft.fftfreq(height)[:, None])
    bins = np.floor(frequency * min(shape) + 0.5).astype(int)
    # rfft2 leaves out the mirror images of the inner columns.
    column = np.arange(width // 2 + 1)
    copies = np.where((column == 0) | (2 * column == width), 1.0, 2.0)[None, :]
    return _means(bins, min(shape) // 2 + 1, copies), copies


@jax.jit
def _profile_chunk(images: Array) -> Array:
    means = jnp.asarray(_means(*_profile_bins(images.shape[-2:])), jnp.float32)
    flat = images.reshape(len(images), -1)
    profile = jnp.matmul(flat, means, precision="highest")
    peak = jnp.max(flat, axis=-1, keepdims=True)
    share = jnp.where(peak > 0, profile / jnp.where(peak > 0, peak, 1.0), 0.0)
    return jnp.log10(jnp.maximum(share, PROFILE_FLOOR))


@jax.jit
def _spectrum_chunk(images: Array) -> Array:
    height, width = images.shape[-2:]
    means = jnp.asarray(band_means((height, width))[0], jnp.float32)
    power = jnp.square(jnp.abs(jnp.fft.rfft2(images))) / (height * width)
    return jnp.matmul(power.reshape(len(images), -1), means, precision="highest")


def radial_profiles(images: np.ndarray, pixel_scale_arcsec: float) -> tuple[np.ndarray, np.ndarray]:
    """Azimuthal means around the image's centre, in rings one pixel wide.

    Args:
      images: flux per pixel, `[N, H, W]`, sides of at least 8 pixels.
      pixel_scale_arcsec: side of a pixel.

    Returns:
      The rings' radii in arcsec, float64 `[K]`, K half of the shorter side; log10 of the mean
      over the image's own peak, at least -4, float32 `[N, K]`.

    Raises:
      ValueError: for images of another shape or that are not finite.
    """
    images = check_images(images)
    profiles = map_chunks(_profile_chunk, _CHUNK, images)
    radii = (np.arange(profiles.shape[1]) + 0.5) * pixel_scale_arcsec
    return radii, profiles


def power_spectra(images: np.ndarray) -> np.ndarray:
    """The radially averaged power, `|FFT|^2 / (H W)`, of each image.

    White noise of variance v has the power v at every frequency.

    Args:
      images: flux per pixel, `[N, H, W]`, sides of at least 8 pixels.

    Returns:
      float32 `[N, K]`, K = 1 + half of the shorter side: bin k holds k cycles across that side,
      to half a cycle; bin 0 is (sum of the image)^2 / (H W).

    Raises:
      ValueError: for images of another shape or that are not finite.
    """
    return map_chunks(_spectrum_chunk, _CHUNK, check_images(images))
