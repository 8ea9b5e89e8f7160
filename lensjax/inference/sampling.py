"""From weights to images: the pure function that draws a chunk, and the loop over chunks."""

import contextlib
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from lensjax import prng
from lensjax.config import Config, SampleConfig
from lensjax.config.diffusion import sample_times
from lensjax.data.scaling import Scaling
from lensjax.devices.chunks import map_chunks
from lensjax.devices.mesh import on_each_device, put, replicated
from lensjax.devices.progress import progress_bar
from lensjax.diffusion import samplers
from lensjax.diffusion.guidance import count_passes
from lensjax.run.networks import build_network, build_path, guidance_settings, make_guided_fn


class Weights(NamedTuple):
    """The parameters that a sampler draws with.

    Attributes:
      params: the network's parameters.
      weaker: parameters of the weaker network of autoguidance; None without autoguidance.
    """

    params: Any
    weaker: Any = None


# (weights, seed [], image numbers [B], labels [B]) -> flux [B, H, W, C].
SampleFn = Callable[[Weights, Array, Array, Array], Array]


def sampler_settings(sample: SampleConfig) -> samplers.SamplerSettings:
    """The fields that a sampler depends on."""
    (first, last), (low, high) = sample.eta_interval, sample.churn_interval
    return samplers.SamplerSettings(
        sample.sampler,
        sample.eta,
        (first, last),
        sample.churn,
        sample.churn_noise,
        (low, high),
    )


def describe_solver(config: Config, sample: SampleConfig) -> dict[str, Any]:
    """The sampler, its times, and the fields that it uses; None for unused fields.

    Args:
      config: path and prediction.
      sample: sampler, times and guidance.
    """
    churns = sample.sampler == "churn"
    return {
        "sampler": sample.sampler,
        "steps": sample.steps,
        "time_grid": list(sample.times) or sample.time_grid,
        "t_end": float(sample_times(build_path(config), sample)[-2]),
        "shift": sample.shift if sample.time_grid == "shifted" and not sample.times else None,
        "eta": sample.eta if sample.sampler == "ddim" else None,
        "eta_interval": list(sample.eta_interval) if sample.sampler == "ddim" else None,
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
    """Makes the pure function that draws one chunk of images.

    Image i starts from noise that is a function of (seed, i) alone, and so is the noise that a
    sampler adds on the way.

    Args:
      config: network, path and prediction.
      scaling: from the model's range back to flux.
      image_shape: `(H, W, C)`.
      sample: sampler, times and guidance.
      weaker: the configuration of autoguidance's weaker network; None without autoguidance.
    """
    network = build_network(config)
    path = network.path
    guided_fn = make_guided_fn(network, sample, build_network(weaker) if weaker else None)
    times = sample_times(path, sample)

    def sample_fn(weights: Weights, seed: Array, numbers: Array, labels: Array) -> Array:
        keys = prng.keys(prng.key(seed, "generate"), numbers)
        noise = jax.vmap(lambda key: jax.random.normal(key, image_shape, jnp.float32))(keys)
        denoise = guided_fn(weights.params, weights.weaker, labels)
        problem = samplers.Problem(path, denoise, sampler_settings(sample), len(times) - 1)
        step_keys = prng.keys(prng.key(seed, "sampler"), numbers)
        return scaling.to_flux(samplers.sample(problem, noise, jnp.asarray(times), step_keys))

    return sample_fn


def passes_per_image(config: Config, sample: SampleConfig) -> int:
    """The network passes for one image, guidance included.

    Args:
      config: path and prediction.
      sample: sampler, times and guidance.
    """
    path = build_path(config)
    times = sample_times(path, sample)
    times = samplers.evaluation_times(path, sampler_settings(sample), times)
    return count_passes(guidance_settings(sample), times)


class Drawing:
    """Draws chunks of images, one on each device of a mesh at a time.

    Each device runs the program of a chunk, so that images do not depend on how many devices there
    are. On several hosts, all hosts draw together and all get the images.

    Args:
      sample_fn: from `make_sample_fn`.
      mesh: the devices.
    """

    def __init__(self, sample_fn: SampleFn, mesh: jax.sharding.Mesh) -> None:
        def draw(shared: tuple[Weights, Array], numbers: Array, labels: Array) -> Array:
            weights, seed = shared
            return sample_fn(weights, seed, numbers, labels)

        self.mesh = mesh
        self._draw = on_each_device(draw, mesh)

    def placed(self, weights: Weights) -> Weights:
        """Copies weights to each device."""
        return put(weights, replicated(self.mesh))

    def __call__(
        self, weights: Weights, numbers: np.ndarray, labels: np.ndarray, *, seed: int
    ) -> np.ndarray:
        """Draws a chunk on each device.

        Args:
          weights: from `placed`.
          numbers: numbers of the images, int32 `[D B]`.
          labels: int32 `[D B]`.
          seed: in [0, 2**31 - 1].

        Returns:
          float32 `[D B, H, W, C]`, flux.
        """
        return self._draw((weights, np.int32(seed)), numbers, labels)


def generate_chunks(
    drawing: Drawing,
    weights: Weights,
    numbers: np.ndarray,
    labels: np.ndarray,
    *,
    seed: int,
    batch_size: int,
    progress: bool = False,
) -> np.ndarray:
    """Draws images in chunks of one shape, the last chunks padded.

    Args:
      drawing: draws a chunk on each device.
      weights: from `Drawing.placed`.
      numbers: numbers of the images, int32 `[N]`.
      labels: int32 `[N]`.
      seed: in [0, 2**31 - 1].
      batch_size: images that a device computes together.
      progress: whether to show a progress bar where the images need several turns.

    Returns:
      float32 `[N, H, W, C]`, flux.
    """
    total, turn = len(labels), batch_size * drawing.mesh.size
    with contextlib.ExitStack() as stack:
        shown = progress and total > turn
        bar = stack.enter_context(progress_bar(total, "Drawing")) if shown else None

        def draw(numbers: np.ndarray, labels: np.ndarray) -> np.ndarray:
            images = drawing(weights, numbers, labels, seed=seed)
            if bar is not None:
                bar.update(min(turn, total - bar.n))
            return images

        return map_chunks(draw, turn, numbers, labels)
