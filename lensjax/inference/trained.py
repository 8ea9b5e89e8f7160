"""The common content of everything loaded from a run: configuration, data set, parameters."""

import dataclasses
import os
import pathlib
from typing import Any

import jax
import numpy as np

from lensjax.arguments import instance, path_text, refuse, whole_number
from lensjax.config import Config
from lensjax.config.diffusion import RAW_PARAMS
from lensjax.config.model import CLASSIFY, GENERATE, PRETRAIN
from lensjax.data.scaling import Scaling
from lensjax.devices.mesh import to_host
from lensjax.errors import ConfigError, WorkdirError
from lensjax.files.user_paths import expanded
from lensjax.run import workdir as files
from lensjax.run.checkpoint import Checkpoints
from lensjax.run.learning import abstract_state
from lensjax.run.selection import restore_best
from lensjax.run.state import TrainState, sampling_params
from lensjax.run.stored import check_fits


@dataclasses.dataclass(frozen=True)
class Trained:
    """A trained run.

    Attributes:
      config: the run's configuration.
      dataset: the content of its `dataset.json`.
      params: the parameters that were asked for.
      step: the checkpoint that they come from.
      ema: the name of their average, or `raw`.
      folder: the run's workdir; None if there is none.
    """

    config: Config
    dataset: dict[str, Any]
    params: Any
    step: int
    ema: str
    folder: pathlib.Path | None

    @property
    def scaling(self) -> Scaling:
        """The map between flux and the model's range."""
        return Scaling(**self.dataset["scaling"])


_TASKS = {  # for errors: what a network of each task does, and which networks do it
    GENERATE: ("generates images", "a generator (dit, unet)"),
    CLASSIFY: (
        "is a classifier",
        "a classifier (cnn, rescnn, resnet18, vit), such as one of configs/classifier_rescnn.py",
    ),
    PRETRAIN: ("is an autoencoder", ""),
}


def params_name(config: Config, ema: bool | str) -> str:
    """The name of the parameters that the argument `ema` of `load` asks for.

    Raises:
      RequestError: for an average that the run does not keep.
    """
    if isinstance(ema, (bool, np.bool_)):
        return config.sample.ema if ema else RAW_PARAMS
    choices = (*config.optim.ema_half_lives, RAW_PARAMS)
    if not (isinstance(ema, str) and ema in choices):
        raise refuse("ema", ema, f"True, False, {', '.join(map(repr, choices))}")
    return ema


def restore_task(
    task: str,
    workdir: str | os.PathLike,
    config: Config | None,
    step: int | None,
    ema: bool | str,
) -> Trained:
    """Restores a run that must have a task; see `load_generator` and `load_classifier`."""
    folder = expanded(path_text("workdir", workdir), "workdir")
    step = None if step is None else whole_number("step", step)
    if config is not None:
        instance("config", config, Config, "a lensjax.config.Config, or None")
    config = files.load_config(folder) if config is None else config
    if config.task != task:
        raise ConfigError(
            "model.name",
            config.model.name,
            f"this network {_TASKS[config.task][0]}; allowed: the workdir of {_TASKS[task][1]}",
        )
    return restore(folder, config, step, ema, best=task == CLASSIFY)


def restore(
    folder: pathlib.Path,
    config: Config,
    step: int | None = None,
    ema: bool | str = True,
    *,
    best: bool = False,
) -> Trained:
    """Restores parameters of a run.

    Args:
      folder: its workdir.
      config: its configuration; fields that may differ on a resume may differ here.
      step: the checkpoint; None for the newest sound one.
      ema: see `lensjax.load`.
      best: whether to take the state with the lowest validation loss where `step` is None or the
        step of this state.

    Raises:
      RequestError: for an average that the run does not keep.
      ConfigError: if another field differs.
      lensjax.errors.WorkdirError: if the folder is not a run's.
      lensjax.errors.CheckpointError: if the checkpoint is missing or damaged.
    """
    files.check_same(folder, config)
    name = params_name(config, ema)
    dataset = files.read_dataset(folder)
    check_fits(folder / files.DATASET_FILE, dataset, config)
    expected = abstract_state(config, tuple(dataset["image_shape"]))
    state: TrainState | None = restore_best(folder, expected, step) if best else None
    if state is None:
        checkpoints = Checkpoints(folder / files.CHECKPOINTS, read_only=True)
        state = checkpoints.restore(expected, step)
        checkpoints.close()
    if state is None:
        raise WorkdirError(f"{folder} has no checkpoint yet; train first")
    params = sampling_params(state, name)
    if jax.process_count() > 1:  # each process may use them on its own
        params = jax.tree.map(to_host, params)
    return Trained(config, dataset, params, int(state.step), name, folder)
