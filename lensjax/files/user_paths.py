"""Paths as users write them."""

import os
import pathlib
import re

from lensjax.errors import ConfigError

# How the path of a network begins that comes with lensjax.
PRETRAINED = "pretrained/"
_VARIABLE = re.compile(r"\$(?:([A-Za-z_]\w*)|\{([^}]+)\})", re.ASCII)


def _with_variables(text: str, field: str) -> str:
    """A text with `$NAME` and `${NAME}` replaced by variables of the environment."""

    def value(match: re.Match[str]) -> str:
        name = match[1] or match[2]
        if not os.environ.get(name):
            state = "empty" if name in os.environ else "not set"
            raise ConfigError(
                field,
                text,
                f"the environment variable {name} is {state}; allowed: variables that are set, or "
                "a path that exists as it is written",
            )
        return os.environ[name]

    return _VARIABLE.sub(value, text)


def expanded(path: str | os.PathLike[str], field: str) -> pathlib.Path:
    """A path with `~` and `~name` replaced by home folders, `$NAME` and `${NAME}` by variables.

    A path that exists as it is written is taken so, whatever `$` it has.

    Args:
      path: as the user wrote it.
      field: that holds the path, for messages, such as `--workdir` or `data.directory`.

    Raises:
      ConfigError: for a variable that is not set or empty, the home folder of an unknown user, or
        an address such as `gs://bucket/run`.
    """
    text = os.fspath(path)
    if "$" in text and not os.path.lexists(os.path.expanduser(text)):
        text = _with_variables(text, field)
    if "://" in text:
        raise ConfigError(field, text, "allowed: a path on a disk of this machine")
    try:
        return pathlib.Path(text).expanduser()
    except RuntimeError as error:  # no such user, or no home at all
        raise ConfigError(field, text, f"allowed: a path that exists here ({error})") from None


def is_same_path(first: object, second: object) -> bool:
    """Whether two values are texts of users for one path on this machine."""
    if not (isinstance(first, str) and isinstance(second, str)):
        return False
    try:
        places = {os.path.abspath(expanded(text, "")) for text in (first, second)}
    except ConfigError:  # a variable that is not set here
        return False
    return len(places) == 1
