"""Trains networks that generate gravitational-lens images, samples from them, and scores them.

python -m lensjax.main --config=configs/NAME.py --workdir=DIR [--mode=MODE]
    [--config.section.field=value ...]
"""

import os
import pathlib
import sys
import traceback
from typing import NoReturn

from absl import app, flags, logging
from ml_collections import ConfigDict, config_flags

MODES = ("train", "sample", "evaluate", "build_data")

_CONFIG = config_flags.DEFINE_config_file("config", None, "A file of configs/.")
_WORKDIR = flags.DEFINE_string(
    "workdir", None, "Folder of the run: checkpoints, metrics, samples. Not needed by build_data."
)
_MODE = flags.DEFINE_enum(
    "mode",
    "train",
    MODES,
    "train: trains, or goes on where the run in the workdir stopped; builds a missing simulated "
    "data set first. sample: draws images from the newest checkpoint. evaluate: scores drawn "
    "images beside real ones. build_data: builds the data set alone.",
)


def _flags_of(arguments: list[str]) -> dict[str, str]:
    """Returns the values of the `--name=value` and `--name value` arguments by name."""
    found = {}
    for place, argument in enumerate(arguments):
        if argument.startswith("-"):
            name, equals, value = argument.lstrip("-").partition("=")
            following = [one for one in arguments[place + 1 : place + 2] if one[:2] != "--"]
            found[name] = value if equals else "".join(following) or "True"
    return found


def _place_in(file: str, error: BaseException) -> tuple[str, BaseException]:
    """Returns where in a config file an error was raised, and that error without its wrapping."""
    inner: BaseException | None = error
    while inner is not None:
        for frame in reversed(traceback.extract_tb(inner.__traceback__)):
            if os.path.realpath(frame.filename) == os.path.realpath(file):
                return f", line {frame.lineno}, `{frame.line}`", inner
        inner = inner.__cause__ or inner.__context__
    return "", error


def _say_again(error: BaseException) -> str:
    """Returns the message of a config file or of ml_collections as one short line."""
    text = (str(error.args[0]) if isinstance(error, KeyError) else str(error)) or repr(error)
    head, others, tail = text.partition(" Other fields present:")
    hint = tail.rpartition("Did you mean")
    if others:  # ml_collections repeats the whole section here
        text = head + (f" Did you mean{hint[2]}" if hint[1] else "")
    return " ".join(text.replace("\\n", " ").split())


def _fail(message: str) -> NoReturn:
    print(f"lensjax: {message}", file=sys.stderr)
    sys.exit(2)


def _parse_flags(arguments: list[str]) -> list[str]:
    from lensjax.config import ConfigError, check_overrides

    given = _flags_of(arguments[1:])
    file = given.get("config", "").partition(":")[0]
    if "config" in given and not pathlib.Path(file).is_file():
        _fail(f"--config: got {file!r}; there is no such file")
    try:
        check_overrides(
            {
                name.removeprefix("config."): text
                for name, text in given.items()
                if name.startswith("config.")
            }
        )
        remaining = flags.FLAGS(arguments)
        if _CONFIG.value is not None and not isinstance(_CONFIG.value, ConfigDict):
            _CONFIG.value.to_dict()  # a file that could not be loaded shows at its first use
        return remaining
    except ConfigError as error:
        _fail(str(error))
    # Whatever a config file may raise is the user's to put right, and ml_collections adds its own.
    except Exception as error:
        place, inner = _place_in(file, error)
        own = isinstance(error, flags.Error) and not place  # absl's, and it names the flag
        _fail(_say_again(inner) if own else f"--config: {file}{place}: {_say_again(inner)}")


def _set_up_logging() -> None:
    """Shows lensjax's own lines; Orbax alone would write dozens for each checkpoint."""
    import logging as std_logging

    logging.use_absl_handler()
    handler = logging.get_absl_handler()
    handler.setFormatter(std_logging.Formatter("%(asctime)s %(message)s", "%H:%M:%S"))
    package = os.path.dirname(os.path.abspath(__file__)) + os.sep
    handler.addFilter(
        lambda record: record.pathname.startswith(package) or record.levelno >= std_logging.ERROR
    )
    logging.set_verbosity(logging.INFO)


def main(arguments: list[str]) -> None:
    """Runs one mode; what a user can put right ends with one message and no traceback."""
    from lensjax import modes
    from lensjax.config import from_config_dict

    if len(arguments) > 1:
        _fail(
            f"unexpected argument {arguments[1]!r}; fields are set by --config.section.field=value"
        )
    if _CONFIG.value is None:
        _fail("--config is missing; for example --config=configs/smoke.py")
    if _WORKDIR.value is None and _MODE.value != "build_data":
        _fail(f"--workdir is missing; --mode={_MODE.value} needs the folder of the run")
    _set_up_logging()
    try:
        config = from_config_dict(_CONFIG.value)
        modes.run(_MODE.value, config, pathlib.Path(_WORKDIR.value or "."))
    except modes.USER_ERRORS as error:
        _fail(str(error))


if __name__ == "__main__":
    app.run(main, flags_parser=_parse_flags)
