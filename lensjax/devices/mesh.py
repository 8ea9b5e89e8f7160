"""Devices: the mesh, and how arrays lie on it, on one host or several."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from lensjax.errors import ConfigError

# The batch is divided over both axes, the state over the second one alone.
DATA_AXIS, SHARD_AXIS = "data", "shard"
BATCH_AXES = (DATA_AXIS, SHARD_AXIS)
# Smaller arrays are not worth a transfer of their own.
_LEAST_SHARDED_ELEMENTS = 2**10


def mesh_shape(
    num_devices: int | None = None, shape: tuple[int, ...] | None = None
) -> tuple[int, int]:
    """The devices along the axes `data` and `shard`.

    Args:
      num_devices: `parallel.num_devices`; None for all.
      shape: `parallel.mesh`; None for all of them along `data`.

    Raises:
      ConfigError: for more devices than there are, for fewer than all on several hosts, or for a
        mesh whose product is another number of devices.
    """
    available = jax.device_count()
    wanted = num_devices or available
    if wanted > available:
        raise ConfigError(
            "parallel.num_devices", wanted, f"allowed: at most the {available} available devices"
        )
    if wanted < available and jax.process_count() > 1:
        raise ConfigError(
            "parallel.num_devices",
            wanted,
            f"allowed: None or {available}, all devices of the {jax.process_count()} hosts",
        )
    data, shard = shape or (wanted, 1)
    if data * shard != wanted:
        raise ConfigError(
            "parallel.mesh",
            shape,
            f"{data} times {shard} is {data * shard}; allowed: two integers whose "
            f"product is {wanted}, the number of devices",
        )
    return data, shard


def make_mesh(num_devices: int | None = None, shape: tuple[int, ...] | None = None) -> Mesh:
    """A mesh with the axes `data` and `shard`; arguments and errors as for `mesh_shape`."""
    data, shard = mesh_shape(num_devices, shape)
    return _mesh(tuple(jax.devices()[: data * shard]), (data, shard))


@functools.cache
def _mesh(devices: tuple[jax.Device, ...], shape: tuple[int, int]) -> Mesh:
    # In JAX's order, which has a host's devices together; `jax.make_mesh` refuses a mesh that
    # does not fit the wiring of TPUs, and the only exchange is a mean over all devices.
    grid = np.asarray(devices).reshape(shape)
    return Mesh(grid, BATCH_AXES, axis_types=(AxisType.Auto, AxisType.Auto))


def all_devices(most: int | None = None) -> Mesh:
    """A mesh of all devices along `data`; on a single host, of the first `most` devices.

    Args:
      most: how many may be used; None for all.
    """
    devices = jax.devices()
    if jax.process_count() == 1:
        devices = devices[:most]
    return _mesh(tuple(devices), (len(devices), 1))


def replicated(mesh: Mesh) -> NamedSharding:
    """The sharding of arrays that every device holds in full."""
    return NamedSharding(mesh, PartitionSpec())


def over_batch(mesh: Mesh) -> NamedSharding:
    """The sharding of arrays whose first axis is the batch."""
    return NamedSharding(mesh, PartitionSpec(BATCH_AXES))


def state_shardings(mesh: Mesh, tree: Any) -> Any:
    """How each array of a train state lies on a mesh.

    Along `shard`, each device holds its part of the longest axis that can be divided (as in ZeRO
    stage 3, Rajbhandari et al. 2020, arXiv:1910.02054); along `data` all hold the same.

    Args:
      mesh: the devices.
      tree: arrays, or their shapes and dtypes.
    """
    num_shards = mesh.shape[SHARD_AXIS]

    def sharding(leaf: Any) -> NamedSharding:
        axes = [axis for axis, size in enumerate(leaf.shape) if size % num_shards == 0]
        if num_shards == 1 or not axes or leaf.size < _LEAST_SHARDED_ELEMENTS:
            return replicated(mesh)
        longest = max(axes, key=lambda axis: leaf.shape[axis])
        names = [SHARD_AXIS if axis == longest else None for axis in range(leaf.ndim)]
        return NamedSharding(mesh, PartitionSpec(*names))

    return jax.tree.map(sharding, tree)


def put(tree: Any, sharding: NamedSharding) -> Any:
    """Puts arrays that every host holds alike on the devices of all hosts.

    Args:
      tree: arrays of numpy, on devices of this host, or on those of all.
      sharding: sharding of the arrays on the devices.
    """
    alone = jax.process_count() == 1

    def put_leaf(leaf: Any) -> jax.Array:
        on_devices = isinstance(leaf, jax.Array)
        if on_devices and leaf.sharding == sharding:
            return leaf
        if alone or (on_devices and not leaf.is_fully_addressable):
            return jax.device_put(leaf, sharding)
        held = np.asarray(leaf)
        return jax.make_array_from_callback(held.shape, sharding, lambda index: held[index])

    return jax.tree.map(put_leaf, tree)


def to_host(array: Any) -> np.ndarray:
    """Converts an array to numpy; an array divided over several hosts is gathered by all."""
    if isinstance(array, jax.Array) and not (
        array.is_fully_addressable or array.is_fully_replicated
    ):
        from jax.experimental import multihost_utils

        return multihost_utils.process_allgather(array, tiled=True)
    return np.asarray(jax.device_get(array))


def rows_of_a_turn(mesh: Mesh, total: int, most: int) -> int:
    """The number of rows for one call of a function from `on_each_device`.

    Args:
      mesh: the devices.
      total: rows in all; if one call can take them, they are divided among the devices.
      most: rows for a device.
    """
    return mesh.size * min(most, -(-total // mesh.size))


def on_each_device(function: Callable[..., Any], mesh: Mesh) -> Callable[..., Any]:
    """Makes a function that divides its rows among all devices of a mesh.

    Each device runs the same program on `[B, ...]`, so that results are the same to the last bit
    for any number of devices.

    Args:
      function: `(shared, *rows [B, ...]) -> rows [B, ...]`, each row by itself.
      mesh: D devices.

    Returns:
      `(shared, *rows [D B, ...]) -> numpy rows [D B, ...]` with numpy arrays for rows; on several
      hosts all call it with the same arguments and get all rows.
    """
    row_spec, shared_spec = PartitionSpec(BATCH_AXES), PartitionSpec()

    def all_rows(shared: Any, *arrays: jax.Array) -> Any:
        spread = jax.shard_map(
            function,
            mesh=mesh,
            in_specs=(shared_spec, *(row_spec for _ in arrays)),
            out_specs=row_spec,
            check_vma=False,
        )
        return spread(shared, *arrays)

    jitted = jax.jit(all_rows, out_shardings=replicated(mesh))

    def call(shared: Any, *arrays: np.ndarray) -> Any:
        spread = put(arrays, over_batch(mesh))
        return jax.device_get(jitted(put(shared, replicated(mesh)), *spread))

    return call
