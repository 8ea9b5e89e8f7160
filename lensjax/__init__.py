"""lensjax: strong-gravitational-lensing images by diffusion and flow-matching models in JAX."""

from lensjax import config, models
from lensjax.generate import LensGenerator, load

__all__ = ["LensGenerator", "config", "load", "models"]
