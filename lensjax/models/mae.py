"""Masked autoencoder (He et al. 2022, arXiv:2111.06377): trains an encoder without labels.

The encoder of a `ViT` sees a few patches of an image; a small decoder, which is thrown away
afterwards, estimates the pixels of all other patches.
"""

from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from lensjax.models.layers import Dense, position_embedding, xavier
from lensjax.models.vit import Block, Encoder, patch_grid

_STABLE = 1e-6  # added to the variance of a patch


class MaskedOutput(NamedTuple):
    """The output of the autoencoder.

    Attributes:
      patches: the estimate of every patch, float32 `[B, T, p p C]`; pixels beyond the image, see
        `vit.pixels_inside`, mean nothing.
      seen: whether the encoder saw a patch, bool `[B, T]`.
    """

    patches: Array
    seen: Array


def draw_order(keys: Array, num_patches: int) -> Array:
    """A random order of the patches of each example, int32 `[B, T]`.

    Args:
      keys: typed keys of the examples, `[B]`.
      num_patches: T.
    """
    return jax.vmap(lambda key: jax.random.permutation(key, num_patches))(keys)


def num_seen(num_patches: int, mask_share: float) -> int:
    """The number of patches that the encoder sees, from 1 to `num_patches - 1`."""
    return min(num_patches - 1, max(1, round(num_patches * (1 - mask_share))))


def normalised(patches: Array, inside: np.ndarray | None = None) -> Array:
    """Patches `[..., T, p p C]` with mean 0 and variance 1 each.

    Args:
      patches: the pixels.
      inside: the pixels that count, bool `[T, p p C]`, see `vit.pixels_inside`; None for all.
    """
    mean, variance = _moments(patches, inside)
    return (patches - mean) / jnp.sqrt(variance + _STABLE)


def denormalised(estimate: Array, patches: Array, inside: np.ndarray | None = None) -> Array:
    """Gives an estimate of normalised patches the mean and variance of the patches themselves."""
    mean, variance = _moments(patches, inside)
    return mean + estimate * jnp.sqrt(variance)


def _moments(patches: Array, inside: np.ndarray | None) -> tuple[Array, Array]:
    where = None if inside is None else jnp.broadcast_to(inside, patches.shape)
    mean = jnp.mean(patches, axis=-1, keepdims=True, where=where)
    return mean, jnp.var(patches, axis=-1, keepdims=True, where=where)


class MAE(nn.Module):
    """The autoencoder.

    Attributes:
      patch_size: side of a patch in pixels; see `vit.to_patches` for sides that it does not divide.
      width: size of a token of the encoder; a multiple of 4 and of `num_heads`.
      depth: number of its blocks.
      num_heads: its attention heads.
      mlp_ratio: width of a block's perceptron over that of the tokens.
      mask_share: share of the patches that the encoder does not see.
      decoder_width: size of a token of the decoder; a multiple of 4 and of `decoder_heads`.
      decoder_depth: number of its blocks.
      decoder_heads: its attention heads.
      dtype: for the computation; parameters and output are float32.
      attention: one of `config.model.ATTENTIONS`.
    """

    patch_size: int
    width: int
    depth: int
    num_heads: int
    mlp_ratio: int
    mask_share: float
    decoder_width: int
    decoder_depth: int
    decoder_heads: int
    dtype: Any = jnp.float32
    attention: str = "auto"

    @nn.compact
    def __call__(self, images: Array, keys: Array) -> MaskedOutput:
        """Maps images in the model's range, `[B, H, W, C]`, to `MaskedOutput`.

        Args:
          images: as above.
          keys: typed keys, `[B]`; which patches are seen is a function of an example's own key.
        """
        rows, columns = patch_grid(images.shape[1], images.shape[2], self.patch_size)
        num_patches = rows * columns
        order = draw_order(keys, num_patches)
        visible = order[:, : num_seen(num_patches, self.mask_share)]
        tokens = Encoder(
            self.patch_size,
            self.width,
            self.depth,
            self.num_heads,
            self.mlp_ratio,
            self.dtype,
            self.attention,
            name="encoder",
        )(images, visible)
        tokens = Dense(self.decoder_width, dtype=self.dtype, kernel_init=xavier, name="decoder_in")(
            tokens
        )
        unseen = self.param("unseen", nn.initializers.normal(0.02), (self.decoder_width,))
        filled_shape = (len(images), num_patches, unseen.size)
        filled = jnp.broadcast_to(unseen.astype(self.dtype), filled_shape)
        examples = jnp.arange(len(images))[:, None]
        filled = filled.at[examples, visible].set(tokens)
        positions = position_embedding(rows, columns, self.decoder_width)
        filled = filled + jnp.asarray(positions, self.dtype)[None]
        for index in range(self.decoder_depth):
            filled = Block(
                self.decoder_heads,
                self.mlp_ratio,
                self.dtype,
                self.attention,
                name=f"decoder_block_{index}",
            )(filled)
        filled = nn.LayerNorm(epsilon=1e-6, dtype=self.dtype, name="decoder_norm")(filled)
        size = self.patch_size**2 * images.shape[-1]
        patches = Dense(size, dtype=self.dtype, kernel_init=xavier, name="patches_out")(filled)
        is_seen = jnp.zeros((len(images), num_patches), bool).at[examples, visible].set(True)
        return MaskedOutput(patches.astype(jnp.float32), is_seen)
