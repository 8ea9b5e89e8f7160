"""Images whose sides the patches do not divide: all networks take them and ignore the padding."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support import random_like

from lensjax import prng
from lensjax.config import ModelConfig, check_image_size
from lensjax.config.model import DENOISERS
from lensjax.errors import ConfigError
from lensjax.interfaces import Batch
from lensjax.models import build_model
from lensjax.models.layers import depth_to_space, pad_to_multiple, space_to_depth
from lensjax.models.mae import MaskedOutput, denormalised, normalised
from lensjax.models.vit import patch_grid, pixels_inside, to_patches
from lensjax.run.networks import make_classifier_init_fn, make_init_fn
from lensjax.run.task_losses import make_masked_loss_fn, masked_errors

pytestmark = pytest.mark.usefixtures("quick_compiles")
TOKENS: dict[str, Any] = {"width": 8, "depth": 1, "num_heads": 2, "mlp_ratio": 2}
CONVOLUTIONS: dict[str, Any] = {"widths": (4, 4), "blocks": 1, "num_features": 4, "cells": 2}
SMALL = {
    "dit": ModelConfig(name="dit", **TOKENS),
    "unet": ModelConfig(name="unet", widths=(4, 4), blocks=1, condition_width=8),
    "vit": ModelConfig(name="vit", **TOKENS),
    "mae": ModelConfig(name="mae", decoder_width=8, decoder_depth=1, decoder_heads=2, **TOKENS),
    "cnn": ModelConfig(name="cnn", **CONVOLUTIONS),
    "rescnn": ModelConfig(name="rescnn", **CONVOLUTIONS),
    "resnet18": ModelConfig(name="resnet18"),
}
SHAPES = [(41, 41, 3), (33, 47, 2)]
# All networks and patches with either shape in the nightly tests; a gradient takes a second to
# compile.
FEW = [("dit", 8, (41, 41, 3)), ("vit", 8, (33, 47, 2)), ("mae", 8, (41, 41, 3))]
SIZES = [
    (name, patch_size)
    for name in SMALL
    for patch_size in ((2,) if name in ("cnn", "resnet18") else (2, 4, 8))
]
ALL = [(*size, shape) for size in SIZES for shape in SHAPES]


def keys_of(num: int):
    return prng.keys(prng.key(0, "loss", 0), jnp.arange(num))


def rest_of(config: ModelConfig) -> tuple[Any, ...]:
    """The arguments of a network behind its images."""
    if config.name in DENOISERS:
        return jnp.full(2, 0.3), {"label": jnp.arange(2, dtype=jnp.int32)}
    return (keys_of(2),)


def make_apply(config: ModelConfig, shape: tuple[int, int, int]):
    """The network as `(params, images) -> output`, and its parameters, all of them random."""
    model = build_model(config)
    make = make_init_fn if config.name in DENOISERS else make_classifier_init_fn
    params = random_like(jax.eval_shape(make(model, shape), jax.random.key(0)))

    def apply_fn(params, images):
        return model.apply({"params": params}, images, *rest_of(config))

    return apply_fn, params


def check_shapes(config: ModelConfig, shape: tuple[int, int, int], output: Any) -> None:
    rows, columns = patch_grid(*shape[:2], config.patch_size)
    if config.name in DENOISERS:
        assert output.shape == (2, *shape)
        assert output.dtype == jnp.float32
    elif config.name == "mae":
        assert output.patches.shape == (2, rows * columns, config.patch_size**2 * shape[2])
        assert output.seen.shape == (2, rows * columns)
    else:
        assert output.logits.shape == (2, config.num_classes)


@pytest.mark.parametrize(("number", "size"), list(enumerate(SIZES)))
def test_every_network_takes_odd_sides(number, size):
    name, patch_size = size
    config = dataclasses.replace(SMALL[name], patch_size=patch_size)
    shape = SHAPES[number % 2]
    check_image_size(config, *shape[:2])

    def apply_fn(images):
        return build_model(config).init_with_output(jax.random.key(0), images, *rest_of(config))

    output, _ = jax.eval_shape(apply_fn, jax.ShapeDtypeStruct((2, *shape), jnp.float32))
    check_shapes(config, shape, output)


@pytest.mark.parametrize(
    ("name", "patch_size", "shape"),
    [*FEW, *(pytest.param(*case, marks=pytest.mark.nightly) for case in ALL if case not in FEW)],
)
def test_output_has_the_images_size_and_every_pixel_counts(name, patch_size, shape):
    config = dataclasses.replace(SMALL[name], patch_size=patch_size)
    apply_fn, params = make_apply(config, shape)
    images = jnp.asarray(np.random.default_rng(1).normal(size=(2, *shape)), jnp.float32)

    def probe(params, images):
        output = apply_fn(params, images)
        leaves = jax.tree.leaves(output)
        total = sum(jnp.sum(jnp.sin(leaf)) for leaf in leaves if leaf.dtype == jnp.float32)
        return total, output

    gradient = jax.jit(jax.grad(probe, argnums=(0, 1), has_aux=True))
    (of_params, of_images), output = gradient(params, images)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves((of_params, of_images)))
    check_shapes(config, shape, output)
    if name in (*DENOISERS, "vit"):  # of the others, some pixels of a small one may not matter
        assert np.all(np.any(of_images != 0, axis=-1))


@pytest.mark.parametrize("name", ["dit", "vit", "mae"])
def test_the_padding_is_zeros_at_the_lower_right(name):
    """The same parameters on the padded image give the same output, cropped."""
    config = dataclasses.replace(SMALL[name], patch_size=8)
    apply_fn, params = make_apply(config, (33, 47, 2))
    images = jnp.asarray(np.random.default_rng(1).normal(size=(2, 33, 47, 2)), jnp.float32)
    padded = jnp.pad(images, ((0, 0), (0, 7), (0, 1), (0, 0)))
    odd, even = (jax.tree.leaves(jax.jit(apply_fn)(params, x)) for x in (images, padded))
    for one, whole in zip(odd, even, strict=True):
        if name == "dit":
            whole = whole[:, :33, :47]
        np.testing.assert_array_equal(one, whole)


def test_sides_that_are_divided_are_not_touched():
    images = jnp.ones((2, 16, 24, 3))
    assert pad_to_multiple(images, 8) is images
    assert pixels_inside((16, 24, 3), 8) is None
    program = jax.make_jaxpr(lambda x: depth_to_space(space_to_depth(x, 8), 8))(images)
    assert "pad" not in str(program)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("patch_size", [2, 8])
def test_patches_know_which_of_their_pixels_lie_in_the_image(shape, patch_size):
    inside = pixels_inside(shape, patch_size)
    assert inside is not None
    ones = np.asarray(to_patches(jnp.ones((1, *shape)), patch_size))[0]
    np.testing.assert_array_equal(inside, ones == 1)


@pytest.mark.parametrize("normalise", [False, True])
def test_the_loss_of_an_autoencoder_does_not_count_the_padding(normalise):
    """Pixel by pixel of the image, in float64; what the network says beyond it changes nothing."""
    shape, patch_size = (9, 7, 2), 4
    random = np.random.default_rng(0)
    images = random.normal(3.0, 2.0, (2, *shape)).astype(np.float32)
    inside = pixels_inside(shape, patch_size)
    assert inside is not None
    seen = random.random((2, len(inside))) < 0.4
    patches = np.asarray(to_patches(jnp.asarray(images), patch_size), np.float64)
    estimate = random.normal(size=patches.shape)
    squares = []
    for image in range(2):
        errors: list[float] = []
        for patch in np.flatnonzero(~seen[image]):
            target = patches[image, patch][inside[patch]]
            if normalise:
                target = (target - target.mean()) / np.sqrt(target.var() + 1e-6)
            errors += ((estimate[image, patch][inside[patch]] - target) ** 2).tolist()
        squares.append(np.mean(errors))
    for beyond in (0.0, 1e3):
        told = np.where(inside, estimate, beyond).astype(np.float32)
        output = MaskedOutput(jnp.asarray(told), jnp.asarray(seen))
        apply_fn = lambda params, images, keys, output=output: output  # noqa: E731
        found = masked_errors(apply_fn, {}, jnp.asarray(images), keys_of(2), patch_size, normalise)
        np.testing.assert_allclose(found, squares, rtol=1e-5)
        loss_fn = make_masked_loss_fn(apply_fn, patch_size, normalise)
        batch = Batch(jnp.asarray(images), jnp.zeros(2, jnp.int32))
        assert float(loss_fn({}, batch, keys_of(2))) == pytest.approx(np.mean(squares), rel=1e-5)


def test_normalised_patches_are_undone_by_the_same_moments():
    images = jnp.asarray(np.random.default_rng(0).normal(3.0, 2.0, (2, 9, 7, 1)), jnp.float32)
    patches, inside = to_patches(images, 4), pixels_inside((9, 7, 1), 4)
    back = denormalised(normalised(patches, inside), patches, inside)
    np.testing.assert_allclose(back[:, inside], patches[:, inside], atol=1e-3)


def test_a_patch_wider_than_the_image_is_refused():
    with pytest.raises(ConfigError, match=r"patch_size: got 48; allowed: at most .* 33x47"):
        check_image_size(dataclasses.replace(SMALL["dit"], patch_size=48), 33, 47)
    with pytest.raises(ConfigError, match="something to find"):
        check_image_size(dataclasses.replace(SMALL["mae"], patch_size=47), 33, 47)
