"""Paths as users write them."""

import os
import pathlib

from lensjax.errors import ConfigError


def expanded(path: str | os.PathLike[str], field: str) -> pathlib.Path:
    """A path with `~` and `~name` replaced by home folders.

    Args:
      path: as the user wrote it.
      field: that holds the path, for messages, such as `--workdir` or `data.directory`.

    Raises:
      ConfigError: for the home folder of an unknown user, or an address such as `gs://bucket/run`.
    """
    text = os.fspath(path)
    if "://" in text:
        raise ConfigError(field, text, "allowed: a path on a disk of this machine")
    try:
        return pathlib.Path(text).expanduser()
    except RuntimeError as error:  # no such user, or no home at all
        raise ConfigError(field, text, f"allowed: a path that exists here ({error})") from None
