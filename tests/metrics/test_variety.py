"""Twins: none among fresh images, all of them in a collapsed set."""

import numpy as np
import pytest

from lensjax.metrics.variety import twin_test


def fresh(num, seed, side=8):
    return np.random.default_rng(seed).gamma(2.0, 1.0, (num, side, side)).astype(np.float32)


@pytest.mark.parametrize(("num", "distinct"), [(40, 10), (100, 10), (40, 20), (200, 10)])
def test_a_collapsed_set_is_all_twins(num, distinct):
    result = twin_test(np.resize(fresh(distinct, 0), (num, 8, 8)), fresh(num, 1))
    assert result.num_twins == num
    assert result.p_value == 0.5 ** (num // 2)
    assert result.nearest_distance == 0
    assert result.real_nearest_distance > 0


def test_near_repetitions_are_twins_as_well():
    images = np.resize(fresh(10, 0), (60, 8, 8)) + 0.01 * fresh(60, 2)
    assert twin_test(images, fresh(60, 1)).num_twins == 60


def test_false_alarms_are_as_rare_as_they_claim():
    p_values = np.array(
        [twin_test(fresh(30, 2 * s), fresh(30, 2 * s + 1)).p_value for s in range(300)]
    )
    for level in (0.5, 0.25, 0.125):
        expected = (
            level  # of the sets that have the nearest pair, half have the next one, and so on
        )
        assert np.mean(p_values <= level) < expected + 4 * np.sqrt(expected / 300)
    assert p_values.min() > 1e-3


def test_a_few_copies_of_one_image_are_found():
    images = fresh(100, 0)
    images[:24] = images[0]
    result = twin_test(images, fresh(100, 1))
    assert 24 <= result.num_twins <= 30  # and a pair or two by chance
    assert result.p_value <= 0.5**12


def test_as_many_of_either_side_are_compared():
    assert twin_test(fresh(50, 0), fresh(20, 1)).num_images == 20
    assert twin_test(fresh(20, 0), fresh(50, 1)).num_images == 20


@pytest.mark.parametrize(
    "shapes", [((2, 8, 8), (9, 8, 8)), ((9, 8, 8), (2, 8, 8)), ((9, 8, 8), (9, 8, 9))]
)
def test_too_few_images_and_other_sizes_are_refused(shapes):
    one, other = (np.ones(shape, np.float32) for shape in shapes)
    with pytest.raises(ValueError, match=r"allowed: at least 3 of each, .* same size"):
        twin_test(one, other)
