"""Time grids: the times between noise and data at which a sampler calls the network."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from lensjax.arguments import array_of, choice, finite_number, whole_number
from lensjax.diffusion.paths import Path, log_snr
from lensjax.diffusion.schedules import EDMPath, TablePath
from lensjax.errors import TimeGridError

# Noise over data, sigma / alpha, between which the Karras grid lies (arXiv:2206.00364, table 1).
_LEAST_NOISE, _MOST_NOISE = 0.002, 80.0
_KARRAS_POWER = 7.0
# sigma / alpha at the last time before the data: at t = 0.02 of the straight path networks with
# different training times draw images of the right brightness (`benchmarks/brightness.py`).
_LAST_NOISE = 0.02 / 0.98


def cosine_shares(shares: np.ndarray) -> np.ndarray:
    """`sin^2` of even angles: dense at both ends.

    Args:
      shares: evenly spaced between 0 and 1.
    """
    return np.sin(np.pi / 2 * shares) ** 2


def _karras(path: Path, count: int, t_end: float) -> np.ndarray:
    """Times that are even in `(sigma / alpha)^(1/7)`, the first of them pure noise."""
    t_min, t_max = path.interval
    usable: Any = np.asarray([max(t_min, t_end), t_max], np.float32)
    with np.errstate(divide="ignore"):
        ends = np.exp(-np.asarray(log_snr(path, usable), np.float64) / 2)
    if not isinstance(path, EDMPath):  # only EDM's path has ends for this grid
        ends = np.clip(ends, _LEAST_NOISE, _MOST_NOISE)
    low, high = ends ** (1 / _KARRAS_POWER)
    noise = np.linspace(high, low, count) ** _KARRAS_POWER
    log_snrs: Any = (-2 * np.log(noise)).astype(np.float32)
    times = np.clip(np.asarray(path.time_of_log_snr(log_snrs), np.float64), t_min, t_max)
    times[0] = t_max
    return times


def _shares(name: str, count: int, shift: float) -> np.ndarray:
    even = np.linspace(1.0, 0.0, count)
    maps: dict[str, Callable[[np.ndarray], np.ndarray]] = {
        "uniform": lambda u: u,
        "cosine": cosine_shares,
        "shifted": lambda u: shift * u / (1 + (shift - 1) * u),
    }
    return maps[name](even)


def _on_entries(path: TablePath, times: np.ndarray) -> np.ndarray:
    """The nearest entries of a table, each at most once; a network is trained at these alone.

    Raises:
      TimeGridError: for more times than entries.
    """
    size, count = len(path.log_snr), len(times)
    last = size - path.num_unused
    if count > last:
        raise TimeGridError(f"the path's table has {last} usable entries")
    order = np.arange(count)
    entries = np.round(times[::-1] * size).astype(int)
    entries = np.maximum.accumulate(np.maximum(entries, 1) - order)
    entries = np.minimum(entries, last - count + 1) + order
    return entries[::-1] / size


TIME_GRIDS = ("uniform", "cosine", "karras", "shifted")


def time_grid(
    path: Path, steps: int, name: str = "uniform", shift: float = 3.0, t_end: float = 0.0
) -> np.ndarray:
    """Falling times from noise to data, float32 `[steps + 1]`; the last one is 0.

    Where the path's usable times end before 0, the last interval leads from t_min to the data: a
    sampler then takes the network's x0 there, as DDPM does in its last step. On a table's path the
    times are its entries.

    Args:
      path: the probability path.
      steps: the number of intervals, at least 1.
      name: `uniform` in t; `cosine`, dense at both ends; `karras`, even in the seventh root of
        sigma / alpha (between 0.002 and 80, or the ends of EDM's path); `shifted`, towards the
        noise, `s u / (1 + (s - 1) u)` (Esser et al. 2024, arXiv:2403.03206, equation 23).
      shift: s of `shifted`.
      t_end: `karras`: the last time before 0, if its own one is lower; a network is seldom trained
        at times near 0, and may be wrong there. On a table's path it has no effect.

    Raises:
      TimeGridError: for a number of steps, name or shift that is not allowed; for so many steps
        that two times are equal in float32, or for more times than a table has entries.
    """
    steps = whole_number("steps", steps, 1, 10**6, error=TimeGridError)
    choice("name", name, TIME_GRIDS, error=TimeGridError)
    shift = finite_number("shift", shift, "a finite number above 0", above=0, error=TimeGridError)
    t_min, t_max = path.interval
    t_end = finite_number(
        "t_end", t_end, f"0 to {t_max:g}", at_least=0, at_most=t_max, error=TimeGridError
    )
    lands_on_data = t_min == 0
    if name == "karras":
        times = _karras(path, steps, 0.0 if isinstance(path, TablePath) else t_end)
    elif lands_on_data:
        return check_times(path, t_max * _shares(name, steps + 1, shift))
    else:
        # A single point is the first, pure noise.
        times = t_min + (t_max - t_min) * _shares(name, steps, shift)
    if isinstance(path, TablePath):
        times = _on_entries(path, times)
    return check_times(path, np.append(times, 0.0))


def usual_end(path: Path) -> float:
    """The last time before 0 of a Karras grid, where a network was trained; 0 for the grid's own.

    A table has its entries, and EDM's path its `sigma_min`.
    """
    if isinstance(path, (TablePath, EDMPath)):
        return 0.0
    last: Any = np.float32(-2 * np.log(_LAST_NOISE))
    return float(np.clip(np.asarray(path.time_of_log_snr(last), np.float64), *path.interval))


def check_times(path: Path, times: Sequence[float] | np.ndarray) -> np.ndarray:
    """Times as float32 `[S + 1]`.

    Raises:
      TimeGridError: for times that do not fall from t_max to 0, or leave the usable interval.
    """
    t_min, t_max = path.interval
    grid = array_of("times", times, error=TimeGridError).astype(np.float32)
    if grid.ndim != 1 or len(grid) < 2:
        raise TimeGridError("at least two times are needed, the first for noise and 0 for data")
    if not np.all(np.diff(grid) < 0):
        place = int(np.argmin(np.diff(grid) < 0))
        raise TimeGridError(
            f"the times must fall; number {place + 1} is {grid[place]:g}, the next one "
            f"{grid[place + 1]:g}"
        )
    tolerance = 1e-6
    if abs(grid[0] - t_max) > tolerance or grid[-1] != 0 or grid[-2] < t_min - tolerance:
        raise TimeGridError(
            f"the first time must be {t_max:g}, the last one 0, and the one before it at least "
            f"{t_min:g}"
        )
    return grid
