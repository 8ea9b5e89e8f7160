"""Reads numpy's pickled object arrays without running anything.

`np.load(allow_pickle=True)` runs whatever a file asks for. The functions that numpy's pickles call
(`_reconstruct`, `dtype`, `scalar`) are rebuilt here in Python for `pickle_machine`, so that no
state from a file reaches numpy's C code: a forged dtype could make this code take
raw bytes for pointers.
"""

import enum
import math
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import numpy as np

from lensjax.errors import UnusableError
from lensjax.files.file_image import check_shape
from lensjax.files.pickle_machine import Dialect, Placeholder, run_pickle

MAX_PICKLE_BYTES = 2**28
_NUMERIC = ("f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8")
_OBJECT = ("O", "O4", "O8")
_OBJECT_FLAGS = 63


class _Name(enum.Enum):
    """The functions and classes that a pickle may name."""

    RECONSTRUCT = "_reconstruct"
    SCALAR = "scalar"
    NDARRAY = "ndarray"
    DTYPE = "dtype"


_ALLOWED = {
    ("numpy", "ndarray"): _Name.NDARRAY,
    ("numpy", "dtype"): _Name.DTYPE,
    ("numpy.core.multiarray", "_reconstruct"): _Name.RECONSTRUCT,
    ("numpy.core.multiarray", "scalar"): _Name.SCALAR,
    ("numpy._core.multiarray", "_reconstruct"): _Name.RECONSTRUCT,
    ("numpy._core.multiarray", "scalar"): _Name.SCALAR,
}


class ObjectArray(NamedTuple):
    """A numpy array of objects.

    Attributes:
      shape: its shape.
      items: its elements in C or Fortran order: numbers, text, None, lists, numeric arrays
        (`np.ndarray`), or `Placeholder`.
    """

    shape: tuple[int, ...]
    items: tuple[Any, ...]


class _Dtype:
    """A numpy dtype that a pickle builds."""

    def __init__(self, code: str) -> None:
        self.code = code
        self.dtype: np.dtype | None = None

    @property
    def is_object(self) -> bool:
        return self.code in _OBJECT

    def build(self, state: Any) -> None:
        """Takes `(3, byte order, None, None, None, -1, -1, flags)`."""
        flags = _OBJECT_FLAGS if self.is_object else 0
        plain = type(state) is tuple and len(state) == 8 and state[0] == 3
        if not plain or state[2:] != (None, None, None, -1, -1, flags):
            raise UnusableError("is forged or damaged: the state of a dtype is not a plain one")
        order = state[1]
        if type(order) is not str or order not in ("<", ">", "|", "="):
            raise UnusableError("is damaged: a byte order is not one of < > | =")
        self.dtype = np.dtype(object if self.is_object else order + self.code)


class _Array:
    """A numpy array that a pickle builds; `value` is numeric or an `ObjectArray` once built."""

    def __init__(self) -> None:
        self.value: np.ndarray | ObjectArray | None = None

    def build(self, state: Any) -> None:
        """Takes `(1, shape, dtype, whether Fortran order, bytes or list)`."""
        if type(state) is not tuple or len(state) != 5 or state[0] != 1 or self.value is not None:
            raise UnusableError("is forged or damaged: the state of an array is not a plain one")
        _, shape, dtype, fortran, data = state
        if type(shape) is not tuple or type(dtype) is not _Dtype or dtype.dtype is None:
            raise UnusableError("is forged or damaged: an array lacks its shape or its dtype")
        check_shape(shape)
        count = math.prod(shape)
        if dtype.is_object:
            if type(data) is not list or len(data) != count:
                raise UnusableError("is forged or damaged: an array of objects lacks its objects")
            self.value = ObjectArray(shape, tuple(data))
            return
        raw = _as_bytes(data)
        if len(raw) != count * dtype.dtype.itemsize:
            raise UnusableError(
                f"is forged or damaged: an array of the shape {shape} and dtype {dtype.dtype} "
                f"has {len(raw)} bytes"
            )
        order: Literal["C", "F"] = "F" if fortran else "C"
        if not raw:
            raise UnusableError(f"holds an empty array, of the shape {shape}")
        self.value = np.frombuffer(raw, dtype.dtype).reshape(shape, order=order)


