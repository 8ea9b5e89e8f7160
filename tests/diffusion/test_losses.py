"""The loss against its formulas, and its random numbers against closed forms."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from mixture_support import PATHS, every_pair
from scipy.special import logit
from support import loss_settings

from lensjax import prng
from lensjax.data.pipeline import make_batch_fn
from lensjax.data.scaling import Scaling
from lensjax.diffusion import paths
from lensjax.diffusion.losses import (
    LOSS_SPACES,
    TIME_DISTRIBUTIONS,
    draw_times,
    error_weight,
    make_loss_fn,
    squared_error,
)
from lensjax.diffusion.paths import PREDICTIONS
from lensjax.diffusion.schedules import TablePath, ddpm_betas
from lensjax.interfaces import Batch, Places

pytestmark = pytest.mark.usefixtures("quick_compiles")
FLOW = paths.FlowPath()
MANY, SOME = 20_000, 1_000  # few sizes, since each is compiled again
IMAGE = (2, 3, 1)
MIN_SIGMA = 0.05
SHAPE = (5, 3, 4, 2)

each_path = pytest.mark.parametrize("name", PATHS)
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


def drawn(seed: int = 0) -> tuple[jax.Array, jax.Array, jax.Array]:
    random = np.random.default_rng(seed)
    x0, eps, output = (jnp.asarray(random.normal(size=SHAPE), jnp.float32) for _ in range(3))
    return x0, eps, output


def noisy_times(name: str, least_sigma: float = MIN_SIGMA) -> jax.Array:
    """Times from the first one with this much noise to the last that every prediction can use."""
    path = paths.usable(PATHS[name], "score")
    alpha = 1 if name == "edm" else 1 - least_sigma if name == "flow" else np.sqrt(1 - 0.0025)
    first = path.time_of_log_snr(jnp.float32(2 * np.log(alpha / least_sigma)))
    shares = jnp.asarray([1e-3, 0.1, 0.4, 0.7, 1.0])
    return first + (path.interval[1] - first) * shares


def mean_square(error) -> np.ndarray:
    return np.mean(np.square(np.asarray(error, np.float64)), axis=(1, 2, 3))


@pytest.mark.parametrize(
    ("name", "prediction", "space"), every_pair(PATHS, PREDICTIONS, LOSS_SPACES)
)
def test_any_output_has_the_error_of_what_it_implies_in_each_space(name, prediction, space):
    path, t = PATHS[name], noisy_times(name)
    x0, eps, wrong = drawn()
    # A wrong output that implies images of order 1.
    size = jnp.abs(paths.error_factor(path, "v", prediction, t, 0.0))
    perfect = paths.target(path, prediction, x0, eps, t)
    output = perfect + 0.3 * wrong * paths.per_example(size, x0)
    x_t = paths.interpolate(path, x0, eps, t)
    implied = paths.estimate(path, prediction, output, x_t, t)
    settings = loss_settings(prediction=prediction, space=space)
    found = squared_error(path, settings, output, x0, eps, t)
    error = np.asarray(paths.target(path, space, *implied, t), np.float64) - np.asarray(
        paths.target(path, space, x0, eps, t), np.float64
    )
    assert found.shape == t.shape
    np.testing.assert_allclose(found, mean_square(error), rtol=2e-3)
    assert np.max(squared_error(path, settings, perfect, x0, eps, t)) < 1e-10


@pytest.mark.parametrize("t", [0.0, 1e-6, 0.01, 0.049])
def test_velocity_loss_of_x0_prediction_is_bounded_near_the_data(t):
    x0, eps, output = drawn()
    times = jnp.full(len(x0), t)
    settings = loss_settings(prediction="x0", space="velocity", min_sigma=MIN_SIGMA)
    found = squared_error(FLOW, settings, output, x0, eps, times)
    np.testing.assert_allclose(found, mean_square(output - x0) / MIN_SIGMA**2, rtol=1e-5)


def test_pixels_that_are_no_measurement_carry_no_loss():
    x0, eps, output = drawn()
    t = jnp.linspace(0.1, 0.9, len(x0))
    measured = np.random.default_rng(1).random(SHAPE) < 0.7
    error = np.asarray(output - (eps - x0), np.float64)
    expected = [np.mean(np.square(one[kept])) for one, kept in zip(error, measured, strict=True)]
    found = squared_error(FLOW, loss_settings(), output, x0, eps, t, jnp.asarray(measured))
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_weights_of_pixels_against_the_weighted_mean():
    x0, eps, output = drawn()
    t = jnp.linspace(0.1, 0.9, len(x0))
    weight = np.random.default_rng(1).gamma(1.0, 1.0, SHAPE) * (
        np.random.default_rng(2).random(SHAPE) < 0.7
    )
    error = np.square(np.asarray(output - (eps - x0), np.float64))
    expected = (weight * error).sum((1, 2, 3)) / weight.sum((1, 2, 3))
    settings = loss_settings()
    found = squared_error(FLOW, settings, output, x0, eps, t, None, jnp.asarray(weight))
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    # Equal weights are no weights, and an image without any weight has no loss.
    alike = squared_error(FLOW, settings, output, x0, eps, t, None, jnp.full(SHAPE, 3.0))
    np.testing.assert_allclose(alike, squared_error(FLOW, settings, output, x0, eps, t), rtol=1e-5)
    nothing = squared_error(FLOW, settings, output, x0, eps, t, None, jnp.zeros(SHAPE))
    np.testing.assert_array_equal(nothing, 0)


def test_an_image_with_a_noisy_half_is_learned_from_the_other():
    """Ten times the noise in the right half: the best brightness of each row, in closed form."""
    rows, columns, num = 6, 16, 40
    rng = np.random.default_rng(0)
    truth = rng.random(rows)
    sigma = np.where(np.arange(columns) < columns // 2, 0.1, 1.0)
    images = truth[:, None] + sigma * rng.normal(size=(num, rows, columns))
    flux = jnp.asarray(images[..., None], jnp.float32)
    variance = jnp.broadcast_to(jnp.asarray(sigma[:, None] ** 2, jnp.float32), flux.shape)

    def gather(step, places):
        return Batch(flux, jnp.zeros(num, jnp.int32), variance=variance)

    batch_fn = make_batch_fn(
        gather, Scaling("linear", 0.0, 1.0), lambda key, image: image, 0, masked=False
    )
    weighted = batch_fn(jnp.int32(0), Places(jnp.arange(num), num))

    def apply(params, x, t, condition):  # it predicts one brightness for each row
        return jnp.broadcast_to(params[:, None, None], x.shape)

    loss_fn = make_loss_fn(apply, FLOW, loss_settings(prediction="x0", space="x0"))

    def learned(batch: Batch) -> np.ndarray:
        start = jnp.zeros(rows)
        gradient = jax.grad(loss_fn)(start, batch, example_keys(num))
        curvature = jax.hessian(loss_fn)(start, batch, example_keys(num))
        return np.asarray(start - jnp.linalg.solve(curvature, gradient))

    # The median variance lies between both halves; the weight of the quiet one stops at 10.
    weight = np.minimum((0.1**2 + 1.0**2) / 2 / sigma**2, 10)
    expected = (weight * images).sum((0, 2)) / (num * weight.sum())
    np.testing.assert_allclose(learned(weighted), expected, atol=1e-4)
    error = np.abs(learned(weighted) - truth).mean()
    without = np.abs(learned(Batch(flux, weighted.label)) - truth).mean()
    quiet_half = np.abs(images[..., : columns // 2].mean((0, 2)) - truth).mean()
    assert error < 1.5 * quiet_half < 0.4 * without


# Weights.


@each_path
@pytest.mark.parametrize("gamma", [1.0, 5.0])
def test_min_snr_is_that_of_its_paper_for_each_prediction(name, gamma):
    """Hang et al. (arXiv:2303.09556, section 3.4): min(SNR, gamma) of errors in x0 is
    min(SNR, gamma) / SNR of those in the noise, and / (SNR + 1) of those in v."""
    path, t = PATHS[name], noisy_times(name)
    x0, eps, output = drawn()
    snr = np.exp(np.asarray(paths.log_snr(path, t), np.float64))
    least = np.minimum(snr, gamma)
    expected = {"x0": least, "eps": least / snr}
    if name not in ("flow", "edm"):  # where alpha^2 + sigma^2 = 1
        expected["v"] = least / (snr + 1)
    for prediction, weight in expected.items():
        settings = loss_settings(
            prediction=prediction, space="x0", weight="min_snr", min_snr_gamma=gamma
        )
        found = squared_error(path, settings, output, x0, eps, t)
        error = output - paths.target(path, prediction, x0, eps, t)
        np.testing.assert_allclose(found, weight * mean_square(error), rtol=2e-3)


@pytest.mark.parametrize("std", [0.5, 1.3])
def test_edm_weight_is_that_of_its_paper(std):
    """Karras et al. (arXiv:2206.00364, table 1): (sigma^2 + std^2) / (sigma std)^2."""
    sigma = np.array([0.06, 0.3, 0.5, 2.0, 79.0])
    t = PATHS["edm"].time_of_log_snr(jnp.asarray(-2 * np.log(sigma), jnp.float32))
    found = error_weight(PATHS["edm"], loss_settings(weight="edm", data_std=std), t)
    np.testing.assert_allclose(found, (sigma**2 + std**2) / (sigma * std) ** 2, rtol=1e-4)
    if std == 0.5:
        assert found[2] == pytest.approx(8.0, rel=1e-4)


@each_path
def test_edm_weight_of_any_path_is_that_at_the_same_noise_over_data(name):
    path, t = PATHS[name], noisy_times(name)
    ratio = np.exp(-np.asarray(paths.log_snr(path, t), np.float64) / 2)
    found = error_weight(path, loss_settings(weight="edm", data_std=0.4), t)
    np.testing.assert_allclose(found, (ratio**2 + 0.16) / (ratio * 0.4) ** 2, rtol=1e-3)


@pytest.mark.parametrize(("weight", "most"), [("min_snr", 5.0), ("edm", 4 + 1 / 0.01)])
def test_weights_are_bounded_where_there_is_no_noise(weight, most):
    settings = loss_settings(weight=weight, min_sigma=0.1)
    t = jnp.asarray([0.0, 1e-6, 1e-3])
    found = error_weight(FLOW, settings, t)
    np.testing.assert_allclose(found, most, rtol=5e-3)
    np.testing.assert_array_equal(error_weight(FLOW, loss_settings(), t), 1)


@each_path
@pytest.mark.parametrize("weight", ["uniform", "min_snr", "edm"])
def test_the_same_guess_has_the_same_weighted_loss_whatever_is_predicted(name, weight):
    path, t = PATHS[name], noisy_times(name)
    x0, eps, wrong = drawn()
    x_t = paths.interpolate(path, x0, eps, t)
    sigma = paths.per_example(path.sigma(t), x0)
    guess = x0 + 0.3 * jnp.minimum(1, sigma) * wrong
    implied = paths.estimate(path, "x0", guess, x_t, t)
    settings = loss_settings(space="x0", weight=weight)
    expected = np.asarray(error_weight(path, settings, t)) * mean_square(guess - x0)
    for prediction in PREDICTIONS:
        output = paths.target(path, prediction, *implied, t)
        found = squared_error(path, settings._replace(prediction=prediction), output, x0, eps, t)
        np.testing.assert_allclose(found, expected, rtol=5e-3, err_msg=prediction)


# The whole loss.


@pytest.mark.parametrize(
    ("name", "prediction"),
    list(zip(PATHS, ("velocity", "x0", "eps", "score", "v", "x0"), strict=True)),
)
def test_network_that_knows_the_only_image_has_no_loss(name, prediction):
    path = paths.usable(PATHS[name], prediction)
    image = jnp.asarray(np.random.default_rng(2).normal(size=(1, *IMAGE)), jnp.float32)

    def network(params, x, t, condition):
        x0 = jnp.broadcast_to(image, x.shape)
        times = paths.per_example(t, x)
        eps = (x - path.alpha(times) * x0) / path.sigma(times)
        return paths.target(path, prediction, x0, eps, t)

    settings = loss_settings(prediction=prediction, space="x0")
    loss_fn = make_loss_fn(network, path, settings)
    batch = Batch(jnp.repeat(image, SOME, axis=0), jnp.zeros(SOME, jnp.int32))
    loss = loss_fn({}, batch, example_keys(SOME))
    assert loss.shape == ()
    assert loss.dtype == jnp.float32
    assert float(loss) < 1e-7


@pytest.mark.parametrize("space", LOSS_SPACES)
def test_loss_is_the_mean_over_examples(space):
    settings = loss_settings(prediction="x0", space=space, min_sigma=0.2)
    random = np.random.default_rng(3)
    images = jnp.asarray(random.normal(size=(SOME, *IMAGE)), jnp.float32)
    batch = Batch(images, jnp.zeros(SOME, jnp.int32))
    seen = Recorder()
    loss = make_loss_fn(seen, FLOW, settings)({}, batch, example_keys(SOME))
    t, x_t = jnp.asarray(seen.t), jnp.asarray(seen.x)
    eps = paths.estimate(FLOW, "x0", images, x_t, t).eps
    errors = squared_error(FLOW, settings, x_t, images, eps, t)
    np.testing.assert_allclose(loss, np.mean(errors), rtol=1e-4)


# Times.

NARROWED = {"whole": (0.0, 1.0), "narrowed": (0.1, 0.8)}
# Other settings, and the distribution function of the shares of the interval that they draw.
SHARES = {
    "uniform": ({}, lambda share: share),
    "logit_normal": (
        {"time_mean": -0.8, "time_std": 0.6},
        lambda share: scipy.stats.norm(-0.8, 0.6).cdf(logit(share)),
    ),
}
LOG_NORMAL = {"time_distribution": "log_normal_sigma", "time_mean": -1.2, "time_std": 1.2}


def log_ratio(path: paths.Path, t) -> np.ndarray:
    """log(sigma / alpha) in float64."""
    t = jnp.asarray(t, jnp.float32)
    return -np.asarray(paths.log_snr(path, t), np.float64) / 2


@pytest.mark.parametrize("ends", NARROWED.values(), ids=NARROWED)
@pytest.mark.parametrize(("mean", "std"), [(0.0, 1.0), (-0.8, 0.6), (1.2, 1.6)])
def test_logit_normal_times(mean, std, ends):
    settings = loss_settings(time_distribution="logit_normal", time_mean=mean, time_std=std)
    t = draw_times(example_keys(MANY), settings, FLOW.narrowed(*ends))
    found = logit((np.asarray(t, np.float64) - ends[0]) / (ends[1] - ends[0]))
    assert scipy.stats.kstest(found, "norm", (mean, std)).pvalue > 1e-3


@pytest.mark.parametrize("name", ["flow", "linear", "cosine", "edm"])
@pytest.mark.parametrize("distribution", SHARES)
def test_times_of_a_path_in_continuous_time(name, distribution):
    path = PATHS[name]
    changes, cdf = SHARES[distribution]
    settings = loss_settings(time_distribution=distribution, **changes)
    t = np.asarray(draw_times(example_keys(MANY), settings, path), np.float64)
    first, last = path.interval
    assert first <= np.min(t) < np.max(t) <= last
    assert scipy.stats.kstest((t - first) / (last - first), cdf).pvalue > 1e-3


@each_distribution
def test_times_of_a_table_are_those_of_its_entries(distribution):
    settings = loss_settings(time_distribution=distribution)
    for name in ("linear table", "cosine table"):
        path = paths.usable(PATHS[name], "eps")
        t = np.asarray(draw_times(example_keys(MANY), settings, path), np.float64) * 1000
        np.testing.assert_allclose(t, np.round(t), atol=1e-4)
        used = round(path.interval[1] * 1000)
        assert np.min(np.round(t)) >= 1
        assert np.max(np.round(t)) <= used
        if distribution == "uniform":
            counts, _ = np.histogram(np.round(t), bins=10, range=(0.5, used + 0.5))
            expected = np.diff(np.floor(np.linspace(0.5, used + 0.5, 11))) / used * MANY
            assert scipy.stats.chisquare(counts, expected).pvalue > 1e-3


def distance_to_clipped_normal(values: np.ndarray, low: float, high: float) -> float:
    """Largest distance of the distribution functions strictly between the ends."""
    normal = scipy.stats.norm(LOG_NORMAL["time_mean"], LOG_NORMAL["time_std"])
    inside = np.sort(values)
    ranks = np.arange(1, len(values) + 1) / len(values)
    kept = (inside > low + 1e-3) & (inside < high - 1e-3)
    assert np.sum(kept) > len(values) / 2
    return float(np.max(np.abs(normal.cdf(inside[kept]) - ranks[kept])))


@each_path
@pytest.mark.parametrize("stratified", [False, True])
def test_log_normal_noise_levels(name, stratified):
    """Normal in log(sigma / alpha), what lies beyond the path's ends at the ends."""
    path = PATHS[name]
    settings = loss_settings(**LOG_NORMAL, stratified=stratified)
    t = np.asarray(draw_times(example_keys(MANY), settings, path))
    low, high = (float(log_ratio(path, end)) for end in path.interval)
    assert path.interval[0] - 1e-6 <= np.min(t) < np.max(t) <= path.interval[1]
    far = 1.95 / np.sqrt(MANY)  # once in a thousand draws
    if "table" in name:  # an entry takes the place of all noise levels next to it
        far += 0.005
    assert distance_to_clipped_normal(log_ratio(path, t), low, high) < far


