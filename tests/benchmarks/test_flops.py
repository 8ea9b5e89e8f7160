"""The closed formula counts what the traced network multiplies."""

import math
from typing import Any

import flops
import jax
import jax.numpy as jnp
import pytest
from run_support import tiny_config

from lensjax.config import Config, to_dict
from lensjax.run.learning import abstract_state
from lensjax.run.networks import build_network

pytestmark = pytest.mark.nightly


def counted(jaxpr: Any) -> int:
    """Returns the FLOPs of all matrix products of a traced function, calls included."""
    total = 0
    for equation in jaxpr.eqns:
        if equation.primitive.name == "dot_general":
            (contracted, _), _ = equation.params["dimension_numbers"]
            inner = math.prod(equation.invars[0].aval.shape[axis] for axis in contracted)
            total += 2 * inner * equation.outvars[0].aval.size
        for value in jax.tree.leaves(
            list(equation.params.values()), is_leaf=lambda leaf: hasattr(leaf, "eqns")
        ):
            inside = getattr(value, "jaxpr", value)
            if hasattr(inside, "eqns"):
                total += counted(inside)
    return total


def traced(config: Config, shape: tuple[int, int, int], batch: int) -> tuple[int, int]:
    """Returns the FLOPs of an image's forward pass and of its gradient."""
    network = build_network(config).apply_fn
    params = abstract_state(config, shape).params
    image, t = jnp.zeros((batch, *shape)), jnp.zeros(batch)
    labels = {"label": jnp.zeros(batch, jnp.int32)}

    def loss(params: Any) -> Any:
        return jnp.sum(network(params, image, t, labels))

    programs = (jax.make_jaxpr(loss)(params), jax.make_jaxpr(jax.grad(loss))(params))
    forward, both = (counted(program.jaxpr) // batch for program in programs)
    return forward, both


@pytest.mark.parametrize(
    ("patch", "width", "depth", "ratio", "shape"),
    [
        (2, 512, 6, 4, (64, 64, 1)),
        (4, 32, 1, 3, (48, 16, 2)),
        (8, 64, 2, 2, (32, 64, 3)),
    ],
)
def test_the_formula_is_what_the_network_multiplies(patch, width, depth, ratio, shape):
    size = {"patch_size": patch, "width": width, "depth": depth, "mlp_ratio": ratio}
    # Other forms of attention multiply more for their gradient, which is not the model's work.
    config = tiny_config(model=size | {"attention": "xla"})
    model = to_dict(config)["model"]
    forward, both = traced(config, shape, batch=2)
    assert flops.forward_flops(model, shape) == forward
    # The gradients by images and times, inputs of the first products, are not needed.
    unneeded = 2 * width * (math.prod(shape) + 256)
    assert flops.train_flops(model, shape) == both + unneeded
    assert flops.sample_flops(model, shape, 20) == 20 * forward


@pytest.mark.parametrize(("patch", "expected"), [(2, 155e9), (4, 31e9)])
def test_nanodit_has_the_flops_that_are_known(patch, expected):
    model = to_dict(tiny_config(model={"width": 512, "depth": 6, "patch_size": patch}))["model"]
    assert flops.train_flops(model, (64, 64, 1)) == pytest.approx(expected, rel=0.02)
