"""What the processes of a run agree on, and how they share work.

A process that is alone agrees with itself. All of them make the same calls, since each of these
functions waits for every process.
"""

import json
import pathlib
import socket
from collections.abc import Callable
from typing import Any, TypeVar

import jax
import numpy as np

T = TypeVar("T")


class HostError(RuntimeError):
    """Processes that cannot find each other or do not go together."""


def is_main() -> bool:
    """Whether this process writes files, the only one that does."""
    return jax.process_index() == 0


def barrier(name: str) -> None:
    """Waits until all processes are here.

    Args:
      name: the same in each.
    """
    if jax.process_count() > 1:
        from jax.experimental import multihost_utils

        multihost_utils.sync_global_devices(name)


def gather_texts(text: str) -> list[str]:
    """Returns the texts of all processes, in their order."""
    if jax.process_count() == 1:
        return [text]
    from jax.experimental import multihost_utils

    data = np.frombuffer(text.encode(), np.uint8)
    sizes = multihost_utils.process_allgather(np.asarray(len(data)))
    padded = np.zeros(int(sizes.max()), np.uint8)
    padded[: len(data)] = data
    rows = multihost_utils.process_allgather(padded)
    return [row[:size].tobytes().decode() for row, size in zip(rows, sizes, strict=True)]


def all_agree(flag: bool) -> bool:
    """Returns whether a flag is set on every process."""
    return all(text == "1" for text in gather_texts("1" if flag else "0"))


def from_main(compute: Callable[[], Any]) -> Any:
    """Returns what process 0 computes, of JSON types; the others do not compute."""
    text = json.dumps(compute()) if is_main() else ""
    return json.loads(gather_texts(text)[0])


def share_rows(function: Callable[..., T], *trees: Any) -> T:
    """Returns what a function of rows gives, computed by all processes together.

    Args:
      function: maps trees of numpy arrays `[n, ...]` to one of such arrays, each row by itself.
      *trees: numpy arrays `[N, ...]`, the same in each process.
    """
    num, number = jax.process_count(), jax.process_index()
    total = len(jax.tree.leaves(trees)[0])
    if total < num or num == 1:
        return function(*trees)
    from jax.experimental import multihost_utils

    own = np.arange(number, total, num)
    found = function(*jax.tree.map(lambda leaf: leaf[own], trees))
    most = -(-total // num)

    def gathered(leaf: np.ndarray) -> np.ndarray:
        padded = np.concatenate([leaf, leaf[-1:].repeat(most - len(leaf), axis=0)])
        parts = multihost_utils.process_allgather(padded)  # [processes, most, ...]
        return np.swapaxes(parts, 0, 1).reshape(num * most, *leaf.shape[1:])[:total]

    return jax.tree.map(gathered, found)


def main_first(function: Callable[[], T]) -> T:
    """Runs a function on process 0 and then on the others, which meet what it wrote."""
    if is_main():
        result = function()
        barrier("process 0 has been first")
        return result
    barrier("process 0 has been first")
    return function()


def check_shared(folder: pathlib.Path) -> None:
    """Checks that all processes see the same folder.

    Args:
      folder: made by process 0 here if need be.

    Raises:
      HostError: where a process does not see what process 0 writes.
    """
    if jax.process_count() == 1:
        return
    token = folder / ".seen_by_all_processes"
    if is_main():
        folder.mkdir(parents=True, exist_ok=True)
        token.write_text("")
    barrier("a file that all see is written")
    seen = gather_texts(socket.gethostname() if not token.exists() else "")
    if is_main():
        token.unlink()
    blind = [f"process {number} ({host})" for number, host in enumerate(seen) if host]
    if blind:
        raise HostError(
            f"--workdir={folder} is not the same folder on every host: {', '.join(blind)} cannot "
            "see what process 0 writes there; take a folder on a disk that all hosts share"
        )
