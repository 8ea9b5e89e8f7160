"""Reads tensors from PyTorch's files, of both formats, without PyTorch; nothing is run.

The zip format holds one pickle and a member for each storage (a flat array of numbers that tensors
are views of). The older format is five pickles, one after the other, and then the storages.
"""

import enum
import math
import os
import pathlib
import struct
import zipfile
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from lensjax.errors import UnusableError, WeightsError
from lensjax.files.file_image import check_shape
from lensjax.files.pickle_machine import Dialect, run_pickle

MAX_FILE_BYTES = 2**31
_ZIP_BEGINNING = b"PK\x03\x04"
_PICKLE_BEGINNING = b"\x80"
_MAGIC = 0x1950A86A20F9469CFC6C
_PROTOCOL = 1001
_STORAGE_DTYPES = {
    "DoubleStorage": np.dtype("f8"),
    "FloatStorage": np.dtype("f4"),
    "HalfStorage": np.dtype("f2"),
    "BFloat16Storage": np.dtype(jnp.bfloat16),
    "LongStorage": np.dtype("i8"),
    "IntStorage": np.dtype("i4"),
    "ShortStorage": np.dtype("i2"),
    "CharStorage": np.dtype("i1"),
    "ByteStorage": np.dtype("u1"),
    "BoolStorage": np.dtype("?"),
}


class _Function(enum.Enum):
    """The functions that a file may call."""

    TENSOR = "torch._utils._rebuild_tensor_v2"
    PARAMETER = "torch._utils._rebuild_parameter"
    DICTIONARY = "collections.OrderedDict"


class _Storage(NamedTuple):
    """A storage as the pickle names it."""

    key: str
    dtype: np.dtype
    size: int


class _Tensor(NamedTuple):
    """A view of a storage as the pickle describes it, in elements."""

    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


_NAMES: Mapping[tuple[str, str], Any] = {
    ("torch._utils", "_rebuild_tensor_v2"): _Function.TENSOR,
    ("torch._utils", "_rebuild_parameter"): _Function.PARAMETER,
    ("collections", "OrderedDict"): _Function.DICTIONARY,
    **{("torch", name): dtype for name, dtype in _STORAGE_DTYPES.items()},
}


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value < 2**48


def _make_tensor(arguments: tuple) -> _Tensor:
    if len(arguments) not in (6, 7) or type(arguments[0]) is not _Storage:
        raise UnusableError("is forged or damaged: a tensor lacks its storage")
    storage, offset, shape, strides = arguments[:4]
    if len(arguments) == 7 and arguments[6]:
        raise UnusableError("holds a tensor with further metadata; allowed: plain tensors")
    if type(shape) is not tuple or type(strides) is not tuple or len(shape) != len(strides):
        raise UnusableError("is forged or damaged: a tensor lacks its shape or its strides")
    check_shape(shape)
    if not _is_count(offset) or not all(map(_is_count, strides)):
        raise UnusableError("is forged or damaged: the strides of a tensor are not counts")
    count = math.prod(shape)
    last = sum((side - 1) * stride for side, stride in zip(shape, strides, strict=True))
    if offset + (last + 1 if count else 0) > storage.size:
        raise UnusableError(
            f"is forged or damaged: a tensor of the shape {shape} reaches beyond its storage of "
            f"{storage.size} elements"
        )
    if count > storage.size:
        raise UnusableError(
            f"holds a tensor of the shape {shape} that repeats its {storage.size} elements; save "
            f"tensor.contiguous()"
        )
    return _Tensor(storage, offset, shape, strides)


def _call(function: Any, arguments: tuple) -> Any:
    if function is _Function.TENSOR:
        return _make_tensor(arguments)
    if function is _Function.PARAMETER:
        if len(arguments) != 3 or type(arguments[0]) is not _Tensor:
            raise UnusableError("is forged or damaged: a parameter is not a tensor")
        return arguments[0]
    if function is _Function.DICTIONARY and arguments == ():
        return {}
    raise UnusableError("is forged or damaged: it calls a function that makes no tensor")


def _build(target: Any, state: Any) -> None:
    """Ignores the attributes that PyTorch sets on a state dict besides its tensors."""
    if type(target) is not dict or type(state) is not dict:
        raise UnusableError("is forged or damaged: it sets the state of an object without one")


