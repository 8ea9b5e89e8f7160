"""Losses of classifiers and masked autoencoders: functions of parameters, batch and keys."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import Array

from lensjax.interfaces import Batch, LossFn, Places
from lensjax.models.classifiers import ClassifierOutput
from lensjax.models.mae import MaskedOutput, normalised
from lensjax.models.vit import pixels_inside, to_patches

# (params, images [B, H, W, C], keys [B] or None) -> output.
ClassifyFn = Callable[[Any, Array, Array | None], ClassifierOutput]
MaskedFn = Callable[[Any, Array, Array], MaskedOutput]


def cross_entropy(logits: Array, labels: Array, smoothing: float = 0.0) -> Array:
    """The cross-entropy of each example in nats, float32 `[B]`.

    Args:
      logits: `[B, K]`.
      labels: int32 `[B]`.
      smoothing: share of each target that is spread over all K classes (Szegedy et al. 2016,
        arXiv:1512.00567).
    """
    targets = jax.nn.one_hot(labels, logits.shape[-1], dtype=logits.dtype)
    return optax.softmax_cross_entropy(logits, optax.smooth_labels(targets, smoothing))


def make_classifier_loss_fn(
    apply_fn: ClassifyFn, smoothing: float, class_weights: Array, train_encoder: bool = True
) -> LossFn:
    """Makes `loss(params, batch, keys [B], places) -> float32 []`.

    Args:
      apply_fn: the classifier.
      smoothing: see `cross_entropy`.
      class_weights: factors `[K]`; the loss is `mean(w_label entropy)`.
      train_encoder: False keeps the parameters under `encoder` as they are.
    """

    def loss_fn(params: Any, batch: Batch, keys: Array, places: Places | None = None) -> Array:
        del places
        if not train_encoder:
            params = {**params, "encoder": jax.lax.stop_gradient(params["encoder"])}
        logits = apply_fn(params, batch.image, keys).logits
        return jnp.mean(class_weights[batch.label] * cross_entropy(logits, batch.label, smoothing))

    return loss_fn


def masked_errors(
    apply_fn: MaskedFn,
    params: Any,
    images: Array,
    keys: Array,
    patch_size: int,
    normalise: bool,
    measured: Array | None = None,
) -> Array:
    """The mean squared error over the unseen patches of each image, float32 `[B]`.

    Pixels of a patch beyond the image, or without a measurement, do not count; a patch weighs as
    much as its other pixels.

    Args:
      apply_fn: the autoencoder.
      params: its parameters.
      images: model range, `[B, H, W, C]`.
      keys: typed keys `[B]`.
      patch_size: side of a patch in pixels.
      normalise: whether each target patch has mean 0 and variance 1.
      measured: the pixels that were measured, bool `[B, H, W, C]`; None for all.
    """
    target = to_patches(images, patch_size)
    inside = pixels_inside(images.shape[1:], patch_size)
    if normalise:
        target = normalised(target, inside)
    output = apply_fn(params, images, keys)
    squares, unseen = jnp.square(output.patches - target), ~output.seen
    if measured is not None:
        counted = unseen[..., None] & to_patches(measured, patch_size)
        if inside is not None:
            counted &= inside[None]
        total = jnp.sum(squares, axis=(1, 2), where=counted)
        return total / jnp.maximum(jnp.sum(counted, axis=(1, 2)), 1)
    if inside is not None:
        counted = unseen[..., None] & inside[None]
        return jnp.mean(squares, axis=(1, 2), where=counted)
    return jnp.mean(jnp.mean(squares, axis=-1), axis=1, where=unseen)


def make_masked_loss_fn(apply_fn: MaskedFn, patch_size: int, normalise: bool) -> LossFn:
    """Makes `loss(params, batch, keys [B], places) -> float32 []`; see `masked_errors`."""

    def loss_fn(params: Any, batch: Batch, keys: Array, places: Places | None = None) -> Array:
        del places
        errors = masked_errors(
            apply_fn, params, batch.image, keys, patch_size, normalise, batch.measured
        )
        return jnp.mean(errors)

    return loss_fn
