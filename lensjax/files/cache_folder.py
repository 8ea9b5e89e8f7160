"""The folder in which lensjax keeps results and downloads for later runs."""

import os
import pathlib

from lensjax.files.user_paths import expanded

CACHE_VARIABLE = "LENSJAX_CACHE"


def cache_folder(folder: str | os.PathLike[str] | None = None) -> pathlib.Path:
    """The folder of kept results: `folder`, else `$LENSJAX_CACHE`, else `~/.cache/lensjax`."""
    chosen = folder or os.environ.get(CACHE_VARIABLE) or "~/.cache/lensjax"
    return expanded(chosen, "evaluate.cache" if folder else CACHE_VARIABLE)
