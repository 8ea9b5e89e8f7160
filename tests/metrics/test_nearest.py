"""Nearest images by blocks, against every pair computed one by one."""

import numpy as np
import pytest

from lensjax.metrics import nearest
from lensjax.metrics.nearest import nearest_images


def by_pairs(queries, references, num, own=None):
    """Distances of unit vectors in float64, sorted."""
    distances = np.empty((len(queries), len(references)))
    for i, query in enumerate(queries.astype(np.float64)):
        for j, reference in enumerate(references.astype(np.float64)):
            one, other = query / np.linalg.norm(query), reference / np.linalg.norm(reference)
            distances[i, j] = np.linalg.norm(one - other) if own is None or own[i] != j else np.inf
    places = np.argsort(distances, axis=1)[:, :num]
    return np.take_along_axis(distances, places, axis=1), places


@pytest.fixture(params=[(3, 4), (7, 1), (100, 100)], ids=str)
def _blocks(request, monkeypatch):
    monkeypatch.setattr(nearest, "_QUERY_BLOCK", request.param[0])
    monkeypatch.setattr(nearest, "_REFERENCE_BLOCK", request.param[1])


@pytest.mark.usefixtures("_blocks")
@pytest.mark.parametrize("num", [1, 2, 3])
@pytest.mark.parametrize("shape", [(5, 4), (3, 4, 2)])
@pytest.mark.parametrize("with_own", [False, True])
def test_it_finds_what_all_pairs_give(num, shape, with_own):
    random = np.random.default_rng(0)
    queries, references = (random.normal(size=(n, *shape)).astype("f") for n in (10, 13))
    own = random.integers(13, size=10) if with_own else None
    flat = (queries.reshape(10, -1), references.reshape(13, -1))
    distances, places = by_pairs(*flat, num, own)
    found = nearest_images(queries, references, num, own)
    np.testing.assert_array_equal(found.place, places)
    np.testing.assert_allclose(found.distance, distances, rtol=1e-5)


def test_a_copy_has_the_distance_zero_and_a_factor_does_not_count():
    images = np.random.default_rng(1).random((50, 16, 16), np.float32)
    found = nearest_images(images[:7], images)
    assert found.place[:, 0].tolist() == list(range(7))
    assert not found.distance.any()
    brighter = nearest_images(np.float32(3.7) * images[:7], images)
    assert brighter.place[:, 0].tolist() == list(range(7))
    assert brighter.distance.max() < 1e-6


def test_black_images_are_not_near_anything():
    images = np.random.default_rng(1).random((5, 4, 4), np.float32)
    found = nearest_images(np.zeros((1, 4, 4), np.float32), images)
    assert found.distance[0, 0] == pytest.approx(1)


@pytest.mark.parametrize(
    ("queries", "references", "num", "own"),
    [
        ((2, 4, 4), (3, 4, 5), 1, False),
        ((2, 4, 4), (0, 4, 4), 1, False),
        ((2, 4, 4), (1, 4, 4), 2, False),
        ((1, 4, 4), (1, 4, 4), 1, True),
    ],
)
def test_what_does_not_fit_is_refused(queries, references, num, own):
    one, other = np.ones(queries, np.float32), np.ones(references, np.float32)
    with pytest.raises(ValueError, match=r"allowed: at least \d references of the same size"):
        nearest_images(one, other, num, np.zeros(queries[0], int) if own else None)
