"""Starts a mode, with its devices, hosts and memory; each mode has its own file."""

import contextlib
import functools
import os
import pathlib
from collections.abc import Callable, Iterator

from absl import logging

from lensjax.cli import out_of_memory, rendezvous
from lensjax.config import Config
from lensjax.devices import hosts
from lensjax.devices.compiled_programs import keep_programs
from lensjax.errors import ConfigError, FileError, UserError
from lensjax.signals import begin_work

_FOR_SEVERAL_HOSTS = ("train", "sample", "evaluate")
_USING_DEVICES = (*_FOR_SEVERAL_HOSTS, "classify")

# What a mode does, and what a signal leaves of it; see `begin_work`.
_WORK = {
    "train": ("preparing the training", "earlier checkpoints are kept"),
    "sample": ("drawing images", "images are written when all are drawn"),
    "evaluate": ("evaluating", "results are written when all are measured; drawn images are kept"),
    "classify": ("classifying", "the table is written when all images are classified"),
    "export": ("exporting", "files that are whole are kept, and export.json says complete: false"),
    "build_data": ("building the data set", "a data set is kept when it is whole"),
}

_DETERMINISTIC_FLAG = "--xla_gpu_deterministic_ops=true"


@contextlib.contextmanager
def _system_errors_explained() -> Iterator[None]:
    """Turns system errors, such as a full disk, into errors that a user can fix.

    Raises:
      FileError: for an OSError that the system raised.
    """
    try:
        yield
    except (UserError, BrokenPipeError):
        raise
    except OSError as error:
        if error.errno is None:  # not raised by the system
            raise
        raise FileError(f"{error.filename or 'a file'}: {error.strerror}") from error


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
    mode: str, config: Config, workdir: pathlib.Path, images: pathlib.Path | None = None
) -> int:
    """Runs a mode, one of `main.MODES`, with a checked configuration.

    Args:
      mode: its name.
      config: the configuration.
      workdir: the run's folder.
      images: for `evaluate`, a file of images to judge; None for the run's images. For
        `classify`, a file or a folder.

    Returns:
      The exit status: 0, or `signals.RUN_AGAIN` if a signal stopped the training.

    Raises:
      ConfigError: if several hosts are set for a mode that runs on one.
    """
    begin_work(*_WORK[mode])
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
        return _mode_function(mode, images)(config, workdir) or 0


def needs_workdir(mode: str, config: Config) -> bool:
    """Says whether a mode reads or writes the folder of a run."""
    if mode == "export":
        return config.export.folder is None or config.export.source == "generated"
    return mode != "build_data"


def _mode_function(
    mode: str, images: pathlib.Path | None
) -> Callable[[Config, pathlib.Path], int | None]:
    """The function of a mode, imported only now to spare the other modes' imports."""
    if mode == "train":
        from lensjax.cli.train_mode import train_mode

        return train_mode
    if mode == "sample":
        from lensjax.cli.sample_mode import sample_mode

        return sample_mode
    if mode == "evaluate":
        from lensjax.cli.evaluate_mode import evaluate_mode

        return functools.partial(evaluate_mode, images=images)
    if mode == "classify":
        from lensjax.cli.classify_mode import classify_mode

        return functools.partial(classify_mode, images=images)
    if mode == "export":
        from lensjax.cli.export_mode import export_mode

        return export_mode
    from lensjax.cli.build_data_mode import build_data_mode

    return lambda config, workdir: build_data_mode(config)
