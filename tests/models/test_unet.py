"""The UNet's shapes and parameters, and what holds for both denoisers."""

import functools
import itertools
import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import quickstart
from support import random_like

from lensjax.config import ModelConfig, from_config_dict
from lensjax.errors import ConfigError
from lensjax.models import build_model
from lensjax.models.unet import AttentionBlock, attention_heads, feature_rows
from lensjax.run.networks import make_apply_fn, make_init_fn

pytestmark = pytest.mark.usefixtures("quick_compiles")
DIT: dict[str, Any] = {"name": "dit", "patch_size": 2, "width": 32, "depth": 2, "num_heads": 4}
UNET: dict[str, Any] = {
    "name": "unet",
    "patch_size": 2,
    "widths": (16, 32),
    "blocks": 1,
    "condition_width": 24,
}
SHAPE = (12, 8, 2)
ATTENDED = {**UNET, "attention_resolutions": (3, 6), "attention_head_width": 8}
# This generator compiles in a fraction of the time, and any numbers will do.
FAST_KEY = jax.random.key(0, impl="unsafe_rbg")

each_model = pytest.mark.parametrize("fields", [DIT, ATTENDED], ids=["dit", "attended"])


def network(fields, shape=SHAPE, **changes):
    """A network with random numbers in all parameters, and a batch with every label."""
    model = build_model(ModelConfig(**{**fields, **changes}))
    params = random_like(jax.eval_shape(make_init_fn(model, shape), jax.random.key(0)))
    x = jnp.asarray(np.random.default_rng(1).normal(size=(4, *shape)), jnp.float32)
    t = jnp.asarray([0.02, 0.3, 0.6, 1.0])
    return jax.jit(make_apply_fn(model)), params, x, t, {"label": jnp.arange(4, dtype=jnp.int32)}


@functools.cache
def _shared_program(fields: tuple[tuple[str, Any], ...]):
    """Output, and the gradient of its sum with random weights, so that no errors cancel.

    One program for all tests of a network.
    """
    apply_fn, params, *batch = network(dict(fields))
    weights = jnp.asarray(np.random.default_rng(2).normal(size=batch[0].shape), jnp.float32)

    def loss(params, *batch):
        out = apply_fn(params, *batch)
        return jnp.sum(weights * out), out

    return jax.jit(jax.grad(loss, has_aux=True)), params, *batch


def shared(fields: dict[str, Any]):
    """`(params, x, t, condition) -> (gradient, output)`, random parameters and a batch."""
    return _shared_program(tuple(fields.items()))


def shared_network(fields: dict[str, Any]):
    """As `network`, by the shared program."""
    program, *arguments = shared(fields)
    return lambda *arguments: program(*arguments)[1], *arguments


def assert_every_parameter_matters(tree):
    sizes = jax.tree.map(lambda leaf: float(np.sqrt(np.mean(np.square(leaf)))), tree)
    largest = max(jax.tree.leaves(sizes))
    for path, size in jax.tree_util.tree_leaves_with_path(sizes):
        assert size > 1e-5 * largest, f"{jax.tree_util.keystr(path)} does not matter"


def attention_everywhere(shape, patch_size, widths) -> dict[str, Any]:
    """The fields of attention at all levels, with one head at the first and two or more below."""
    rows = feature_rows(shape[0], patch_size, len(widths))
    return {"attention_resolutions": rows, "attention_head_width": 12}


nightly = pytest.mark.nightly


