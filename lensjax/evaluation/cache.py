"""Results on disk that need not be computed again, such as the features of the test split.

A result belongs to a key, a mapping that names everything that the result depends on: the data's
fingerprint, the extractor's hash, the split, the number of images, the map to 8 bits. The key is
stored inside the file and compared, and files hold only arrays, numbers and text.
"""

import hashlib
import io
import json
import os
import pathlib
import zipfile
import zlib
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from absl import logging

from lensjax.devices.hosts import all_agree
from lensjax.errors import FileError
from lensjax.files.atomic import write_bytes
from lensjax.files.cache_folder import cache_folder
from lensjax.files.json_file import OBJECT, checked, read_object, whole
from lensjax.metrics.frechet import check_features

Key = Mapping[str, str | int | float | bool | None]
# Errors that numpy, zipfile and json raise on a damaged file.
_DAMAGE = (OSError, ValueError, KeyError, TypeError, EOFError, RuntimeError, zipfile.BadZipFile)


def _canonical(key: Key) -> str:
    """A key as text, the same for any order of its parts.

    Raises:
      ValueError: for an empty key, or parts that are not text, finite numbers, bool or None.
    """
    for name, value in key.items():
        plain = value is None or isinstance(value, (str, int, float, bool))
        if not (isinstance(name, str) and plain):
            raise ValueError(
                f"part {name!r} of the key is {value!r}; allowed: names that are text, and values "
                "that are text, numbers, true, false or none"
            )
    if not key:
        raise ValueError("the key is empty; name what the result depends on")
    return json.dumps(dict(key), sort_keys=True, allow_nan=False)


def _path(key: str, kind: str, suffix: str, folder: str | os.PathLike[str] | None) -> pathlib.Path:
    digest = hashlib.sha256(key.encode()).hexdigest()
    return cache_folder(folder) / f"{kind}-{digest[:40]}{suffix}"


def _keep(path: pathlib.Path, content: bytes) -> None:
    """Writes a file, even if another process writes the same file at the same time.

    A folder that cannot be written to costs only a warning: the result is already computed.
    """
    try:
        write_bytes(path, content)
    except FileError as error:
        logging.warning("%s; the result is not kept for the next run", error)


def _load_features(path: pathlib.Path) -> tuple[str, np.ndarray]:
    if path.exists() and not path.is_file():  # reading a pipe would wait for ever
        raise ValueError("it is not a file")
    # Opened here, because numpy leaves the file of a damaged archive open.
    with path.open("rb") as stream, np.load(stream, allow_pickle=False) as file:
        features = file["features"]
        check_features(features)
        return str(file["key"]), features


def _load_json(path: pathlib.Path) -> tuple[str, Any]:
    content = checked(read_object(path), {"key": OBJECT, "crc32": whole(0, 2**32 - 1)})
    if content["crc32"] != _checksum_of(content["result"]):
        raise ValueError("its checksum is wrong")
    return json.dumps(content["key"], sort_keys=True), content["result"]


def _checksum_of(result: Any) -> int:
    """The checksum of a result of JSON types, before or after it was in a file."""
    return zlib.crc32(json.dumps(result, sort_keys=True).encode())


def _read_result(
    path: pathlib.Path, key: str, load: Callable[[pathlib.Path], tuple[str, Any]]
) -> tuple[bool, Any]:
    """Whether all processes have the result of a key on disk, and the result."""
    is_stored, result = False, None
    try:
        stored, result = load(path)
        is_stored = stored == key
        if not is_stored:
            logging.warning("%s belongs to another key; computing again", path)
    except FileNotFoundError:
        pass
    except _DAMAGE as error:
        logging.warning("%s is damaged (%s); computing again", path, error)
    return all_agree(is_stored, key), result  # computing may need all hosts


def cached_features(
    key: Key, compute: Callable[[], np.ndarray], folder: str | os.PathLike[str] | None = None
) -> np.ndarray:
    """Reads features from the cache, or computes and stores them.

    Args:
      key: everything that the features depend on.
      compute: makes the features, `[N, D]`; called if there is no sound file of this key.
      folder: see `cache_folder`.

    Raises:
      ValueError: for a key that is empty or has values other than text, numbers, bool and None.
    """
    text = _canonical(key)
    path = _path(text, "features", ".npz", folder)
    is_stored, features = _read_result(path, text, _load_features)
    if is_stored:
        return features
    features = compute()
    buffer = io.BytesIO()
    np.savez(buffer, key=np.asarray(text), features=features)
    _keep(path, buffer.getvalue())
    return features


def cached_json(
    key: Key, compute: Callable[[], Any], folder: str | os.PathLike[str] | None = None
) -> Any:
    """Reads a result of JSON types from the cache, or computes and stores it.

    The result is always as decoded from the file, even when just computed: tuples become lists.

    Args:
      key: everything that the result depends on.
      compute: makes the result; called if there is no sound file of this key.
      folder: see `cache_folder`.

    Raises:
      ValueError: for a key that is empty or has values other than text, numbers, bool and None,
        and for a result with NaN or infinity.
      TypeError: for a result of other than JSON types.
    """
    text = _canonical(key)
    path = _path(text, "result", ".json", folder)
    is_stored, result = _read_result(path, text, _load_json)
    if is_stored:
        return result
    result = json.loads(json.dumps(compute(), allow_nan=False))
    content = {"key": json.loads(text), "crc32": _checksum_of(result), "result": result}
    _keep(path, json.dumps(content, indent=2).encode())
    return result
