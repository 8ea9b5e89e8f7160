"""Networks in flax.linen: denoisers, classifiers, and the masked autoencoder.

Denoisers are called as `(x, t, condition)`, all other networks as `(images, keys)`.
"""

from typing import Protocol

import flax.linen as nn
import jax.numpy as jnp

from lensjax.errors import ConfigError
from lensjax.models.classifiers import CNN, ResCNN, ResNet18, ViT
from lensjax.models.dit import DiT
from lensjax.models.mae import MAE
from lensjax.models.unet import UNet

_TRANSFORMER = ("patch_size", "width", "depth", "num_heads", "mlp_ratio", "attention")
_HEAD = ("num_features", "num_classes", "cells", "dropout")
# The class of each network and the fields of the configuration that it takes.
_MODELS: dict[str, tuple[type[nn.Module], tuple[str, ...]]] = {
    "dit": (DiT, (*_TRANSFORMER, "num_classes", "remat")),
    "unet": (
        UNet,
        (
            "patch_size",
            "widths",
            "blocks",
            "condition_width",
            "attention_resolutions",
            "attention_head_width",
            "attention",
            "remat",
            "num_classes",
        ),
    ),
    "cnn": (CNN, ("widths", *_HEAD)),
    "rescnn": (ResCNN, ("patch_size", "widths", "blocks", *_HEAD)),
    "resnet18": (ResNet18, ("stem", "num_classes", "dropout")),
    "vit": (ViT, (*_TRANSFORMER, "num_classes", "dropout")),
    "mae": (
        MAE,
        (*_TRANSFORMER, "mask_share", "decoder_width", "decoder_depth", "decoder_heads"),
    ),
}


class NetworkSettings(Protocol):
    """The `model` section of a configuration: a name, a dtype, and the fields of that network."""

    @property
    def name(self) -> str:
        """Which network, such as `dit`."""
        ...

    @property
    def dtype(self) -> str:
        """Of the computation; parameters are float32."""
        ...


def build_model(config: NetworkSettings) -> nn.Module:
    """The network of a checked configuration.

    A denoiser (`dit`, `unet`) maps `x` float32 `[B, H, W, C]`, `t` float32 `[B]` in [0, 1] and
    `condition` (a mapping with `label`, int32 `[B]`) to float32 `[B, H, W, C]`. A classifier maps
    images in the model's range, `[B, H, W, C]`, and typed keys `[B]` (None without dropout) to
    `classifiers.ClassifierOutput`; `mae` maps the same to `mae.MaskedOutput`.

    Raises:
      ConfigError: for anything but the `model` section of a configuration.
    """
    name = getattr(config, "name", None)
    if not (isinstance(name, str) and name in _MODELS):
        raise ConfigError("config", config, "allowed: the model section of a checked configuration")
    model, names = _MODELS[config.name]
    fields = {name: getattr(config, name) for name in names}
    return model(**fields, dtype=jnp.dtype(config.dtype))
