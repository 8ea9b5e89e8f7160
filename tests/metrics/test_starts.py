"""Grids of starts: against differences written out and against loops."""

import jax.numpy as jnp
import numpy as np
import pytest

from lensjax.metrics import starts

RANDOM = np.random.default_rng(3)


def test_position_grid_covers_the_prior():
    grid = np.asarray(starts.position_grid(5))
    assert grid.shape == (25, 2)
    np.testing.assert_allclose(grid.min(axis=0), -0.35)
    np.testing.assert_allclose(grid.max(axis=0), 0.35)
    assert len(np.unique(grid, axis=0)) == 25


@pytest.mark.parametrize("free_amplitude", [False, True])
def test_costs_are_those_of_the_differences(free_amplitude):
    images, candidates = RANDOM.random((4, 6, 6)), RANDOM.random((7, 6, 6))
    costs = starts.candidate_costs(jnp.asarray(images), jnp.asarray(candidates), free_amplitude)
    for i, image in enumerate(images):
        for j, candidate in enumerate(candidates):
            factor = np.sum(image * candidate) / np.sum(candidate**2) if free_amplitude else 1.0
            expected = np.sum((image - factor * candidate) ** 2)
            assert costs[i, j] + np.sum(image**2) == pytest.approx(expected, abs=1e-4)


def test_an_amplitude_is_not_negative():
    image = jnp.ones((1, 3, 3))
    costs = starts.candidate_costs(image, -image, True)
    assert costs[0, 0] == 0


@pytest.mark.parametrize("periodic", [False, True])
@pytest.mark.parametrize("shape", [(1, 4), (5, 6), (7, 3)])
def test_minima_by_a_loop(periodic, shape):
    costs = RANDOM.random((20, *shape))
    found = starts.local_minima(costs, 4, periodic=periodic)
    for table, indices in zip(costs, found, strict=True):
        lowest: list[tuple[float, int]] = []
        others: list[tuple[float, int]] = []
        for row in range(shape[0]):
            for column in range(shape[1]):
                around = []
                for i in range(max(row - 1, 0), min(row + 2, shape[0])):
                    for j in range(column - 1, column + 2):
                        if periodic:
                            around.append(table[i, j % shape[1]])
                        elif 0 <= j < shape[1]:
                            around.append(table[i, j])
                is_minimum = table[row, column] <= min(around)
                (lowest if is_minimum else others).append(
                    (table[row, column], row * shape[1] + column)
                )
        expected = [index for _, index in sorted(lowest) + sorted(others)][:4]
        assert indices.tolist() == expected


def test_starts_hold_positions_and_constants():
    begin = starts.starts_from(np.array([0.1, 0.2]), np.array([0.3, 0.4]), np.array([5.0, 6, 7]), 2)
    assert begin.shape == (2, 1, 5)
    np.testing.assert_allclose(begin[1, 0], [0.2, 0.4, 5, 6, 7])


def test_starts_of_other_images_are_refused():
    with pytest.raises(ValueError, match="smooth holds 3 fits for 2 images"):
        starts.starts_from(np.zeros(3), np.zeros(3), np.zeros(1), 2)
