"""The training loss, its times and its label drop; each random number belongs to one example."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from lensjax.diffusion import paths
from lensjax.interfaces import ApplyFn, Batch, LossFn, Places

TIME_DISTRIBUTIONS = ("uniform", "logit_normal", "log_normal_sigma")
LOSS_SPACES = paths.PREDICTIONS
LOSS_WEIGHTS = ("uniform", "min_snr", "edm")
PIXEL_WEIGHTS = ("uniform", "inverse_variance")


class LossSettings(NamedTuple):
    """The fields of the config that the loss depends on.

    Attributes:
      prediction: output of the network, one of `paths.PREDICTIONS`.
      space: quantity of the squared error, one of `LOSS_SPACES`.
      min_sigma: floor of sigma where an error is divided by it.
      weight: one of `LOSS_WEIGHTS`.
      min_snr_gamma: gamma of `min_snr`.
      data_std: standard deviation of the data, for `edm`.
      time_distribution: one of `TIME_DISTRIBUTIONS`.
      time_mean: mean of logit(t) for `logit_normal`, of log(sigma / alpha) for `log_normal_sigma`.
      time_std: standard deviation of the same.
      uniform_share: share of the times that are drawn from the uniform distribution instead.
      stratified: whether the times of a batch cover their distribution evenly.
      label_drop: probability that an example loses its label.
      null_label: the label for "no label".
    """

    prediction: str
    space: str
    min_sigma: float
    weight: str
    min_snr_gamma: float
    data_std: float
    time_distribution: str
    time_mean: float
    time_std: float
    uniform_share: float
    stratified: bool
    label_drop: float
    null_label: int


def draw_times(
    keys: Array, settings: LossSettings, path: paths.Path, places: Places | None = None
) -> Array:
    """Draws the times of a batch, float32 `[B]`, within the usable interval of the path.

    `logit_normal` is that of Esser et al. 2024, arXiv:2403.03206, `log_normal_sigma` that of Karras
    et al. 2022, arXiv:2206.00364. Stratified, example i of B draws from the i-th of B equal parts
    of the distribution (as in Kingma et al. 2021, arXiv:2107.00630, appendix I).

    Args:
      keys: one typed key per example, `[B]`.
      settings: distribution and stratification.
      path: the probability path.
      places: where the examples are in the batch; None for a full batch in order.
    """
    share = jax.vmap(lambda key: jax.random.uniform(key, (), jnp.float32))(keys)
    if settings.stratified:
        indices, batch_size = places or Places(jnp.arange(keys.shape[0]), keys.shape[0])
        share = (indices.astype(jnp.float32) + share) / batch_size
    if settings.time_distribution == "uniform":
        return path.time_of_share(share)
    if settings.uniform_share == 0:
        return _normal_times(share, settings, path)
    first = settings.uniform_share  # so that each part of a stratified batch is even in itself
    rest = jnp.clip((share - first) / max(1 - first, 1e-6), 0, 1)
    return jnp.where(
        share < first,
        path.time_of_share(jnp.minimum(share / first, 1)),
        _normal_times(rest, settings, path),
    )


def _normal_times(share: Array, settings: LossSettings, path: paths.Path) -> Array:
    """The times below which given shares of a normal distribution lie."""
    tiny = np.finfo(np.float32).eps
    normal = jax.scipy.special.ndtri(jnp.clip(share, tiny, 1 - tiny))
    value = settings.time_mean + settings.time_std * normal
    if settings.time_distribution == "logit_normal":
        return path.time_of_share(jax.nn.sigmoid(value))
    t_min, t_max = path.interval
    t = path.time_of_log_snr(-2 * value)
    return path.time_of_share(jnp.clip((t - t_min) / (t_max - t_min), 0, 1))


def error_weight(path: paths.Path, settings: LossSettings, t: Array) -> Array:
    """The weight of the squared error at each time, float32 `[B]`.

    `min_snr` is `min(alpha^2 / sigma^2, gamma)` (Hang et al. 2023, arXiv:2303.09556), `edm` is `1 /
    std^2 + alpha^2 / sigma^2` (Karras et al. 2022, arXiv:2206.00364, table 1), both for errors in
    x0; `uniform` is 1. On a path that reaches sigma 0, sigma has the floor `min_sigma`.
    """
    if settings.weight == "uniform":
        return jnp.ones_like(t)
    floor = 0.0 if path.interval[0] > 0 else settings.min_sigma
    snr = jnp.square(path.alpha(t) / jnp.maximum(path.sigma(t), floor))
    if settings.weight == "min_snr":
        return jnp.minimum(snr, settings.min_snr_gamma)
    return 1 / settings.data_std**2 + snr


def squared_error(
    path: paths.Path,
    settings: LossSettings,
    output: Array,
    x0: Array,
    eps: Array,
    t: Array,
    measured: Array | None = None,
    pixel_weight: Array | None = None,
) -> Array:
    """The weighted mean squared error of each example, float32 `[B]`.

    Args:
      path: the probability path.
      settings: prediction, space, weight and the floor of sigma.
      output: the network's output, `[B, H, W, C]`.
      x0: data, `[B, H, W, C]`.
      eps: noise, `[B, H, W, C]`.
      t: times, `[B]`.
      measured: bool `[B, H, W, C]`, the pixels that count; None for all.
      pixel_weight: `[B, H, W, C]`, 0 for pixels that do not count; None for equal weights. The
        mean is divided by their sum.
    """
    error = output - paths.target(path, settings.prediction, x0, eps, t)
    axes = tuple(range(1, error.ndim))
    if pixel_weight is None:
        squares = jnp.mean(jnp.square(error), axis=axes, where=measured)
    else:
        total = jnp.maximum(jnp.sum(pixel_weight, axis=axes), np.finfo(np.float32).tiny)
        squares = jnp.sum(pixel_weight * jnp.square(error), axis=axes) / total
    factor = paths.error_factor(path, settings.prediction, settings.space, t, settings.min_sigma)
    return error_weight(path, settings, t) * jnp.square(factor) * squares


# (params, batch, t [B], eps [B, H, W, C], labels the network sees [B]) -> errors [B].
ErrorFn = Callable[[object, Batch, Array, Array, Array], Array]


def make_error_fn(apply_fn: ApplyFn, path: paths.Path, settings: LossSettings) -> ErrorFn:
    """The denoising error of each example at given times and noise.

    Args:
      apply_fn: `(params, x, t, condition) -> output`.
      path: the probability path.
      settings: see `LossSettings`.
    """

    def error_fn(params: object, batch: Batch, t: Array, eps: Array, label: Array) -> Array:
        x_t = paths.interpolate(path, batch.image, eps, t)
        output = apply_fn(params, x_t, t, {"label": label})
        return squared_error(
            path, settings, output, batch.image, eps, t, batch.measured, batch.weight
        )

    return error_fn


def make_loss_fn(apply_fn: ApplyFn, path: paths.Path, settings: LossSettings) -> LossFn:
    """Makes `loss(params, batch, keys, places) -> float32 []`; arguments as for `make_error_fn`.

    The returned function takes one typed key for each example, `[B]`: times, noise and label drop
    of an example are functions of its own key (and, if stratified, of its place in the batch), on
    any device.
    """
    error_fn = make_error_fn(apply_fn, path, settings)

    def draw(key: Array, image: Array, label: Array) -> tuple[Array, Array, Array]:
        time_key, noise_key, drop_key = jax.random.split(key, 3)
        eps = jax.random.normal(noise_key, image.shape, jnp.float32)
        dropped = jax.random.bernoulli(drop_key, settings.label_drop)
        return time_key, eps, jnp.where(dropped, settings.null_label, label)

    def loss_fn(params: object, batch: Batch, keys: Array, places: Places | None = None) -> Array:
        time_keys, eps, label = jax.vmap(draw)(keys, batch.image, batch.label)
        t = draw_times(time_keys, settings, path, places)
        return jnp.mean(error_fn(params, batch, t, eps, label))

    return loss_fn
