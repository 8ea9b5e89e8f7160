"""`lensjax.load`: a trained run, or a network that comes with lensjax, ready to be used."""

import os
from typing import Any

import numpy as np

from lensjax.arguments import path_text
from lensjax.config.model import CLASSIFY
from lensjax.errors import RequestError
from lensjax.files.user_paths import expanded
from lensjax.inference import pretrained
from lensjax.inference.classifier import LensClassifier, load_classifier
from lensjax.inference.generator import LensGenerator, load_generator
from lensjax.run import workdir as files


def load(workdir: str | os.PathLike, step: int | None = None, ema: bool | str = True) -> Any:
    """Loads a trained run; needs neither the data set nor TensorFlow.

    Args:
      workdir: the run's folder, or `pretrained/NAME` for a network that comes with lensjax.
      step: the checkpoint; None for the newest undamaged checkpoint, and for a classifier the
        checkpoint with the lowest validation loss.
      ema: the parameters to use: an average by its name (`main`, or a half-life of
        `optim.ema_more_half_lives_images` as text, such as `2000`), the raw ones (False or `raw`),
        or those of the run's `sample.ema` (True).

    Returns:
      A `LensGenerator` with `generate`, or a `LensClassifier` with `classify`, as the run has it;
      `load_generator` and `load_classifier` have precise return types.

    Raises:
      ConfigError: for the run of a masked autoencoder, which can do neither.
      RequestError: for an average that the run does not keep, a network that does not come with
        lensjax, or an argument of another type.
      lensjax.errors.WorkdirError: if the folder is not a run's.
      lensjax.errors.CheckpointError: if the checkpoint is missing or damaged.
    """
    text = path_text("workdir", workdir)
    folder = expanded(text, "workdir")
    ema = bool(ema) if isinstance(ema, np.bool_) else ema
    if text.startswith(pretrained.PREFIX) and not folder.exists():
        return _load_pretrained(text.removeprefix(pretrained.PREFIX), step, ema)
    config = files.load_config(folder)
    loader = load_classifier if config.task == CLASSIFY else load_generator
    return loader(folder, config, step, ema)


def _load_pretrained(
    name: str, step: int | None, ema: bool | str
) -> LensGenerator | LensClassifier:
    if step is not None or ema is not True:
        raise RequestError(
            f"pretrained/{name}: got step={step}, ema={ema!r}; allowed: step=None and ema=True, "
            "since it has only one set of weights"
        )
    trained, card = pretrained.load_trained(name)
    if trained.config.task == CLASSIFY:
        return LensClassifier(trained, card["temperature"])
    return LensGenerator(trained.config, trained.dataset, trained.params, trained.step, trained.ema)
