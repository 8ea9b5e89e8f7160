"""Are two samples of a number, or of a vector, alike? Distances with their floor beside them.

The floor is the distance of real from real images at the same sizes. It comes from random splits of
the real sample, so that it does not depend on the generator. The p value comes from permutations of
the pooled sample and is exact for any sample sizes. For a heavy tail, the floor includes only the
tail values of the real sample, and p is more reliable. No value is drawn twice.
"""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from lensjax.arguments import array_of, whole_number
from lensjax.errors import MeasureError

NUM_SPLITS = 200
NUM_PERMUTATIONS = 999
_FIRST_PERMUTATIONS = 199
_ENOUGH_REACHED = 10
MIN_COUNT = 20
CONSTANT = "constant in truth"
# Of a test: the share of fresh images that fail it.
LEVEL = 0.01
# A spread below this share of the largest value is rounding of float32 numbers.
_CONSTANT_SHARE = 1e-6
# Sums of the same numbers in another order differ by less.
_SUM_ROUNDING = 1e-9
_MAX_NUMBERS = 4_000_000  # in one work array


class Distance(NamedTuple):
    """A distance beside its floor, real against real at the same sizes.

    Attributes:
      value: real against generated.
      floor_mean: mean of real against real.
      floor_std: its standard deviation.
      floor_q95: its 95 % quantile.
      z: (value - floor_mean) / floor_std; infinite where the floor has another value and no spread.
      p: share of the permutations of the pooled sample with at least this distance. The observed
        order counts as a permutation, so that p is at least 0.001.
      limit: the z that 1 % of the permutations exceed.
    """

    value: float
    floor_mean: float
    floor_std: float
    floor_q95: float
    z: float
    p: float
    limit: float


class Comparison(NamedTuple):
    """How a one-dimensional quantity of generated images compares with that of real ones.

    Attributes:
      ks: Kolmogorov-Smirnov distance, 0 to 1; None if the truth is constant.
      wasserstein: Wasserstein-1 distance, in the quantity's unit; where the truth is constant it is
        the mean distance from that constant, its floor 0.
      real_mean: mean of the real values.
      real_std: their standard deviation.
      generated_mean: mean of the generated values.
      generated_std: their standard deviation.
      note: empty, or `constant in truth`.
    """

    ks: Distance | None
    wasserstein: Distance
    real_mean: float
    real_std: float
    generated_mean: float
    generated_std: float
    note: str


class LargestDistance(NamedTuple):
    """The quantity that differs most between two samples, and how rare such a difference is.

    Attributes:
      name: the quantity.
      z: its distance in standard deviations of permuted ones above their mean; infinite where
        those do not vary.
      limit: the largest z of all quantities that 1 % of the permutations exceed.
      p: share of the permutations whose largest z is at least this one, whichever quantity has it;
        at least 0.001.
    """

    name: str
    z: float
    limit: float
    p: float


class VectorComparison(NamedTuple):
    """How a vector (a profile, a spectrum) of generated images compares with that of real ones.

    Attributes:
      mean: mean of the components' Wasserstein-1 distances.
      max_z: the largest `component_z`, beside the largest z of real against real; None if no
        component's floor has a spread.
      component_wasserstein: Wasserstein-1 distance of each component, float64 `[K]`.
      component_floor: mean of its floor, float64 `[K]`.
      component_z: (distance - floor mean) / floor s.d., float64 `[K]`; NaN where the floor has
        no spread.
      num_constant: the number of components that are constant in truth. They count in `mean` alone,
        like components whose floor has no spread because only one real vector differs.
      num_constant_differs: the number of constant components that differ in some generated image.
    """

    mean: Distance
    max_z: Distance | None
    component_wasserstein: np.ndarray
    component_floor: np.ndarray
    component_z: np.ndarray
    num_constant: int
    num_constant_differs: int


