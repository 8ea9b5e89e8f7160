"""Classifier-free guidance: its formula, its number of passes, and the null label."""

import jax.numpy as jnp
import numpy as np
import pytest

from lensjax import paths
from lensjax.guidance import make_denoiser, passes_per_call

NULL = 3
LABELS = jnp.asarray([0, 2, 1, NULL, 2], jnp.int32)
SHAPE = (len(LABELS), 4, 6, 2)
WEIGHTS = (0.0, 0.5, 1.0, 2.0, 5.0)

each_weight = pytest.mark.parametrize("guidance", WEIGHTS)
each_prediction = pytest.mark.parametrize("prediction", paths.PREDICTIONS)


class Network:
    """A cheap network that depends on all that it is given, and remembers what that was."""

    def __init__(self):
        self.calls = []

    def __call__(self, params, x, t, condition):
        self.calls.append((x, t, condition["label"]))
        label = paths.per_example(params["labels"][condition["label"]], x)
        return jnp.tanh(x * label) + paths.per_example(t, x) * label


PARAMS = {"labels": jnp.asarray([0.3, -1.2, 0.8, 2.0])}


def inputs():
    x_t = jnp.asarray(np.random.default_rng(0).normal(size=SHAPE), jnp.float32)
    return x_t, jnp.linspace(0.1, 0.9, len(LABELS))


def denoise(network, guidance, prediction="velocity", labels=LABELS):
    denoiser = make_denoiser(
        network,
        PARAMS,
        {"label": labels},
        path=paths.FlowPath(),
        prediction=prediction,
        null_label=NULL,
        guidance=guidance,
    )
    return denoiser(*inputs())


@each_prediction
@each_weight
def test_formula_holds_for_outputs_and_for_estimates(guidance, prediction):
    x_t, t = inputs()
    conditional = Network()(PARAMS, x_t, t, {"label": LABELS})
    unconditional = Network()(PARAMS, x_t, t, {"label": jnp.full_like(LABELS, NULL)})
    output = unconditional + guidance * (conditional - unconditional)
    found = denoise(Network(), guidance, prediction)
    expected = paths.estimate(paths.FlowPath(), prediction, output, x_t, t)
    np.testing.assert_allclose(found.x0, expected.x0, atol=1e-5)
    np.testing.assert_allclose(found.eps, expected.eps, atol=1e-4)

    both = [
        paths.estimate(paths.FlowPath(), prediction, one, x_t, t)
        for one in (conditional, unconditional)
    ]
    for with_label, without, guided in zip(*both, found, strict=True):
        by_estimate = without + guidance * (with_label - without)
        np.testing.assert_allclose(guided, by_estimate, atol=1e-4)


@each_weight
def test_passes_are_as_stated(guidance):
    network = Network()
    denoise(network, guidance)
    (x, t, labels), *more = network.calls
    assert not more
    assert passes_per_call(guidance) == (1 if guidance == 1 else 2)
    assert len(x) == len(t) == len(labels) == passes_per_call(guidance) * len(LABELS)


def test_no_guidance_is_the_conditional_network_alone():
    network = Network()
    found = denoise(network, 1.0)
    x_t, t = inputs()
    output = Network()(PARAMS, x_t, t, {"label": LABELS})
    np.testing.assert_array_equal(network.calls[0][2], LABELS)
    expected = paths.estimate(paths.FlowPath(), "velocity", output, x_t, t)
    np.testing.assert_array_equal(found.x0, expected.x0)


@each_prediction
def test_weight_zero_is_the_unconditional_network(prediction):
    found = denoise(Network(), 0.0, prediction)
    expected = denoise(Network(), 1.0, prediction, jnp.full_like(LABELS, NULL))
    np.testing.assert_allclose(found.x0, expected.x0, atol=1e-6)


def test_second_half_of_the_pass_has_the_null_label():
    network = Network()
    denoise(network, 5.0)
    x, t, labels = network.calls[0]
    np.testing.assert_array_equal(labels, [*LABELS, *[NULL] * len(LABELS)])
    np.testing.assert_array_equal(x, jnp.tile(inputs()[0], (2, 1, 1, 1)))
    np.testing.assert_array_equal(t, jnp.tile(inputs()[1], 2))


def test_null_labels_are_not_moved_by_guidance():
    weak, strong = (denoise(Network(), guidance) for guidance in (1.0, 5.0))
    same = np.max(np.abs(weak.x0 - strong.x0), axis=(1, 2, 3)) < 1e-6
    np.testing.assert_array_equal(same, LABELS == NULL)


@each_weight
def test_other_conditions_reach_every_pass(guidance):
    """A condition beside the label, such as a physical parameter, goes with its own image."""

    def network(params, x, t, condition):
        return paths.per_example(condition["mass"], x) * jnp.ones_like(x)

    x_t, t = inputs()
    mass = jnp.arange(len(LABELS), dtype=jnp.float32)
    denoiser = make_denoiser(
        network,
        PARAMS,
        {"label": LABELS, "mass": mass},
        path=paths.FlowPath(),
        prediction="x0",
        null_label=NULL,
        guidance=guidance,
    )
    found = denoiser(x_t, t).x0
    np.testing.assert_allclose(found, jnp.broadcast_to(mass[:, None, None, None], SHAPE), atol=1e-6)
