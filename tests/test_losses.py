"""The loss against its formulas, and its random numbers against closed forms."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from support import loss_settings

from lensjax import paths, prng
from lensjax.losses import (
    LOSS_SPACES,
    TIME_DISTRIBUTIONS,
    Batch,
    draw_times,
    make_loss_fn,
    squared_error,
)

FLOW = paths.FlowPath()
MANY, SOME = 20_000, 1_000  # few sizes, since each is compiled again
IMAGE = (2, 3, 1)
MIN_SIGMA = 0.05
TIMES = np.array([MIN_SIGMA, 0.1, 0.4, 0.7, 1.0], np.float32)
SHAPE = (len(TIMES), 3, 4, 2)
PREDICTION_BY_SPACE = list(itertools.product(paths.PREDICTIONS, LOSS_SPACES))

each_pair = pytest.mark.parametrize(("prediction", "space"), PREDICTION_BY_SPACE)
each_distribution = pytest.mark.parametrize("distribution", TIME_DISTRIBUTIONS)


def example_keys(num: int, step: int = 0, seed: int = 0):
    return prng.keys(prng.key(seed, "loss", step), jnp.arange(num))


class Recorder:
    """An apply function that keeps what it was given."""

    def __call__(self, params, x, t, condition):
        self.x, self.t, self.label = (np.asarray(one) for one in (x, t, condition["label"]))
        return x


def record(batch: Batch, keys, **changes) -> Recorder:
    recorder = Recorder()
    make_loss_fn(recorder, FLOW, loss_settings(**changes))({}, batch, keys)
    return recorder


def blank(num: int) -> Batch:
    """Black images: what the network then sees is t eps."""
    return Batch(jnp.zeros((num, *IMAGE)), jnp.arange(num, dtype=jnp.int32) % 2)


def drawn(seed: int = 0):
    random = np.random.default_rng(seed)
    x0, eps, output = (jnp.asarray(random.normal(size=SHAPE), jnp.float32) for _ in range(3))
    t = jnp.asarray(TIMES)
    return x0, eps, output, paths.interpolate(FLOW, x0, eps, t), t


@each_pair
def test_any_output_has_the_error_of_what_it_implies(prediction, space):
    x0, eps, output, x_t, t = drawn()
    settings = loss_settings(prediction=prediction, space=space)
    found = squared_error(FLOW, settings, output, x0, eps, x_t, t)
    implied = paths.estimate(FLOW, prediction, output, x_t, t)
    found_of, true_of = {
        "x0": (implied.x0, x0),
        "velocity": (paths.velocity(FLOW, implied, t), eps - x0),
    }[space]
    error = found_of - true_of
    expected = np.mean(np.square(np.asarray(error, np.float64)), axis=(1, 2, 3))
    assert found.shape == (len(TIMES),)
    assert np.min(expected) > 1e-3
    np.testing.assert_allclose(found, expected, rtol=1e-4)


@each_pair
def test_perfect_output_has_no_loss(prediction, space):
    x0, eps, _, x_t, t = drawn()
    settings = loss_settings(prediction=prediction, space=space)
    output = paths.target(FLOW, prediction, x0, eps, t)
    assert np.max(squared_error(FLOW, settings, output, x0, eps, x_t, t)) < 1e-10


@pytest.mark.parametrize("t", [0.0, 1e-6, 0.01, 0.049])
def test_velocity_loss_of_x0_prediction_is_bounded_near_the_data(t):
    x0, eps, output, _, _ = drawn()
    times = jnp.full(len(TIMES), t)
    settings = loss_settings(prediction="x0", space="velocity", min_sigma=MIN_SIGMA)
    found = squared_error(FLOW, settings, output, x0, eps, x0, times)
    expected = np.mean(np.square(output - x0), axis=(1, 2, 3)) / MIN_SIGMA**2
    np.testing.assert_allclose(found, expected, rtol=1e-5)


@each_distribution
@each_pair
def test_network_that_knows_the_only_image_has_no_loss(prediction, space, distribution):
    image = jnp.asarray(np.random.default_rng(2).normal(size=(1, *IMAGE)), jnp.float32)

    def network(params, x, t, condition):
        if prediction == "x0":
            return jnp.broadcast_to(image, x.shape)
        return (x - jnp.broadcast_to(image, x.shape)) / paths.per_example(t, x)

    settings = loss_settings(prediction=prediction, space=space, time_distribution=distribution)
    loss_fn = make_loss_fn(network, FLOW, settings)
    batch = Batch(jnp.repeat(image, SOME, axis=0), jnp.zeros(SOME, jnp.int32))
    loss = loss_fn({}, batch, example_keys(SOME))
    assert loss.shape == ()
    assert loss.dtype == jnp.float32
    assert float(loss) < 1e-7


@each_pair
def test_loss_is_the_mean_over_examples(prediction, space):
    settings = loss_settings(prediction=prediction, space=space)
    random = np.random.default_rng(3)
    images = jnp.asarray(random.normal(size=(SOME, *IMAGE)), jnp.float32)
    batch = Batch(images, jnp.zeros(SOME, jnp.int32))
    seen = Recorder()
    loss = make_loss_fn(seen, FLOW, settings)({}, batch, example_keys(SOME))
    t, x_t = jnp.asarray(seen.t), jnp.asarray(seen.x)
    eps = paths.estimate(FLOW, "x0", images, x_t, t).eps
    errors = squared_error(FLOW, settings, x_t, images, eps, x_t, t)
    np.testing.assert_allclose(loss, np.mean(errors), rtol=1e-4)


@pytest.mark.parametrize(("t_min", "t_max"), [(0.0, 1.0), (0.1, 0.8)])
def test_uniform_times(t_min, t_max):
    settings = loss_settings(time_distribution="uniform")
    t = jax.vmap(lambda key: draw_times(key, settings, t_min, t_max))(example_keys(MANY))
    assert t_min <= np.min(t) < np.max(t) <= t_max
    assert scipy.stats.kstest(t, "uniform", (t_min, t_max - t_min)).pvalue > 1e-3


@pytest.mark.parametrize(("t_min", "t_max"), [(0.0, 1.0), (0.1, 0.8)])
@pytest.mark.parametrize(("mean", "std"), [(0.0, 1.0), (-0.8, 0.6), (1.2, 1.6)])
def test_logit_normal_times(mean, std, t_min, t_max):
    settings = loss_settings(time_distribution="logit_normal", logit_mean=mean, logit_std=std)
    t = jax.vmap(lambda key: draw_times(key, settings, t_min, t_max))(example_keys(MANY))
    logit = scipy.special.logit((np.asarray(t, np.float64) - t_min) / (t_max - t_min))
    assert scipy.stats.kstest(logit, "norm", (mean, std)).pvalue > 1e-3


@each_distribution
def test_loss_draws_times_of_the_settings(distribution):
    changes = {"time_distribution": distribution, "logit_mean": 0.7, "logit_std": 0.5}
    t = np.asarray(record(blank(MANY), example_keys(MANY), **changes).t, np.float64)
    logit_normal = scipy.stats.norm(0.7, 0.5)
    closed_form = {
        "uniform": lambda t: t,
        "logit_normal": lambda t: logit_normal.cdf(scipy.special.logit(t)),
    }
    for name, distribution_function in closed_form.items():
        fits = scipy.stats.kstest(t, distribution_function).pvalue > 1e-3
        assert fits == (name == distribution)


def test_noise_is_standard_normal():
    seen = record(blank(MANY), example_keys(MANY))
    eps = seen.x / seen.t.reshape(-1, 1, 1, 1)
    assert scipy.stats.kstest(eps.ravel(), "norm").pvalue > 1e-3
    correlation = np.corrcoef(eps.reshape(MANY, -1).T) - np.eye(6)
    assert np.max(np.abs(correlation)) < 4 / np.sqrt(MANY)


@pytest.mark.parametrize("rate", [0.0, 0.1, 0.5, 1.0])
@pytest.mark.parametrize("null_label", [2, 5])
def test_labels_are_dropped_one_by_one(rate, null_label):
    batch = blank(MANY)
    label = record(batch, example_keys(MANY), label_drop=rate, null_label=null_label).label
    dropped = label == null_label
    np.testing.assert_array_equal(label[~dropped], batch.label[~dropped])
    for original in (0, 1):
        share = np.mean(dropped[batch.label == original])
        assert abs(share - rate) <= 4 * np.sqrt(rate * (1 - rate) / (MANY / 2))
    # A run of batches that drop all of their labels or none would have the same rate.
    small = dropped.reshape(-1, 20).sum(axis=1)
    assert np.var(small) == pytest.approx(20 * rate * (1 - rate), rel=0.15)


def test_labels_that_are_null_stay_null():
    batch = blank(SOME)._replace(label=jnp.full(SOME, 2))
    assert np.all(record(batch, example_keys(SOME), label_drop=0.3).label == 2)


def test_time_noise_and_label_drop_are_independent():
    seen = record(blank(MANY), example_keys(MANY), label_drop=0.5)
    eps = seen.x / seen.t.reshape(-1, 1, 1, 1)
    drawn = np.stack(
        [seen.t, *eps.reshape(MANY, -1).T, np.square(eps[:, 0, 0, 0]), seen.label == 2]
    )
    correlation = np.corrcoef(drawn) - np.eye(len(drawn))
    assert np.max(np.abs(correlation)) < 4.5 / np.sqrt(MANY)


def test_an_example_does_not_depend_on_the_rest_of_the_batch():
    whole = record(blank(SOME), example_keys(SOME), label_drop=0.5)
    some = np.array([811, 2, 7])
    batch = jax.tree.map(lambda x: x[some], blank(SOME))
    part = record(batch, example_keys(SOME)[some], label_drop=0.5)
    for name in ("x", "t", "label"):
        np.testing.assert_array_equal(getattr(part, name), getattr(whole, name)[some])


@pytest.mark.parametrize("change", [{"seed": 1}, {"step": 1}])
def test_seed_and_step_change_every_draw(change):
    first = record(blank(SOME), example_keys(SOME))
    other = record(blank(SOME), example_keys(SOME, **change))
    assert not np.any(first.t == other.t)
    assert abs(np.corrcoef(first.t, other.t)[0, 1]) < 4 / np.sqrt(SOME)
    assert abs(np.corrcoef(first.x.ravel(), other.x.ravel())[0, 1]) < 4 / np.sqrt(6 * SOME)