def _as_bytes(data: Any) -> bytes:
    """Bytes, which Python 2 wrote as text of 8 bits."""
    if type(data) is str:
        return data.encode("latin-1")
    if type(data) is not bytes:
        raise UnusableError("is forged or damaged: an array lacks its bytes")
    return data


def _make_array(arguments: tuple) -> _Array:
    if len(arguments) != 3 or arguments[0] is not _Name.NDARRAY:
        raise UnusableError("is forged or damaged: it makes something other than a plain array")
    return _Array()


def _make_dtype(arguments: tuple) -> _Dtype:
    code = arguments[0] if arguments else None
    if type(code) is not str or len(arguments) != 3:
        raise UnusableError("is forged or damaged: it makes something other than a plain dtype")
    if code not in _NUMERIC + _OBJECT:
        raise UnusableError(
            f"holds data of the dtype {code}; allowed: arrays of float16, float32, float64 and "
            f"integers"
        )
    return _Dtype(code)


def _make_number(arguments: tuple) -> int | float:
    if len(arguments) != 2 or type(arguments[0]) is not _Dtype:
        raise UnusableError("is forged or damaged: a number lacks its dtype")
    dtype, raw = arguments[0].dtype, arguments[1]
    if dtype is None or dtype.hasobject:
        raise UnusableError("is forged or damaged: the dtype of a number is not numeric")
    raw = _as_bytes(raw)
    if len(raw) != dtype.itemsize:
        raise UnusableError(f"is forged or damaged: a number of dtype {dtype} has {len(raw)} bytes")
    return np.frombuffer(raw, dtype)[0].item()


_CALLS: dict[_Name, Callable[[tuple], Any]] = {
    _Name.RECONSTRUCT: _make_array,
    _Name.DTYPE: _make_dtype,
    _Name.SCALAR: _make_number,
}


def _call(name: Any, arguments: tuple) -> Any:
    if type(name) is not _Name or name not in _CALLS:
        raise UnusableError(
            "is forged or damaged: it calls something that is not a function of numpy"
        )
    return _CALLS[name](arguments)


def _build(target: Any, state: Any) -> None:
    if not isinstance(target, (_Array, _Dtype)):
        raise UnusableError("is forged or damaged: it sets the state of an object without one")
    target.build(state)


_DIALECT = Dialect(
    content="numpy's array data is read",
    names=_ALLOWED,
    call=_call,
    build=_build,
    load=None,
    keeps_dictionaries=False,
    max_instructions=10_000,  # an array of one image and a few numbers takes about a hundred
    size="an object array holds one image and a few numbers",
)


def _plain(item: Any) -> Any:
    """An element of the result in place of the machine's own object."""
    if not isinstance(item, _Array):
        return Placeholder(f"numpy's {item.value}") if isinstance(item, _Name) else item
    if isinstance(item.value, np.ndarray):
        return item.value
    return Placeholder("an array of objects")


def load_object_array(data: bytes) -> ObjectArray:
    """Reads a pickled numpy array of objects; nothing that it names is imported or run.

    Args:
      data: a pickle of protocol 2 to 4 that `np.save(allow_pickle=True)` wrote, of at most
        `MAX_PICKLE_BYTES`.

    Returns:
      Its shape and elements.

    Raises:
      UnusableError: for anything but numbers, text, lists and arrays that numpy's own four names
        describe; it names the function that the pickle asks for.
    """
    if len(data) > MAX_PICKLE_BYTES:
        raise UnusableError(
            f"is an object array of {len(data)} bytes; allowed: at most {MAX_PICKLE_BYTES}"
        )
    array, end = run_pickle(data, _DIALECT)
    if end != len(data):
        raise UnusableError(f"has {len(data) - end} bytes after its pickled data")
    if not isinstance(array, _Array) or not isinstance(array.value, ObjectArray):
        raise UnusableError("is damaged: its pickled data is not an array of objects")
    return ObjectArray(array.value.shape, tuple(map(_plain, array.value.items)))
