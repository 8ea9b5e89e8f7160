"""How the batch of a train step lies on devices and hosts: `jit` and `pmap` forms of one step.

Loss and gradient come from one program for each device, which sees its own part of the batch and
takes means over all devices. Under `jit` this part is mapped over a mesh and the rest of the step
is one program whose state the compiler may divide; under `pmap` the whole step is mapped.
"""

import functools
from collections.abc import Callable
from typing import Any, Protocol, Self

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.sharding import Mesh, PartitionSpec

from lensjax.devices.mesh import BATCH_AXES, over_batch, replicated, state_shardings
from lensjax.interfaces import Places

_AXIS = "devices"
PartFn = Callable[..., Any]


class Spread(Protocol):
    """Where the examples of a batch are, for the body of a step and for its feed."""

    @property
    def mesh(self) -> Mesh:
        """The devices."""
        ...

    @property
    def batch_size(self) -> int:
        """Images a step, on all devices together."""
        ...

    def for_rows(self) -> "Spread":
        """Gives the same spread for a step whose arguments are rows of the batch, divided."""
        ...

    def on_parts(self, part_fn: PartFn) -> PartFn:
        """Makes `(params, step, *arguments) -> mean` over the devices; traced.

        Args:
          part_fn: `(places, params, step, *arguments) -> tree` for a part of the batch.
        """
        ...

    def put_rows(self, rows: Any) -> Any:
        """Puts the examples that this host has read into a batch on the devices of all hosts."""
        ...

    def compile(self, step_fn: Callable[..., Any], state: Any, arguments: tuple[Any, ...]) -> Any:
        """Compiles a step that donates its state.

        Args:
          step_fn: `(state, *arguments) -> (state, scalars)`.
          state: arrays as they lie before and after each step.
          arguments: those of a step.
        """
        ...


def own_places(mesh: Mesh, batch_size: int) -> np.ndarray:
    """Which examples of a batch the devices of this host need, in order."""
    indices = over_batch(mesh).addressable_devices_indices_map((batch_size,)).values()
    return np.unique(np.concatenate([np.arange(batch_size)[index] for index in indices]))


def _put(
    rows: Any, mesh: Mesh, places: np.ndarray, batch_size: int, num_devices: int | None
) -> Any:
    """Puts this host's rows on its devices, `[B, ...]`, or `[devices, B / devices, ...]`."""
    sharding = over_batch(mesh)
    if jax.process_count() == 1 and num_devices is None:
        return jax.device_put(rows, sharding)
    rows_per_index = 1 if num_devices is None else batch_size // num_devices

    def put_leaf(held: np.ndarray) -> Array:
        shape = (batch_size, *held.shape[1:])
        if num_devices is not None:
            shape = (num_devices, rows_per_index, *held.shape[1:])

        def rows_at(index: Any) -> np.ndarray:
            start, stop, _ = index[0].indices(shape[0])
            wanted = np.searchsorted(
                places, np.arange(start * rows_per_index, stop * rows_per_index)
            )
            return held[wanted].reshape(stop - start, *shape[1:])

        return jax.make_array_from_callback(shape, sharding, rows_at)

    return jax.tree.map(put_leaf, rows)


def _mean_of_part(part_fn: PartFn, axes: tuple[str, ...], batch_size: int, *arguments: Any) -> Any:
    """The mean over the devices of `part_fn` of each device's part of the batch."""
    size = batch_size // jax.lax.axis_size(axes)
    places = Places(size * jax.lax.axis_index(axes) + jnp.arange(size), batch_size)
    return jax.lax.pmean(part_fn(places, *arguments), axes)


