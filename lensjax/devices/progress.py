"""How far a long piece of work is: a bar in a terminal, lines now and then in a log file."""

import io
import logging
import os
import sys
from typing import TYPE_CHECKING, Any, TextIO

from lensjax.errors import printable

if TYPE_CHECKING:
    import tqdm

SECONDS_BETWEEN_LINES = 100.0  # in a log file


class _Lines(io.StringIO):
    """Writes each state of a bar as a line of standard error."""

    def write(self, text: str) -> int:
        if text.strip():
            print(text.strip(), file=sys.stderr, flush=True)
        return len(text)


def shows_bars() -> bool:
    """Whether standard error can draw a bar over itself: in a terminal or in a notebook."""
    if not sys.stderr.isatty():
        return "ipykernel" in sys.modules
    return os.get_terminal_size(sys.stderr.fileno()).columns > 0  # some have no size


def progress_bar(
    total: int, description: str, initial: int = 0, unit: str = " images"
) -> "tqdm.tqdm":
    """A bar in a terminal; in a log file a line now and then, and none for work of seconds.

    Args:
      total: units of work.
      description: what the work is.
      initial: units that were finished before.
      unit: name of a unit, with a space before it.
    """
    import jax
    import tqdm

    if shows_bars():
        form: dict[str, Any] = {"mininterval": 0.5}
    else:
        form = {
            "file": _Lines(),
            "mininterval": SECONDS_BETWEEN_LINES,
            "delay": SECONDS_BETWEEN_LINES,
            "bar_format": "{desc}: {n_fmt} of {total_fmt}{unit}, {remaining} left{postfix}",
        }
    return tqdm.tqdm(
        total=total,
        initial=initial,
        desc=printable(description, keep=""),
        unit=unit,
        disable=jax.distributed.is_initialized() and jax.process_index() > 0,
        **form,
    )


def write_above_bars(handler: "logging.StreamHandler[TextIO]") -> None:
    """Lets the lines of a log handler appear above the bars, where there are any."""
    if shows_bars():
        from tqdm.contrib import DummyTqdmFile

        handler.setStream(DummyTqdmFile(handler.stream))
