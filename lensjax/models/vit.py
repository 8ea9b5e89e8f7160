"""The encoder of a vision transformer, for classifiers and masked autoencoders."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jax import Array

from lensjax.models.layers import (
    Dense,
    SelfAttention,
    gelu,
    position_embedding,
    space_to_depth,
    xavier,
)


class Block(nn.Module):
    """Attention and a two-layer perceptron after layer norms, each beside a shortcut.

    Attributes:
      num_heads: attention heads.
      mlp_ratio: width of the perceptron over that of the tokens.
      dtype: for the computation.
      attention: one of `config.model.ATTENTIONS`.
    """

    num_heads: int
    mlp_ratio: int
    dtype: Any = jnp.float32
    attention: str = "auto"

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Maps tokens `[B, T, D]` to tokens `[B, T, D]`."""
        width = x.shape[-1]
        norm = partial(nn.LayerNorm, epsilon=1e-6, dtype=self.dtype)
        dense = partial(Dense, dtype=self.dtype, kernel_init=xavier)
        h = norm(name="norm_attention")(x)
        attention = SelfAttention(
            self.num_heads, self.dtype, attention=self.attention, name="attention"
        )
        x = x + attention(h)
        h = dense(self.mlp_ratio * width, name="mlp_in")(norm(name="norm_mlp")(x))
        return x + dense(width, name="mlp_out")(gelu(h))


def patch_grid(height: int, width: int, patch_size: int) -> tuple[int, int]:
    """The rows and columns of the patches that cover an image; the last may reach beyond it."""
    return -(-height // patch_size), -(-width // patch_size)


def to_patches(images: Array, patch_size: int) -> Array:
    """Turns `[B, H, W, C]` into the pixels of patches `[B, T, p p C]`, row-major.

    Pixels of a patch beyond the image are 0.
    """
    patches = space_to_depth(images, patch_size)
    return patches.reshape(len(images), -1, patches.shape[-1])


def pixels_inside(image_shape: Sequence[int], patch_size: int) -> np.ndarray | None:
    """Which pixels of the patches belong to the image, bool `[T, p p C]`; None if all do.

    Args:
      image_shape: `(H, W, C)`.
      patch_size: side of a patch in pixels.
    """
    height, width, channels = image_shape
    rows, columns = patch_grid(height, width, patch_size)
    if (rows * patch_size, columns * patch_size) == (height, width):
        return None
    inside = np.zeros((rows, patch_size, columns, patch_size, channels), bool)
    inside.reshape(rows * patch_size, columns * patch_size, channels)[:height, :width] = True
    return inside.transpose(0, 2, 1, 3, 4).reshape(rows * columns, -1)


class Encoder(nn.Module):
    """Patches to tokens.

    Attributes:
      patch_size: side of a patch in pixels; see `to_patches` for sides that it does not divide.
      width: size of a token; a multiple of 4 and of `num_heads`.
      depth: number of blocks.
      num_heads: attention heads.
      mlp_ratio: width of a block's perceptron over `width`.
      dtype: for the computation; parameters are float32.
      attention: one of `config.model.ATTENTIONS`.
    """

    patch_size: int
    width: int
    depth: int
    num_heads: int
    mlp_ratio: int
    dtype: Any = jnp.float32
    attention: str = "auto"

    @nn.compact
    def __call__(self, images: Array, visible: Array | None = None) -> Array:
        """Maps images to tokens.

        Args:
          images: model range, `[B, H, W, C]`.
          visible: places of the patches that are encoded, int32 `[B, K]`; None for all.

        Returns:
          Normalised tokens `[B, T or K, width]`.
        """
        rows, columns = patch_grid(images.shape[1], images.shape[2], self.patch_size)
        tokens = Dense(self.width, dtype=self.dtype, kernel_init=xavier, name="patches_in")(
            to_patches(images, self.patch_size)
        )
        positions = position_embedding(rows, columns, self.width)
        tokens = tokens + jnp.asarray(positions, self.dtype)[None]
        if visible is not None:
            tokens = jnp.take_along_axis(tokens, visible[..., None], axis=1)
        for index in range(self.depth):
            tokens = Block(
                self.num_heads,
                self.mlp_ratio,
                self.dtype,
                self.attention,
                name=f"block_{index}",
            )(tokens)
        return nn.LayerNorm(epsilon=1e-6, dtype=self.dtype, name="norm")(tokens)
