"""What the tests of the speed benchmarks share."""

import importlib.util
import os
import sys

import pytest


def torch_python() -> str:
    """Returns a Python that has PyTorch: this one or `$LENSJAX_TORCH_PYTHON`; skips without."""
    if importlib.util.find_spec("torch"):
        return sys.executable
    named = os.environ.get("LENSJAX_TORCH_PYTHON")
    if named:
        return named
    pytest.skip("PyTorch is not here; LENSJAX_TORCH_PYTHON may name a Python that has it")