class _OnMesh:
    """The part that both forms share.

    Args:
      mesh: the devices.
      batch_size: images per step, on all devices together.
      rows: whether a step's arguments are rows of the batch, divided over the devices; else each
        device has all of them.
    """

    def __init__(self, mesh: Mesh, batch_size: int, *, rows: bool = False) -> None:
        self.mesh = mesh
        self.batch_size = batch_size
        self._rows = rows
        self._own = own_places(mesh, batch_size)

    def for_rows(self) -> Self:
        """Gives the same spread for a step whose arguments are rows of the batch, divided."""
        return type(self)(self.mesh, self.batch_size, rows=True)


class JitSpread(_OnMesh):
    """A step over a mesh, whose state may be divided."""

    def on_parts(self, part_fn: PartFn) -> PartFn:
        """Maps the part over the mesh; a single device gets the whole batch."""
        if self.mesh.size == 1:
            return functools.partial(part_fn, Places(jnp.arange(self.batch_size), self.batch_size))
        shared_spec, row_spec = PartitionSpec(), PartitionSpec(BATCH_AXES)

        def mapped(params: Any, step: Array, *arguments: Any) -> Any:
            spread = jax.shard_map(
                functools.partial(_mean_of_part, part_fn, BATCH_AXES, self.batch_size),
                mesh=self.mesh,
                in_specs=(
                    shared_spec,
                    shared_spec,
                    *(row_spec if self._rows else shared_spec for _ in arguments),
                ),
                out_specs=shared_spec,
                check_vma=False,
            )
            return spread(params, step, *arguments)

        return mapped

    def put_rows(self, rows: Any) -> Any:
        """Puts arrays `[B, ...]` on the devices; `rows` are the rows of this host."""
        return _put(rows, self.mesh, self._own, self.batch_size, None)

    def compile(self, step_fn: Callable[..., Any], state: Any, arguments: tuple[Any, ...]) -> Any:
        """Compiles the step; the new state has the shardings of the old one."""
        # The shardings are pinned: the step must accept its own output.
        shardings = (state_shardings(self.mesh, state), replicated(self.mesh))
        jitted = jax.jit(step_fn, donate_argnums=0, out_shardings=shardings)
        return jitted.lower(state, *arguments).compile()


class PmapSpread(_OnMesh):
    """A step on each device, which holds the whole state."""

    def on_parts(self, part_fn: PartFn) -> PartFn:
        """Leaves the part as it is: the whole step is mapped."""
        return functools.partial(_mean_of_part, part_fn, (_AXIS,), self.batch_size)

    def put_rows(self, rows: Any) -> Any:
        """Puts arrays `[devices, B / devices, ...]` there; `rows` are the rows of this host."""
        return _put(rows, self.mesh, self._own, self.batch_size, self.mesh.size)

    def compile(self, step_fn: Callable[..., Any], state: Any, arguments: tuple[Any, ...]) -> Any:
        """Compiles the step; state and scalars are the same on each device."""
        # pmap needs an argument with the mapped axis, which those of a `DeviceFeed` do not have.
        own = self.put_rows(self._own)

        def device_step(state: Any, own: Array, *arguments: Any) -> Any:
            del own
            return step_fn(state, *arguments)

        mapped = jax.pmap(
            device_step,
            axis_name=_AXIS,
            in_axes=(None, 0, *(0 if self._rows else None for _ in arguments)),
            out_axes=None,
            donate_argnums=0,
            devices=list(self.mesh.devices.flat),
        )
        # The compiled function takes and returns arrays of all hosts, as the jitted form does.
        compiled = mapped.lower(state, own, *arguments).compile()
        return lambda state, *arguments: compiled(state, own, *arguments)


_SPREADS: dict[str, Callable[[Mesh, int], Spread]] = {"jit": JitSpread, "pmap": PmapSpread}


def make_spread(strategy: str, mesh: Mesh, batch_size: int) -> Spread:
    """Spreads batches over a mesh.

    Args:
      strategy: `jit` or `pmap`.
      mesh: the devices.
      batch_size: images per step, a multiple of their number.
    """
    return _SPREADS[strategy](mesh, batch_size)
