"""Where the images live while the network trains: on the devices, or on disk.

Both read through the same indices, so that both give the same batches bit for bit.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import numpy as np
from absl import logging
from jax import Array

from lensjax.data.dataset import DatasetInfo, Examples, LensSplit, Split
from lensjax.data.order import whole_order
from lensjax.data.pipeline import (
    EpochOrder,
    Placement,
    batch_indices,
    epoch_of,
    epoch_order,
)
from lensjax.devices.hosts import from_main
from lensjax.devices.machine import memory_bytes
from lensjax.devices.mesh import put, replicated
from lensjax.devices.spread import Spread, own_places
from lensjax.errors import DataError
from lensjax.interfaces import Batch, Places

# The images may take this share of the memory; the rest is for the network and its activations.
_MEMORY_SHARE = 0.25
_READ_THREADS = 2
_BATCHES_AHEAD = 4  # at least
_LAST_STEP = 2**31 - 1


class DevicePlacement:
    """Keeps a whole split on the devices and gathers inside the step.

    Args:
      split: the examples.
      seed: the run's seed.
      spread: the devices, each of which needs all of the arrays, and images a step.
    """

    gives_rows = False

    def __init__(self, split: LensSplit, seed: int, spread: Spread) -> None:
        self._seed = seed
        self._batch_size = spread.batch_size
        self._num_examples = len(split)
        self._sharding = replicated(spread.mesh)
        self._images = put(split.images, self._sharding)
        self._labels = put(split.labels, self._sharding)
        self._epoch = -1
        self._order: EpochOrder | None = None

    def arguments(self, step: int) -> tuple[Any, ...]:
        """Returns images `[N, H, W, C]`, labels `[N]` and the `EpochOrder` of the step."""
        epoch = epoch_of(step, self._batch_size, self._num_examples)
        if epoch != self._epoch:
            order = epoch_order(self._seed, epoch, self._batch_size, self._num_examples)
            self._order, self._epoch = put(order, self._sharding), epoch
        return self._images, self._labels, self._order

    def batch(self, step: Array, places: Places, *arguments: Any) -> Batch:
        """Gathers the step's examples, in flux units."""
        images, labels, order = arguments
        indices = batch_indices(order, step, places)
        return Batch(images[indices], labels[indices])

    def close(self) -> None:
        """Does nothing: the arrays go with the object."""


class _StepBatches:
    """This host's part of each batch as a sequence that Grain reads from: item k is step k."""

    def __init__(self, split: Split, seed: int, batch_size: int, own: np.ndarray) -> None:
        self._split = split
        self._seed = seed
        self._batch_size = batch_size
        self._own = own

    def __len__(self) -> int:
        return _LAST_STEP

    def indices(self, step: int) -> np.ndarray:
        """Returns which examples this host reads; what `batch_indices` gives on its devices."""
        num_examples = len(self._split)
        epoch, first = divmod(step * self._batch_size, num_examples)
        places = first + self._own
        here, beyond = places[places < num_examples], places[places >= num_examples]
        indices = whole_order(self._seed, epoch, num_examples)[here]
        if len(beyond):
            rest = whole_order(self._seed, epoch + 1, num_examples)[beyond - num_examples]
            indices = np.concatenate([indices, rest])
        return indices

    def __getitem__(self, step: int) -> Examples:
        return self._split.examples(self.indices(int(step)))


class StreamPlacement:
    """Leaves a split where it is and reads each step's batch ahead of its step.

    Threads of Grain read and decode while the devices compute; each host reads what its own
    devices need.

    Args:
      split: the examples; threads read from it.
      seed: the run's seed.
      spread: how a batch lies on the devices, and images a step.
      at_once: steps whose batches are asked for one after the other.
    """

    gives_rows = True

    def __init__(self, split: Split, seed: int, spread: Spread, at_once: int = 1) -> None:
        import grain

        own = own_places(spread.mesh, spread.batch_size)
        batches = _StepBatches(split, seed, spread.batch_size, own)
        self._batches = grain.MapDataset.source(batches)
        self._options = grain.ReadOptions(
            num_threads=_READ_THREADS, prefetch_buffer_size=max(_BATCHES_AHEAD, 2 * at_once)
        )
        self._spread = spread
        self._iterator: Iterator[Examples] | None = None
        self._step = -1
        self._newest: tuple[Any, ...] = ()

    def arguments(self, step: int) -> tuple[Any, ...]:
        """Returns images and labels of the step as `Spread.put_rows` lays them.

        Steps one after the other are read ahead; any other step starts the reading anew.
        """
        if step != self._step:
            if self._iterator is None or step != self._step + 1:
                self.close()
                self._iterator = iter(self._batches[step:].to_iter_dataset(self._options))
            self._newest = self._spread.put_rows(tuple(next(self._iterator)))
            self._step = step
        return self._newest

    def batch(self, step: Array, places: Places, *arguments: Any) -> Batch:
        """Returns the arguments as a batch, in flux units."""
        del step, places
        return Batch(*arguments)

    def close(self) -> None:
        """Ends the threads that read ahead."""
        if self._iterator is not None:
            self._iterator.close()  # type: ignore[attr-defined]
        self._iterator = None


class Choice(NamedTuple):
    """A placement and why it was chosen."""

    name: str
    reason: str


def _memory_bytes(mesh: jax.sharding.Mesh) -> tuple[int | None, str]:
    """Returns the memory of a device, None where nobody says it, and what to call it."""
    device = mesh.local_devices[0]
    limit = (device.memory_stats() or {}).get("bytes_limit")
    if limit:
        return limit, f"each {device.platform} device"
    return memory_bytes(), "the machine"


def choose_placement(info: DatasetInfo, num_images: int, mesh: jax.sharding.Mesh) -> Choice:
    """Returns `device` where the images take little of the memory, else `stream`.

    Args:
      info: what the set has in common.
      num_images: images of the split.
      mesh: the devices; each would hold the whole split.
    """
    size = 4 * num_images * int(np.prod(info.image_shape))
    memory, owner = _memory_bytes(mesh)
    if memory is None:
        return Choice("stream", f"{owner} does not say how much memory it has")
    share = f"{size / 2**30:.2f} GiB of images are {100 * size / memory:.0f} % of the "
    share += f"{memory / 2**30:.0f} GiB of {owner}; up to {100 * _MEMORY_SHARE:.0f} % stay there"
    return Choice("device" if size <= _MEMORY_SHARE * memory else "stream", share)


def check_batch_size(batch_size: int, info: DatasetInfo, num_images: int) -> None:
    """Raises `DataError` for a batch larger than the split."""
    if batch_size > num_images:
        raise DataError(
            f"train.batch_size: got {batch_size}; allowed: at most the {num_images} images of "
            f"{info.name}"
        )


def place(split: Split, name: str, seed: int, spread: Spread, at_once: int = 1) -> Placement:
    """Returns the placement of the training images.

    Args:
      split: the training images.
      name: `device`, `stream`, or `auto` to choose by memory.
      seed: the run's seed.
      spread: the devices, and images a step.
      at_once: steps of a dispatch.

    Raises:
      DataError: for a batch larger than the split.
    """
    check_batch_size(spread.batch_size, split.info, len(split))
    if name == "auto":
        name, reason = from_main(
            lambda: list(choose_placement(split.info, len(split), spread.mesh))
        )
        logging.info("data.placement=auto: %s, because %s", name, reason)
    if name == "device":
        return DevicePlacement(split.in_memory(), seed, spread)
    return StreamPlacement(split, seed, spread, at_once)
