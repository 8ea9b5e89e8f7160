"""Pickle's stack machine, limited to the instructions that pickled arrays and tensors use.

Nothing that a pickle names is imported or run: a `Dialect` lists the allowed names and the values
that take their place. Python's `Unpickler` is not used, because it allocates any size that a file
claims, and lets a file change the very functions that it is allowed to name.
"""

import dataclasses
import struct
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from lensjax.errors import UnusableError

_STOP = ord(".")


class Placeholder(NamedTuple):
    """Takes the place of an object that is not read; `description` names it in errors."""

    description: str


@dataclasses.dataclass(frozen=True)
class Dialect:
    """The names and objects that the pickles of one kind of file may use.

    Attributes:
      content: completes "only ..." in errors, such as "tensors are read".
      names: the value in place of each `(module, name)` that a pickle may import.
      call: `(value from names, arguments) -> object`, in place of a function call.
      build: `(object, state) -> None`, sets the state of an object that `call` made.
      load: `persistent id -> object`; None if the files have no such ids.
      keeps_dictionaries: whether dictionaries are kept; otherwise they are skipped.
      max_instructions: a pickle with more is refused.
      size: end of the message for such a pickle, such as how much the limit is enough for.
    """

    content: str
    names: Mapping[tuple[str, str], Any]
    call: Callable[[Any, tuple], Any]
    build: Callable[[Any, Any], None]
    load: Callable[[Any], Any] | None
    keeps_dictionaries: bool
    max_instructions: int
    size: str


class _Machine:
    """The machine; `at` is the offset of the next byte."""

    def __init__(self, data: bytes, at: int, dialect: Dialect) -> None:
        self.data = data
        self.at = at
        self.dialect = dialect
        self.stack: list[Any] = []
        self.outer: list[list[Any]] = []  # the stacks below each mark
        self.memo: dict[int, Any] = {}

    def take(self, count: int) -> bytes:
        """The next bytes."""
        piece = self.data[self.at : self.at + count]
        if len(piece) < count:
            raise UnusableError("is truncated: its pickled data ends early")
        self.at += count
        return piece

    def number(self, width: int) -> int:
        """The next unsigned integer."""
        return int.from_bytes(self.take(width), "little")

    def line(self) -> str:
        """The text up to the end of the line."""
        end = self.data.find(b"\n", self.at)
        if end < 0:
            raise UnusableError("is truncated: its pickled data ends early")
        text = self.data[self.at : end].decode()
        self.at = end + 1
        return text

    def byte(self) -> int:
        """The next byte as a number."""
        value = self.data[self.at]
        self.at += 1
        return value

    def push(self, value: Any) -> None:
        self.stack.append(value)

    def put(self) -> None:
        self.memo[self.byte()] = self.stack[-1]

    def pop_to_mark(self) -> list[Any]:
        """Pops the last mark with the items above it, and returns these items."""
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
            raise UnusableError("is forged or damaged: it appends to something other than a list")
        self.stack[-1].extend(items)

    def new_dictionary(self) -> None:
        self.push({} if self.dialect.keeps_dictionaries else Placeholder("a dictionary"))

    def set_items(self, items: list[Any]) -> None:
        """Adds alternating keys and values to a dictionary, unless dictionaries are skipped."""
        if not self.dialect.keeps_dictionaries:
            return
        target = self.stack[-1]
        if type(target) is not dict or len(items) % 2:
            raise UnusableError("is forged or damaged: it fills something other than a dictionary")
        keys = items[::2]
        # Hashing a deeply nested key could take for ever.
        if not all(type(key) in (str, int) for key in keys):
            raise UnusableError("holds a dictionary whose keys are neither text nor integers")
        target.update(zip(keys, items[1::2], strict=True))

    def look_up(self, module: Any, name: Any) -> Any:
        if type(module) is not str or type(name) is not str:
            raise UnusableError("is forged or damaged: it asks for a function without a name")
        if (module, name) not in self.dialect.names:
            raise UnusableError(
                f"asks to run {module[:60]}.{name[:60]}; only {self.dialect.content}, and "
                f"nothing was run"
            )
        return self.dialect.names[module, name]

    def stack_global(self) -> None:
        name, module = self.stack.pop(), self.stack.pop()
        self.push(self.look_up(module, name))

    def instance(self) -> None:
        module, name = self.line(), self.line()
        self.look_up(module, name)
        raise UnusableError(f"makes an object of {module}.{name}")

    def call(self) -> None:
        arguments, function = self.stack.pop(), self.stack.pop()
        if type(arguments) is not tuple:
            raise UnusableError("is forged or damaged: its call's arguments are not a tuple")
        self.push(self.dialect.call(function, arguments))

    def build(self) -> None:
        state, target = self.stack.pop(), self.stack[-1]
        self.dialect.build(target, state)

    def persistent(self) -> None:
        if self.dialect.load is None:
            self.refuse(ord("Q"))
        else:
            self.push(self.dialect.load(self.stack.pop()))

    def refuse(self, code: int) -> None:
        raise UnusableError(
            f"uses pickle's instruction {_instruction_name(code)}; only {self.dialect.content}, "
            f"and nothing was run"
        )

    def run(self) -> Any:
        """Runs the pickle and returns the object that it holds."""
        for _ in range(self.dialect.max_instructions):
            code = self.byte()
            if code == _STOP:
                return self.stack.pop()
            if code not in _INSTRUCTIONS:
                self.refuse(code)
            _INSTRUCTIONS[code](self)
        raise UnusableError(
            f"takes more than {self.dialect.max_instructions} pickle instructions; "
            f"{self.dialect.size}"
        )


