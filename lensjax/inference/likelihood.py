"""Log densities of images under a trained model, by the probability-flow equation.

As in `samplers`, every path is followed as the straight one: with `s = sigma / (alpha + sigma)` and
`y = x / (alpha + sigma)`, dy/ds = eps - x0. Along it the density changes by d log p / ds = -div
(eps - x0) (Chen et al. 2018, arXiv:1806.07366; Song et al. 2021, arXiv:2011.13456), so that

    log p(y) = log N(y_1; 0, s_1^2 I) + integral of div (eps - x0) ds from s_min to s_1,

where y_1 is the end, at the last usable time, of the path that starts at y: samplers draw their
first images from this normal distribution. The start is `y = (1 - s_min) image` at a time t_min,
since a network that predicts x0 gives no velocity at t = 0; with `D log (1 - s_min)` added, the
result is the density, at the image, of data smoothed by Gaussian noise of sigma(t_min) /
alpha(t_min) in the model's range.

Noise-free images fill a thin layer of all possible ones, and their density grows without bound as
the smoothing shrinks: only values of one smoothing can be compared.
"""

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from lensjax import prng
from lensjax.arguments import choice, finite_number, refuse, whole_number
from lensjax.config import Config
from lensjax.config.diffusion import MAX_STEPS
from lensjax.data.scaling import Scaling
from lensjax.devices.chunks import map_chunks
from lensjax.diffusion import paths
from lensjax.diffusion.time_grids import cosine_shares
from lensjax.errors import RequestError
from lensjax.interfaces import DenoiseFn
from lensjax.metrics import image_input
from lensjax.run.networks import build_network, build_path, with_forward_mode

TRACES = ("hutchinson", "exact")
SPACES = ("flux", "model")
_MAX_PROBES = 10_000
# (params, images [B, H, W, C] in the model's range, labels [B], keys [B]) -> log densities [K, B].
LogDensityFn = Callable[[Any, Array, Array, Array], Array]


class Integration(NamedTuple):
    """How the equation is integrated.

    Attributes:
      steps: intervals of time.
      trace: how the divergence is computed, one of `TRACES`.
      num_probes: probes an image for `hutchinson`.
      t_min: the time at which the path starts; None for 1e-3, or the first usable time if that is
        later.
    """

    steps: int = 100
    trace: str = "hutchinson"
    num_probes: int = 1
    t_min: float | None = None


class LogProb(NamedTuple):
    """Log densities of N images of D pixels.

    Attributes:
      log_prob: nats, float64 `[N]`; of all D pixels together, per flux unit (or unit of the
        model's range) of each.
      bits_per_dim: `-log_prob / (D ln 2)`, float64 `[N]`.
      standard_error: of `log_prob` by the choice of probes, nats, float64 `[N]`; NaN for one
        probe, 0 for the exact divergence. It excludes errors of the steps and of the network.
      note: which images got noise because they hold integers; empty without such images.
    """

    log_prob: np.ndarray
    bits_per_dim: np.ndarray
    standard_error: np.ndarray
    note: str


def _first_time(path: paths.Path, t_min: float | None) -> float:
    return max(paths.FIRST_TIME, path.interval[0]) if t_min is None else t_min


def time_grid(path: paths.Path, steps: int, t_min: float | None = None) -> np.ndarray:
    """Rising times, float32 `[steps + 1]`, dense at both ends: s at `sin^2` of even angles.

    The slope of narrow data changes fast near s = 0, that of widely spread data near s = 1. For one
    Gaussian pixel and 100 steps on the straight path, even times are wrong by 0.06 nats at a
    variance of 1e-4, their squares by 0.015 at 1e3, this grid by less than 0.0004 in between.

    Args:
      path: the probability path.
      steps: the number of intervals, at least 1.
      t_min: the first time; None as for `Integration`.
    """
    ends = np.array([_first_time(path, t_min), path.interval[1]], np.float32)
    low, high = np.asarray(paths.noise_share(path, jnp.asarray(ends)), np.float64)
    inside = low + (high - low) * cosine_shares(np.linspace(0, 1, steps + 1))[1:-1]
    times = np.asarray(paths.time_of_noise_share(path, jnp.asarray(inside, jnp.float32)))
    return np.concatenate([ends[:1], times, ends[1:]])


