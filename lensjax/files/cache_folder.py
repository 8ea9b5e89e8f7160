"""Where lensjax keeps what need not be computed or downloaded again."""

import os
import pathlib

CACHE_VARIABLE = "LENSJAX_CACHE"


def cache_folder(folder: str | os.PathLike[str] | None = None) -> pathlib.Path:
    """Returns where results are kept: `folder`, else `$LENSJAX_CACHE`, else `~/.cache/lensjax`."""
    chosen = folder or os.environ.get(CACHE_VARIABLE) or "~/.cache/lensjax"
    return pathlib.Path(chosen).expanduser()
