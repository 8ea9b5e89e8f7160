import re

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import norm

from lensjax.models.layers import Dense, gelu


def loss_of(layer, x):
    def loss(params):
        return jnp.sum(jnp.sin(layer.apply(params, x).astype(jnp.float32)))

    return loss


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize("shape", [(5, 12), (3, 7, 12), (2, 3, 4, 12)])
def test_dense_is_that_of_flax(shape, dtype):
    x = jax.random.normal(jax.random.key(0), shape, dtype)
    ours, theirs = Dense(8, dtype=dtype), nn.Dense(8, dtype=dtype)
    params = ours.init(jax.random.key(1), x)
    expected = theirs.init(jax.random.key(1), x)
    jax.tree.map(np.testing.assert_array_equal, params, expected)
    assert np.shape(ours.apply(params, x)) == (*shape[:-1], 8)
    found = jax.value_and_grad(loss_of(ours, x))(params)
    wanted = jax.value_and_grad(loss_of(theirs, x))(params)
    close = 2e-5 if dtype == jnp.float32 else 2e-2
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, close, close), found, wanted)


def test_dense_multiplies_matrices_forwards_and_backwards():
    x = jnp.ones((2, 16, 12))

    def ranks(layer):
        params = layer.init(jax.random.key(0), x)
        gradient = jax.grad(lambda params, x: loss_of(layer, x)(params), (0, 1))
        text = jax.jit(gradient).lower(params, x).as_text()
        products = re.findall(r"dot_general.* : \(tensor<(.*?)>, tensor<(.*?)>\)", text)
        return [operand.count("x") for product in products for operand in product]

    assert ranks(Dense(8)) == [2] * 6
    assert set(ranks(nn.Dense(8))) == {2, 3}


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_gelu_weighs_by_the_normal_distribution(dtype):
    x = jnp.linspace(-6, 6, 241, dtype=dtype)
    points = np.asarray(x, np.float64)
    slope = norm.cdf(points) + points * norm.pdf(points)
    close = 1e-6 if dtype == jnp.float32 else 2**-8
    out, push = jax.jvp(gelu, (x,), (jnp.ones_like(x),))
    (pull,) = jax.vjp(gelu, x)[1](jnp.ones_like(x))
    assert out.dtype == push.dtype == pull.dtype == dtype
    for found, wanted in ((out, points * norm.cdf(points)), (push, slope), (pull, slope)):
        np.testing.assert_allclose(np.asarray(found, np.float64), wanted, close, close)


def test_gelu_can_be_derived_twice():
    x = jnp.linspace(-4, 4, 33)
    points = np.asarray(x, np.float64)
    wanted = (2 - points**2) * norm.pdf(points)
    found = jax.vmap(jax.grad(jax.grad(gelu)))(x)
    np.testing.assert_allclose(found, wanted, 1e-5, 1e-6)


def test_gelu_keeps_x_alone_for_its_gradient():
    pull = jax.vjp(gelu, jnp.ones((4, 8)))[1]
    assert sum(leaf.size for leaf in jax.tree.leaves(pull)) <= 4 * 8
