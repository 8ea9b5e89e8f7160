"""Rows: scales, groups, and which of the real images are taken."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from run_support import tiny_config, tiny_split

from lensjax.evaluation import feature_measures
from lensjax.evaluation.real import RealImages, first_places
from lensjax.evaluation.rows import rescale

IMAGES = np.random.default_rng(0).gamma(2.0, 1.0, (5, 8, 8, 1)).astype(np.float32)


def test_flux_stays_as_it_is():
    assert rescale(IMAGES, "flux") is IMAGES


@pytest.mark.parametrize("factor", [0.1, 1.0, 30.0])
def test_scaled_images_forget_their_flux(factor):
    scaled = rescale(IMAGES, "max")
    np.testing.assert_allclose(rescale(factor * IMAGES, "max"), scaled, rtol=1e-6)
    np.testing.assert_array_equal(scaled.max(axis=(1, 2, 3)), 1)
    both = rescale(factor * IMAGES + 3, "minmax")
    np.testing.assert_allclose(both, rescale(IMAGES, "minmax"), atol=1e-5)
    np.testing.assert_array_equal(both.min(axis=(1, 2, 3)), 0)
    np.testing.assert_array_equal(both.max(axis=(1, 2, 3)), 1)


@pytest.mark.parametrize("scale", ["max", "minmax"])
def test_black_images_stay_finite(scale):
    assert np.isfinite(rescale(np.zeros_like(IMAGES), scale)).all()


@pytest.mark.parametrize("num", [1, 3, 8, 100])
def test_the_first_of_each_class_are_taken(num):
    split = tiny_split(24)
    places = first_places(split, num)
    assert (np.diff(places) > 0).all()
    for label in range(3):
        expected = np.flatnonzero(split.labels == label)[:num]
        np.testing.assert_array_equal(places[split.labels[places] == label], expected)


def test_an_unlabelled_set_is_one_class():
    np.testing.assert_array_equal(first_places(tiny_split(24, class_names=()), 5), np.arange(5))


class Set:
    def open_split(self, name):
        return tiny_split(30 if name == "test" else 60)


def test_windows_of_shifted_images_are_cut_out_of_real_ones_too():
    data = {"name": "deeplense/folder", "folder": "x", "shift_pixels": 2}
    config = tiny_config(data=data, model={"name": "unet"}, evaluate={"num_images": 4})
    prepared: Any = Set()
    real = RealImages(config, prepared)
    assert real.test.images.shape == (12, 12, 12, 1)
    split = tiny_split(30)
    first = split.images[np.flatnonzero(split.labels == 0)[0]]
    np.testing.assert_array_equal(real.test.images[real.test.labels == 0][0], first[2:-2, 2:-2])
    assert real.train(5).images.shape == (15, 12, 12, 1)
    assert real.per_class == 4


def test_test_and_training_images_are_of_their_splits():
    splits = {"train": tiny_split(60, seed=1), "test": tiny_split(30, seed=2)}
    prepared: Any = SimpleNamespace(open_split=splits.__getitem__)
    real = RealImages(tiny_config(evaluate={"num_images": 4}), prepared)
    for images, name in ((real.test, "test"), (real.train(4), "train")):
        split = splits[name]
        first = split.images[split.labels == 0][:4]
        np.testing.assert_array_equal(images.images[images.labels == 0], first)


@pytest.mark.parametrize("change", [{"seed": 1}, {"image_scale": "max"}])
def test_features_of_other_settings_have_another_key(change):
    def key(**settings):
        values = {"seed": 0, "image_scale": "flux"} | settings
        info = SimpleNamespace(name="a", fingerprint="b", image_shape=(8, 8, 1))
        real = SimpleNamespace(per_class=4)
        setting: Any = SimpleNamespace(
            info=info, per_class=4, real_images=real, settings=SimpleNamespace(**values)
        )
        extractor: Any = SimpleNamespace(hash="c")
        return feature_measures._key("floors", extractor, "level", setting)

    assert key(**change) != key()
