"""Notices that another process of a run is lost or has failed, and says which host that was.

JAX's abort names no host. Each process and process 0 exchange the text to log if the other's
messages stop.
"""

import socket
import time
from contextlib import suppress
from socketserver import ThreadingTCPServer
from threading import Event, Lock, Thread

import jax
from absl import logging

from lensjax.cli.command_line import end_now
from lensjax.devices.hosts import from_main

FAILED, LOST = 1, 76  # exit status after another's failure or loss; 76 is EX_PROTOCOL of sysexits.h
WAIT_SECONDS = 4.0  # until news of a lost process comes
_ADVICE = "To resume from the newest checkpoint, run the same command again on every host."


class Peers:
    """The other processes of a run, watched until `close`; each process makes one.

    Args:
      host: the address of process 0; None for the name that it gives itself.
      timeout_s: how long a process may be silent.
    """

    def __init__(self, host: str | None, timeout_s: float) -> None:
        self._number, self._timeout_s = jax.process_index(), timeout_s
        own_host = socket.gethostname()
        self.name = f"process {self._number} of {jax.process_count()} (host {own_host})"
        self._alive = f"{LOST} {self.name} was lost: it was killed, froze or cannot be reached\n"
        self._connections: set[socket.socket] = set()
        self._over, self._met = Lock(), Event()  # whoever takes the lock ends the watch
        server = ThreadingTCPServer(("", 0), lambda peer, *_: self._watch(peer))  # type: ignore
        server.daemon_threads = True
        Thread(target=server.serve_forever, daemon=True).start()  # only that of process 0 is used
        name, port, news = from_main(
            lambda: (own_host, server.server_address[1], self._alive), "peers"
        )
        try:
            if self._number:
                connection = socket.create_connection(((host or name).strip("[]"), port), 10.0)
                Thread(target=self._watch, args=(connection, news), daemon=True).start()
                self._met.wait(10.0)  # from then on process 0 can send news
        except OSError as error:
            logging.warning("only JAX watches %s; port %d failed: %s", self.name, port, error)
        Thread(target=self._beat, daemon=True).start()

    def close(self, news: str = "") -> bool:
        """Stops watching; `news` ends the others too. False if another process already ends us."""
        is_first = self._over.acquire(blocking=False)
        for connection in tuple(self._connections if is_first and news else ()):
            with suppress(OSError):
                connection.sendall(news.encode())
                connection.shutdown(socket.SHUT_WR)
        for _ in range(200 if is_first and news and self._number == 0 else 0):
            time.sleep(0.02 if self._connections else 0)  # JAX aborts whoever outlives process 0
        return is_first

    def _beat(self) -> None:
        while not self._over.locked():
            for connection in tuple(self._connections):
                with suppress(OSError):
                    connection.sendall(self._alive.encode())
            time.sleep(self._timeout_s / 4)

    def _watch(self, connection: socket.socket, news: str = "") -> None:
        connection.settimeout(self._timeout_s)
        self._connections.add(connection)
        with suppress(OSError):  # it is silent, or the connection broke
            connection.sendall(self._alive.encode())
            for line in connection.makefile(errors="replace"):
                news = line
                self._met.set()
        self._connections.discard(connection)
        status, _, reason = news.strip().partition(" ")
        if status.isdigit() and self.close(news):  # skips lines of other programs
            logging.error("%s. %s cannot continue alone. %s", reason, self.name, _ADVICE)
            end_now(int(status))  # the main thread waits within JAX
