"""The Inception network against torch-fidelity's numbers, and its parts against loops in numpy."""

import jax
import jax.extend
import jax.numpy as jnp
import numpy as np
import pytest
from inception_support import PARITY, SHAPES, made_up_weights
from jax import lax

from lensjax.models.inception import (
    INPUT_SIZE,
    LAYERS,
    _convolve,
    _pool,
    find_fault,
    inception_features,
    prepare_weights,
    resize_tf1,
)
from lensjax.models.inception_blocks import Convolution, Pool, weight_shapes

RANDOM = np.random.default_rng(0)


@pytest.fixture(scope="module")
def weights():
    return jax.device_put(prepare_weights(made_up_weights()))


@pytest.fixture(scope="module")
def features(weights):
    run = jax.jit(inception_features, static_argnames="layers")
    return run(weights, PARITY["images"], LAYERS)


@pytest.mark.parametrize("layer", LAYERS)
def test_features_agree_with_torch_fidelity(features, layer):
    """Each feature to 1e-3 of its own standard deviation between the six images.

    Float32 rounds a feature near 1 to 1e-7, which is more than that where all six images have
    nearly the same feature; features that are 0 for all images must be 0.
    """
    expected = PARITY[f"features_{layer}"].astype(np.float64)
    spread, error = expected.std(axis=0), np.abs(features[layer] - expected).max(axis=0)
    assert features[layer].shape == (6, layer)
    assert features[layer].dtype == np.float32
    assert (error <= 1e-3 * spread + 1e-7).all()
    assert error.max() <= 1e-3 * np.median(spread)
    assert (error[(expected == 0).all(axis=0)] == 0).all()


def test_the_resized_row_agrees_with_torch_fidelity():
    resized = resize_tf1(PARITY["images"], INPUT_SIZE)
    expected = PARITY["resized_first_row0_channel0"]
    np.testing.assert_allclose(resized[0, 150, :, 0], expected, rtol=0, atol=1e-4)


def resize_by_loops(image: np.ndarray, size: int) -> np.ndarray:
    result = np.zeros((size, size))
    height, width = image.shape
    for row in range(size):
        for column in range(size):
            y, x = row * height / size, column * width / size
            top, left = int(y), int(x)
            bottom, right = min(top + 1, height - 1), min(left + 1, width - 1)
            upper = image[top, left] * (1 - x + left) + image[top, right] * (x - left)
            lower = image[bottom, left] * (1 - x + left) + image[bottom, right] * (x - left)
            result[row, column] = upper * (1 - y + top) + lower * (y - top)
    return result


@pytest.mark.parametrize("shape", [(64, 64), (150, 150), (13, 40), (150, 64), (1, 1), (7, 1)])
@pytest.mark.parametrize("size", [40, 97])
def test_resizing_is_linear_from_pixel_to_pixel(shape, size):
    image = RANDOM.uniform(0, 255, shape)
    found = resize_tf1(image[None, :, :, None], size)
    assert found.shape == (1, size, size, 1)
    # Positions are rounded to float32: up to 150 times 6e-8 pixels, times a step of 255.
    np.testing.assert_allclose(found[0, :, :, 0], resize_by_loops(image, size), atol=5e-3)


def test_an_image_of_the_size_asked_for_stays_as_it_is():
    images = RANDOM.integers(0, 256, (2, 32, 32, 3)).astype(np.uint8)
    np.testing.assert_array_equal(resize_tf1(images, 32), images)


