"""Scores of classifiers: pair counts, sums by hand, and temperatures that are known."""

import json
import math

import numpy as np
import pytest

from lensjax.metrics import classification
from lensjax.metrics.classification import (
    MAX_POINTS,
    TEMPERATURE_LIMITS,
    fit_temperature,
    reliability,
    roc_curves,
    score,
    softmax,
)

NAMES = ("axion", "cdm", "no_sub")


def drawn(num_classes: int, count: int, seed: int = 0, scale: float = 1.5):
    """Logits, and labels drawn from their softmax: these probabilities are the truth."""
    random = np.random.default_rng(seed)
    logits = random.normal(scale=scale, size=(count, num_classes))
    shifted = logits + random.gumbel(size=logits.shape)
    return logits, shifted.argmax(axis=1)


def exact_softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def pairs_won(labels: np.ndarray, values: np.ndarray, label: int) -> float:
    """Mann and Whitney: share of pairs where the image of the class has the larger value."""
    own, others = values[labels == label], values[labels != label]
    difference = own[:, None] - others[None, :]
    return float(np.mean((difference > 0) + 0.5 * (difference == 0)))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("digits", [None, 1])  # one digit: most values are tied
@pytest.mark.parametrize("num_classes", [2, 3, 8])
def test_areas_are_shares_of_pairs(num_classes, digits, dtype):
    logits, labels = drawn(num_classes, 400)
    values = exact_softmax(logits)
    if digits is not None:
        values = np.round(values, digits)
        values[:, -1] += 1 - values.sum(axis=1)
        values = np.maximum(values, 0)
        values /= values.sum(axis=1, keepdims=True)
    values = values.astype(dtype)
    names = [str(label) for label in range(num_classes)]
    scores = score(labels, values, names)
    expected = [pairs_won(labels, values[:, label], label) for label in range(num_classes)]
    np.testing.assert_allclose(scores.auc, expected, rtol=1e-12)
    assert scores.macro_auc == pytest.approx(np.mean(expected))
    for curve, area in zip(roc_curves(labels, values), expected, strict=True):
        assert curve.auc == pytest.approx(area)


@pytest.mark.parametrize("num_classes", [2, 3, 8])
def test_counts_and_losses_by_loop(num_classes):
    logits, labels = drawn(num_classes, 500, seed=1)
    values = exact_softmax(logits)
    scores = score(labels, values, [str(label) for label in range(num_classes)])
    confusion = np.zeros((num_classes, num_classes), int)
    for label, row in zip(labels, values, strict=True):
        confusion[label, row.argmax()] += 1
    np.testing.assert_array_equal(scores.confusion, confusion)
    right = np.trace(confusion)
    assert scores.num_images == 500
    assert scores.accuracy == right / 500
    assert scores.accuracy_error == pytest.approx(
        math.sqrt(right * (500 - right) / 500**3), rel=0.01
    )
    np.testing.assert_allclose(scores.recall, np.diag(confusion) / np.bincount(labels))
    losses = [-math.log(row[label]) for label, row in zip(labels, values, strict=True)]
    assert scores.log_loss == pytest.approx(np.mean(losses))


def test_perfect_and_useless_probabilities():
    labels = np.array([0, 1, 2, 2])
    perfect = score(labels, np.eye(3)[labels], NAMES)
    assert (perfect.accuracy, perfect.macro_auc, perfect.ece) == (1.0, 1.0, 0.0)
    assert perfect.log_loss == pytest.approx(0, abs=1e-12)
    assert perfect.accuracy_error > 0
    wrong = score(labels, np.eye(3)[(labels + 1) % 3], NAMES)
    assert (wrong.accuracy, wrong.ece) == (0.0, 1.0)
    assert wrong.log_loss == pytest.approx(-math.log(np.finfo(np.float64).eps))
    even = score(labels, np.full((4, 3), 1 / 3), NAMES)
    np.testing.assert_allclose(even.auc, 0.5)
    assert even.log_loss == pytest.approx(math.log(3))


def test_probabilities_that_nearly_sum_to_one_count_as_if_they_did():
    logits, labels = drawn(3, 200)
    values = exact_softmax(logits)
    exact, near = (score(labels, values * factor, NAMES) for factor in (1.0, 1.0005))
    assert near.log_loss == pytest.approx(exact.log_loss)
    assert near.accuracy == exact.accuracy


