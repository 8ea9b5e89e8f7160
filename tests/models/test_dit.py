"""NanoDiT against published weights, and against loops written out in numpy."""

import itertools
import math

import dit_flow
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from run_support import DATA
from support import nanodit_from_torch, random_like

from lensjax.config import ModelConfig, from_config_dict
from lensjax.diffusion.guidance import Guidance, guide, make_classifier_free_pair, make_denoiser
from lensjax.diffusion.paths import FlowPath
from lensjax.diffusion.samplers import Problem, SamplerSettings, sample
from lensjax.diffusion.time_grids import time_grid
from lensjax.models import build_model
from lensjax.models.layers import (
    depth_to_space,
    position_embedding,
    space_to_depth,
    timestep_embedding,
)
from lensjax.run.networks import make_apply_fn, make_init_fn

with np.load(DATA / "nanodit_parity.npz") as _file:
    PARITY = {name: _file[name] for name in _file.files}
WEIGHTS = {name.removeprefix("w/"): PARITY[name] for name in PARITY if name.startswith("w/")}
PUBLISHED = ModelConfig(patch_size=2, width=64, depth=2, num_heads=4, num_classes=3)
SMALL = ModelConfig(patch_size=2, width=24, depth=2, num_heads=3, mlp_ratio=2, num_classes=3)
SHAPE = (12, 8, 2)  # 6 x 4 patches


def channels_last(name: str) -> jax.Array:
    return jnp.asarray(PARITY[name].transpose(0, 2, 3, 1))


def parity_network():
    apply_fn = jax.jit(make_apply_fn(build_model(PUBLISHED)))
    return apply_fn, jax.tree.map(jnp.asarray, nanodit_from_torch(WEIGHTS, depth=2))


def assert_close_to(found, expected, share: float):
    """Agreement to a share of the largest value."""
    expected = np.asarray(expected, np.float64)
    assert (
        np.max(np.abs(np.asarray(found, np.float64) - expected)) <= share * np.abs(expected).max()
    )


def small_network(config: ModelConfig = SMALL):
    """A network with random numbers in all parameters, and a batch for it."""
    model = build_model(config)
    params = random_like(jax.eval_shape(make_init_fn(model, SHAPE), jax.random.key(0)))
    x = jnp.asarray(np.random.default_rng(1).normal(size=(4, *SHAPE)), jnp.float32)
    t = jnp.asarray([0.0, 0.13, 0.6, 1.0])
    return jax.jit(make_apply_fn(model)), params, x, t, jnp.arange(4, dtype=jnp.int32)


def test_agrees_with_published_weights():
    apply_fn, params = parity_network()
    label = jnp.asarray(PARITY["y"], jnp.int32)
    out = apply_fn(params, channels_last("x"), jnp.asarray(PARITY["t"]), {"label": label})
    assert_close_to(out, channels_last("out"), 1e-5)


def test_position_table_is_the_published_one():
    """The network computes it; it is no parameter that could be loaded."""
    assert_close_to(position_embedding(8, 8, 64), WEIGHTS["pos_embed"][0], 1e-6)
    _, params = parity_network()
    init = jax.eval_shape(make_init_fn(build_model(PUBLISHED), (16, 16, 1)), jax.random.key(0))
    assert jax.tree.map(jnp.shape, params) == jax.tree.map(jnp.shape, init)


def test_agrees_with_published_guided_run():
    apply_fn, params = parity_network()
    path, condition = FlowPath(), {"label": jnp.asarray(PARITY["euler_labels"], jnp.int32)}
    denoise = make_denoiser(apply_fn, params, condition, path=path, prediction="velocity")
    pair = make_classifier_free_pair(
        apply_fn, params, condition, path=path, prediction="velocity", null_label=3
    )
    guided = guide(denoise, pair, Guidance(float(PARITY["euler_cfg_scale"])), path)
    steps = int(PARITY["euler_steps"])
    problem = Problem(path, guided, SamplerSettings("euler"), steps)
    found = sample(problem, channels_last("euler_start"), jnp.asarray(time_grid(path, steps)))
    assert_close_to(found, channels_last("euler_end"), 1e-4)


# The forward pass once more, in loops over examples, patches, heads and channels.


def dense(layer, x):
    return x @ layer["kernel"] + layer["bias"]


def silu(x):
    return x / (1 + np.exp(-x))


def gelu(x):
    return np.array([0.5 * value * (1 + math.erf(value / math.sqrt(2))) for value in x])


def normed(x, shift, scale):
    return (x - x.mean()) / np.sqrt(x.var() + 1e-6) * (1 + scale) + shift


