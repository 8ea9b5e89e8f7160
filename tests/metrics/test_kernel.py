"""KID against a naive double loop and closed forms, and its error against repeated draws."""

import functools

import numpy as np
import pytest

from lensjax.metrics import kernel
from lensjax.metrics.kernel import kernel_distance


def naive(a: np.ndarray, b: np.ndarray) -> float:
    def k(x, y):
        return (x @ y / len(x) + 1) ** 3

    n, m = len(a), len(b)
    aa = sum(k(a[i], a[j]) for i in range(n) for j in range(n) if i != j) / (n * (n - 1))
    bb = sum(k(b[i], b[j]) for i in range(m) for j in range(m) if i != j) / (m * (m - 1))
    ab = sum(k(x, y) for x in a for y in b) / (n * m)
    return aa + bb - 2 * ab


def draw(count: int, size: int, seed: int, shift: float = 0.0) -> np.ndarray:
    return shift + np.random.default_rng(seed).normal(size=(count, size))


@pytest.mark.parametrize("tile", [3, 1024])
@pytest.mark.parametrize("size", [1, 7])
@pytest.mark.parametrize(("n", "m"), [(4, 4), (23, 40), (41, 22)])
def test_value_is_that_of_the_double_loop(monkeypatch, n, m, size, tile):
    monkeypatch.setattr(kernel, "_TILE", tile)
    a, b = draw(n, size, 1), draw(m, size, 2, 0.3)
    found = kernel_distance(a, b)
    assert found.value == pytest.approx(naive(a, b), rel=1e-10)
    assert np.isfinite(found.error)
    assert kernel_distance(b, a).value == pytest.approx(found.value, rel=1e-10)


def test_seed_changes_the_blocks_and_not_the_value():
    a, b = draw(50, 5, 1), draw(60, 5, 2, 0.5)
    first, second = kernel_distance(a, b, seed=0), kernel_distance(a, b, seed=1)
    assert first.value == pytest.approx(second.value, rel=1e-12)
    assert first.error != second.error
    assert first == kernel_distance(a, b, seed=0)


def test_order_of_the_images_does_not_matter_much_to_the_error():
    """Images come sorted by class; blocks of one class each would have a huge spread."""
    a = np.concatenate([draw(100, 3, seed, shift) for seed, shift in ((1, -3.0), (2, 3.0))])
    b = np.concatenate([draw(100, 3, seed, shift) for seed, shift in ((3, -3.0), (4, 3.0))])
    mixed = np.random.default_rng(0).permutation(200)
    in_order, out_of_order = kernel_distance(a, b), kernel_distance(a[mixed], b[mixed])
    assert in_order.error == pytest.approx(out_of_order.error, rel=0.5)


REPEATS = 400
CASES = [(shift, size) for shift in (0.0, 0.1, 0.4) for size in (1, 12)]


def mean_kernel(s: float, t: float, size: int) -> float:
    """Mean of the kernel between normals of unit variance whose features have means s and t."""
    p1, p2, p3 = s * t, (1 + s**2) * (1 + t**2), (s**3 + 3 * s) * (t**3 + 3 * t)
    u1 = size * p1
    u2 = size * p2 + size * (size - 1) * p1**2
    u3 = size * p3 + 3 * size * (size - 1) * p2 * p1 + size * (size - 1) * (size - 2) * p1**3
    return 1 + 3 * u1 / size + 3 * u2 / size**2 + u3 / size**3


def truth(shift: float, size: int) -> float:
    between = mean_kernel(0, shift, size)
    return mean_kernel(0, 0, size) + mean_kernel(shift, shift, size) - 2 * between


@functools.cache
def repeated(shift: float, size: int, counts: tuple[int, int]) -> np.ndarray:
    """Values and errors of independent draws, `[REPEATS, 2]`."""
    n, m = counts
    seeds = range(0, 2 * REPEATS, 2)
    pairs = [(draw(n, size, seed), draw(m, size, seed + 1, shift)) for seed in seeds]
    return np.array([kernel_distance(a, b) for a, b in pairs])


@pytest.mark.parametrize("counts", [(100, 100), (60, 140)])
@pytest.mark.parametrize(("shift", "size"), CASES)
def test_value_is_unbiased(shift, size, counts):
    values = repeated(shift, size, counts)[:, 0]
    standard_error = values.std(ddof=1) / REPEATS**0.5
    assert abs(values.mean() - truth(shift, size)) < 3.5 * standard_error


@pytest.mark.parametrize("counts", [(100, 100), (60, 140)])
@pytest.mark.parametrize(("shift", "size"), CASES)
def test_error_is_the_spread_of_repeated_draws(shift, size, counts):
    """A little more between equal sets; a single feature's cubes have long tails, often missed."""
    values, errors = repeated(shift, size, counts).T
    ratio = np.sqrt(np.mean(errors**2)) / values.std(ddof=1)
    assert 0.8 < ratio < (1.2 if shift else 1.4)
    covered = np.mean(np.abs(values - truth(shift, size)) < 2 * errors)
    assert covered > (0.9 if size > 1 else 0.75)


def test_too_few_images_other_features_and_nan_are_refused():
    with pytest.raises(ValueError, match="got 3 and 10 images"):
        kernel_distance(draw(3, 2, 0), draw(10, 2, 1))
    with pytest.raises(ValueError, match="3 features"):
        kernel_distance(draw(10, 2, 0), draw(10, 3, 1))
    with pytest.raises(ValueError, match="1 of 10 images"):
        kernel_distance(draw(10, 2, 0), np.where(np.arange(20).reshape(10, 2) == 4, np.nan, 0.0))