def test_log_normal_noise_levels_beyond_the_path_fall_on_its_ends():
    path = PATHS["edm"].narrowed(0.3, 0.5)
    settings = loss_settings(**LOG_NORMAL)
    t = np.asarray(draw_times(example_keys(MANY), settings, path), np.float64)
    for end, sign in zip(path.interval, (1, -1), strict=True):
        z = (float(log_ratio(path, end)) + 1.2) / 1.2
        expected = scipy.stats.norm.cdf(sign * z)
        share = np.mean(np.abs(t - end) < 1e-6)
        assert share == pytest.approx(expected, abs=4 * np.sqrt(expected / MANY))
        assert expected > 0.05


@pytest.mark.parametrize("stratified", [False, True])
@pytest.mark.parametrize("share", [0.1, 0.7, 1.0])
def test_a_share_of_the_times_is_uniform(share, stratified):
    settings = loss_settings(
        time_distribution="logit_normal",
        time_mean=0.5,
        time_std=0.4,
        uniform_share=share,
        stratified=stratified,
    )
    t = np.asarray(draw_times(example_keys(MANY), settings, FLOW.narrowed(0.1, 0.9)), np.float64)

    def cdf(times):
        places = np.clip((times - 0.1) / 0.8, 0, 1)
        with np.errstate(divide="ignore"):
            return share * places + (1 - share) * scipy.stats.norm(0.5, 0.4).cdf(logit(places))

    assert scipy.stats.kstest(t, cdf).pvalue > 1e-3
    if stratified:  # and each part of it is even in itself
        first = np.sort(t[: round(share * MANY)])
        np.testing.assert_allclose(first, np.linspace(0.1, 0.9, len(first)), atol=1e-3)