def test_a_class_without_images_has_no_area_and_leaves_the_mean():
    logits, labels = drawn(3, 300)
    kept = labels != 1
    labels, values = labels[kept], exact_softmax(logits[kept])
    scores = score(labels, values, NAMES)
    assert np.isnan(scores.auc[1])
    assert np.isnan(scores.recall[1])
    assert scores.macro_auc == pytest.approx((scores.auc[0] + scores.auc[2]) / 2)
    curves = roc_curves(labels, values)
    assert len(curves[1].true_positive_rate) == 0
    assert np.isnan(curves[1].auc)
    described = scores.to_dict()
    assert described["auc"]["cdm"] is None
    assert described["recall"]["cdm"] is None


def test_dictionary_is_json_and_names_the_classes():
    logits, labels = drawn(3, 300)
    scores = score(labels, exact_softmax(logits).astype(np.float32), NAMES)
    described = scores.to_dict()
    assert json.loads(json.dumps(described, allow_nan=False)) == described
    assert list(described) == list(scores._fields)
    assert described["recall"] == dict(zip(NAMES, scores.recall.tolist(), strict=True))
    assert described["confusion"] == scores.confusion.tolist()
    assert described["class_names"] == list(NAMES)


@pytest.mark.parametrize("count", [50, 20_000])
def test_curves_are_short_and_keep_their_shape(count):
    logits, labels = drawn(3, count)
    values = exact_softmax(logits)
    for label, curve in enumerate(roc_curves(labels, values)):
        x, y = curve.false_positive_rate, curve.true_positive_rate
        assert len(x) == len(y) <= MAX_POINTS
        assert (x[0], y[0], x[-1], y[-1]) == (0, 0, 1, 1)
        assert (np.diff(x) >= 0).all()
        assert (np.diff(y) >= 0).all()
        assert np.trapezoid(y, x) == pytest.approx(curve.auc, abs=2e-3)
        # Each point is that of a threshold: as many images above it as the rates say.
        own, others = values[labels == label, label], values[labels != label, label]
        for place in np.linspace(0, len(x) - 1, 9).astype(int):
            threshold = np.sort(own)[::-1][max(round(y[place] * len(own)) - 1, 0)]
            above = np.sum(others > threshold), np.sum(others >= threshold)
            assert place == 0 or above[0] <= round(x[place] * len(others))


def test_reliability_by_hand():
    """Confidences .9, .9, .75, .6, .6 of which the 1st, 3rd and 4th are right, in bins of 1/5."""
    confidence = np.array([0.9, 0.9, 0.75, 0.6, 0.6])
    values = np.column_stack([confidence, 1 - confidence])
    labels = np.array([0, 1, 0, 0, 1])
    found = reliability(labels, values, num_bins=5)
    np.testing.assert_array_equal(found.num_images, [0, 0, 2, 1, 2])
    np.testing.assert_allclose(found.confidence, [np.nan, np.nan, 0.6, 0.75, 0.9])
    np.testing.assert_allclose(found.accuracy, [np.nan, np.nan, 0.5, 1.0, 0.5])
    assert found.ece == pytest.approx((2 * 0.1 + 1 * 0.25 + 2 * 0.4) / 5)


@pytest.mark.parametrize("num_bins", [1, 10, 15])
def test_truthful_probabilities_are_reliable_and_sharper_ones_are_not(num_bins):
    logits, labels = drawn(3, 40_000)
    truthful = reliability(labels, exact_softmax(logits), num_bins)
    assert truthful.num_images.sum() == len(labels)
    assert truthful.ece < 0.01
    assert reliability(labels, exact_softmax(3 * logits), num_bins).ece > 0.1


def test_score_has_the_reliability_of_fifteen_bins():
    logits, labels = drawn(3, 500)
    values = exact_softmax(2 * logits)
    assert score(labels, values, NAMES).ece == reliability(labels, values, 15).ece


@pytest.mark.parametrize("num_classes", [2, 3, 8])
@pytest.mark.parametrize("factor", [0.2, 1.0, 3.0, 10.0])
def test_the_temperature_of_known_logits_is_found(factor, num_classes):
    logits, labels = drawn(num_classes, 20_000, seed=2)
    temperature = fit_temperature(factor * logits, labels)
    # The score of 1/T at the truth has this variance: the mean variance of the logits under p.
    values = exact_softmax(logits)
    mean = np.sum(values * logits, axis=1)
    information = np.sum(np.sum(values * logits**2, axis=1) - mean**2)
    assert temperature / factor == pytest.approx(1, abs=4 / math.sqrt(information))


