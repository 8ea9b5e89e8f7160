"""What each mode of the command line does."""

import functools
import os
import pathlib
from collections.abc import Callable

from absl import logging

from lensjax.cli import out_of_memory, rendezvous
from lensjax.config import Config
from lensjax.config.task import CLASSIFY, PRETRAIN
from lensjax.devices import hosts
from lensjax.devices.compiled_programs import keep_programs
from lensjax.devices.machine import describe_memory
from lensjax.errors import ConfigError, WorkdirError

_FOR_SEVERAL_HOSTS = ("train", "sample", "evaluate")
_COMPUTING = (*_FOR_SEVERAL_HOSTS, "classify")

_DETERMINISTIC_FLAG = "--xla_gpu_deterministic_ops=true"


def run(
    mode: str, config: Config, workdir: pathlib.Path, images: pathlib.Path | None = None
) -> int:
    """Runs a mode, one of `main.MODES`, with a checked configuration.

    Args:
      mode: which.
      config: the configuration.
      workdir: the run's folder.
      images: for `evaluate`, a file of images to judge; None for those of the run. For `classify`,
        a file or a folder.

    Returns:
      The exit status: 0, or `stopping.RUN_AGAIN` where a signal stopped a training.

    Raises:
      ConfigError: for parts of a data set in a mode that builds none, or several hosts in a mode
        for one.
    """
    if config.data.num_parts is not None and mode != "build_data":
        raise ConfigError(
            "data.num_parts",
            config.data.num_parts,
            f"allowed: None with --mode={mode}; --mode=build_data builds a data set in parts",
        )
    if config.train.deterministic:  # before the first use of a device
        os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {_DETERMINISTIC_FLAG}"
    several = rendezvous.find_address(config.parallel, os.environ) is not None
    if mode not in _FOR_SEVERAL_HOSTS and several:
        raise ConfigError(
            "parallel.hosts",
            config.parallel.hosts,
            f"allowed: one with --mode={mode}; several hosts can {', '.join(_FOR_SEVERAL_HOSTS)}",
        )
    if not several:  # a host that finds its program would not wait for those that compile theirs
        keep_programs()
    functions: dict[str, Callable[[Config, pathlib.Path], int | None]] = {
        "train": _train,
        "sample": _sample,
        "evaluate": functools.partial(_evaluate, images=images),
        "classify": functools.partial(_classify, images=images),
        "export": _export,
        "build_data": _build_data,
    }
    with (
        rendezvous.joined(config, preemptible=mode == "train"),
        out_of_memory.advising(mode, config),
    ):
        if mode in _COMPUTING:
            if not hosts.is_main():
                logging.set_verbosity(logging.WARNING)  # one process speaks for all
            _log_devices(config)
        return functions[mode](config, workdir) or 0


def needs_workdir(mode: str, config: Config) -> bool:
    """Says whether a mode reads or writes the folder of a run."""
    if mode == "export":
        return config.export.folder is None or config.export.source == "generated"
    return mode != "build_data"


def _log_devices(config: Config) -> None:
    import jax

    device = jax.devices()[0]
    logging.info(
        "%d %s devices (%s) on %d host(s), %s | parameters float32, computed in %s",
        jax.device_count(),
        device.platform,
        device.device_kind,
        jax.process_count(),
        describe_memory(),
        config.model.dtype,
    )


def _log_strategy(config: Config) -> None:
    import jax

    from lensjax.devices.mesh import mesh_shape

    exact = jax.default_backend() == "cpu" or config.train.deterministic
    logging.info(
        "parallel.strategy=%s over %d x %d devices (data, shard); a resumed run is %s",
        config.parallel.strategy,
        *mesh_shape(config.parallel.num_devices, config.parallel.mesh),
        "bit-identical" if exact else "equal to rounding (train.deterministic=True makes it exact)",
    )


def _build_data(config: Config, workdir: pathlib.Path) -> None:
    from lensjax.cli import data_report
    from lensjax.run import datasets

    prepared = (
        datasets.prepare_in_parts(config.data)
        if config.data.num_parts
        else datasets.prepare(config.data)
    )
    if prepared is None:  # the log says which parts are missing
        return
    text, sheet = data_report.show(prepared)
    print(f"{text}\ncontact sheet: {sheet}", flush=True)


def _train(config: Config, workdir: pathlib.Path) -> int:
    from lensjax.run import datasets
    from lensjax.run import workdir as files
    from lensjax.run.learning import build_mesh
    from lensjax.training.loop import train
    from lensjax.training.stopping import RUN_AGAIN, StopRequest

    build_mesh(config)  # refuses what the devices cannot do before anything is written
    _log_strategy(config)
    _check_apart(workdir, config)
    files.check_free(workdir, config)  # before a build that may take minutes
    prepared = datasets.prepare(config.data)
    stop = StopRequest()
    splits = prepared.open_split("train"), prepared.open_split("test")
    state = train(config, workdir, *splits, stop=stop)
    unfinished = stop.signal_name is not None and int(state.step) < config.train.num_steps
    return RUN_AGAIN if unfinished else 0


def _check_apart(workdir: pathlib.Path, config: Config) -> None:
    """Raises `WorkdirError` for a workdir among the user's files, which it would join."""
    folder = config.data.folder
    if folder and workdir.resolve().is_relative_to(pathlib.Path(folder).expanduser().resolve()):
        raise WorkdirError(
            f"--workdir={workdir} lies in data.folder={folder}; the images of the run would join "
            "the data. Take a folder outside"
        )


def _sample(config: Config, workdir: pathlib.Path) -> None:
    from lensjax.cli.sample_mode import sample_mode

    sample_mode(config, workdir)


def _evaluate(config: Config, workdir: pathlib.Path, images: pathlib.Path | None) -> None:
    if config.task == CLASSIFY and images is None:
        from lensjax.evaluation.evaluate_classifier import evaluate_classifier

        evaluate_classifier(config, workdir)
        return
    if config.task == PRETRAIN and images is None:
        raise ConfigError(
            "model.name",
            config.model.name,
            "--mode=evaluate has nothing to score in an autoencoder; allowed: the workdir of a "
            "generator or a classifier, such as a vit with classify.start_from",
        )
    from lensjax.evaluation.evaluate_generator import evaluate_mode

    evaluate_mode(config, workdir, images)


def _classify(config: Config, workdir: pathlib.Path, images: pathlib.Path | None) -> None:
    from lensjax.cli.classify_mode import classify_mode

    if images is None:
        raise ConfigError(
            "--images", None, "allowed: a file or a folder of images for --mode=classify"
        )
    classify_mode(config, workdir, images)


def _export(config: Config, workdir: pathlib.Path) -> None:
    from lensjax.cli.export_mode import export_mode

    export_mode(config, workdir)
