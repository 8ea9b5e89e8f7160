"""Guidance: wraps denoisers into the denoiser that a sampler calls."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from lensjax.diffusion.paths import Path, estimate
from lensjax.interfaces import ApplyFn, Condition, DenoiseFn, Estimate

# (x_t [B, H, W, C], t []) -> the estimates of the wanted and of the weaker model.
PairFn = Callable[[Array, Array], tuple[Estimate, Estimate]]


class Guidance(NamedTuple):
    """How far the estimates are pushed away from those of a weaker model.

    Attributes:
      weight: g of `weak + g (wanted - weak)`; 1 is the wanted model alone.
      rescale: how much of the wanted x0's standard deviation the result gets back, 0 to 1.
      interval: times between which guidance acts; outside, the weaker model is not called.
    """

    weight: float = 1.0
    rescale: float = 0.0
    interval: tuple[float, float] = (0.0, 1.0)


def make_denoiser(
    apply_fn: ApplyFn, params: object, condition: Condition, *, path: Path, prediction: str
) -> DenoiseFn:
    """A network as a denoiser, without guidance.

    Args:
      apply_fn: `(params, x, t, condition) -> output`.
      params: the network's parameters.
      condition: `label` int32 `[B]`, and any other entries, `[B, ...]`.
      path: the probability path.
      prediction: one of `paths.PREDICTIONS`.
    """

    def denoise(x_t: Array, t: Array) -> Estimate:
        output = apply_fn(params, x_t, jnp.full(x_t.shape[:1], t), condition)
        return estimate(path, prediction, output, x_t, t)

    return denoise


def make_classifier_free_pair(
    apply_fn: ApplyFn,
    params: object,
    condition: Condition,
    *,
    path: Path,
    prediction: str,
    null_label: int,
) -> PairFn:
    """The estimates with and without labels, in one pass of twice the batch.

    Args as for `make_denoiser`, and
      null_label: the label for "no label"; the rest of the condition goes into both halves.
    """
    doubled = {name: jnp.concatenate([value, value]) for name, value in condition.items()}
    label = condition["label"]
    doubled["label"] = jnp.concatenate([label, jnp.full_like(label, null_label)])
    denoise = make_denoiser(apply_fn, params, doubled, path=path, prediction=prediction)

    def pair(x_t: Array, t: Array) -> tuple[Estimate, Estimate]:
        x0, eps = (jnp.split(images, 2) for images in denoise(jnp.concatenate([x_t, x_t]), t))
        return Estimate(x0[0], eps[0]), Estimate(x0[1], eps[1])

    return pair


def _deviation(images: Array) -> Array:
    return jnp.std(images, axis=range(1, images.ndim), keepdims=True)


def _combine(path: Path, guidance: Guidance, x_t: Array, t: Array, pair: PairFn) -> Estimate:
    wanted, weak = pair(x_t, t)
    weight = guidance.weight
    x0, eps = (
        without + weight * (with_it - without)
        for with_it, without in zip(wanted, weak, strict=True)
    )
    if guidance.rescale == 0:
        return Estimate(x0, eps)
    ratio = _deviation(wanted.x0) / jnp.maximum(_deviation(x0), np.finfo(np.float32).tiny)
    x0 = x0 * (1 + guidance.rescale * (ratio - 1))
    return Estimate(x0, (x_t - path.alpha(t) * x0) / path.sigma(t))


def guide(denoise: DenoiseFn, pair: PairFn, guidance: Guidance, path: Path) -> DenoiseFn:
    """A denoiser with guidance, `weak + g (wanted - weak)`.

    If the weaker model is the same network without labels, this is classifier-free guidance (Ho &
    Salimans 2022, arXiv:2207.12598); if it is a worse network, autoguidance (Karras et al. 2024,
    arXiv:2406.02507). At fixed `x_t` all predictions are linear in each other, so that it makes no
    difference which of them is guided. The rescaling of Lin et al. 2023 (arXiv:2305.08891, section
    3.4) is not linear, and is therefore always done on x0. The interval is that of Kynkaanniemi et
    al. 2024 (arXiv:2404.07724).

    Args:
      denoise: the wanted model.
      pair: the estimates of the wanted and the weaker model.
      guidance: see `Guidance`.
      path: the probability path.
    """
    if guidance.weight == 1:
        return denoise

    def guided(x_t: Array, t: Array) -> Estimate:
        return _combine(path, guidance, x_t, t, pair)

    low, high = guidance.interval
    if low <= path.interval[0] and high >= path.interval[1]:
        return guided

    def guided_inside(x_t: Array, t: Array) -> Estimate:
        # A branch, not a mask: outside the interval the second pass is not computed.
        return jax.lax.cond((low <= t) & (t <= high), guided, denoise, x_t, t)

    return guided_inside


def count_passes(guidance: Guidance, times: np.ndarray) -> int:
    """Network passes for each image when a guided denoiser is called at these times.

    Args:
      guidance: see `Guidance`.
      times: times of all calls, float32 `[calls]`.
    """
    if guidance.weight == 1:
        return len(times)
    low, high = np.asarray(guidance.interval, np.float32)  # the dtype of the branch in `guide`
    return len(times) + int(np.sum((low <= times) & (times <= high)))
