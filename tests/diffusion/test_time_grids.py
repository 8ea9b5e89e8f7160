"""Where samplers look: every grid on every path, the formulas, and times of the user's own."""

import itertools

import jax.numpy as jnp
import numpy as np
import pytest
from mixture_support import PATHS

from lensjax.diffusion import paths
from lensjax.diffusion.paths import usable
from lensjax.diffusion.schedules import EDMPath, TablePath, ddpm_betas
from lensjax.diffusion.time_grids import TIME_GRIDS, check_times, time_grid
from lensjax.errors import TimeGridError

STEPS = (1, 2, 7, 50)
TABLES = [name for name, path in PATHS.items() if isinstance(path, TablePath)]
CONTINUOUS = [name for name in PATHS if name not in TABLES]

each_grid = pytest.mark.parametrize("grid", TIME_GRIDS)


def is_well_formed(path, times: np.ndarray, steps: int) -> bool:
    """Falls from the first usable time to the data; the last pass is made at a usable time."""
    t_min, t_max = path.interval
    return (
        times.dtype == np.float32
        and times.shape == (steps + 1,)
        and times[0] == np.float32(t_max)
        and times[-1] == 0
        and bool(np.all(np.diff(times) < 0))
        and (t_min == 0 or times[-2] >= np.float32(t_min))
    )


@each_grid
def test_times_fall_from_noise_to_data(grid):
    wrong = []
    for path_name, prediction, steps in itertools.product(PATHS, paths.PREDICTIONS, STEPS):
        path = usable(PATHS[path_name], prediction)
        if not is_well_formed(path, time_grid(path, steps, grid), steps):
            wrong.append((path_name, prediction, steps))
    assert not wrong


def spread(path, shares: np.ndarray) -> np.ndarray:
    """Shares from 1 to 0 over the usable times; the data behind them where these end before."""
    t_min, t_max = path.interval
    times = t_min + (t_max - t_min) * shares
    return times if t_min == 0 else np.append(times, 0.0)


def even(path, steps: int) -> np.ndarray:
    return np.linspace(1, 0, steps + 1 if path.interval[0] == 0 else steps)


@pytest.mark.parametrize("path_name", CONTINUOUS)
@pytest.mark.parametrize("steps", [2, 7, 50])
def test_formulas_of_the_grids(path_name, steps):
    path = PATHS[path_name]
    shares = even(path, steps)
    uniform, cosine = time_grid(path, steps), time_grid(path, steps, "cosine")
    np.testing.assert_allclose(uniform, spread(path, shares), atol=1e-7)
    expected = (1 - np.cos(np.pi * shares)) / 2
    np.testing.assert_allclose(cosine, spread(path, expected), atol=1e-7)


@pytest.mark.parametrize("shift", [0.5, 1.0, 3.0, 6.0])
@pytest.mark.parametrize("steps", [1, 7, 50])
def test_shifted_times_are_those_of_esser_et_al(shift, steps):
    """`t_m` at which m / n = shift^2 times as many pixels hide as much of the image as at t."""
    times = time_grid(PATHS["flow"], steps, "shifted", shift)
    even_times = np.linspace(1, 0, steps + 1)
    pixels, more_pixels = 1.0, shift**2
    root = np.sqrt(more_pixels / pixels)
    expected = root * even_times / (1 + (root - 1) * even_times)
    np.testing.assert_allclose(times, expected, atol=1e-7)
    # Where its second form comes from: sigma / alpha is shift times as large.
    inner, before = times[1:-1].astype(np.float64), even_times[1:-1]
    np.testing.assert_allclose(inner / (1 - inner), shift * before / (1 - before), rtol=1e-4)


def test_a_shift_of_one_is_the_uniform_grid():
    for path in PATHS.values():
        np.testing.assert_array_equal(time_grid(path, 20, "shifted", 1.0), time_grid(path, 20))


@pytest.mark.parametrize("steps", [2, 18, 40])
@pytest.mark.parametrize(("low", "high"), [(0.002, 80.0), (0.0005, 500.0), (0.01, 30.0)])
def test_karras_times_are_those_of_edm(steps, low, high):
    """Equation 5 of arXiv:2206.00364 with its constants, and with a path's own ends."""
    path, places, rho = EDMPath(low, high), np.arange(steps), 7
    expected = (
        high ** (1 / rho) + places / (steps - 1) * (low ** (1 / rho) - high ** (1 / rho))
    ) ** rho
    times = time_grid(path, steps, "karras")
    np.testing.assert_allclose(path.sigma(jnp.asarray(times[:-1])), expected, rtol=2e-5)


@pytest.mark.parametrize("path_name", CONTINUOUS)
def test_karras_times_are_even_in_the_seventh_root_on_any_path(path_name):
    path = PATHS[path_name]
    times = jnp.asarray(time_grid(path, 30, "karras")[1:-1])  # the first one is all noise
    roots = np.asarray(path.sigma(times) / path.alpha(times), np.float64) ** (1 / 7)
    lengths = np.diff(roots)
    np.testing.assert_allclose(lengths, lengths.mean(), rtol=0.01)


