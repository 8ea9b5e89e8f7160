"""The ring's radius: known radii are found back, and the classifier knows what they can tell."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from fit_support import real

from lensjax.data.simulator import CLASS_NAMES
from lensjax.data.surveys import SURVEYS
from lensjax.metrics import ring_radius
from lensjax.metrics.classification import score
from lensjax.metrics.noise import add_instrument_noise
from lensjax.metrics.ring_radius import RadiusClassifier, fit_ring_radius

SURVEY = SURVEYS["model_ii"]
NUM = 24
RING = 0.8128684  # arcsec, beta theta_E of the published Model II


@functools.cache
def varied(name: str):
    """Lenses within 20 % of the published one's size, and their images."""
    random = np.random.default_rng(0).uniform(-1, 1, size=(NUM, 3))
    parameters = np.array([0, 0, 1.28149]) + np.array([0.35, 0.35, 0.25]) * random
    render = jax.jit(jax.vmap(ring_radius._make_render(SURVEYS[name])))
    images = np.asarray(render(jnp.asarray(parameters, jnp.float32)))
    return parameters, images


@pytest.mark.parametrize(("name", "free_amplitude"), [("model_ii", False), ("model_iii", True)])
def test_known_radii_are_found(name, free_amplitude):
    parameters, images = varied(name)
    images = 0.3 * images if free_amplitude else images
    found = fit_ring_radius(images, SURVEYS[name], free_amplitude=free_amplitude)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, SURVEYS[name].deflection_factor * parameters[:, 2], atol=1e-5)


def test_derivatives_are_those_of_the_renderer():
    """Half the gradient of the cost by automatic differentiation of the other way to the image."""
    image = jnp.asarray(varied("model_ii")[1][0])
    render = ring_radius._make_render(SURVEY)
    point = jnp.array([0.1, -0.2, 1.3], jnp.float32)
    jacobian = np.asarray(jax.jit(jax.jacfwd(render))(point)).reshape(-1, 3)
    residual = np.asarray(jax.jit(render)(point) - image).ravel()
    found = jax.jit(ring_radius._make_evaluate(SURVEY, False))(point, image)
    np.testing.assert_allclose(found.normal, jacobian.T @ jacobian, rtol=1e-4)
    np.testing.assert_allclose(found.gradient, jacobian.T @ residual, rtol=1e-3)
    assert found.cost == pytest.approx(float(residual @ residual), rel=1e-4)


def test_noise_scatters_radii_as_much_as_the_information_allows():
    """Behind background noise alone, the error's variance is the inverse of the normal matrix."""
    parameters, images = varied("model_ii")
    rms = 0.01 * float(images.max())
    noise = rms * np.random.default_rng(1).normal(size=images.shape)
    clean = fit_ring_radius(images, SURVEY)
    error = fit_ring_radius(images + noise, SURVEY) - clean
    evaluate = jax.jit(jax.vmap(ring_radius._make_evaluate(SURVEY, False)))
    normal = evaluate(jnp.asarray(parameters, jnp.float32), jnp.asarray(images)).normal
    expected = rms * SURVEY.deflection_factor * np.linalg.inv(normal)[:, 2, 2] ** 0.5
    pull = error / expected
    assert 0.6 < pull.std() < 1.5
    assert abs(pull.mean()) < 4 / NUM**0.5


@functools.cache
def radii_of_classes(conserved: bool, magnitude: float | None):
    """Radii and labels of 48 images a class."""
    # Without sub-structure nothing is conserved.
    kinds = [(name, conserved and name != "no_sub") for name in CLASS_NAMES]
    images = np.concatenate([real(name, 48, conserved=kept)[0] for name, kept in kinds])
    if magnitude is not None:
        images = add_instrument_noise(images, SURVEY, magnitude, 1)
    return fit_ring_radius(images, SURVEY), np.repeat(np.arange(3), 48)


@pytest.mark.nightly
def test_mass_on_top_widens_the_ring_and_conserved_mass_does_not():
    radii, labels = radii_of_classes(False, None)
    axion, cdm, no_sub = (np.median(radii[labels == label]) for label in range(3))
    np.testing.assert_allclose(radii[labels == 2], RING, atol=1e-5)
    assert no_sub == pytest.approx(RING, abs=1e-5)
    assert cdm == pytest.approx(0.827, abs=3e-3)
    assert axion == pytest.approx(0.850, abs=2e-3)
    radii, labels = radii_of_classes(True, 20.0)
    for label in range(3):
        assert np.median(radii[labels == label]) == pytest.approx(RING, abs=2e-3)


