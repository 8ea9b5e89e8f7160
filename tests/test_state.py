"""The train step: its average, its bad steps, its random keys, and that it compiles once."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from lensjax import optim, prng
from lensjax.losses import Batch
from lensjax.state import NO_BAD_STEP, EmaSettings, init_state, make_train_step

BATCH_SIZE = 4
NUM_STEPS = 20
EMA = EmaSettings(half_life_images=40.0, warmup_share=0.5)
SCHEDULE = optim.make_schedule(0.1, NUM_STEPS, 3, 0.01)
OPTIMIZER = optim.build_optimizer(
    SCHEDULE, weight_decay=0.01, clip_norm=1.0, b1=0.9, b2=0.99, eps=1e-8
)


def init_fn(key):
    first, second = jax.random.split(key)
    return {"w": jax.random.normal(first, (3,)), "b": jax.random.normal(second, (1,))}


def batch_fn(step, images):
    return Batch(images[step % len(images)], jnp.zeros(BATCH_SIZE, jnp.int32))


def quadratic_loss(params, batch, keys):
    return jnp.mean(jnp.square(batch.image * params["w"][None] + params["b"][None]))


def images(num: int = 8) -> np.ndarray:
    random = np.random.default_rng(0)
    return random.normal(size=(num, BATCH_SIZE, 3)).astype(np.float32)


def make_step(loss_fn=quadratic_loss, seed=0, optimizer=OPTIMIZER, batch_size=BATCH_SIZE):
    return make_train_step(
        loss_fn, batch_fn, optimizer, SCHEDULE, EMA, batch_size=batch_size, seed=seed
    )


def run(data, num_steps, **changes):
    """All states and scalars, the state before the first step among them."""
    step = jax.jit(make_step(**changes))
    states, scalars = [init_state(init_fn, changes.get("optimizer", OPTIMIZER), 0)], []
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
    state = init_state(init_fn, OPTIMIZER, 7)
    assert_same_bits(state.params, init_fn(prng.key(7, "init")))
    assert_same_bits(state.ema, state.params)
    assert_same_bits(state.opt_state, OPTIMIZER.init(state.params))
    assert int(state.step) == 0
    assert int(state.bad_step) == NO_BAD_STEP
    assert state.step.dtype == state.bad_step.dtype == jnp.int32


def test_first_state_can_be_donated():
    """A buffer that stands in the state twice cannot be given away twice."""
    step = jax.jit(make_step(), donate_argnums=0)
    state = init_state(init_fn, OPTIMIZER, 0)
    for _ in range(2):
        state, _ = step(state, jnp.asarray(images()))
    assert int(state.step) == 2


def test_step_is_gradient_optimizer_and_average():
    data = images()
    states, scalars = run(data, NUM_STEPS)
    params = states[0].params
    opt_state = OPTIMIZER.init(params)
    average = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params)
    for number in range(NUM_STEPS):
        batch = batch_fn(number, jnp.asarray(data))
        loss, gradient = jax.value_and_grad(quadratic_loss)(params, batch, None)
        updates, opt_state = OPTIMIZER.update(gradient, opt_state, params)
        params = optax.apply_updates(params, updates)
        half_life = min(EMA.half_life_images, EMA.warmup_share * (number + 1) * BATCH_SIZE)
        decay = 0.5 ** (BATCH_SIZE / half_life)
        for name in average:
            average[name] = decay * average[name] + (1 - decay) * np.asarray(params[name])

        after, numbers = states[number + 1], scalars[number]
        assert int(after.step) == number + 1
        chex.assert_trees_all_close(after.params, params, rtol=1e-5, atol=1e-6)
        chex.assert_trees_all_close(after.ema, average, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(numbers["loss"], loss, rtol=1e-5)
        norm = np.linalg.norm(np.concatenate(jax.tree.leaves(gradient)))
        np.testing.assert_allclose(numbers["gradient_norm"], norm, rtol=1e-5)
        np.testing.assert_allclose(numbers["learning_rate"], SCHEDULE(jnp.int32(number)))
    assert int(states[-1].bad_step) == NO_BAD_STEP


def root_loss(params, batch, keys):
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


def key_loss(params, batch, keys):
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
    state = init_state(init_fn, OPTIMIZER, 0)
    for number in range(4):
        state, _ = step(state, jnp.asarray(images() + number))
    assert int(state.step) == 4


def test_state_keeps_its_types():
    states, _ = run(images(), 1)
    chex.assert_trees_all_equal_shapes_and_dtypes(*states)
