"""Fields of a configuration: checks beside defaults, and reading nested values.

A section is a frozen dataclass whose fields come from `count`, `positive` and their like. Errors
are raised as `ConfigError`.
"""

import dataclasses
import difflib
import math
import re
import types
import typing
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypedDict, Unpack

from lensjax.errors import ConfigError


@dataclasses.dataclass(frozen=True)
class _Check:
    accepts: Callable[[Any], bool]
    allowed: str


class Facts(TypedDict, total=False):
    """Further facts of a field or a section, kept as metadata of its dataclass field.

    Attributes:
      resumable: whether it may differ when a run resumes; a change of any other field changes the
        meaning of the run.
      since: the version that brought a field whose default is how lensjax worked before, so that a
        run of an older version has that default. Without `since`, a run must have saved the field.
      before: with `since`, how lensjax worked before where that is not the default.
      only_for: the choices that read it, such as `{"path.name": ("vp",)}`; with any other choice it
        stays at its default.
      path: whether it holds the path of a file or folder, as its user writes it; whatever reads it
        passes it through `files.user_paths.expanded`.
    """

    resumable: bool
    since: str
    before: Any
    only_for: Mapping[str, tuple[str, ...]]
    path: bool


def plain(default: Any, **facts: Unpack[Facts]) -> Any:
    """Makes a field whose type is its only bound."""
    return dataclasses.field(default=default, metadata={**facts})


def make_field(
    default: Any, accepts: Callable[[Any], bool], allowed: str, **facts: Unpack[Facts]
) -> Any:
    """Makes a field with a check and a description of the allowed values."""
    metadata = {"check": _Check(accepts, f"allowed: {allowed}"), **facts}
    return dataclasses.field(default=default, metadata=metadata)


def section(kind: type, **facts: Unpack[Facts]) -> Any:
    """Makes the field that holds a whole section; its facts are those of every field in it."""
    return dataclasses.field(default=kind(), metadata={**facts})


# Bounds of numbers that have no closer ones; float32 has them all.
LEAST, MOST = 1e-30, 1e30
MOST_INTEGER = 2**31 - 1
MOST_LEVELS = 16  # elements of a tuple with one for each resolution of a network
MOST_IMAGES = 2**20  # at a time
MOST_SECONDS = 1e6  # of a wait: 11 days; the system's timers have limits


def count(
    default: int | None, least: int = 1, most: int = MOST_INTEGER, **facts: Unpack[Facts]
) -> Any:
    """Makes a field for an integer within bounds, by default those of int32."""
    allowed = f"an integer from {least} to {most}"
    return make_field(default, lambda n: least <= n <= most, allowed, **facts)


def positive(default: float, most: float = MOST, **facts: Unpack[Facts]) -> Any:
    """Makes a field for a number above 0, by default one that float32 has."""
    allowed = f"a number from {LEAST:g} to {most:g}"
    return make_field(default, lambda x: LEAST <= x <= most, allowed, **facts)


def counts(default: tuple[int, ...], most: int, such_as: str, **facts: Unpack[Facts]) -> Any:
    """Makes a field for a few integers from 1 to a bound; its default may be none."""

    def accepts(values: tuple[int, ...]) -> bool:
        at_least = 1 if default else 0
        return at_least <= len(values) <= MOST_LEVELS and all(1 <= n <= most for n in values)

    number = "" if default else " or none"
    allowed = f"at most {MOST_LEVELS} integers from 1 to {most}, such as {such_as}{number}"
    return make_field(default, accepts, allowed, **facts)


def factor(default: float | None, **facts: Unpack[Facts]) -> Any:
    """Makes a field for a number that images are multiplied by."""
    allowed = f"a number other than 0, of size {LEAST:g} to {MOST:g}" + ", or None" * (not default)
    return make_field(default, lambda x: LEAST <= abs(x) <= MOST, allowed, **facts)


