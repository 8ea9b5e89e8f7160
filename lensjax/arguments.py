"""Checks of what a caller from Python passes: each error names the argument and what it may be.

Numbers of Python, numpy and JAX count alike, also as arrays without axes. Nothing here may be
called with traced values.
"""

import math
import operator
import os
from collections.abc import Iterable
from typing import Any, TypeVar

import numpy as np

from lensjax.errors import RequestError, UserError, shown

_MAX_INT32 = 2**31 - 1
_FEW = 10  # numbers that fit into a message
Kind = TypeVar("Kind")


def refuse(
    name: str, got: object, allowed: str, error: type[UserError] = RequestError
) -> UserError:
    """The error of an argument: its name, its value, and what it may be."""
    return error(f"{name}: got {shown(got)}; allowed: {allowed}")


def _is_truth(value: Any) -> bool:
    return isinstance(value, (bool, np.bool_)) or getattr(value, "dtype", None) == np.bool_


def whole_number(
    name: str,
    value: Any,
    at_least: int = 0,
    at_most: int | None = None,
    *,
    error: type[UserError] = RequestError,
) -> int:
    """An integer as Python's `int`; True, 2.0 and "2" are none.

    Args:
      name: of the argument.
      value: what the caller passed.
      at_least: the smallest integer that is allowed.
      at_most: the largest; None for that of int32, which JAX and the files of a run hold.
      error: the class of the error.

    Raises:
      RequestError: or the class `error`, for anything else.
    """
    try:
        number = None if _is_truth(value) else operator.index(value)
    except Exception:  # of any object
        number = None
    most = _MAX_INT32 if at_most is None else at_most
    if number is None or not at_least <= number <= most:
        bounded = at_most is not None or (number is not None and number > most)
        words = f"from {at_least} to {most}" if bounded else f"of at least {at_least}"
        raise refuse(name, value, f"an integer {words}", error)
    return number


def finite_number(
    name: str,
    value: Any,
    allowed: str = "a finite number",
    *,
    at_least: float = -math.inf,
    above: float = -math.inf,
    at_most: float = math.inf,
    error: type[UserError] = RequestError,
) -> float:
    """A finite number as Python's `float`; True and "2" are none.

    Args:
      name: of the argument.
      value: what the caller passed.
      allowed: the bounds in words.
      at_least: the smallest number that is allowed.
      above: a number that it must exceed.
      at_most: the largest number that is allowed.
      error: the class of the error.

    Raises:
      RequestError: or the class `error`, for anything else.
    """
    try:
        is_text = isinstance(value, (str, bytes)) or _is_truth(value)
        number = math.nan if is_text or np.ndim(value) else float(value)
    except Exception:  # of any object
        number = math.nan
    if not (math.isfinite(number) and at_least <= number <= at_most and number > above):
        raise refuse(name, value, allowed, error)
    return number


def truth(name: str, value: Any, *, error: type[UserError] = RequestError) -> bool:
    """A truth value of Python or numpy.

    Raises:
      RequestError: or the class `error`, for anything else.
    """
    if not _is_truth(value) or np.ndim(value):
        raise refuse(name, value, "True or False", error)
    return bool(value)


def choice(
    name: str, value: Any, allowed: Iterable[str], *, error: type[UserError] = RequestError
) -> str:
    """One of a few words.

    Raises:
      RequestError: or the class `error`, for anything else.
    """
    words = tuple(allowed)
    if not (isinstance(value, str) and value in words):
        raise refuse(name, value, ", ".join(words) or "nothing", error)
    return str(value)


def path_text(name: str, value: Any, *, error: type[UserError] = RequestError) -> str:
    """A path as text, from text or anything else that `os.fspath` takes.

    Raises:
      RequestError: or the class `error`, for anything else, an empty path, or one with a zero byte.
    """
    try:
        text = os.fspath(value)
    except Exception:  # of any object
        text = None
    if not isinstance(text, str) or not text or "\0" in text:
        raise refuse(name, value, "a path, as text or pathlib.Path", error)
    return text


def instance(
    name: str, value: Any, kind: type[Kind], allowed: str, *, error: type[UserError] = RequestError
) -> Kind:
    """A value of a class.

    Raises:
      RequestError: or the class `error`, for anything else.
    """
    if not isinstance(value, kind):
        raise refuse(name, value, allowed, error)
    return value


def array_of(
    name: str,
    value: Any,
    allowed: str = "an array of real numbers",
    *,
    kinds: str = "fiu",
    error: type[UserError] = RequestError,
) -> np.ndarray:
    """An array of numbers.

    Args:
      name: of the argument.
      value: what the caller passed: an array of any library, or nested lists.
      allowed: the allowed numbers in words.
      kinds: the allowed kinds of dtypes, as in `numpy.dtype.kind`.
      error: the class of the error.

    Raises:
      RequestError: or the class `error`, for lists of different lengths and other kinds of dtypes.
    """
    if value is None:
        raise refuse(name, value, allowed, error)
    try:
        array = np.asarray(value)
    except Exception as cause:  # of any object; numpy's for lists of different lengths
        reason = str(cause).partition("\n")[0]
        raise error(f"{name}: got what is no array ({reason}); allowed: {allowed}") from None
    if array.dtype.kind == "V" and array.dtype.name == "bfloat16":
        array = array.astype(np.float32)
    if array.dtype.kind not in kinds:
        got = shown(value, 100) if array.size < _FEW else array.dtype
        raise error(f"{name}: got {got}; allowed: {allowed}")
    return array