def draw_probes(keys: Array, num_probes: int, shape: tuple[int, ...]) -> Array:
    """Rademacher probes, int8 `[K, B, *shape]`; each is a function of its key and number.

    Args:
      keys: one typed key per image, `[B]`.
      num_probes: K.
      shape: shape of one image.
    """

    def draw(key: Array) -> Array:
        each = prng.keys(key, jnp.arange(num_probes))
        return jax.vmap(lambda key: jax.random.rademacher(key, shape, jnp.int8))(each)

    return jax.vmap(draw, out_axes=1)(keys)


def _divergences(linear: Callable[[Array], Array], like: Array, probes: Array | None) -> Array:
    """`p . J p` of each probe, `[K, B]`, or the trace of J, `[1, B]`, without probes.

    One direction at a time is pushed through the network, for all images, so that memory does not
    grow with the number of pixels or probes.
    """

    def quadratic(direction: Array) -> Array:
        return jnp.sum(direction * linear(direction), axis=range(1, like.ndim))

    if probes is not None:
        return jax.lax.map(lambda probe: quadratic(probe.astype(like.dtype)), probes)
    pixels = math.prod(like.shape[1:])

    def diagonal(index: Array) -> Array:
        basis = (jnp.arange(pixels) == index).astype(like.dtype).reshape(1, *like.shape[1:])
        return quadratic(jnp.broadcast_to(basis, like.shape))

    return jnp.sum(jax.lax.map(diagonal, jnp.arange(pixels)), axis=0, keepdims=True)


def log_density(
    path: paths.Path, denoise: DenoiseFn, images: Array, times: Array, probes: Array | None
) -> Array:
    """Carries images to noise by the midpoint rule (order 2) and returns their log densities.

    The divergence enters at the middle of each interval alone, at half of the cost of Heun's rule,
    and the slope at the last time is not needed. The same probes serve all times (Grathwohl et al.
    2019, arXiv:1810.01367).

    Args:
      path: the probability path.
      denoise: the denoiser without guidance: a guided slope is that of no density.
      images: the model's range, `[B, H, W, C]`.
      times: rising, `[S + 1]`, from `time_grid`; the last time counts as pure noise.
      probes: `[K, B, H, W, C]` from `draw_probes`; None for the exact divergence.

    Returns:
      Nats, float32 `[K, B]`, one row per probe; K = 1 without probes. The densities are those
      of data smoothed by noise of sigma / alpha at `times[0]`.
    """

    def slope(y: Array, t: Array) -> Array:
        x0, eps = denoise((path.alpha(t) + path.sigma(t)) * y, t)
        return eps - x0

    def interval(carry: tuple[Array, Array], ends: tuple[Array, Array]) -> tuple[Any, None]:
        y, integral = carry
        t, (s, s_next) = ends[0], (paths.noise_share(path, end) for end in ends)
        s_middle = (s + s_next) / 2
        t_middle = paths.time_of_noise_share(path, s_middle)
        y_middle = y + (s_middle - s) * slope(y, t)
        value, linear = jax.linearize(lambda y: slope(y, t_middle), y_middle)
        rows = _divergences(linear, y, probes)
        return (y + (s_next - s) * value, integral + (s_next - s) * rows), None

    first, last = paths.noise_share(path, times[0]), paths.noise_share(path, times[-1])
    num_rows = 1 if probes is None else probes.shape[0]
    start = ((1 - first) * images, jnp.zeros((num_rows, images.shape[0])))
    (noise, integral), _ = jax.lax.scan(interval, start, (times[:-1], times[1:]))
    pixels = math.prod(images.shape[1:])
    squares = jnp.sum(jnp.square(noise / last), axis=range(1, noise.ndim))
    normal = -0.5 * (squares + pixels * math.log(2 * math.pi)) - pixels * jnp.log(last)
    return normal[None] + integral + pixels * jnp.log1p(-first)


