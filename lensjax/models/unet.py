"""A UNet on patches: pixels of a patch are channels, so that convolutions see few places.

The blocks are those of Dhariwal & Nichol 2021 (arXiv:2105.05233): group norm, modulation by time
and label, residual 3x3 convolutions, and self-attention at chosen resolutions.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jax import Array

from lensjax.errors import ConfigError
from lensjax.interfaces import Condition
from lensjax.models.layers import (
    ConditionEmbedding,
    SelfAttention,
    depth_to_space,
    modulate,
    pad_to_multiple,
    position_embedding,
    space_to_depth,
)

_zeros = nn.initializers.zeros_init()
_MAX_GROUPS = 8


def feature_rows(height: int, patch_size: int, num_levels: int) -> tuple[int, ...]:
    """The rows of each level's feature map, finest first.

    Args:
      height: rows of the image in pixels; padded to a multiple of `patch_size 2^(num_levels - 1)`.
      patch_size: side of a patch in pixels.
      num_levels: resolutions, each half of the one before.
    """
    coarsest = -(-height // (patch_size * 2 ** (num_levels - 1)))
    return tuple(coarsest * 2**level for level in reversed(range(num_levels)))


def attention_heads(
    height: int,
    *,
    patch_size: int,
    widths: Sequence[int],
    resolutions: Sequence[int],
    head_width: int,
) -> tuple[int, ...]:
    """The attention heads of each level, 0 for a level without attention.

    Args:
      height: rows of the image in pixels.
      patch_size: side of a patch in pixels.
      widths: channels of each level, finest first.
      resolutions: rows of the feature maps with attention, see `feature_rows`.
      head_width: channels of a head; a narrower level has one head.

    Raises:
      ConfigError: for rows that no level has, or channels that their heads do not divide.
    """
    rows = feature_rows(height, patch_size, len(widths))
    if not set(resolutions) <= set(rows):
        raise ConfigError(
            "model.attention_resolutions",
            tuple(resolutions),
            f"allowed: rows of the levels' feature maps, {', '.join(map(str, rows))} for images "
            f"of {height} rows (model.patch_size={patch_size}, {len(widths)} model.widths)",
        )
    heads = [
        max(1, width // head_width) if level_rows in resolutions else 0
        for width, level_rows in zip(widths, rows, strict=True)
    ]
    for width, count in zip(widths, heads, strict=True):
        if count and width % count:
            raise ConfigError(
                "model.attention_head_width",
                head_width,
                f"allowed: a divisor of {width}, the channels of a level with attention, or a "
                f"number whose heads, {width} // attention_head_width, divide them; {count} heads "
                "do not",
            )
    return tuple(heads)


def _group_norm(channels: int, dtype: Any, **kwargs: Any) -> nn.GroupNorm:
    groups = next(n for n in range(_MAX_GROUPS, 0, -1) if channels % n == 0)
    return nn.GroupNorm(num_groups=groups, epsilon=1e-5, dtype=dtype, **kwargs)


class ResBlock(nn.Module):
    """Two 3x3 convolutions around a modulated group norm, beside a shortcut.

    Attributes:
      width: channels of the output.
      dtype: for the computation.
    """

    width: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Array, condition: Array) -> Array:
        """Maps `[B, H, W, C]` and the condition's vector `[B, D]` to `[B, H, W, width]`."""
        conv = partial(nn.Conv, self.width, dtype=self.dtype)
        h = nn.silu(_group_norm(x.shape[-1], self.dtype)(x))
        h = conv((3, 3), name="conv_in")(h)
        modulation = nn.Dense(
            2 * self.width, dtype=self.dtype, kernel_init=_zeros, name="modulation"
        )(nn.silu(condition))
        shift, scale = jnp.split(modulation, 2, axis=-1)
        h = _group_norm(self.width, self.dtype, use_bias=False, use_scale=False)(h)
        h = nn.silu(modulate(h, shift, scale))
        h = conv((3, 3), kernel_init=_zeros, name="conv_out")(h)
        if x.shape[-1] != self.width:
            x = conv((1, 1), name="shortcut")(x)
        return x + h


