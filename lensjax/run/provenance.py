"""The provenance of a run: versions, the checkout's revision, the hardware."""

import functools
import hashlib
import importlib.metadata
import os
import pathlib
import platform
import subprocess
import sys
from typing import Any

import jax

from lensjax.devices.machine import memory_bytes

PACKAGE = pathlib.Path(__file__).resolve().parents[1]
_PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")


def versions() -> dict[str, str]:
    """The versions of Python and of the packages that decide what a run computes."""
    # The package's own version: the metadata of an editable install may be outdated.
    own = sys.modules[__name__.partition(".")[0]].__version__
    installed = {"python": platform.python_version(), "lensjax": str(own)}
    for package in _PACKAGES:
        try:
            installed[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            installed[package] = "not installed"
    return installed


@functools.cache
def code_hash(*folders: pathlib.Path) -> str:
    """A hash of the Python files in folders, without their sub-folders."""
    digest = hashlib.sha256()
    for path in sorted(path for folder in folders for path in folder.glob("*.py")):
        digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()[:16]


def code_that_measures() -> str:
    """A hash of the code that measures, so that results of other code are not reused."""
    return code_hash(PACKAGE / "metrics", PACKAGE / "evaluation")


def git_revision() -> str | None:
    """The commit of the checkout that lensjax runs from, `+changes` if edited, or None."""

    def git(*arguments: str) -> str:
        # Without its lock: a kill or a full disk would leave it in the user's checkout.
        command = ["git", "--no-optional-locks", "-C", os.fspath(PACKAGE), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    try:
        tracked = git("ls-files", "__init__.py")
        if not tracked:  # installed inside somebody else's checkout
            return None
        edited = git("status", "--porcelain", "--untracked-files=no", ".")
        return git("rev-parse", "HEAD") + ("+changes" if edited else "")
    except (OSError, subprocess.CalledProcessError):
        return None


def _cpu_model() -> str:
    """The processor's name as Linux gives it, else what Python knows."""
    try:
        lines = pathlib.Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def hardware() -> dict[str, Any]:
    """The hardware of this process, as JSON types; the first call makes JAX look for its devices.

    Returns:
      `platform`; `cpu_model`, `cpu_count` (logical processors) and `cpu_usable` (those that this
      process may use); `memory_bytes`, None if the system does not say; `devices`, with JAX's
      `platform`, `kind` and `count`.
    """
    device = jax.devices()[0]
    usable = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else None
    return {
        "platform": platform.platform(),
        "cpu_model": _cpu_model(),
        "cpu_count": os.cpu_count(),
        "cpu_usable": len(usable) if usable else os.cpu_count(),
        "memory_bytes": memory_bytes(),
        "devices": {
            "platform": device.platform,
            "kind": device.device_kind,
            "count": jax.device_count(),
        },
    }