def make_log_density_fn(config: Config, integration: Integration) -> LogDensityFn:
    """Makes the pure function that computes the log densities of one chunk of images.

    Args:
      config: network, path and prediction.
      integration: see `Integration`.
    """
    path = build_path(config)
    denoiser_fn = build_network(with_forward_mode(config)).denoiser
    times = time_grid(path, integration.steps, integration.t_min)

    def log_density_fn(params: Any, images: Array, labels: Array, keys: Array) -> Array:
        denoise = denoiser_fn(params, labels)
        probes = None
        if integration.trace == "hutchinson":
            probes = draw_probes(keys, integration.num_probes, images.shape[1:])
        return log_density(path, denoise, images, jnp.asarray(times), probes)

    return log_density_fn


@functools.lru_cache(maxsize=16)
def _jitted(config: Config, integration: Integration) -> LogDensityFn:
    return jax.jit(make_log_density_fn(config, integration))


def log_volume(scaling: Scaling, flux: np.ndarray) -> np.ndarray:
    """Log |d to_model / d flux| summed over the pixels of each image, float64 `[N]`.

    Args:
      scaling: the map from flux to the model's range; its constants may differ by channel.
      flux: `[N, H, W, C]`; above 0 for `sqrt`.

    Raises:
      RequestError: for `sqrt` and pixels of 0 or less, where the derivative is infinite.
    """
    flux = np.asarray(flux, np.float64)
    if scaling.kind == "sqrt":
        if not flux.min() > 0:
            raise RequestError(
                f"images: got a pixel of {flux.min():g}; allowed with data.scaling=sqrt: pixels "
                "above 0, since the square root is infinitely steep at 0; or use space='model'"
            )
        slopes = -np.log(2 * np.sqrt(flux))
    elif scaling.kind == "asinh":
        slopes = -np.log(np.hypot(flux, np.asarray(scaling.softening)))
    else:
        slopes = np.zeros_like(flux)
    return np.sum(slopes - np.log(np.asarray(scaling.spread)), axis=(1, 2, 3))


def check_images(images: Any, image_shape: tuple[int, int, int]) -> np.ndarray:
    """Checks images, and returns them as a numpy array `[N, H, W, C]` of their own dtype.

    Raises:
      RequestError: for another shape, no images, values that are not real numbers, or pixels
        that are not finite (in float32).
    """
    image_input.check_images(images, shape=image_shape, error=RequestError)
    return np.asarray(images)


def check_integration(config: Config, integration: Integration) -> None:
    """Checks the settings of an integration.

    Raises:
      RequestError: for a value that is not allowed, or a `t_min` at which the network's
        prediction gives no velocity.
    """
    steps, trace, num_probes, t_min = integration
    whole_number("steps", steps, 1, MAX_STEPS)
    whole_number("num_probes", num_probes, 1, _MAX_PROBES)
    choice("trace", trace, TRACES)
    path, prediction = build_path(config), config.model.prediction
    first, last = path.interval
    if t_min is None:
        return
    words = f"a time of at least {first:g} and below {last:g}"
    if finite_number("t_min", t_min, words, at_least=first) >= last:
        raise refuse("t_min", t_min, words)
    ones, t = jnp.ones((1, 1)), jnp.full(1, t_min, jnp.float32)
    if not all(np.isfinite(value) for value in paths.estimate(path, prediction, ones, ones, t)):
        raise RequestError(
            f"t_min: got {t_min!r}; allowed: a later time, such as 1e-3, since a network that "
            f"predicts {prediction} gives no velocity there"
        )


