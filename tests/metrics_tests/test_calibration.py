"""Temperature and softmax against what they are made to find."""

import numpy as np
import pytest
from scipy.special import log_softmax

from lensjax.metrics.calibration import fit_temperature, log_loss, softmax


def drawn(num: int = 4_000, classes: int = 3) -> tuple[np.ndarray, np.ndarray]:
    """Logits, and labels drawn from their own probabilities."""
    rng = np.random.default_rng(0)
    logits = rng.normal(0.0, 1.5, (num, classes))
    labels = (np.cumsum(softmax(logits), axis=1) < rng.random((num, 1))).sum(axis=1)
    return logits, np.minimum(labels, classes - 1)


@pytest.mark.parametrize("factor", [0.2, 1.0, 3.0])
def test_the_temperature_of_logits_too_large_by_a_factor_is_that_factor(factor):
    logits, labels = drawn()
    own = fit_temperature(logits, labels)
    assert own == pytest.approx(1, abs=0.1)
    assert fit_temperature(factor * logits, labels) == pytest.approx(factor * own, rel=1e-3)


def test_the_temperature_has_the_lowest_log_loss():
    logits, labels = drawn(400)
    found = fit_temperature(4 * logits, labels)
    losses = [log_loss(4 * logits, labels, found * change) for change in (0.97, 1.0, 1.03)]
    assert min(losses) == losses[1]


def test_temperatures_stay_within_bounds():
    labels = np.array([0, 1, 2])
    assert 0.05 <= fit_temperature(0.5 * np.eye(3), labels) < 0.06  # never wrong
    assert 19 < fit_temperature(500 * np.eye(3), labels[::-1]) <= 20  # nearly always wrong
    assert fit_temperature(np.full((3, 3), np.nan), labels) == 1


@pytest.mark.parametrize("temperature", [0.05, 1.0, 7.0])
def test_softmax_is_a_distribution_and_log_loss_its_logarithm(temperature):
    logits, labels = drawn(50)
    found = softmax(logits.astype(np.float32), temperature)
    assert found.dtype == np.float32
    expected = log_softmax(logits / temperature, axis=1)
    np.testing.assert_allclose(found, np.exp(expected), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(found.sum(axis=1), 1, rtol=1e-6)
    loss = -expected[np.arange(50), labels].mean()
    assert log_loss(logits, labels, temperature) == pytest.approx(loss, rel=1e-9)


def test_large_logits_and_no_rows():
    np.testing.assert_array_equal(softmax(np.array([[1e30, 0.0], [-1e30, 1e30]])), [[1, 0], [0, 1]])
    assert softmax(np.zeros((0, 3))).shape == (0, 3)
