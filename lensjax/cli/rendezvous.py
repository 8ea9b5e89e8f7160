"""How the processes of a run find each other, check that they go together, and part again.

They meet at the address of process 0. JAX aborts where one does not come or a port is taken, and no
program could catch that; so all that can be checked before is checked before.
"""

import atexit
import json
import os
import re
import socket
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import NamedTuple

import jax
from absl import logging

from lensjax.cli.command_line import end_now
from lensjax.cli.peers import FAILED, WAIT_SECONDS, Peers
from lensjax.config import Config, flat, to_dict
from lensjax.config.parallel import ADDRESS, AUTO, ONE, OWN_FIELDS, SLURM, TPU, ParallelConfig
from lensjax.devices.hosts import barrier, gather_texts
from lensjax.errors import ConfigError, HostError, UserError
from lensjax.run.provenance import PACKAGE, code_hash, versions
from lensjax.training.stopping import jax_handler_set_aside

_PROBE_SECONDS = 1.0
# JAX waits longer than lensjax does: it ends by an abort without advice.
_SPARE_SECONDS = 30
# The variables that SLURM sets for each task of a job step.
_SLURM_NAMES = ("SLURM_JOB_ID", "SLURM_PROCID", "SLURM_STEP_NODELIST", "SLURM_STEP_NUM_TASKS")
_MOST_DIFFERENCES = 8


class Address(NamedTuple):
    """Where processes meet.

    Attributes:
      coordinator: `host:port` of process 0; None if JAX finds it.
      num_processes: how many take part; None likewise.
      process_id: which of them this one is; None likewise.
      local_devices: the accelerators of this host that are its own; None for all.
    """

    coordinator: str | None
    num_processes: int | None
    process_id: int | None
    local_devices: tuple[int, ...] | None = None


def find_address(parallel: ParallelConfig, environment: Mapping[str, str]) -> Address | None:
    """Where processes meet, None for a process that is alone.

    Args:
      parallel: the `parallel` section.
      environment: the variables of the process.

    Raises:
      ConfigError: if a part of the address is missing.
    """
    kind = parallel.hosts
    coordinator = parallel.coordinator or environment.get("JAX_COORDINATOR_ADDRESS")
    in_step = all(name in environment for name in _SLURM_NAMES)
    if kind == AUTO:
        if parallel.num_processes is not None:
            kind = ADDRESS
        elif in_step and int(environment["SLURM_STEP_NUM_TASKS"]) > 1:
            kind = SLURM
        elif parallel.coordinator is not None:
            kind = ADDRESS
        else:
            kind = ONE
    if kind == ONE:
        return None
    if kind == TPU:
        return Address(None, None, None)
    if kind == SLURM:
        return _slurm_address(coordinator, environment)
    if coordinator is None:
        raise ConfigError(
            "parallel.coordinator", None, "allowed: host:port of process 0, such as node7:7654"
        )
    if parallel.num_processes is None or parallel.process_id is None:
        name = "num_processes" if parallel.num_processes is None else "process_id"
        raise ConfigError(
            f"parallel.{name}", None, f"allowed: an integer with the coordinator {coordinator}"
        )
    return Address(coordinator, parallel.num_processes, parallel.process_id)


def _slurm_address(coordinator: str | None, environment: Mapping[str, str]) -> Address:
    missing = [name for name in _SLURM_NAMES if name not in environment]
    if missing:
        raise ConfigError(
            "parallel.hosts",
            SLURM,
            f"allowed: only within srun, which sets {', '.join(missing)}; elsewhere another value",
        )
    # The first node of a list such as node[003-010,012] or a1,b2; the port is one of this job's.
    first_node = re.match(r"([^,\[]+)(?:\[([^,\-\]]+))?", environment["SLURM_STEP_NODELIST"])
    assert first_node is not None
    port = 61_440 + int(environment["SLURM_JOB_ID"]) % 4096
    return Address(
        coordinator or f"{first_node[1]}{first_node[2] or ''}:{port}",
        int(environment["SLURM_STEP_NUM_TASKS"]),
        int(environment["SLURM_PROCID"]),
        _slurm_devices(environment),
    )


def _slurm_devices(environment: Mapping[str, str]) -> tuple[int, ...] | None:
    """A task's own accelerator where a node has several tasks that see several of them."""
    counts: list[int] = []  # of a list such as 8(x2),4
    for group in environment.get("SLURM_STEP_TASKS_PER_NODE", "1").split(","):
        tasks, _, times = group.rstrip(")").partition("(x")
        counts += [int(tasks)] * int(times or 1)
    node, local = int(environment.get("SLURM_NODEID", 0)), int(environment.get("SLURM_LOCALID", 0))
    visible = environment.get("CUDA_VISIBLE_DEVICES")
    if counts[min(node, len(counts) - 1)] == 1:
        return None
    if visible is not None and len(visible.split(",")) <= local:
        return None  # SLURM has bound each task to its own
    return (local,)


def _probe(coordinator: str, timeout_s: float) -> None:
    """Waits until process 0 listens; JAX would abort without an exception to catch."""
    host, _, port = coordinator.rpartition(":")
    deadline, reason = time.monotonic() + timeout_s, "nothing was tried"
    while time.monotonic() < deadline:
        try:
            left = max(0.1, min(_PROBE_SECONDS, deadline - time.monotonic()))
            socket.create_connection((host.strip("[]"), int(port)), left).close()
            return
        except OSError as error:
            reason = str(error)
        time.sleep(0.2)
    raise HostError(
        f"parallel.coordinator: nobody answers at {coordinator} after {timeout_s:g} s ({reason}). "
        "Is process 0 running there, is the name right, and may this host connect to the port? "
        "Raise parallel.start_timeout_s to wait longer"
    )


