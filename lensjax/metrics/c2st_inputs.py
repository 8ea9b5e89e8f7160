"""The fixed first layer of the two-sample network: spectra and principal components of images.

A few hundred images do not teach a network good filters. The first layer is therefore made, not
trained: the power in bands of frequency, and coordinates along principal components. Both are taken
of the flux itself, for the ring, and of its logarithm (as `asinh`), for the background. Principal
components are those of all channels together.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from lensjax.devices.chunks import map_chunks
from lensjax.metrics.spectra import band_means

NUM_COMPONENTS = 100
_FILTER_SIDE = 4
_BASIS_IMAGES = 600  # a basis from more costs more and is no better
_CHUNK = 128
# Real images have a power of 1; float32 transforms round at about this level.
_POWER_FLOOR = 1e-14
_LARGEST = 8.0  # standard deviations; further out a network only extrapolates


def _cosine_filters() -> np.ndarray:
    """The 15 two-dimensional cosine filters of 4x4 pixels without the constant one."""
    place = np.arange(_FILTER_SIDE)
    waves = np.cos(np.pi * (place[None, :] + 0.5) * place[:, None] / _FILTER_SIDE)
    waves /= np.linalg.norm(waves, axis=1, keepdims=True)
    filters = np.einsum("ai,bj->abij", waves, waves)
    return filters.reshape(-1, _FILTER_SIDE, _FILTER_SIDE)[1:]


def _bands(shape: tuple[int, int]) -> np.ndarray:
    """Weights of the frequencies of `rfft2`, `[H * (W // 2 + 1), bands]`.

    Rings one cycle wide, and the responses of the cosine filters, which depend on direction.
    """
    rings, copies = band_means(shape)
    responses = np.abs(np.fft.rfft2(_cosine_filters(), shape)) ** 2
    directions = (responses * copies).reshape(len(responses), -1).T
    return np.concatenate([rings, directions / directions.sum(axis=0)], axis=1)


@jax.jit
def _log_power_chunk(images: Array) -> Array:
    height, width = images.shape[-2:]
    bands = jnp.asarray(_bands((height, width)), jnp.float32)
    power = jnp.square(jnp.abs(jnp.fft.rfft2(images))) / (height * width)
    means = jnp.matmul(power.reshape(len(images), -1), bands, precision="highest")
    return jnp.log(means + _POWER_FLOOR)


def log_band_powers(images: np.ndarray) -> np.ndarray:
    """The logarithm of the power in each band, float32 `[N, bands]`.

    Args:
      images: float32 `[N, H, W]`, in units in which real images have an RMS of about 1.
    """
    return map_chunks(_log_power_chunk, _CHUNK, images)


def _powers_of_channels(images: np.ndarray) -> np.ndarray:
    """The powers of each channel, and of the differences of neighbouring channels.

    The powers of channels alone do not show that two of them do not belong together.
    """
    planes = np.concatenate([images, np.diff(images, axis=-1)], axis=-1)
    return np.concatenate([log_band_powers(plane) for plane in np.moveaxis(planes, -1, 0)], axis=1)


@functools.partial(jax.jit, static_argnames="num_components")
def _project(basis_images: Array, images: Array, num_components: int) -> Array:
    """Coordinates `[N, num_components]` along the principal components of `basis_images`."""
    multiply = functools.partial(jnp.matmul, precision="highest")
    mean = jnp.mean(basis_images, axis=0, keepdims=True)
    centred = basis_images - mean
    # Fewer images than pixels: the small matrix of products has the same components.
    values, vectors = jnp.linalg.eigh(multiply(centred, centred.T))
    values, vectors = values[::-1][:num_components], vectors[:, ::-1][:, :num_components]
    scale = jnp.sqrt(jnp.maximum(values, jnp.finfo(values.dtype).tiny))
    components = multiply(centred.T, vectors) / scale[None]
    return multiply(images - mean, components)


def _standardised(values: np.ndarray, train: np.ndarray) -> np.ndarray:
    mean, std = values[train].mean(axis=0), values[train].std(axis=0)
    return np.clip((values - mean) / np.where(std > 0, std, 1), -_LARGEST, _LARGEST)


class InputLayer:
    """The network's inputs for a set of images, standardised on the training images.

    Attributes:
      flux: images divided by the RMS of the real images, float32 `[N, H, W, C]`.
      stretched: asinh of the images divided by the median absolute pixel of the real images.
    """

    def __init__(self, images: np.ndarray, rms: np.ndarray, median: np.ndarray):
        """Computes the powers, which do not depend on the choice of training images.

        Args:
          images: float32 `[N, H, W, C]`.
          rms: RMS of the real images in each channel, float32 `[C]`.
          median: median of the real images' absolute pixels in each channel, float32 `[C]`; the
            stretch is linear below it.
        """
        self.flux = (images / rms).astype(np.float32)
        self.stretched = np.arcsinh(images / median).astype(np.float32)
        self._powers = [_powers_of_channels(self.flux), _powers_of_channels(self.stretched)]

    def groups(self, real_train: np.ndarray, other_train: np.ndarray) -> list[np.ndarray]:
        """The groups of inputs of all images, float32 `[N, D]` each.

        Powers and components of the flux, then powers and components of the stretched flux.

        Args:
          real_train: indices of the real training images.
          other_train: indices of the other training images.
        """
        train = np.concatenate([real_train, other_train])
        share = _BASIS_IMAGES // 2
        basis = np.concatenate([real_train[:share], other_train[:share]])
        groups = []
        for images, powers in zip((self.flux, self.stretched), self._powers, strict=True):
            flat = images.reshape(len(images), -1)
            count = min(NUM_COMPONENTS, len(basis) // 4)
            coordinates = np.asarray(_project(flat[basis], jnp.asarray(flat), count))
            groups += [_standardised(powers, train), _standardised(coordinates, train)]
        return [group.astype(np.float32) for group in groups]
