"""Reads numpy's pickled object arrays without running anything.

`np.load(allow_pickle=True)` runs whatever a file asks for. This is an interpreter of its own for
the few pickle instructions that numpy's arrays consist of. The functions that numpy's pickles call
(`_reconstruct`, `dtype`, `scalar`) are rebuilt here in Python, so that no state from a file reaches
numpy's C code: a forged dtype could make that take raw bytes for pointers. Python's `Unpickler` is
not used either, because it allocates what a file merely promises, and lets a file change the very
functions that it is allowed to name.
"""

import enum
import math
import struct
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import numpy as np

from lensjax.data.file_image import UnusableError, check_shape

MAX_PICKLE_BYTES = 2**28
# An array of one image and a few numbers takes about a hundred.
_MAX_INSTRUCTIONS = 10_000
_NUMERIC = ("f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8")
_OBJECT = ("O", "O4", "O8")
_OBJECT_FLAGS = 63
_STOP = ord(".")


class _Name(enum.Enum):
    """What a pickle may name."""

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
        (`np.ndarray`), or `Other`.
    """

    shape: tuple[int, ...]
    items: tuple[Any, ...]


class Other(NamedTuple):
    """Something that is not kept; `what` says what it is."""

    what: str


class _Dtype:
    """Stands for a numpy dtype."""

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
            raise UnusableError("is forged or damaged: the state of a dtype is not a plain one's")
        order = state[1]
        if type(order) is not str or order not in ("<", ">", "|", "="):
            raise UnusableError("is damaged: a byte order is none of < > | =")
        self.dtype = np.dtype(object if self.is_object else order + self.code)


class _Array:
    """Stands for a numpy array; `value` is a numeric array or an `ObjectArray` once it is built."""

    def __init__(self) -> None:
        self.value: np.ndarray | ObjectArray | None = None

    def build(self, state: Any) -> None:
        """Takes `(1, shape, dtype, whether Fortran order, bytes or list)`."""
        if type(state) is not tuple or len(state) != 5 or state[0] != 1 or self.value is not None:
            raise UnusableError("is forged or damaged: the state of an array is not a plain one's")
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
    """Returns bytes, which Python 2 wrote as text of 8 bits."""
    if type(data) is str:
        return data.encode("latin-1")
    if type(data) is not bytes:
        raise UnusableError("is forged or damaged: an array lacks its bytes")
    return data


def _make_array(arguments: tuple) -> _Array:
    if len(arguments) != 3 or arguments[0] is not _Name.NDARRAY:
        raise UnusableError("is forged or damaged: it makes something else than a plain array")
    return _Array()


def _make_dtype(arguments: tuple) -> _Dtype:
    code = arguments[0] if arguments else None
    if type(code) is not str or len(arguments) != 3:
        raise UnusableError("is forged or damaged: it makes something else than a plain dtype")
    if code not in _NUMERIC + _OBJECT:
        raise UnusableError(
            f"holds data of the dtype {code}; arrays of float16, float32, float64 and integers "
            f"are read"
        )
    return _Dtype(code)


def _make_number(arguments: tuple) -> int | float:
    if len(arguments) != 2 or type(arguments[0]) is not _Dtype:
        raise UnusableError("is forged or damaged: a number lacks its dtype")
    dtype, raw = arguments[0].dtype, arguments[1]
    if dtype is None or dtype.hasobject:
        raise UnusableError("is forged or damaged: the dtype of a number is none")
    raw = _as_bytes(raw)
    if len(raw) != dtype.itemsize:
        raise UnusableError(f"is forged or damaged: a number of dtype {dtype} has {len(raw)} bytes")
    return np.frombuffer(raw, dtype)[0].item()


_CALLS: dict[_Name, Callable[[tuple], Any]] = {
    _Name.RECONSTRUCT: _make_array,
    _Name.DTYPE: _make_dtype,
    _Name.SCALAR: _make_number,
}


def _look_up(module: Any, name: Any) -> _Name:
    if type(module) is not str or type(name) is not str:
        raise UnusableError("is forged or damaged: it asks for a function without a name")
    if (module, name) not in _ALLOWED:
        raise UnusableError(
            f"asks to run {module[:60]}.{name[:60]}; only numpy's array data is read, and nothing "
            f"was run"
        )
    return _ALLOWED[module, name]


class _Machine:
    """Pickle's stack machine, as far as numpy's arrays need it."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.at = 0
        self.stack: list[Any] = []
        self.outer: list[list[Any]] = []  # the stacks below each mark
        self.memo: dict[int, Any] = {}

    def take(self, count: int) -> bytes:
        """Returns the next bytes."""
        piece = self.data[self.at : self.at + count]
        if len(piece) < count:
            raise UnusableError("is truncated: its pickled data ends early")
        self.at += count
        return piece

    def number(self, width: int) -> int:
        """Returns the next unsigned integer."""
        return int.from_bytes(self.take(width), "little")

    def line(self) -> str:
        """Returns the text up to the end of the line."""
        end = self.data.find(b"\n", self.at)
        if end < 0:
            raise UnusableError("is truncated: its pickled data ends early")
        text = self.data[self.at : end].decode()
        self.at = end + 1
        return text

    def byte(self) -> int:
        """Returns the next byte as a number."""
        value = self.data[self.at]
        self.at += 1
        return value

    def push(self, value: Any) -> None:
        self.stack.append(value)

    def put(self) -> None:
        self.memo[self.byte()] = self.stack[-1]

    def pop_to_mark(self) -> list[Any]:
        """Returns what lies above the last mark."""
        items = self.stack
        self.stack = self.outer.pop()
        return items

    def mark(self) -> None:
        self.outer.append(self.stack)
        self.stack = []

    def pop_tuple(self, count: int) -> None:
        items = tuple(self.stack.pop() for _ in range(count))
        self.push(items[::-1])

    def append(self, items: list[Any]) -> None:
        if type(self.stack[-1]) is not list:
            raise UnusableError("is forged or damaged: it appends to something else than a list")
        self.stack[-1].extend(items)

    def stack_global(self) -> None:
        name, module = self.stack.pop(), self.stack.pop()
        self.push(_look_up(module, name))

    def instance(self) -> None:
        raise UnusableError(f"makes an object of {_look_up(self.line(), self.line()).value}")

    def call(self) -> None:
        arguments, name = self.stack.pop(), self.stack.pop()
        if type(name) is not _Name or name not in _CALLS or type(arguments) is not tuple:
            raise UnusableError("is forged or damaged: it calls what is no function of numpy's")
        self.push(_CALLS[name](arguments))

    def build(self) -> None:
        state, target = self.stack.pop(), self.stack[-1]
        if not isinstance(target, (_Array, _Dtype)):
            raise UnusableError("is forged or damaged: it sets the state of what has none")
        target.build(state)

    def run(self) -> Any:
        """Returns what the pickle holds."""
        for _ in range(_MAX_INSTRUCTIONS):
            code = self.byte()
            if code == _STOP:
                if self.at != len(self.data):
                    raise UnusableError(
                        f"has {len(self.data) - self.at} bytes behind its pickled data"
                    )
                return self.stack.pop()
            if code not in _INSTRUCTIONS:
                raise UnusableError(
                    f"uses pickle's instruction {_instruction_name(code)}; only numpy's array "
                    f"data is read, and nothing was run"
                )
            _INSTRUCTIONS[code](self)
        raise UnusableError(
            f"takes more than {_MAX_INSTRUCTIONS} pickle instructions; an object array holds one "
            f"image and a few numbers"
        )


