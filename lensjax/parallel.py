"""Devices: the mesh, and how arrays lie on it."""

import jax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from lensjax.config import Config, ConfigError


def make_mesh(config: Config) -> Mesh:
    """Returns a mesh with the one axis `data` over the devices of the configuration.

    Raises:
      ConfigError: for more devices than there are, or a batch that they do not divide.
    """
    available = jax.device_count()
    wanted = config.parallel.num_devices or available
    if wanted > available:
        raise ConfigError(
            "parallel.num_devices", wanted, f"allowed: at most the {available} devices there are"
        )
    if config.train.batch_size % wanted:
        raise ConfigError(
            "train.batch_size",
            config.train.batch_size,
            f"allowed: a multiple of the number of devices, {wanted}",
        )
    return jax.make_mesh(
        (wanted,), ("data",), axis_types=(AxisType.Auto,), devices=jax.devices()[:wanted]
    )


def replicated(mesh: Mesh) -> NamedSharding:
    """Returns the sharding of what every device holds whole."""
    return NamedSharding(mesh, PartitionSpec())


def over_batch(mesh: Mesh) -> NamedSharding:
    """Returns the sharding of arrays whose first axis is the batch."""
    return NamedSharding(mesh, PartitionSpec("data"))