@pytest.mark.parametrize("path_name", CONTINUOUS)
@pytest.mark.parametrize("t_end", [0.02, 0.3])
def test_karras_times_may_end_earlier(path_name, t_end):
    path = PATHS[path_name]
    times = time_grid(path, 30, "karras", t_end=t_end)
    assert times[-2] == pytest.approx(t_end, rel=1e-4)
    inner = jnp.asarray(times[1:-1])
    roots = np.asarray(path.sigma(inner) / path.alpha(inner), np.float64) ** (1 / 7)
    np.testing.assert_allclose(np.diff(roots), np.diff(roots).mean(), rtol=0.01)


@pytest.mark.parametrize("path_name", PATHS)
def test_an_end_below_the_grids_own_changes_nothing(path_name):
    path = PATHS[path_name]
    own = time_grid(path, 20, "karras")
    end = 0.5 if path_name in TABLES else float(own[-2]) / 2
    assert time_grid(path, 20, "karras", t_end=end).tobytes() == own.tobytes()
    for grid in set(TIME_GRIDS) - {"karras"}:
        assert time_grid(path, 20, grid, t_end=0.5).tobytes() == time_grid(path, 20, grid).tobytes()


@pytest.mark.parametrize("t_end", [-0.1, 1.1, np.nan, "0.1", None])
def test_an_end_that_is_no_time_is_refused(t_end):
    with pytest.raises(TimeGridError, match="t_end: got"):
        time_grid(PATHS["flow"], 10, "karras", t_end=t_end)


# Tables: a network has seen their entries and no other times.


@pytest.mark.parametrize("path_name", TABLES)
@each_grid
def test_all_steps_of_a_table_are_all_its_entries(path_name, grid):
    path = PATHS[path_name]
    np.testing.assert_array_equal(
        time_grid(path, 1000, grid), np.arange(1000, -1, -1).astype(np.float32) / np.float32(1000)
    )


@each_grid
@pytest.mark.parametrize("num_unused", [0, 3])
@pytest.mark.parametrize("size", [4, 17, 1000])
def test_every_time_of_a_table_is_an_entry(grid, num_unused, size):
    table = TablePath.from_betas(ddpm_betas("cosine", size, 0.1, 20.0))
    path = table._replace(num_unused=num_unused)
    for steps in {1, 2, (size - num_unused + 1) // 2, size - num_unused} - {0}:
        if steps > size - num_unused:
            continue
        entries = time_grid(path, steps, grid).astype(np.float64) * size
        np.testing.assert_allclose(entries, np.round(entries), atol=1e-4)
        assert round(entries[0]) == size - num_unused
        assert len(set(np.round(entries))) == steps + 1


def test_uniform_times_of_a_table_are_the_nearest_entries():
    times = time_grid(PATHS["linear table"], 50)
    exact = spread(PATHS["linear table"], np.linspace(1, 0, 50))
    assert np.max(np.abs(times - exact)) <= 0.5001 / 1000


def test_more_steps_than_a_table_has_entries_are_refused():
    path = TablePath.from_betas(ddpm_betas("linear", 25, 0.1, 20.0))._replace(num_unused=5)
    assert len(time_grid(path, 20)) == 21
    with pytest.raises(TimeGridError, match="the path's table has 20 usable entries"):
        time_grid(path, 21)


# Times of the user's own, and too many of them.


def test_times_that_are_equal_in_float32_are_refused():
    with pytest.raises(TimeGridError, match=r"the times must fall; number \d+ is"):
        time_grid(PATHS["linear"], 200_000, "cosine")


def test_times_of_ones_own_are_taken_as_they_are():
    times = check_times(PATHS["flow"], (1, 0.5, 0.25, 0))
    assert times.dtype == np.float32
    np.testing.assert_array_equal(times, [1, 0.5, 0.25, 0])
    assert len(check_times(PATHS["edm"], [1.0, 0.001, 0.0])) == 3


@pytest.mark.parametrize(
    ("path_name", "times", "words"),
    [
        ("flow", [1, 0.5, 0.5, 0], r"must fall; number 2 is 0.5, the next one 0.5"),
        ("flow", [1, 0.2, 0.4, 0], r"must fall; number 2 is 0.2, the next one 0.4"),
        ("flow", [1, float("nan"), 0.4, 0], r"must fall; number 1 is 1, the next one nan"),
        ("flow", [0.9, 0.5, 0], r"the first time must be 1, the last one 0"),
        ("flow", [float("inf"), 0.5, 0], r"the first time must be 1, the last one 0"),
        ("flow", [1, 0.5, 0.1], r"the first time must be 1, the last one 0"),
        ("flow", [1, 0.5, -0.1], r"the first time must be 1, the last one 0"),
        ("linear", [1, 0.5, 0.0005, 0], r"the one before it at least 0.001"),
        ("linear table", [1, 0.5, 0.0005, 0], r"the one before it at least 0.001"),
        ("flow", [], "at least two times"),
        ("flow", [1], "at least two times"),
        ("flow", 1.0, "at least two times"),
        ("flow", [[1, 0], [1, 0]], "at least two times"),
    ],
    ids=str,
)
def test_times_that_no_sampler_can_follow_are_refused(path_name, times, words):
    with pytest.raises(TimeGridError, match=words):
        check_times(PATHS[path_name], times)