@each_distribution
@each_path
def test_times_are_finite_however_wide_the_distribution(name, distribution):
    path = PATHS[name]
    settings = loss_settings(time_distribution=distribution, time_mean=-9.0, time_std=30.0)
    t = np.asarray(draw_times(example_keys(SOME), settings, path))
    assert t.dtype == np.float32
    assert np.all((t >= path.interval[0] - 1e-6) & (t <= path.interval[1] + 1e-6))


BATCH = 8


def strata(distribution: str) -> np.ndarray:
    """Places of the times in their distribution, in [0, 1]: many batches of 8, `[N, 8]`."""
    settings = loss_settings(
        time_distribution=distribution, time_mean=0.4, time_std=0.7, stratified=True
    )
    keys = example_keys(MANY).reshape(-1, BATCH)
    t = np.asarray(jax.vmap(lambda keys: draw_times(keys, settings, FLOW))(keys), np.float64)
    if distribution == "uniform":
        return t
    value = logit(t) if distribution == "logit_normal" else log_ratio(FLOW, t)
    return scipy.stats.norm(0.4, 0.7).cdf(value)


@each_distribution
def test_stratified_examples_each_have_their_own_part_of_the_distribution(distribution):
    places = strata(distribution)
    parts = places * BATCH - np.arange(BATCH)
    assert -1e-4 < np.min(parts) < 0.01
    assert 0.99 < np.max(parts) < 1 + 1e-4
    for one in parts.T:  # uniform within the part
        assert scipy.stats.kstest(np.clip(one, 0, 1), "uniform").pvalue > 1e-4
    assert np.max(np.abs(np.corrcoef(parts.T) - np.eye(BATCH))) < 4.5 * np.sqrt(BATCH / MANY)


