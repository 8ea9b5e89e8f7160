"""A save that goes on beside the training, in a thread that never keeps the process alive."""

import threading
from collections.abc import Callable


class BackgroundSave(threading.Thread):
    """Begins a save, and ends it while the training goes on.

    The thread is a daemon, and threads that it starts inherit that: after a failed save Orbax's own
    threads wait for each other for 20 minutes, and would keep the process alive.

    Args:
      begin: takes what it needs of the state; the training waits for it.
      end: the rest of the save.
    """

    def __init__(self, begin: Callable[[], None], end: Callable[[], None]) -> None:
        super().__init__(name="lensjax_save", daemon=True)
        self._begin, self._end = begin, end
        self._has_begun, self._answered = False, threading.Event()
        self._error: BaseException | None = None

    def run(self) -> None:
        """Does the work; an error is kept for the thread that asked for it."""
        try:
            self._begin()
            self._has_begun = True
            self._answered.set()
            self._end()
        except BaseException as error:
            self._error = error
        finally:
            self._answered.set()

    def start_and_begin(self) -> None:
        """Starts the thread and waits until the save has begun; raises what kept it from that."""
        self.start()
        self._answered.wait()
        if not self._has_begun:
            self.join()
            assert self._error is not None
            raise self._error

    @property
    def has_failed(self) -> bool:
        """Whether the work has ended with an error."""
        return self._error is not None

    def error(self) -> BaseException | None:
        """Waits for the end; the error that the work ended with, if any."""
        self.join()
        return self._error
