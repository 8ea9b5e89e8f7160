"""Devices, optimizer, state and step of a configuration, as pure functions."""

import math
from collections.abc import Callable
from typing import Any

import jax
import optax
from jax import Array

from lensjax.config import Config
from lensjax.config.model import GENERATE, TRANSFORMERS
from lensjax.config.training import COOLDOWN
from lensjax.devices.machine import device_bytes, memory_bytes
from lensjax.devices.mesh import SHARD_AXIS, all_devices, make_mesh, state_shardings
from lensjax.devices.spread import Spread, make_spread
from lensjax.diffusion.losses import LossSettings
from lensjax.errors import ConfigError
from lensjax.interfaces import Batch, LossFn
from lensjax.models import build_model
from lensjax.run import optim
from lensjax.run.networks import make_classifier_init_fn, make_init_fn
from lensjax.run.state import EmaSettings, StepFn, TrainState, init_state, make_train_step


def build_mesh(config: Config) -> jax.sharding.Mesh:
    """Builds the mesh of the configuration's devices.

    Raises:
      ConfigError: see `mesh.mesh_shape`; and for a batch that the devices do not divide.
    """
    mesh, train = make_mesh(config.parallel.num_devices, config.parallel.mesh), config.train
    if train.batch_size % (mesh.size * train.accumulate_steps):
        hosts = jax.process_count()
        where = f" on {hosts} hosts" if hosts > 1 else ""
        if train.accumulate_steps > 1:
            where += f", times train.accumulate_steps, {train.accumulate_steps}"
        raise ConfigError(
            "train.batch_size",
            train.batch_size,
            f"allowed: a multiple of the number of devices, {mesh.size}{where}",
        )
    return mesh


def build_spread(config: Config, mesh: jax.sharding.Mesh | None = None) -> Spread:
    """Spreads batches over a mesh, by default that of the configuration; see `build_mesh`."""
    mesh = mesh or build_mesh(config)
    return make_spread(config.parallel.strategy, mesh, config.train.batch_size)


def build_schedule(config: Config) -> Callable[[Array], Array]:
    """Builds the learning rate of a step."""
    settings = config.optim
    fixed = settings.learning_rate, config.train.num_steps, settings.warmup_steps
    if settings.schedule == COOLDOWN:
        return optim.make_cooldown_schedule(
            *fixed, settings.learning_rate_floor, settings.cooldown_share
        )
    return optim.make_schedule(*fixed, settings.learning_rate_floor)


def branch_step(config: Config) -> int | None:
    """The step whose checkpoint a longer run goes on from; None without one.

    It is the last one between dispatches that the cooldown has not touched.
    """
    if config.optim.schedule != COOLDOWN:
        return None
    settings, steps = config.optim, config.train.steps_per_dispatch
    start = optim.cooldown_start(
        config.train.num_steps, settings.warmup_steps, settings.cooldown_share
    )
    return start // steps * steps or None


def _optimizer(config: Config) -> optax.GradientTransformation:
    optimizer = optim.build_optimizer(
        build_schedule(config),
        weight_decay=config.optim.weight_decay,
        clip_norm=config.optim.clip_norm,
        b1=config.optim.b1,
        b2=config.optim.b2,
        eps=config.optim.eps,
        name=config.optim.name,
    )
    return optimizer if config.classify.train_encoder else optim.keeping(optimizer, "encoder")


def make_init_state(config: Config, image_shape: tuple[int, int, int]) -> Callable[[], TrainState]:
    """Makes the function that returns the state before the first step."""
    make = make_init_fn if config.task == GENERATE else make_classifier_init_fn
    init_fn = make(build_model(config.model), image_shape)
    names = config.optim.ema_half_lives
    return lambda: init_state(init_fn, _optimizer(config), config.seed, names)


def check_memory(config: Config, state: TrainState, mesh: jax.sharding.Mesh) -> None:
    """Checks that the state of a network fits into memory, before it is made.

    Args:
      config: the configuration.
      state: shapes and dtypes of the state, see `abstract_state`.
      mesh: the devices; those of its second axis share a state.

    Raises:
      ConfigError: if it does not; the message names the fields that decide.
    """
    leaves = jax.tree.leaves(state)
    total = sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in leaves)
    needed = total / mesh.shape[SHARD_AXIS]
    held = device_bytes(mesh.local_devices[0]) or memory_bytes()
    if held is None or needed <= held:
        return
    names = ("width", "depth", "mlp_ratio")
    if config.model.name not in TRANSFORMERS:
        names = ("widths", "blocks", "num_features")
    sizes = ", ".join(f"model.{name}={getattr(config.model, name)}" for name in names)
    raise ConfigError(
        f"model.{names[0]}",
        getattr(config.model, names[0]),
        f"with {sizes} parameters, averages and optimizer take {needed / 2**30:,.1f} GiB, and "
        f"there are {held / 2**30:,.0f} GiB; allowed: a smaller network",
    )


def abstract_state(config: Config, image_shape: tuple[int, int, int]) -> TrainState:
    """Finds shapes and dtypes of the state, undivided, without computing anything."""
    # One device is enough for a single process; several processes share the restored state.
    mesh = all_devices(most=1)
    return with_shardings(jax.eval_shape(make_init_state(config, image_shape)), mesh)


def with_shardings(tree: Any, mesh: jax.sharding.Mesh) -> Any:
    """Describes the arrays of a tree: shape, dtype, and where a train state has them on a mesh."""
    return jax.tree.map(
        lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
        tree,
        state_shardings(mesh, tree),
    )


def loss_settings(config: Config) -> LossSettings:
    """Picks the fields that the loss depends on."""
    return LossSettings(
        prediction=config.model.prediction,
        space=config.loss.space,
        min_sigma=config.loss.min_sigma,
        weight=config.loss.weight,
        min_snr_gamma=config.loss.min_snr_gamma,
        data_std=config.data.model_std,
        time_distribution=config.loss.time_distribution,
        time_mean=config.loss.time_mean,
        time_std=config.loss.time_std,
        uniform_share=config.loss.uniform_share,
        stratified=config.loss.stratified,
        label_drop=config.loss.label_drop,
        null_label=config.model.num_classes,
    )


def build_train_step(
    config: Config, loss_fn: LossFn, batch_fn: Callable[..., Batch], spread: Spread
) -> StepFn:
    """Builds the pure train step, `(state, *data) -> (state, scalars)`.

    Args:
      config: the configuration.
      loss_fn: `(params, batch, keys [B], places) -> float32 []`.
      batch_fn: `(step, places, *data) -> Batch` in the model's range.
      spread: how the batch lies on the devices.
    """
    return make_train_step(
        loss_fn,
        batch_fn,
        _optimizer(config),
        build_schedule(config),
        EmaSettings(config.optim.ema_half_lives, config.optim.ema_warmup_share),
        spread=spread,
        accumulate_steps=config.train.accumulate_steps,
        seed=config.seed,
    )
