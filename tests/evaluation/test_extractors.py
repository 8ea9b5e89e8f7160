"""Extractors behind one protocol: any function, the lens network, and what is refused."""

import dataclasses
import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lensjax import prng
from lensjax.data.simulator import CLASS_NAMES, simulate
from lensjax.data.surveys import SURVEYS
from lensjax.evaluation import extractors as features_module
from lensjax.evaluation.extractors import (
    FunctionExtractor,
    LensExtractor,
    check_images,
    extract,
    features_of,
    moments_of,
)
from lensjax.inference import pretrained
from lensjax.metrics.frechet import frechet_distance
from lensjax.models import build_model

SURVEY = SURVEYS["model_ii"]


def pixel_means(images: np.ndarray) -> np.ndarray:
    return images.mean(axis=1).reshape(len(images), -1)


def small_images(count: int = 11) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(count, 6, 5, 2))


@functools.cache
def lenses(class_name: str, count: int = 200, seed: int = 3) -> np.ndarray:
    keys = prng.keys(prng.key(seed, "test"), jnp.arange(count))
    return np.asarray(simulate(keys, SURVEY, class_name)[0])[..., None]


@functools.cache
def lens_extractor() -> LensExtractor:
    return LensExtractor()


@pytest.mark.parametrize(("batch_size", "count"), list(itertools.product([1, 4, 300], [2, 8, 11])))
def test_batches_together_are_the_features_of_all_images(batch_size, count):
    images = small_images(count)
    extractor = FunctionExtractor(pixel_means, "means", "v1")
    batches = list(extract(extractor, images, batch_size))
    assert {len(batch) for batch in batches[:-1]} <= {batch_size}
    assert all(batch.dtype == np.float32 for batch in batches)
    expected = pixel_means(images.astype(np.float32))
    np.testing.assert_array_equal(np.concatenate(batches), expected)
    np.testing.assert_array_equal(features_of(extractor, images, batch_size), expected)
    moments = moments_of(extractor, images, batch_size)
    assert moments.count == count
    np.testing.assert_allclose(moments.mean, expected.mean(axis=0), atol=1e-6)
    assert (extractor.num_features, extractor.name, extractor.hash) == (10, "means", "v1")


def test_a_mapped_file_is_read_a_batch_at_a_time(tmp_path):
    np.save(tmp_path / "images.npy", small_images())
    images = np.load(tmp_path / "images.npy", mmap_mode="r")
    seen = []

    def noting(batch):
        seen.append(len(batch))
        return pixel_means(batch)

    extractor = FunctionExtractor(noting, "f", "h")
    for number, _ in enumerate(extract(extractor, images, 4), 1):
        assert len(seen) == number
    assert seen == [4, 4, 3]


def test_number_of_features_is_known_from_the_argument_or_the_first_call():
    assert FunctionExtractor(pixel_means, "f", "h", num_features=10).num_features == 10
    extractor = FunctionExtractor(pixel_means, "f", "h")
    with pytest.raises(ValueError, match="give num_features"):
        _ = extractor.num_features
    extractor(small_images(1))
    assert extractor.num_features == 10


@pytest.mark.parametrize(
    ("result", "num_features"),
    [((11,), None), ((11, 2, 3), None), ((10, 10), None), ((11, 9), 10), ((1, 11), None)],
)
def test_a_function_with_another_result_is_refused(result, num_features):
    extractor = FunctionExtractor(lambda x: np.zeros(result), "f", "h", num_features)
    with pytest.raises(ValueError, match="returned"):
        extractor(small_images())


def test_a_function_must_keep_to_its_number_of_features():
    extractor = FunctionExtractor(lambda x: np.zeros((len(x), len(x))), "f", "h")
    with pytest.raises(ValueError, match=r"returned \(3, 3\) for 3 images; needed: \[3, 4\]"):
        features_of(extractor, small_images(7), 4)


@pytest.mark.parametrize("shape", [(4, 6, 5), (4, 6), (4, 0, 5, 1), (4, 6, 5, 1, 1)])
def test_images_of_another_shape_are_refused(shape):
    with pytest.raises(ValueError, match=r"needed: \[N, H, W, C\]"):
        check_images(np.zeros(shape))
    with pytest.raises(ValueError, match="have shape"):
        extract(FunctionExtractor(pixel_means, "f", "h"), np.zeros(shape))


def test_missing_channels_are_named():
    with pytest.raises(ValueError, match=r"images\[..., None\]"):
        check_images(np.zeros((4, 6, 5)))


@pytest.mark.parametrize("dtype", [complex, "U3", object])
def test_images_that_are_no_numbers_are_refused(dtype):
    with pytest.raises(ValueError, match="real numbers"):
        check_images(np.zeros((2, 3, 3, 1), dtype))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_nan_and_infinity_are_refused_where_they_stand(value):
    images = small_images()
    images[[6, 9], 2, 3, 1] = value
    extractor = FunctionExtractor(pixel_means, "f", "h")
    with pytest.raises(ValueError, match=r"2 of 11 images .* first is number 6"):
        extractor(images)
    with pytest.raises(ValueError, match=r"images 4 to 7: 1 of 4 images .* first is number 2"):
        features_of(extractor, images, 4)


