"""How training images reach the train step: kept on the devices, or read from disk ahead of it.

A feed knows where the images live and how its batches are divided over the devices. Both kinds read
through the same indices, so that both give the same batches bit for bit.
"""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from absl import logging
from jax import Array

from lensjax.data.dataset import DatasetInfo, Examples, LensSplit, Split
from lensjax.data.order import whole_order
from lensjax.data.pipeline import (
    EpochOrder,
    batch_indices,
    epoch_of,
    epoch_order,
)
from lensjax.devices.hosts import from_main
from lensjax.devices.machine import device_bytes, memory_bytes
from lensjax.devices.mesh import put, replicated
from lensjax.devices.spread import Spread, own_places
from lensjax.errors import DataError
from lensjax.interfaces import Batch, Places

# The images may take this share of the memory; the rest is for the network and its activations.
_MEMORY_SHARE = 0.25
_READ_THREADS = 2
_BATCHES_AHEAD = 4  # at least
_LAST_STEP = 2**31 - 1


# (state, *arguments of the feed) -> (next state, scalars).
StepFn = Callable[..., tuple[Any, Any]]


class Feed(Protocol):
    """The training images on their way to a step, which is the same for every kind of feed.

    Attributes:
      spread: how a batch of this feed lies on the devices.
    """

    spread: Spread

    def arguments(self, step: int) -> tuple[Any, ...]:
        """Gives the arguments of the dispatch that begins at a step; their shapes never change."""
        ...

    def batch(self, step: Array, places: Places, *arguments: Any) -> Batch:
        """Gives the examples at places of a step's batch, in flux units; traced inside the step."""
        ...

    def stack(self, step_fn: StepFn) -> StepFn:
        """Joins the steps of a dispatch, so that the host is asked less often.

        Args:
          step_fn: `(state, *arguments of one step) -> (state, scalars)`.

        Returns:
          `(state, *arguments of the dispatch) -> (state, scalars [steps])`.
        """
        ...

    def compile(self, step_fn: StepFn, state: Any) -> StepFn:
        """Compiles a dispatch once; it refuses other shapes instead of compiling again.

        Args:
          step_fn: see `stack`.
          state: arrays as they lie before and after each step, `step` among them.
        """
        ...

    def close(self) -> None:
        """Releases its threads and buffers."""
        ...


def _make_steps(step_fn: StepFn, state: Any, own: tuple[Any, ...]) -> tuple[Any, Any]:
    """Makes one step for each element of `own`: `step_fn(state, element) -> (state, scalars)`."""
    if len(own) == 1:  # a loop of one step would still be compiled as a loop
        state, scalars = step_fn(state, own[0])
        return state, jax.tree.map(lambda value: value[None], scalars)
    stacked = jax.tree.map(lambda *steps: jnp.stack(steps), *own)
    return jax.lax.scan(step_fn, state, stacked, length=len(own))


def stack_steps(step_fn: StepFn, count: int) -> StepFn:
    """Joins steps that share all arguments; see `Feed.stack`."""

    def dispatch(state: Any, *arguments: Any) -> tuple[Any, Any]:
        return _make_steps(lambda state, _: step_fn(state, *arguments), state, (None,) * count)

    return dispatch


