"""lensjax: strong-gravitational-lensing images by diffusion and flow-matching models in JAX."""

import importlib
import importlib.abc
import importlib.machinery
import sys
import types
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lensjax import config, data, diffusion, metrics, models
    from lensjax.data.arrays import simulate
    from lensjax.data.lenstronomy import to_lenstronomy
    from lensjax.errors import UserError
    from lensjax.inference.classifier import LensClassifier
    from lensjax.inference.generator import LensGenerator
    from lensjax.inference.loading import load
    from lensjax.run.datasets import load_data

__version__ = "0.2.0"

__all__ = [
    "LensClassifier",
    "LensGenerator",
    "UserError",
    "config",
    "data",
    "diffusion",
    "load",
    "load_data",
    "metrics",
    "models",
    "simulate",
    "to_lenstronomy",
]

# Imported at the first use: `python -m lensjax.main --help` begins here and needs no JAX.
_HOMES = {
    "LensClassifier": "inference.classifier",
    "LensGenerator": "inference.generator",
    "UserError": "errors",
    "load": "inference.loading",
    "load_data": "run.datasets",
    "simulate": "data.arrays",
    "to_lenstronomy": "data.lenstronomy",
}
_ROOMS = frozenset({"config", "data", "diffusion", "metrics", "models"})

# Modules of 0.1.0 that users may name, and the modules of their content now. They go with 0.3.0.
_MOVED = {
    "arrays": ("data.arrays", "run.datasets"),
    "checkpoint": ("run.checkpoint", "errors"),
    "classifier": ("inference.classifier",),
    "generate": ("inference.generator",),
    "guidance": ("diffusion.guidance", "interfaces"),
    "hosts": ("devices.hosts", "errors"),
    "likelihood": ("inference.likelihood",),
    "loading": ("inference.loading",),
    "losses": ("diffusion.losses", "interfaces"),
    "metrics.features": ("evaluation.extractors",),
    "metrics.reference": ("evaluation.cache", "files.cache_folder"),
    "optim": ("run.optim", "config.training", "config.diffusion"),
    "paths": ("diffusion.paths", "interfaces"),
    "preconditioning": ("diffusion.preconditioning",),
    "samplers": ("diffusion.samplers", "interfaces"),
    "schedules": ("diffusion.schedules", "config.diffusion"),
    "time_grids": ("diffusion.time_grids", "errors"),
    "train": ("training.loop", "errors"),
    "trained": ("inference.trained", "errors"),
    "workdir": ("run.workdir", "files.atomic", "errors"),
}


class _MovedModules(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Imports a module of 0.1.0 by its old name, with a warning that says the new name."""

    def find_spec(
        self,
        fullname: str,
        path: Sequence[str] | None = None,
        target: types.ModuleType | None = None,
    ) -> importlib.machinery.ModuleSpec | None:
        """The spec of a module by its old name, None for any other name."""
        del path, target
        old = fullname.removeprefix(f"{__name__}.")
        is_moved = old != fullname and old in _MOVED
        return importlib.machinery.ModuleSpec(fullname, self) if is_moved else None

    def exec_module(self, module: types.ModuleType) -> None:
        """Makes the module ask its new homes for every name."""
        homes = [f"{__name__}.{home}" for home in _MOVED[module.__name__.partition(".")[2]]]
        warnings.warn(
            f"{module.__name__} is {homes[0]} now; the old name goes with lensjax 0.3.0",
            DeprecationWarning,
            stacklevel=2,
        )

        def find(name: str) -> Any:
            for home in homes:
                owner = importlib.import_module(home)
                if hasattr(owner, name):
                    return getattr(owner, name)
            raise AttributeError(f"module {module.__name__!r} has no attribute {name!r}")

        vars(module)["__getattr__"] = find


if not any(type(finder).__name__ == _MovedModules.__name__ for finder in sys.meta_path):
    sys.meta_path.append(_MovedModules())


def __getattr__(name: str) -> Any:
    """A public name, imported now."""
    if name in _ROOMS:
        return importlib.import_module(f"lensjax.{name}")
    if name not in _HOMES:
        raise AttributeError(f"module 'lensjax' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"lensjax.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """The names of the module with those that were not used yet."""
    return sorted({*globals(), *__all__})