def test_features_that_are_not_finite_are_refused():
    def overflow(images):
        return np.full((len(images), 2), np.inf)

    with pytest.raises(ValueError, match="NaN or infinity for images 0 to 10"):
        features_of(FunctionExtractor(overflow, "f", "h"), small_images())


@pytest.mark.parametrize("count", [0, 1])
def test_fewer_than_two_images_are_refused_at_once(count):
    with pytest.raises(ValueError, match=rf"got {count} image\(s\)"):
        extract(FunctionExtractor(pixel_means, "f", "h"), small_images(count))


def test_a_batch_of_nothing_is_refused():
    with pytest.raises(ValueError, match="batch_size: got 0"):
        extract(FunctionExtractor(pixel_means, "f", "h"), small_images(), 0)


@pytest.mark.parametrize("count", [0, 1, 127, 128, 129])
def test_lens_features_do_not_depend_on_the_chunk(count):
    images = lenses("cdm")
    extractor = lens_extractor()
    found = extractor(images[:count])
    assert found.shape == (count, extractor.num_features)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, extractor(images)[:count])


def test_lens_features_and_classes_are_those_of_the_classifier():
    images = lenses("axion")[:9]
    trained, card = pretrained.load_trained("lens_classifier")
    model = build_model(trained.config.model)
    flux = trained.scaling.to_model(jnp.asarray(images))
    expected = jax.jit(model.apply)({"params": trained.params}, flux)
    extractor = lens_extractor()
    np.testing.assert_allclose(extractor(images), expected.features, rtol=1e-4, atol=1e-4)
    softmax = jax.nn.softmax(expected.logits / card["temperature"])
    np.testing.assert_allclose(extractor.predict_probabilities(images), softmax, atol=1e-4)


def test_the_classifier_that_comes_with_lensjax_keeps_the_promise_of_its_card():
    labels = np.repeat(np.arange(3), 200)
    images = np.concatenate([lenses(name) for name in CLASS_NAMES])
    right = lens_extractor().predict_probabilities(images).argmax(axis=1) == labels
    promised = pretrained.load_card("lens_classifier")["test_scores"]["model_ii, as they are"]
    deviation = np.sqrt(promised["accuracy"] * (1 - promised["accuracy"]) / len(labels))
    assert abs(right.mean() - promised["accuracy"]) < 4 * deviation


def flipped(images):
    return images[:, :, ::-1]


def brighter(images):
    return 1.1 * images


def speckled(images):
    noise = np.random.default_rng(0).normal(size=images.shape)
    return images + 0.01 * images.max() * noise


@pytest.mark.parametrize("change", [flipped, brighter, speckled])
def test_lens_distance_notices_what_the_lens_does_not_allow(change):
    real = moments_of(lens_extractor(), lenses("no_sub"))
    fresh = lenses("no_sub", seed=4)
    floor = frechet_distance(real, moments_of(lens_extractor(), fresh))
    changed = moments_of(lens_extractor(), change(fresh).astype(np.float32))
    assert frechet_distance(real, changed) > 2 * floor


def test_half_a_turn_leaves_the_lens_distance_alone():
    real = moments_of(lens_extractor(), lenses("no_sub"))
    fresh = lenses("no_sub", seed=4)
    floor = frechet_distance(real, moments_of(lens_extractor(), fresh))
    turned = moments_of(lens_extractor(), fresh[:, ::-1, ::-1])
    assert frechet_distance(real, turned) < 2 * floor


def test_hash_covers_weights_network_and_scaling():
    trained, card = pretrained.load_trained("lens_classifier")
    hash_of, found = features_module._hash_of, lens_extractor().hash
    assert len(found) == 64
    assert found == hash_of(trained, card)
    assert found != hash_of(trained, card | {"sha256": "other"})
    scaling = {**trained.dataset["scaling"], "softening": 1.0}
    dataset = {**trained.dataset, "scaling": scaling}
    assert found != hash_of(dataclasses.replace(trained, dataset=dataset), card)
    model = dataclasses.replace(trained.config.model, cells=2)
    config = dataclasses.replace(trained.config, model=model)
    assert found != hash_of(dataclasses.replace(trained, config=config), card)


def test_lens_extractor_takes_the_image_plane_that_it_knows():
    assert LensExtractor(SURVEYS["model_ii"]).hash == lens_extractor().hash
    for name in ("model_i", "model_iii"):
        with pytest.raises(ValueError, match=f"trained on model_ii .* got {name}"):
            LensExtractor(SURVEYS[name])


@pytest.mark.parametrize("shape", [(3, 32, 32, 1), (3, 64, 65, 1), (3, 64, 64, 3)])
def test_lens_extractor_refuses_images_of_another_size(shape):
    with pytest.raises(ValueError, match=r"allowed: (64x64|\[N, 64, 64, 1\])"):
        lens_extractor()(np.zeros(shape, np.float32))


def test_lens_extractor_refuses_nan():
    images = lenses("cdm")[:3].copy()
    images[1, 0, 0, 0] = np.nan
    with pytest.raises(ValueError, match="1 of 3 images"):
        lens_extractor()(images)
