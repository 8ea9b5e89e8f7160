"""The lens network as an extractor: whose features they are, and what it refuses."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from fit_support import real

from lensjax.data.simulator import CLASS_NAMES
from lensjax.errors import MeasureError
from lensjax.evaluation import extractors
from lensjax.evaluation.extractors import LensExtractor
from lensjax.inference import pretrained
from lensjax.metrics.frechet import Moments, frechet_distance
from lensjax.models import build_model


def lenses(class_name: str, count: int = 200) -> np.ndarray:
    return real(class_name, count)[0][..., None]


@functools.cache
def lens_extractor() -> LensExtractor:
    return LensExtractor()


@pytest.mark.parametrize("count", [0, 1, 127, 128, 129])
def test_features_do_not_depend_on_the_chunk(count):
    images = lenses("cdm")
    extractor = lens_extractor()
    found = extractor(images[:count])
    assert found.shape == (count, extractor.num_features)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, extractor(images)[:count])


def test_features_and_classes_are_those_of_the_classifier():
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


def speckled(images: np.ndarray) -> np.ndarray:
    noise = np.random.default_rng(0).normal(size=images.shape)
    return images + 0.01 * images.max() * noise


CHANGES = {
    "flipped": (lambda images: images[:, :, ::-1], True),
    "brighter": (lambda images: np.float32(1.1) * images, True),
    "speckled": (speckled, True),
    "half a turn, which lenses may have": (lambda images: images[:, ::-1, ::-1], False),
}


@pytest.mark.parametrize(("change", "noticed"), CHANGES.values(), ids=CHANGES)
def test_distance_notices_what_the_lens_does_not_allow(change, noticed):
    known, images = lenses("no_sub", 400)[:200], lenses("no_sub", 400)[200:]
    first, fresh, changed = (
        Moments.of(lens_extractor()(part)) for part in (known, images, change(images))
    )
    floor = frechet_distance(first, fresh)
    assert (frechet_distance(first, changed) > 2 * floor) == noticed


def test_hash_covers_weights_network_and_scaling():
    trained, card = pretrained.load_trained("lens_classifier")
    hash_of, found = extractors._hash_of, lens_extractor().hash
    assert len(found) == 64
    assert found == hash_of(trained, card)
    assert found != hash_of(trained, card | {"sha256": "other"})
    scaling = {**trained.dataset["scaling"], "softening": 1.0}
    dataset = {**trained.dataset, "scaling": scaling}
    assert found != hash_of(dataclasses.replace(trained, dataset=dataset), card)
    model = dataclasses.replace(trained.config.model, cells=2)
    config = dataclasses.replace(trained.config, model=model)
    assert found != hash_of(dataclasses.replace(trained, config=config), card)


@pytest.mark.parametrize(
    ("images", "words"),
    [
        (np.zeros((3, 32, 32, 1)), "allowed: 64x64"),
        (np.zeros((3, 64, 64, 3)), r"allowed: \[N, 64, 64, 1\]"),
        (
            np.where(np.arange(3).reshape(3, 1, 1, 1) == 1, np.nan, np.ones((3, 64, 64, 1))),
            "1 of 3",
        ),
    ],
)
def test_images_that_it_does_not_know_are_refused(images, words):
    for function in (lens_extractor(), lens_extractor().predict_probabilities):
        with pytest.raises(MeasureError, match=words):
            function(images)
