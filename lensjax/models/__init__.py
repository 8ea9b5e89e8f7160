"""Denoisers in flax.linen, all called as `(x, t, condition)`."""

from typing import TYPE_CHECKING

import flax.linen as nn
import jax.numpy as jnp

from lensjax.models.dit import DiT
from lensjax.models.unet import UNet

if TYPE_CHECKING:
    from lensjax.config import ModelConfig


def build_model(config: "ModelConfig") -> nn.Module:
    """Returns the denoiser of a checked configuration.

    It maps `x` float32 `[B, H, W, C]`, `t` float32 `[B]` in [0, 1] and `condition` (a mapping with
    `label`, int32 `[B]`) to float32 `[B, H, W, C]`.
    """
    dtype = jnp.dtype(config.dtype)
    if config.name == "dit":
        return DiT(
            patch_size=config.patch_size,
            width=config.width,
            depth=config.depth,
            num_heads=config.num_heads,
            mlp_ratio=config.mlp_ratio,
            num_classes=config.num_classes,
            dtype=dtype,
        )
    return UNet(
        patch_size=config.patch_size,
        widths=config.widths,
        blocks=config.blocks,
        condition_width=config.condition_width,
        attention_resolutions=config.attention_resolutions,
        attention_head_width=config.attention_head_width,
        num_classes=config.num_classes,
        dtype=dtype,
    )
