"""Schedule, optimizer and average against their formulas, written out in numpy."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from lensjax.config.training import ema_half_lives
from lensjax.run import optim


def expected_rate(step, peak, num_steps, warmup, floor):
    if step < warmup:
        return peak * (step + 1) / warmup
    progress = min((step - warmup) / max(num_steps - warmup, 1), 1)
    return peak * max(floor, (1 + math.cos(math.pi * progress)) / 2)


@pytest.mark.parametrize("warmup", [0, 1, 10, 100])
@pytest.mark.parametrize("floor", [0.0, 0.01, 0.3])
def test_schedule_is_a_linear_rise_and_a_cosine_with_a_floor(warmup, floor):
    peak, num_steps = 3e-4, 100
    schedule = optim.make_schedule(peak, num_steps, warmup, floor)
    steps = [*range(num_steps + 1), 10 * num_steps]
    found = jax.jit(jax.vmap(schedule))(jnp.asarray(steps, jnp.int32))
    expected = [expected_rate(step, peak, num_steps, warmup, floor) for step in steps]
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6 * peak)
    assert np.max(found) == pytest.approx(peak, rel=1e-6)


@pytest.mark.parametrize(("warmup", "share"), [(0, 0.2), (10, 0.2), (10, 1.0), (95, 0.2)])
@pytest.mark.parametrize("floor", [0.0, 0.1])
def test_cooldown_is_a_rise_a_constant_and_one_minus_a_root(warmup, share, floor):
    peak, num_steps = 3e-4, 100
    schedule = optim.make_cooldown_schedule(peak, num_steps, warmup, floor, share)
    start = max(warmup, 100 - round(100 * share))
    assert optim.cooldown_start(num_steps, warmup, share) == start
    expected = [
        (step + 1) / warmup
        if step < warmup
        else 1
        if step < start
        else max(floor, 1 - math.sqrt((step - start) / (num_steps - start)))
        for step in range(num_steps)
    ]
    found = jax.jit(jax.vmap(schedule))(jnp.arange(num_steps))
    np.testing.assert_allclose(found, peak * np.array(expected), rtol=1e-5, atol=1e-6 * peak)


def test_before_the_cooldown_no_rate_depends_on_the_number_of_steps():
    steps = jnp.arange(80)
    one, other = (
        jax.jit(jax.vmap(optim.make_cooldown_schedule(3e-4, num_steps, 10, 0.01, 0.2)))(steps)
        for num_steps in (100, 1000)
    )
    assert np.asarray(one).tobytes() == np.asarray(other).tobytes()


def test_no_step_of_the_warm_up_is_wasted():
    schedule = optim.make_schedule(1.0, 1000, 100, 0.01)
    assert float(schedule(jnp.int32(0))) == pytest.approx(0.01)
    assert float(schedule(jnp.int32(99))) == float(schedule(jnp.int32(100))) == 1.0


def adamw_in_numpy(params, gradients, rate, *, weight_decay, clip_norm, b1, b2, eps):
    first, second = np.zeros_like(params), np.zeros_like(params)
    for count, gradient in enumerate(gradients, start=1):
        gradient = gradient * min(1, clip_norm / np.linalg.norm(gradient))
        first = b1 * first + (1 - b1) * gradient
        second = b2 * second + (1 - b2) * gradient**2
        direction = first / (1 - b1**count) / (np.sqrt(second / (1 - b2**count)) + eps)
        params = params - rate(count - 1) * (direction + weight_decay * params)
    return params


@pytest.mark.parametrize("clip_norm", [0.1, 1e6])
@pytest.mark.parametrize("weight_decay", [0.0, 0.2])
def test_optimizer_is_adamw_behind_a_clip(clip_norm, weight_decay):
    settings = {"weight_decay": weight_decay, "clip_norm": clip_norm}
    settings |= {"b1": 0.8, "b2": 0.95, "eps": 1e-3}
    random = np.random.default_rng(0)
    start = random.normal(size=7)
    gradients = random.normal(size=(6, 7)) * np.array([1, 20, 0.1, 3, 1, 0.01])[:, None]
    schedule = optim.make_schedule(0.05, 10, 3, 0.01)
    optimizer = optim.build_optimizer(schedule, **settings)

    params = {"a": jnp.asarray(start[:3], jnp.float32), "b": jnp.asarray(start[3:], jnp.float32)}
    state = optimizer.init(params)
    for gradient in gradients.astype(np.float32):
        tree = {"a": jnp.asarray(gradient[:3]), "b": jnp.asarray(gradient[3:])}
        updates, state = optimizer.update(tree, state, params)
        params = jax.tree.map(jnp.add, params, updates)

    expected = adamw_in_numpy(
        start, gradients, lambda step: expected_rate(step, 0.05, 10, 3, 0.01), **settings
    )
    np.testing.assert_allclose(np.concatenate([params["a"], params["b"]]), expected, rtol=1e-4)


def share_left(num_steps, batch_size, half_life, warmup_share):
    """What is left of the first parameters in the average, by its own recursion."""
    average, params = jnp.ones(()), jnp.zeros(())

    @jax.jit
    def run(average):
        def step(average, number):
            decay = optim.ema_decay(number, batch_size, half_life, warmup_share)
            return optim.update_ema(average, params, decay), None

        return jax.lax.scan(step, average, jnp.arange(num_steps, dtype=jnp.int32))[0]

    return float(run(average))


@pytest.mark.parametrize("batch_size", [1, 20, 160])
@pytest.mark.parametrize("half_lives", [1, 3])
def test_average_halves_in_its_half_life(batch_size, half_lives):
    half_life = 32_000.0
    num_steps = round(half_lives * half_life / batch_size)
    found = share_left(num_steps, batch_size, half_life, 0.0)
    # One minus the decay is rounded to float32: at 2e-5 a step a part in 600.
    assert found == pytest.approx(0.5**half_lives, rel=5e-3)


@pytest.mark.parametrize(
    ("half_life", "name"),
    [
        (2_000.0, "2000"),
        (1.0, "1"),
        (1e20, "100000000000000000000"),
        (12.5, "12.5"),
        (1e-30, "1e-30"),
        (0.1, "0.1"),
    ],
)
def test_an_average_is_called_by_its_half_life(half_life, name):
    assert ema_half_lives(32.0, [half_life]) == {"main": 32.0, name: half_life}
    assert float(name) == half_life


def test_the_main_average_is_called_main_and_stands_first():
    found = ema_half_lives(32.0, (500.0, 0.5))
    assert list(found.items()) == [("main", 32.0), ("500", 500.0), ("0.5", 0.5)]
    assert ema_half_lives(32.0, ()) == {"main": 32.0}


def test_published_decay_has_its_half_life():
    decay = optim.ema_decay(jnp.int32(10**8), 160, 6_931 * 160, 0.05)
    assert float(decay) == pytest.approx(0.9999, abs=1e-7)


@pytest.mark.parametrize("share", [0.05, 0.5])
@pytest.mark.parametrize("step", [0, 1, 9, 10, 399, 10**6, 2**31 - 2])
def test_warm_up_limits_the_half_life_to_a_share_of_the_images_seen(share, step):
    batch_size, half_life = 16, 3_200.0
    limited = min(half_life, share * (step + 1) * batch_size)
    found = optim.ema_decay(jnp.int32(step), batch_size, half_life, share)
    assert found.dtype == jnp.float32
    assert float(found) == pytest.approx(0.5 ** (batch_size / limited), rel=1e-5)


def test_warm_up_forgets_the_first_parameters():
    share, num_steps = 0.5, 40
    exponents = [1 / (share * (step + 1)) for step in range(num_steps)]
    expected = 0.5 ** sum(exponents)
    assert share_left(num_steps, 8, 1e9, share) == pytest.approx(expected, rel=1e-4)
    assert expected < 0.01 < 0.99 < share_left(num_steps, 8, 1e9, 0.0)


def test_average_covers_every_leaf():
    average: dict[str, Any] = {"a": jnp.ones(2), "b": {"c": jnp.zeros(3)}}
    params = {"a": jnp.zeros(2), "b": {"c": jnp.full(3, 4.0)}}
    found = optim.update_ema(average, params, jnp.float32(0.75))
    np.testing.assert_allclose(found["a"], 0.75)
    np.testing.assert_allclose(found["b"]["c"], 1.0)


def test_muon_makes_updates_of_kernels_orthogonal_and_leaves_the_rest_to_adamw():
    rng = np.random.default_rng(0)
    shapes = {
        "dense": {"kernel": (6, 4), "bias": (4,)},
        "conv": {"kernel": (3, 3, 2, 8)},
        "table": {"embedding": (5, 7)},
    }
    params = jax.tree.map(
        lambda shape: jnp.asarray(rng.normal(size=shape), jnp.float32),
        shapes,
        is_leaf=lambda leaf: isinstance(leaf, tuple),
    )
    gradients = jax.tree.map(lambda leaf: jnp.asarray(rng.normal(size=leaf.shape)), params)
    settings: dict[str, Any] = {"weight_decay": 0.0, "clip_norm": 1e9, "b1": 0.9, "b2": 0.99}
    optimizers = {
        "adamw": optax.adamw(1e-3, b1=0.9, b2=0.99, weight_decay=0.0, nesterov=True),
        "muon": optim.build_optimizer(
            lambda step: jnp.float32(1e-3), name="muon", eps=1e-8, **settings
        ),
    }
    updates = {
        name: one.update(gradients, one.init(params), params)[0] for name, one in optimizers.items()
    }
    for path, rows, columns in (("dense", 6, 4), ("conv", 18, 8)):
        update = np.asarray(updates["muon"][path]["kernel"]).reshape(rows, columns)
        # Five iterations bring the singular values near 1, not to it.
        singular = np.linalg.svd(update, compute_uv=False) / (1e-3 * 0.2 * math.sqrt(rows))
        assert 0.6 < singular.min() <= singular.max() < 1.3
        assert np.sum(update * np.asarray(gradients[path]["kernel"]).reshape(rows, -1)) < 0
    for path, leaf in (("dense", "bias"), ("table", "embedding")):
        np.testing.assert_allclose(
            updates["muon"][path][leaf], updates["adamw"][path][leaf], rtol=1e-5
        )
