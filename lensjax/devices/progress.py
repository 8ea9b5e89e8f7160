"""A progress bar with the time left, for a terminal and for a log file."""

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import tqdm


def progress_bar(total: int, description: str, done: int = 0, unit: str = " images") -> "tqdm.tqdm":
    """A bar for a terminal; a log file gets a line now and then.

    Args:
      total: how much there is to do.
      description: what is done.
      done: how much was done before.
      unit: of the total, with a space before it.
    """
    import jax
    import tqdm

    return tqdm.tqdm(
        total=total,
        initial=done,
        desc=description,
        unit=unit,
        disable=jax.distributed.is_initialized() and jax.process_index() > 0,
        mininterval=0.5 if sys.stderr.isatty() else 10.0,
    )
