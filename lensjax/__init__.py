"""lensjax: strong-gravitational-lensing images by diffusion and flow-matching models in JAX."""

from lensjax import config, models
from lensjax.arrays import load_data, simulate
from lensjax.classifier import LensClassifier
from lensjax.data.lenstronomy import to_lenstronomy
from lensjax.generate import LensGenerator
from lensjax.loading import load

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
