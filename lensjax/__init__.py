"""lensjax: strong-gravitational-lensing images by diffusion and flow-matching models in JAX."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lensjax import config, models
    from lensjax.data.arrays import simulate
    from lensjax.data.lenstronomy import to_lenstronomy
    from lensjax.inference.classifier import LensClassifier
    from lensjax.inference.generator import LensGenerator
    from lensjax.inference.loading import load
    from lensjax.run.datasets import load_data

__version__ = "0.2.0"

__all__ = [
    "LensClassifier",
    "LensGenerator",
    "config",
    "load",
    "load_data",
    "models",
    "simulate",
    "to_lenstronomy",
]

# Imported at the first use: `python -m lensjax.main --help` begins here and needs no JAX.
_HOMES = {
    "LensClassifier": "inference.classifier",
    "LensGenerator": "inference.generator",
    "load": "inference.loading",
    "load_data": "run.datasets",
    "simulate": "data.arrays",
    "to_lenstronomy": "data.lenstronomy",
}
_PARTS = frozenset({"config", "data", "diffusion", "metrics", "models"})


def __getattr__(name: str) -> Any:
    """Returns a public name, imported now."""
    if name in _PARTS:
        return importlib.import_module(f"lensjax.{name}")
    if name not in _HOMES:
        raise AttributeError(f"module 'lensjax' has no attribute {name!r}")
    found = getattr(importlib.import_module(f"lensjax.{_HOMES[name]}"), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    """Returns the names of the module with those that were not used yet."""
    return sorted({*globals(), *__all__})
