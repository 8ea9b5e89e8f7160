"""Writes PyTorch's files instruction by instruction, so that a test may forge any piece."""

import pathlib
import struct
import zipfile
from collections.abc import Mapping, Sequence

import numpy as np

MAGIC = 0x1950A86A20F9469CFC6C
STORAGES = {"f4": "FloatStorage", "f8": "DoubleStorage", "i8": "LongStorage"}


def integer(value: int) -> bytes:
    raw = value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)
    return b"\x8a" + bytes([len(raw)]) + raw


def text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value)) + value.encode()


def integers(values: Sequence[int]) -> bytes:
    return b"(" + b"".join(map(integer, values)) + b"t"


def storage(key: str, size: int, kind: str = "FloatStorage", end: bytes = b"") -> bytes:
    """A persistent id; the older format has `end` N."""
    words = text("storage") + b"ctorch\n" + kind.encode() + b"\n" + text(key) + text("cpu")
    return b"(" + words + integer(size) + end + b"tQ"


def tensor(
    stored: bytes, shape: Sequence[int], strides: Sequence[int], offset: int = 0, end: bytes = b""
) -> bytes:
    words = stored + integer(offset) + integers(shape) + integers(strides) + b"\x89"
    words += b"ccollections\nOrderedDict\n)R" + end
    return b"ctorch._utils\n_rebuild_tensor_v2\n(" + words + b"tR"


def dictionary(items: Mapping[str, bytes]) -> bytes:
    pairs = b"".join(text(name) + item for name, item in items.items())
    return b"ccollections\nOrderedDict\n)R(" + pairs + b"u"


def pickled(content: bytes) -> bytes:
    return b"\x80\x02" + content + b"."


def _plain(arrays: Mapping[str, np.ndarray], end: bytes) -> bytes:
    items = {}
    for key, (name, array) in enumerate(arrays.items()):
        kind = STORAGES[array.dtype.str[1:]]
        strides = [stride // array.itemsize for stride in array.strides]
        items[name] = tensor(storage(str(key), array.size, kind, end), array.shape, strides)
    return dictionary(items)


def write_zip(
    path: pathlib.Path,
    content: bytes,
    storages: Sequence[bytes] = (),
    folder: str = "archive/",
    order: str | None = "little",
) -> pathlib.Path:
    """Writes a pickle and storages named 0, 1 ... in the zip format."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(f"{folder}data.pkl", pickled(content))
        if order is not None:
            archive.writestr(f"{folder}byteorder", order)
        for key, raw in enumerate(storages):
            archive.writestr(f"{folder}data/{key}", raw)
        archive.writestr(f"{folder}version", "3\n")
    return path


def legacy(content: bytes, storages: Sequence[bytes] = (), itemsize: int = 4) -> bytes:
    """Returns a pickle and storages named 0, 1 ... in the older format."""
    system = b"}(" + text("little_endian") + b"\x88u"
    keys = b"](" + b"".join(text(str(key)) for key in range(len(storages))) + b"e"
    header = [integer(MAGIC), integer(1001), system, content, keys]
    sized = [struct.pack("<q", len(raw) // itemsize) + raw for raw in storages]
    return b"".join(map(pickled, header)) + b"".join(sized)


def write_arrays(path: pathlib.Path, arrays: Mapping[str, np.ndarray], form: str) -> pathlib.Path:
    """Writes contiguous arrays as `zip` or `legacy`; all of one itemsize for `legacy`."""
    raws = [np.ascontiguousarray(array).tobytes() for array in arrays.values()]
    if form == "zip":
        return write_zip(path, _plain(arrays, b""), raws)
    itemsize = next(iter(arrays.values())).itemsize
    path.write_bytes(legacy(_plain(arrays, b"N"), raws, itemsize))
    return path