def _instruction_name(code: int) -> str:
    import pickletools

    names = {opcode.code: opcode.name for opcode in pickletools.opcodes}
    return names.get(chr(code), f"0x{code:02x}, which does not exist")


# Each instruction is one byte; `pickletools` documents them.
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
    # Dictionaries and sets. The items of a set are dropped; its placeholder names it in errors.
    b"}": _Machine.new_dictionary,
    b"s": lambda m: m.set_items([m.stack.pop(), m.stack.pop()][::-1]),
    b"u": lambda m: m.set_items(m.pop_to_mark()),
    b"\x8f": lambda m: m.push(Placeholder("a set")),
    b"\x90": lambda m: m.pop_to_mark(),
    # The memo, for values that are used again.
    b"q": _Machine.put,
    b"r": lambda m: m.memo.__setitem__(m.number(4), m.stack[-1]),
    b"\x94": lambda m: m.memo.__setitem__(len(m.memo), m.stack[-1]),
    b"h": lambda m: m.push(m.memo[m.byte()]),
    b"j": lambda m: m.push(m.memo[m.number(4)]),
    # Functions, and objects that lie elsewhere in the file.
    b"c": lambda m: m.push(m.look_up(m.line(), m.line())),
    b"i": _Machine.instance,
    b"\x93": _Machine.stack_global,
    b"R": _Machine.call,
    b"b": _Machine.build,
    b"Q": _Machine.persistent,
}
_INSTRUCTIONS = {letter[0]: action for letter, action in _LETTERS.items()}


def run_pickle(data: bytes, dialect: Dialect, start: int = 0) -> tuple[Any, int]:
    """Interprets one pickle; nothing that it names is imported or run.

    Args:
      data: a pickle of protocol 2 to 4, and perhaps something before and after it.
      dialect: the names and objects that it may use.
      start: where in the data it begins.

    Returns:
      The object that it holds, and the offset of its end.

    Raises:
      UnusableError: for a name or instruction that is not allowed; the message names it.
    """
    machine = _Machine(data, start, dialect)
    try:
        return machine.run(), machine.at
    except (IndexError, KeyError, UnicodeError) as error:
        raise UnusableError("is truncated or damaged: its pickled data makes no sense") from error