def _instruction_name(code: int) -> str:
    import pickletools

    names = {known.code: known.name for known in pickletools.opcodes}
    return names.get(chr(code), f"0x{code:02x}, which does not exist")


# One letter each, as `pickletools` documents them.
_LETTERS: dict[bytes, Callable[[_Machine], Any]] = {
    # The frame of the pickle itself.
    b"\x80": lambda m: m.take(1),
    b"\x95": lambda m: m.take(8),
    # Constants, integers and floats.
    b"N": lambda m: m.push(None),
    b"\x88": lambda m: m.push(True),
    b"\x89": lambda m: m.push(False),
    b"K": lambda m: m.push(m.byte()),
    b"M": lambda m: m.push(m.number(2)),
    b"J": lambda m: m.push(int.from_bytes(m.take(4), "little", signed=True)),
    b"\x8a": lambda m: m.push(int.from_bytes(m.take(m.byte()), "little", signed=True)),
    b"G": lambda m: m.push(struct.unpack(">d", m.take(8))[0]),
    # Text; the last four as Python 2 wrote it.
    b"\x8c": lambda m: m.push(m.take(m.byte()).decode()),
    b"X": lambda m: m.push(m.take(m.number(4)).decode()),
    b"\x8d": lambda m: m.push(m.take(m.number(8)).decode()),
    b"U": lambda m: m.push(m.take(m.byte()).decode("latin-1")),
    b"T": lambda m: m.push(m.take(m.number(4)).decode("latin-1")),
    b"S": lambda m: m.push(m.line()),
    b"V": lambda m: m.push(m.line()),
    # Bytes.
    b"C": lambda m: m.push(m.take(m.byte())),
    b"B": lambda m: m.push(m.take(m.number(4))),
    b"\x8e": lambda m: m.push(m.take(m.number(8))),
    # Tuples and lists.
    b"(": _Machine.mark,
    b")": lambda m: m.push(()),
    b"\x85": lambda m: m.pop_tuple(1),
    b"\x86": lambda m: m.pop_tuple(2),
    b"\x87": lambda m: m.pop_tuple(3),
    b"t": lambda m: m.push(tuple(m.pop_to_mark())),
    b"]": lambda m: m.push([]),
    b"a": lambda m: m.append([m.stack.pop()]),
    b"e": lambda m: m.append(m.pop_to_mark()),
    # What is read over, so that an error can say what stands in it.
    b"}": lambda m: m.push(Other("a dictionary")),
    b"s": lambda m: (m.stack.pop(), m.stack.pop()),
    b"u": lambda m: m.pop_to_mark(),
    b"\x8f": lambda m: m.push(Other("a set")),
    b"\x90": lambda m: m.pop_to_mark(),
    # What is used twice.
    b"q": _Machine.put,
    b"r": lambda m: m.memo.__setitem__(m.number(4), m.stack[-1]),
    b"\x94": lambda m: m.memo.__setitem__(len(m.memo), m.stack[-1]),
    b"h": lambda m: m.push(m.memo[m.byte()]),
    b"j": lambda m: m.push(m.memo[m.number(4)]),
    # Functions of numpy's.
    b"c": lambda m: m.push(_look_up(m.line(), m.line())),
    b"i": _Machine.instance,
    b"\x93": _Machine.stack_global,
    b"R": _Machine.call,
    b"b": _Machine.build,
}
_INSTRUCTIONS = {letter[0]: action for letter, action in _LETTERS.items()}


def _plain(item: Any) -> Any:
    """Returns an element without its stand-in."""
    if not isinstance(item, _Array):
        return Other(f"numpy's {item.value}") if isinstance(item, _Name) else item
    if isinstance(item.value, np.ndarray):
        return item.value
    return Other("an array of objects")


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
        raise UnusableError(f"is an object array of {len(data)} bytes; at most {MAX_PICKLE_BYTES}")
    try:
        found = _Machine(data).run()
    except (IndexError, KeyError, UnicodeError) as error:
        raise UnusableError("is truncated or damaged: its pickled data makes no sense") from error
    if not isinstance(found, _Array) or not isinstance(found.value, ObjectArray):
        raise UnusableError("is damaged: its pickled data is no array of objects")
    return ObjectArray(found.value.shape, tuple(map(_plain, found.value.items)))
