"""Errors from blocks and subsamples: coverage of known truths; the floor of a distance."""

import functools
import itertools
from typing import Any

import numpy as np
import pytest

from lensjax.metrics.frechet import Moments, frechet_distance
from lensjax.metrics.intervals import (
    Floor,
    block_interval,
    disjoint_sets,
    frechet_floor,
    subsample_interval,
)

REPEATS = 250
COUNT = 200
METHODS: dict[str, Any] = {
    "blocks": functools.partial(block_interval, num_blocks=10),
    "few blocks": functools.partial(block_interval, num_blocks=4),
    "subsamples": functools.partial(subsample_interval, size=20, num_subsamples=60),
    "large subsamples": functools.partial(subsample_interval, size=100, num_subsamples=60),
}
# A statistic of exponential numbers with mean 1, its truth, and the standard error of 200.
STATISTICS: dict[str, Any] = {
    "mean": (np.mean, 1.0, COUNT**-0.5),
    "median": (np.median, np.log(2), COUNT**-0.5),
    "root": (lambda x: np.sqrt(np.mean(x**2)), 2**0.5, (20 / 8 / COUNT) ** 0.5),
}


@functools.cache
def intervals(method: str, statistic: str, confidence: float) -> np.ndarray:
    """The interval of each of many draws, `[REPEATS, 4]`."""
    function = STATISTICS[statistic][0]
    found = []
    for seed in range(REPEATS):
        data = np.random.default_rng(seed).exponential(size=COUNT)
        call = functools.partial(METHODS[method], confidence=confidence, seed=seed)
        found.append(call(lambda places, data=data: function(data[places]), COUNT))
    return np.array(found)


@pytest.mark.parametrize("confidence", [0.68, 0.95])
@pytest.mark.parametrize(("method", "statistic"), list(itertools.product(METHODS, STATISTICS)))
def test_intervals_cover_the_truth_as_often_as_they_say(method, statistic, confidence):
    _, _, low, high = intervals(method, statistic, confidence).T
    truth = STATISTICS[statistic][1]
    covered = np.mean((low < truth) & (truth < high))
    assert covered == pytest.approx(confidence, abs=0.08)


@pytest.mark.parametrize(("method", "statistic"), list(itertools.product(METHODS, STATISTICS)))
def test_error_is_the_spread_of_the_value(method, statistic):
    values, errors, low, high = intervals(method, statistic, 0.95).T
    expected = STATISTICS[statistic][2]
    assert values.std(ddof=1) == pytest.approx(expected, rel=0.15)
    assert np.sqrt(np.mean(errors**2)) == pytest.approx(expected, rel=0.15)
    assert (low < values).all()
    assert (values < high).all()


@pytest.mark.parametrize("method", METHODS)
def test_a_faster_rate_shrinks_the_error_by_the_right_factor(method):
    data = np.random.default_rng(0).exponential(size=COUNT)

    def statistic(places):
        return data[places].mean()

    slow, fast = (METHODS[method](statistic, COUNT, rate=rate) for rate in (0.5, 1.0))
    share = {"blocks": 1 / 10, "few blocks": 1 / 4, "subsamples": 0.1, "large subsamples": 0.5}
    assert fast.error / slow.error == pytest.approx(share[method] ** 0.5, rel=1e-9)
    assert fast.value == slow.value


@pytest.mark.parametrize("method", METHODS)
def test_images_are_never_repeated(method):
    seen = []

    def statistic(places):
        seen.append(places)
        return float(places[0])

    METHODS[method](statistic, COUNT)
    assert all(len(np.unique(places)) == len(places) for places in seen)
    if "blocks" in method:
        assert sorted(np.concatenate(seen[:-1])) == list(range(COUNT))
    else:
        assert {len(places) for places in seen[:-1]} == {METHODS[method].keywords["size"]}
    assert len(seen[-1]) == COUNT


@pytest.mark.parametrize("confidence", [0.0, 1.0, -1.0])
def test_numbers_that_are_not_allowed_are_refused(confidence):
    def mean(places):
        return float(places.mean())

    with pytest.raises(ValueError, match="confidence"):
        block_interval(mean, 20, confidence=confidence)
    with pytest.raises(ValueError, match="confidence"):
        subsample_interval(mean, 20, size=5, confidence=confidence)


def test_too_few_images_are_refused():
    with pytest.raises(ValueError, match="10 blocks of 9 images"):
        block_interval(len, 9)
    with pytest.raises(ValueError, match="num_blocks: got 1"):
        block_interval(len, 9, num_blocks=1)
    with pytest.raises(ValueError, match="num_subsamples: got 1"):
        subsample_interval(len, 9, size=3, num_subsamples=1)
    for size in (0, 9, 10):
        with pytest.raises(ValueError, match=f"subsamples of {size} of 9 images"):
            subsample_interval(len, 9, size=size)


def test_floor_is_mean_and_deviation_of_the_distances():
    random = np.random.default_rng(0)
    reference, *sets = (Moments.of(random.normal(size=(100, 3))) for _ in range(7))
    floor = frechet_floor(reference, iter(sets))
    distances = [frechet_distance(reference, one) for one in sets]
    assert floor == pytest.approx((np.mean(distances), np.std(distances, ddof=1), 6))
    assert floor.ratio(3 * floor.mean) == pytest.approx(3)
    assert floor.z(floor.mean + 2 * floor.deviation) == pytest.approx(2)


def test_floor_without_spread_or_height_says_infinite():
    floor = Floor(0.0, 0.0, 2)
    assert floor.ratio(1.0) == np.inf
    assert floor.z(1.0) == np.inf
    assert floor.z(-1.0) == -np.inf


def test_one_set_makes_no_floor():
    moments = Moments.of(np.random.default_rng(0).normal(size=(9, 3)))
    with pytest.raises(ValueError, match=r"got 1 set\(s\)"):
        frechet_floor(moments, [moments])


@pytest.mark.parametrize(("per_class", "num_sets"), [(1, 6), (5, 6), (15, 2)])
def test_disjoint_sets_share_nothing_and_hold_as_many_of_each_class(per_class, num_sets):
    labels = np.random.default_rng(0).permutation(np.repeat([0, 1, 2], [30, 40, 31]))
    sets = disjoint_sets(labels, per_class, num_sets)
    assert len(sets) == num_sets
    for places in sets:
        np.testing.assert_array_equal(np.bincount(labels[places]), [per_class] * 3)
    together = np.concatenate(sets)
    assert len(np.unique(together)) == len(together)
    again = disjoint_sets(labels, per_class, num_sets)
    np.testing.assert_array_equal(together, np.concatenate(again))
    other = np.concatenate(disjoint_sets(labels, per_class, num_sets, seed=1))
    assert not np.array_equal(together, other)


def test_too_few_images_of_a_class_make_no_disjoint_sets():
    with pytest.raises(ValueError, match="class 1 has 5 images; 6 disjoint sets of 1 need 6"):
        disjoint_sets(np.repeat([0, 1], [9, 5]), 1)
