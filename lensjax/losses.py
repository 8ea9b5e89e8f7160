"""The training loss, its times and its label drop; each random number is one of an example."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from lensjax import paths
from lensjax.guidance import ApplyFn

TIME_DISTRIBUTIONS = ("uniform", "logit_normal")
LOSS_SPACES = ("velocity", "x0")


class Batch(NamedTuple):
    """What a step learns from.

    Attributes:
      image: the model's range, float32 `[B, H, W, C]`.
      label: int32 `[B]`; `num_classes` is the null label.
      measured: bool `[B, H, W, C]`, False where a pixel is no measurement; None where all are.
    """

    image: Array
    label: Array
    measured: Array | None = None


class LossSettings(NamedTuple):
    """The fields of the config that the loss depends on.

    Attributes:
      prediction: what the network predicts, one of `paths.PREDICTIONS`.
      space: what the squared error is taken of, one of `LOSS_SPACES`.
      min_sigma: floor of sigma where an x0 error is turned into a velocity error.
      time_distribution: one of `TIME_DISTRIBUTIONS`.
      logit_mean: mean of logit(t) for `logit_normal`.
      logit_std: standard deviation of logit(t) for `logit_normal`.
      label_drop: probability that an example loses its label.
      null_label: the label that stands for none.
    """

    prediction: str
    space: str
    min_sigma: float
    time_distribution: str
    logit_mean: float
    logit_std: float
    label_drop: float
    null_label: int


def draw_times(key: Array, settings: LossSettings, t_min: float, t_max: float) -> Array:
    """Draws the time of one example, float32 `[]`, in [t_min, t_max].

    `logit_normal` is that of Esser et al. 2024, arXiv:2403.03206.
    """
    if settings.time_distribution == "uniform":
        unit = jax.random.uniform(key, (), jnp.float32)
    else:
        logit = settings.logit_mean + settings.logit_std * jax.random.normal(key, (), jnp.float32)
        unit = jax.nn.sigmoid(logit)
    return t_min + (t_max - t_min) * unit


def squared_error(
    path: paths.Path,
    settings: LossSettings,
    output: Array,
    x0: Array,
    eps: Array,
    x_t: Array,
    t: Array,
    measured: Array | None = None,
) -> Array:
    """Returns the mean squared error of each example, float32 `[B]`.

    A network that predicts x0 or velocity may be judged by the error of either. Between the two
    stands one factor at each time: with x_t fixed, `alpha d x0 = -sigma d eps`, so that
    `d velocity = (alpha' sigma - sigma' alpha) / sigma d x0`; for the flow path it is `-d x0 / t`.

    Args:
      path: the probability path.
      settings: prediction, space and the floor of sigma.
      output: the network's output, `[B, H, W, C]`.
      x0: data, `[B, H, W, C]`.
      eps: noise, `[B, H, W, C]`.
      x_t: the network's input, `[B, H, W, C]`.
      t: times, `[B]`.
      measured: bool `[B, H, W, C]`, the pixels that count; None for all.
    """
    if settings.space == settings.prediction:
        error = output - paths.target(path, settings.prediction, x0, eps, t)
    elif settings.space == "x0":
        error = paths.estimate(path, settings.prediction, output, x_t, t).x0 - x0
    else:
        sigma = path.sigma(t)
        per_x0 = (path.alpha_derivative(t) * sigma - path.sigma_derivative(t) * path.alpha(t)) / (
            jnp.maximum(sigma, settings.min_sigma)
        )
        error = (output - x0) * paths.per_example(per_x0, x0)
    return jnp.mean(jnp.square(error), axis=range(1, error.ndim), where=measured)


# (params, batch, t [B], eps [B, H, W, C], labels the network sees [B]) -> errors [B].
ErrorFn = Callable[[object, Batch, Array, Array, Array], Array]


def make_error_fn(apply_fn: ApplyFn, path: paths.Path, settings: LossSettings) -> ErrorFn:
    """Returns the denoising error of each example at given times and noise.

    Args:
      apply_fn: `(params, x, t, condition) -> output`.
      path: the probability path.
      settings: see `LossSettings`.
    """

    def error_fn(params: object, batch: Batch, t: Array, eps: Array, label: Array) -> Array:
        x_t = paths.interpolate(path, batch.image, eps, t)
        output = apply_fn(params, x_t, t, {"label": label})
        return squared_error(path, settings, output, batch.image, eps, x_t, t, batch.measured)

    return error_fn


def make_loss_fn(
    apply_fn: ApplyFn, path: paths.Path, settings: LossSettings
) -> Callable[[object, Batch, Array], Array]:
    """Returns `loss(params, batch, keys) -> float32 []`; arguments as for `make_error_fn`.

    The returned function takes one typed key for each example, `[B]`: times, noise and label drop
    of an example are functions of its own key, whatever device it lies on.
    """
    t_min, t_max = path.interval
    error_fn = make_error_fn(apply_fn, path, settings)

    def draw(key: Array, image: Array, label: Array) -> tuple[Array, Array, Array]:
        time_key, noise_key, drop_key = jax.random.split(key, 3)
        t = draw_times(time_key, settings, t_min, t_max)
        eps = jax.random.normal(noise_key, image.shape, jnp.float32)
        dropped = jax.random.bernoulli(drop_key, settings.label_drop)
        return t, eps, jnp.where(dropped, settings.null_label, label)

    def loss_fn(params: object, batch: Batch, keys: Array) -> Array:
        t, eps, label = jax.vmap(draw)(keys, batch.image, batch.label)
        return jnp.mean(error_fn(params, batch, t, eps, label))

    return loss_fn
