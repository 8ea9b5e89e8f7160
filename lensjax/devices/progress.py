"""A progress bar with the time left, for a terminal and for a log file."""

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import tqdm


def progress_bar(
    total: int, description: str, initial: int = 0, unit: str = " images"
) -> "tqdm.tqdm":
    """A bar for a terminal; a log file gets a line now and then.

    Args:
      total: units of work.
      description: what the work is.
      initial: units that were finished before.
      unit: name of a unit, with a space before it.
    """
    import jax
    import tqdm

    return tqdm.tqdm(
        total=total,
        initial=initial,
        desc=description,
        unit=unit,
        disable=jax.distributed.is_initialized() and jax.process_index() > 0,
        mininterval=0.5 if sys.stderr.isatty() else 10.0,
    )