def _check_port(coordinator: str) -> None:
    """Refuses a port that another program listens on; JAX would crash."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("", int(coordinator.rpartition(":")[2])))
        except (OSError, OverflowError) as error:
            raise HostError(
                f"parallel.coordinator: process 0 cannot listen at {coordinator} ({error}); "
                "another program may be using the port; choose another port"
            ) from error


@contextmanager
def _deadline(address: Address, timeout_s: float) -> Iterator[None]:
    """Ends the process with a message where the others do not come in time."""

    def give_up() -> None:
        print(
            f"after {timeout_s:g} s, not all {address.num_processes or ''} processes have joined "
            f"{address.coordinator or 'the pod'}; this is process {address.process_id}. Look at "
            "the messages of the others; raise parallel.start_timeout_s to wait longer",
            file=sys.stderr,
        )
        end_now(FAILED)

    timer = threading.Timer(timeout_s, give_up)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _look_ahead(address: Address, timeout: float) -> None:
    """Finds the errors that would make JAX abort."""
    if address.coordinator is not None and address.process_id:
        _probe(address.coordinator, timeout)
    elif address.coordinator is not None:
        _check_port(address.coordinator)
        logging.info("waiting for %d processes at %s", address.num_processes, address.coordinator)


def _join(address: Address, parallel: ParallelConfig) -> None:
    try:
        with jax_handler_set_aside():
            jax.distributed.initialize(
                coordinator_address=address.coordinator,
                num_processes=address.num_processes,
                process_id=address.process_id,
                local_device_ids=address.local_devices,
                # Where the address is known, there is nothing to find out; JAX would take a device.
                cluster_detection_method="deactivate" if address.coordinator else None,
                initialization_timeout=int(parallel.start_timeout_s) + _SPARE_SECONDS,
                heartbeat_timeout_seconds=int(2 * parallel.heartbeat_timeout_s) + 1,
            )
    except (RuntimeError, ValueError) as error:
        where = address.coordinator or "the pod"
        raise HostError(f"parallel.hosts: JAX cannot join {where}: {error}") from error


@contextmanager
def joined(config: Config) -> Iterator[None]:
    """Joins the processes of a run for as long as it is open; alone it does nothing.

    Must be entered before JAX looks at its devices.

    Args:
      config: the configuration.

    Raises:
      ConfigError: for an address that is not complete.
      HostError: for a coordinator that does not answer, or processes of other configuration, code
        or packages.
    """
    address = find_address(config.parallel, os.environ)
    if address is None:
        yield
        return
    _look_ahead(address, config.parallel.start_timeout_s)
    with _deadline(address, config.parallel.start_timeout_s):
        _join(address, config.parallel)
        _check_alike(config)
        host = address.coordinator.rpartition(":")[0] if address.coordinator else None
        peers = Peers(host, config.parallel.heartbeat_timeout_s)
        barrier("all are watched")
    try:
        yield
        barrier("the end of the run")
    except BaseException as error:
        if isinstance(error, Exception) and not isinstance(error, UserError):
            # JAX's error for a lost process is of any kind; `Peers` then ends this process here.
            time.sleep(WAIT_SECONDS)
        reason = " ".join(str(error).split()).rstrip(".") or type(error).__name__
        if peers.close(f"{FAILED} {peers.name} stopped: {reason}\n"):
            atexit.register(end_now, FAILED)  # JAX would wait for the others
        else:
            time.sleep(WAIT_SECONDS)  # for the end that another process brings
        raise
    peers.close()
    jax.distributed.shutdown()


def _description(config: Config) -> dict[str, str]:
    """The settings and versions that must be the same in all processes, by name."""
    own = {f"parallel.{name}" for name in OWN_FIELDS}
    fields = {name: repr(value) for name, value in flat(to_dict(config)).items()}
    folders = [PACKAGE, *(path for path in sorted(PACKAGE.rglob("*")) if path.is_dir())]
    code = {"the code of lensjax": code_hash(*folders)}
    packages = {f"the version of {name}": version for name, version in versions().items()}
    return {name: text for name, text in fields.items() if name not in own} | code | packages


def _check_alike(config: Config) -> None:
    """Refuses processes with another configuration, code or versions than those of process 0."""
    own = {"host": socket.gethostname(), **_description(config)}
    descriptions = [json.loads(text) for text in gather_texts(json.dumps(own))]
    first, lines = descriptions[0], []
    for number, description in enumerate(descriptions):
        for name in sorted((first.keys() | description.keys()) - {"host"}):
            if first.get(name) != description.get(name):
                lines.append(
                    f"{name}: {description.get(name)} on process {number} ({description['host']}), "
                    f"{first.get(name)} on process 0 ({first['host']})"
                )
    if lines:
        more = len(lines) - _MOST_DIFFERENCES
        shown = "\n  ".join(lines[:_MOST_DIFFERENCES])
        raise HostError(
            "the processes of this run differ; allowed: the same configuration, code and packages "
            "on every host (with parallel.hosts=one, each runs alone). These differ:\n"
            f"  {shown}" + (f"\n  and {more} more" if more > 0 else "")
        )
