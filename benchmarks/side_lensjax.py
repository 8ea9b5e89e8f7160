"""lensjax's side of the speed benchmarks: a child that `pairs.py` starts, see `channel.py`.

    python benchmarks/side_lensjax.py

The step and the sampler are those of a real run, with synthetic images in place of a data set.
"""

import os
import time
from collections.abc import Callable
from typing import Any, cast

import channel
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from channel import Answer
from jax import Array

from lensjax.config import Config, from_config_dict
from lensjax.data.augmentation import make_augment_fn
from lensjax.data.dataset import DatasetInfo, LensSplit
from lensjax.data.feed import DeviceFeed
from lensjax.data.pipeline import make_batch_fn
from lensjax.data.scaling import Scaling, fit_scaling
from lensjax.devices import machine
from lensjax.devices.mesh import all_devices, state_shardings
from lensjax.inference.sampling import (
    Drawing,
    Weights,
    generate_chunks,
    make_sample_fn,
    passes_per_image,
)
from lensjax.interfaces import Batch
from lensjax.models import build_model
from lensjax.models.layers import Dense, SelfAttention, gelu, modulate
from lensjax.run import optim, provenance
from lensjax.run.learning import build_spread, build_train_step, make_init_state, with_shardings
from lensjax.run.state import EmaSettings, make_train_step
from lensjax.training.tasks import task_of

PRECISIONS = {"float32": "float32", "tf32": "tensorfloat32", "bfloat16": "default"}


def hello() -> Answer:
    """Hardware and versions, and the memory that is there."""
    device = jax.devices()[0]
    limit = (device.memory_stats() or {}).get("bytes_limit")
    return {
        "versions": provenance.versions(),
        "hardware": provenance.hardware(),
        "git_revision": provenance.git_revision(),
        "tunables": os.environ.get("GLIBC_TUNABLES"),
        "memory_bytes": limit or machine.memory_bytes(),
    }


def peak_bytes() -> int:
    """The peak of the memory that counts: the GPU's, or this process's on a CPU."""
    device = jax.devices()[0]
    if device.platform == "cpu":
        return channel.host_peak_bytes()
    return device.memory_stats()["peak_bytes_in_use"]


def set_precision(precision: str) -> None:
    """Says what products of float32 numbers may be rounded to."""
    jax.config.update("jax_default_matmul_precision", PRECISIONS[precision])


def config_of(settings: Answer) -> Config:
    """Checks the configuration and settles the precision."""
    set_precision(settings["precision"])
    return from_config_dict(settings["config"])


def synthetic(num: int, shape: tuple[int, int, int], num_classes: int) -> LensSplit:
    """Images of positive noise with labels in turn."""
    images = np.random.default_rng(0).gamma(2.0, 1.0, (num, *shape)).astype(np.float32)
    info = DatasetInfo(
        name="synthetic",
        fingerprint="synthetic",
        class_names=tuple(f"class {number}" for number in range(num_classes)),
        parameter_names=(),
        split_sizes={"train": num},
        image_shape=shape,
        flux_unit="counts",
        minimum=float(images.min()),
        maximum=float(images.max()),
    )
    labels = np.arange(num, dtype=np.int32) % max(num_classes, 1)
    return LensSplit(images, labels, np.zeros((num, 0), np.float32), info)


