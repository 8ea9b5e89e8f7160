"""Optimizer, learning-rate schedule and the moving averages of the parameters."""

import math
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import optax
from jax import Array

Tree = TypeVar("Tree")


def _rise(step: Array, warmup_steps: int) -> Array:
    """The linear warm-up, as a share of the highest learning rate."""
    return (step + 1) / max(warmup_steps, 1)


def make_schedule(
    learning_rate: float, num_steps: int, warmup_steps: int, floor: float
) -> Callable[[Array], Array]:
    """`learning_rate(step)`: a linear warm-up, then `max(floor, cosine)`.

    Args:
      learning_rate: the highest value.
      num_steps: the step at which the cosine reaches 0.
      warmup_steps: steps of the linear rise; 0 for none.
      floor: the least value after the warm-up, as a share of `learning_rate`.
    """

    def schedule(step: Array) -> Array:
        rise = _rise(step, warmup_steps)
        progress = (step - warmup_steps) / max(num_steps - warmup_steps, 1)
        cosine = 0.5 * (1 + jnp.cos(jnp.pi * jnp.clip(progress, 0.0, 1.0)))
        return learning_rate * jnp.where(step < warmup_steps, rise, jnp.maximum(floor, cosine))

    return schedule


def cooldown_start(num_steps: int, warmup_steps: int, share: float) -> int:
    """The first step of the cooldown, which is never within the warm-up.

    Args:
      num_steps: steps of the whole run.
      warmup_steps: steps of the linear rise.
      share: of all steps that belong to the cooldown.
    """
    return max(warmup_steps, num_steps - math.ceil(share * num_steps))


def make_cooldown_schedule(
    learning_rate: float, num_steps: int, warmup_steps: int, floor: float, share: float
) -> Callable[[Array], Array]:
    """`learning_rate(step)`: a linear warm-up, a constant, then `max(floor, 1 - sqrt(progress))`.

    Of the shapes that Haegele et al. 2024 (arXiv:2405.18392, section 3) compare, 1 - sqrt ends with
    the lowest loss. Before the cooldown no rate depends on `num_steps`.

    Args:
      learning_rate: the highest value.
      num_steps: the step at which 1 - sqrt reaches 0.
      warmup_steps: steps of the linear rise; 0 for none.
      floor: the least value of the cooldown, as a share of `learning_rate`.
      share: of all steps that belong to the cooldown.
    """
    start = cooldown_start(num_steps, warmup_steps, share)

    def schedule(step: Array) -> Array:
        progress = (step - start) / max(num_steps - start, 1)
        fall = jnp.maximum(floor, 1 - jnp.sqrt(jnp.clip(progress, 0.0, 1.0)))
        return learning_rate * jnp.where(
            step < warmup_steps, _rise(step, warmup_steps), jnp.where(step < start, 1, fall)
        )

    return schedule


# Of Muon's updates, as that of AdamW usually is (Liu et al. 2025, arXiv:2502.16982, section 2.2).
_RMS_OF_UPDATES = 0.2


def _matrices(params: Any) -> Any:
    """For each kernel, which axes are inputs and which outputs; None for all other leaves."""

    def axes(path: tuple, leaf: Any) -> Any:
        is_kernel = jax.tree_util.keystr(path[-1:], simple=True) == "kernel" and leaf.ndim >= 2
        inputs, output = tuple(range(leaf.ndim - 1)), leaf.ndim - 1
        return optax.contrib.MuonDimensionNumbers(inputs, output) if is_kernel else None

    return jax.tree_util.tree_map_with_path(axes, params)


def build_optimizer(
    schedule: Callable[[Array], Array],
    *,
    weight_decay: float,
    clip_norm: float,
    b1: float,
    b2: float,
    eps: float,
    name: str = "adamw",
) -> optax.GradientTransformation:
    """AdamW (Loshchilov & Hutter 2019), or Muon, after clipping by the global norm.

    Muon (Jordan 2024) makes the update of each kernel orthogonal and scales it like one of AdamW,
    which serves the other parameters (Liu et al. 2025, arXiv:2502.16982); both with Nesterov's
    momentum.

    Args:
      schedule: learning rate of a step.
      weight_decay: decoupled decay, multiplied by the learning rate.
      clip_norm: largest global norm of the gradient.
      b1: decay of the first moment.
      b2: decay of the second moment.
      eps: `adamw`: added to the root of the second moment.
      name: `adamw` or `muon`.
    """
    if name == "muon":
        optimizer = optax.contrib.muon(
            schedule,
            weight_decay=weight_decay,
            adam_b1=b1,
            adam_b2=b2,
            muon_weight_dimension_numbers=_matrices,
            consistent_rms=_RMS_OF_UPDATES,
        )
    else:
        optimizer = optax.adamw(schedule, b1=b1, b2=b2, eps=eps, weight_decay=weight_decay)
    return optax.chain(optax.clip_by_global_norm(clip_norm), optimizer)


def keeping(optimizer: optax.GradientTransformation, branch: str) -> optax.GradientTransformation:
    """An optimizer that leaves the parameters under one name at the top as they are."""

    def is_kept(params: Mapping[str, Any]) -> dict[str, Any]:
        return {
            name: jax.tree.map(lambda _, keeps=name == branch: keeps, subtree)
            for name, subtree in params.items()
        }

    return optax.chain(optimizer, optax.masked(optax.set_to_zero(), is_kept))


def ema_decay(step: Array, batch_size: int, half_life_images: float, warmup_share: float) -> Array:
    """The decay of the average at a step, float32 `[]`.

    The half-life is at most a share of the images seen so far, so that the initial weights are
    forgotten early (Karras et al. 2022, arXiv:2206.00364, appendix F.2).

    Args:
      step: int32 `[]`, updates made before this one.
      batch_size: images per step.
      half_life_images: the half-life when warmed up.
      warmup_share: the largest half-life as a share of the images seen; 0 switches this off.
    """
    half_life = jnp.asarray(half_life_images, jnp.float32)
    if warmup_share:
        images_seen = (step + 1).astype(jnp.float32) * batch_size
        half_life = jnp.minimum(half_life, warmup_share * images_seen)
    return 0.5 ** (batch_size / half_life)


def update_ema(average: Tree, params: Tree, decay: Array) -> Tree:
    """`decay average + (1 - decay) params` for trees of the same structure."""
    return optax.incremental_update(params, average, 1 - decay)
