"""Restores a network for a task, from a run's checkpoints or from those that come with lensjax."""

import dataclasses
import os

from lensjax.arguments import instance, path_text, whole_number
from lensjax.config import Config
from lensjax.config.model import CLASSIFY, GENERATE, PRETRAIN
from lensjax.errors import ConfigError, RequestError
from lensjax.files.user_paths import expanded
from lensjax.inference import pretrained
from lensjax.inference.trained import Trained, params_name, restore
from lensjax.run import workdir as files

_TASKS = {  # for errors: what a network of each task does, and which networks do it
    GENERATE: ("generates images", "a generator (dit, unet)"),
    CLASSIFY: (
        "is a classifier",
        "a classifier (cnn, rescnn, resnet18, vit), such as one of configs/classifier_rescnn.py",
    ),
    PRETRAIN: ("is an autoencoder", ""),
}


def restore_task(
    task: str,
    workdir: str | os.PathLike,
    config: Config | None,
    step: int | None,
    ema: bool | str,
) -> Trained:
    """Restores a network that must have a task; see `load_generator` and `load_classifier`.

    The folder is a run's, or has the form of those that come with lensjax.
    """
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
    if not pretrained.is_packed(folder):
        return restore(folder, config, step, ema, best=task == CLASSIFY)
    config = files.checked_same(folder, config)
    trained, card = pretrained.load_trained(folder.name, folder.parent)
    name = params_name(config, ema)
    if step is not None or name != trained.ema:
        raise RequestError(
            f"{pretrained.PREFIX}{folder.name}: got step={step}, ema={name}; allowed: its only "
            f"weights, step=None and ema={trained.ema} (sample.ema)"
        )
    return dataclasses.replace(trained, config=config, temperature=card.get("temperature"))
