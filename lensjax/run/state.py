"""The whole state of a training run, and the pure step from one state to the next."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import Array

from lensjax import prng
from lensjax.config.diffusion import RAW_PARAMS
from lensjax.devices.spread import Spread
from lensjax.interfaces import Batch, LossFn, Places
from lensjax.run import optim

NO_BAD_STEP = -1


class TrainState(NamedTuple):
    """Everything that a resumed run needs.

    Attributes:
      step: updates made or skipped so far, int32 `[]`.
      params: the network's parameters, float32.
      ema: their moving averages by name, each like `params`.
      opt_state: the optimizer's state.
      bad_step: the first step whose loss or gradient was not finite, int32 `[]`; -1 for none.
    """

    step: Array
    params: Any
    ema: dict[str, Any]
    opt_state: Any
    bad_step: Array


class EmaSettings(NamedTuple):
    """The averages that are kept: half-lives by name, and the warm-up of all of them.

    See `config.training.ema_half_lives` and `optim.ema_decay`.
    """

    half_lives_images: Mapping[str, float]
    warmup_share: float


def init_state(
    init_fn: Callable[[Array], Any],
    optimizer: optax.GradientTransformation,
    seed: int,
    ema_names: Iterable[str],
) -> TrainState:
    """The state before the first step; pure, so that it can be traced.

    Args:
      init_fn: parameters from a typed key.
      optimizer: the optimizer.
      seed: the run's seed.
      ema_names: the averages to keep.
    """
    params = init_fn(prng.key(seed, "init"))
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        # Copies, each its own: a donated buffer must not stand in the state twice.
        ema={name: jax.tree.map(jnp.copy, params) for name in ema_names},
        opt_state=optimizer.init(params),
        bad_step=jnp.full((), NO_BAD_STEP, jnp.int32),
    )


def sampling_params(state: TrainState, name: str) -> Any:
    """The parameters to sample from: an average by its name, or the raw parameters.

    Args:
      state: the state.
      name: a key of `state.ema`, or `RAW_PARAMS`.
    """
    return state.params if name == RAW_PARAMS else state.ema[name]


def _updated_averages(
    averages: Mapping[str, Any], params: Any, step: Array, batch_size: int, ema: EmaSettings
) -> dict[str, Any]:
    updated = {}
    for name, half_life in ema.half_lives_images.items():
        decay = optim.ema_decay(step, batch_size, half_life, ema.warmup_share)
        updated[name] = optim.update_ema(averages[name], params, decay)
    return updated


def _accumulated(
    loss_fn: LossFn, accumulate_steps: int, params: Any, batch: Batch, keys: Array, places: Places
) -> tuple[Array, Any]:
    """Averages loss and gradient over equal parts of a batch that are taken in turn."""
    value_and_gradient = jax.value_and_grad(loss_fn)
    if accumulate_steps == 1:
        return value_and_gradient(params, batch, keys, places)

    def add(total: Any, micro_batch: tuple[Batch, Array, Array]) -> tuple[Any, None]:
        batch, keys, indices = micro_batch
        loss_and_gradient = value_and_gradient(params, batch, keys, Places(indices, places.total))
        return jax.tree.map(jnp.add, total, loss_and_gradient), None

    micro_batches = jax.tree.map(
        lambda rows: rows.reshape(accumulate_steps, -1, *rows.shape[1:]),
        (batch, keys, places.indices),
    )
    zeros = jnp.zeros(()), jax.tree.map(jnp.zeros_like, params)
    total, _ = jax.lax.scan(add, zeros, micro_batches)
    return jax.tree.map(lambda value: value / accumulate_steps, total)


# (state, *data arguments) -> (next state, scalars).
StepFn = Callable[..., tuple[TrainState, dict[str, Array]]]


def make_train_step(
    loss_fn: LossFn,
    batch_fn: Callable[..., Batch],
    optimizer: optax.GradientTransformation,
    schedule: Callable[[Array], Array],
    ema: EmaSettings,
    *,
    spread: Spread,
    accumulate_steps: int = 1,
    seed: int,
) -> StepFn:
    """The pure step `(state, *data) -> (state, scalars)`.

    A loss or gradient that is not finite leaves parameters, averages and optimizer as they were and
    marks the step in the state; the host decides what to do.

    Args:
      loss_fn: `(params, batch, keys [b], places) -> []`.
      batch_fn: `(step, places, *data) -> Batch`.
      optimizer: the optimizer.
      schedule: the learning rate of a step, for the log.
      ema: half-lives and warm-up of the averages; the state has the same names.
      spread: how the batch lies on the devices.
      accumulate_steps: equal parts of a device's examples whose gradients are computed one after
        the other.
      seed: the run's seed.

    Returns:
      The step; its scalars are `loss`, `gradient_norm` and `learning_rate`, float32 `[]`.
    """

    def loss_and_gradient(
        places: Places, params: Any, step: Array, *data: Any
    ) -> tuple[Array, Any]:
        batch = batch_fn(step, places, *data)
        example_keys = prng.keys(prng.key(seed, "loss", step), places.indices)
        return _accumulated(loss_fn, accumulate_steps, params, batch, example_keys, places)

    def train_step(state: TrainState, *data: Any) -> tuple[TrainState, dict[str, Array]]:
        loss, gradient = spread.on_parts(loss_and_gradient)(state.params, state.step, *data)
        gradient_norm = optax.tree.norm(gradient)
        finite = jnp.isfinite(loss) & jnp.isfinite(gradient_norm)

        updates, opt_state = optimizer.update(gradient, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        averages = _updated_averages(state.ema, params, state.step, spread.batch_size, ema)
        updated = (params, averages, opt_state)
        unchanged = (state.params, state.ema, state.opt_state)
        params, averages, opt_state = jax.tree.map(
            lambda new, old: jnp.where(finite, new, old), updated, unchanged
        )
        first_bad = (state.bad_step == NO_BAD_STEP) & ~finite
        state = TrainState(
            step=state.step + 1,
            params=params,
            ema=averages,
            opt_state=opt_state,
            bad_step=jnp.where(first_bad, state.step, state.bad_step),
        )
        scalars = {
            "loss": loss,
            "gradient_norm": gradient_norm,
            "learning_rate": schedule(state.step - 1),
        }
        return state, scalars

    return train_step
