"""Begins a classifier with the encoder of another run, such as a masked autoencoder."""

import pathlib
from typing import Any

import jax
import jax.numpy as jnp

from lensjax.config import Config
from lensjax.data.scaling import Scaling
from lensjax.devices.mesh import put
from lensjax.errors import ConfigError
from lensjax.files.user_paths import expanded
from lensjax.inference.trained import restore
from lensjax.run import workdir as files
from lensjax.run.state import TrainState

_ENCODER = "encoder"
_ENCODER_FIELDS = ("patch_size", "width", "depth", "num_heads", "mlp_ratio")


def _folder(config: Config) -> pathlib.Path:
    assert config.classify.start_from is not None
    return expanded(config.classify.start_from, "classify.start_from")


def check_start(
    config: Config, image_shape: tuple[int, int, int], band_names: tuple[str, ...] = ()
) -> None:
    """Checks that the run of `classify.start_from` has the encoder of this configuration.

    Args:
      config: the configuration.
      image_shape: `(H, W, C)` of the network's input.
      band_names: names of its C bands; () if they are not known.

    Raises:
      ConfigError: for another network, or one that saw images of another shape or other bands.
      lensjax.errors.WorkdirError: if the folder is not a run's.
    """
    folder = _folder(config)
    model, theirs = config.model, files.load_config(folder).model
    if theirs.name not in ("mae", "vit"):
        raise ConfigError(
            "classify.start_from",
            str(folder),
            f"allowed: a run with model.name=mae or vit; this one has {theirs.name}",
        )
    for name in _ENCODER_FIELDS:
        if getattr(model, name) != getattr(theirs, name):
            raise ConfigError(
                f"model.{name}",
                getattr(model, name),
                f"allowed: {getattr(theirs, name)}, as in classify.start_from={folder}",
            )
    dataset = files.read_dataset(folder)
    shape, their_bands = tuple(dataset["image_shape"]), tuple(dataset.get("band_names", ()))
    if shape != image_shape:
        raise ConfigError(
            "classify.start_from",
            str(folder),
            f"allowed: a run that saw images of shape {image_shape}; this one saw {shape}",
        )
    if band_names and their_bands and their_bands != band_names:
        raise ConfigError(
            "classify.start_from",
            str(folder),
            f"allowed: a run that saw the bands {', '.join(band_names)} in this order; it saw "
            f"{', '.join(their_bands)}",
        )


def scaling_of(config: Config) -> Scaling:
    """Reads the scaling that the encoder of `classify.start_from` was trained with."""
    return Scaling(**files.read_dataset(_folder(config))["scaling"])


def with_encoder(state: TrainState, config: Config) -> TrainState:
    """Puts the encoder of `classify.start_from` into a state before its first step.

    Raises:
      lensjax.errors.WorkdirError: if the other run has no checkpoint at all.
      lensjax.errors.CheckpointError: if the checkpoint is missing or damaged.
    """
    folder = _folder(config)
    theirs = files.load_config(folder)
    encoder = restore(folder, theirs, config.classify.start_step, best=True).params[_ENCODER]

    def replaced(params: Any) -> Any:
        like = params[_ENCODER]
        new = jax.tree.map(lambda leaf, old: put(leaf, old.sharding), encoder, like)
        return {**params, _ENCODER: jax.tree.map(jnp.copy, new)}

    averages = {name: replaced(average) for name, average in state.ema.items()}
    return state._replace(params=replaced(state.params), ema=averages)
