"""Where a command reads its network and where it writes: `--workdir` and `--output`."""

import os
import pathlib
from typing import NamedTuple

from absl import logging

from lensjax.config import Config
from lensjax.config.whole import facts_of_fields, value_of
from lensjax.errors import ConfigError
from lensjax.files.user_paths import PRETRAINED, expanded
from lensjax.run import workdir as files

# Modes that use a trained network or judge images, and write results.
WITH_OUTPUT = ("sample", "evaluate", "classify", "export")
_WITHOUT_DATA = ("sample", "classify")


class Places(NamedTuple):
    """The folders of a command.

    Attributes:
      config: the configuration with which the network is used.
      workdir: the folder with the network; never written to if it comes with lensjax.
      output: the folder for results.
    """

    config: Config
    workdir: pathlib.Path
    output: pathlib.Path


def check_paths(mode: str, config: Config) -> None:
    """Checks that the paths of a configuration can be expanded, before any work.

    Raises:
      ConfigError: for a path with a variable that is not set, an unknown home folder or an address.
    """
    for field, facts in facts_of_fields().items():
        value = value_of(config, field)
        unused = field.startswith("data.") and mode in _WITHOUT_DATA
        if facts.get("path") and value is not None and not unused:
            expanded(value, field)


def find_places(
    mode: str, config: Config, workdir: pathlib.Path, output: pathlib.Path | None
) -> Places:
    """Finds the folders of a command.

    Args:
      mode: its mode.
      config: its configuration.
      workdir: the run's folder, or `pretrained/NAME` for a network that comes with lensjax, unless
        there is a folder of this name.
      output: the folder for results; None for the workdir, and for `runs/NAME` where the network
        comes with lensjax.

    Raises:
      ConfigError: for a mode that cannot use such a network, an output that is the workdir of
        another run, or a configuration of another network.
      lensjax.errors.RequestError: for an unknown name.
    """
    text = os.fspath(workdir)
    if not text.startswith(PRETRAINED) or os.path.exists(workdir):
        if output is not None:
            _check_apart(output, workdir)
        return Places(config, workdir, output or workdir)
    if mode == "train":
        raise ConfigError(
            "--workdir",
            text,
            "networks that come with lensjax are not trained further, and a new run cannot have "
            f"such a name; allowed: another folder, such as runs/{workdir.name}",
        )
    if mode not in WITH_OUTPUT:
        return Places(config, workdir, workdir)
    from lensjax.inference import pretrained

    name = text.removeprefix(PRETRAINED)
    config = pretrained.with_settings(name, config)
    folder = pretrained.WEIGHTS_FOLDER / name
    output = output or pathlib.Path("runs", name)
    _check_apart(output, folder)
    logging.info("--workdir=%s comes with lensjax; results go to %s", text, output)
    return Places(config, folder, output)


def _check_apart(output: pathlib.Path, workdir: pathlib.Path) -> None:
    """Raises `ConfigError` for results that would lie in the workdir of another run."""
    if os.path.exists(output / files.CONFIG_FILE) and output.resolve() != workdir.resolve():
        raise ConfigError(
            "--output",
            str(output),
            "it is the workdir of a run, whose results would be replaced; allowed: another folder",
        )
