"""The Inception extractor: its map to eight bits, its chunks, its hash, and what it refuses."""

import jax
import numpy as np
import pytest
from inception_support import made_up_weights

from lensjax.metrics import inception_features as module
from lensjax.metrics.inception_features import InceptionExtractor, to_bytes
from lensjax.models.inception import inception_features, prepare_weights

LIMIT = 0.02
RANDOM = np.random.default_rng(0)


def flux(*shape: int) -> np.ndarray:
    """Some below 0, some above the limit."""
    return RANDOM.uniform(-0.3 * LIMIT, 1.3 * LIMIT, shape).astype(np.float32)


@pytest.fixture(scope="module")
def extractor():
    return InceptionExtractor(made_up_weights(), LIMIT, layer=64, batch_size=4)


@pytest.mark.parametrize("limit", [0.02, 1.0, 255.0, 1e4])
def test_the_map_rounds_and_clips(limit):
    bytes_ = np.arange(256)
    assert to_bytes(bytes_ * (limit / 255), limit).dtype == np.uint8
    for shift in (-0.49, 0.0, 0.49):
        shifted = (bytes_ + shift) * (limit / 255)
        np.testing.assert_array_equal(to_bytes(shifted, limit), bytes_)
    np.testing.assert_array_equal(
        to_bytes(limit * np.array([-9, 1.001, 1e30]), limit), [0, 255, 255]
    )


def test_it_says_what_it_is(extractor):
    assert (extractor.name, extractor.layer, extractor.num_features) == ("inception", "pool 64", 64)
    assert extractor.flux_limit == LIMIT
    assert len(extractor.hash) == 64


@pytest.mark.parametrize("channels", [1, 3])
def test_features_are_those_of_the_mapped_images_in_any_chunks(extractor, channels):
    images = flux(5, 32, 32, channels)
    bytes_ = np.clip(np.round(images.astype(float) * 255 / LIMIT), 0, 255).astype(np.uint8)
    coloured = np.concatenate([bytes_] * (3 // channels), axis=-1)
    run = jax.jit(inception_features, static_argnames="layers")
    expected = run(prepare_weights(made_up_weights()), coloured, (64,))[64]
    for num in (0, 1, 4, 5):
        found = extractor(images[:num])
        assert found.shape == (num, 64)
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, expected[:num], rtol=1e-5, atol=1e-6)


def test_images_and_channels_are_kept_apart(extractor):
    images = flux(3, 32, 32, 3)
    found = extractor(images)
    np.testing.assert_array_equal(extractor(images[::-1])[::-1], found)
    assert (extractor(images[..., ::-1]) != found).any(axis=1).all()


def test_one_shape_of_chunks_is_traced_once(extractor, monkeypatch):
    traced = []

    def trace(weights, images, layers):
        traced.append(images.shape)
        return inception_features(weights, images, layers)

    monkeypatch.setattr(module, "inception_features", trace)
    for num in (1, 3, 4, 9):
        extractor(flux(num, 24, 24, 1))
    assert traced == [(4, 24, 24, 3)]


def changed(weights: dict) -> dict:
    name = "Conv2d_1a_3x3.conv.weight"
    return {**weights, name: np.nextafter(weights[name], np.float32(9))}


def test_the_hash_names_all_that_the_features_depend_on(extractor, monkeypatch):
    weights = made_up_weights()
    settings = [(weights, LIMIT, 192), (weights, 2 * LIMIT, 64), (changed(weights), LIMIT, 64)]
    hashes = [extractor.hash] + [InceptionExtractor(*one).hash for one in settings]
    monkeypatch.setattr(module, "MAP_VERSION", module.MAP_VERSION + 1)
    hashes.append(InceptionExtractor(weights, LIMIT, 64).hash)
    assert len(set(hashes)) == len(hashes)


def test_the_hash_does_not_depend_on_anything_else(extractor):
    counter = {"Conv2d_1a_3x3.bn.num_batches_tracked": np.array(3)}
    weights = {**counter, **dict(reversed(made_up_weights().items()))}
    assert InceptionExtractor(weights, LIMIT, 64, batch_size=9).hash == extractor.hash


BAD_IMAGES = {
    "NaN": (
        np.where(np.arange(3)[:, None, None, None] == 1, np.nan, flux(3, 8, 8, 1)),
        "number 1;",
    ),
    "infinities": (np.full((2, 8, 8, 1), np.inf), "2 of 2 have pixels that are NaN or infinite"),
    "no channel": (flux(2, 8, 8), r"got the shape \(2, 8, 8\)"),
    "two channels": (flux(2, 8, 8, 2), "1 channel, which is repeated, or 3"),
    "four channels": (flux(2, 8, 8, 4), "1 channel, which is repeated, or 3"),
    "no pixels": (flux(2, 0, 8, 1), "got shape"),
    "complex numbers": (flux(2, 8, 8, 1) * 1j, "got complex64"),
    "truths": (flux(2, 8, 8, 1) > 0, "got bool"),
}


@pytest.mark.parametrize(("images", "words"), BAD_IMAGES.values(), ids=BAD_IMAGES.keys())
def test_bad_images_are_refused(extractor, images, words):
    with pytest.raises(ValueError, match=words):
        extractor(images)


BAD_SETTINGS = {
    "no limit": ({"flux_limit": 0.0}, "flux_limit must be finite and positive"),
    "a limit that is NaN": ({"flux_limit": np.nan}, "flux_limit must be finite and positive"),
    "another layer": ({"flux_limit": 1.0, "layer": 1008}, "layer must be one of"),
    "no batch": ({"flux_limit": 1.0, "batch_size": 0}, "batch_size must be 1 or more"),
}


@pytest.mark.parametrize(("settings", "words"), BAD_SETTINGS.values(), ids=BAD_SETTINGS.keys())
def test_bad_settings_are_refused(settings, words):
    with pytest.raises(ValueError, match=words):
        InceptionExtractor(made_up_weights(), **settings)


def test_other_weights_are_refused():
    with pytest.raises(ValueError, match="not the weights of the FID-Inception: 472 of 472"):
        InceptionExtractor({}, LIMIT)
