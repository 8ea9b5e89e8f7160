"""Writes files so that each is complete or absent, even if the process is killed."""

import contextlib
import json
import os
import pathlib
import uuid
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from lensjax.errors import FileError, UserError


@contextlib.contextmanager
def replacing(path: pathlib.Path, *, shared: bool = False) -> Iterator[pathlib.Path]:
    """Yields a file to write, which replaces `path` unless an exception is raised.

    Args:
      path: the file; its folder is made.
      shared: whether several processes may write it at the same time, as in a cache; each then
        writes a partial file of its own. Otherwise the next process overwrites a partial file that
        a killed one left.

    Raises:
      FileError: if the disk or its permissions do not allow it.
    """
    middle = f".{uuid.uuid4().hex[:8]}" if shared else ""
    partial = path.with_name(f"{path.name}{middle}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield partial
        os.replace(partial, path)
    except BaseException as error:
        with contextlib.suppress(OSError):
            partial.unlink()
        ours = (None, *map(os.fspath, (partial, path, *path.parents)))
        # Other errors are about files that were read meanwhile, or have a message already.
        if (
            isinstance(error, OSError)
            and not isinstance(error, UserError)
            and error.filename in ours
        ):
            raise FileError(f"{path} cannot be written: {error.strerror or error}") from error
        raise


def write_bytes(path: pathlib.Path, content: bytes, *, shared: bool = False) -> None:
    """Writes a file; arguments and errors as for `replacing`."""
    with replacing(path, shared=shared) as partial:
        partial.write_bytes(content)


def write_text(path: pathlib.Path, text: str, *, shared: bool = False) -> None:
    """Writes a text file in UTF-8; arguments and errors as for `replacing`."""
    write_bytes(path, text.encode(), shared=shared)


def write_json(path: pathlib.Path, content: Mapping[str, Any], *, shared: bool = False) -> None:
    """Writes a JSON file; arguments and errors as for `replacing`."""
    write_text(path, json.dumps(content, indent=2) + "\n", shared=shared)


def write_array(path: pathlib.Path, array: np.ndarray) -> None:
    """Writes a `.npy` file; errors as for `replacing`."""
    with replacing(path) as partial, partial.open("wb") as file:
        np.save(file, array, allow_pickle=False)
