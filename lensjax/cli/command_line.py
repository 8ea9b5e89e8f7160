"""Reads the command line and reports its errors in lensjax's own words.

absl and ml_collections parse the flags; their errors are of many kinds and some are tracebacks.
"""

import contextlib
import importlib
import io
import os
import pathlib
import select
import sys
import threading
import traceback
from collections.abc import Iterator
from typing import NoReturn

from absl import flags

from lensjax.errors import UserError, printable
from lensjax.files.user_paths import expanded

_REFUSED = 2
_HELP = frozenset({"help", "helpshort", "helpfull", "helpxml", "?"})


def _flags_of(arguments: list[str]) -> dict[str, str]:
    """The values of the `--name=value` and `--name value` arguments by name."""
    values = {}
    for place, argument in enumerate(arguments):
        if argument.startswith("-"):
            name, equals, value = argument.lstrip("-").partition("=")
            following = [text for text in arguments[place + 1 : place + 2] if text[:2] != "--"]
            values[name] = value if equals else "".join(following) or "True"
    return values


def _with_expanded_config(arguments: list[str]) -> list[str]:
    """The arguments with `~` and variables in `--config` replaced, which absl would not do."""
    result = list(arguments)
    for place, argument in enumerate(arguments):
        name, equals, value = argument.partition("=")
        if name.lstrip("-") != "config" or not name.startswith("-"):
            continue
        if not equals:  # the value is the next argument
            place, name, value = place + 1, "", "".join(arguments[place + 1 : place + 2])
        file, colon, parameter = value.partition(":")
        if file and not parameter.startswith("//"):
            try:
                path = os.fspath(expanded(file, "--config"))
            except UserError as error:
                fail(str(error))
            result[place] = f"{name}{equals}{path}{colon}{parameter}"
    return result


def _place_in(file: str, error: BaseException) -> tuple[str, BaseException]:
    """Where in a config file an error was raised, and that error without its wrapping."""
    inner: BaseException | None = error
    while inner is not None:
        for frame in reversed(traceback.extract_tb(inner.__traceback__)):
            if os.path.realpath(frame.filename) == os.path.realpath(file):
                return f", line {frame.lineno}, `{frame.line}`", inner
        inner = inner.__cause__ or inner.__context__
    return "", error


def _say_again(error: BaseException) -> str:
    """The message of a config file or of ml_collections as one short line."""
    text = (str(error.args[0]) if isinstance(error, KeyError) else str(error)) or repr(error)
    if "Traceback (most recent call last)" in text:  # absl puts one into its own message
        text = text.strip().splitlines()[-1]
    head, separator, tail = text.partition(" Other fields present:")
    hint = tail.rpartition("Did you mean")
    if separator:  # ml_collections repeats the whole section here
        text = head + (f" Did you mean{hint[2]}" if hint[1] else "")
    return " ".join(text.replace("\\n", " ").split())


def fail(message: str) -> NoReturn:
    """Ends the process with one message and no traceback."""
    print(f"lensjax: {printable(message)}", file=sys.stderr)
    sys.exit(_REFUSED)


def use_utf8() -> None:
    """Has names of files and all text in UTF-8, whatever the locale; this may start Python again.

    JAX and Orbax take names of files in UTF-8 alone.
    """
    if sys.getfilesystemencoding() != "utf-8":
        if os.environ.get("PYTHONUTF8") == "1":  # Python was told to ignore it
            fail("the locale has no UTF-8; set another one, such as LC_ALL=C.UTF-8")
        os.environ["PYTHONUTF8"] = "1"
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])
    if isinstance(sys.stdout, io.TextIOWrapper):  # PYTHONIOENCODING may have set another encoding
        sys.stdout.reconfigure(errors="backslashreplace")


def _import_jax() -> None:
    """Imports JAX, which reads its environment then; a setting that it refuses ends the process."""
    try:
        importlib.import_module("jax")
    except ValueError as error:
        fail(f"JAX refuses an environment variable: {error}")


@contextlib.contextmanager
def leaving() -> Iterator[None]:
    """Ends the process for certain, and without a traceback where nobody reads its output.

    A failed save leaves threads of Orbax that could keep the process alive.
    """
    try:
        yield
    except BrokenPipeError:
        if _output_is_closed():
            end_now(1)
        raise  # it was another pipe
    except SystemExit as end:
        # Threads of a failed save would complain about the end of Python, or keep it from ending.
        if isinstance(end.code, int) and end.code == _REFUSED and threading.active_count() > 1:
            end_now(end.code)
        raise
    except BaseException:
        traceback.print_exc()
        end_now(1)


def _output_is_closed() -> bool:
    """Whether the reader of this process's output has gone."""
    try:
        poll = select.poll()
        poll.register(sys.stdout.fileno(), 0)
        return any(event & select.POLLERR for _, event in poll.poll(0))
    except (OSError, ValueError):
        return True


def end_now(status: int) -> NoReturn:
    """Ends the process immediately, whatever else still runs in it."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(status)


def _show_help(arguments: list[str]) -> None:
    """Prints the help on flags and ends the process, if a user asks for it; imports nothing."""
    asked = [
        argument
        for argument in arguments
        if argument.startswith("-") and argument.lstrip("-").partition("=")[0] in _HELP
    ]
    if asked:
        try:
            flags.FLAGS([arguments[0], *asked])
        except SystemExit:  # absl's code is 1
            sys.exit(0)


def parse(arguments: list[str]) -> list[str]:
    """Parses the flags; an error ends the process with one message that names the field.

    Args:
      arguments: the command line with the program's name first.

    Returns:
      The arguments that are not flags, with the program's name first.
    """
    _show_help(arguments)
    _import_jax()
    from ml_collections import ConfigDict

    from lensjax.config import check_overrides

    arguments = _with_expanded_config(arguments)
    values = _flags_of(arguments[1:])
    file = values.get("config", "").partition(":")[0]
    if "config" in values and not pathlib.Path(file).is_file():
        fail(f"--config: got {file!r}; there is no such file")
    try:
        check_overrides(
            {
                name.removeprefix("config."): text
                for name, text in values.items()
                if name.startswith("config.")
            }
        )
        remaining = flags.FLAGS(arguments)
        config = flags.FLAGS["config"].value
        if "config" in values and config is None:
            fail(f"--config: {file}: get_config() returns None; allowed: a ConfigDict")
        if config is not None and not isinstance(config, ConfigDict):
            config.to_dict()  # a file that could not be loaded shows at its first use
        return remaining
    except UserError as error:
        fail(str(error))
    # A user can put right every error of a config file, and ml_collections adds its own errors.
    except BaseException as error:
        place, inner = _place_in(file, error)
        if not isinstance(error, Exception):
            if not place:  # our own end, or absl's after its help
                raise
            fail(f"--config: {file} ends the program; allowed: a get_config() that returns")
        own = isinstance(error, flags.Error) and not place  # absl's, and it names the flag
        fail(_say_again(inner) if own else f"--config: {file}{place}: {_say_again(inner)}")
