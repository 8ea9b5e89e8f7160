"""Reads JSON files that may be damaged or hostile, and checks their fields against tables."""

import codecs
import json
import pathlib
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from lensjax.errors import UnusableError, printable, shown

MAX_BYTES = 2**26  # what lensjax writes takes a few megabytes at most
_MAX_DEPTH = 32
_FLOAT32_MAX, _FLOAT32_TINY = 3.4e38, 1.2e-38  # normal numbers, as networks compute with them


def parse(content: bytes) -> dict[str, Any]:
    """The JSON object in some bytes.

    NaN and infinity are taken as Python's `json` writes them; rules of fields refuse them by name.

    Raises:
      UnusableError: for anything else, also for JSON with the same name twice or deep nesting.
    """
    try:
        value = json.loads(
            content.removeprefix(codecs.BOM_UTF8).decode(),
            object_pairs_hook=_without_repetition,
            parse_int=_integer,
        )
    except UnicodeDecodeError as error:
        raise UnusableError(f"is not in UTF-8 (byte {error.start})") from None
    except json.JSONDecodeError as error:
        words = "is empty" if not content.strip() else f"is no JSON ({error})"
        raise UnusableError(words) from None
    except RecursionError:
        raise UnusableError("is nested too deeply") from None
    if not isinstance(value, dict):
        raise UnusableError("holds no JSON object")
    level: list[Any] = [value]
    for _ in range(_MAX_DEPTH):
        level = [child for parent in level for child in _children(parent)]
    if level:
        raise UnusableError("is nested too deeply")
    return value


def _children(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return list(value.values())
    return value if isinstance(value, list) else []


def _without_repetition(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        names = [name for name, _ in pairs]
        repeated = next(name for name in names if names.count(name) > 1)
        raise UnusableError(f"has {shown(repeated)} twice")
    return values


def _integer(text: str) -> int | float:
    """An integer; Python would refuse 4,301 digits, and no field has more than 19."""
    return int(text) if len(text) < 20 else float(text)


def read_bytes(path: pathlib.Path, most: int = MAX_BYTES) -> bytes:
    """The content of a file of at most `most` bytes.

    Raises:
      FileNotFoundError: if there is nothing.
      UnusableError: for a folder, a pipe, a longer file, or one that cannot be read.
    """
    try:
        size = path.stat().st_size
        if not path.is_file():  # reading a pipe would wait for ever
            raise UnusableError("is not a file")
        if size > most:
            raise UnusableError(f"has {size:,} bytes; allowed: at most {most:,}")
        with path.open("rb") as stream:
            return stream.read(most)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise UnusableError(f"cannot be read: {error.strerror}") from None


def read_object(path: pathlib.Path) -> dict[str, Any]:
    """The JSON object in a file; errors as for `read_bytes` and `parse`."""
    return parse(read_bytes(path))


class Rule(NamedTuple):
    """What a field of a JSON object may be.

    Attributes:
      accepts: whether a value is allowed.
      allowed: the allowed values in words.
      optional: whether the field may be missing.
      default: its value then.
    """

    accepts: Callable[[Any], bool]
    allowed: str
    optional: bool = False
    default: Any = None

    def or_missing(self, default: Any = None) -> "Rule":
        """The same rule for a field that may be missing."""
        return self._replace(optional=True, default=default)

    def or_null(self) -> "Rule":
        """The same rule for a field that may be missing or null."""
        accepts = self.accepts
        return Rule(lambda value: value is None or accepts(value), f"{self.allowed}, or null", True)

    def several(self, *lengths: int) -> "Rule":
        """A rule for a list of such values; of one of these lengths, if any are given."""
        accepts = self.accepts
        many = f"{' or '.join(map(str, lengths))} entries" if lengths else "any number of entries"
        return Rule(
            lambda value: (
                isinstance(value, list)
                and (not lengths or len(value) in lengths)
                and all(map(accepts, value))
            ),
            f"a list of {many}, each {self.allowed}",
        )

    def by_name(self) -> "Rule":
        """A rule for an object with any names and such values."""
        accepts = self.accepts
        return Rule(
            lambda value: isinstance(value, dict) and all(map(accepts, value.values())),
            f"an object, each field {self.allowed}",
        )


def is_number(value: Any) -> bool:
    """Whether a value is a number that float32 holds."""
    return type(value) in (int, float) and abs(value) <= _FLOAT32_MAX


def number(least: float, most: float) -> Rule:
    """A rule for a number within bounds."""
    return Rule(
        lambda value: type(value) in (int, float) and least <= value <= most,
        f"a number from {least:g} to {most:g}",
    )


def whole(least: int, most: int) -> Rule:
    """A rule for an integer within bounds."""
    return Rule(
        lambda value: type(value) is int and least <= value <= most,
        f"an integer from {least:,} to {most:,}",
    )


def _text(longest: int) -> Rule:
    return Rule(
        lambda value: isinstance(value, str) and len(value) <= longest,
        f"text of at most {longest:,} letters",
    )


TEXT = _text(1000)
LONG_TEXT = _text(100_000)
NAME = Rule(lambda value: TEXT.accepts(value) and value != "", f"{TEXT.allowed}, not empty")
NUMBER = Rule(is_number, "a finite number in float32")
POSITIVE = Rule(
    lambda value: is_number(value) and value >= _FLOAT32_TINY, "a finite number above 0 in float32"
)
YES_OR_NO = Rule(lambda value: isinstance(value, bool), "true or false")
OBJECT = Rule(lambda value: isinstance(value, dict), "an object with fields")


def checked(content: Mapping[str, Any], rules: Mapping[str, Rule], prefix: str = "") -> dict:
    """The content with the defaults of fields that it lacks.

    Fields without a rule are kept: a newer version may have written them.

    Args:
      content: a JSON object.
      rules: what each field may be.
      prefix: stands before the names in messages.

    Raises:
      UnusableError: for the first field that is missing or not allowed.
    """
    result = dict(content)
    for name, rule in rules.items():
        if name not in content and rule.optional:
            result[name] = rule.default
        elif name not in content or not rule.accepts(content[name]):
            got = shown(content[name]) if name in content else "missing"
            raise UnusableError(f"{prefix}{printable(name)} is {got}; allowed: {rule.allowed}")
    return result