@each_distribution
def test_stratified_times_have_the_distribution_and_steadier_means(distribution):
    places = strata(distribution)
    assert scipy.stats.kstest(places.ravel(), "uniform").pvalue > 1e-3
    # A mean of B uniform numbers has the variance 1 / (12 B), of B strata 1 / (12 B^3).
    variance = np.var(places.mean(axis=1))
    assert variance * 12 * BATCH**3 == pytest.approx(1, rel=0.1)


def test_a_table_of_few_entries_is_covered_evenly_by_a_stratified_batch():
    path = TablePath.from_betas(ddpm_betas("linear", 25, 0.1, 20.0))
    t = draw_times(example_keys(SOME), loss_settings(stratified=True), path)
    _, counts = np.unique(np.round(np.asarray(t) * 25), return_counts=True)
    np.testing.assert_array_equal(counts, SOME // 25)


@each_distribution
def test_loss_draws_times_of_the_settings(distribution):
    changes = {"time_distribution": distribution, "time_mean": 0.7, "time_std": 0.5}
    t = np.asarray(record(blank(MANY), example_keys(MANY), **changes).t, np.float64)
    normal = scipy.stats.norm(0.7, 0.5)
    closed_form = {
        "uniform": lambda t: t,
        "logit_normal": lambda t: normal.cdf(logit(t)),
    }
    # On the straight path log(sigma / alpha) is the logit of t.
    closed_form["log_normal_sigma"] = closed_form["logit_normal"]
    for name, distribution_function in closed_form.items():
        fits = scipy.stats.kstest(t, distribution_function).pvalue > 1e-3
        assert fits == ((name == "uniform") == (distribution == "uniform"))


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
