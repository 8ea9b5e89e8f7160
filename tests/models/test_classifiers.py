"""Classifiers: shapes, parameters, independence of examples, dropout, pooling."""

import dataclasses
import functools
import math
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support import random_like

from lensjax import prng
from lensjax.config import ModelConfig
from lensjax.models import build_model
from lensjax.models.classifiers import (
    _BasicBlock,
    _ResidualBlock,
    adaptive_average,
    example_dropout,
    pooling_matrix,
)
from lensjax.run.networks import make_classifier_init_fn

pytestmark = pytest.mark.usefixtures("quick_compiles")
HEAD: dict[str, Any] = {"num_features": 7, "cells": 2}
SMALL = {
    "cnn": ModelConfig(name="cnn", widths=(4, 6), **HEAD),
    "rescnn": ModelConfig(name="rescnn", widths=(4, 6), blocks=1, **HEAD),
    "resnet18": ModelConfig(name="resnet18"),
    "resnet18 imagenet": ModelConfig(name="resnet18", stem="imagenet"),
    "vit": ModelConfig(name="vit", patch_size=4, width=8, depth=1, num_heads=2, mlp_ratio=2),
}
NUM_FEATURES = {"cnn": 7, "rescnn": 7, "resnet18": 512, "resnet18 imagenet": 512, "vit": 8}
QUICK = ("cnn", "rescnn", "vit")  # the eleven million parameters of the other take a while
IMAGE = (8, 8, 1)

each_quick_network = pytest.mark.parametrize("name", QUICK)


def shapes_of(config: ModelConfig, image_shape=IMAGE):
    init = make_classifier_init_fn(build_model(config), image_shape)
    return jax.eval_shape(init, jax.random.key(0))


def example_keys(num: int):
    return prng.keys(prng.key(0, "loss", 0), jnp.arange(num))


def small_network(name: str, num: int = 3, **changes):
    """A network, random numbers for all its parameters, and images."""
    config = dataclasses.replace(SMALL[name], **changes)
    images = jnp.asarray(np.random.default_rng(1).normal(size=(num, *IMAGE)), jnp.float32)
    return build_model(config), random_like(shapes_of(config)), images


SIZES = [
    ((150, 150, 1), "float32"),
    ((24, 40, 3), "bfloat16"),
    ((16, 16, 2), "bfloat16"),
    ((9, 14, 1), "float32"),
]
SHAPES = [(name, *case) for name in SMALL for case in (SIZES if name in QUICK else SIZES[1:2])]


@pytest.mark.parametrize(("name", "image_shape", "dtype"), SHAPES)
def test_features_and_logits_are_float32_for_any_size(name, image_shape, dtype):
    config = dataclasses.replace(SMALL[name], dtype=dtype, num_classes=5, dropout=0.1)
    if name == "vit":  # which takes patches that fit
        patch_size = {150: 50, 9: 1}.get(image_shape[0], 8)
        config = dataclasses.replace(config, patch_size=patch_size)
    output, variables = jax.eval_shape(
        build_model(config).init_with_output,
        jax.random.key(0),
        jax.ShapeDtypeStruct((4, *image_shape), jnp.float32),
        jax.eval_shape(lambda: example_keys(4)),
    )
    assert output.features.shape == (4, NUM_FEATURES[name])
    assert output.logits.shape == (4, 5)
    leaves = jax.tree.leaves((output, variables))
    assert {leaf.dtype for leaf in leaves} == {jnp.dtype("float32")}
    assert set(variables) == {"params"}  # no running averages


def count(params) -> int:
    return sum(leaf.size for leaf in jax.tree.leaves(params))


@pytest.mark.parametrize(
    ("stem", "side", "first", "channels", "num_classes", "total"),
    [
        ("small", 3, 64, 1, 3, 11_167_680 + 1_539),
        ("imagenet", 7, 16, 3, 1000, 11_689_512),  # as published, with BatchNorm for GroupNorm
    ],
)
def test_resnet18_is_its_list_of_layers(stem, side, first, channels, num_classes, total):
    """Convolutions without bias, a scale and a shift for each channel behind each of them."""

    def conv(kernel: int, of: int, to: int) -> int:
        return kernel * kernel * of * to + 2 * to

    expected = conv(side, channels, 64)
    expected += 4 * conv(3, 64, 64)
    for of, to in ((64, 128), (128, 256), (256, 512)):
        expected += conv(3, of, to) + 3 * conv(3, to, to) + conv(1, of, to)
    expected += 512 * num_classes + num_classes
    assert expected == total
    model = build_model(ModelConfig(name="resnet18", stem=stem, num_classes=num_classes))
    init = functools.partial(model.init, capture_intermediates=True)
    found = jax.eval_shape(init, jax.random.key(0), jnp.zeros((1, 64, 64, channels)))
    assert count(found["params"]) == expected
    for level, width in enumerate((64, 128, 256, 512)):
        (output,) = found["intermediates"][f"level_{level}_block_1"]["__call__"]
        assert output.shape == (1, first >> level, first >> level, width)


@each_quick_network
def test_every_parameter_gets_a_gradient_and_every_image_its_own_output(name):
    """Random numbers stand in all parameters, since some layers start at zero."""
    model, params, images = small_network(name)

    def probe(params, images):
        """The second image's logits, by a function without symmetry."""
        return jnp.sum(jnp.sin(model.apply({"params": params}, images).logits[1]))

    of_params, of_images = jax.jit(jax.grad(probe, argnums=(0, 1)))(params, images)
    for path, leaf in jax.tree_util.tree_leaves_with_path(of_params):
        assert np.isfinite(leaf).all(), path
        assert np.any(leaf != 0), path
    assert np.all(of_images[1] != 0)
    assert np.all(of_images[np.array([0, 2])] == 0)


