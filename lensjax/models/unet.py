"""A compact UNet on patches: pixels of a patch are channels, so that convolutions see few places.

The blocks are those of Dhariwal & Nichol 2021 (arXiv:2105.05233): group norm, modulation by time
and label, residual 3x3 convolutions.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jax import Array

from lensjax.guidance import Condition
from lensjax.models.layers import (
    ConditionEmbedding,
    depth_to_space,
    modulate,
    position_embedding,
    space_to_depth,
)

_zeros = nn.initializers.zeros_init()
_MAX_GROUPS = 8


def _group_norm(channels: int, dtype: Any, **kwargs: Any) -> nn.GroupNorm:
    groups = next(n for n in range(_MAX_GROUPS, 0, -1) if channels % n == 0)
    return nn.GroupNorm(num_groups=groups, epsilon=1e-5, dtype=dtype, **kwargs)


class ResBlock(nn.Module):
    """Two 3x3 convolutions around a modulated group norm, beside a shortcut.

    Attributes:
      width: channels of the output.
      dtype: of the computation.
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


class UNet(nn.Module):
    """The denoiser; its output is zero at the start.

    An image whose sides are not multiples of `patch_size 2^(levels - 1)` is padded with zeros at
    its lower right and cropped afterwards.

    Attributes:
      patch_size: side of a patch in pixels.
      widths: channels of each resolution, finest first.
      blocks: residual blocks at each resolution on the way down, and again on the way up.
      condition_width: length of the vector of time and label.
      num_classes: classes without the null label.
      dtype: of the computation; parameters and output are float32.
    """

    patch_size: int
    widths: Sequence[int]
    blocks: int
    condition_width: int
    num_classes: int
    dtype: Any = jnp.float32

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
        multiple = self.patch_size * 2 ** (len(self.widths) - 1)
        x = jnp.pad(x, ((0, 0), (0, -height % multiple), (0, -width % multiple), (0, 0)))
        vector = ConditionEmbedding(
            self.condition_width, self.num_classes, self.dtype, name="condition"
        )(t, condition)
        h = self._enter(space_to_depth(x, self.patch_size))
        h = self._descend_and_rise(h, vector)
        h = nn.silu(_group_norm(h.shape[-1], self.dtype)(h))
        conv = partial(nn.Conv, dtype=self.dtype, kernel_init=_zeros, name="patches_out")
        patches = conv(self.patch_size**2 * channels, (3, 3))(h)
        return depth_to_space(patches, self.patch_size)[:, :height, :width].astype(jnp.float32)

    def _enter(self, patches: Array) -> Array:
        """Returns the first features, with each patch's place added: a lens sits at the centre."""
        rows, columns = patches.shape[1:3]
        h = nn.Conv(self.widths[0], (3, 3), dtype=self.dtype, name="patches_in")(patches)
        table = position_embedding(rows, columns, 64).reshape(1, rows, columns, -1)
        place = nn.Dense(self.widths[0], dtype=self.dtype, name="place")(jnp.asarray(table))
        return h + place

    def _descend_and_rise(self, h: Array, vector: Array) -> Array:
        skips = []
        levels = list(enumerate(self.widths))
        for level, width in levels:
            if level:
                h = nn.Conv(width, (2, 2), (2, 2), dtype=self.dtype, name=f"down_{level}")(h)
            for block in range(self.blocks):
                h = ResBlock(width, self.dtype, name=f"down_{level}_block_{block}")(h, vector)
                skips.append(h)
        for level, width in reversed(levels):
            for block in range(self.blocks):
                h = jnp.concatenate([h, skips.pop()], axis=-1)
                h = ResBlock(width, self.dtype, name=f"up_{level}_block_{block}")(h, vector)
            if level:
                finer = 4 * self.widths[level - 1]
                h = nn.Conv(finer, (1, 1), dtype=self.dtype, name=f"up_{level}")(h)
                h = depth_to_space(h, 2)
        return h