@pytest.mark.parametrize(
    ("shape", "patch_size", "widths", "blocks", "attended"),
    [
        ((37, 50, 2), 4, (8, 16, 24), 1, False),
        ((5, 3, 1), 4, (8, 16), 2, True),
        pytest.param((150, 150, 1), 4, (16, 24), 2, True, marks=nightly),
        pytest.param((64, 64, 1), 2, (16, 24, 32), 1, False, marks=nightly),
        pytest.param((33, 47, 1), 4, (16, 24, 32), 1, True, marks=nightly),
    ],
    ids=str,
)
def test_unet_takes_any_size_and_pads_at_the_lower_right(
    shape, patch_size, widths, blocks, attended
):
    changes = {"patch_size": patch_size, "widths": widths, "blocks": blocks}
    if attended:
        changes |= attention_everywhere(shape, patch_size, widths)
    apply_fn, params, x, t, condition = network(UNET, shape, **changes)
    multiple = patch_size * 2 ** (len(widths) - 1)
    whole = [(side + multiple - 1) // multiple * multiple for side in shape[:2]]
    padded = np.zeros((4, *whole, shape[2]), np.float32)
    padded[:, : shape[0], : shape[1]] = x
    found = apply_fn(params, x, t, condition)
    expected = apply_fn(params, jnp.asarray(padded), t, condition)[:, : shape[0], : shape[1]]
    assert found.shape == (4, *shape)
    assert found.dtype == jnp.float32
    assert np.all(np.isfinite(found))
    np.testing.assert_allclose(found, expected, atol=1e-4 * np.abs(expected).max())


@pytest.mark.parametrize(
    ("height", "patch_size", "num_levels", "expected"),
    [
        (150, 2, 4, (80, 40, 20, 10)),
        (64, 8, 2, (8, 4)),
        (64, 2, 4, (32, 16, 8, 4)),
        (65, 2, 4, (40, 20, 10, 5)),
        (1, 4, 3, (4, 2, 1)),
        (33, 1, 1, (33,)),
    ],
)
def test_rows_are_those_of_the_feature_maps(height, patch_size, num_levels, expected):
    assert feature_rows(height, patch_size, num_levels) == expected
    multiple = patch_size * 2 ** (num_levels - 1)
    padded = -(-height // multiple) * multiple
    assert expected == tuple(padded // patch_size // 2**level for level in range(num_levels))
    model = {"patch_size": patch_size, "widths": (8,) * num_levels}
    level = num_levels // 2
    fields = {**UNET, **model, "attention_resolutions": (expected[level],)}
    init_fn = make_init_fn(build_model(ModelConfig(**fields)), (height, 5, 1))
    names = jax.eval_shape(init_fn, jax.random.key(0)).keys()
    found = {name for name in names if name.endswith("_attention")}
    assert found == {f"{way}_{level}_block_0_attention" for way in ("down", "up")}


def attention_in_numpy(params, x, num_heads: int) -> np.ndarray:
    """The block in float64: group norm in groups of neighbours, all heads at once, and the sum."""
    exact = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params)
    x = np.asarray(x, np.float64)
    batch, rows, columns, width = x.shape
    grouped = x.reshape(batch, rows * columns, 8, width // 8)
    mean, var = (fn(grouped, axis=(1, 3), keepdims=True) for fn in (np.mean, np.var))
    tokens = ((grouped - mean) / np.sqrt(var + 1e-5)).reshape(batch, -1, width)
    tokens = tokens * exact["norm"]["scale"] + exact["norm"]["bias"]
    qkv, out = exact["attention"]["qkv"], exact["attention"]["out"]
    parts = np.split(tokens @ qkv["kernel"] + qkv["bias"], 3, axis=-1)
    query, key, value = (part.reshape(batch, -1, num_heads, width // num_heads) for part in parts)
    logits = np.einsum("bqhd,bkhd->bhqk", query, key) / np.sqrt(width // num_heads)
    weights = np.exp(logits - logits.max(axis=-1, keepdims=True))
    weights /= weights.sum(axis=-1, keepdims=True)
    mixed = np.einsum("bhqk,bkhd->bqhd", weights, value).reshape(tokens.shape)
    return x + (mixed @ out["kernel"] + out["bias"]).reshape(x.shape)


def attention_block(num_heads: int, dtype: str = "float32"):
    """The block with random numbers in all parameters, and features that it mixes strongly."""
    block = AttentionBlock(num_heads, jnp.dtype(dtype))
    x = jnp.asarray(2 * np.random.default_rng(3).normal(size=(2, 5, 3, 24)), jnp.float32)
    params = random_like(jax.eval_shape(block.init, jax.random.key(0), x)["params"], scale=0.4)
    return jax.jit(lambda params, x: block.apply({"params": params}, x)), params, x


@pytest.mark.parametrize("num_heads", [1, 2, 3, 24])
def test_attention_agrees_with_numpy_in_float64(num_heads):
    apply_fn, params, x = attention_block(num_heads)
    expected = attention_in_numpy(params, x, num_heads)
    np.testing.assert_allclose(apply_fn(params, x), expected, atol=1e-5 * np.abs(expected).max())
    others = [attention_in_numpy(params, x, heads) for heads in {1, 2, 3, 24} - {num_heads}]
    assert all(np.max(np.abs(other - expected)) > 0.01 for other in others)


def test_attention_knows_no_places():
    apply_fn, params, x = attention_block(3)
    order = np.random.default_rng(4).permutation(15)

    def moved(features):
        return np.asarray(features).reshape(2, 15, 24)[:, order].reshape(2, 5, 3, 24)

    found, expected = apply_fn(params, moved(x)), moved(apply_fn(params, x))
    np.testing.assert_allclose(found, expected, atol=1e-5 * np.abs(expected).max())


def started(fields: dict[str, Any]):
    """The parameters at the start."""
    return _started(tuple(fields.items()))


@functools.cache
def _started(fields: tuple[tuple[str, Any], ...]):
    return jax.jit(make_init_fn(build_model(ModelConfig(**dict(fields))), SHAPE))(FAST_KEY)


def test_attention_is_the_identity_at_the_start():
    """What the network without attention computes, with all other parameters as they are."""
    apply_fn, params, *batch = shared_network(ATTENDED)
    start = started(ATTENDED)
    attention = {name: start[name] for name in params if name.endswith("_attention")}
    others = {name: params[name] for name in params if name not in attention}
    assert len(attention) == 4
    plain, plain_params, *_ = network(UNET)
    assert jax.tree.map(jnp.shape, others) == jax.tree.map(jnp.shape, plain_params)
    found, expected = apply_fn({**others, **attention}, *batch), plain(others, *batch)
    np.testing.assert_allclose(found, expected, atol=1e-6 * np.abs(expected).max())
    assert np.max(np.abs(apply_fn(params, *batch) - expected)) > 0.01 * np.abs(expected).max()


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_softmax_is_in_float32(dtype):
    apply_fn, params, x = attention_block(2, dtype)
    expected = attention_in_numpy(params, x, 2)
    error = np.max(np.abs(apply_fn(params, x.astype(dtype)) - expected)) / np.abs(expected).max()
    assert error < (0.02 if dtype == "bfloat16" else 1e-5)
    program = jax.make_jaxpr(apply_fn)(params, x.astype(dtype)).jaxpr
    assert operands(program, "exp") == {"float32"}
    assert matrix_operands(program) == {dtype}


@pytest.mark.parametrize("head_width", [1, 8, 16, 17, 64])
def test_heads_are_as_many_as_fit_the_channels(head_width):
    found = attention_heads(
        64, patch_size=8, widths=(16, 48), resolutions=(8, 4), head_width=head_width
    )
    expected = {1: (16, 48), 8: (2, 6), 16: (1, 3), 17: (1, 2), 64: (1, 1)}
    assert found == expected[head_width]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"attention_resolutions": (3, 5)},
            "model.attention_resolutions: got (3, 5); allowed: rows of the levels' feature maps, "
            "6, 3 for images of 12 rows",
        ),
        (
            {"attention_resolutions": (3,), "attention_head_width": 10},
            "model.attention_head_width: got 10; allowed: a divisor of 32, the channels of a level "
            "with attention, or a number whose heads, 32 // attention_head_width, divide them; "
            "3 heads do not",
        ),
    ],
    ids=["rows", "heads"],
)
def test_attention_that_does_not_fit_is_refused_by_the_network(changes, message):
    model = build_model(ModelConfig(**{**UNET, **changes}))
    with pytest.raises(ConfigError, match=re.escape(message)) as caught:
        jax.eval_shape(make_init_fn(model, SHAPE), jax.random.key(0))
    assert isinstance(caught.value, ValueError)


def num_parameters(model: ModelConfig, shape) -> int:
    shapes = jax.eval_shape(make_init_fn(build_model(model), shape), jax.random.key(0))
    return sum(leaf.size for leaf in jax.tree.leaves(shapes))


def test_without_attention_the_quickstarts_weights_stay_valid():
    model = from_config_dict(quickstart.get_config()).model
    assert num_parameters(model, (64, 64, 1)) == 1_438_720
    init_fn = make_init_fn(build_model(model), (64, 64, 1))
    names = {
        jax.tree_util.keystr(path[:2], simple=True, separator="/")
        for path, _ in jax.tree_util.tree_leaves_with_path(
            jax.eval_shape(init_fn, jax.random.key(0))
        )
    }
    block = {"GroupNorm_0", "conv_in", "conv_out", "modulation"}
    expected = {f"down_{level}_block_0/{name}" for level in range(2) for name in block}
    expected |= {f"up_{level}_block_0/{name}" for level in range(2) for name in block}
    expected |= {f"up_{level}_block_0/shortcut" for level in range(2)}
    expected |= {f"condition/{name}" for name in ("time_in", "time_out", "label")}
    layers = ("patches_in", "place", "down_1", "up_1", "patches_out")
    expected |= {f"{name}/{part}" for name in layers for part in ("kernel", "bias")}
    assert names == expected | {f"GroupNorm_0/{part}" for part in ("scale", "bias")}


@pytest.mark.parametrize(
    ("side", "widths", "blocks", "condition_width", "expected"),
    [
        (150, (32, 64, 96), 1, 128, 1_003_876),
        (64, (32, 64, 96), 1, 128, 1_003_876),
        (64, (64, 128, 256), 2, 256, 10_806_788),
        (64, (128, 256, 384, 512), 2, 512, 61_099_140),
    ],
)
def test_the_stated_sizes(side, widths, blocks, condition_width, expected):
    model = ModelConfig(
        name="unet",
        patch_size=2,
        widths=widths,
        blocks=blocks,
        condition_width=condition_width,
        attention_resolutions=feature_rows(side, 2, len(widths))[-2:],
    )
    assert num_parameters(model, (side, side, 1)) == expected


def test_unet_sees_the_whole_image_and_its_place():
    """Two resolutions reach from corner to corner of 8 x 8 patches; place breaks the shifts."""
    apply_fn, params, x, t, condition = network(UNET, (16, 16, 1), blocks=2)
    first = np.asarray(apply_fn(params, x, t, condition))
    far = np.asarray(apply_fn(params, x.at[:, 0, 0].add(1.0), t, condition))
    assert np.all(np.abs(far - first)[:, -1, -1] > 0)
    flat = np.asarray(apply_fn(params, jnp.zeros_like(x), t, condition))[:, 4:12, 4:12]
    assert np.all(np.ptp(flat[:, ::2, ::2], axis=(1, 2)) > 1e-3 * np.abs(flat).max())


DEEP = {
    **{**ATTENDED, "widths": (16, 24, 32), "blocks": 2},
    "attention_resolutions": (8, 4, 2),
}


@pytest.mark.parametrize(
    "fields",
    [DIT, ATTENDED, pytest.param(DEEP, marks=nightly)],
    ids=["dit", "attended", "deep"],
)
def test_every_parameter_matters_and_output_is_zero_at_the_start(fields):
    program, params, *batch = shared(fields)
    gradient, out = program(params, *batch)
    assert out.shape == (4, *SHAPE)
    assert out.dtype == jnp.float32
    assert_every_parameter_matters(gradient)
    gradient, out = program(started(fields), *batch)
    np.testing.assert_array_equal(out, 0)
    # Yet it learns at once.
    assert max(np.max(np.abs(leaf)) for leaf in jax.tree.leaves(gradient)) > 0.01


@each_model
def test_label_and_time_matter_to_their_own_example_alone(fields):
    apply_fn, params, x, t, condition = shared_network(fields)
    label = condition["label"]
    first = np.asarray(apply_fn(params, x, t, condition))
    for other_t, other_label in ((t.at[1].add(0.01), label), (t, label.at[1].set(3))):
        other = np.asarray(apply_fn(params, x, other_t, {"label": other_label}))
        differs = np.max(np.abs(other - first), axis=(1, 2, 3)) > 1e-4 * np.abs(first).max()
        np.testing.assert_array_equal(differs, [False, True, False, False])


@each_model
def test_all_labels_and_times_give_different_outputs(fields):
    apply_fn, params, x, t, condition = shared_network(fields)
    same = jnp.broadcast_to(x[:1], x.shape)
    for times, labels in (
        (t, jnp.zeros(4, jnp.int32)),
        (jnp.full(4, 0.5, jnp.float32), condition["label"]),
    ):
        out = np.asarray(apply_fn(params, same, times, {"label": labels}))
        for one, other in itertools.combinations(out, 2):
            assert np.max(np.abs(one - other)) > 1e-3 * np.abs(out).max()


@each_model
def test_table_has_one_row_more_than_classes(fields):
    for num_classes in (0, 1, 7):
        model = build_model(ModelConfig(**fields, num_classes=num_classes))
        params = jax.eval_shape(make_init_fn(model, SHAPE), jax.random.key(0))
        assert params["condition"]["label"]["embedding"].shape[0] == num_classes + 1


def equations(jaxpr):
    """All equations of a program and of the programs within."""
    for equation in jaxpr.eqns:
        yield equation
        for inner in equation.params.values():
            inner = getattr(inner, "jaxpr", inner)
            if hasattr(inner, "eqns"):
                yield from equations(inner)


PRODUCTS = ("dot_general", "conv_general_dilated")


def operands(jaxpr, *primitives: str) -> set[str]:
    """Types that enter some operations of a program."""
    chosen = [step for step in equations(jaxpr) if step.primitive.name in primitives]
    return {str(variable.aval.dtype) for step in chosen for variable in step.invars}


def matrix_operands(jaxpr) -> set[str]:
    """Types that enter the products and convolutions of a program."""
    return operands(jaxpr, *PRODUCTS)


@each_model
def test_bfloat16_computes_in_it_and_keeps_float32_outside(fields):
    exact, params, *batch = shared_network(fields)
    half, _, *_ = network(fields, dtype="bfloat16")
    model = build_model(ModelConfig(**fields, dtype="bfloat16"))
    init = jax.eval_shape(make_init_fn(model, SHAPE), jax.random.key(0))
    assert {leaf.dtype for leaf in jax.tree.leaves(init)} == {jnp.dtype("float32")}

    expected, found = exact(params, *batch), half(params, *batch)
    assert found.dtype == jnp.float32
    error = np.sqrt(np.mean(np.square(found - expected)) / np.mean(np.square(expected)))
    assert 1e-4 < error < 0.03
    program = jax.make_jaxpr(half)(params, *batch).jaxpr
    assert matrix_operands(program) == {"bfloat16", "float32"}
    products = [step for step in equations(program) if step.primitive.name in PRODUCTS]
    whole = [step for step in products if "float32" in {str(v.aval.dtype) for v in step.invars}]
    assert len(whole) == (2 if fields["name"] == "dit" else 1)  # the last layer, its modulation
    exact_program = jax.make_jaxpr(network(fields)[0])(params, *batch).jaxpr
    assert matrix_operands(exact_program) == {"float32"}
