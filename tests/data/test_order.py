"""Orders of an epoch: permutations, functions of seed and epoch."""

import concurrent.futures
import itertools

import jax
import numpy as np
import pytest

from lensjax import prng
from lensjax.data import order
from lensjax.data.order import whole_order


@pytest.mark.parametrize("num", [1, 2, 3, 7, 64, 65, 1000])
def test_each_example_stands_once(num):
    for seed, epoch in itertools.product((0, 5), (0, 3)):
        found = whole_order(seed, epoch, num)
        assert found.dtype == np.int32
        assert sorted(found.tolist()) == list(range(num))


def test_seeds_and_epochs_have_orders_of_their_own():
    found = [whole_order(seed, epoch, 200) for seed in range(3) for epoch in range(3)]
    assert len({tuple(one) for one in found}) == 9
    ranks = np.stack([np.argsort(one) for one in found])
    correlation = np.corrcoef(ranks) - np.eye(9)
    assert np.max(np.abs(correlation)) < 4.5 / np.sqrt(200)


def test_any_example_may_stand_anywhere():
    """Chi squared of places against examples, over many epochs."""
    num, epochs = 8, 2000
    counts = np.zeros((num, num))
    for epoch in range(epochs):
        counts[np.arange(num), whole_order(0, epoch, num)] += 1
    expected = epochs / num
    chi_squared = np.sum((counts - expected) ** 2 / expected)
    freedom = (num - 1) ** 2
    assert abs(chi_squared - freedom) < 5 * np.sqrt(2 * freedom)


def test_neighbours_part():
    """The distance of examples that follow each other is that of random pairs, N / 3."""
    num = 5000
    distance = np.mean(np.abs(np.diff(whole_order(0, 0, num).astype(int))))
    assert abs(distance / num - 1 / 3) < 5 * np.sqrt(1 / 18 / num)


def test_an_order_is_jaxs_permutation():
    expected = jax.random.permutation(prng.key(4, "data", 2), 300)
    np.testing.assert_array_equal(whole_order(4, 2, 300), expected)


def test_threads_that_ask_at_once_share_one_drawing():
    order._drawn.cache_clear()
    with concurrent.futures.ThreadPoolExecutor(8) as threads:
        orders = list(threads.map(lambda _: whole_order(9, 9, 2**16), range(8)))
    assert all(drawn is orders[0] for drawn in orders)