class DeviceFeed:
    """Keeps a whole split on the devices and gathers inside the step.

    Args:
      split: the examples.
      seed: the run's seed.
      spread: the devices, each of which needs all of the arrays, and images per step.
      steps_per_dispatch: steps that are made without the host.
      variance: whether the step needs the variance of each pixel.
    """

    def __init__(
        self,
        split: LensSplit,
        seed: int,
        spread: Spread,
        steps_per_dispatch: int = 1,
        *,
        variance: bool = False,
    ) -> None:
        self.spread = spread
        self._steps_per_dispatch = steps_per_dispatch
        self._seed = seed
        self._batch_size = spread.batch_size
        self._num_examples = len(split)
        self._sharding = replicated(spread.mesh)
        self._images = put(split.images, self._sharding)
        self._labels = put(split.labels, self._sharding)
        self._variance = (put(split.variance, self._sharding),) if variance else ()
        self._epoch = -1
        self._order: EpochOrder | None = None

    def arguments(self, step: int) -> tuple[Any, ...]:
        """Gives images `[N, H, W, C]`, labels `[N]`, `EpochOrder` of the step, any variances."""
        epoch = epoch_of(step, self._batch_size, self._num_examples)
        if epoch != self._epoch:
            order = epoch_order(self._seed, epoch, self._batch_size, self._num_examples)
            self._order, self._epoch = put(order, self._sharding), epoch
        return self._images, self._labels, self._order, *self._variance

    def batch(self, step: Array, places: Places, *arguments: Any) -> Batch:
        """Gathers the step's examples, in flux units."""
        images, labels, order, *variances = arguments
        indices = batch_indices(order, step, places)
        variance = variances[0][indices] if variances else None
        return Batch(images[indices], labels[indices], variance=variance)

    def stack(self, step_fn: StepFn) -> StepFn:
        """Joins the steps of a dispatch, which share all arguments."""
        return stack_steps(step_fn, self._steps_per_dispatch)

    def compile(self, step_fn: StepFn, state: Any) -> StepFn:
        """Compiles a dispatch; see `Feed`."""
        return self.spread.compile(self.stack(step_fn), state, self.arguments(int(state.step)))

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
        """Which examples this host reads, as `batch_indices` gives them on its devices."""
        num_examples = len(self._split)
        epoch, first = divmod(step * self._batch_size, num_examples)
        places = first + self._own
        in_epoch, in_next = places[places < num_examples], places[places >= num_examples]
        indices = whole_order(self._seed, epoch, num_examples)[in_epoch]
        if len(in_next):
            rest = whole_order(self._seed, epoch + 1, num_examples)[in_next - num_examples]
            indices = np.concatenate([indices, rest])
        return indices

    def __getitem__(self, step: int) -> Examples:
        return self._split.examples(self.indices(int(step)))


class StreamFeed:
    """Leaves a split where it is and reads each step's batch ahead of its step.

    Threads of Grain read and decode while the devices compute; each host reads what its own
    devices need.

    Args:
      split: the examples; threads read from it.
      seed: the run's seed.
      spread: how a batch lies on the devices, and images per step.
      steps_per_dispatch: steps that are made without the host.
      variance: whether the step needs the variance of each pixel.
    """

    def __init__(
        self,
        split: Split,
        seed: int,
        spread: Spread,
        steps_per_dispatch: int = 1,
        *,
        variance: bool = False,
    ) -> None:
        import grain

        self._num_arrays = 3 if variance else 2
        self.spread = spread.for_rows()
        self._steps_per_dispatch = steps_per_dispatch
        own = own_places(spread.mesh, spread.batch_size)
        self._batches = grain.MapDataset.source(_StepBatches(split, seed, spread.batch_size, own))
        self._options = grain.ReadOptions(
            num_threads=_READ_THREADS,
            prefetch_buffer_size=max(_BATCHES_AHEAD, 2 * steps_per_dispatch),
        )
        self._iterator: Iterator[Examples] | None = None
        self._step = -1
        self._newest: tuple[Any, ...] = ()

    def arguments(self, step: int) -> tuple[Any, ...]:
        """Gives, for each step of the dispatch, images and labels as `Spread.put_rows` puts them.

        Steps one after the other are read ahead; any other step starts the reading anew.
        """
        return tuple(self._read(step + number) for number in range(self._steps_per_dispatch))

    def _read(self, step: int) -> tuple[Any, ...]:
        if step != self._step:
            if self._iterator is None or step != self._step + 1:
                self.close()
                self._iterator = iter(self._batches[step:].to_iter_dataset(self._options))
            examples = tuple(next(self._iterator))[: self._num_arrays]
            self._newest = self.spread.put_rows(examples)
            self._step = step
        return self._newest

    def batch(self, step: Array, places: Places, *arguments: Any) -> Batch:
        """Takes the arguments of one step as a batch, in flux units."""
        del step, places
        image, label, *variances = arguments
        return Batch(image, label, variance=variances[0] if variances else None)

    def stack(self, step_fn: StepFn) -> StepFn:
        """Joins the steps of a dispatch, each of which has its own arguments."""

        def dispatch(state: Any, *steps: Any) -> tuple[Any, Any]:
            return _make_steps(lambda state, rows: step_fn(state, *rows), state, steps)

        return dispatch

    def compile(self, step_fn: StepFn, state: Any) -> StepFn:
        """Compiles a dispatch; see `Feed`."""
        # All steps have arguments of the same shapes, so that one batch is enough to compile.
        arguments = (self._read(int(state.step)),) * self._steps_per_dispatch
        return self.spread.compile(self.stack(step_fn), state, arguments)

    def close(self) -> None:
        """Ends the threads that read ahead."""
        if self._iterator is not None:
            self._iterator.close()  # type: ignore[attr-defined]
        self._iterator = None