@pytest.mark.parametrize(
    ("conserved", "magnitude", "low", "high"), [(False, None, 0.92, 1.0), (True, 20.0, 0.68, 0.9)]
)
def test_radius_alone_tells_the_plain_classes_apart_better(conserved, magnitude, low, high):
    radii, labels = radii_of_classes(conserved, magnitude)
    train = np.arange(len(radii)) % 2 == 0
    classifier = RadiusClassifier.fit(radii[train], labels[train], 3, num_neighbours=15)
    scores = score(labels[~train], classifier.predict_probabilities(radii[~train]), CLASS_NAMES)
    assert low < scores.macro_auc < high


def shares_by_loop(radii, labels, num_classes, num_neighbours, at):
    """Classes of all training radii no further than the k-th, and one more image for all."""
    rows = []
    for radius in at:
        distance = np.abs(radii - radius)
        near = distance <= np.sort(distance)[num_neighbours - 1] + 1e-9
        counts = np.bincount(labels[near], minlength=num_classes) + 1 / num_classes
        rows.append(counts / counts.sum())
    return np.array(rows)


@pytest.mark.parametrize("digits", [6, 1])  # one digit: most radii are equal
@pytest.mark.parametrize("num_neighbours", [1, 7, 60])
@pytest.mark.parametrize("num_classes", [2, 3, 5])
def test_probabilities_are_shares_of_neighbours(num_classes, num_neighbours, digits):
    random = np.random.default_rng(0)
    labels = random.integers(2, size=60)
    radii = np.round(random.normal(size=60) + labels, digits)
    at = np.round(np.linspace(-4, 5, 40), digits)
    classifier = RadiusClassifier.fit(radii, labels, num_classes, num_neighbours=num_neighbours)
    found = classifier.predict_probabilities(at)
    assert found.dtype == np.float32
    expected = shares_by_loop(radii, labels, num_classes, num_neighbours, at)
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_probabilities_approach_those_of_bayes():
    """Two normal distributions a distance of 1 apart: the odds are exp(x - 1/2)."""
    random = np.random.default_rng(0)
    labels = np.arange(20_000) % 2
    classifier = RadiusClassifier.fit(random.normal(size=20_000) + labels, labels, 2)
    at = np.linspace(-1, 2, 200)
    truth = 1 / (1 + np.exp(0.5 - at))
    error = classifier.predict_probabilities(at)[:, 1] - truth
    assert np.sqrt(np.mean(error**2)) == pytest.approx(0.5 / 50**0.5, rel=0.3)
    assert abs(error.mean()) < 0.02


def test_equal_radii_tell_nothing():
    labels = np.arange(90) % 3
    classifier = RadiusClassifier.fit(np.full(90, 0.8), labels, 3, num_neighbours=10)
    np.testing.assert_allclose(classifier.predict_probabilities(np.array([0.8, 0.9])), 1 / 3)


GOOD = np.linspace(0.8, 0.9, 60)


@pytest.mark.parametrize(
    ("radii", "labels", "num_classes", "num_neighbours", "message"),
    [
        (GOOD[:0], np.arange(0), 3, 5, "N > 0"),
        (GOOD[:, None], np.arange(60) % 3, 3, 5, r"shape \(60, 1\)"),
        (np.where(GOOD > 0.85, np.nan, GOOD), np.arange(60) % 3, 3, 5, "30 are not finite"),
        (GOOD, np.arange(59) % 3, 3, 5, r"integers \[60\]"),
        (GOOD, np.arange(60) / 60, 3, 5, "type float64"),
        (GOOD, np.arange(60) % 4, 3, 5, "labels from 0 to 2"),
        (GOOD, np.arange(60) % 3 - 1, 3, 5, "go from -1"),
        (GOOD, np.zeros(60, int), 1, 5, "at least 2 classes"),
        (GOOD, np.arange(60) % 3, 3, 0, "allowed: 1 to 60"),
        (GOOD, np.arange(60) % 3, 3, 61, "allowed: 1 to 60"),
    ],
)
def test_bad_training_radii_are_refused(radii, labels, num_classes, num_neighbours, message):
    with pytest.raises(ValueError, match=message):
        RadiusClassifier.fit(radii, labels, num_classes, num_neighbours=num_neighbours)


def test_bad_radii_are_refused():
    classifier = RadiusClassifier.fit(GOOD, np.arange(60) % 3, 3)
    with pytest.raises(ValueError, match="1 are not finite"):
        classifier.predict_probabilities(np.array([0.8, np.inf]))