def _load(identity: Any) -> _Storage:
    """Takes `("storage", class, key, device, count)`; the older format appends a view, None."""
    if type(identity) is not tuple or len(identity) not in (5, 6) or identity[0] != "storage":
        raise UnusableError("names something outside its pickle that is not a storage")
    _, dtype, key, _, count = identity[:5]
    if not isinstance(dtype, np.dtype) or type(key) is not str or not _is_count(count):
        raise UnusableError("is forged or damaged: a storage lacks its class, key or size")
    if identity[5:] not in ((), (None,)):
        raise UnusableError(
            "holds a storage that is a view of another; save it with PyTorch 1 or 2"
        )
    return _Storage(key, dtype, count)


_DIALECT = Dialect(
    content="tensors are read",
    names=_NAMES,
    call=_call,
    build=_build,
    load=_load,
    keeps_dictionaries=True,
    max_instructions=1_000_000,  # a tensor takes about forty
    size="that is enough for 20,000 tensors",
)


def _as_tensors(state_dict: Any) -> dict[str, _Tensor]:
    """Checks that the object of a pickle is a dictionary of tensors by name."""
    if type(state_dict) is not dict:
        raise UnusableError("does not hold tensors by name; save model.state_dict()")
    for name, tensor in state_dict.items():
        if type(name) is not str or type(tensor) is not _Tensor:
            raise UnusableError(
                f"holds {_describe(tensor)} under {str(name)[:60]!r}; only tensors by name are "
                f"read: save model.state_dict()"
            )
    return state_dict


def _describe(value: Any) -> str:
    return "a tensor" if type(value) is _Tensor else f"something of type {type(value).__name__}"


def _storages(tensors: Mapping[str, _Tensor]) -> dict[str, _Storage]:
    """The storages that tensors are views of, by key."""
    storages: dict[str, _Storage] = {}
    for tensor in tensors.values():
        if storages.setdefault(tensor.storage.key, tensor.storage) != tensor.storage:
            raise UnusableError("is forged or damaged: two storages have the same key")
    return storages


def _decode(raw: bytes, storage: _Storage, order: str) -> np.ndarray:
    """A storage's elements in this machine's byte order, in its own memory."""
    size = storage.dtype.itemsize
    if len(raw) != storage.size * size:
        raise UnusableError(
            f"is forged or damaged: a storage of {storage.size} elements of {storage.dtype} has "
            f"{len(raw)} bytes"
        )
    numbers = np.frombuffer(raw, f"{order}u{size}").astype(f"=u{size}")
    # Bytes other than 0 and 1 are not valid bools; each counts as True.
    values = numbers != 0 if storage.dtype.kind == "b" else numbers.view(storage.dtype)
    values.flags.writeable = False
    return values


def _view(tensor: _Tensor, values: np.ndarray) -> np.ndarray:
    strides = tuple(stride * values.itemsize for stride in tensor.strides)
    if 0 in tensor.shape:
        return np.empty(tensor.shape, values.dtype)
    return np.lib.stride_tricks.as_strided(
        values[tensor.offset :], tensor.shape, strides, writeable=False
    )


def _view_all(
    tensors: Mapping[str, _Tensor], values: Mapping[str, np.ndarray]
) -> dict[str, np.ndarray]:
    return {name: _view(tensor, values[tensor.storage.key]) for name, tensor in tensors.items()}


def _read_legacy(data: bytes) -> dict[str, np.ndarray]:
    """Reads the older format."""
    at = 0

    def read_pickle() -> Any:
        nonlocal at
        value, at = run_pickle(data, _DIALECT, at)
        return value

    def read_bytes(count: int) -> bytes:
        nonlocal at
        if len(data) - at < count:
            raise UnusableError("is truncated: its storages end early")
        at += count
        return data[at - count : at]

    if read_pickle() != _MAGIC:
        raise UnusableError("is a pickle, but not one of PyTorch's")
    if read_pickle() != _PROTOCOL:
        raise UnusableError(f"has another version of the format; allowed: version {_PROTOCOL}")
    system = read_pickle()
    if type(system) is not dict or system.get("little_endian") is not True:
        raise UnusableError("was written on a big-endian machine; save it in the zip format")
    tensors = _as_tensors(read_pickle())
    storages, keys = _storages(tensors), read_pickle()
    if type(keys) is not list or not all(type(key) is str for key in keys):
        raise UnusableError("is forged or damaged: its list of storages is not a list of names")
    if sorted(keys) != sorted(storages):
        raise UnusableError("is forged or damaged: its storages are not those of its tensors")
    values = {}
    for key in keys:
        (count,) = struct.unpack("<q", read_bytes(8))
        storage = storages[key]
        if count != storage.size:
            raise UnusableError(f"is forged or damaged: a storage claims {count} elements")
        values[key] = _decode(read_bytes(count * storage.dtype.itemsize), storage, "<")
    if at != len(data):
        raise UnusableError(f"has {len(data) - at} bytes after its storages")
    return _view_all(tensors, values)


