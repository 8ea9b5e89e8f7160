"""How the processes of a run agree and share work.

A single process agrees with itself. All processes must make the same calls, since each of these
functions waits for every process.
"""

import json
import os
import pathlib
import socket
import time
import zlib
from collections.abc import Callable
from typing import Any, TypeVar

import jax
import numpy as np

from lensjax.errors import HostError

T = TypeVar("T")
# Network disks may cache for this long that a file does not exist.
_SHARED_SECONDS = 60.0


def is_main() -> bool:
    """Whether this is process 0, the only one that writes files."""
    return jax.process_index() == 0


def barrier(name: str) -> None:
    """Waits until all processes are here.

    Args:
      name: the same in each process.
    """
    if jax.process_count() > 1:
        from jax.experimental import multihost_utils

        multihost_utils.sync_global_devices(name)


def _check_same_call(topic: str) -> None:
    """Refuses processes that do different things, which would mix up their numbers or hang."""
    from jax.experimental import multihost_utils

    tags = multihost_utils.process_allgather(np.uint32(zlib.crc32(topic.encode())))
    if len(set(tags.tolist())) > 1:
        raise HostError(
            f"the processes are doing different things: this one is at {topic}; do they see the "
            "same files?"
        )


def gather_texts(text: str, topic: str = "a text") -> list[str]:
    """The texts of all processes, in their order.

    Args:
      text: this process's text.
      topic: topic of the texts, for messages; the same in each process.

    Raises:
      HostError: if another process makes a different call.
    """
    if jax.process_count() == 1:
        return [text]
    from jax.experimental import multihost_utils

    _check_same_call(topic)
    data = np.frombuffer(text.encode(), np.uint8)
    sizes = multihost_utils.process_allgather(np.asarray(len(data)))
    padded = np.zeros(int(sizes.max()), np.uint8)
    padded[: len(data)] = data
    rows = multihost_utils.process_allgather(padded)
    return [row[:size].tobytes().decode() for row, size in zip(rows, sizes, strict=True)]


def all_agree(flag: bool, topic: str = "a question") -> bool:
    """Whether a flag is set on every process; `topic` as for `gather_texts`."""
    return all(text == "1" for text in gather_texts("1" if flag else "0", topic))


def from_main(compute: Callable[[], Any], topic: str = "an answer") -> Any:
    """A value of JSON types that process 0 computes for all processes.

    Args:
      compute: computes the value; called on process 0 alone.
      topic: as for `gather_texts`.
    """
    if jax.process_count() == 1:
        return compute()
    text = json.dumps(compute()) if is_main() else ""
    return json.loads(gather_texts(text, topic)[0])


def share_rows(function: Callable[..., T], *trees: Any) -> T:
    """Applies a function of rows, with the rows divided among all processes.

    Args:
      function: maps trees of numpy arrays `[n, ...]` to a tree of such arrays, each row by
        itself.
      *trees: numpy arrays `[N, ...]`, the same in each process.
    """
    num_processes, process_index = jax.process_count(), jax.process_index()
    total = len(jax.tree.leaves(trees)[0])
    if total < num_processes or num_processes == 1:
        return function(*trees)
    from jax.experimental import multihost_utils

    _check_same_call(f"{total} rows of {[leaf.shape for leaf in jax.tree.leaves(trees)]}")
    own_rows = np.arange(process_index, total, num_processes)
    own_outputs = function(*jax.tree.map(lambda leaf: leaf[own_rows], trees))
    rows_per_process = -(-total // num_processes)
    padded_total = num_processes * rows_per_process

    def gathered(leaf: np.ndarray) -> np.ndarray:
        padded = np.concatenate([leaf, leaf[-1:].repeat(rows_per_process - len(leaf), axis=0)])
        # As bytes: JAX would round 64 bits to 32.
        raw = np.ascontiguousarray(padded).reshape(rows_per_process, -1).view(np.uint8)
        by_process = np.asarray(multihost_utils.process_allgather(raw))  # [processes, rows, bytes]
        rows = np.ascontiguousarray(np.swapaxes(by_process, 0, 1)).reshape(padded_total, -1)
        return rows.view(leaf.dtype).reshape(padded_total, *leaf.shape[1:])[:total]

    return jax.tree.map(gathered, own_outputs)


def main_first(function: Callable[[], T]) -> T:
    """Runs a function on process 0 and then on the others, which can read what it wrote."""
    if is_main():
        result = function()
        barrier("process 0 has been first")
        return result
    barrier("process 0 has been first")
    return function()


def _comes(path: pathlib.Path, timeout_s: float) -> bool:
    """Whether a file appears in time; a network disk shows new files late."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        if path.parent.is_dir() and path.name in os.listdir(path.parent):
            return True
        time.sleep(0.2)
    return False


def _not_seeing(path: pathlib.Path) -> list[str]:
    """The processes that do not see a file of process 0."""
    sees = is_main() or _comes(path, _SHARED_SECONDS)
    hosts = gather_texts("" if sees else socket.gethostname(), path.name)
    return [f"process {number} ({host})" for number, host in enumerate(hosts) if host]


def check_seen(path: pathlib.Path) -> None:
    """Checks that all processes see a file that process 0 sees.

    Raises:
      HostError: if a process does not see it, even after a while.
    """
    if jax.process_count() == 1:
        return
    blind = _not_seeing(path)
    if blind:
        raise HostError(
            f"{path} does not exist on {', '.join(blind)}, although process 0 sees it; choose a "
            "workdir on a disk that all hosts share"
        )


def check_shared(folder: pathlib.Path) -> None:
    """Checks that all processes see the same folder.

    Args:
      folder: process 0 makes it if it is missing.

    Raises:
      HostError: if a process does not see what process 0 writes.
    """
    if jax.process_count() == 1:
        return
    token = folder / ".seen_by_all_processes"
    if is_main():
        folder.mkdir(parents=True, exist_ok=True)
        token.write_text("")
    barrier("a file that all see is written")
    blind = _not_seeing(token)
    if is_main():
        token.unlink()
    if blind:
        raise HostError(
            f"--workdir={folder} is not the same folder on every host: {', '.join(blind)} cannot "
            "see what process 0 writes there; choose a folder on a disk that all hosts share"
        )
