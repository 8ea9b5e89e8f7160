"""The UNet's shapes and parameters, and what holds for both denoisers."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support import random_like

from lensjax.assemble import make_apply_fn, make_init_fn
from lensjax.config import ModelConfig
from lensjax.models import build_model

DIT = {"name": "dit", "patch_size": 2, "width": 32, "depth": 2, "num_heads": 4}
UNET = {"name": "unet", "patch_size": 2, "widths": (16, 32), "blocks": 1, "condition_width": 24}
SHAPE = (12, 8, 2)
# This generator compiles in a fraction of the time, and any numbers will do.
FAST_KEY = jax.random.key(0, impl="unsafe_rbg")
ODD_SHAPES = ((37, 50, 2), (5, 3, 1), (16, 16, 1))

each_model = pytest.mark.parametrize("fields", [DIT, UNET], ids=["dit", "unet"])
UNETS = [(2, (16, 24), 2), (4, (16, 24), 1), (2, (16, 24, 32), 1), (4, (16, 24, 32), 1)]


def network(fields, shape=SHAPE, **changes):
    """A network with random numbers in all parameters, and a batch with every label."""
    model = build_model(ModelConfig(**{**fields, **changes}))
    params = random_like(jax.eval_shape(make_init_fn(model, shape), jax.random.key(0)))
    x = jnp.asarray(np.random.default_rng(1).normal(size=(4, *shape)), jnp.float32)
    t = jnp.asarray([0.02, 0.3, 0.6, 1.0])
    return jax.jit(make_apply_fn(model)), params, x, t, {"label": jnp.arange(4, dtype=jnp.int32)}


def output_and_gradient(apply_fn, params, x, t, condition):
    """The output, and the gradient of its sum with random weights, so that no errors cancel."""
    weights = jnp.asarray(np.random.default_rng(2).normal(size=x.shape), jnp.float32)

    def loss(params):
        out = apply_fn(params, x, t, condition)
        return jnp.sum(weights * out), out

    gradient, out = jax.jit(jax.grad(loss, has_aux=True))(params)
    return out, gradient


def assert_every_parameter_matters(tree):
    sizes = jax.tree.map(lambda leaf: float(jnp.sqrt(jnp.mean(jnp.square(leaf)))), tree)
    largest = max(jax.tree.leaves(sizes))
    for path, size in jax.tree_util.tree_leaves_with_path(sizes):
        assert size > 1e-5 * largest, f"{jax.tree_util.keystr(path)} does not matter"


@pytest.mark.parametrize(("patch_size", "widths", "blocks"), UNETS)
def test_unet_takes_any_size_and_uses_every_parameter(patch_size, widths, blocks):
    changes = {"patch_size": patch_size, "widths": widths, "blocks": blocks}
    made = network(UNET, (37, 50, 2), **changes)
    out, gradient = output_and_gradient(*made)
    assert out.shape == (4, 37, 50, 2)
    assert out.dtype == jnp.float32
    assert np.all(np.isfinite(out))
    assert_every_parameter_matters(gradient)


@pytest.mark.parametrize("shape", ODD_SHAPES)
def test_unet_pads_at_the_lower_right_and_crops(shape):
    apply_fn, params, x, t, condition = network(UNET, shape, patch_size=4)
    multiple = 8  # patches of 4 pixels, halved once
    whole = [(side + multiple - 1) // multiple * multiple for side in shape[:2]]
    padded = np.zeros((4, *whole, shape[2]), np.float32)
    padded[:, : shape[0], : shape[1]] = x
    found = apply_fn(params, x, t, condition)
    expected = apply_fn(params, jnp.asarray(padded), t, condition)[:, : shape[0], : shape[1]]
    np.testing.assert_allclose(found, expected, atol=1e-4 * np.abs(expected).max())


def test_unet_sees_the_whole_image_and_its_place():
    """Two resolutions reach from corner to corner of 8 x 8 patches; place breaks the shifts."""
    apply_fn, params, x, t, condition = network(UNET, (16, 16, 1), blocks=2)
    first = np.asarray(apply_fn(params, x, t, condition))
    far = np.asarray(apply_fn(params, x.at[:, 0, 0].add(1.0), t, condition))
    assert np.all(np.abs(far - first)[:, -1, -1] > 0)
    flat = np.asarray(apply_fn(params, jnp.zeros_like(x), t, condition))[:, 4:12, 4:12]
    assert np.all(np.ptp(flat[:, ::2, ::2], axis=(1, 2)) > 1e-3 * np.abs(flat).max())


@pytest.mark.parametrize(
    "fields", [{**DIT, "depth": 1}, {**UNET, "widths": (16,)}], ids=["dit", "unet"]
)
def test_output_is_zero_at_the_start(fields):
    init_fn = jax.jit(make_init_fn(build_model(ModelConfig(**fields)), SHAPE))
    apply_fn, _, *batch = network(fields)
    out, gradient = output_and_gradient(apply_fn, init_fn(FAST_KEY), *batch)
    np.testing.assert_array_equal(out, 0)
    # Yet it learns at once.
    assert max(jnp.max(jnp.abs(leaf)) for leaf in jax.tree.leaves(gradient)) > 0.01


def test_dit_uses_every_parameter():
    _, gradient = output_and_gradient(*network(DIT))
    assert_every_parameter_matters(gradient)


@each_model
def test_label_and_time_matter_to_their_own_example_alone(fields):
    apply_fn, params, x, t, condition = network(fields)
    label = condition["label"]
    first = np.asarray(apply_fn(params, x, t, condition))
    for other_t, other_label in ((t.at[1].add(0.01), label), (t, label.at[1].set(3))):
        other = np.asarray(apply_fn(params, x, other_t, {"label": other_label}))
        differs = np.max(np.abs(other - first), axis=(1, 2, 3)) > 1e-4 * np.abs(first).max()
        np.testing.assert_array_equal(differs, [False, True, False, False])


@each_model
def test_all_labels_and_times_give_different_outputs(fields):
    apply_fn, params, x, t, condition = network(fields)
    same = jnp.broadcast_to(x[:1], x.shape)
    for times, labels in ((t, jnp.zeros(4, jnp.int32)), (jnp.full(4, 0.5), condition["label"])):
        out = np.asarray(apply_fn(params, same, times, {"label": labels}))
        for one, other in itertools.combinations(out, 2):
            assert np.max(np.abs(one - other)) > 1e-3 * np.abs(out).max()


@each_model
@pytest.mark.parametrize("num_classes", [0, 1, 7])
def test_table_has_one_row_more_than_classes(fields, num_classes):
    model = build_model(ModelConfig(**fields, num_classes=num_classes))
    params = jax.eval_shape(make_init_fn(model, SHAPE), jax.random.key(0))
    assert params["condition"]["label"]["embedding"].shape[0] == num_classes + 1


def matrix_operands(jaxpr) -> set[str]:
    """Types that enter the products and convolutions of a program."""
    found = set()
    for equation in jaxpr.eqns:
        if equation.primitive.name in ("dot_general", "conv_general_dilated"):
            found |= {str(variable.aval.dtype) for variable in equation.invars}
        for inner in equation.params.values():
            inner = getattr(inner, "jaxpr", inner)
            if hasattr(inner, "eqns"):
                found |= matrix_operands(inner)
    return found


@each_model
def test_bfloat16_computes_in_it_and_keeps_float32_outside(fields):
    exact, params, *batch = network(fields)
    half, _, *_ = network(fields, dtype="bfloat16")
    model = build_model(ModelConfig(**fields, dtype="bfloat16"))
    init = jax.eval_shape(make_init_fn(model, SHAPE), jax.random.key(0))
    assert {leaf.dtype for leaf in jax.tree.leaves(init)} == {jnp.dtype("float32")}

    expected, found = exact(params, *batch), half(params, *batch)
    assert found.dtype == jnp.float32
    error = np.sqrt(np.mean(np.square(found - expected)) / np.mean(np.square(expected)))
    assert 1e-4 < error < 0.03
    assert matrix_operands(jax.make_jaxpr(half)(params, *batch).jaxpr) == {"bfloat16"}
    assert matrix_operands(jax.make_jaxpr(exact)(params, *batch).jaxpr) == {"float32"}
