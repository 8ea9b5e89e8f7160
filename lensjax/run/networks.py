"""The configured network as pure functions: predictions, denoisers, guidance, first parameters."""

import dataclasses
from collections.abc import Callable
from typing import Any, cast

import flax.linen as nn
import jax.numpy as jnp
from jax import Array

from lensjax.config import Config, SampleConfig, diffusion
from lensjax.diffusion import paths
from lensjax.diffusion.guidance import Guidance, guide, make_classifier_free_pair, make_denoiser
from lensjax.diffusion.preconditioning import precondition
from lensjax.interfaces import ApplyFn, DenoiseFn
from lensjax.models import build_model


def build_path(config: Config) -> paths.Path:
    """Builds the probability path, with the times that the prediction can use."""
    return diffusion.build_path(config.path, config.model.prediction)


def make_apply_fn(model: nn.Module) -> ApplyFn:
    """Makes `(params, x, t, condition) -> output` of a bare network."""

    def apply_fn(params: Any, x: Array, t: Array, condition: dict[str, Array]) -> Array:
        return cast(Array, model.apply({"params": params}, x, t, condition))

    return apply_fn


@dataclasses.dataclass(frozen=True)
class Network:
    """A configured denoising network with the meaning of its output.

    Attributes:
      apply_fn: `(params, x, t, condition) -> prediction`.
      path: the probability path, with the times that the prediction can use.
      prediction: one of `paths.PREDICTIONS`.
      null_label: the label that stands for no label.
    """

    apply_fn: ApplyFn
    path: paths.Path
    prediction: str
    null_label: int

    def denoiser(self, params: Any, labels: Array) -> DenoiseFn:
        """Makes the denoiser of some parameters without guidance; labels are int32 `[B]`."""
        condition = {"label": labels}
        return make_denoiser(
            self.apply_fn, params, condition, path=self.path, prediction=self.prediction
        )


def build_network(config: Config) -> Network:
    """Builds the configured denoising network."""
    path = build_path(config)
    apply_fn = precondition(
        make_apply_fn(build_model(config.model)),
        path,
        config.model.preconditioning,
        config.data.model_std,
    )
    return Network(apply_fn, path, config.model.prediction, config.model.num_classes)


def with_forward_mode(config: Config) -> Config:
    """Gives a configuration of the same network that has forward-mode derivatives."""
    model = dataclasses.replace(config.model, attention="xla")
    return dataclasses.replace(config, model=model)


def guidance_settings(sample: SampleConfig) -> Guidance:
    """Picks the fields that guidance depends on."""
    low, high = sample.guidance_interval
    return Guidance(sample.guidance, sample.guidance_rescale, (low, high))


def make_guided_fn(
    network: Network, sample: SampleConfig, weaker: Network | None = None
) -> Callable[[Any, Any, Array], DenoiseFn]:
    """Makes `(params, weaker params, labels [B]) -> denoiser` with the guidance of `sample`.

    Args:
      network: the network.
      sample: the guidance.
      weaker: the weaker network of autoguidance; None for the network's own unconditional model
        (the weaker parameters are then not used).
    """
    settings = guidance_settings(sample)

    def guided_fn(params: Any, weaker_params: Any, labels: Array) -> DenoiseFn:
        denoise = network.denoiser(params, labels)
        if weaker is not None:
            weak = weaker.denoiser(weaker_params, labels)
            return guide(denoise, lambda x, t: (denoise(x, t), weak(x, t)), settings, network.path)
        pair = make_classifier_free_pair(
            network.apply_fn,
            params,
            {"label": labels},
            path=network.path,
            prediction=network.prediction,
            null_label=network.null_label,
        )
        return guide(denoise, pair, settings, network.path)

    return guided_fn


def make_init_fn(model: nn.Module, image_shape: tuple[int, int, int]) -> Callable[[Array], Any]:
    """Makes `key -> params` of a denoiser for images `(H, W, C)`."""

    def init_fn(key: Array) -> Any:
        image, t, label = jnp.zeros((1, *image_shape)), jnp.zeros(1), jnp.zeros(1, jnp.int32)
        return model.init(key, image, t, {"label": label})["params"]

    return init_fn


def make_classifier_init_fn(
    model: nn.Module, image_shape: tuple[int, int, int]
) -> Callable[[Array], Any]:
    """Makes `key -> params` of a classifier or autoencoder for images `(H, W, C)`."""

    def init_fn(key: Array) -> Any:
        return model.init(key, jnp.zeros((1, *image_shape)), key[None])["params"]

    return init_fn


def make_image_fn(config: Config) -> Callable[..., Any]:
    """Makes `(params, images [B, H, W, C], keys [B] or None) -> output` of the network.

    The output is a `ClassifierOutput`, or a `MaskedOutput` of an autoencoder, which needs keys.
    """
    model = build_model(config.model)

    def image_fn(params: Any, images: Array, keys: Array | None) -> Any:
        return model.apply({"params": params}, images, keys)

    return image_fn
