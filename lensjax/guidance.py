"""Guidance: wraps a network's apply function into the denoiser that a sampler calls."""

from collections.abc import Callable, Mapping

import jax.numpy as jnp
from jax import Array

from lensjax.paths import Estimate, Path, estimate
from lensjax.samplers import DenoiseFn

Condition = Mapping[str, Array]
# (params, x [B, H, W, C], t [B], condition) -> output [B, H, W, C].
ApplyFn = Callable[..., Array]


def make_denoiser(
    apply_fn: ApplyFn,
    params: object,
    condition: Condition,
    *,
    path: Path,
    prediction: str,
    null_label: int,
    guidance: float,
) -> DenoiseFn:
    """Returns a denoiser with classifier-free guidance, `uncond + g (cond - uncond)`.

    Guidance acts on the network's output (Ho & Salimans 2022, arXiv:2207.12598); every prediction
    is linear in the others at fixed `x_t`, so that the choice makes no difference.

    Args:
      apply_fn: `(params, x, t, condition) -> output`.
      params: the network's parameters.
      condition: `label` int32 `[B]`; whatever stands beside it, `[B, ...]`, goes into both passes.
      path: the probability path.
      prediction: what the network predicts.
      null_label: the label that stands for none.
      guidance: g; 1 is the conditional model alone and costs one pass, anything else two passes
        (run as one of twice the batch).
    """
    if guidance == 1:

        def denoise(x_t: Array, t: Array) -> Estimate:
            return estimate(path, prediction, apply_fn(params, x_t, t, condition), x_t, t)

        return denoise

    both = {name: jnp.concatenate([value, value]) for name, value in condition.items()}
    label = condition["label"]
    both["label"] = jnp.concatenate([label, jnp.full_like(label, null_label)])

    def denoise_guided(x_t: Array, t: Array) -> Estimate:
        outputs = apply_fn(params, jnp.concatenate([x_t, x_t]), jnp.concatenate([t, t]), both)
        conditional, unconditional = jnp.split(outputs, 2)
        output = unconditional + guidance * (conditional - unconditional)
        return estimate(path, prediction, output, x_t, t)

    return denoise_guided


def passes_per_call(guidance: float) -> int:
    """Returns the network passes an image that one call of a guided denoiser takes."""
    return 1 if guidance == 1 else 2