def _check_members(archive: zipfile.ZipFile, file_bytes: int) -> None:
    """Refuses members that could take more memory than the file has bytes."""
    infos = archive.infolist()
    if len({info.filename for info in infos}) != len(infos):
        raise UnusableError("is forged: two members of its zip have the same name")
    for info in infos:
        if info.flag_bits & 1:
            raise UnusableError(f"is encrypted (its member {info.filename[:60]!r})")
        if info.compress_type != zipfile.ZIP_STORED or info.compress_size != info.file_size:
            raise UnusableError(
                f"compresses its member {info.filename[:60]!r}; torch.save writes it uncompressed"
            )
    total = sum(info.file_size for info in infos)
    if total > file_bytes:
        raise UnusableError(f"is forged: its members claim {total} bytes, it has {file_bytes}")


def _read_zip(archive: zipfile.ZipFile, file_bytes: int) -> dict[str, np.ndarray]:
    """Reads the zip format."""
    _check_members(archive, file_bytes)
    names = set(archive.namelist())
    pickles = [name for name in names if name.split("/")[-1] == "data.pkl"]
    if len(pickles) != 1:
        raise UnusableError(f"is a zip with {len(pickles)} members data.pkl; torch.save writes one")
    folder = pickles[0].removesuffix("data.pkl")
    order = archive.read(f"{folder}byteorder") if f"{folder}byteorder" in names else b"little"
    if order not in (b"little", b"big"):
        raise UnusableError("is damaged: its byte order is neither little nor big")
    pickled = archive.read(pickles[0])
    state_dict, end = run_pickle(pickled, _DIALECT)
    if end != len(pickled):
        raise UnusableError(f"has {len(pickled) - end} bytes after its pickled data")
    tensors = _as_tensors(state_dict)
    values = {}
    for key, storage in _storages(tensors).items():
        member = f"{folder}data/{key}"
        if member not in names:
            raise UnusableError(f"is truncated or damaged: it lacks {member[:60]!r}")
        values[key] = _decode(archive.read(member), storage, "<" if order == b"little" else ">")
    return _view_all(tensors, values)


def _read(path: pathlib.Path) -> dict[str, np.ndarray]:
    if not path.is_file():
        raise UnusableError("does not exist" if not path.exists() else "is not a file")
    size = path.stat().st_size
    if size > MAX_FILE_BYTES:
        raise UnusableError(f"has {size} bytes; allowed: at most {MAX_FILE_BYTES}")
    with path.open("rb") as file:
        beginning = file.read(64)
        if beginning.startswith(_ZIP_BEGINNING):
            with zipfile.ZipFile(file) as archive:
                return _read_zip(archive, size)
        if beginning.startswith(_PICKLE_BEGINNING):
            file.seek(0)
            return _read_legacy(file.read(size))
    if beginning.startswith(b"version https://git-lfs"):
        raise UnusableError("is a Git LFS pointer, not the file itself; run `git lfs pull`")
    raise UnusableError("is not a file that torch.save writes")


def load_tensors(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """Reads the tensors of a state dict that `torch.save` wrote, in either format.

    Nothing that the file names is imported or run, and memory is bounded by a few
    times the size of the file.

    Args:
      path: the file.

    Returns:
      Read-only arrays by name, in the file's order, with the tensors' shapes and strides; tensors
      that share a storage share memory. bfloat16 is the dtype of that name that JAX uses.

    Raises:
      WeightsError: if there is no such file, it is truncated or damaged, or holds anything but
        tensors by name; the text names the file and the function that a pickle asks for.
    """
    path = pathlib.Path(path)
    name = os.fsencode(path).decode(errors="backslashreplace")
    try:
        return _read(path)
    except UnusableError as error:
        raise WeightsError(f"{name}: {error}") from error
    except OSError as error:
        raise WeightsError(f"{name}: cannot be read: {error.strerror or error}") from error
    # zipfile's errors for a damaged archive.
    except (zipfile.BadZipFile, NotImplementedError, EOFError, ValueError, struct.error) as error:
        raise WeightsError(f"{name}: is truncated or damaged: {error}") from error
