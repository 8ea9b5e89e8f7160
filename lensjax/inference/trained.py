"""The common content of everything loaded from a run: configuration, data set, parameters."""

import dataclasses
import pathlib
from typing import Any

import jax
import numpy as np

from lensjax.arguments import refuse
from lensjax.config import Config
from lensjax.config.diffusion import RAW_PARAMS
from lensjax.data.scaling import Scaling
from lensjax.devices.mesh import to_host
from lensjax.errors import WorkdirError
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
      temperature: that of a classifier without a workdir; None for any other network.
    """

    config: Config
    dataset: dict[str, Any]
    params: Any
    step: int
    ema: str
    folder: pathlib.Path | None
    temperature: float | None = None

    @property
    def scaling(self) -> Scaling:
        """The map between flux and the model's range."""
        return Scaling(**self.dataset["scaling"])


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
    config = files.checked_same(folder, config)
    name = params_name(config, ema)
    dataset = files.read_dataset(folder)
    check_fits(folder / files.DATASET_FILE, dataset, config)
    expected = abstract_state(config, tuple(dataset["image_shape"]))
    run_id = files.run_id_of(folder)
    state: TrainState | None = restore_best(folder, expected, step, run_id) if best else None
    if state is None:
        checkpoints = Checkpoints(folder / files.CHECKPOINTS, read_only=True, run_id=run_id)
        state = checkpoints.restore(expected, step)
        checkpoints.close()
    if state is None:
        raise WorkdirError(f"{folder} has no checkpoint yet; train first")
    params = sampling_params(state, name)
    if jax.process_count() > 1:  # each process may use them on its own
        params = jax.tree.map(to_host, params)
    return Trained(config, dataset, params, int(state.step), name, folder)
