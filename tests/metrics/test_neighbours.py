"""Precision, recall, density and coverage against naive loops and closed cases."""

import itertools

import numpy as np
import pytest

from lensjax.metrics import neighbours
from lensjax.metrics.neighbours import manifold_scores


def draw(count: int, size: int, seed: int, shift: float = 0.0) -> np.ndarray:
    return shift + np.random.default_rng(seed).normal(size=(count, size))


def naive(real, generated, precision_k, density_k):
    def radius(points, i, k):
        return sorted(np.linalg.norm(points[i] - p) for j, p in enumerate(points) if j != i)[k - 1]

    def inside(points, centres, k):
        radii = [radius(centres, i, k) for i in range(len(centres))]
        return np.array(
            [
                [np.linalg.norm(p - c) <= r for c, r in zip(centres, radii, strict=True)]
                for p in points
            ]
        )

    realism = inside(generated, real, precision_k)
    variety = inside(real, generated, precision_k)
    balls = inside(generated, real, density_k)
    return (
        realism.any(axis=1).mean(),
        variety.any(axis=1).mean(),
        balls.sum() / (density_k * len(generated)),
        balls.any(axis=0).mean(),
    )


@pytest.mark.parametrize(
    ("counts", "size", "ks", "chunk"),
    list(
        itertools.product(
            [(30, 30), (41, 17), (17, 41)], [1, 2, 24], [(3, 5), (1, 1), (6, 2)], [7, 1024]
        )
    ),
)
def test_scores_are_those_of_naive_loops(monkeypatch, counts, size, ks, chunk):
    monkeypatch.setattr(neighbours, "_CHUNK", chunk)
    real, generated = draw(counts[0], size, 1), draw(counts[1], size, 2, 0.4)
    found = manifold_scores(real, generated, precision_k=ks[0], density_k=ks[1])
    assert found == pytest.approx(naive(real, generated, *ks), abs=1e-12)


@pytest.mark.parametrize("offset", [0.0, 1e4])
@pytest.mark.parametrize("size", [2, 64])
def test_identical_sets_score_full_marks(size, offset):
    """A ball that ends at the k-th neighbour holds k others and its own centre."""
    features = draw(100, size, 0, offset)
    found = manifold_scores(features, features.copy())
    assert found[:2] == (1.0, 1.0)
    assert found.coverage == 1.0
    assert found.density == pytest.approx(6 / 5, abs=1e-12)


def test_equal_distributions_score_high():
    found = manifold_scores(draw(800, 4, 0), draw(800, 4, 1))
    assert found.precision > 0.9
    assert found.recall > 0.9
    assert found.density == pytest.approx(1.0, abs=0.1)
    # 1 - (1/2)^k for as many images of either set (Naeem et al., equation 11).
    assert found.coverage == pytest.approx(1 - 0.5**5, abs=0.02)


@pytest.mark.parametrize("offset", [0.0, 1e3])
def test_copies_are_at_distance_nothing_in_spite_of_rounding(offset):
    """Sets of ten copies each: every ball has radius 0 and holds its copies alone."""
    points = draw(12, 300, 0, offset)
    real = np.repeat(points, 10, axis=0)
    found = manifold_scores(real, np.repeat(points[:6], 10, axis=0))
    assert found == pytest.approx((1.0, 0.5, 10 / 5, 0.5))


def test_scores_do_not_change_with_the_units_or_a_common_shift():
    real, generated = draw(80, 5, 0), draw(90, 5, 1, 0.5)
    expected = manifold_scores(real, generated)
    assert manifold_scores(1e-3 * real, 1e-3 * generated) == expected
    assert manifold_scores(real - 7, generated - 7) == expected


@pytest.mark.parametrize(("n", "m", "ks"), [(5, 9, (3, 5)), (9, 5, (3, 5)), (3, 9, (3, 1))])
def test_too_few_images_for_the_neighbours_are_refused(n, m, ks):
    with pytest.raises(ValueError, match=f"got {n} real and {m} generated"):
        manifold_scores(draw(n, 2, 0), draw(m, 2, 1), precision_k=ks[0], density_k=ks[1])


def test_no_neighbour_is_refused():
    with pytest.raises(ValueError, match="precision_k: got 0; allowed: an integer of at least 1"):
        manifold_scores(draw(9, 2, 0), draw(9, 2, 1), precision_k=0)


def test_other_features_and_nan_are_refused():
    with pytest.raises(ValueError, match="3 features"):
        manifold_scores(draw(10, 2, 0), draw(10, 3, 1))
    with pytest.raises(ValueError, match="10 of 10 images"):
        manifold_scores(draw(10, 2, 0), np.full((10, 2), np.inf))
