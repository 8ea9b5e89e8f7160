"""Results on disk that need not be computed again, such as the features of the test split.

A result belongs to a key, a mapping of named parts that says all it depends on: the data's
fingerprint, the extractor's hash, the split, the number of images, the map to 8 bits. The key is
stored inside the file and compared, and files hold arrays, numbers and text alone.
"""

import hashlib
import io
import json
import os
import pathlib
import zipfile
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from absl import logging

from lensjax.devices.hosts import all_agree
from lensjax.errors import FileError
from lensjax.files.atomic import write_bytes
from lensjax.files.cache_folder import cache_folder
from lensjax.metrics.frechet import check_features

Key = Mapping[str, str | int | float | bool | None]
# What numpy, zipfile and json raise on a file that is not what it should be.
_DAMAGE = (OSError, ValueError, KeyError, TypeError, EOFError, RuntimeError, zipfile.BadZipFile)


def _canonical(key: Key) -> str:
    """A key as text, the same for any order of its parts.

    Raises:
      ValueError: for an empty key, or parts that are not text, finite numbers, bool or None.
    """
    for name, part in key.items():
        plain = part is None or isinstance(part, (str, int, float, bool))
        if not (isinstance(name, str) and plain):
            raise ValueError(
                f"part {name!r} of the key is {part!r}; allowed: names that are text, and values "
                "that are text, numbers, true, false or none"
            )
    if not key:
        raise ValueError("the key is empty; name what the result depends on")
    return json.dumps(dict(key), sort_keys=True, allow_nan=False)


def _path(key: str, kind: str, suffix: str, folder: str | os.PathLike[str] | None) -> pathlib.Path:
    digest = hashlib.sha256(key.encode()).hexdigest()
    return cache_folder(folder) / f"{kind}-{digest[:40]}{suffix}"


def _keep(path: pathlib.Path, content: bytes) -> None:
    """Writes a file, whoever else writes it at the same time.

    A folder that cannot be written to costs a warning: the result is in hand.
    """
    try:
        write_bytes(path, content, shared=True)
    except FileError as error:
        logging.warning("%s; it is not kept for the next time", error)


def _load_features(path: pathlib.Path) -> tuple[str, np.ndarray]:
    # Opened here, because numpy leaves the file of a damaged archive open.
    with path.open("rb") as stream, np.load(stream, allow_pickle=False) as file:
        features = file["features"]
        check_features(features)
        return str(file["key"]), features


def _load_json(path: pathlib.Path) -> tuple[str, Any]:
    content = json.loads(path.read_text(encoding="utf-8"))
    return json.dumps(content["key"], sort_keys=True), content["result"]


def _read(
    path: pathlib.Path, key: str, load: Callable[[pathlib.Path], tuple[str, Any]]
) -> tuple[bool, Any]:
    """Whether all processes have the result of a key on disk, and the result."""
    there, result = False, None
    try:
        stored, result = load(path)
        there = stored == key
        if not there:
            logging.warning("%s belongs to another key; computing again", path)
    except FileNotFoundError:
        pass
    except _DAMAGE as error:
        logging.warning("%s is damaged (%s); computing again", path, error)
    return all_agree(there, key), result  # what is computed may need all hosts


def cached_features(
    key: Key, compute: Callable[[], np.ndarray], folder: str | os.PathLike[str] | None = None
) -> np.ndarray:
    """Reads features from the cache, or computes and keeps them.

    Args:
      key: everything that the features depend on.
      compute: makes them, `[N, D]`; called where no whole file of this key is there.
      folder: see `cache_folder`.

    Raises:
      ValueError: for a key that is empty or holds other than text, numbers, bool and None.
    """
    text = _canonical(key)
    path = _path(text, "features", ".npz", folder)
    there, features = _read(path, text, _load_features)
    if there:
        return features
    features = compute()
    buffer = io.BytesIO()
    np.savez(buffer, key=np.asarray(text), features=features)
    _keep(path, buffer.getvalue())
    return features


def cached_json(
    key: Key, compute: Callable[[], Any], folder: str | os.PathLike[str] | None = None
) -> Any:
    """Reads a result of JSON types from the cache, or computes and keeps it.

    The result is what the file gives back from the first time on: tuples are lists.

    Args:
      key: everything that the result depends on.
      compute: makes it; called where no whole file of this key is there.
      folder: see `cache_folder`.

    Raises:
      ValueError: for a key that is empty or holds other than text, numbers, bool and None, and for
        a result with NaN or infinity.
      TypeError: for a result of other than JSON types.
    """
    text = _canonical(key)
    path = _path(text, "result", ".json", folder)
    there, result = _read(path, text, _load_json)
    if there:
        return result
    content = {"key": json.loads(text), "result": compute()}
    encoded = json.dumps(content, indent=2, allow_nan=False)
    _keep(path, encoded.encode())
    return json.loads(encoded)["result"]
