"""Samplers on Gaussian data, where the flow and its map are known in closed form."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support import smooth_gaussian

from lensjax import paths
from lensjax.samplers import PASSES_PER_STEP, STEPS, sample, time_grid

FLOW = paths.FlowPath()
GAUSSIAN = smooth_gaussian(4)
ORDER = {"euler": 1, "heun": 2}
ENOUGH_STEPS = {"euler": 500, "heun": 80}
PREDICTION_BY_SAMPLER = list(itertools.product(paths.PREDICTIONS, STEPS))

each_pair = pytest.mark.parametrize(("prediction", "sampler"), PREDICTION_BY_SAMPLER)
each_sampler = pytest.mark.parametrize("sampler", STEPS)


def draw(prediction: str, sampler: str, num: int, steps: int):
    """Noise, labels and samples, each flat."""
    labels = jnp.arange(num) % 2
    noise = np.random.default_rng(0).normal(size=(num, GAUSSIAN.side**2)).astype(np.float32)

    @jax.jit
    def run(noise, times):
        return sample(FLOW, GAUSSIAN.denoiser(prediction, labels), noise, times, STEPS[sampler])

    images = run(GAUSSIAN.images(jnp.asarray(noise)), jnp.asarray(time_grid(FLOW, steps)))
    return noise, np.asarray(labels), np.asarray(images).reshape(num, -1)


@each_pair
def test_samples_have_mean_and_covariance(prediction, sampler):
    num = 20_000
    _, labels, samples = draw(prediction, sampler, num, ENOUGH_STEPS[sampler])
    variances, directions = GAUSSIAN.modes
    for label in range(2):
        white = (samples[labels == label] - GAUSSIAN.means[label]) @ directions / variances**0.5
        count = len(white)
        assert np.max(np.abs(white.mean(axis=0))) < 4.5 / np.sqrt(count)
        # 1 % for the steps of finite length beside the noise of a sample covariance.
        error = np.cov(white.T) - np.eye(len(variances))
        assert np.max(np.abs(error)) < 0.01 + 4.5 * np.sqrt(2 / count)


@each_pair
def test_order_of_convergence(prediction, sampler):
    steps = np.array([24, 48, 96])
    errors = []
    for count in steps:
        noise, labels, samples = draw(prediction, sampler, 64, int(count))
        exact = GAUSSIAN.flow_map(noise.astype(np.float64), labels)
        errors.append(np.sqrt(np.mean(np.square(samples - exact))))
    slope, _ = np.polyfit(np.log(steps), np.log(errors), 1)
    assert -slope == pytest.approx(ORDER[sampler], abs=0.15)


@each_pair
def test_last_interval_is_as_exact_as_the_others(prediction, sampler):
    """Over the whole way a worse last step would hide behind the others."""
    labels = jnp.arange(64) % 2
    noise = np.random.default_rng(0).normal(size=(64, GAUSSIAN.side**2))
    denoise = GAUSSIAN.denoiser(prediction, labels)
    exact = GAUSSIAN.flow_map(noise, np.asarray(labels))
    lengths, errors = np.array([0.16, 0.08, 0.04]), []
    for length in lengths:
        start = GAUSSIAN.flow_map(noise, np.asarray(labels), length)
        start = GAUSSIAN.images(jnp.asarray(start, jnp.float32))
        end = STEPS[sampler](FLOW, denoise, start, jnp.float32(length), jnp.float32(0))
        errors.append(np.sqrt(np.mean(np.square(end.reshape(64, -1) - exact))))
    slope, _ = np.polyfit(np.log(lengths), np.log(errors), 1)
    # The error of one step falls by one order more than that of the whole way.
    assert slope > ORDER[sampler] + 0.8


@each_sampler
def test_straight_flow_is_exact_in_one_step(sampler):
    """With one image in the world the velocity is constant along each path."""
    image = jnp.asarray(np.random.default_rng(1).normal(size=(1, 4, 6, 2)), jnp.float32)
    noise = jnp.asarray(np.random.default_rng(2).normal(size=(5, 4, 6, 2)), jnp.float32)

    def denoise(x_t, t):
        output = jnp.broadcast_to(image, x_t.shape)
        return paths.estimate(FLOW, "x0", output, x_t, t)

    found = sample(FLOW, denoise, noise, jnp.asarray(time_grid(FLOW, 1)), STEPS[sampler])
    np.testing.assert_allclose(found, jnp.broadcast_to(image, noise.shape), atol=1e-5)


@each_sampler
@pytest.mark.parametrize("ends", [(1.0, 0.75), (0.25, 0.0)])
def test_passes_and_the_times_of_them(sampler, ends):
    seen = []

    def denoise(x_t, t):
        seen.append(np.asarray(t))
        return paths.Estimate(x_t, x_t)

    x_t = jnp.ones((3, 2, 2, 1))
    STEPS[sampler](FLOW, denoise, x_t, jnp.float32(ends[0]), jnp.float32(ends[1]))
    assert len(seen) == PASSES_PER_STEP[sampler]
    assert all(t.shape == (3,) for t in seen)
    # At t = 0 an x0 prediction says nothing about the noise.
    assert all(max(ends[1], 1e-3) <= t.min() <= t.max() <= ends[0] for t in seen)
    np.testing.assert_array_equal(seen[0], ends[0])


@pytest.mark.parametrize("steps", [1, 2, 7, 50])
@pytest.mark.parametrize("interval", [(0.0, 1.0), (0.05, 0.9)])
def test_time_grid_counts_intervals(steps, interval):
    grid = time_grid(paths.FlowPath(interval), steps)
    assert grid.shape == (steps + 1,)
    assert grid.dtype == np.float32
    np.testing.assert_allclose(grid[[0, -1]], interval[::-1])
    np.testing.assert_allclose(np.diff(grid), -(interval[1] - interval[0]) / steps, rtol=1e-4)


@each_sampler
def test_image_does_not_depend_on_its_neighbours(sampler):
    _, _, all_samples = draw("velocity", sampler, 32, 10)
    _, _, first_samples = draw("velocity", sampler, 8, 10)
    # The noise of both starts alike; a batch of another size is computed in another order.
    np.testing.assert_allclose(first_samples, all_samples[:8], atol=1e-5)
