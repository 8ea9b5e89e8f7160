"""From weights to images: the pure function that draws a chunk, and the loop over chunks."""

import contextlib
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from lensjax import prng, samplers
from lensjax.assemble import build_path, guidance_settings, make_guided_fn
from lensjax.config import Config, SampleConfig
from lensjax.config_diffusion import sample_times
from lensjax.data.scaling import Scaling
from lensjax.guidance import count_passes
from lensjax.progress import progress_bar


class Weights(NamedTuple):
    """What a sampler draws from.

    Attributes:
      params: the network's parameters.
      weaker: those of the weaker network of autoguidance; None without.
    """

    params: Any
    weaker: Any = None


# (weights, seed [], image numbers [B], labels [B]) -> flux [B, H, W, C].
SampleFn = Callable[[Weights, Array, Array, Array], Array]


def sampler_settings(sample: SampleConfig) -> samplers.SamplerSettings:
    """Returns the fields that a sampler depends on."""
    low, high = sample.churn_interval
    return samplers.SamplerSettings(
        sample.sampler, sample.eta, sample.churn, sample.churn_noise, (low, high)
    )


def describe_solver(sample: SampleConfig) -> dict[str, Any]:
    """Returns the sampler, its times, and the fields that it reads; None for the others."""
    churns = sample.sampler == "churn"
    return {
        "sampler": sample.sampler,
        "steps": sample.steps,
        "time_grid": list(sample.times) or sample.time_grid,
        "shift": sample.shift if sample.time_grid == "shifted" and not sample.times else None,
        "eta": sample.eta if sample.sampler == "ddim" else None,
        "churn": sample.churn if churns else None,
        "churn_noise": sample.churn_noise if churns else None,
        "churn_interval": list(sample.churn_interval) if churns else None,
    }


def make_sample_fn(
    config: Config,
    scaling: Scaling,
    image_shape: tuple[int, int, int],
    sample: SampleConfig,
    weaker: Config | None = None,
) -> SampleFn:
    """Returns the pure function that draws one chunk of images.

    Image i starts from noise that is a function of (seed, i) alone, and so is the noise that a
    sampler adds on the way.

    Args:
      config: network, path and prediction.
      scaling: from the model's range back to flux.
      image_shape: `(H, W, C)`.
      sample: sampler, times and guidance.
      weaker: the configuration of the weaker network of autoguidance; None without.
    """
    path = build_path(config)
    guided_fn = make_guided_fn(config, sample, weaker)
    times = sample_times(config, sample)

    def sample_fn(weights: Weights, seed: Array, numbers: Array, labels: Array) -> Array:
        keys = prng.keys(prng.key(seed, "generate"), numbers)
        noise = jax.vmap(lambda key: jax.random.normal(key, image_shape, jnp.float32))(keys)
        denoise = guided_fn(weights.params, weights.weaker, labels)
        problem = samplers.Problem(path, denoise, sampler_settings(sample), len(times) - 1)
        step_keys = prng.keys(prng.key(seed, "sampler"), numbers)
        return scaling.to_flux(samplers.sample(problem, noise, jnp.asarray(times), step_keys))

    return sample_fn


def passes_per_image(config: Config, sample: SampleConfig) -> int:
    """Returns how often a network sees one image, guidance included.

    Args:
      config: path and prediction.
      sample: sampler, times and guidance.
    """
    times = sample_times(config, sample)
    asked = samplers.evaluation_times(build_path(config), sampler_settings(sample), times)
    return count_passes(guidance_settings(sample), asked)


def generate_chunk(
    sample_fn: SampleFn, weights: Weights, labels: np.ndarray, *, seed: int, first: int
) -> np.ndarray:
    """Draws the images `first` to `first + B` at once.

    Args:
      sample_fn: jitted, from `make_sample_fn`.
      weights: what is drawn from.
      labels: int32 `[B]`.
      seed: in [0, 2**31 - 1].
      first: the number of the first image.

    Returns:
      float32 `[B, H, W, C]`, flux.
    """
    numbers = np.arange(first, first + len(labels), dtype=np.int32)
    images = sample_fn(weights, jnp.int32(seed), jnp.asarray(numbers), jnp.asarray(labels))
    return np.asarray(images)


def generate_chunks(
    sample_fn: SampleFn,
    weights: Weights,
    labels: np.ndarray,
    *,
    seed: int,
    batch_size: int,
    progress: bool = False,
) -> np.ndarray:
    """Draws images in chunks of one shape, the last one padded.

    Args:
      sample_fn: jitted, from `make_sample_fn`.
      weights: what is drawn from.
      labels: int32 `[N]`; image i gets label i.
      seed: in [0, 2**31 - 1].
      batch_size: images computed at once.
      progress: whether to show how far it is and how long it takes, where there are several chunks.

    Returns:
      float32 `[N, H, W, C]`, flux.
    """
    chunks = []
    total = len(labels)
    with contextlib.ExitStack() as stack:
        shown = progress and total > batch_size
        bar = stack.enter_context(progress_bar(total, "Drawing")) if shown else None
        for start in range(0, total, batch_size):
            places = np.minimum(np.arange(start, start + batch_size), total - 1)
            images = generate_chunk(sample_fn, weights, labels[places], seed=seed, first=start)
            chunks.append(images[: total - start])
            if bar is not None:
                bar.update(len(chunks[-1]))
    return np.concatenate(chunks)
