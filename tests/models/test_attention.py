"""Each form of attention against the formula in float64, and where each is chosen."""

import dataclasses
import math
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support import random_like

from lensjax.config import ModelConfig
from lensjax.models import attention, build_model
from lensjax.run.networks import make_apply_fn, make_init_fn

pytestmark = pytest.mark.usefixtures("quick_compiles")
QKV = tuple[jax.Array, jax.Array, jax.Array]


def _inputs(num_tokens: int, dtype: str = "float32", width: int = 8) -> QKV:
    rng = np.random.default_rng(num_tokens)
    qkv = jnp.asarray(rng.normal(size=(3, 2, num_tokens, 3, width)), dtype)
    return qkv[0], qkv[1], qkv[2]


def _formula(query: np.ndarray, key: np.ndarray, value: np.ndarray) -> np.ndarray:
    scores = np.einsum("bqhd,bkhd->bhqk", query, key) / math.sqrt(query.shape[-1])
    weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
    weights /= weights.sum(axis=-1, keepdims=True)
    return np.einsum("bhqk,bkhd->bqhd", weights, value)


def _float64(arrays: QKV) -> list[np.ndarray]:
    return [np.asarray(array, np.float64) for array in arrays]


@pytest.mark.parametrize("num_tokens", [1, 7, 256, 257, 600])
@pytest.mark.parametrize("name", ["xla", "chunked"])
def test_attention_is_the_formula(name, num_tokens):
    inputs = _inputs(num_tokens)
    found = jax.jit(lambda q, k, v: attention.attend(q, k, v, name))(*inputs)
    np.testing.assert_allclose(found, _formula(*_float64(inputs)), atol=5e-6)


def test_half_precision_stays_so_and_is_as_good_as_its_inputs():
    inputs = _inputs(600, "bfloat16")
    found = attention.attend(*inputs, "chunked")
    assert found.dtype == jnp.bfloat16
    np.testing.assert_allclose(
        np.asarray(found, np.float64), _formula(*_float64(inputs)), atol=0.03
    )


def test_the_gradient_in_half_precision_is_as_good_as_its_inputs():
    inputs = _inputs(600, "bfloat16")

    def gradient(dtype, name):
        def value(query, key, value):
            return attention.attend(query, key, value, name).astype(jnp.float32).std()

        return jax.jit(jax.grad(value))(*(x.astype(dtype) for x in inputs))

    expected = gradient(jnp.float32, "xla")
    found = gradient(jnp.bfloat16, "chunked")
    assert found.dtype == jnp.bfloat16
    np.testing.assert_allclose(
        np.asarray(found, np.float64), expected, atol=0.01 * float(jnp.abs(expected).max())
    )


@pytest.mark.parametrize("num_tokens", [7, 600])
def test_the_gradient_is_that_of_the_plain_form(num_tokens):
    inputs = _inputs(num_tokens)
    push = jnp.asarray(np.random.default_rng(5).normal(size=inputs[0].shape), jnp.float32)

    def gradient(name):
        def value(query, key, value):
            return jnp.vdot(push, attention.attend(query, key, value, name))

        return jax.jit(jax.grad(value, argnums=(0, 1, 2)))(*inputs)

    for found, expected in zip(gradient("chunked"), gradient("xla"), strict=True):
        largest = float(jnp.abs(expected).max()) or 1.0
        np.testing.assert_allclose(found, expected, atol=2e-6 * max(largest, 1.0))


def test_large_scores_do_not_overflow():
    query, key, value = _inputs(300)
    large = 200 * query, 200 * key, value

    def total(query, key, value):
        found = attention.attend(query, key, value, "chunked")
        return found.sum(), found

    gradient, found = jax.jit(jax.grad(total, has_aux=True))(*large)
    assert np.isfinite(found).all()
    assert np.isfinite(gradient).all()


HALF, FULL = jnp.dtype("bfloat16"), jnp.dtype("float32")
CHOICES = {
    ("auto", "cuda", 1024, 64, HALF): "cudnn",
    ("auto", "cuda", 64, 64, HALF): "cudnn",
    ("auto", "cuda", 1024, 64, FULL): "again",  # cuDNN's takes half precision alone
    ("auto", "cuda", 1024, 65, HALF): "again",
    ("auto", "cuda", 64, 256, HALF): "xla",
    ("auto", "gpu", 1024, 64, HALF): "again",
    ("auto", "cpu", 1024, 64, FULL): "chunked",
    ("auto", "cpu", 64, 64, FULL): "xla",
    ("auto", "cpu", 1024, 64, HALF): "xla",
    ("auto", "tpu", 1024, 64, HALF): "again",
    ("auto", "tpu", 64, 64, HALF): "xla",
    ("xla", "cuda", 1024, 64, HALF): "xla",
    ("chunked", "gpu", 64, 64, HALF): "chunked",
}


