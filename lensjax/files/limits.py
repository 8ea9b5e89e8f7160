"""How much memory and time the reading of one file may take."""

import math
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple, TypeVar

import numpy as np

from lensjax.errors import UnusableError

Item = TypeVar("Item")


class Limits(NamedTuple):
    """What the reading of one file may take.

    Attributes:
      memory_gib: GiB of memory; `data.file_memory_gib`.
      seconds: time; `data.file_seconds`.
    """

    memory_gib: float = 1.0
    seconds: float = 600.0

    @property
    def memory_bytes(self) -> int:
        """The memory in bytes."""
        return int(self.memory_gib * 2**30)

    def check(self, num_bytes: float, subject: str) -> None:
        """Checks before reading that something fits into the memory.

        Args:
          num_bytes: memory that it takes.
          subject: what it is, for the message: `{subject} 12 GiB of memory`.

        Raises:
          UnusableError: if it does not fit.
        """
        if num_bytes > self.memory_bytes:
            raise UnusableError(
                f"{subject} {num_bytes / 2**30:.3g} GiB of memory; allowed: "
                f"{self.memory_gib:g} (data.file_memory_gib)"
            )

    def check_image(self, shape: tuple[int, ...], dtype: np.dtype) -> None:
        """Checks that one image fits, as it is stored and as float32 `[H, W, C]`."""
        self.check(math.prod(shape) * (dtype.itemsize + 4), "has images that take")

    def timed(
        self, items: Iterator[Item], clock: Callable[[], float] = time.monotonic
    ) -> Iterator[Item]:
        """Passes items on while the time that they take to make is not used up.

        Args:
          items: made by the reader.
          clock: seconds.

        Raises:
          UnusableError: after `seconds`, of which the caller's own work is no part.
        """
        spent = 0.0
        while True:
            start = clock()
            try:
                item = next(items)
            except StopIteration:
                return
            spent += clock() - start
            if spent > self.seconds:
                raise UnusableError(
                    f"takes more than {self.seconds:g} s to read (data.file_seconds)"
                )
            yield item
