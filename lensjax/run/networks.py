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
    """Returns the probability path, with the times that the prediction can use."""
    return diffusion.build_path(config.path, config.model.prediction)


def make_apply_fn(model: nn.Module) -> ApplyFn:
    """Returns `(params, x, t, condition) -> output` of a bare network."""

    def apply_fn(params: Any, x: Array, t: Array, condition: dict[str, Array]) -> Array:
        return cast(Array, model.apply({"params": params}, x, t, condition))

    return apply_fn


def make_network_fn(config: Config) -> ApplyFn:
    """Returns `(params, x, t, condition) -> prediction` of the configured network."""
    return precondition(
        make_apply_fn(build_model(config.model)),
        build_path(config),
        config.model.preconditioning,
        config.data.model_std,
    )


def with_forward_mode(config: Config) -> Config:
    """Returns a configuration of the same network that has forward-mode derivatives."""
    model = dataclasses.replace(config.model, attention="xla")
    return dataclasses.replace(config, model=model)


# (params, labels [B]) -> denoiser.
DenoiserFn = Callable[[Any, Array], DenoiseFn]


def make_denoiser_fn(config: Config) -> DenoiserFn:
    """Returns `(params, labels [B]) -> denoiser` without guidance."""
    network, path = make_network_fn(config), build_path(config)
    prediction = config.model.prediction

    def denoiser_fn(params: Any, labels: Array) -> DenoiseFn:
        condition = {"label": labels}
        return make_denoiser(network, params, condition, path=path, prediction=prediction)

    return denoiser_fn


def guidance_settings(sample: SampleConfig) -> Guidance:
    """Returns the fields that guidance depends on."""
    low, high = sample.guidance_interval
    return Guidance(sample.guidance, sample.guidance_rescale, (low, high))


def make_guided_fn(
    config: Config, sample: SampleConfig, weaker: Config | None = None
) -> Callable[[Any, Any, Array], DenoiseFn]:
    """Returns `(params, weaker params, labels [B]) -> denoiser` with the guidance of `sample`.

    Args:
      config: network, path and prediction.
      sample: the guidance.
      weaker: the configuration of the weaker network of autoguidance; None for the network's own
        unconditional model (the weaker parameters are then not used).
    """
    denoiser_fn, path = make_denoiser_fn(config), build_path(config)
    weaker_fn = make_denoiser_fn(weaker) if weaker else None
    network, settings = make_network_fn(config), guidance_settings(sample)

    def guided_fn(params: Any, weaker_params: Any, labels: Array) -> DenoiseFn:
        denoise = denoiser_fn(params, labels)
        if weaker_fn is not None:
            weak = weaker_fn(weaker_params, labels)
            return guide(denoise, lambda x, t: (denoise(x, t), weak(x, t)), settings, path)
        pair = make_classifier_free_pair(
            network,
            params,
            {"label": labels},
            path=path,
            prediction=config.model.prediction,
            null_label=config.model.num_classes,
        )
        return guide(denoise, pair, settings, path)

    return guided_fn


def make_init_fn(model: nn.Module, image_shape: tuple[int, int, int]) -> Callable[[Array], Any]:
    """Returns `key -> params` of a denoiser for images `(H, W, C)`."""

    def init_fn(key: Array) -> Any:
        image, t, label = jnp.zeros((1, *image_shape)), jnp.zeros(1), jnp.zeros(1, jnp.int32)
        return model.init(key, image, t, {"label": label})["params"]

    return init_fn


def make_classifier_init_fn(
    model: nn.Module, image_shape: tuple[int, int, int]
) -> Callable[[Array], Any]:
    """Returns `key -> params` of a classifier or autoencoder for images `(H, W, C)`."""

    def init_fn(key: Array) -> Any:
        return model.init(key, jnp.zeros((1, *image_shape)), key[None])["params"]

    return init_fn


def make_image_fn(config: Config) -> Callable[..., Any]:
    """Returns `(params, images [B, H, W, C], keys [B] or None) -> output` of the network.

    The output is a `ClassifierOutput`, or a `MaskedOutput` of an autoencoder, which needs keys.
    """
    model = build_model(config.model)

    def image_fn(params: Any, images: Array, keys: Array | None) -> Any:
        return model.apply({"params": params}, images, keys)

    return image_fn
