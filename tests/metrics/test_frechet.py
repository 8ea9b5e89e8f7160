"""Moments in a stream and the distance between them, against closed forms and references."""

import itertools

import numpy as np
import pytest
import scipy.linalg
from run_support import DATA

from lensjax.metrics.frechet import Moments, few_images_warning, frechet_distance


def normal(count: int, size: int, seed: int = 0, mean: float = 0.0) -> np.ndarray:
    random = np.random.default_rng(seed)
    mixing = random.normal(size=(size, size))
    return mean + random.normal(size=(count, size)) @ mixing


def test_the_reference_values_come_out():
    with np.load(DATA / "frechet_parity.npz") as file:
        a, b = file["a"], file["b"]
        whole, part = float(file["frechet_ab"]), float(file["frechet_first40_first30"])
    assert frechet_distance(Moments.of(a), Moments.of(b)) == pytest.approx(whole, rel=1e-6)
    few = frechet_distance(Moments.of(a[:40]), Moments.of(b[:30]))
    assert few == pytest.approx(part, rel=1e-6)


@pytest.mark.parametrize(
    ("batch", "dtype", "mean"),
    list(itertools.product([1, 7, 64, 300], [np.float32, np.float64], [0.0, 1e4])),
)
def test_a_stream_gives_the_moments_of_the_whole(batch, dtype, mean):
    features = normal(300, 12, mean=mean).astype(dtype)
    moments = Moments()
    for start in range(0, 300, batch):
        moments.update(features[start : start + batch])
    exact = features.astype(np.float64)
    assert moments.count == 300
    np.testing.assert_allclose(moments.mean, exact.mean(axis=0), rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(
        moments.covariance, np.cov(exact, rowvar=False), rtol=1e-9, atol=1e-9
    )


def with_moments(mean: np.ndarray, covariance: np.ndarray) -> Moments:
    """Moments of given mean and covariance: two images at either end of each axis."""
    variances, axes = np.linalg.eigh(covariance)
    count = 2 * len(mean)
    ends = axes * np.sqrt(np.maximum(variances, 0) * (count - 1) / 2)
    return Moments.of(mean + np.concatenate([ends.T, -ends.T]))


def test_commuting_covariances_have_a_closed_form():
    """Sum of (sqrt(s1) - sqrt(s2))^2 along common axes, zeros among the variances."""
    random = np.random.default_rng(0)
    axes, _ = np.linalg.qr(random.normal(size=(20, 20)))
    s1, s2 = random.uniform(0, 3, 20), random.uniform(0, 3, 20)
    s1[:8], s2[5:12] = 0, 0
    mean = random.normal(size=20)
    a = with_moments(np.zeros(20), axes * s1 @ axes.T)
    b = with_moments(mean, axes * s2 @ axes.T)
    expected = np.sum(mean**2) + np.sum((np.sqrt(s1) - np.sqrt(s2)) ** 2)
    assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-12)


def test_full_ranks_agree_with_the_matrix_root_of_scipy():
    a, b = normal(400, 16, 1), normal(300, 16, 2)
    first, second = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    root = scipy.linalg.sqrtm(first @ second).real
    shift = np.sum((a.mean(axis=0) - b.mean(axis=0)) ** 2)
    expected = shift + np.trace(first + second - 2 * root)
    assert frechet_distance(Moments.of(a), Moments.of(b)) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("counts", list(itertools.product([2, 3, 40, 200], repeat=2)))
def test_distance_is_symmetric_not_negative_and_zero_of_a_set_to_itself(counts):
    a, b = Moments.of(normal(counts[0], 64, 1)), Moments.of(normal(counts[1], 64, 2))
    scale = np.trace(a.covariance + b.covariance)
    there, back = frechet_distance(a, b), frechet_distance(b, a)
    assert isinstance(there, float)
    assert there == pytest.approx(back, rel=1e-12)
    assert 0 <= frechet_distance(a, a) < 1e-12 * scale
    again = Moments.of(normal(counts[0], 64, 1)[::-1])
    assert 0 <= frechet_distance(a, again) < 1e-12 * scale


def test_two_images_each_have_a_closed_form():
    """Rank one each: the shared trace is |u . v| of the two half differences, times 2."""
    a, b = normal(2, 30, 1), normal(2, 30, 2)
    u, v = (a[0] - a[1]) / np.sqrt(2), (b[0] - b[1]) / np.sqrt(2)
    shift = np.sum((a.mean(axis=0) - b.mean(axis=0)) ** 2)
    expected = shift + u @ u + v @ v - 2 * abs(u @ v)
    assert frechet_distance(Moments.of(a), Moments.of(b)) == pytest.approx(expected, rel=1e-12)


def test_more_images_after_a_distance_change_it():
    a, b = Moments.of(normal(50, 6, 1)), Moments.of(normal(50, 6, 2))
    before = frechet_distance(a, b)
    a.update(normal(50, 6, 3))
    fresh = Moments.of(np.concatenate([normal(50, 6, 1), normal(50, 6, 3)]))
    assert frechet_distance(a, b) == pytest.approx(frechet_distance(fresh, b), rel=1e-9)
    assert frechet_distance(a, b) != pytest.approx(before)


@pytest.mark.parametrize("count", [0, 1])
def test_fewer_than_two_images_are_refused(count):
    few = Moments()
    few.update(normal(count, 4))
    with pytest.raises(ValueError, match="at least 2"):
        frechet_distance(few, Moments.of(normal(10, 4)))
    with pytest.raises(ValueError, match="at least 2"):
        frechet_distance(Moments.of(normal(10, 4)), few)
    with pytest.raises(ValueError, match="at least 2"):
        _ = few.covariance


def test_other_shapes_and_numbers_are_refused():
    moments = Moments.of(normal(10, 4))
    with pytest.raises(ValueError, match=r"\(10,\)"):
        moments.update(np.zeros(10))
    with pytest.raises(ValueError, match=r"5 features per image, .* others have 4"):
        moments.update(np.zeros((3, 5)))
    with pytest.raises(ValueError, match="4 and 5 features"):
        frechet_distance(moments, Moments.of(np.zeros((3, 5))))
    bad = normal(6, 4)
    bad[1, 2], bad[4, 0] = np.nan, np.inf
    with pytest.raises(ValueError, match="2 of 6 images"):
        moments.update(bad)
    assert moments.count == 10


@pytest.mark.parametrize(("count", "warned"), [(63, True), (64, True), (65, False)])
def test_too_few_images_are_named(count, warned):
    warning = few_images_warning(count, 64)
    assert (warning is not None) == warned
    assert warning is None or f"{count} images for 64 features" in warning