def windows(x: np.ndarray, stride: int, padding: int):
    """Yields row, column and the pixels `[n, C]` of each window of 3 x 3 that exist."""
    height, width, _ = x.shape
    for row in range((height + 2 * padding - 3) // stride + 1):
        for column in range((width + 2 * padding - 3) // stride + 1):
            top, left = row * stride - padding, column * stride - padding
            rows = slice(max(top, 0), top + 3)
            yield row, column, x[rows, max(left, 0) : left + 3].reshape(-1, x.shape[-1])


@pytest.mark.parametrize("shape", [(8, 8), (17, 9), (35, 4)])
@pytest.mark.parametrize(
    ("pool", "reduce"),
    [
        (Pool("average"), np.mean),  # of the pixels that exist: padding is not counted
        (Pool("max"), np.max),
        (Pool("max", 2), np.max),
    ],
)
def test_pools_agree_with_loops(shape, pool, reduce):
    x = RANDOM.normal(-3, 1, (*shape, 2))
    found = np.asarray(_pool(jnp.asarray(x[None], jnp.float32), pool))[0]
    expected = np.full_like(found, np.nan)
    for row, column, pixels in windows(x, pool.stride, 1 if pool.stride == 1 else 0):
        expected[row, column] = reduce(pixels, axis=0)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def convolve_by_loops(x, kernel, stride, padding):
    """`x` `[H, W, in]`, `kernel` `[out, in, h, w]`."""
    height, width = kernel.shape[2:]
    x = np.pad(x, (padding[0], padding[1], (0, 0)))
    rows, columns = ((x.shape[0] - height) // stride + 1, (x.shape[1] - width) // stride + 1)
    found = np.empty((rows, columns, len(kernel)))
    for row in range(rows):
        for column in range(columns):
            top, left = row * stride, column * stride
            piece = x[top : top + height, left : left + width]
            found[row, column] = np.einsum("hwi,oihw->o", piece, kernel)
    return found


CONVOLUTIONS = {
    "Conv2d_1a_3x3": (Convolution("", 32, (3, 3), 2, "VALID"), (0, 0)),
    "Conv2d_2b_3x3": (Convolution("", 64, (3, 3)), (1, 1)),
    "Conv2d_3b_1x1": (Convolution("", 80), (0, 0)),
    "Mixed_5b.branch5x5_2": (Convolution("", 64, (5, 5)), (2, 2)),
    "Mixed_6b.branch7x7_2": (Convolution("", 128, (1, 7)), (0, 3)),
    "Mixed_6b.branch7x7_3": (Convolution("", 192, (7, 1)), (3, 0)),
}


@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_convolutions_with_folded_normalisation_agree_with_loops(weights, name):
    step, (high, wide) = CONVOLUTIONS[name]
    arrays = {key: array.astype(np.float64) for key, array in made_up_weights().items()}
    kernel = arrays[f"{name}.conv.weight"]
    x = RANDOM.normal(size=(9, 10, kernel.shape[1]))
    y = convolve_by_loops(x, kernel, step.stride, ((high, high), (wide, wide)))
    y = (y - arrays[f"{name}.bn.running_mean"]) / np.sqrt(arrays[f"{name}.bn.running_var"] + 1e-3)
    expected = np.maximum(y * arrays[f"{name}.bn.weight"] + arrays[f"{name}.bn.bias"], 0)
    found = _convolve(jnp.asarray(x[None], jnp.float32), step, weights[name])[0]
    np.testing.assert_allclose(found, expected, atol=2e-5)


def test_the_table_of_weights_is_the_published_one():
    assert weight_shapes() == SHAPES
    assert len(SHAPES) == 472


def changed(name: str, array) -> dict[str, np.ndarray]:
    return {**made_up_weights(), name: array}


FAULTS = {
    "a missing array": ({k: v for k, v in made_up_weights().items() if "fc" not in k}, "missing"),
    "an unknown array": (changed("fc.scale", np.ones(3)), "fc.scale"),
    "another shape": (changed("fc.weight", np.ones((1000, 2048))), r"must be float \(1008, 2048\)"),
    "integers": (changed("fc.bias", np.ones(1008, int)), "must be float"),
    "NaN": (changed("fc.bias", np.full(1008, np.nan)), "NaN"),
    "a negative variance": (
        changed("Conv2d_1a_3x3.bn.running_var", -np.ones(32)),
        "holds negative numbers",
    ),
}


@pytest.mark.parametrize(("arrays", "words"), FAULTS.values(), ids=FAULTS.keys())
def test_other_arrays_are_refused(arrays, words):
    with pytest.raises(ValueError, match=words):
        prepare_weights(arrays)


def test_counters_of_batches_do_not_matter():
    name = "Conv2d_1a_3x3.bn.num_batches_tracked"
    assert find_fault(changed(name, np.array(0))) == ""
    assert name not in prepare_weights(changed(name, np.array(0)))


@pytest.mark.parametrize("images", [np.zeros((4, 8, 8)), np.zeros((4, 8, 8, 1)), np.zeros((8, 8))])
def test_images_of_another_shape_are_refused(weights, images):
    with pytest.raises(ValueError, match=r"must be \[N, H, W, 3\]"):
        inception_features(weights, images)


@pytest.mark.parametrize("layers", [(), (63,), (64, 2047)])
def test_unknown_layers_are_refused(weights, layers):
    with pytest.raises(ValueError, match="layers must be some of"):
        inception_features(weights, PARITY["images"], layers)


def test_a_layer_alone_is_the_same_for_floats_and_bytes_and_for_each_image(weights, features):
    for images in (PARITY["images"][:2], PARITY["images"][:2].astype(np.float32)):
        found = jax.jit(inception_features, static_argnames="layers")(weights, images, (64,))
        assert found.keys() == {64}
        np.testing.assert_allclose(found[64], features[64][:2], rtol=1e-5, atol=1e-6)


def products(jaxpr):
    for equation in jaxpr.eqns:
        if equation.primitive.name in ("conv_general_dilated", "dot_general"):
            yield equation
        for inner in jax.extend.core.jaxprs_in_params(equation.params):
            yield from products(inner)


def test_all_products_are_of_the_highest_precision(weights):
    images = jax.ShapeDtypeStruct((1, 64, 64, 3), np.uint8)
    traced = jax.make_jaxpr(lambda x: inception_features(weights, x))(images)
    found = [equation.params["precision"] for equation in products(traced.jaxpr)]
    assert len(found) == 94 + 2
    assert set(found) == {(lax.Precision.HIGHEST, lax.Precision.HIGHEST)}
