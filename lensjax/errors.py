"""Errors that a user can put right: one family of exceptions, shown without a traceback.

`lensjax.main` catches `UserError` alone and prints it in one line. Each is a ValueError, a
RuntimeError or an OSError too, for callers who do not know lensjax.
"""

import os


def printable(text: str, keep: str = "\n\t") -> str:
    """Text that a terminal only shows: names of files may hold characters that control it.

    Args:
      text: any text.
      keep: characters that stay though they are not printable; all others become escapes.
    """
    return "".join(
        letter if letter.isprintable() or letter in keep else ascii(letter)[1:-1] for letter in text
    )


def printable_name(path: str | os.PathLike[str]) -> str:
    """A file's name in one line of text; names on disk are bytes, which may be no UTF-8."""
    return printable(os.fsencode(path).decode(errors="backslashreplace"), keep="")


def shown(value: object, longest: int = 300) -> str:
    """A value in one short line of a message; no value is too large or too strange for it.

    Args:
      value: anything that a user or a file gave.
      longest: letters after which the text is cut.
    """
    try:
        text = repr(value)
    except Exception:  # of any object; Python refuses to write integers of 4,301 digits
        text = f"a value of type {type(value).__name__} that cannot be shown"
    if "\n" in text:  # of an array
        text = " ".join(text.split())
    text = printable(text, keep="")
    return text if len(text) <= longest else f"{text[:longest]}... ({len(text):,} letters)"


class UserError(Exception):
    """An error that a user can put right; its text says what was got and what is allowed."""


class ConfigError(UserError, ValueError):
    """A configuration that cannot run.

    Args:
      field: full path, such as `train.batch_size`, or a flag, such as `--workdir`.
      got: its value.
      allowed: what it may be.
    """

    def __init__(self, field: str, got: object, allowed: str) -> None:
        super().__init__(f"{field}: got {shown(got)}; {allowed}")
        self._arguments = field, got, allowed

    def within(self, path: str | os.PathLike[str]) -> "ConfigError":
        """The same error of a configuration that stands in a file."""
        field, got, allowed = self._arguments
        return type(self)(f"{printable_name(path)}: {field}", got, allowed)

    def __reduce__(self) -> tuple[type, tuple[str, object, str]]:
        """Lets the error travel between processes."""
        return type(self), self._arguments


class DataError(UserError, ValueError):
    """A data set that does not exist, does not fit, or is not what it claims to be."""


class BadFileError(DataError):
    """A file that cannot be used.

    Args:
      path: the file.
      reason: what is wrong with it, and what would be right.
    """

    def __init__(self, path: str | os.PathLike[str], reason: str) -> None:
        super().__init__(f"{printable_name(path)}: {reason}")
        self.path = path
        self.reason = reason

    def __reduce__(self) -> tuple[type, tuple[str | os.PathLike[str], str]]:
        """Lets the error travel between processes."""
        return type(self), (self.path, self.reason)


class UnusableError(UserError, ValueError):
    """The reason why a file cannot be used; the code that opened the file adds its name."""


class AmbiguousError(UnusableError):
    """A file that can be read in more than one way, of which the user has to choose one.

    Args:
      reason: what is in the file, and which field decides.
      planes: descriptions of all planes, if the question is which of them are images.
      names: of those that could be images, as the field takes them.
    """

    def __init__(
        self, reason: str, planes: tuple[str, ...] = (), names: tuple[str, ...] = ()
    ) -> None:
        super().__init__(reason)
        self.planes = planes
        self.names = names

    def __reduce__(self) -> tuple[type, tuple]:
        """Lets the error travel between processes."""
        return type(self), (str(self), self.planes, self.names)


class AmbiguousFileError(BadFileError):
    """An `AmbiguousError` with the name of the file.

    Args:
      path: the file.
      reason: see `AmbiguousError`.
      planes: see `AmbiguousError`.
      names: see `AmbiguousError`.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        reason: str,
        planes: tuple[str, ...],
        names: tuple[str, ...],
    ) -> None:
        super().__init__(path, reason)
        self.planes = planes
        self.names = names

    def __reduce__(self) -> tuple[type, tuple]:
        """Lets the error travel between processes."""
        return type(self), (self.path, self.reason, self.planes, self.names)


class FileError(UserError, OSError):
    """A file or folder that cannot be read or written."""


class WeightsError(UserError, ValueError):
    """A file of weights that cannot be used; the text names it."""


class RequestError(UserError, ValueError):
    """A request that a trained run cannot serve."""


class TimeGridError(UserError, ValueError):
    """Times that no sampler can follow."""


class MeasureError(UserError, ValueError):
    """Images or numbers that a measure cannot take, or a setting of it that is not allowed."""


class BaselineError(UserError, ValueError):
    """A baseline that does not exist, or that these images cannot have."""


class CorruptionError(UserError, ValueError):
    """A corruption that does not exist, or that these images cannot have."""


class WorkdirError(UserError, RuntimeError):
    """A workdir that lacks something, or belongs to another run."""


class CheckpointError(UserError, RuntimeError):
    """A checkpoint that is missing, damaged, or belongs to another configuration."""


class TrainingError(UserError, RuntimeError):
    """A training that cannot go on."""


class HostError(UserError, RuntimeError):
    """Processes that cannot find each other or do not go together."""


class OutOfMemoryError(UserError, RuntimeError):
    """Arrays that do not fit into the memory of a device or a host."""