def wave(position: float, size: int) -> list[float]:
    angles = [position / 10_000 ** (2 * k / size) for k in range(size // 2)]
    return [math.sin(angle) for angle in angles] + [math.cos(angle) for angle in angles]


def place_by_loops(row: int, column: int, size: int) -> np.ndarray:
    return np.array(wave(column, size // 2) + wave(row, size // 2))


def condition_by_loops(params, t: float, label: int) -> np.ndarray:
    angles = [1000 * t * math.exp(-math.log(10_000) * k / 128) for k in range(128)]
    waves = np.array([math.cos(a) for a in angles] + [math.sin(a) for a in angles])
    vector = dense(params["time_out"], silu(dense(params["time_in"], waves)))
    return vector + params["label"]["embedding"][label]


def attention_by_loops(params, tokens, num_heads):
    size = len(tokens[0]) // num_heads
    parts = [np.split(dense(params["qkv"], token), 3) for token in tokens]
    mixed = [np.zeros(len(tokens[0])) for _ in tokens]
    for head, (index, (query, _, _)) in itertools.product(range(num_heads), enumerate(parts)):
        own = slice(head * size, (head + 1) * size)
        logits = [query[own] @ key[own] / math.sqrt(size) for _, key, _ in parts]
        weights = np.exp(np.array(logits) - max(logits))
        weights /= weights.sum()
        for weight, (_, _, value) in zip(weights, parts, strict=True):
            mixed[index][own] += weight * value[own]
    return [dense(params["out"], token) for token in mixed]


def block_by_loops(params, tokens, vector, num_heads):
    shift_a, scale_a, gate_a, shift_m, scale_m, gate_m = np.split(
        dense(params["modulation"], silu(vector)), 6
    )
    mixed = attention_by_loops(
        params["attention"], [normed(token, shift_a, scale_a) for token in tokens], num_heads
    )
    result = []
    for token, change in zip(tokens, mixed, strict=True):
        token = token + gate_a * change
        hidden = gelu(dense(params["mlp_in"], normed(token, shift_m, scale_m)))
        result.append(token + gate_m * dense(params["mlp_out"], hidden))
    return result


def dit_by_loops(config: ModelConfig, params, image, t: float, label: int) -> np.ndarray:
    side = config.patch_size
    height, width, channels = image.shape
    corners = list(itertools.product(range(0, height, side), range(0, width, side)))
    pixels = list(itertools.product(range(side), range(side), range(channels)))
    tokens = []
    for top, left in corners:
        values = np.array([image[top + i, left + j, c] for i, j, c in pixels])
        place = place_by_loops(top // side, left // side, config.width)
        tokens.append(dense(params["patches_in"], values) + place)
    vector = condition_by_loops(params["condition"], t, label)
    for index in range(config.depth):
        tokens = block_by_loops(params[f"block_{index}"], tokens, vector, config.num_heads)
    shift, scale = np.split(dense(params["final_modulation"], silu(vector)), 2)
    output = np.zeros(image.shape)
    for token, (top, left) in zip(tokens, corners, strict=True):
        values = dense(params["patches_out"], normed(token, shift, scale))
        for value, (i, j, c) in zip(values, pixels, strict=True):
            output[top + i, left + j, c] = value
    return output


@pytest.mark.parametrize("patch_size", [2, 1, 4])
def test_agrees_with_explicit_loops(patch_size):
    config = ModelConfig(**{**SMALL.__dict__, "patch_size": patch_size})
    apply_fn, params, x, t, label = small_network(config)
    # The other patch sizes need not see the whole of it; loops are slow.
    x = x if patch_size == 2 else x[:, :4, :8]
    found = apply_fn(params, x, t, {"label": label})
    exact = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params)
    for index in range(len(x)):
        image, time = np.asarray(x[index], np.float64), float(t[index])
        expected = dit_by_loops(config, exact, image, time, int(label[index]))
        # Angles of up to 1000 are rounded to float32, by 3e-5.
        assert_close_to(found[index], expected, 1e-4 if time else 2e-6)


@pytest.mark.parametrize(("rows", "columns", "size"), [(6, 4, 24), (1, 3, 8), (5, 5, 64)])
def test_position_table_agrees_with_loops(rows, columns, size):
    places = itertools.product(range(rows), range(columns))
    expected = np.stack([place_by_loops(row, column, size) for row, column in places])
    np.testing.assert_allclose(position_embedding(rows, columns, size), expected, atol=1e-6)


def test_times_are_embedded_a_thousandfold():
    ends = np.asarray(timestep_embedding(jnp.asarray([0.0, 1.0]), 256), np.float64)
    cosine = ends[0] @ ends[1] / np.linalg.norm(ends[0]) / np.linalg.norm(ends[1])
    assert cosine == pytest.approx(0.19, abs=0.01)


@pytest.mark.parametrize("patch_size", [1, 2, 3])
def test_patches_survive_a_round_trip(patch_size):
    x = jnp.arange(2 * 6 * 12 * 2, dtype=jnp.float32).reshape(2, 6, 12, 2)
    patches = space_to_depth(x, patch_size)
    assert patches.shape == (2, 6 // patch_size, 12 // patch_size, 2 * patch_size**2)
    corner = x[:, :patch_size, :patch_size].reshape(2, -1)
    np.testing.assert_array_equal(patches[:, 0, 0], corner)
    np.testing.assert_array_equal(depth_to_space(patches, patch_size), x)


def test_published_size_has_the_stated_number_of_parameters():
    config = from_config_dict(dit_flow.get_config())
    init_fn = make_init_fn(build_model(config.model), (64, 64, 1))
    params = jax.eval_shape(init_fn, jax.random.key(0))
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == 29_283_844


def test_label_time_and_image_matter_to_their_own_example_alone():
    apply_fn, params, x, t, label = small_network()
    first = np.asarray(apply_fn(params, x, t, {"label": label}))
    changes = [
        (x.at[2].add(0.1), t, label),
        (x, t.at[2].add(0.01), label),
        (x, t, label.at[2].set(0)),
    ]
    for x_changed, t_changed, label_changed in changes:
        other = np.asarray(apply_fn(params, x_changed, t_changed, {"label": label_changed}))
        differs = np.max(np.abs(other - first), axis=(1, 2, 3)) > 1e-4 * np.abs(first).max()
        np.testing.assert_array_equal(differs, [False, False, True, False])
