"""Errors from blocks: coverage of known truths; the floor of a distance."""

import functools
import itertools
from typing import Any

import numpy as np
import pytest

from lensjax.metrics.frechet import Moments, frechet_distance
from lensjax.metrics.intervals import Floor, block_interval, disjoint_sets, frechet_floor

REPEATS = 250
COUNT = 200
# A statistic of exponential numbers with mean 1, its truth, and the standard error of 200.
STATISTICS: dict[str, Any] = {
    "mean": (np.mean, 1.0, COUNT**-0.5),
    "median": (np.median, np.log(2), COUNT**-0.5),
    "root": (lambda x: np.sqrt(np.mean(x**2)), 2**0.5, (20 / 8 / COUNT) ** 0.5),
}


@functools.cache
def intervals(num_blocks: int, statistic: str, confidence: float) -> np.ndarray:
    """The interval of each of many draws, `[REPEATS, 4]`."""
    function = STATISTICS[statistic][0]
    found = []
    for seed in range(REPEATS):
        data = np.random.default_rng(seed).exponential(size=COUNT)

        def score(places: np.ndarray, data: np.ndarray = data) -> float:
            return function(data[places])

        settings: dict[str, Any] = {
            "num_blocks": num_blocks,
            "confidence": confidence,
            "seed": seed,
        }
        found.append(block_interval(score, COUNT, **settings))
    return np.array(found)


@pytest.mark.parametrize("confidence", [0.68, 0.95])
@pytest.mark.parametrize(("num_blocks", "statistic"), list(itertools.product([10, 4], STATISTICS)))
def test_intervals_cover_the_truth_as_often_as_they_say(num_blocks, statistic, confidence):
    values, errors, low, high = intervals(num_blocks, statistic, confidence).T
    _, truth, error = STATISTICS[statistic]
    covered = np.mean((low < truth) & (truth < high))
    assert covered == pytest.approx(confidence, abs=0.08)
    assert values.std(ddof=1) == pytest.approx(error, rel=0.15)
    assert np.sqrt(np.mean(errors**2)) == pytest.approx(error, rel=0.15)
    assert (low < values).all()
    assert (values < high).all()


@pytest.mark.parametrize("num_blocks", [10, 4])
def test_blocks_share_no_image_and_a_faster_rate_shrinks_the_error(num_blocks):
    data, seen = np.random.default_rng(0).exponential(size=COUNT), []

    def statistic(places):
        seen.append(places)
        return data[places].mean()

    slow, fast = (
        block_interval(statistic, COUNT, num_blocks=num_blocks, rate=rate) for rate in (0.5, 1.0)
    )
    assert fast.error / slow.error == pytest.approx(num_blocks**-0.5, rel=1e-9)
    assert fast.value == slow.value == data.mean()
    assert len(seen) == 2 * (num_blocks + 1)
    np.testing.assert_array_equal(np.sort(np.concatenate(seen[:num_blocks])), np.arange(COUNT))


@pytest.mark.parametrize("confidence", [0.0, 1.0, -1.0])
def test_numbers_that_are_not_allowed_are_refused(confidence):
    with pytest.raises(ValueError, match="confidence"):
        block_interval(len, 20, confidence=confidence)


def test_too_few_images_are_refused():
    with pytest.raises(ValueError, match="10 blocks for 9 images"):
        block_interval(len, 9)
    with pytest.raises(ValueError, match="num_blocks: got 1"):
        block_interval(len, 9, num_blocks=1)


def test_floor_is_mean_and_deviation_of_the_distances():
    random = np.random.default_rng(0)
    reference, *sets = (Moments.of(random.normal(size=(100, 3))) for _ in range(7))
    floor = frechet_floor(reference, iter(sets))
    distances = [frechet_distance(reference, one) for one in sets]
    logs = np.log(distances)
    numbers = np.mean(distances), np.std(distances, ddof=1), 6, np.mean(logs), np.std(logs, ddof=1)
    assert floor == pytest.approx(numbers)
    assert floor.ratio(3 * floor.mean) == pytest.approx(3)
    assert floor.z(floor.mean + 2 * floor.deviation) == pytest.approx(2)


def test_floor_without_spread_or_height_says_infinite():
    floor = Floor(0.0, 0.0, 2, np.log(1e-300), 0.0)
    assert floor.ratio(1.0) == np.inf
    assert floor.z(1.0) == np.inf
    assert floor.z(-1.0) == -np.inf
    assert (floor.p(1.0), floor.p(0.0)) == (0.0, 0.5)


@pytest.mark.parametrize("num_sets", [2, 3, 6])
def test_one_more_set_of_real_images_is_beyond_the_limit_as_often_as_the_level_says(num_sets):
    """Distances of which the logarithm is normal, for which Student's t is exact."""
    random = np.random.default_rng(num_sets)
    draws = np.exp(random.normal(1.0, 0.4, size=(4_000, num_sets + 1)))
    floors = [
        Floor(
            row.mean(),
            row.std(ddof=1),
            num_sets,
            np.log(row).mean(),
            np.log(row).std(ddof=1),
        )
        for row in draws[:, 1:]
    ]
    p = np.array([floor.p(value) for floor, value in zip(floors, draws[:, 0], strict=True)])
    for level in (0.01, 0.1, 0.5):
        assert abs(np.mean(p < level) - level) < 4 * np.sqrt(level / len(p))
    beyond = [
        floor.z(value) > floor.limit(0.01) for floor, value in zip(floors, draws[:, 0], strict=True)
    ]
    np.testing.assert_array_equal(beyond, p < 0.01)


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


def test_sets_may_have_other_numbers_of_each_class():
    labels = np.repeat([0, 1, 2], [30, 40, 31])
    sets = disjoint_sets(labels, {0: 2, 2: 7}, 4)
    assert [np.bincount(labels[places], minlength=3).tolist() for places in sets] == [[2, 0, 7]] * 4
    assert len(np.unique(np.concatenate(sets))) == 4 * 9


def test_too_few_images_of_a_class_make_no_disjoint_sets():
    with pytest.raises(ValueError, match="class 1 has 5 images; 6 disjoint sets of 1 need 6"):
        disjoint_sets(np.repeat([0, 1], [9, 5]), 1)
