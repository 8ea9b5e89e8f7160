"""Losses of classifiers against closed forms; what is frozen stays as it was."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from run_support import states_differ, tiny_config, tiny_split

from lensjax.interfaces import Batch
from lensjax.models.classifiers import ClassifierOutput
from lensjax.run import optim
from lensjax.run.task_losses import cross_entropy, make_classifier_loss_fn
from lensjax.training.tasks import task_of

pytestmark = pytest.mark.usefixtures("quick_compiles")
LABELS = np.array([0, 2, 1, 2], np.int32)
LOGITS = np.random.default_rng(0).normal(0.0, 3.0, (4, 3)).astype(np.float32)


def entropies(smoothing: float) -> np.ndarray:
    """`-sum_k q_k log p_k` with q = (1 - s) [k = label] + s / K, in float64."""
    logits = LOGITS.astype(np.float64)
    log_p = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    q = (1 - smoothing) * np.eye(3)[LABELS] + smoothing / 3
    return -(q * log_p).sum(axis=1)


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.5])
def test_cross_entropy_is_the_closed_form(smoothing):
    found = cross_entropy(jnp.asarray(LOGITS), jnp.asarray(LABELS), smoothing)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, entropies(smoothing), rtol=1e-5)


def test_cross_entropy_of_large_logits_is_finite():
    logits = jnp.asarray([[1e4, 0.0, -1e4], [-1e4, 0.0, 1e4]])
    found = cross_entropy(logits, jnp.asarray([0, 0]))
    np.testing.assert_allclose(found, [0.0, 2e4])


def logits_fn(params, images, keys):
    return ClassifierOutput(images, images @ params["encoder"] @ params["classes"])


PARAMS = {"encoder": jnp.eye(3), "classes": jnp.eye(3)}
BATCH = Batch(jnp.asarray(LOGITS), jnp.asarray(LABELS))


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("weights", [(1.0, 1.0, 1.0), (0.5, 2.0, 3.0)])
def test_the_loss_is_the_mean_weighted_by_the_class(smoothing, weights):
    loss_fn = make_classifier_loss_fn(logits_fn, smoothing, jnp.asarray(weights))
    expected = np.mean(np.asarray(weights)[LABELS] * entropies(smoothing))
    found = loss_fn(PARAMS, BATCH, jax.random.split(jax.random.key(0), 4))
    assert float(found) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(
    ("text", "counts", "weights"),
    [
        ("none", None, (1.0, 1.0, 1.0)),
        ("0.5, 2,3", None, (0.5, 2.0, 3.0)),
        ("balanced", (10, 10, 10), (1.0, 1.0, 1.0)),
        ("balanced", (30, 15, 3), (16 / 30, 16 / 15, 16 / 3)),
    ],
)
def test_weights_of_the_configuration(monkeypatch, text, counts, weights):
    monkeypatch.setattr("lensjax.training.tasks.make_image_fn", lambda config: logits_fn)
    changes = {"class_weights": text, "label_smoothing": 0.2}
    config = tiny_config(model={"name": "rescnn"}, classify=changes)
    labels = np.repeat(np.arange(3, dtype=np.int32), counts or (1, 1, 1))
    split = dataclasses.replace(tiny_split(len(labels)), labels=labels)
    loss_fn = task_of(config).loss_fn(split)
    found = loss_fn(PARAMS, BATCH, jax.random.split(jax.random.key(0), 4))
    expected = np.mean(np.asarray(weights)[LABELS] * entropies(0.2))
    assert float(found) == pytest.approx(expected, rel=1e-5)
    if text == "balanced":  # a set is worth as much as before, and each class of it the same
        shares = np.asarray(weights) * counts
        np.testing.assert_allclose(shares, np.mean(counts))


@pytest.mark.parametrize("trains", [True, False])
def test_a_frozen_encoder_has_no_gradient_and_is_left_alone_by_the_optimizer(trains):
    loss_fn = make_classifier_loss_fn(logits_fn, 0.0, jnp.ones(3), train_encoder=trains)
    optimizer = optim.build_optimizer(
        lambda step: jnp.float32(0.1), weight_decay=0.5, clip_norm=1.0, b1=0.9, b2=0.99, eps=1e-8
    )
    optimizer = optimizer if trains else optim.keeping(optimizer, "encoder")

    @jax.jit
    def updated(params, state):
        keys = jax.random.split(jax.random.key(0), 4)
        loss, gradient = jax.value_and_grad(loss_fn)(params, BATCH, keys)
        updates, state = optimizer.update(gradient, state, params)
        return optax.apply_updates(params, updates), state, loss, gradient

    params, state = PARAMS, jax.jit(optimizer.init)(PARAMS)
    for step in range(2):
        params, state, loss, gradient = updated(params, state)
        if not step:
            assert float(loss) == pytest.approx(entropies(0.0).mean(), rel=1e-5)
        assert np.all(gradient["classes"] != 0)
        assert np.all((gradient["encoder"] != 0) == trains)
    assert np.all(params["classes"] != PARAMS["classes"])
    # Without a gradient, weight decay alone would move it.
    assert bool(states_differ(params["encoder"], PARAMS["encoder"])) == trains


def test_what_is_kept_does_not_change_how_the_rest_learns():
    def updated(optimizer):
        gradient = {"encoder": jnp.zeros((3, 3)), "classes": jnp.ones((3, 3))}
        update = jax.jit(lambda: optimizer.update(gradient, optimizer.init(PARAMS), PARAMS))
        return update()[0]["classes"]

    adamw = optax.adamw(0.1, weight_decay=0.5)
    np.testing.assert_array_equal(updated(adamw), updated(optim.keeping(adamw, "encoder")))
