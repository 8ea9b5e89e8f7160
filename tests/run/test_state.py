"""The train step: its average, its bad steps, its random keys, and that it compiles once."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from pipeline_support import single_device

from lensjax import prng
from lensjax.interfaces import Batch
from lensjax.run import optim
from lensjax.run.state import NO_BAD_STEP, EmaSettings, init_state, make_train_step, sampling_params

BATCH_SIZE = 4
NUM_STEPS = 20
# The third does not leave its warm-up, the last is never in it.
EMA = EmaSettings({"main": 40.0, "8": 8.0, "100000": 1e5, "1.5": 1.5}, warmup_share=0.5)
SCHEDULE = optim.make_schedule(0.1, NUM_STEPS, 3, 0.01)
OPTIMIZER = optim.build_optimizer(
    SCHEDULE, weight_decay=0.01, clip_norm=1.0, b1=0.9, b2=0.99, eps=1e-8
)


def init_fn(key):
    first, second = jax.random.split(key)
    return {"w": jax.random.normal(first, (3,)), "b": jax.random.normal(second, (1,))}


def batch_fn(step, places, images):
    return Batch(images[step % len(images)], jnp.zeros(BATCH_SIZE, jnp.int32))


def quadratic_loss(params, batch, keys, places=None):
    return jnp.mean(jnp.square(batch.image * params["w"][None] + params["b"][None]))


def images(num: int = 8) -> np.ndarray:
    random = np.random.default_rng(0)
    return random.normal(size=(num, BATCH_SIZE, 3)).astype(np.float32)


def make_step(loss_fn=quadratic_loss, seed=0, ema=EMA):
    return make_train_step(
        loss_fn,
        batch_fn,
        OPTIMIZER,
        SCHEDULE,
        ema,
        spread=single_device(BATCH_SIZE),
        seed=seed,
    )


def first_state(seed=0, ema=EMA):
    return init_state(init_fn, OPTIMIZER, seed, ema.half_lives_images)


def run(data, num_steps, ema=EMA, **changes):
    """All states and scalars, the state before the first step among them."""
    step = jax.jit(make_step(ema=ema, **changes))
    states, scalars = [first_state(ema=ema)], []
    for _ in range(num_steps):
        state, numbers = step(states[-1], jnp.asarray(data))
        states.append(state)
        scalars.append(numbers)
    return states, scalars


def assert_same_bits(first, second):
    chex.assert_trees_all_equal_structs(first, second)
    for one, other in zip(jax.tree.leaves(first), jax.tree.leaves(second), strict=True):
        assert one.dtype == other.dtype
        assert np.asarray(one).tobytes() == np.asarray(other).tobytes()


def test_first_state():
    state = first_state(7)
    assert_same_bits(state.params, init_fn(prng.key(7, "init")))
    assert set(state.ema) == set(EMA.half_lives_images)
    for average in state.ema.values():
        assert_same_bits(average, state.params)
    assert_same_bits(state.opt_state, OPTIMIZER.init(state.params))
    assert int(state.step) == 0
    assert int(state.bad_step) == NO_BAD_STEP
    assert state.step.dtype == state.bad_step.dtype == jnp.int32


def test_first_state_can_be_donated():
    """A buffer that stands in the state twice cannot be given away twice."""
    step = jax.jit(make_step(), donate_argnums=0)
    state = first_state()
    for _ in range(2):
        state, _ = step(state, jnp.asarray(images()))
    assert int(state.step) == 2


def test_step_is_gradient_and_optimizer():
    data = images()
    states, scalars = run(data, NUM_STEPS)
    params = states[0].params
    opt_state = OPTIMIZER.init(params)
    for number in range(NUM_STEPS):
        batch = batch_fn(number, None, jnp.asarray(data))
        loss, gradient = jax.value_and_grad(quadratic_loss)(params, batch, None)
        updates, opt_state = OPTIMIZER.update(gradient, opt_state, params)
        params = optax.apply_updates(params, updates)

        after, numbers = states[number + 1], scalars[number]
        assert int(after.step) == number + 1
        chex.assert_trees_all_close(after.params, params, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(numbers["loss"], loss, rtol=1e-5)
        norm = np.linalg.norm(np.concatenate(jax.tree.leaves(gradient)))
        np.testing.assert_allclose(numbers["gradient_norm"], norm, rtol=1e-5)
        np.testing.assert_allclose(numbers["learning_rate"], SCHEDULE(jnp.int32(number)))
    assert int(states[-1].bad_step) == NO_BAD_STEP


@pytest.mark.parametrize("warmup_share", [0.0, 0.5])
@pytest.mark.parametrize(("name", "half_life"), EMA.half_lives_images.items())
def test_each_average_is_its_own_weighted_sum(name, half_life, warmup_share):
    """The weight of a step's parameters falls by half over the half-life that holds then."""
    states, _ = run(images(), NUM_STEPS, ema=EMA._replace(warmup_share=warmup_share))
    limits = warmup_share * BATCH_SIZE * np.arange(1, NUM_STEPS + 1) if warmup_share else np.inf
    decays = 0.5 ** (BATCH_SIZE / np.minimum(half_life, limits) * np.ones(NUM_STEPS))
    for number in range(NUM_STEPS + 1):
        # What is left of the parameters after each step, and before the first, up to this one.
        weights = [*(1 - np.array([0.0, *decays[:number]]))]
        weights[0] = 1.0
        left = [np.prod(decays[step:number]) for step in range(number + 1)]
        for leaf, average in states[number].ema[name].items():
            kept = [np.asarray(state.params[leaf], np.float64) for state in states[: number + 1]]
            expected = np.einsum("s,s,s...", weights, left, kept)
            np.testing.assert_allclose(average, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", EMA.half_lives_images)
def test_an_average_does_not_see_the_others(name):
    together, _ = run(images(), NUM_STEPS)
    alone = EmaSettings({"main": EMA.half_lives_images[name]}, EMA.warmup_share)
    states, _ = run(images(), NUM_STEPS, ema=alone)
    for one, other in zip(together, states, strict=True):
        assert_same_bits(one.ema[name], other.ema["main"])
        assert_same_bits(one._replace(ema=None), other._replace(ema=None))


def test_each_name_gives_its_parameters():
    state = run(images(), 3)[0][-1]
    for name in EMA.half_lives_images:
        assert sampling_params(state, name) is state.ema[name]
    assert sampling_params(state, "raw") is state.params
    with pytest.raises(KeyError):
        sampling_params(state, "9")


def root_loss(params, batch, keys, places):
    """Finite with an infinite gradient where the images are zero."""
    return jnp.sqrt(jnp.abs(jnp.sum(batch.image * params["w"][None]))) + jnp.sum(params["b"] ** 2)


@pytest.mark.parametrize(
    ("loss_fn", "poison"),
    [(quadratic_loss, np.nan), (quadratic_loss, np.inf), (root_loss, 0.0)],
    ids=["nan", "infinite", "infinite gradient of a finite loss"],
)
def test_bad_step_changes_nothing_and_is_marked(loss_fn, poison):
    data = images()
    data[[3, 5]] = poison
    states, scalars = run(data, 7, loss_fn=loss_fn)
    for number in (3, 5):
        assert not np.isfinite(scalars[number]["gradient_norm"])
        before, after = states[number], states[number + 1]
        assert_same_bits(after.params, before.params)
        assert_same_bits(after.ema, before.ema)
        assert_same_bits(after.opt_state, before.opt_state)
    if loss_fn is root_loss:
        assert np.isfinite(scalars[3]["loss"])
    assert [int(state.step) for state in states] == list(range(8))
    assert [int(state.bad_step) for state in states] == [NO_BAD_STEP] * 4 + [3] * 4
    # The good step between the bad ones does learn.
    assert not np.array_equal(states[5].params["w"], states[4].params["w"])
    assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(states[-1]))


def key_loss(params, batch, keys, places):
    return jnp.mean(jax.vmap(lambda key: jax.random.uniform(key, ()))(keys)) + 0 * params["b"][0]


@pytest.mark.parametrize("seed", [0, 3])
def test_each_example_of_each_step_has_its_own_key(seed):
    _, scalars = run(images(), 3, loss_fn=key_loss, seed=seed)
    for number, numbers in enumerate(scalars):
        keys = [prng.key(seed, "loss", number, index) for index in range(BATCH_SIZE)]
        expected = np.mean([jax.random.uniform(key, ()) for key in keys])
        np.testing.assert_allclose(numbers["loss"], expected, rtol=1e-6)


def test_step_is_traced_once():
    chex.clear_trace_counter()
    step = jax.jit(chex.assert_max_traces(make_step(), n=1))
    state = first_state()
    for number in range(4):
        state, _ = step(state, jnp.asarray(images() + number))
    assert int(state.step) == 4


def test_state_keeps_its_types():
    states, _ = run(images(), 1)
    chex.assert_trees_all_equal_shapes_and_dtypes(*states)
