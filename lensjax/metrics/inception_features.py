"""Features of images from the Inception network of published Frechet distances."""

import functools
import hashlib
from collections.abc import Mapping

import jax
import numpy as np
from jax import Array

from lensjax.devices.chunks import map_chunks
from lensjax.errors import MeasureError
from lensjax.metrics.image_input import check_images
from lensjax.models.inception import (
    INPUT_SIZE,
    LAYERS,
    Folded,
    inception_features,
    prepare_weights,
)
from lensjax.models.inception_blocks import weight_shapes

# The flux that becomes 255: of all channels, or of each.
FluxLimit = float | tuple[float, ...]
# Counts the changes, here or in the network, that alter a feature.
MAP_VERSION = 1
_LARGEST = 255


@functools.partial(jax.jit, static_argnames="layer")
def _features(weights: Mapping[str, Folded], images: Array, layer: int) -> Array:
    return inception_features(weights, images, (layer,))[layer]


def to_bytes(images: np.ndarray, flux_limit: FluxLimit) -> np.ndarray:
    """Maps flux to eight bits: 0 to `flux_limit` becomes 0 to 255, rounded and clipped.

    Args:
      images: finite flux per pixel, of any shape; channels, if they have limits, are last.
      flux_limit: the flux that becomes 255, or that of each channel; the same for all images that
        are compared.

    Returns:
      uint8 of the same shape; halves are rounded to even.
    """
    scaled = np.asarray(images, np.float64) * (_LARGEST / np.asarray(flux_limit))
    return np.clip(np.rint(scaled), 0, _LARGEST).astype(np.uint8)


class InceptionExtractor:
    """Inception features of flux images, behind one fixed map to eight bits.

    Attributes:
      name: `inception`.
      layer: such as `pool 2048`, after the number of features.
      num_features: the number of features.
      flux_limit: the flux that becomes 255, or that of each channel.
      hash: SHA-256 of the weights and of every setting that the features depend on.

    Args:
      weights: from `load_inception`.
      flux_limit: positive, one for all channels or one for each; flux at and above it becomes 255,
        flux at and below 0 becomes 0.
      layer: 64, 192, 768 or 2048.
      batch_size: images that are computed together; the last batch is padded.

    Raises:
      MeasureError: if the weights are not the network's, or a setting is out of its bounds.
    """

    name = "inception"

    def __init__(
        self,
        weights: Mapping[str, np.ndarray],
        flux_limit: FluxLimit,
        layer: int = 2048,
        batch_size: int = 16,
    ) -> None:
        limits = np.asarray(flux_limit)
        if not (np.isfinite(limits).all() and (limits > 0).all()):
            raise MeasureError(f"flux_limit must be finite and positive; got {flux_limit}")
        if layer not in LAYERS:
            raise MeasureError(f"layer must be one of {LAYERS}; got {layer}")
        if batch_size < 1:
            raise MeasureError(f"batch_size must be 1 or more; got {batch_size}")
        self._weights = jax.device_put(prepare_weights(weights))
        self._batch_size = batch_size
        self.flux_limit: FluxLimit = (
            tuple(map(float, flux_limit)) if isinstance(flux_limit, tuple) else float(flux_limit)
        )
        self.layer = f"pool {layer}"
        self.num_features = layer
        self.hash = self._hash(weights)

    def _hash(self, weights: Mapping[str, np.ndarray]) -> str:
        digest = hashlib.sha256()
        settings = (self.name, MAP_VERSION, INPUT_SIZE, self.num_features, self.flux_limit)
        digest.update(repr(settings).encode())
        for name in sorted(weight_shapes()):
            array = np.asarray(weights[name])
            digest.update(f"{name} {array.dtype.str} {array.shape}".encode())
            digest.update(np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()

    def _chunk(self, images: np.ndarray) -> Array:
        pixels = to_bytes(images, self.flux_limit)
        pixels = np.repeat(pixels, 3 // pixels.shape[-1], axis=-1)
        return _features(self._weights, pixels, self.num_features)

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """The features of images.

        Args:
          images: flux `[N, H, W, C]`, finite, any N; one channel is repeated to three, three
            channels stay as they are.

        Returns:
          float32 `[N, num_features]`.

        Raises:
          MeasureError: for another shape, dtype or number of channels, NaN or infinities.
        """
        images = np.asarray(images)
        if images.ndim != 4 or images.shape[-1] not in (1, 3):
            raise MeasureError(
                f"images must be [N, H, W, C] with 1 channel, which is repeated, or 3; got the "
                f"shape {images.shape}"
            )
        check_images(images, shape=(None, None, images.shape[-1]), min_side=1, min_count=0)
        if not len(images):
            return np.empty((0, self.num_features), np.float32)
        return map_chunks(self._chunk, self._batch_size, images)