def test_resnet18_gives_every_parameter_a_gradient_and_every_image_its_own_output():
    """Layer by layer: nothing of an array as large as the network is computed with."""
    block = _BasicBlock(width=32, stride=2, dtype=jnp.float32)
    x = jnp.asarray(np.random.default_rng(1).normal(size=(3, 5, 6, 16)), jnp.float32)
    params = random_like(jax.eval_shape(block.init, jax.random.key(0), x))

    def probe(params, x):
        return jnp.sum(jnp.sin(cast(jax.Array, block.apply(params, x))[1]))

    of_params, of_images = jax.jit(jax.grad(probe, argnums=(0, 1)))(params, x)
    for path, leaf in jax.tree_util.tree_leaves_with_path(of_params):
        assert np.any(leaf != 0), path
    assert np.any(of_images[1] != 0)
    assert np.all(of_images[np.array([0, 2])] == 0)


def test_an_image_is_seen_alike_in_any_batch_and_dropped_from_by_its_own_key():
    model, params, images = small_network("cnn", dropout=0.5)
    apply_fn = jax.jit(lambda *rows: model.apply({"params": params}, *rows))
    dropped = apply_fn(images, example_keys(3))
    others = apply_fn(images, example_keys(3)[::-1])
    alone = apply_fn(images[2:], example_keys(3)[2:])
    for found, expected, other in zip(alone, dropped, others, strict=True):
        np.testing.assert_allclose(found, expected[2:], rtol=2e-5, atol=2e-5)
        assert np.any(expected[0] != other[0])
        np.testing.assert_array_equal(expected[1], other[1])  # which keeps its key


drop = jax.jit(example_dropout, static_argnums=(1, 3))


def test_a_mask_of_dropout_is_that_of_the_examples_own_key_and_layer():
    x, keys = jnp.ones((6, 3, 4, 64)), example_keys(6)
    kept, other = (np.asarray(drop(x, 0.5, keys, layer)) for layer in (0, 1))
    order = np.array([4, 0, 5, 5, 1, 2])
    np.testing.assert_array_equal(drop(x, 0.5, keys[order], 0), kept[order])
    channels = kept[:, 0, 0]
    masks = {mask.tobytes() for mask in (*channels, *other[:, 0, 0])}
    assert len(masks) == 12
    np.testing.assert_array_equal(kept, np.broadcast_to(channels[:, None, None], kept.shape))


@pytest.mark.parametrize(("rate", "shape"), [(0.1, (2_000, 50)), (0.5, (2_000, 2, 50))])
def test_dropout_keeps_the_mean_and_drops_its_share(rate, shape):
    x = jnp.full(shape, 3.0)
    found = np.asarray(drop(x, rate, example_keys(len(x)), 2))
    assert {*np.unique(found)} == {0.0, np.float32(3) / np.float32(1 - rate)}
    share = np.mean(found == 0)
    assert share == pytest.approx(rate, abs=4 * np.sqrt(rate * (1 - rate) / 100_000))
    assert found.mean() == pytest.approx(3, rel=0.05)


def test_dropout_without_keys_or_share_changes_nothing():
    x, keys = jnp.arange(6.0).reshape(2, 3), example_keys(2)
    assert example_dropout(x, 0.5, None, 0) is x
    assert example_dropout(x, 0.0, keys, 0) is x
    half = jax.ShapeDtypeStruct((2, 3), jnp.bfloat16)
    assert jax.eval_shape(lambda x: example_dropout(x, 0.5, keys, 0), half) == half


def pooled_by_loops(x: np.ndarray, cells: int) -> np.ndarray:
    """PyTorch's AdaptiveAvgPool2d: cell i of n places runs from floor(i n / c) to ceil(...)."""
    rows, columns = x.shape[1:3]
    found = np.empty((len(x), cells, cells, x.shape[-1]))
    for row in range(cells):
        top, bottom = math.floor(row * rows / cells), math.ceil((row + 1) * rows / cells)
        for column in range(cells):
            left = math.floor(column * columns / cells)
            right = math.ceil((column + 1) * columns / cells)
            found[:, row, column] = x[:, top:bottom, left:right].mean(axis=(1, 2))
    return found


@pytest.mark.parametrize("cells", [1, 3, 4])
@pytest.mark.parametrize("size", [(1, 1), (2, 5), (8, 8), (38, 19)], ids=str)
def test_adaptive_average_is_that_of_pytorch(size, cells):
    x = np.random.default_rng(0).normal(size=(2, *size, 3))
    found = jax.jit(adaptive_average, static_argnums=1)(jnp.asarray(x, jnp.float32), cells)
    np.testing.assert_allclose(found, pooled_by_loops(x, cells), rtol=1e-5, atol=1e-6)


def test_each_cell_of_the_pooling_is_a_mean():
    for size, cells in ((1, 4), (4, 4), (5, 4), (64, 3)):
        np.testing.assert_allclose(pooling_matrix(size, cells).sum(axis=1), 1, rtol=1e-6)


def test_residual_blocks_start_as_nothing():
    """So that depth does not change what a new network gives."""
    x = jnp.asarray(np.random.default_rng(1).normal(size=(1, 5, 5, 2)), jnp.float32)
    block = _ResidualBlock(width=2, dtype=jnp.float32)
    found, variables = jax.jit(block.init_with_output)(jax.random.key(0), x)
    np.testing.assert_array_equal(found, x)
    assert np.any(variables["params"]["conv_5x5"]["kernel"] != 0)