def test_the_temperature_is_a_minimum_of_the_log_loss():
    logits, labels = drawn(3, 500, seed=3)
    logits = 5 * logits
    best = fit_temperature(logits, labels)
    losses = [
        score(labels, exact_softmax(logits / (best * factor)), NAMES).log_loss
        for factor in (0.98, 1.0, 1.02)
    ]
    assert losses[1] < min(losses[0], losses[2])


@pytest.mark.parametrize(("right", "end"), [(True, 0), (False, 1)])
def test_logits_that_are_always_right_or_wrong_end_at_a_limit(right, end):
    labels = np.arange(30) % 3
    logits = np.eye(3)[labels] * (1 if right else -1)
    assert fit_temperature(logits, labels) == pytest.approx(TEMPERATURE_LIMITS[end], rel=1e-4)


def test_temperature_does_not_depend_on_a_shift_or_on_the_order():
    logits, labels = drawn(3, 500, seed=3)
    shift = np.random.default_rng(0).normal(size=(500, 1), scale=100)
    order = np.random.default_rng(1).permutation(500)
    expected = fit_temperature(logits, labels)
    assert fit_temperature((logits + shift)[order], labels[order]) == pytest.approx(expected)


@pytest.mark.parametrize("temperature", [0.05, 1.0, 7.0])
def test_softmax_is_exact_and_does_not_overflow(temperature):
    logits = np.random.default_rng(0).normal(size=(20, 3), scale=3)
    found = softmax(logits.astype(np.float32), temperature)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, exact_softmax(logits / temperature), rtol=1e-4, atol=1e-7)
    huge = softmax(np.array([[1e5, 0.0], [-1e30, 1e30]]), temperature)
    np.testing.assert_array_equal(huge, [[1, 0], [0, 1]])


GOOD = np.full((4, 3), 1 / 3)
LABELS = np.array([0, 1, 2, 0])


@pytest.mark.parametrize(
    ("labels", "values", "message"),
    [
        (LABELS, GOOD[0], r"shape \(3,\)"),
        (LABELS, GOOD[:, :1], "K at least 2"),
        (LABELS[:0], GOOD[:0], "N at least 1"),
        (LABELS[:3], GOOD, r"integers \[4\]"),
        (LABELS[:, None], GOOD, r"integers \[4\]"),
        (LABELS.astype(float), GOOD, r"labels: got array.*; allowed: integers"),
        (LABELS + 1, GOOD, "go from 1 to 3; allowed: 0 to 2"),
        (LABELS - 1, GOOD, "go from -1 to 1"),
        (LABELS, np.where(np.eye(4, 3) > 0, np.nan, GOOD), "3 of 4 rows .* not finite"),
        (LABELS, GOOD * np.inf, "not finite"),
        (LABELS, GOOD * 1.002, "do not sum to 1"),
        (LABELS, GOOD * 4, "softmax first"),
        (LABELS, np.tile([-0.5, 0.5, 1.0], (4, 1)), "negative"),
    ],
)
@pytest.mark.parametrize("function", ["score", "roc_curves", "reliability"])
def test_bad_input_is_refused(function, labels, values, message):
    extra = [NAMES] if function == "score" else []
    with pytest.raises(ValueError, match=message):
        getattr(classification, function)(labels, values, *extra)


@pytest.mark.parametrize("function", ["score", "roc_curves"])
def test_one_class_alone_is_refused_with_the_reason(function):
    extra = [NAMES] if function == "score" else []
    with pytest.raises(ValueError, match=r"label 2; the area under a curve .* has no meaning"):
        getattr(classification, function)(np.full(4, 2), GOOD, *extra)


@pytest.mark.parametrize("names", [NAMES[:2], (*NAMES, "x"), ("a", "a", "b")])
def test_names_must_fit_the_columns(names):
    with pytest.raises(ValueError, match="3 different names"):
        score(LABELS, GOOD, names)


def test_bad_settings_are_refused():
    with pytest.raises(ValueError, match="num_bins: got 0"):
        reliability(LABELS, GOOD, 0)
    for temperature in (0.0, -1.0, math.nan, math.inf):
        with pytest.raises(ValueError, match="finite and above 0"):
            softmax(GOOD, temperature)
    with pytest.raises(ValueError, match="not finite"):
        softmax(GOOD * np.nan)
    with pytest.raises(ValueError, match="allowed: 0 to 2"):
        fit_temperature(GOOD, LABELS + 1)
    with pytest.raises(ValueError, match=r"logits have shape \(3,\)"):
        fit_temperature(GOOD[0], LABELS)
