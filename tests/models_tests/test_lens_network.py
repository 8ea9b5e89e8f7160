"""The lens network: any size, flux that counts, weights that are checked."""

import hashlib
import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support import random_like

from lensjax.models import lens_network
from lensjax.models.lens_network import LensNetwork, load_card, load_weights, pooling_matrix

SMALL = LensNetwork(widths=(3, 4), blocks=(1, 0), cells=2, num_features=5)


@pytest.fixture(scope="module")
def params():
    shapes = jax.eval_shape(SMALL.init, jax.random.key(0), jnp.zeros((1, 16, 16, 1)))
    return random_like(shapes)


APPLY = jax.jit(lens_network.apply, static_argnames="network")


def output_of(params, batch: jax.Array) -> lens_network.LensOutput:
    return APPLY(params["params"], batch, network=SMALL)


def images(*shape: int, seed: int = 0) -> jax.Array:
    return jnp.asarray(np.random.default_rng(seed).exponential(size=shape), jnp.float32)


@pytest.mark.parametrize("cells", [1, 2, 4])
@pytest.mark.parametrize("size", [4, 8, 5, 10, 19])
def test_pooling_averages_cells_as_pytorch_does(size, cells):
    matrix = pooling_matrix(size, cells)
    values = np.random.default_rng(0).normal(size=size)
    for cell in range(cells):
        first, last = int(np.floor(cell * size / cells)), int(np.ceil((cell + 1) * size / cells))
        assert matrix[cell] @ values == pytest.approx(values[first:last].mean(), abs=1e-6)
    np.testing.assert_allclose(matrix.sum(axis=1), 1, rtol=1e-6)


def test_a_map_smaller_than_the_grid_is_repeated():
    np.testing.assert_array_equal(pooling_matrix(1, 4), np.ones((4, 1)))


@pytest.mark.parametrize("shape", [(16, 16), (17, 30), (5, 5), (64, 64), (150, 150)])
def test_any_size_gives_as_many_features(params, shape):
    output = output_of(params, images(3, *shape, 1))
    assert output.features.shape == (3, 5)
    assert output.logits.shape == (3, 3)
    assert output.parameters.shape == (3, len(lens_network.PARAMETER_NAMES))
    assert np.isfinite(output.features).all()


def test_an_image_does_not_depend_on_the_batch(params):
    batch = images(4, 16, 16, 1)
    alone = output_of(params, batch[1:2])
    together = output_of(params, batch.at[0].multiply(100.0))
    np.testing.assert_allclose(together.features[1:2], alone.features, rtol=1e-5, atol=1e-5)


def test_flux_counts_and_its_sign_too(params):
    batch = images(2, 16, 16, 1)
    features = [output_of(params, factor * batch).features for factor in (1.0, 1.1, -1.0)]
    for other in features[1:]:
        assert float(jnp.max(jnp.abs(other - features[0]))) > 1e-2


def test_brightness_is_linear_below_the_noise_and_logarithmic_above():
    """The first layer's input, told from the response of a network that is linear behind it."""
    linear = LensNetwork(stem=(1, 1), widths=(1,), blocks=(0,), cells=1, num_features=1)
    shapes = jax.eval_shape(linear.init, jax.random.key(0), jnp.zeros((1, 2, 2, 1)))
    ones = jax.tree.map(lambda leaf: jnp.ones(leaf.shape), shapes)
    zero_bias = jax.tree.map(lambda leaf: leaf * (leaf.ndim > 1), ones)
    scale = lens_network.FLUX_SCALE
    flux = scale * jnp.array([0.01, 1.0, 1e3])
    batch = jnp.broadcast_to(flux[:, None, None, None], (3, 2, 2, 1))
    found = lens_network.apply(zero_bias["params"], batch, linear).features[:, 0]
    np.testing.assert_allclose(found, [0.01, np.arcsinh(1.0), np.log(2e3)], rtol=1e-4)


@pytest.mark.parametrize("place", [(0, 0), (5, 9), (15, 15)])
def test_where_something_lies_is_kept(params, place):
    empty = jnp.zeros((1, 16, 16, 1))
    spots = [empty.at[0, row, column, 0].set(1.0) for row, column in (place, (8, 3))]
    first, second = (output_of(params, spot).features for spot in spots)
    assert float(jnp.max(jnp.abs(first - second))) > 1e-3


def test_gradients_reach_every_weight(params):
    @jax.jit
    def loss(params):
        output = output_of(params, images(4, 16, 16, 1))
        return sum(jnp.sum(jnp.square(part)) for part in output)

    for path, leaf in jax.tree_util.tree_leaves_with_path(jax.grad(loss)(params)):
        assert np.any(leaf != 0), jax.tree_util.keystr(path)


def test_the_shipped_weights_fit_the_network():
    params, _ = load_weights()
    side = lens_network.SURVEY.num_pixels
    init = jax.eval_shape(LensNetwork().init, jax.random.key(0), jnp.zeros((1, side, side, 1)))
    expected = jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), init["params"])
    assert jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), params) == expected
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(params))


def test_the_shipped_weights_are_small_and_have_a_card():
    path = lens_network.WEIGHTS_FOLDER / "lens_network.safetensors"
    assert path.stat().st_size <= 2**20
    card = load_card()
    assert card["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest() == load_weights()[1]
    assert {"command", "accuracy", "versions"} <= set(card)


def test_saved_weights_come_back(tmp_path, params):
    path = lens_network.save_weights(tmp_path, params["params"])
    card = {"sha256": lens_network.file_sha256(path)}
    (tmp_path / "lens_network.json").write_text(json.dumps(card))
    found, sha256 = load_weights(tmp_path)
    assert sha256 == card["sha256"]
    jax.tree.map(np.testing.assert_array_equal, found, dict(params["params"]))


def test_weights_with_another_hash_are_refused(tmp_path):
    for suffix in ("json", "safetensors"):
        shutil.copy(lens_network.WEIGHTS_FOLDER / f"lens_network.{suffix}", tmp_path)
    path = tmp_path / "lens_network.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    found = hashlib.sha256(content).hexdigest()
    with pytest.raises(ValueError, match=f"has the SHA-256 {found}, its card"):
        load_weights(tmp_path)


@pytest.mark.parametrize("missing", ["json", "safetensors"])
def test_missing_files_are_named(tmp_path, missing):
    for suffix in {"json", "safetensors"} - {missing}:
        shutil.copy(lens_network.WEIGHTS_FOLDER / f"lens_network.{suffix}", tmp_path)
    with pytest.raises(FileNotFoundError, match=f"lens_network.{missing}"):
        load_weights(tmp_path)