class Choice(NamedTuple):
    """A kind of feed and why it was chosen."""

    name: str
    reason: str


def _memory_bytes(mesh: jax.sharding.Mesh) -> tuple[int | None, str]:
    """The memory for images in bytes, None if it is unknown, and the name of its owner."""
    device = mesh.local_devices[0]
    limit = device_bytes(device)
    if limit:
        return limit, f"each {device.platform} device"
    return memory_bytes(), "the machine"


def choose_kind(
    info: DatasetInfo, num_images: int, mesh: jax.sharding.Mesh, *, variance: bool = False
) -> Choice:
    """`device` where the images take little of the memory, else `stream`.

    Args:
      info: the description of the set.
      num_images: images of the split.
      mesh: the devices; each would hold the whole split.
      variance: whether the variance of each pixel would be held too.
    """
    size = 4 * num_images * int(np.prod(info.image_shape)) * (1 + variance)
    memory, owner = _memory_bytes(mesh)
    if memory is None:
        return Choice("stream", f"{owner} does not say how much memory it has")
    share = f"{size / 2**30:.2f} GiB of images are {100 * size / memory:.0f} % of the "
    share += f"{memory / 2**30:.0f} GiB of {owner}; up to {100 * _MEMORY_SHARE:.0f} % may be used"
    return Choice("device" if size <= _MEMORY_SHARE * memory else "stream", share)


def check_batch_size(batch_size: int, info: DatasetInfo, num_images: int) -> None:
    """Raises `DataError` for a batch larger than the split."""
    if batch_size > num_images:
        raise DataError(
            f"train.batch_size: got {batch_size}; allowed: at most the {num_images} images of "
            f"{info.name}"
        )


def open_feed(
    split: Split,
    name: str,
    seed: int,
    spread: Spread,
    steps_per_dispatch: int = 1,
    *,
    variance: bool = False,
) -> Feed:
    """Opens the feed of the training images.

    Args:
      split: the training images.
      name: `data.placement`: `device`, `stream`, or `auto` to choose by memory.
      seed: the run's seed.
      spread: the devices, and images per step.
      steps_per_dispatch: steps that are made without the host.
      variance: whether the step needs the variance of each pixel.

    Raises:
      DataError: for a batch larger than the split.
    """
    check_batch_size(spread.batch_size, split.info, len(split))
    if name == "auto":
        name, reason = from_main(
            lambda: list(choose_kind(split.info, len(split), spread.mesh, variance=variance))
        )
        logging.info("data.placement=auto: %s, because %s", name, reason)
    if name == "device":
        return DeviceFeed(split.in_memory(), seed, spread, steps_per_dispatch, variance=variance)
    return StreamFeed(split, seed, spread, steps_per_dispatch, variance=variance)
