"""Scales a network's input and output by the noise level, so that both stay of order 1."""

from collections.abc import Mapping

import jax.numpy as jnp
from jax import Array

from lensjax.diffusion.paths import Path, per_example
from lensjax.interfaces import ApplyFn

PRECONDITIONINGS = ("none", "input", "edm")


def precondition(apply_fn: ApplyFn, path: Path, kind: str, data_std: float) -> ApplyFn:
    """A network with its input, or input and output, scaled by the noise level.

    `input` divides x_t by its standard deviation `s = sqrt(alpha^2 std^2 + sigma^2)`. `edm` is the
    preconditioning of Karras et al. 2022 (arXiv:2206.00364, equation 7) for any path: its network
    F gives

        x0 = alpha std^2 / s^2 x_t + sigma std / s F(x_t / s, t),

    so that the target of F has unit variance at every noise level.

    Args:
      apply_fn: `(params, x, t, condition) -> output`.
      path: the probability path.
      kind: one of `PRECONDITIONINGS`.
      data_std: standard deviation of the data in the model's range.
    """
    if kind == "none":
        return apply_fn

    def scaled(params: object, x: Array, t: Array, condition: Mapping[str, Array]) -> Array:
        times = per_example(t, x)
        alpha, sigma = path.alpha(times), path.sigma(times)
        variance = jnp.square(alpha * data_std) + jnp.square(sigma)
        deviation = jnp.sqrt(variance)
        output = apply_fn(params, x / deviation, t, condition)
        if kind == "input":
            return output
        return (alpha * data_std**2 / variance) * x + (sigma * data_std / deviation) * output

    return scaled