def between(default: float, low: float, high: float, **facts: Unpack[Facts]) -> Any:
    """Makes a field for a number in [low, high]."""
    return make_field(default, lambda x: low <= x <= high, f"a number in [{low}, {high}]", **facts)


def below(default: float, low: float, high: float, **facts: Unpack[Facts]) -> Any:
    """Makes a field for a number in [low, high)."""
    return make_field(default, lambda x: low <= x < high, f"a number in [{low}, {high})", **facts)


def choice(default: str, choices: Iterable[str], **facts: Unpack[Facts]) -> Any:
    """Makes a field for one of a few words."""
    choices = tuple(choices)
    return make_field(default, lambda x: x in choices, ", ".join(choices), **facts)


def texts(described: str, **facts: Unpack[Facts]) -> Any:
    """Makes a field for a tuple of texts, none of them empty; `()` by default."""
    return make_field((), all, described, **facts)


def optional_path(kind: str, **facts: Unpack[Facts]) -> Any:
    """Makes a field for an optional path of something, such as a `folder`."""
    facts["path"] = True
    return make_field(None, bool, f"None, or the path of a {kind}", **facts)


def field_types(owner: type) -> dict[str, Any]:
    """The types of a section's fields by name."""
    return typing.get_type_hints(owner)


def optional_of(kind: Any) -> tuple[Any, bool]:
    """The type without None, and whether None is allowed."""
    if isinstance(kind, types.UnionType):
        (inner,) = (argument for argument in typing.get_args(kind) if argument is not type(None))
        return inner, True
    return kind, False


def _element_of(kind: Any) -> Any:
    """The type of the elements of `tuple[X, ...]`."""
    return typing.get_args(kind)[0]


def _describe(kind: Any) -> str:
    if typing.get_origin(kind) is tuple:
        element = _element_of(kind)
        if element is str:
            return "texts, such as ('VIS', 'NIR_Y')"
        return "integers, such as (48, 96)" if element is int else "numbers, such as (0.2, 0.8)"
    return {int: "an integer", float: "a number", bool: "True or False", str: "text"}[kind]


def _pieces(text: Any) -> list[Any]:
    return text.split(",") if isinstance(text, str) else [text]


def _converted(kind: Any, value: Any) -> Any:
    """Converts the value to the field's type; raises TypeError if that would change it."""
    if typing.get_origin(kind) is tuple:
        if not isinstance(value, (tuple, list)):
            raise TypeError
        if _element_of(kind) is str:  # the command line makes one text of VIS,NIR_Y, a number of 2
            value = [str(one) if type(one) is int else one for one in value]
            value = [_converted(str, piece) for text in value for piece in _pieces(text)]
            return tuple(piece.strip() for piece in value)
        return tuple(_converted(_element_of(kind), element) for element in value)
    if kind is float and isinstance(value, (int, float)) and not isinstance(value, bool):
        return float(value)
    if type(value) is not kind:
        raise TypeError
    return value


def _checked(field: dataclasses.Field, kind: Any, name: str, value: Any) -> Any:
    kind, optional = optional_of(kind)
    if value is None and optional:
        return None
    check: _Check | None = field.metadata.get("check")
    try:
        value = _converted(kind, value)
    except TypeError:
        allowed = check.allowed if check else f"allowed: {_describe(kind)}"
        raise ConfigError(name, value, allowed) from None
    elements = value if isinstance(value, tuple) else (value,)
    if any(isinstance(element, float) and not math.isfinite(element) for element in elements):
        raise ConfigError(name, value, check.allowed if check else "allowed: a finite number")
    if check and not check.accepts(value):
        raise ConfigError(name, value, check.allowed + _hint(value, check.allowed))
    return value


def _hint(value: object, allowed: str) -> str:
    words = allowed.removeprefix("allowed: ").split(", ")
    near = difflib.get_close_matches(str(value), words, n=1) if isinstance(value, str) else []
    return f" (did you mean {near[0]}?)" if near else ""


