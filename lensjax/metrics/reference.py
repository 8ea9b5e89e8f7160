"""Results on disk that need not be computed again, such as the features of the test split.

A result belongs to a key, a mapping of named parts that says all it depends on: the data's
fingerprint, the extractor's hash, the split, the number of images, the map to 8 bits. The key is
stored inside the file and compared, and files hold arrays, numbers and text alone.
"""

import contextlib
import hashlib
import json
import os
import pathlib
import tempfile
import zipfile
from collections.abc import Callable, Mapping
from typing import IO, Any

import numpy as np
from absl import logging

from lensjax.hosts import all_agree
from lensjax.metrics.frechet import check_features

CACHE_VARIABLE = "LENSJAX_CACHE"

Key = Mapping[str, str | int | float | bool | None]
# What numpy, zipfile and json raise on a file that is not what it should be.
_DAMAGE = (OSError, ValueError, KeyError, TypeError, EOFError, RuntimeError, zipfile.BadZipFile)


def cache_folder(folder: str | os.PathLike[str] | None = None) -> pathlib.Path:
    """Returns where results are kept: `folder`, else `$LENSJAX_CACHE`, else `~/.cache/lensjax`."""
    chosen = folder or os.environ.get(CACHE_VARIABLE) or "~/.cache/lensjax"
    return pathlib.Path(chosen).expanduser()


def _canonical(key: Key) -> str:
    """Returns a key as text, the same for any order of its parts.

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


def _write(path: pathlib.Path, write: Callable[[IO[bytes]], object]) -> None:
    """Writes a file that is whole or not there, whoever else writes it at the same time.

    A folder that cannot be written to costs a warning: the result is in hand.
    """
    partial = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(
            dir=path.parent, prefix=path.name, suffix=".partial", delete=False
        ) as file:
            partial = file.name
            write(file)
        os.replace(partial, path)
    except OSError as error:
        logging.warning("%s was not kept for the next time: %s", path, error)
    finally:
        if partial is not None:
            with contextlib.suppress(OSError):  # it has its name already
                os.unlink(partial)


def _read_features(path: pathlib.Path, key: str) -> np.ndarray | None:
    try:
        # Opened here, because numpy leaves the file of a damaged archive open.
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as file:
            if str(file["key"]) == key:
                features = file["features"]
                check_features(features)
                return features
            logging.warning("%s belongs to another key; computing again", path)
    except FileNotFoundError:
        pass
    except _DAMAGE as error:
        logging.warning("%s is damaged (%s); computing again", path, error)
    return None


def cached_features(
    key: Key, compute: Callable[[], np.ndarray], folder: str | os.PathLike[str] | None = None
) -> np.ndarray:
    """Returns features from the cache, or computes and keeps them.

    Args:
      key: everything that the features depend on.
      compute: makes them, `[N, D]`; called where no whole file of this key is there.
      folder: see `cache_folder`.

    Raises:
      ValueError: for a key that is empty or holds other than text, numbers, bool and None.
    """
    text = _canonical(key)
    path = _path(text, "features", ".npz", folder)
    found = _read_features(path, text)
    if all_agree(found is not None, text) and found is not None:
        return found
    features = compute()
    _write(path, lambda file: np.savez(file, key=np.asarray(text), features=features))
    return features


def _read_json(path: pathlib.Path, key: str) -> tuple[bool, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["key"] == json.loads(key):
            return True, content["result"]
        logging.warning("%s belongs to another key; computing again", path)
    except FileNotFoundError:
        pass
    except _DAMAGE as error:
        logging.warning("%s is damaged (%s); computing again", path, error)
    return False, None


def cached_json(
    key: Key, compute: Callable[[], Any], folder: str | os.PathLike[str] | None = None
) -> Any:
    """Returns a result of JSON types from the cache, or computes and keeps it.

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
    there, found = _read_json(path, text)
    if all_agree(there, text):  # what is computed may need all hosts
        return found
    content = {"key": json.loads(text), "result": compute()}
    encoded = json.dumps(content, indent=2, allow_nan=False)
    _write(path, lambda file: file.write(encoded.encode()))
    return json.loads(encoded)["result"]
