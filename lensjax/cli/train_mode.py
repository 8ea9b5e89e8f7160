"""`--mode=train`: trains, or goes on where the run in the workdir stopped."""

import pathlib

import jax
from absl import logging

from lensjax.config import Config
from lensjax.devices.machine import describe_memory
from lensjax.errors import WorkdirError
from lensjax.files.user_paths import expanded
from lensjax.run import datasets
from lensjax.run import workdir as files
from lensjax.run.learning import build_mesh
from lensjax.signals import RUN_AGAIN, begin_work
from lensjax.training.loop import train
from lensjax.training.stopping import StopRequest


def _log_devices(config: Config, mesh: jax.sharding.Mesh, workdir: pathlib.Path) -> None:
    earlier_steps = files.saved_num_steps(workdir)
    exact = jax.default_backend() == "cpu" or config.train.deterministic
    logging.info(
        "%d x %d %s devices (data, shard) with parallel.strategy=%s on %d host(s), %s | "
        "computation in %s%s",
        *mesh.devices.shape,
        jax.devices()[0].device_kind,
        config.parallel.strategy,
        jax.process_count(),
        describe_memory(),
        config.model.dtype,
        ""  # with other steps `training.extension` says what the result is
        if earlier_steps not in (None, config.train.num_steps)
        else ", a resumed run is bit-identical"
        if exact
        else ", a resumed run is equal up to rounding (exact with train.deterministic=True)",
    )


def _check_apart(workdir: pathlib.Path, config: Config) -> None:
    """Raises `WorkdirError` for a workdir among the user's files, which it would join."""
    folder = config.data.folder
    if folder and workdir.resolve().is_relative_to(expanded(folder, "data.folder").resolve()):
        raise WorkdirError(
            f"--workdir={workdir} is inside data.folder={folder}; images that the run writes would "
            "become part of the data. Choose a folder outside it"
        )


def train_mode(config: Config, workdir: pathlib.Path) -> int:
    """Builds a missing data set and trains on it.

    Returns:
      The exit status: 0, or `signals.RUN_AGAIN` where a signal stopped the training.

    Raises:
      UserError: for data, a workdir or devices that do not fit; see `training.loop.train`.
    """
    mesh = build_mesh(config)  # refuses unsuitable devices before anything is written
    _log_devices(config, mesh, workdir)
    _check_apart(workdir, config)
    files.check_free(workdir, config)  # before a build that may take minutes
    begin_work("preparing the data set", "a data set is kept when it is whole")
    prepared = datasets.prepare(config.data)
    begin_work("preparing the training", "earlier checkpoints are kept")
    for warning in (prepared.report or {}).get("warnings", ()):
        logging.warning("data.folder: %s", warning)
    stop = StopRequest()
    splits = prepared.open_split("train"), prepared.open_split("test")
    state = train(config, workdir, *splits, mesh=mesh, stop=stop)
    unfinished = stop.signal_name is not None and int(state.step) < config.train.num_steps
    return RUN_AGAIN if unfinished else 0