@pytest.mark.parametrize("case", CHOICES, ids=str)
def test_what_is_chosen_fits_the_device(case):
    assert attention.choose(*case) == CHOICES[case]


CUDNN = ("__cudnn$fmhaSoftmax", "__cudnn$fmhaSoftmaxBackward")


def test_cudnn_is_lowered_for_a_gpu(monkeypatch):
    """The program of attention and its gradient, as it would be sent to a GPU."""
    import jax._src.cudnn.fused_attention_stablehlo as fused

    monkeypatch.setattr(fused, "check_cudnn_version", lambda: 91000)
    monkeypatch.setattr(attention, "platform", lambda: "cuda")
    shape = jax.ShapeDtypeStruct((1, 1024, 2, 64), jnp.bfloat16)
    unchecked = [jax.export.DisabledSafetyCheck.custom_call(kernel) for kernel in CUDNN]

    def program(name: str) -> str:
        def total(query, key, value):
            return attention.attend(query, key, value, name).astype("float32").sum()

        gradient = jax.jit(jax.grad(total))
        export = jax.export.export(gradient, platforms=["cuda"], disabled_checks=unchecked)
        return export(shape, shape, shape).mlir_module()

    assert all(kernel in program("auto") for kernel in CUDNN)
    assert "__cudnn" not in program("xla")


NETWORKS = {
    "dit": ModelConfig(name="dit", patch_size=1, width=8, depth=3, num_heads=2, mlp_ratio=2),
    "unet": ModelConfig(
        name="unet", patch_size=1, widths=(8, 8), blocks=1, attention_resolutions=(24, 12)
    ),
}
# Fewer layers for what is compiled.
SMALL: dict[str, dict[str, Any]] = {
    "dit": {"depth": 1},
    "unet": {"widths": (8,), "attention_resolutions": (24,)},
}


def _loss_fn(network: str, shape: tuple[int, int, int], **fields):
    """Returns `params -> loss` of a network with some fields changed, and parameters."""
    model = build_model(dataclasses.replace(NETWORKS[network], **fields))
    x = jnp.asarray(np.random.default_rng(1).normal(size=(2, *shape)), jnp.float32)
    t, condition = jnp.asarray([0.2, 0.7]), {"label": jnp.asarray([0, 2])}

    def loss(params):
        return jnp.mean(jnp.square(make_apply_fn(model)(params, x, t, condition)))

    shapes = jax.eval_shape(make_init_fn(model, shape), jax.random.key(0))
    return loss, random_like(shapes)


@pytest.mark.parametrize("network", NETWORKS)
def test_attention_and_remat_leave_a_network_and_its_gradient_as_they_are(network):
    """576 tokens, so that `auto` is `chunked`; both changes at once."""
    plain, params = _loss_fn(network, (24, 24, 1), attention="xla", **SMALL[network])
    changed, others = _loss_fn(network, (24, 24, 1), attention="auto", remat=True, **SMALL[network])
    chex.assert_trees_all_equal_structs(others, params)
    loss, gradient = jax.jit(jax.value_and_grad(changed))(params)
    expected, expected_gradient = jax.jit(jax.value_and_grad(plain))(params)
    np.testing.assert_allclose(loss, expected, rtol=1e-5)
    largest = max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(expected_gradient))
    jax.tree.map(
        lambda one, other: np.testing.assert_allclose(one, other, atol=1e-5 * largest),
        gradient,
        expected_gradient,
    )


@pytest.mark.parametrize("network", NETWORKS)
def test_remat_keeps_less_for_the_gradient(network):
    """Counts the numbers that wait for the backward pass; a CPU's compiler keeps its own count."""

    def kept(remat: bool) -> int:
        gradient_fn, params = _loss_fn(network, (24, 24, 1), remat=remat)
        waiting = jax.eval_shape(lambda params: jax.vjp(gradient_fn, params)[1], params)
        return sum(leaf.size for leaf in jax.tree.leaves(waiting))

    assert kept(True) < 0.5 * kept(False)
