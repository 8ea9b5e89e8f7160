"""Checks that the packages of an extra are installed, before any work is done."""

import importlib.util

from lensjax.errors import DataError


def require_packages(feature: str, extra: str, *names: str) -> None:
    """Checks that packages are installed, without importing them.

    Args:
      feature: that needs them, such as `--mode=evaluate`.
      extra: the extra of lensjax that installs them, such as `evaluate`.
      *names: under which they are imported.

    Raises:
      DataError: if a package is missing; the message says how to install it.
    """
    missing = [name for name in names if importlib.util.find_spec(name) is None]
    if missing:
        raise DataError(
            f"{feature} needs {' and '.join(missing)}, which {'is' if len(missing) == 1 else 'are'}"
            f" not installed: pip install 'lensjax[{extra}]'"
        )
