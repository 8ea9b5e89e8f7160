"""Two-sample distances: closed forms, scipy, floors with the right coverage, p values."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import scipy.stats

from lensjax.metrics import two_sample

# Typed loosely: a test knows which of the distances are there.
compare: Callable[..., Any] = two_sample.compare
compare_vectors: Callable[..., Any] = two_sample.compare_vectors


def normal_quantiles(num: int) -> np.ndarray:
    """The most even sample of a standard normal distribution."""
    return scipy.stats.norm.ppf((np.arange(num) + 0.5) / num)


@pytest.mark.parametrize("shift", [0.0, 0.3, 2.0])
def test_shifted_gaussians_in_closed_form(shift):
    """KS is 2 Phi(shift / 2) - 1, Wasserstein-1 the shift."""
    real = normal_quantiles(2000)
    found = compare(real, real[::-1] + shift)
    expected = 2 * scipy.stats.norm.cdf(shift / 2) - 1
    assert found.ks.value == pytest.approx(expected, abs=1e-3)
    assert found.wasserstein.value == pytest.approx(shift, abs=1e-9)
    assert found.generated_mean - found.real_mean == pytest.approx(shift)
    assert found.real_std == pytest.approx(1, abs=0.01)
    assert found.note == ""


@pytest.mark.parametrize("sizes", [(20, 20), (50, 31), (400, 1000)])
@pytest.mark.parametrize("ties", [False, True])
def test_distances_agree_with_scipy(sizes, ties):
    random = np.random.default_rng(sum(sizes))
    real, generated = random.normal(size=sizes[0]), random.gumbel(size=sizes[1])
    if ties:
        real, generated = np.round(real), np.round(generated)
    found = compare(real, generated)
    expected = scipy.stats.ks_2samp(real, generated).statistic
    assert found.ks.value == pytest.approx(expected, abs=1e-12)
    expected = scipy.stats.wasserstein_distance(real, generated)
    assert found.wasserstein.value == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("sizes", [(300, 300), (400, 150), (150, 400)])
def test_floor_is_that_of_fresh_samples_of_these_sizes(sizes):
    """Mean, spread and 95 % quantile beside 2,000 pairs of independent samples."""
    random = np.random.default_rng(0)
    fresh = []
    for _ in range(2000):
        real, other = random.normal(size=sizes[0]), random.normal(size=sizes[1])
        chosen = np.arange(sum(sizes)) < sizes[0]
        fresh.append(two_sample._distances(np.concatenate([real, other]), chosen[None]))
    for measure, (name, spread_error) in enumerate([("ks", 0.1), ("wasserstein", 0.15)]):
        expected = np.array([pair[measure][0] for pair in fresh])
        floors = []
        for seed in range(16):
            real, other = random.normal(size=sizes[0]), random.normal(size=sizes[1])
            floors.append(getattr(compare(real, other, seed), name))
        assert np.mean([floor.floor_mean for floor in floors]) == pytest.approx(
            expected.mean(), rel=0.06
        )
        assert np.mean([floor.floor_std for floor in floors]) == pytest.approx(
            expected.std(), rel=spread_error
        )
        assert np.mean([floor.floor_q95 for floor in floors]) == pytest.approx(
            np.quantile(expected, 0.95), rel=0.1
        )


def test_coverage_of_floor_and_p():
    """Real against real: 5 % above the 95 % quantile, and p uniform."""
    random = np.random.default_rng(1)
    above = {"ks": 0, "wasserstein": 0}
    p: dict[str, list[float]] = {"ks": [], "wasserstein": []}
    trials = 150
    for seed in range(trials):
        real, other = random.normal(size=(2, 80))
        found = compare(real, other, seed)
        for name in above:
            distance = getattr(found, name)
            above[name] += distance.value > distance.floor_q95
            p[name].append(distance.p)
    for name, count in above.items():
        # Binomial(150, 0.05) exceeds 17 in 0.05 % of all cases.
        assert 1 <= count <= 17, name
        assert scipy.stats.kstest(p[name], "uniform").pvalue > 1e-3, name


def test_difference_has_a_large_z_and_the_least_p():
    random = np.random.default_rng(2)
    real, generated = random.normal(size=500), random.normal(0.5, size=500)
    found = compare(real, generated)
    for distance in (found.ks, found.wasserstein):
        assert distance.value > 3 * distance.floor_mean
        assert distance.z > 5
        assert distance.p == pytest.approx(1 / 1000)


def test_floor_does_not_depend_on_the_generator():
    random = np.random.default_rng(3)
    real = random.normal(size=200)
    near = compare(real, random.normal(size=200), seed=5)
    far = compare(real, 1e6 + random.normal(size=200), seed=5)
    assert near.wasserstein.floor_mean == far.wasserstein.floor_mean
    assert near.ks.floor_q95 == far.ks.floor_q95
    assert far.wasserstein.z > 1e6


def test_unit_carries_through():
    random = np.random.default_rng(4)
    real, generated = random.normal(size=(2, 100))
    plain, scaled = compare(real, generated), compare(7 * real, 7 * generated)
    assert scaled.ks.value == plain.ks.value
    for field in ("value", "floor_mean", "floor_std", "floor_q95"):
        plain_value = getattr(plain.wasserstein, field)
        assert getattr(scaled.wasserstein, field) == pytest.approx(7 * plain_value)
    assert scaled.wasserstein.z == pytest.approx(plain.wasserstein.z)


def test_seed_decides_everything():
    real, generated = np.random.default_rng(5).normal(size=(2, 60))
    assert compare(real, generated, 1) == compare(real, generated, 1)
    other = compare(real, generated, 2)
    assert other.ks.floor_mean != compare(real, generated, 1).ks.floor_mean


@pytest.mark.parametrize("value", [0.0, 3.7, -1e-12])
def test_constant_truth_has_no_ks(value):
    real = np.full(50, value, np.float32)
    if value > 1:
        real[::2] = np.nextafter(real[0], np.float32(9))
    same = compare(real, np.full(30, value, np.float32))
    assert same.ks is None
    assert same.note == "constant in truth"
    assert same.wasserstein == two_sample.Distance(0, 0, 0, 0, 0, 1, 0)
    generated = np.full(50, value)
    generated[:20] += 2
    found = compare(real, generated)
    assert found.ks is None
    assert found.wasserstein.value == pytest.approx(0.8)
    assert found.wasserstein.z == math.inf
    assert found.wasserstein.p == pytest.approx(1 / 1000)


@pytest.mark.parametrize("axes", [1, 2])
@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("few", "got 19 generated values; a floor needs at least 20"),
        ("nan", "real values contain NaN or infinity; leave out such images"),
        ("shape", r"generated values have shape .* allowed: \[N"),
    ],
)
def test_bad_samples_are_refused(axes, fault, message):
    real = np.random.default_rng(0).normal(size=(40, 3)[:axes])
    generated = real.copy()
    if fault == "few":
        generated = generated[:19]
    elif fault == "nan":
        real[0] = np.nan
    else:
        generated = generated[..., None]
    function = compare if axes == 1 else compare_vectors
    with pytest.raises(ValueError, match=message):
        function(real, generated)


def correlated(random: np.random.Generator, count: int) -> np.ndarray:
    """Vectors of 12 components, each strongly tied to the last."""
    return np.cumsum(random.normal(size=(count, 12)), axis=1)


def test_vectors_component_by_component():
    random = np.random.default_rng(6)
    real, generated = correlated(random, 60), correlated(random, 90) + np.linspace(0, 1, 12)
    found = compare_vectors(real, generated)
    expected = [
        scipy.stats.wasserstein_distance(*pair) for pair in zip(real.T, generated.T, strict=True)
    ]
    np.testing.assert_allclose(found.component_wasserstein, expected)
    assert found.mean.value == pytest.approx(np.mean(expected))
    assert found.max_z.value == np.max(found.component_z)
    assert found.mean.floor_mean == pytest.approx(found.component_floor.mean())
    assert (found.num_constant, found.num_constant_differs) == (0, 0)


def test_vectors_p_is_uniform_under_correlation():
    random = np.random.default_rng(7)
    p = []
    for seed in range(100):
        real, generated = correlated(random, 40), correlated(random, 40)
        found = compare_vectors(real, generated, seed, num_permutations=99)
        p.append((found.mean.p, found.max_z.p))
    for values in np.array(p).T:
        assert scipy.stats.kstest(values, "uniform").pvalue > 1e-3


def test_narrow_difference_shows_in_the_largest_z():
    random = np.random.default_rng(8)
    real, generated = random.normal(size=(2, 200, 30))
    generated[:, 17] += 0.6
    found = compare_vectors(real, generated)
    assert np.argmax(found.component_z) == 17
    assert found.max_z.z > 5
    assert found.max_z.p == pytest.approx(1 / 200)
    assert found.max_z.z > found.mean.z


def test_components_that_are_constant_in_truth():
    random = np.random.default_rng(9)
    real, generated = random.normal(size=(2, 50, 4))
    real[:, 1:3] = -4.0
    generated[:, 1] = -4.0
    generated[:, 2] = -3.0
    real[:, 3] = -4.0
    real[0, 3] = 5.0  # a single one differs: a floor, and no spread in it
    found = compare_vectors(real, generated)
    assert (found.num_constant, found.num_constant_differs) == (2, 1)
    assert np.isnan(found.component_z).tolist() == [False, True, True, True]
    assert found.component_wasserstein[1] == 0
    assert found.component_wasserstein[2] == pytest.approx(1)
    assert found.mean.p == pytest.approx(1 / 200)
    nothing = compare_vectors(np.zeros((30, 2)), np.zeros((30, 2)))
    assert nothing.max_z is None
    assert nothing.mean.z == 0


def test_vectors_of_different_lengths_are_refused():
    with pytest.raises(ValueError, match="real vectors have 3 components, generated ones 4"):
        compare_vectors(np.zeros((30, 3)), np.zeros((30, 4)))


def test_ks_has_no_direction():
    random = np.random.default_rng(0)
    low, high = random.normal(size=50), random.normal(1, 1, size=70)
    for real, generated in ((low, high), (high, low)):
        expected = scipy.stats.ks_2samp(real, generated).statistic
        assert compare(real, generated).ks.value == pytest.approx(expected)


def quantities(random, count, shift=0.0):
    """Values of three quantities, of which the second is a vector and the third is skewed."""
    return {
        "a": random.normal(size=count),
        "b": random.normal(size=(count, 5)) + shift,
        "c": random.exponential(size=count) ** 3,
    }


def test_the_largest_of_many_distances_is_one_test_at_its_level():
    random = np.random.default_rng(5)
    found = [
        two_sample.largest_distance(quantities(random, 30), quantities(random, 20), seed)
        for seed in range(120)
    ]
    p = np.sort([one.p for one in found])
    # Exact up to the 199 permutations after which most tests end.
    assert np.max(np.abs(p - (np.arange(120) + 0.5) / 120)) < 0.15
    assert {one.name for one in found} == {"a", "b", "c"}
    for one in found:
        assert (one.p < two_sample.LEVEL) == (one.z > one.limit)


def test_the_largest_distance_names_the_quantity_and_goes_on_where_it_is_rare():
    random = np.random.default_rng(6)
    real, other = quantities(random, 60), quantities(random, 40, shift=1.5)
    found = two_sample.largest_distance(real, other)
    assert (found.name, found.p) == ("b", 1 / (1 + two_sample.NUM_PERMUTATIONS))
    assert found.z > 2 * found.limit
    assert found == two_sample.largest_distance(real, other)


def test_a_quantity_that_is_constant_in_truth_counts_where_it_differs():
    random = np.random.default_rng(7)
    real = quantities(random, 40) | {"k": np.full(40, 2.0)}
    same = two_sample.largest_distance(real, quantities(random, 30) | {"k": np.full(30, 2.0)})
    assert same.name != "k"
    other = quantities(random, 30) | {"k": np.full(30, 2.1)}
    assert two_sample.largest_distance(real, other)[:1] == ("k",)
    with pytest.raises(ValueError, match="NaN"):
        two_sample.largest_distance(real, other | {"k": np.full(30, np.nan)})
