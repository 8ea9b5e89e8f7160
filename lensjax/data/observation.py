"""The instrument's noise on noise-free training images, drawn anew each time an image is seen."""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from jax import Array

from lensjax.data.simulator import add_noise
from lensjax.data.surveys import SOURCE_MAGNITUDE, Survey


def make_observe_fn(
    survey: Survey, share: float, magnitudes: Sequence[float]
) -> Callable[[Array, Array], Array]:
    """Returns `(key, image [H, W, 1]) -> image`, both in flux, for one example.

    A share of the images gets a source of another magnitude, by chance between two, and then the
    noise of the survey; the others stay as they are.

    Args:
      survey: the DeepLense model; its images have sources of magnitude 20.
      share: probability of noise.
      magnitudes: the brightest and the faintest source.
    """
    low, high = magnitudes

    def observe(key: Array, image: Array) -> Array:
        noise_key, magnitude_key, choice_key = jax.random.split(key, 3)
        magnitude = jax.random.uniform(magnitude_key, (), jnp.float32, low, high)
        dimmed = image[..., 0] * 10 ** (-0.4 * (magnitude - SOURCE_MAGNITUDE))
        noisy = add_noise(noise_key, dimmed, survey)[0][..., None]
        return jnp.where(jax.random.uniform(choice_key) < share, noisy, image)

    return observe
