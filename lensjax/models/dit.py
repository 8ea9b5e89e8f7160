"""NanoDiT: a diffusion transformer with adaptive layer norm (Peebles & Xie, arXiv:2212.09748)."""

from functools import partial
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jax import Array

from lensjax.interfaces import Condition
from lensjax.models.layers import (
    ConditionEmbedding,
    Dense,
    SelfAttention,
    depth_to_space,
    gelu,
    modulate,
    position_embedding,
    space_to_depth,
    xavier,
)

_zeros = nn.initializers.zeros_init()


def _layer_norm(dtype: Any) -> nn.LayerNorm:
    return nn.LayerNorm(epsilon=1e-6, use_bias=False, use_scale=False, dtype=dtype)


class DiTBlock(nn.Module):
    """Attention and a two-layer perceptron, each modulated and gated by the condition.

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
    def __call__(self, x: Array, condition: Array) -> Array:
        """Maps tokens `[B, T, D]` and the condition's vector `[B, D]` to tokens `[B, T, D]`."""
        width = x.shape[-1]
        modulation = nn.Dense(6 * width, dtype=self.dtype, kernel_init=_zeros, name="modulation")(
            nn.silu(condition)
        )
        shift_a, scale_a, gate_a, shift_m, scale_m, gate_m = jnp.split(modulation, 6, axis=-1)
        h = modulate(_layer_norm(self.dtype)(x), shift_a, scale_a)
        h = SelfAttention(self.num_heads, self.dtype, attention=self.attention, name="attention")(h)
        x = x + gate_a[:, None, :] * h
        h = modulate(_layer_norm(self.dtype)(x), shift_m, scale_m)
        dense = partial(Dense, dtype=self.dtype, kernel_init=xavier)
        h = gelu(dense(self.mlp_ratio * width, name="mlp_in")(h))
        h = dense(width, name="mlp_out")(h)
        return x + gate_m[:, None, :] * h


class DiT(nn.Module):
    """The denoiser; its output is zero at the start.

    Attributes:
      patch_size: side of a patch in pixels; see `layers.pad_to_multiple` for sides that it does
        not divide.
      width: size of a token; a multiple of 4 and of `num_heads`.
      depth: number of blocks.
      num_heads: attention heads.
      mlp_ratio: width of a block's perceptron over `width`.
      num_classes: classes without the null label.
      dtype: for the computation; parameters and the last layer are float32.
      attention: one of `config.model.ATTENTIONS`.
      remat: whether each block is recomputed for the gradient instead of stored.
    """

    patch_size: int
    width: int
    depth: int
    num_heads: int
    mlp_ratio: int
    num_classes: int
    dtype: Any = jnp.float32
    attention: str = "auto"
    remat: bool = False

    @nn.compact
    def __call__(self, x: Array, t: Array, condition: Condition) -> Array:
        """Maps `x_t` to the prediction.

        Args:
          x: float32 `[B, H, W, C]`, model range.
          t: float32 `[B]`, in [0, 1].
          condition: `label` int32 `[B]`.

        Returns:
          float32 `[B, H, W, C]`.
        """
        _, height, width, channels = x.shape
        patches = space_to_depth(x, self.patch_size)
        rows, columns = patches.shape[1:3]
        tokens = patches.reshape(x.shape[0], rows * columns, -1)
        tokens = Dense(self.width, dtype=self.dtype, kernel_init=xavier, name="patches_in")(tokens)
        positions = jnp.asarray(position_embedding(rows, columns, self.width), self.dtype)
        tokens = tokens + positions[None]
        vector = ConditionEmbedding(self.width, self.num_classes, self.dtype, name="condition")(
            t, condition
        )
        block = nn.remat(DiTBlock) if self.remat else DiTBlock
        sizes = self.num_heads, self.mlp_ratio
        for index in range(self.depth):
            tokens = block(*sizes, self.dtype, self.attention, name=f"block_{index}")(
                tokens, vector
            )
        # In float32: the last layer's rounding would show in the image.
        dense = partial(Dense, dtype=jnp.float32, kernel_init=_zeros)
        shift, scale = jnp.split(
            dense(2 * self.width, name="final_modulation")(nn.silu(vector)), 2, axis=-1
        )
        tokens = modulate(_layer_norm(jnp.float32)(tokens), shift, scale)
        patches = dense(self.patch_size**2 * channels, name="patches_out")(tokens)
        patches = patches.reshape(x.shape[0], rows, columns, -1)
        return depth_to_space(patches, self.patch_size)[:, :height, :width]