def is_constant(values: np.ndarray) -> np.ndarray:
    """Whether values `[N]` or `[N, K]` have no spread beyond rounding, bool `[]` or `[K]`."""
    low, high = values.min(axis=0), values.max(axis=0)
    return high - low <= _CONSTANT_SHARE * np.maximum(abs(low), abs(high))


def _without_rounding(values: np.ndarray, constants: np.ndarray) -> np.ndarray:
    """Sets values `[N]` or `[N, K]` that equal their constant up to rounding to the constant."""
    return np.where(abs(values - constants) <= _CONSTANT_SHARE * abs(constants), constants, values)


def _check(real: np.ndarray, generated: np.ndarray, num_axes: int) -> tuple[np.ndarray, np.ndarray]:
    form = {1: "[N]", 2: "[N, K]"}[num_axes]
    arrays = []
    for name, values in (("real", real), ("generated", generated)):
        values = array_of(f"{name} values", values, error=MeasureError).astype(np.float64)
        if values.ndim != num_axes:
            raise MeasureError(f"{name} values have shape {values.shape}; allowed: {form}")
        if len(values) < MIN_COUNT:
            raise MeasureError(
                f"got {len(values)} {name} values; a floor needs at least {MIN_COUNT} on each side"
            )
        if not np.isfinite(values).all():
            raise MeasureError(
                f"{name} values contain NaN or infinity; leave out such images and report their"
                " number"
            )
        arrays.append(values)
    if arrays[0].shape[1:] != arrays[1].shape[1:]:
        raise MeasureError(
            f"real vectors have {arrays[0].shape[1]} components, generated ones"
            f" {arrays[1].shape[1]}; both need the same number"
        )
    return arrays[0], arrays[1]


