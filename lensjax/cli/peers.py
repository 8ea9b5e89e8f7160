"""Notices that another process of a run is gone, and says which and how to go on.

JAX ends the other processes too, but later and by an abort that names no host. Here each process
keeps a connection to process 0 and says a few times a second that it lives. A connection that ends
without a goodbye is a process that was killed; one that is silent is a host that is frozen or cut
off. A process that says goodbye with a reason has failed.
"""

import atexit
import contextlib
import os
import secrets
import socket
import sys
import threading
import time
from collections.abc import Callable, Sequence
from multiprocessing import AuthenticationError
from multiprocessing.connection import (
    Client,
    Connection,
    Listener,
    answer_challenge,
    deliver_challenge,
)
from typing import Any

import jax
from absl import logging

_BEATS_PER_TIMEOUT = 4
# For a process that fails by itself with the same error: its own words come first.
_GRACE_SECONDS = 2.0
_CONNECT_SECONDS = 5.0
_BEAT, _LOST, _GOODBYE = "beat", "lost", "goodbye"
_NO_CONNECTION = (OSError, EOFError, AuthenticationError)
GatherFn = Callable[[str], list[str]]


class Peers:
    """The other processes of a run.

    Args:
      connections: by the number of the process at their other end.
      names: host and number of every process, for messages.
      timeout_s: how long one may be silent.
    """

    def __init__(
        self, connections: dict[int, Connection], names: Sequence[str], timeout_s: float
    ) -> None:
        self._connections = dict(connections)
        self._names = names
        self._timeout_s = timeout_s
        self._sending = threading.Lock()
        self._closed = threading.Event()
        self._done = {number: threading.Event() for number in self._connections}
        threads = [threading.Thread(target=self._beat, daemon=True)]
        threads += [
            threading.Thread(target=self._listen, args=pair, daemon=True)
            for pair in self._connections.items()
        ]
        for thread in threads:
            thread.start()

    @classmethod
    def meet(cls, host: str | None, timeout_s: float, gather_texts: GatherFn) -> "Peers":
        """Connects all processes with process 0; each must call it.

        Args:
          host: the name or address of process 0, as the others know it; None for what it calls
            itself.
          timeout_s: how long a process may be silent.
          gather_texts: see `hosts.gather_texts`.
        """
        known = gather_texts(socket.gethostname())
        names = [
            f"process {number} of {jax.process_count()} (host {name})"
            for number, name in enumerate(known)
        ]
        if jax.process_index() == 0:
            connections = _accept_all(gather_texts)
        else:
            port, key = gather_texts("")[0].split()
            connections = _connect(host or known[0], int(port), key.encode())
        together = gather_texts("1" if connections else "")
        deadline = time.monotonic() + timeout_s
        while jax.process_index() == 0 and len(connections) < sum(map(bool, together[1:])):
            if time.monotonic() > deadline:
                break
            time.sleep(0.01)
        if not all(together[1:]):
            blind = [names[number] for number, text in enumerate(together) if number and not text]
            logging.warning(
                "%s cannot be watched: no connection to process 0; a lost process is noticed by "
                "JAX alone",
                ", ".join(blind),
            )
        return cls(connections, names, timeout_s)

    def close(self, reason: str = "") -> None:
        """Says goodbye, and at the regular end waits until all others have.

        Args:
          reason: why this process cannot go on; the others then end as well. Empty for the regular
            end.
        """
        if reason:
            self._say_goodbye(reason)
            # JAX's own end would wait for processes that are about to be ended.
            atexit.register(_leave)
        elif jax.process_index() == 0:
            self._wait_for_all()
            self._say_goodbye("")
        else:
            self._say_goodbye("")
            self._wait_for_all()
        self._closed.set()

    def _say_goodbye(self, reason: str) -> None:
        if reason:
            self._closed.set()
        for number in self._connections:
            self._send(number, (_GOODBYE, reason))

    def _wait_for_all(self) -> None:
        """Waits for the goodbyes; a process that is lost meanwhile ends this one too."""
        for done in self._done.values():
            done.wait()

    def explain(self) -> None:
        """Gives the news of a lost process time to come where JAX has failed without it.

        If one is lost, this process ends here with a message about it.
        """
        time.sleep(2 * _GRACE_SECONDS)

    def _send(self, number: int, message: tuple[Any, ...]) -> None:
        with self._sending, contextlib.suppress(OSError):
            self._connections[number].send(message)

    def _beat(self) -> None:
        while not self._closed.wait(self._timeout_s / _BEATS_PER_TIMEOUT):
            for number in self._connections:
                self._send(number, (_BEAT,))

    def _listen(self, number: int, connection: Connection) -> None:
        try:
            while connection.poll(self._timeout_s):
                kind, *rest = connection.recv()
                if kind == _GOODBYE:
                    if rest[0] and not self._closed.is_set():
                        time.sleep(_GRACE_SECONDS)
                        self._end(number, f"stopped: {rest[0]}", failed=True)
                    self._done[number].set()
                    return
                if kind == _LOST:
                    lost, why = rest
                    self._end(lost, why, told=True)
            why = f"was silent for {self._timeout_s:g} s: it is frozen or cannot be reached"
        except (EOFError, OSError):
            why = "was lost: its connection ended, so it was killed or its host went down"
        if not self._closed.is_set():
            self._end(number, why)

    def _end(self, number: int, why: str, *, told: bool = False, failed: bool = False) -> None:
        """Ends this process, which waits within JAX for one that will not come."""
        if not told:
            for other in self._connections:
                if other != number:
                    self._send(other, (_LOST, number, why))
        here = self._names[jax.process_index()]
        advice = (
            "Put that right, then run the same command again on every host."
            if failed
            else "To go on, run the same command again on every host: a training goes on from its "
            "newest checkpoint."
        )
        what = f"{self._names[number]} {why.rstrip('.')}."
        print(
            f"{what} {here} cannot go on alone and ends. {advice}",
            file=sys.stderr,
            flush=True,
        )
        os._exit(1)


def _accept_all(gather_texts: GatherFn) -> dict[int, Connection]:
    """Opens a port, tells the others, and takes in whoever knows the key."""
    key = secrets.token_hex(16)
    listener = Listener(("", 0), backlog=jax.process_count())
    connections: dict[int, Connection] = {}

    def take_in(connection: Connection) -> None:
        with contextlib.suppress(*_NO_CONNECTION):
            deliver_challenge(connection, key.encode())
            answer_challenge(connection, key.encode())
            connections[connection.recv()] = connection

    def accept() -> None:
        while len(connections) < jax.process_count() - 1:
            with contextlib.suppress(*_NO_CONNECTION):
                connection = listener.accept()
                # A stranger that says nothing must not keep the others waiting.
                threading.Thread(target=take_in, args=(connection,), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    gather_texts(f"{listener.address[1]} {key}")
    return connections


def _connect(host: str, port: int, key: bytes) -> dict[int, Connection]:
    """The connection to process 0, nothing where there is none."""
    address = (host.strip("[]"), port)
    try:
        socket.create_connection(address, _CONNECT_SECONDS).close()  # `Client` would wait minutes
        connection = Client(address, authkey=key)
        connection.send(jax.process_index())
    except _NO_CONNECTION:
        return {}
    return {0: connection}


def _leave() -> None:
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(1)
