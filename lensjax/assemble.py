"""Puts the parts together as a configuration says; every function here is pure."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, cast

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from jax import Array

from lensjax import optim, paths, schedules
from lensjax.config import Config, SampleConfig
from lensjax.config_classify import BALANCED, UNWEIGHTED, class_weights
from lensjax.config_task import CLASSIFY, GENERATE
from lensjax.guidance import Guidance, guide, make_classifier_free_pair, make_denoiser
from lensjax.interfaces import ApplyFn, Batch, DenoiseFn, LossFn
from lensjax.losses import LossSettings, make_loss_fn
from lensjax.models import build_model
from lensjax.parallel import all_devices, state_shardings
from lensjax.preconditioning import precondition
from lensjax.spread import Spread
from lensjax.state import EmaSettings, StepFn, TrainState, init_state, make_train_step
from lensjax.task_losses import (
    make_classifier_loss_fn,
    make_masked_loss_fn,
)


def build_path(config: Config) -> paths.Path:
    """Returns the probability path, with the times that the prediction can use."""
    return schedules.build_path(config.path, config.model.prediction)


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


def _class_weights(config: Config, class_counts: Sequence[int] | None) -> Array:
    text = config.classify.class_weights
    if text == UNWEIGHTED:
        return jnp.ones(config.model.num_classes)
    if text != BALANCED:
        return jnp.asarray(class_weights(text), jnp.float32)
    assert class_counts is not None  # the training counts them
    counts = jnp.asarray(class_counts, jnp.float32)
    return jnp.mean(counts) / counts


def build_loss_fn(config: Config, class_counts: Sequence[int] | None = None) -> LossFn:
    """Returns the loss of the configured task, `(params, batch, keys [B], places) -> float32 []`.

    Args:
      config: the configuration.
      class_counts: training images of each class, for `classify.class_weights=balanced`.
    """
    if config.task == GENERATE:
        return make_loss_fn(make_network_fn(config), build_path(config), loss_settings(config))
    if config.task == CLASSIFY:
        return make_classifier_loss_fn(
            make_image_fn(config),
            config.classify.label_smoothing,
            _class_weights(config, class_counts),
            config.classify.train_encoder,
        )
    return make_masked_loss_fn(
        make_image_fn(config), config.model.patch_size, config.model.normalise_patches
    )


def _schedule(config: Config) -> Callable[[Array], Array]:
    return optim.make_schedule(
        config.optim.learning_rate,
        config.train.num_steps,
        config.optim.warmup_steps,
        config.optim.learning_rate_floor,
    )


def _optimizer(config: Config) -> optax.GradientTransformation:
    optimizer = optim.build_optimizer(
        _schedule(config),
        weight_decay=config.optim.weight_decay,
        clip_norm=config.optim.clip_norm,
        b1=config.optim.b1,
        b2=config.optim.b2,
        eps=config.optim.eps,
    )
    return optimizer if config.classify.train_encoder else optim.keeping(optimizer, "encoder")


def make_init_state(config: Config, image_shape: tuple[int, int, int]) -> Callable[[], TrainState]:
    """Returns the function that makes the state before the first step."""
    make = make_init_fn if config.task == GENERATE else make_classifier_init_fn
    init_fn = make(build_model(config.model), image_shape)
    names = config.optim.ema_half_lives
    return lambda: init_state(init_fn, _optimizer(config), config.seed, names)


def abstract_state(config: Config, image_shape: tuple[int, int, int]) -> TrainState:
    """Returns shapes and dtypes of the state, on each device whole, without computing anything."""
    # One device is enough for a single process; several share what they restore.
    mesh = all_devices(most=1)
    return with_shardings(jax.eval_shape(make_init_state(config, image_shape)), mesh)


def with_shardings(tree: Any, mesh: jax.sharding.Mesh) -> Any:
    """Returns the shapes and dtypes of a tree, each array as a train state lies on a mesh."""
    return jax.tree.map(
        lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
        tree,
        state_shardings(mesh, tree),
    )


def loss_settings(config: Config) -> LossSettings:
    """Returns the fields that the loss depends on."""
    return LossSettings(
        prediction=config.model.prediction,
        space=config.loss.space,
        min_sigma=config.loss.min_sigma,
        weight=config.loss.weight,
        min_snr_gamma=config.loss.min_snr_gamma,
        data_std=config.data.model_std,
        time_distribution=config.loss.time_distribution,
        time_mean=config.loss.time_mean,
        time_std=config.loss.time_std,
        stratified=config.loss.stratified,
        label_drop=config.loss.label_drop,
        null_label=config.model.num_classes,
    )


def build_train_step(
    config: Config,
    batch_fn: Callable[..., Batch],
    spread: Spread,
    rows: bool = False,
    class_counts: Sequence[int] | None = None,
) -> StepFn:
    """Returns the pure train step, `(state, *data) -> (state, scalars)`.

    Args:
      config: the configuration.
      batch_fn: `(step, places, *data) -> Batch` in the model's range.
      spread: how the batch lies on the devices.
      rows: whether the data are rows of the batch, see `Spread.on_parts`.
      class_counts: training images of each class, for `classify.class_weights=balanced`.
    """
    return make_train_step(
        build_loss_fn(config, class_counts),
        batch_fn,
        _optimizer(config),
        _schedule(config),
        EmaSettings(config.optim.ema_half_lives, config.optim.ema_warmup_share),
        spread=spread,
        rows=rows,
        num_parts=config.train.accumulate_steps,
        seed=config.seed,
    )
