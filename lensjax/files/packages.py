"""Packages that come with an extra of lensjax alone, asked for before any work is done."""

import importlib.util

from lensjax.errors import DataError


def require_packages(what: str, extra: str, *names: str) -> None:
    """Checks that packages are installed, without importing them.

    Args:
      what: needs them, such as `--mode=evaluate`.
      extra: of lensjax that brings them, such as `evaluate`.
      *names: as they are imported.

    Raises:
      DataError: where one is not installed; it says how to install it.
    """
    missing = [name for name in names if importlib.util.find_spec(name) is None]
    if missing:
        raise DataError(
            f"{what} needs {' and '.join(missing)}, which {'is' if len(missing) == 1 else 'are'} "
            f"not installed: pip install 'lensjax[{extra}]'"
        )