def _unknown(name: str, value: object, owner: type) -> ConfigError:
    names = [field.name for field in dataclasses.fields(owner)]
    near = difflib.get_close_matches(name.rpartition(".")[2], names, n=1)
    hint = f"did you mean {near[0]}? " if near else ""
    return ConfigError(name, value, f"there is no such field; {hint}allowed: {', '.join(names)}")


def read_section(owner: type, values: Any, prefix: str) -> Any:
    """Reads values into a section's dataclass.

    Args:
      owner: the dataclass.
      values: its values by name; sections are mappings.
      prefix: the section's path with a dot at its end, for messages.

    Raises:
      ConfigError: for an unknown or missing field, a wrong type or a value that is not allowed.
    """
    if not isinstance(values, Mapping):
        raise ConfigError(prefix.rstrip("."), values, "allowed: a section with fields")
    fields = {field.name: field for field in dataclasses.fields(owner)}
    for name in values:
        if name not in fields:
            raise _unknown(prefix + str(name), values[name], owner)
    arguments = {}
    for name, field in fields.items():
        if name not in values:
            raise ConfigError(
                prefix + name, "nothing", "the field is missing; see default_config()"
            )
        kind = field_types(owner)[name]
        if dataclasses.is_dataclass(kind):
            arguments[name] = read_section(typing.cast(type, kind), values[name], f"{name}.")
        else:
            arguments[name] = _checked(field, kind, prefix + name, values[name])
    return owner(**arguments)


def check_texts(root: type, overrides: Mapping[str, str]) -> None:
    """Checks command-line overrides before they are applied.

    ml_collections applies them; values that it would refuse raise `ConfigError` here.

    Args:
      root: the dataclass of the whole configuration.
      overrides: text values by full path, such as `{"train.batch_size": "32"}`.

    Raises:
      ConfigError: for a path that does not exist or a text that is not of the field's type.
    """
    for name, text in overrides.items():
        owner: Any = root
        *sections, leaf = name.split(".")
        for depth, segment in enumerate([*sections, leaf]):
            hints = field_types(owner)
            if segment not in hints:
                raise _unknown(".".join(name.split(".")[: depth + 1]), text, owner)
            kind, _ = optional_of(hints[segment])
            if segment is not leaf and not dataclasses.is_dataclass(kind):
                raise ConfigError(name, text, f"{segment} is a field and has no fields of its own")
            owner = kind
        if dataclasses.is_dataclass(owner):
            names = ", ".join(field.name for field in dataclasses.fields(owner))
            raise ConfigError(name, text, f"this is a section; set one of its fields: {names}")
        _check_text(owner, name, text)


def _elements(text: str) -> list[str]:
    """The elements in the text of a tuple; only brackets make an empty one."""
    inside = text.strip()
    if inside.startswith("(") and inside.endswith(")"):
        inside = inside[1:-1].strip()
        if not inside:
            return []
    return inside.removesuffix(",").split(",")


def _is_one_text(element: str) -> bool:
    """Whether an element of a tuple of texts is not empty, and has blanks only in quotes."""
    text = element.strip()
    quoted = len(text) > 2 and text[0] == text[-1] and text[0] in "'\""
    return quoted or (bool(text) and not re.search(r"[\s'\"()]", text))


def _check_text(kind: Any, name: str, text: str) -> None:
    elements, leaf = [text], kind
    if typing.get_origin(kind) is tuple:
        elements, leaf = _elements(text), _element_of(kind)
    if kind is bool:
        if text.lower() not in ("true", "false", "1", "0"):
            raise ConfigError(name, text, "allowed: True or False")
        return
    if kind is not str and leaf is str and not all(map(_is_one_text, elements)):
        raise ConfigError(name, text, f"allowed: {_describe(kind)}")
    number = {int: int, float: float, str: str}[leaf]
    try:
        for element in elements:
            number(element)
    except ValueError:
        raise ConfigError(name, text, f"allowed: {_describe(kind)}") from None
