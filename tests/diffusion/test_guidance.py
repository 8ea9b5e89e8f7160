"""Guidance: its formulas, its passes, the null label, intervals, rescaling and weaker networks."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from mixture_support import PATHS, every_pair

from lensjax.diffusion import paths
from lensjax.diffusion.guidance import (
    Guidance,
    count_passes,
    guide,
    make_classifier_free_pair,
    make_denoiser,
)
from lensjax.diffusion.samplers import SAMPLERS, Problem, SamplerSettings, evaluation_times, sample
from lensjax.diffusion.time_grids import time_grid

NULL = 3
LABELS = jnp.asarray([0, 2, 1, NULL, 2], jnp.int32)
SHAPE = (len(LABELS), 4, 6, 2)
WEIGHTS = (0.0, 0.5, 1.0, 2.0, 5.0)
PARAMS = {"labels": jnp.asarray([0.3, -1.2, 0.8, 2.0])}
FLOW = PATHS["flow"]
TIME = jnp.float32(0.6)

each_weight = pytest.mark.parametrize("weight", WEIGHTS)
each_prediction = pytest.mark.parametrize("prediction", paths.PREDICTIONS)


class Network:
    """A cheap network that depends on all that it is given, and remembers what that was."""

    def __init__(self):
        self.calls = []

    def __call__(self, params, x, t, condition):
        self.calls.append((x, t, condition["label"]))
        label = paths.per_example(params["labels"][condition["label"]], x)
        return jnp.tanh(x * label) + paths.per_example(t, x) * label


def noisy_images():
    return jnp.asarray(np.random.default_rng(0).normal(size=SHAPE), jnp.float32)


def guided(network, guidance, prediction="velocity", path=FLOW, labels=LABELS, **more):
    """The denoiser with classifier-free guidance."""
    of = {"path": path, "prediction": prediction}
    condition = {"label": labels, **more}
    denoise = make_denoiser(network, PARAMS, condition, **of)
    pair = make_classifier_free_pair(network, PARAMS, condition, null_label=NULL, **of)
    return guide(denoise, pair, guidance, path)


def estimates(prediction, path=FLOW, t=TIME, labels=LABELS):
    """What the network says by itself."""
    x_t = noisy_images()
    output = Network()(PARAMS, x_t, jnp.full(len(labels), t), {"label": labels})
    return output, paths.estimate(path, prediction, output, x_t, t)


@pytest.mark.parametrize(
    ("path_name", "prediction", "weight"), every_pair(PATHS, paths.PREDICTIONS, WEIGHTS)
)
def test_formula_holds_for_outputs_and_for_estimates(path_name, prediction, weight):
    path = PATHS[path_name]
    with_label, estimated = estimates(prediction, path)
    without, estimated_without = estimates(prediction, path, labels=jnp.full_like(LABELS, NULL))
    found = guided(Network(), Guidance(weight), prediction, path)(noisy_images(), TIME)
    output = without + weight * (with_label - without)
    expected = paths.estimate(path, prediction, output, noisy_images(), TIME)
    by_estimates = [
        weak + weight * (wanted - weak)
        for wanted, weak in zip(estimated, estimated_without, strict=True)
    ]
    for one, other, third in zip(found, expected, by_estimates, strict=True):
        close = 1e-5 * float(jnp.max(jnp.abs(other))) * max(weight, 1)
        np.testing.assert_allclose(one, other, atol=close)
        np.testing.assert_allclose(one, third, atol=close)


@each_prediction
def test_weight_one_is_the_network_with_label_alone_in_one_pass(prediction):
    network = Network()
    found = guided(network, Guidance(1.0, 0.5, (0.2, 0.3)), prediction)(noisy_images(), TIME)
    ((x, t, labels),) = network.calls
    assert len(x) == len(LABELS)
    np.testing.assert_array_equal(labels, LABELS)
    np.testing.assert_array_equal(t, jnp.full(len(LABELS), TIME))
    np.testing.assert_array_equal(found.x0, estimates(prediction)[1].x0)


@each_prediction
def test_weight_zero_is_the_network_without_label(prediction):
    found = guided(Network(), Guidance(0.0), prediction)(noisy_images(), TIME)
    _, expected = estimates(prediction, labels=jnp.full_like(LABELS, NULL))
    np.testing.assert_allclose(found.x0, expected.x0, atol=1e-5)


def test_second_half_of_the_one_pass_has_the_null_label():
    network = Network()
    guided(network, Guidance(5.0))(noisy_images(), TIME)
    ((x, t, labels),) = network.calls
    np.testing.assert_array_equal(labels, [*LABELS, *[NULL] * len(LABELS)])
    np.testing.assert_array_equal(x, jnp.tile(noisy_images(), (2, 1, 1, 1)))
    np.testing.assert_array_equal(t, jnp.full(2 * len(LABELS), TIME))


def test_null_labels_are_not_moved_by_guidance():
    weak, strong = (
        guided(Network(), Guidance(weight))(noisy_images(), TIME) for weight in (1.0, 5.0)
    )
    same = np.max(np.abs(weak.x0 - strong.x0), axis=(1, 2, 3)) < 1e-6
    np.testing.assert_array_equal(same, LABELS == NULL)


@each_weight
def test_other_conditions_reach_both_halves(weight):
    """A condition beside the label, such as a physical parameter, goes with its own image."""

    def network(params, x, t, condition):
        return paths.per_example(condition["mass"], x) * jnp.ones_like(x)

    mass = jnp.arange(len(LABELS), dtype=jnp.float32)
    found = guided(network, Guidance(weight), "x0", mass=mass)(noisy_images(), TIME).x0
    np.testing.assert_allclose(found, jnp.broadcast_to(mass[:, None, None, None], SHAPE), atol=1e-5)


# Rescaling.


def deviation(images):
    return np.std(np.asarray(images, np.float64), axis=(1, 2, 3))


@pytest.mark.parametrize(
    ("path_name", "prediction", "weight", "share"),
    every_pair(PATHS, paths.PREDICTIONS, [0.0, 3.0], [0.25, 0.5, 1.0]),
)
def test_rescaling_gives_back_the_contrast_of_the_wanted_model(
    path_name, prediction, weight, share
):
    path, x_t = PATHS[path_name], noisy_images()
    plain, rescaled = (
        guided(Network(), Guidance(weight, rescale), prediction, path)(x_t, TIME)
        for rescale in (0.0, share)
    )
    wanted = deviation(estimates(prediction, path)[1].x0)
    before, after = deviation(plain.x0), deviation(rescaled.x0)
    np.testing.assert_allclose(after, share * wanted + (1 - share) * before, rtol=1e-4)
    # Each image by a factor of its own, and the noise is what is then left of x_t.
    factor = (after / before).reshape(-1, 1, 1, 1).astype(np.float32)
    largest = float(np.max(np.abs(rescaled.x0)))
    np.testing.assert_allclose(rescaled.x0, factor * plain.x0, atol=1e-4 * largest)
    together = path.alpha(TIME) * rescaled.x0 + path.sigma(TIME) * rescaled.eps
    np.testing.assert_allclose(together, x_t, atol=1e-5 * max(largest, 1))


def test_rescaling_an_image_of_one_value_leaves_it():
    def network(params, x, t, condition):
        return jnp.ones_like(x)

    found = guided(network, Guidance(3.0, 1.0), "x0")(noisy_images(), TIME)
    assert np.isfinite(found.x0).all()


# Intervals.


@pytest.mark.parametrize(
    ("time", "inside"),
    [(0.2, True), (0.5, True), (0.7, True), (0.19999, False), (0.70001, False), (1.0, False)],
)
def test_outside_its_interval_guidance_costs_no_pass(time, inside):
    network, guidance = Network(), Guidance(3.0, interval=(0.2, 0.7))
    t = jnp.float32(time)
    with jax.disable_jit():  # so that a branch that is not taken is not looked at
        found = guided(network, guidance)(noisy_images(), t)
    ((x, _, _),) = network.calls
    assert len(x) == (2 if inside else 1) * len(LABELS)
    assert count_passes(guidance, np.asarray([t])) == (2 if inside else 1)
    unlimited = guided(Network(), Guidance(3.0))(noisy_images(), t)
    alone = guided(Network(), Guidance(1.0))(noisy_images(), t)
    np.testing.assert_allclose(found.x0, (unlimited if inside else alone).x0, atol=1e-5)


def test_an_interval_over_all_usable_times_needs_no_branch():
    for interval, branches in (((0.0, 1.0), 0), ((0.0, 0.9), 1), ((0.1, 1.0), 1)):
        denoise = guided(Network(), Guidance(3.0, interval=interval))
        text = str(jax.make_jaxpr(denoise)(noisy_images(), TIME))
        assert text.count("cond[") == branches


def images_seen(path_name: str, sampler: str, interval: tuple[float, float], weight: float) -> int:
    """How many images the network is really given, counted while the program runs."""
    path, seen = PATHS[path_name], []

    def network(params, x, t, condition):
        jax.debug.callback(lambda: seen.append(len(x)))
        return 0.5 * x

    times = jnp.asarray(time_grid(path, 6, "karras"))
    problem = Problem(
        path,
        guided(network, Guidance(weight, interval=interval), "x0", path),
        SamplerSettings(sampler),
        6,
    )
    keys = jax.random.split(jax.random.key(0), len(LABELS))
    jax.jit(lambda noise: sample(problem, noise, times, keys))(noisy_images())
    jax.effects_barrier()
    return sum(seen)


@pytest.mark.parametrize(
    ("sampler", "path_name"), list(zip(SAMPLERS, itertools.cycle(["flow", "edm"]), strict=False))
)
def test_passes_of_a_compiled_sampler_are_those_that_are_counted(sampler, path_name):
    """Of a narrow interval: a compiler could turn the branch into a choice of two results."""
    settings, interval = SamplerSettings(sampler), (0.3, 0.8)
    asked = evaluation_times(PATHS[path_name], settings, time_grid(PATHS[path_name], 6, "karras"))
    passes = count_passes(Guidance(3.0, interval=interval), asked)
    assert len(asked) < passes < 2 * len(asked)
    assert images_seen(path_name, sampler, interval, 3.0) == passes * len(LABELS)
    assert count_passes(Guidance(1.0, interval=interval), asked) == len(asked)
    assert count_passes(Guidance(3.0), asked) == 2 * len(asked)


def test_a_weak_model_that_fails_outside_the_interval_spoils_nothing():
    def weak(x_t, t):
        bad = jnp.where(t > 0.5, jnp.nan, 1.0)
        return paths.estimate(FLOW, "x0", bad * x_t, x_t, t)

    def wanted(x_t, t):
        return paths.estimate(FLOW, "x0", 0.5 * x_t, x_t, t)

    guidance = Guidance(2.0, interval=(0.0, 0.5))
    denoise = jax.jit(guide(wanted, lambda x, t: (wanted(x, t), weak(x, t)), guidance, FLOW))
    for time in (0.1, 0.5, 0.51, 1.0):
        found = denoise(noisy_images(), jnp.float32(time)).x0
        weight = 0.0 if time <= 0.5 else 0.5  # 1 + 2 (0.5 - 1) inside
        np.testing.assert_allclose(found, weight * noisy_images(), atol=1e-6)


# A weaker network as the guide.


@pytest.mark.parametrize(
    ("prediction", "weight", "interval"),
    every_pair(paths.PREDICTIONS, [0.0, 2.0, 5.0], [(0.0, 1.0), (0.3, 0.5)]),
)
def test_autoguidance_pushes_away_from_another_network(prediction, weight, interval):
    """The guide may predict something else, and gets the labels too."""
    x_t, calls = noisy_images(), []

    def worse(params, x, t, condition):
        calls.append(condition["label"])
        return 0.3 * x + paths.per_example(condition["label"].astype(x.dtype), x)

    wanted = make_denoiser(Network(), PARAMS, {"label": LABELS}, path=FLOW, prediction=prediction)
    weak = make_denoiser(worse, {}, {"label": LABELS}, path=FLOW, prediction="x0")
    denoise = guide(
        wanted,
        lambda x, t: (wanted(x, t), weak(x, t)),
        Guidance(weight, interval=interval),
        FLOW,
    )
    found, expected = denoise(x_t, TIME).x0, wanted(x_t, TIME).x0
    if interval == (0.0, 1.0):
        guide_says = 0.3 * x_t + paths.per_example(LABELS.astype(jnp.float32), x_t)
        expected = guide_says + weight * (expected - guide_says)
    np.testing.assert_allclose(found, expected, atol=1e-5 * max(1, weight))
    np.testing.assert_array_equal(calls[0], LABELS)
