"""The list of a state's arrays that is saved beside them: shape, dtype and checksum of each."""

import json
import zlib
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from lensjax.devices.mesh import to_host
from lensjax.errors import CheckpointError


def _leaves(state: Any) -> dict[str, Any]:
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): leaf
        for path, leaf in jax.tree_util.tree_leaves_with_path(state)
    }


def describe(state: Any) -> dict[str, dict[str, Any]]:
    """Shape, dtype and CRC-32 of each leaf as JSON types, by the leaf's name."""
    result = {}
    for name, leaf in _leaves(state).items():
        content = np.ascontiguousarray(to_host(leaf)).reshape(-1).view(np.uint8)
        shape, dtype = list(leaf.shape), str(leaf.dtype)
        result[name] = {"shape": shape, "dtype": dtype, "crc32": zlib.crc32(content.data)}
    return result


def checksum_of(description: Mapping[str, Any]) -> int:
    """The checksum of the result of `describe`: its own file may be damaged as well."""
    return zlib.crc32(json.dumps(description, sort_keys=True).encode())


def check_fits(saved: Mapping[str, Mapping[str, Any]], expected: Any, step: int) -> None:
    """Checks that a configuration needs the arrays that were saved.

    Raises:
      CheckpointError: if it needs others.
    """
    wanted = {name: (list(leaf.shape), str(leaf.dtype)) for name, leaf in _leaves(expected).items()}
    stored = {name: (leaf["shape"], leaf["dtype"]) for name, leaf in saved.items()}
    for name in sorted(wanted.keys() | stored.keys()):
        if wanted.get(name) != stored.get(name):
            raise CheckpointError(
                f"checkpoint {step} does not fit this configuration: {name} is "
                f"{stored.get(name, 'not there')} and should be {wanted.get(name, 'not there')} "
                "(shape, dtype)"
            )


def check_state(state: Any, saved: Mapping[str, Mapping[str, Any]]) -> None:
    """Checks that a state that was read has the checksums that were saved.

    Raises:
      ValueError: if an array differs.
    """
    changed = [name for name, leaf in describe(state).items() if leaf != saved[name]]
    if changed:
        raise ValueError(f"checksum of {changed[0]} is wrong, {len(changed)} arrays in all")
