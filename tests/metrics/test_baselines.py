"""Baseline rows: each is what it says, for a simulated set and for a user's images."""

import dataclasses
import functools
from typing import Any

import numpy as np
import pytest
import scipy.ndimage

from lensjax.data import arrays
from lensjax.data.arrays import simulate
from lensjax.data.parameters import PARAMETER_NAMES, render_parameters
from lensjax.data.simulator import CLASS_NAMES
from lensjax.data.surveys import SURVEYS
from lensjax.errors import BaselineError
from lensjax.metrics.baselines import BASELINES, make
from lensjax.metrics.corruptions import gaussian_blur

pytestmark = pytest.mark.usefixtures("quick_compiles")
SURVEY = SURVEYS["model_ii"]
NUM = 48
OF_TRAINING = sorted(set(BASELINES) - {"simulator"})


@functools.cache
def lenses() -> dict[str, Any]:
    """Training images of three classes, one class after the other."""
    parts = [simulate("model_ii", name, NUM, 3) for name in CLASS_NAMES]
    columns = [np.stack([table[name] for name in PARAMETER_NAMES], 1) for _, table in parts]
    return {
        "train_images": np.concatenate([images for images, _ in parts]),
        "train_labels": np.repeat(np.arange(3, dtype=np.int32), NUM),
        "survey": SURVEY,
        "parameters": np.concatenate(columns),
    }


def toy(num: int = 60, num_classes: int = 3) -> dict[str, Any]:
    """Small images of a user, brighter with each class, classes taking turns."""
    random = np.random.default_rng(0)
    images = scipy.ndimage.gaussian_filter(random.random((num, 8, 6, 2)), (0, 1, 1, 0))
    labels = np.arange(num, dtype=np.int32) % num_classes
    images = (images * (1 + labels)[:, None, None, None]).astype(np.float32)
    return {"train_images": images, "train_labels": labels}


@pytest.mark.parametrize(
    ("name", "training"),
    [*((name, lenses) for name in BASELINES), *((name, toy) for name in OF_TRAINING)],
)
def test_each_row_has_as_many_images_a_class_as_asked(name, training):
    known = training()
    images, labels = make(name, num_per_class=10, seed=1, **known)
    assert images.shape == (30, *known["train_images"].shape[1:])
    assert (images.dtype, labels.dtype) == (np.float32, np.int32)
    assert labels.tolist() == [0] * 10 + [1] * 10 + [2] * 10
    assert np.isfinite(images).all()
    again, _ = make(name, num_per_class=10, seed=1, **known)
    np.testing.assert_array_equal(images, again)
    other, _ = make(name, num_per_class=10, seed=2, **known)
    assert (images != other).any()
    assert len({image.tobytes() for image in images}) == 30 or name == "neighbour_mean"


def test_the_simulator_is_fresh():
    known = lenses()
    images, _ = make("simulator", num_per_class=5, seed=1, **known)
    train = {image.tobytes() for image in known["train_images"]}
    assert not train & {image.tobytes() for image in images}


@pytest.mark.parametrize("simulated", [None, "model_iii_noisy", "model_ii_conserved"])
def test_the_simulator_may_be_that_of_a_named_set(monkeypatch, simulated):
    asked = []

    def simulate_nothing(name, class_name, num, seed):
        asked.append((name, class_name, num, seed))
        return np.zeros((num, 64, 64, 1), np.float32), None

    monkeypatch.setattr(arrays, "simulate", simulate_nothing)
    make("simulator", num_per_class=5, seed=1, **lenses(), simulated=simulated)
    expected = [(simulated or "model_ii", name, 5) for name in CLASS_NAMES]
    assert [one[:3] for one in asked] == expected
    assert len({one[3] for one in asked}) == 3


def test_a_folder_has_no_simulator():
    with pytest.raises(BaselineError, match="simulator is not available"):
        make("simulator", num_per_class=2, seed=0, **toy())


def test_training_images_are_each_drawn_once():
    known = toy()
    images, labels = make("training", num_per_class=20, seed=0, **known)
    for label in range(3):
        drawn = {image.tobytes() for image in images[labels == label]}
        of_class = known["train_images"][known["train_labels"] == label]
        assert drawn == {image.tobytes() for image in of_class}


def test_neighbours_are_the_nearest_pairs_of_a_class():
    known = toy()
    images, labels = make("neighbour_mean", num_per_class=20, seed=0, **known)
    for label in range(3):
        train = known["train_images"][known["train_labels"] == label].astype(np.float64)
        unit = [image / np.linalg.norm(image) for image in train]
        means = set()
        for i, one in enumerate(unit):
            distances = [
                np.linalg.norm(one - other) if i != j else np.inf for j, other in enumerate(unit)
            ]
            nearest = distances.index(min(distances))
            means.add(tuple(np.round((train[i] + train[nearest]).ravel() / 2, 4)))
        found = {tuple(np.round(image.ravel(), 4)) for image in images[labels == label]}
        assert len(found) == len(means)
        distance = [min(np.abs(np.subtract(one, two)).max() for two in means) for one in found]
        assert max(distance) < 3e-4