def dequantise(images: np.ndarray, seed: int) -> tuple[np.ndarray, str]:
    """Adds uniform noise in [0, 1) to integer images (Theis et al. 2016, arXiv:1511.01844).

    All images of an integer dtype count as integer, and so does each float image that holds only
    whole numbers and is not constant.

    Args:
      images: flux, `[N, H, W, C]`.
      seed: the noise of image i is a function of (seed, i).

    Returns:
      Flux, float32 `[N, H, W, C]`, and a note on the noise, empty without noise.
    """
    flux = images.astype(np.float32)
    if images.dtype.kind in "iu":
        integer = np.ones(len(images), bool)
    else:
        axes = (1, 2, 3)
        integer = np.all(images == np.floor(images), axis=axes)
        integer &= images.min(axis=axes) < images.max(axis=axes)
    numbers = np.flatnonzero(integer)
    if not len(numbers):
        return flux, ""
    keys = prng.keys(prng.key(seed, "dequantise"), jnp.asarray(numbers))
    noise = jax.vmap(lambda key: jax.random.uniform(key, flux.shape[1:], jnp.float32))(keys)
    # Uniform numbers are multiples of 2^-23; shifted by half a step, none is exactly 0, where
    # the square root has no finite derivative.
    flux[numbers] += np.asarray(noise) + np.float32(2**-24)
    return flux, (
        f"{len(numbers)} of {len(images)} images hold integers: uniform noise in [0, 1) was added "
        "to them (dequantisation, arXiv:1511.01844). For these, bits_per_dim in space='flux' is, "
        "in the mean over the noise, at least the bits that each pixel costs in a lossless code "
        "made with the model."
    )


def log_prob(
    config: Config,
    scaling: Scaling,
    params: Any,
    images: np.ndarray,
    labels: np.ndarray,
    integration: Integration,
    *,
    seed: int,
    space: str,
) -> LogProb:
    """The log densities of images, computed in chunks of `sample.batch_size`.

    Args:
      config: network, path, prediction and size of the chunks.
      scaling: from flux to the model's range.
      params: the network's parameters.
      images: flux, from `check_images`.
      labels: int32 `[N]`.
      integration: already checked by `check_integration`.
      seed: probes and noise of image i are functions of (seed, i).
      space: one of `SPACES`, the units of the density.

    Raises:
      RequestError: for a seed or space that is not allowed, and for pixels that `sqrt` scaling
        cannot take.
    """
    seed = whole_number("seed", seed, 0, prng.MAX_SEED)
    choice("space", space, SPACES)
    flux, note = dequantise(images, seed)
    if scaling.kind == "sqrt" and flux.min() < 0:
        raise RequestError(
            f"images: got a pixel of {flux.min():g}; allowed with data.scaling=sqrt: pixels of 0 "
            "or more; the run can only judge such images"
        )
    volume = log_volume(scaling, flux) if space == "flux" else np.zeros(len(flux))
    rows = _in_chunks(config, scaling, params, flux, labels, integration, seed) + volume
    value = rows.mean(axis=0)
    if len(rows) > 1:
        error = rows.std(axis=0, ddof=1) / math.sqrt(len(rows))
    else:
        error = np.full_like(value, 0 if integration.trace == "exact" else np.nan)
    pixels = math.prod(flux.shape[1:])
    return LogProb(value, -value / (pixels * math.log(2)), error, note)


def _in_chunks(
    config: Config,
    scaling: Scaling,
    params: Any,
    flux: np.ndarray,
    labels: np.ndarray,
    integration: Integration,
    seed: int,
) -> np.ndarray:
    """Log densities in the model's range, float64 `[K, N]`."""
    log_density_fn = _jitted(config, integration)
    base = prng.key(seed, "hutchinson")

    def density(flux: np.ndarray, labels: np.ndarray, numbers: np.ndarray) -> np.ndarray:
        images = scaling.to_model(jnp.asarray(flux))
        keys = prng.keys(base, jnp.asarray(numbers))
        return np.asarray(log_density_fn(params, images, jnp.asarray(labels), keys), np.float64).T

    numbers = np.arange(len(flux), dtype=np.int32)
    rows = map_chunks(density, config.sample.batch_size, flux, labels, numbers)
    return np.ascontiguousarray(rows.T)