def _distances(pooled: np.ndarray, chosen: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """KS and Wasserstein-1 distance between the two subsets of each split of a sample.

    Args:
      pooled: values, float64 `[T]`.
      chosen: True for values of the first subset, bool `[P, T]`; equally many in every row.

    Returns:
      Two arrays, float64 `[P]`.
    """
    order = np.argsort(pooled, kind="stable")
    gaps = np.diff(pooled[order])
    first = int(chosen[0].sum())
    second = len(pooled) - first
    rows = max(1, _MAX_NUMBERS // len(pooled))
    ks, wasserstein = [], []
    for start in range(0, len(chosen), rows):
        step = np.where(chosen[start : start + rows, order], 1 / first, -1 / second)
        # The difference of the empirical distribution functions between a value and the next.
        difference = np.abs(np.cumsum(step, axis=1)[:, :-1])
        ks.append(np.max(difference, axis=1, initial=0.0, where=gaps[None] > 0))
        wasserstein.append(difference @ gaps)
    return np.concatenate(ks), np.concatenate(wasserstein)


def _splits(generator: np.random.Generator, rows: int, total: int, first: int) -> np.ndarray:
    """Random choices of `first` out of `total` values, bool `[rows, total]`."""
    ordered = np.broadcast_to(np.arange(total) < first, (rows, total))
    return generator.permuted(ordered, axis=1)


def _floor_splits(
    generator: np.random.Generator, num_real: int, num_generated: int
) -> tuple[np.ndarray, float]:
    """Random splits of the real sample, and the factor that scales their distances to the sizes.

    The subsets have the proportion of m generated to n real values. Both distances come from a
    difference of distribution functions whose variance is that of one value times (1/n + 1/m). For
    the subsets of one sample the same holds: the n - 1 of its spread and the n / (n - 1) of drawing
    without replacement cancel.
    """
    first = round(num_real * num_real / (num_real + num_generated))
    first = min(max(first, 2), num_real - 2)
    second = num_real - first
    scale = math.sqrt((1 / num_real + 1 / num_generated) / (1 / first + 1 / second))
    return _splits(generator, NUM_SPLITS, num_real, first), scale


def _share_reached(value: float, permuted: np.ndarray) -> float:
    """The p value of a distance: an equal one counts as reached, and so does the observed order."""
    reached = np.sum(permuted >= value - _SUM_ROUNDING * abs(value))
    return (1 + int(reached)) / (1 + len(permuted))


def _distance(value: float, floor: np.ndarray, permuted: np.ndarray) -> Distance:
    mean, std = float(floor.mean()), float(floor.std(ddof=1))
    rounding = _SUM_ROUNDING * abs(mean)

    def above_floor(distance: float) -> float:
        excess = distance - mean
        if std > rounding:
            return excess / std
        return math.copysign(math.inf, excess) if abs(excess) > rounding else 0.0

    return Distance(
        value=float(value),
        floor_mean=mean,
        floor_std=std,
        floor_q95=float(np.quantile(floor, 0.95)),
        z=above_floor(value),
        p=_share_reached(value, permuted),
        limit=above_floor(float(np.quantile(permuted, 1 - LEVEL))),
    )


def compare(real: np.ndarray, generated: np.ndarray, seed: int = 0) -> Comparison:
    """Compares two samples of a number by KS and Wasserstein-1 distance.

    Args:
      real: `[n]`, at least 20.
      generated: `[m]`, at least 20.
      seed: for the 200 random splits of the floor and the 999 permutations.

    Raises:
      MeasureError: for other shapes, too few values, or values that are not finite.
    """
    seed = whole_number("seed", seed, error=MeasureError)
    real, generated = _check(real, generated, 1)
    moments = {
        "real_mean": float(real.mean()),
        "real_std": float(real.std()),
        "generated_mean": float(generated.mean()),
        "generated_std": float(generated.std()),
    }
    constant = bool(is_constant(real))
    pooled = np.concatenate([real, generated])
    if constant:
        # Rounding must not count as spread: against a floor of 0 it would look large.
        pooled = _without_rounding(pooled, real[0])
        real = pooled[: len(real)]
    generator = np.random.default_rng(seed)
    observed = np.arange(len(pooled)) < len(real)
    values = _distances(pooled, observed[None])
    splits, scale = _floor_splits(generator, len(real), len(generated))
    floors = _distances(real, splits)
    permuted = _distances(pooled, _splits(generator, NUM_PERMUTATIONS, len(pooled), len(real)))
    ks, wasserstein = (
        _distance(float(value[0]), scale * floor, null)
        for value, floor, null in zip(values, floors, permuted, strict=True)
    )
    note = CONSTANT if constant else ""
    return Comparison(None if constant else ks, wasserstein, **moments, note=note)


def _wasserstein(pooled: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    """The Wasserstein-1 distance of each component, float64 `[P, K]`; see `_distances`."""
    return np.stack([_distances(component, chosen)[1] for component in pooled.T], axis=1)


def _mean_distances(pooled: Sequence[np.ndarray], chosen: np.ndarray) -> np.ndarray:
    """The mean Wasserstein-1 distance of the components of each quantity, `[P, Q]`."""
    return np.stack([_wasserstein(values, chosen).mean(axis=1) for values in pooled], axis=1)


def largest_distance(
    real: Mapping[str, np.ndarray], generated: Mapping[str, np.ndarray], seed: int = 0
) -> LargestDistance:
    """Compares many quantities of two samples at once, as one test.

    All quantities are permuted together, so that the p value includes how they depend on each
    other and how many there are. Further permutations follow the first 199 only where fewer than
    ten of these reach the observed distance (Besag & Clifford 1991).

    Args:
      real: values by name, `[n]` or `[n, K]`, at least 20 of each.
      generated: values of the same names, `[m]` or `[m, K]`, at least 20.
      seed: for the permutations.

    Raises:
      MeasureError: for other shapes, too few values, or values that are not finite.
    """
    columns = []
    for name, values in real.items():
        theirs, ours = _check(np.atleast_2d(values.T).T, np.atleast_2d(generated[name].T).T, 2)
        pooled = np.concatenate([theirs, ours])
        rounded = _without_rounding(pooled, theirs[0])
        columns.append(np.where(is_constant(theirs), rounded, pooled))
    generator, size = np.random.default_rng(seed), len(columns[0])
    count = len(next(iter(real.values())))
    observed = _mean_distances(columns, (np.arange(size) < count)[None])[0]
    first = _mean_distances(columns, _splits(generator, _FIRST_PERMUTATIONS, size, count))
    mean, std = first.mean(axis=0), first.std(axis=0, ddof=1)
    varied = std > _SUM_ROUNDING * mean

    def standardised(distances: np.ndarray) -> np.ndarray:
        excess = distances - mean
        endless = np.where(abs(excess) > _SUM_ROUNDING * mean, np.copysign(np.inf, excess), 0.0)
        return np.where(varied, excess / np.where(varied, std, 1.0), endless)

    z, permuted = standardised(observed), standardised(first).max(axis=1)
    largest = int(np.argmax(z))
    if np.sum(permuted >= z[largest]) < _ENOUGH_REACHED:
        more = _splits(generator, NUM_PERMUTATIONS - _FIRST_PERMUTATIONS, size, count)
        permuted = np.append(permuted, standardised(_mean_distances(columns, more)).max(axis=1))
    return LargestDistance(
        name=list(real)[largest],
        z=float(z[largest]),
        limit=float(np.quantile(permuted, 1 - LEVEL)),
        p=_share_reached(z[largest], permuted),
    )


def compare_vectors(
    real: np.ndarray, generated: np.ndarray, seed: int = 0, *, num_permutations: int = 199
) -> VectorComparison:
    """Compares two samples of a vector component by component, with a summary in two numbers.

    Permutations move whole vectors, so that the p values include correlations between components.
    Smooth deviations over many components show in `mean`, narrow deviations in `max_z`.

    Args:
      real: `[n, K]`, at least 20 vectors; pass spectra as logarithms.
      generated: `[m, K]`, at least 20 vectors.
      seed: for the random splits and permutations.
      num_permutations: for the p values, which are at least 1 / (1 + num_permutations).

    Raises:
      MeasureError: for other shapes, too few vectors, or values that are not finite.
    """
    seed = whole_number("seed", seed, error=MeasureError)
    real, generated = _check(real, generated, 2)
    constant = is_constant(real)
    pooled = np.concatenate([real, generated])
    pooled = np.where(constant, _without_rounding(pooled, real[0]), pooled)
    real = pooled[: len(real)]
    generator = np.random.default_rng(seed)
    observed = np.arange(len(pooled)) < len(real)
    value = _wasserstein(pooled, observed[None])[0]
    splits, scale = _floor_splits(generator, len(real), len(generated))
    floor = scale * _wasserstein(real, splits)
    permuted = _wasserstein(pooled, _splits(generator, num_permutations, len(pooled), len(real)))
    mean, std = floor.mean(axis=0), floor.std(axis=0, ddof=1)
    varied = std > _SUM_ROUNDING * mean
    z = np.where(varied, (value - mean) / np.where(varied, std, 1), np.nan)
    return VectorComparison(
        mean=_distance(float(value.mean()), floor.mean(axis=1), permuted.mean(axis=1)),
        max_z=_largest_z(value, floor, permuted, varied),
        component_wasserstein=value,
        component_floor=mean,
        component_z=z,
        num_constant=int(constant.sum()),
        num_constant_differs=int(np.sum(constant & (value > 0))),
    )


def _largest_z(
    value: np.ndarray, floor: np.ndarray, permuted: np.ndarray, varied: np.ndarray
) -> Distance | None:
    """The largest z of the components that vary, beside the largest z of real against real.

    Args:
      value: distances, `[K]`.
      floor: real against real, `[P, K]`.
      permuted: of the permuted pooled sample, `[Q, K]`.
      varied: bool `[K]`.
    """
    if not varied.any():
        return None
    mean, std = floor.mean(axis=0)[varied], floor.std(axis=0, ddof=1)[varied]
    largest = [
        ((rows[:, varied] - mean) / std).max(axis=1) for rows in (value[None], floor, permuted)
    ]
    return _distance(float(largest[0][0]), largest[1], largest[2])
