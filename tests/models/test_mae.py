"""The masked autoencoder: what is seen, what is not, and what the loss counts."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support import random_like

from lensjax import prng
from lensjax.config import ModelConfig
from lensjax.interfaces import Batch
from lensjax.models import build_model
from lensjax.models.layers import depth_to_space
from lensjax.models.mae import draw_order, normalised, num_seen
from lensjax.models.vit import to_patches
from lensjax.run.networks import make_classifier_init_fn
from lensjax.run.task_losses import make_masked_loss_fn, masked_errors

pytestmark = pytest.mark.usefixtures("quick_compiles")
ENCODER: dict[str, Any] = {"patch_size": 4, "width": 8, "depth": 1, "num_heads": 2, "mlp_ratio": 2}
SMALL = ModelConfig(
    name="mae", mask_share=0.6, decoder_width=8, decoder_depth=1, decoder_heads=2, **ENCODER
)
IMAGE = (8, 12, 2)
NUM_PATCHES, NUM_SEEN, NUM_IMAGES = 6, 2, 3


def example_keys(num: int = NUM_IMAGES, step: int = 0):
    return prng.keys(prng.key(0, "loss", step), jnp.arange(num))


def shapes_of(config: ModelConfig):
    init = make_classifier_init_fn(build_model(config), IMAGE)
    return jax.eval_shape(init, jax.random.key(0))


MODEL = build_model(SMALL)


@jax.jit
def apply_fn(params, images, keys):
    return MODEL.apply({"params": params}, images, keys)


@pytest.fixture(scope="module")
def network():
    """Random parameters, images, and what the network makes of them with the keys of step 0."""
    params = random_like(shapes_of(SMALL))
    images = np.random.default_rng(1).normal(size=(NUM_IMAGES, *IMAGE)).astype(np.float32)
    return params, images, apply_fn(params, images, example_keys())


def of_pixels(seen) -> np.ndarray:
    """Turns `[B, T]` into `[B, H, W, 1]`."""
    rows, columns = IMAGE[0] // 4, IMAGE[1] // 4
    grid = np.asarray(seen).reshape(-1, rows, columns)
    return grid.repeat(4, axis=1).repeat(4, axis=2)[..., None]


def test_patches_are_pixels_row_by_row():
    images = np.random.default_rng(0).normal(size=(2, *IMAGE)).astype(np.float32)
    patches = np.asarray(to_patches(jnp.asarray(images), 4))
    assert patches.shape == (2, NUM_PATCHES, 4 * 4 * 2)
    expected = images[:, 4:8, 8:12].reshape(2, -1)
    np.testing.assert_array_equal(patches[:, 5], expected)
    back = depth_to_space(jnp.asarray(patches).reshape(2, 2, 3, -1), 4)
    np.testing.assert_array_equal(back, images)


@pytest.mark.parametrize(
    ("num_patches", "mask_share", "expected"),
    [(6, 0.6, 2), (64, 0.75, 16), (64, 0.05, 61), (64, 0.95, 3), (4, 0.95, 1), (4, 0.05, 3)],
)
def test_the_number_of_seen_patches(num_patches, mask_share, expected):
    assert num_seen(num_patches, mask_share) == expected


def test_an_order_holds_each_patch_once_and_any_place_first():
    order = np.asarray(draw_order(example_keys(3_000), 5))
    np.testing.assert_array_equal(np.sort(order, axis=1), np.tile(np.arange(5), (3_000, 1)))
    counts = np.stack([np.bincount(places, minlength=5) for places in order.T])
    np.testing.assert_allclose(counts, 600, atol=4 * np.sqrt(3_000 * 0.2 * 0.8))


def test_output_is_every_patch_and_a_part_is_seen(network):
    _, _, output = network
    assert output.patches.shape == (NUM_IMAGES, NUM_PATCHES, 4 * 4 * 2)
    assert output.patches.dtype == np.float32
    assert output.seen.dtype == bool
    np.testing.assert_array_equal(output.seen.sum(axis=1), NUM_SEEN)
    assert len(np.unique(output.seen, axis=0)) > 1


def test_the_mask_is_that_of_the_examples_own_key(network):
    params, images, output = network
    order = np.array([2, 0, 0])
    again = apply_fn(params, images[order], example_keys()[order])
    np.testing.assert_array_equal(again.seen, output.seen[order])
    np.testing.assert_allclose(again.patches, output.patches[order], rtol=1e-5, atol=1e-5)
    others = [apply_fn(params, images, example_keys(step=step)).seen for step in (1, 2)]
    assert np.any(others[0] != output.seen)
    assert np.any(others[0] != others[1])
    np.testing.assert_array_equal(apply_fn(params, -images, example_keys()).seen, output.seen)


def test_unseen_pixels_do_not_matter_anywhere_and_all_else_does(network):
    params, images, output = network
    direction = np.random.default_rng(2).normal(size=output.patches.shape).astype(np.float32)

    def probe(params, images):
        return jnp.sum(apply_fn(params, images, example_keys()).patches * direction)

    of_params, of_images = jax.jit(jax.grad(probe, argnums=(0, 1)))(params, images)
    seen = np.broadcast_to(of_pixels(output.seen), images.shape)
    assert np.all(np.asarray(of_images)[~seen] == 0)
    assert np.all(np.asarray(of_images)[seen] != 0)
    for path, leaf in jax.tree_util.tree_leaves_with_path(of_params):
        assert np.isfinite(leaf).all(), path
        assert np.any(leaf != 0), path
    other = np.where(seen, images, 100.0).astype(np.float32)
    again = apply_fn(params, other, example_keys())
    np.testing.assert_array_equal(again.patches, output.patches)


@pytest.mark.parametrize("normalise", [False, True])
def test_the_loss_is_the_mean_over_unseen_patches_alone(network, normalise):
    params, images, output = network
    patches = np.asarray(to_patches(jnp.asarray(images), 4), np.float64)
    if normalise:
        mean, variance = patches.mean(-1, keepdims=True), patches.var(-1, keepdims=True)
        patches = (patches - mean) / np.sqrt(variance + 1e-6)
    errors = ((np.asarray(output.patches, np.float64) - patches) ** 2).mean(axis=-1)
    expected = [errors[row][~np.asarray(output.seen)[row]].mean() for row in range(NUM_IMAGES)]
    found = masked_errors(apply_fn, params, jnp.asarray(images), example_keys(), 4, normalise)
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    loss_fn = make_masked_loss_fn(apply_fn, 4, normalise)
    batch = Batch(jnp.asarray(images), jnp.zeros(NUM_IMAGES, jnp.int32))
    assert float(loss_fn(params, batch, example_keys())) == pytest.approx(
        np.mean(expected), rel=1e-5
    )


def test_pixels_without_a_measurement_are_no_target(network):
    params, images, output = network
    measured = np.random.default_rng(5).random(images.shape) > 0.3
    patches = np.asarray(to_patches(jnp.asarray(images), 4), np.float64)
    counted = np.asarray(to_patches(jnp.asarray(measured), 4)) & ~np.asarray(output.seen)[..., None]
    squares = (np.asarray(output.patches, np.float64) - patches) ** 2
    expected = [squares[row][counted[row]].mean() for row in range(NUM_IMAGES)]
    batch = Batch(jnp.asarray(images), jnp.zeros(NUM_IMAGES, jnp.int32), jnp.asarray(measured))
    loss = make_masked_loss_fn(apply_fn, 4, False)(params, batch, example_keys())
    assert float(loss) == pytest.approx(np.mean(expected), rel=1e-5)


def test_a_patch_of_one_brightness_is_normalised_to_zero():
    patches = np.random.default_rng(0).normal(2.0, 3.0, (2, 3, 400)).astype(np.float32)
    patches[0, 0] = 7.0
    found = np.asarray(normalised(jnp.asarray(patches)))
    np.testing.assert_array_equal(found[0, 0], 0)
    np.testing.assert_allclose(found.reshape(6, -1)[1:].mean(axis=1), 0, atol=1e-5)
    np.testing.assert_allclose(found.reshape(6, -1)[1:].std(axis=1), 1, rtol=1e-4)


def test_the_encoder_is_that_of_a_vit_of_any_other_head():
    vit = ModelConfig(name="vit", num_classes=5, dropout=0.3, **ENCODER)
    other = dataclasses.replace(SMALL, mask_share=0.2, decoder_width=12, dtype="bfloat16")
    trees = [shapes_of(config) for config in (SMALL, other, vit)]
    assert trees[0]["encoder"] == trees[1]["encoder"] == trees[2]["encoder"]
    assert set(trees[2]) == {"encoder", "classes"}


def test_half_precision_puts_out_float32():
    config = dataclasses.replace(SMALL, dtype="bfloat16")
    output = jax.eval_shape(
        build_model(config).apply,
        {"params": shapes_of(config)},
        jax.ShapeDtypeStruct((4, *IMAGE), jnp.float32),
        jax.eval_shape(lambda: example_keys(4)),
    )
    assert (output.patches.dtype, output.seen.dtype) == (jnp.float32, bool)