class Train:
    """The train step as a job.

    Args:
      settings: `config`, `precision`, `image_shape`, `num_images`.
    """

    def __init__(self, settings: Answer) -> None:
        config, shape = config_of(settings), tuple(settings["image_shape"])
        split = synthetic(settings["num_images"], shape, config.model.num_classes)
        spread, data = build_spread(config), config.data
        scaling = fit_scaling(data.scaling, data.model_std, split.images, split.info.minimum)
        self._at_once = config.train.steps_per_dispatch
        self._feed = DeviceFeed(split, config.seed, spread, self._at_once)
        augment_fn = make_augment_fn(data.augmentation, data.shift_pixels, shape)
        batch_fn = make_batch_fn(self._feed.batch, scaling, augment_fn, config.seed, masked=False)
        loss_fn = task_of(config).loss_fn(split)
        step_fn = build_train_step(config, loss_fn, batch_fn, spread)
        init = make_init_state(config, shape)
        expected = with_shardings(jax.eval_shape(init), spread.mesh)
        self._state = jax.jit(init, out_shardings=state_shardings(spread.mesh, expected))()
        started = time.perf_counter()
        self._step_fn = self._feed.compile(step_fn, self._state)
        self.info: Answer = {"compile_seconds": time.perf_counter() - started}
        self._steps = 0
        self.info["planned_bytes"] = planned_bytes(self._step_fn)
        if settings.get("first_run", True):
            started = time.perf_counter()
            self.run(self._at_once)
            self.info["first_seconds"] = time.perf_counter() - started

    def run(self, count: int) -> None:
        """Makes steps, whole dispatches of them, and waits for them.

        Raises:
          ValueError: for steps that are no whole dispatches.
        """
        if count % self._at_once:
            raise ValueError(f"{count} steps are no dispatches of {self._at_once}")
        for _ in range(count // self._at_once):
            self._state, _ = self._step_fn(self._state, *self._feed.arguments(self._steps))
            self._steps += self._at_once
        jax.block_until_ready(self._state)


def planned_bytes(compiled: Any) -> int | None:
    """The memory that a compiled program will take, None where the compiler does not say.

    What it gives back in place of its arguments is counted once.
    """
    analysis = compiled.memory_analysis() if hasattr(compiled, "memory_analysis") else None
    if analysis is None:
        return None
    inputs, outputs = analysis.argument_size_in_bytes, analysis.output_size_in_bytes
    return inputs + outputs - analysis.alias_size_in_bytes + analysis.temp_size_in_bytes


class Sample:
    """The drawing of `num_images` images as a job.

    Args:
      settings: `config`, `precision`, `image_shape`, `num_images`.
    """

    def __init__(self, settings: Answer) -> None:
        config, shape = config_of(settings), tuple(settings["image_shape"])
        num, self._batch = settings["num_images"], config.sample.batch_size
        self._numbers = np.arange(num, dtype=np.int32)
        self._labels = self._numbers % max(config.model.num_classes, 1)
        sample_fn = make_sample_fn(config, Scaling("linear", 0.0, 1.0), shape, config.sample)
        self._drawing = Drawing(sample_fn, all_devices(most=1))
        params = jax.jit(make_init_state(config, shape))().params
        self._weights = self._drawing.placed(Weights(params))
        passes = passes_per_image(config, config.sample)
        first, second = channel.first_and_second(self.run)
        # A drawing is compiled by its first call, so that this one took longer by it.
        compiled = max(first - second, 0.0)
        self.info: Answer = {
            "passes": passes,
            "compile_seconds": compiled,
            "first_seconds": second,
        }

    def run(self, count: int) -> None:
        """Draws all images so often; they end on the host."""
        for _ in range(count):
            generate_chunks(
                self._drawing,
                self._weights,
                self._numbers,
                self._labels,
                seed=0,
                batch_size=self._batch,
            )


class Repeated:
    """A function of arrays, compiled, as a job.

    Args:
      function: what is repeated.
      arguments: its arrays; where it gives them back, they are those of the next call.
      carries: how many of the first arguments it gives back.
    """

    def __init__(
        self, function: Callable[..., Any], arguments: tuple[Any, ...], carries: int = 0
    ) -> None:
        donated = tuple(range(carries))
        started = time.perf_counter()
        jitted = jax.jit(function, donate_argnums=donated)
        self._compiled = jitted.lower(*arguments).compile()
        self.info: Answer = {"compile_seconds": time.perf_counter() - started}
        self._arguments, self._carries = arguments, carries
        _, self.info["first_seconds"] = channel.first_and_second(self.run)

    def run(self, count: int) -> None:
        """Calls so often."""
        result = None
        for _ in range(count):
            result = self._compiled(*self._arguments)
            if self._carries:
                self._arguments = (*result[: self._carries], *self._arguments[self._carries :])
        jax.block_until_ready(result)


def product(settings: Answer) -> Repeated:
    """A product of two square matrices as a job."""
    set_precision(settings["precision"])
    dtype = jnp.bfloat16 if settings["precision"] == "bfloat16" else jnp.float32
    shape = (settings["size"], settings["size"])
    pair = tuple(jax.random.normal(jax.random.key(number), shape, dtype) for number in range(2))
    return Repeated(jnp.matmul, pair)


def attention_of(config: Config, shape: tuple[int, int, int]) -> SelfAttention:
    """The attention of the configured network's first block."""
    found: list[SelfAttention] = []

    def watch(call: Callable[..., Any], args: Any, kwargs: Any, context: Any) -> Any:
        if isinstance(context.module, SelfAttention) and context.method_name == "__call__":
            found.append(context.module.clone(parent=None))
        return call(*args, **kwargs)

    with nn.intercept_methods(watch):
        jax.eval_shape(make_init_state(config, shape))
    return found[0]


def _mix(layer: SelfAttention, qkv: Array) -> Array:
    """What a layer's attention mixes, without its two products."""

    def skip(call: Callable[..., Any], args: Any, kwargs: Any, context: Any) -> Any:
        if isinstance(context.module, nn.Dense):
            return qkv if context.module.name == "qkv" else args[0]
        return call(*args, **kwargs)

    width = qkv.shape[-1] // 3
    with nn.intercept_methods(skip):
        return cast(Array, layer.apply({}, jnp.zeros((*qkv.shape[:-1], width), qkv.dtype)))


def _dense(x: Array, kernel: Array, bias: Array, dtype: Any) -> Array:
    layer = Dense(kernel.shape[-1], dtype=dtype)
    return cast(Array, layer.apply({"params": {"kernel": kernel, "bias": bias}}, x))


def _functions(config: Config, settings: Answer) -> dict[str, tuple[Callable[..., Any], list[Any]]]:
    """Each operation with the shapes of its arguments."""
    model, shape = config.model, tuple(settings["image_shape"])
    dtype = getattr(build_model(model), "dtype")  # noqa: B009 (every network has it)
    batch, width, wide = settings["batch_size"], model.width, model.mlp_ratio * model.width
    tokens = (shape[0] // model.patch_size) * (shape[1] // model.patch_size)
    x, vector = (batch, tokens, width), (batch, width)

    def norm(x: Any, shift: Any, scale: Any, gate: Any, h: Any) -> Any:
        layer = nn.LayerNorm(epsilon=1e-6, use_bias=False, use_scale=False, dtype=dtype)
        return modulate(cast(Array, layer.apply({}, x)), shift, scale) + gate[:, None, :] * h

    def products(x: Any, h: Any, *weights: Any) -> Any:
        first, first_bias, second, second_bias = weights
        return _dense(x, first, first_bias, dtype), _dense(h, second, second_bias, dtype)

    def layer(rows: int, columns: int) -> list[Any]:
        return [(rows, columns), (columns,)]

    return {
        "attention": (
            lambda qkv: _mix(attention_of(config, shape), qkv),
            [(batch, tokens, 3 * width)],
        ),
        "qkv_out": (products, [x, x, *layer(width, 3 * width), *layer(width, width)]),
        "mlp": (products, [x, (batch, tokens, wide), *layer(width, wide), *layer(wide, width)]),
        "gelu": (gelu, [(batch, tokens, wide)]),
        "norm": (norm, [x, vector, vector, vector, x]),
    }


def operation(settings: Answer) -> Repeated:
    """An operation's forward and backward pass as a job."""
    config = config_of(settings)
    if settings["operation"] == "update":
        return _update(config, tuple(settings["image_shape"]))
    function, shapes = _functions(config, settings)[settings["operation"]]
    half = config.model.dtype == "bfloat16"

    def array(number: int, shape: tuple[int, ...]) -> Array:
        activation = len(shape) == 3 or settings["operation"] == "norm"  # weights stay float32
        dtype = jnp.bfloat16 if half and activation else jnp.float32
        return jax.random.normal(jax.random.key(number), shape, dtype)

    arguments = tuple(array(number, shape) for number, shape in enumerate(shapes))
    out = jax.eval_shape(function, *arguments)
    weights = jax.tree.map(lambda leaf: array(len(shapes), leaf.shape).astype(leaf.dtype), out)

    def both(weights: Any, *arguments: Any) -> Any:
        out, pull = jax.vjp(function, *arguments)
        return out, pull(weights)

    return Repeated(both, (weights, *arguments))


def _update(config: Config, shape: tuple[int, int, int]) -> Repeated:
    """Clipping, optimizer and averages: a step whose gradient is its parameters."""
    spread, settings = build_spread(config), config.optim
    schedule = optim.make_schedule(
        settings.learning_rate,
        config.train.num_steps,
        settings.warmup_steps,
        settings.learning_rate_floor,
    )
    optimizer = optim.build_optimizer(
        schedule,
        weight_decay=settings.weight_decay,
        clip_norm=settings.clip_norm,
        b1=settings.b1,
        b2=settings.b2,
        eps=settings.eps,
    )

    def half_square(params: Any, *others: Any) -> Array:
        return jnp.square(optax.tree.norm(params)) / 2

    def no_batch(*others: Any) -> Batch:
        return Batch(jnp.zeros((1, *shape)), jnp.zeros(1, jnp.int32))

    averages = EmaSettings(settings.ema_half_lives, settings.ema_warmup_share)
    step_fn = make_train_step(
        half_square, no_batch, optimizer, schedule, averages, spread=spread, seed=config.seed
    )
    state = jax.jit(make_init_state(config, shape))()
    return Repeated(lambda state: step_fn(state), (state,), carries=1)


JOBS = {"train": Train, "sample": Sample, "product": product, "operation": operation}

if __name__ == "__main__":
    channel.serve(JOBS, hello, peak_bytes)