class AttentionBlock(nn.Module):
    """Self-attention between all places of a feature map; adds nothing at the start.

    Attributes:
      num_heads: heads; divides the channels.
      dtype: for the computation.
      attention: one of `config.model.ATTENTIONS`.
    """

    num_heads: int
    dtype: Any = jnp.float32
    attention: str = "auto"

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Maps `[B, H, W, C]` to `[B, H, W, C]`; memory grows with `(H W)^2`."""
        batch, rows, columns, width = x.shape
        tokens = _group_norm(width, self.dtype, name="norm")(x)
        tokens = tokens.reshape(batch, rows * columns, width)
        attention = SelfAttention(
            self.num_heads, self.dtype, _zeros, self.attention, name="attention"
        )
        return x + attention(tokens).reshape(x.shape)


class UNet(nn.Module):
    """The denoiser; its output is zero at the start.

    An image whose sides are not multiples of `patch_size 2^(levels - 1)` is padded with zeros at
    its lower right and cropped afterwards.

    Sizes with patches of 2 pixels and attention at the two coarsest levels: 1.0 M parameters for
    `widths` (32, 64, 96), one block, `condition_width` 128; 10.8 M for (64, 128, 256), 2, 256;
    61.1 M for (128, 256, 384, 512), 2, 512.

    Attributes:
      patch_size: side of a patch in pixels.
      widths: channels of each resolution, finest first.
      blocks: residual blocks at each resolution on the way down, and again on the way up.
      condition_width: length of the vector of time and label.
      num_classes: classes without the null label.
      attention_resolutions: rows of the feature maps with self-attention after each residual block;
        see `feature_rows`.
      attention_head_width: channels of an attention head.
      dtype: for the computation; parameters and the last layer are float32.
      attention: one of `config.model.ATTENTIONS`.
      remat: whether each block is recomputed for the gradient instead of stored.
    """

    patch_size: int
    widths: Sequence[int]
    blocks: int
    condition_width: int
    num_classes: int
    attention_resolutions: Sequence[int] = ()
    attention_head_width: int = 64
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

        Raises:
          ConfigError: for attention that does not fit the image, see `attention_heads`.
        """
        _, height, width, channels = x.shape
        heads = attention_heads(
            height,
            patch_size=self.patch_size,
            widths=self.widths,
            resolutions=self.attention_resolutions,
            head_width=self.attention_head_width,
        )
        multiple = self.patch_size * 2 ** (len(self.widths) - 1)
        x = pad_to_multiple(x, multiple)
        vector = ConditionEmbedding(
            self.condition_width, self.num_classes, self.dtype, name="condition"
        )(t, condition)
        h = self._enter(space_to_depth(x, self.patch_size))
        h = self._descend_and_rise(h, vector, heads)
        # In float32: the last layer's rounding would show in the image.
        h = nn.silu(_group_norm(h.shape[-1], jnp.float32)(h))
        conv = partial(nn.Conv, dtype=jnp.float32, kernel_init=_zeros, name="patches_out")
        patches = conv(self.patch_size**2 * channels, (3, 3))(h)
        return depth_to_space(patches, self.patch_size)[:, :height, :width]

    def _enter(self, patches: Array) -> Array:
        """The first features, with each patch's place added: a lens sits at the centre."""
        rows, columns = patches.shape[1:3]
        h = nn.Conv(self.widths[0], (3, 3), dtype=self.dtype, name="patches_in")(patches)
        table = position_embedding(rows, columns, 64).reshape(1, rows, columns, -1)
        place = nn.Dense(self.widths[0], dtype=self.dtype, name="place")(jnp.asarray(table))
        return h + place

    def _descend_and_rise(self, h: Array, vector: Array, heads: Sequence[int]) -> Array:
        skips = []
        levels = list(enumerate(self.widths))
        wrap: Callable[[type[nn.Module]], Any] = nn.remat if self.remat else lambda block: block
        residual, attention = wrap(ResBlock), wrap(AttentionBlock)

        def block_at(h: Array, level: int, name: str) -> Array:
            h = residual(self.widths[level], self.dtype, name=name)(h, vector)
            if heads[level]:
                h = attention(heads[level], self.dtype, self.attention, name=f"{name}_attention")(h)
            return h

        for level, width in levels:
            if level:
                h = nn.Conv(width, (2, 2), (2, 2), dtype=self.dtype, name=f"down_{level}")(h)
            for block in range(self.blocks):
                h = block_at(h, level, f"down_{level}_block_{block}")
                skips.append(h)
        for level, _ in reversed(levels):
            for block in range(self.blocks):
                h = jnp.concatenate([h, skips.pop()], axis=-1)
                h = block_at(h, level, f"up_{level}_block_{block}")
            if level:
                finer = 4 * self.widths[level - 1]
                h = nn.Conv(finer, (1, 1), dtype=self.dtype, name=f"up_{level}")(h)
                h = depth_to_space(h, 2)
        return h
