"""Starts a mode, with its devices, hosts and memory; each mode has its own file."""

import contextlib
import os
import pathlib
from collections.abc import Callable, Iterator

from absl import logging

from lensjax.cli import out_of_memory, rendezvous
from lensjax.cli.places import Places, check_paths, find_places
from lensjax.config import Config
from lensjax.devices import hosts
from lensjax.devices.compiled_programs import keep_programs
from lensjax.errors import ConfigError, FileError, UserError
from lensjax.files import disk
from lensjax.signals import begin_work

_FOR_SEVERAL_HOSTS = ("train", "sample", "evaluate")
_USING_DEVICES = (*_FOR_SEVERAL_HOSTS, "classify")

# What a mode does, and what a signal leaves of it; see `begin_work`.
_WORK = {
    "train": ("preparing the training", "earlier checkpoints are kept"),
    "sample": ("drawing images", "images are written when all are drawn"),
    "evaluate": ("evaluating", "results are written when all are measured; drawn images are kept"),
    "classify": ("classifying", "the table is written when all images are classified"),
    "export": ("exporting", "an earlier export stays until the new one is whole"),
    "build_data": ("building the data set", "a data set is kept when it is whole"),
}

_DETERMINISTIC_FLAG = "--xla_gpu_deterministic_ops=true"


@contextlib.contextmanager
def _system_errors_explained() -> Iterator[None]:
    """Turns system errors, such as a full disk, into errors that a user can fix.

    Raises:
      FileError: for an error of the system, in whatever form a library passes it on.
    """
    try:
        yield
    except (UserError, BrokenPipeError):
        raise
    except Exception as error:
        if not disk.is_refusal(error):
            raise
        name = error.filename if isinstance(error, OSError) else None
        reason = disk.reason_of(error, pathlib.Path(os.fsdecode(name) if name else "."))
        raise FileError(f"{name or 'a file'}: {reason}") from error


def _check_platform() -> None:
    """Raises `ConfigError` if JAX has none of the devices that it was told to use."""
    import jax

    platforms = os.environ.get("JAX_PLATFORMS")
    try:
        jax.devices()
    except (RuntimeError, AssertionError) as error:
        if platforms is None or jax.distributed.is_initialized():
            raise
        reason = str(error).partition("\n")[0][:200] or "JAX finds none of these"
        raise ConfigError(
            "JAX_PLATFORMS",
            platforms,
            f"allowed: devices of this machine, such as cpu ({reason})",
        ) from error


def run(
    mode: str,
    config: Config,
    workdir: pathlib.Path,
    images: pathlib.Path | None = None,
    output: pathlib.Path | None = None,
) -> int:
    """Runs a mode, one of `main.MODES`, with a checked configuration.

    Args:
      mode: its name.
      config: the configuration.
      workdir: the run's folder, or `pretrained/NAME` for a network that comes with lensjax.
      images: for `evaluate`, a file of images to judge; None for the run's images. For
        `classify`, a file or a folder.
      output: the folder for results; see `places.find_places`.

    Returns:
      The exit status: 0, or `signals.RUN_AGAIN` if a signal stopped the training.

    Raises:
      ConfigError: if several hosts are set for a mode that runs on one, and as `find_places`.
    """
    begin_work(*_WORK[mode])
    check_paths(mode, config)
    if config.train.deterministic:  # before the first use of a device
        os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {_DETERMINISTIC_FLAG}"
    several_hosts = rendezvous.find_address(config.parallel, os.environ) is not None
    if mode not in _FOR_SEVERAL_HOSTS and several_hosts:
        raise ConfigError(
            "parallel.hosts",
            config.parallel.hosts,
            f"allowed: one with --mode={mode}; several only for {', '.join(_FOR_SEVERAL_HOSTS)}",
        )
    if not several_hosts:  # a host with a kept program would not wait while others compile
        keep_programs()
    with (
        _system_errors_explained(),
        rendezvous.joined(config),
        out_of_memory.advising(mode, config),
    ):
        if mode in _USING_DEVICES:
            _check_platform()
            if not hosts.is_main():
                logging.set_verbosity(logging.WARNING)  # one process speaks for all
        places = find_places(mode, config, workdir, output)
        return _mode_function(mode, images)(places) or 0


def needs_workdir(mode: str, config: Config) -> bool:
    """Says whether a mode reads or writes the folder of a run."""
    if mode == "export":
        return config.export.folder is None or config.export.source == "generated"
    return mode != "build_data"


def _mode_function(mode: str, images: pathlib.Path | None) -> Callable[[Places], int | None]:
    """The function of a mode, imported only now to spare the other modes' imports."""
    if mode == "train":
        from lensjax.cli.train_mode import train_mode

        return lambda places: train_mode(places.config, places.workdir)
    if mode == "sample":
        from lensjax.cli.sample_mode import sample_mode

        return lambda places: sample_mode(*places)
    if mode == "evaluate":
        from lensjax.cli.evaluate_mode import evaluate_mode

        return lambda p: evaluate_mode(p.config, p.workdir, images, p.output)
    if mode == "classify":
        from lensjax.cli.classify_mode import classify_mode

        return lambda p: classify_mode(p.config, p.workdir, images, p.output)
    if mode == "export":
        from lensjax.cli.export_mode import export_mode

        return lambda places: export_mode(*places)
    from lensjax.cli.build_data_mode import build_data_mode

    return lambda places: build_data_mode(places.config)