def singular_values(rows: np.ndarray) -> np.ndarray:
    return np.linalg.svd(rows - rows.mean(axis=0)[None], compute_uv=False)


def test_principal_components_keep_mean_and_covariance():
    """Of images that are Gaussian in three directions nothing is lost."""
    random = np.random.default_rng(1)
    basis = random.normal(size=(3, 48)) * np.array([[3.0], [2.0], [1.0]])
    flat = random.normal(size=(500, 3)) @ basis + 5
    images = flat.reshape(500, 8, 6, 1).astype(np.float32)
    drawn, _ = make("pca_gaussian", images, np.zeros(500, np.int32), 4000, 0)
    rows = drawn.reshape(4000, -1).astype(np.float64)
    covariance, known = np.cov(rows.T), np.cov(flat.T)
    assert np.linalg.norm(covariance - known) < 0.08 * np.linalg.norm(known)
    error = np.sqrt(np.diag(known) / 4000)
    assert (np.abs(rows.mean(axis=0) - flat.mean(axis=0)) < 5 * error).all()
    assert np.sum(singular_values(rows) > 1e-3) == 3


@pytest.mark.parametrize("noise", [0.02, 0.2])
def test_components_stop_at_their_share_of_the_variance(noise):
    random = np.random.default_rng(1)
    flat = random.normal(size=(400, 2)) @ random.normal(size=(2, 48))
    flat += noise * random.normal(size=(400, 48))
    images = flat.reshape(400, 8, 6, 1).astype(np.float32)
    drawn, _ = make("pca_gaussian", images, np.zeros(400, np.int32), 300, 0)
    variances = singular_values(flat) ** 2
    expected = 1 + int(np.sum(np.cumsum(variances) / variances.sum() < 0.999))
    rows = drawn.reshape(300, -1)
    assert np.sum(singular_values(rows) > 1e-3) == expected
    assert 2 <= expected < 48


def test_one_training_image_has_itself_as_its_component():
    images = np.random.default_rng(0).random((1, 4, 4, 1), np.float32)
    drawn, _ = make("pca_gaussian", images, np.zeros(1, np.int32), 3, 0)
    np.testing.assert_allclose(drawn, np.repeat(images, 3, axis=0), rtol=1e-6)


def test_blurred_images_are_training_images_of_a_wider_psf():
    known = toy()
    images, labels = make("blurred", num_per_class=20, seed=3, **known, psf_fwhm_pixels=1.5)
    more = np.sqrt(1.3**2 - 1) * 1.5 / 2.354820045
    expected = gaussian_blur(known["train_images"], more)
    for label in range(3):
        wanted = expected[known["train_labels"] == label]
        for image in images[labels == label]:
            assert np.abs(wanted - image[None]).max(axis=(1, 2, 3)).min() < 1e-5


def test_lenses_are_rendered_with_the_wider_psf():
    known = lenses()
    images, labels = make("blurred", num_per_class=NUM, seed=3, **known)
    wider = dataclasses.replace(SURVEY, psf_fwhm_arcsec=1.3 * SURVEY.psf_fwhm_arcsec)
    wanted = render_parameters(known["parameters"], known["train_labels"], wider)
    for image, label in zip(images[::8], labels[::8], strict=True):
        of_class = wanted[known["train_labels"] == label]
        assert np.abs(of_class - image[None]).max(axis=(1, 2, 3)).min() < 1e-4 * image.max()


@pytest.mark.parametrize("name", ["training", "neighbour_mean", "blurred"])
def test_more_than_there_are_is_refused(name):
    with pytest.raises(BaselineError, match="got 21; allowed: at most the 20 training images"):
        make(name, num_per_class=21, seed=0, **toy())


@pytest.mark.parametrize("name", OF_TRAINING)
def test_an_unlabelled_set_is_one_class(name):
    images, labels = make(name, num_per_class=7, seed=0, **toy(num_classes=1))
    assert labels.tolist() == [0] * 7
    assert len(images) == 7


def test_what_does_not_fit_is_refused():
    known = toy()
    images, labels = known["train_images"], known["train_labels"]
    with pytest.raises(BaselineError, match="'mean' does not exist; allowed: simulator, training"):
        make("mean", images, labels, 2, 0)
    with pytest.raises(BaselineError, match=r"labels \(59,\); allowed: \[N, H, W, C\] and \[N\]"):
        make("training", images, labels[1:], 2, 0)
    with pytest.raises(BaselineError, match="num_per_class: got 0; allowed: at least 1"):
        make("training", images, labels, 0, 0)
    with pytest.raises(BaselineError, match="not finite"):
        make("training", np.where(images > 1, np.float32(np.inf), images), labels, 2, 0)
    with pytest.raises(BaselineError, match="neighbour_mean is not available"):
        make("neighbour_mean", images[:3], labels[:3], 1, 0)
