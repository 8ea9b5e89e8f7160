"""The `parallel` section: devices, hosts, and checks that they fit together."""

import dataclasses

from lensjax.config.fields import MOST_SECONDS, choice, count, make_field, positive
from lensjax.errors import ConfigError

AUTO, ONE, SLURM, TPU, ADDRESS = "auto", "one", "slurm", "tpu", "address"
_ADDRESS_FIELDS = ("coordinator", "num_processes", "process_id")
# Fields that each host sets for itself; all others must be the same on every host.
OWN_FIELDS = ("process_id",)


@dataclasses.dataclass(frozen=True)
class ParallelConfig:
    """How the work is divided among devices and hosts.

    Attributes:
      strategy: `jit`, one program over a mesh of all devices, or `pmap`, one for each device.
      num_devices: devices to use, on all hosts together; None for all.
      mesh: `(data, shard)`, devices along two axes: the batch is divided over both, parameters,
        averages and optimizer state over the second; () for `(num_devices, 1)`, where each device
        holds the whole state.
      hosts: how processes find each other: `auto` (an address if one is given, SLURM where it runs
        more than one task, else one process), `one`, `slurm`, `tpu` (a TPU pod), `address`.
      coordinator: `host:port` of process 0; None for `$JAX_COORDINATOR_ADDRESS`.
      num_processes: number of processes, for `address`.
      process_id: number of this process, from 0, for `address`.
      start_timeout_s: how many seconds processes wait for each other at the start.
      heartbeat_timeout_s: how many seconds a process may be silent before the others end.
    """

    strategy: str = choice("jit", ("jit", "pmap"))
    num_devices: int | None = count(None)
    mesh: tuple[int, ...] = make_field(
        (),
        lambda mesh: mesh == () or (len(mesh) == 2 and min(mesh) >= 1),
        "() or two integers of at least 1, such as (8, 1)",
    )
    hosts: str = choice(AUTO, (AUTO, ONE, SLURM, TPU, ADDRESS))
    coordinator: str | None = make_field(
        None,
        lambda text: text.rpartition(":")[0] != "" and text.rpartition(":")[2].isdigit(),
        "None or host:port, such as node7:7654",
    )
    num_processes: int | None = count(None)
    process_id: int | None = count(None, least=0)
    start_timeout_s: float = positive(300.0, most=MOST_SECONDS)
    heartbeat_timeout_s: float = positive(20.0, most=MOST_SECONDS)


def check_parallel(parallel: ParallelConfig) -> None:
    """Checks the fields as far as they do not depend on the available devices.

    Raises:
      ConfigError: for the first field that is wrong.
    """
    mesh = parallel.mesh
    if mesh and parallel.strategy == "pmap" and mesh[1] > 1:
        raise ConfigError(
            "parallel.mesh",
            mesh,
            f"allowed: ({mesh[0] * mesh[1]}, 1) with parallel.strategy=pmap, where each device "
            "holds the whole state",
        )
    if mesh and parallel.num_devices is not None and mesh[0] * mesh[1] != parallel.num_devices:
        raise ConfigError(
            "parallel.mesh",
            mesh,
            f"{mesh[0]} times {mesh[1]} is {mesh[0] * mesh[1]}; allowed: two integers whose "
            f"product is parallel.num_devices, {parallel.num_devices}",
        )
    if parallel.hosts not in (AUTO, ADDRESS):
        for name in _ADDRESS_FIELDS:
            if getattr(parallel, name) is not None:
                raise ConfigError(
                    f"parallel.{name}",
                    getattr(parallel, name),
                    f"allowed: None with parallel.hosts={parallel.hosts}",
                )
    num_processes, process_id = parallel.num_processes, parallel.process_id
    if (num_processes is None) != (process_id is None):
        name = "num_processes" if num_processes is None else "process_id"
        raise ConfigError(
            f"parallel.{name}",
            None,
            "allowed: an integer; set num_processes and process_id together, or neither",
        )
    if num_processes is not None and process_id is not None and process_id >= num_processes:
        raise ConfigError(
            "parallel.process_id",
            process_id,
            f"allowed: an integer from 0 to {num_processes - 1}, less than parallel.num_processes",
        )
