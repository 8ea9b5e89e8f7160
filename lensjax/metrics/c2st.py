"""Classifier two-sample test: can a small network tell generated images from real ones?

After Lopez-Paz & Oquab (2017). The images are halved; a network learns on one half and is judged on
the other, then the other way round, so that every image is judged once by a network that never saw
it. A network that finds no difference proves little: with the same budget it must also recognise a
control, real images with a 30 % wider point-spread function; if not, the result is "no power".

The first layer is fixed (`c2st_inputs`), the later layers are trained. From a few hundred images of
either kind this finds smaller differences than a network that learns its filters, within seconds.
"""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array

from lensjax.errors import MeasureError
from lensjax.metrics.c2st_inputs import InputLayer
from lensjax.metrics.image_input import check_images

MIN_COUNT = 50
POWER_ACCURACY = 0.6
POWER_ERRORS = 3.0
NO_POWER = "no power"
_FOLDS = 2
_HIDDEN = 64
_STEPS = 400
_IMAGES_PER_SIDE = 64
_LEARNING_RATE = 1e-3
_WEIGHT_DECAY = 0.1
# Scales of each member's inputs: powers and components of the flux, then of the stretched flux.
_MEMBERS = ((1.0, 1.0, 0.0, 0.0), (1.0, 1.0, 1.0, 0.5))
# There are many components of little variance: together they would drown the first components.
_DECAY_COMPONENT = 5.0
_LEAST_MEDIAN = 1e-6  # of the RMS, for images that are mostly black

_Parameters = dict[str, Any]


class Accuracy(NamedTuple):
    """How often a network is right about images that it never saw; 0.5 is chance.

    Attributes:
      value: mean of the shares of real and of other images that are recognised.
      error: standard error of `value`. Both halves teach the network nearly the same, so that this
        is the error for half of the images.
      real: share of the real images that are classified as real.
      other: share of the other images that are classified as other.
    """

    value: float
    error: float
    real: float
    other: float


class C2ST(NamedTuple):
    """The test's result.

    Attributes:
      accuracy: on generated images.
      control: accuracy of the same network on the control.
      has_power: whether the control's accuracy is at least 0.6 and 3 standard errors above 0.5.
      verdict: `no power`, `told apart` (accuracy 3 standard errors above 0.5) or `not told apart`.
      logits: logits of real and generated images, negative for "real", float32 `[n]` and `[m]`. The
        images with the largest logits are worth looking at.
    """

    accuracy: Accuracy
    control: Accuracy
    has_power: bool
    verdict: str
    logits: tuple[np.ndarray, np.ndarray]


# Drawn on the host: compiling the draws would take longer than the training.
def _first_parameters(generator: np.random.Generator, shape: tuple, width: int) -> _Parameters:
    """Parameters of networks whose logit is 0, `[*shape, ...]` each."""

    def kernel(inputs: int) -> np.ndarray:
        values = generator.standard_normal((*shape, inputs, _HIDDEN)) / math.sqrt(inputs)
        return values.astype(np.float32)

    sizes = {"bias_1": (_HIDDEN,), "bias_2": (_HIDDEN,), "last": (_HIDDEN,), "linear": (width,)}
    zeros = {name: np.zeros((*shape, *size), np.float32) for name, size in sizes.items()}
    bias = np.zeros(shape, np.float32)
    return {"kernel_1": kernel(width), "kernel_2": kernel(_HIDDEN), "bias_3": bias, **zeros}


def _network(params: _Parameters, inputs: Array) -> Array:
    """Logits `[B]` of inputs `[B, D]`: two hidden layers beside a linear path."""
    hidden = jax.nn.gelu(inputs @ params["kernel_1"] + params["bias_1"][None])
    hidden = jax.nn.gelu(hidden @ params["kernel_2"] + params["bias_2"][None])
    return hidden @ params["last"] + inputs @ params["linear"] + params["bias_3"]


def _train(
    params: _Parameters, batches: Array, real_inputs: Array, other_inputs: Array
) -> _Parameters:
    """Trains one network.

    Args:
      params: the first parameters.
      batches: rows of `real_inputs` and of `other_inputs` in each step, int32 `[steps, 2, B]`.
      real_inputs: inputs of the real training images, `[T, D]`.
      other_inputs: inputs of the other training images, `[U, D]`.
    """
    schedule = optax.cosine_decay_schedule(_LEARNING_RATE, len(batches))
    optimizer = optax.adamw(schedule, weight_decay=_WEIGHT_DECAY)

    def loss(params: _Parameters, real_batch: Array, other_batch: Array) -> Array:
        real_loss = jnp.mean(jax.nn.softplus(_network(params, real_batch)))
        return real_loss + jnp.mean(jax.nn.softplus(-_network(params, other_batch)))

    def step(carry: tuple[_Parameters, Any], places: Array) -> tuple[tuple[_Parameters, Any], None]:
        params, state = carry
        gradient = jax.grad(loss)(params, real_inputs[places[0]], other_inputs[places[1]])
        updates, state = optimizer.update(gradient, state, params)
        return (optax.apply_updates(params, updates), state), None

    (params, _), _ = jax.lax.scan(step, (params, optimizer.init(params)), batches)
    return params


@jax.jit
def _logits(
    params: _Parameters,
    batches: Array,
    members: Array,
    real_inputs: Array,
    other_inputs: Array,
    judged_inputs: Array,
) -> Array:
    """Trains every member of the ensemble on every fold; returns mean logits `[folds, J]`.

    Args:
      params: first parameters, `[folds, M, ...]`.
      batches: int32 `[folds, M, steps, 2, B]`.
      members: factors of each member's inputs, `[M, D]`.
      real_inputs: inputs of each fold's real training images, `[folds, T, D]`.
      other_inputs: inputs of each fold's other training images, `[folds, U, D]`.
      judged_inputs: inputs of the images to be judged, `[folds, J, D]`.
    """

    def member_logits(
        params: _Parameters, batches: Array, member: Array, real: Array, other: Array, judged: Array
    ) -> Array:
        params = _train(params, batches, real * member[None], other * member[None])
        return _network(params, judged * member[None])

    over_members = jax.vmap(member_logits, in_axes=(0, 0, 0, None, None, None))
    over_folds = jax.vmap(over_members, in_axes=(0, 0, None, 0, 0, 0))
    logits = over_folds(params, batches, members, real_inputs, other_inputs, judged_inputs)
    return jnp.mean(logits, axis=1)


def _weights(sizes: list[int]) -> np.ndarray:
    """The factor of each input for each member, float32 `[M, D]`."""
    rows = []
    for member in _MEMBERS:
        group_factors = []
        for group, (scale, size) in enumerate(zip(member, sizes, strict=True)):
            components = group % 2 == 1
            decay = 1 / np.sqrt(1 + np.arange(size) / _DECAY_COMPONENT) if components else 1.0
            group_factors.append(scale * decay * np.ones(size))
        rows.append(np.concatenate(group_factors))
    return np.asarray(rows, np.float32)


def judge(real: np.ndarray, other: np.ndarray, seed: int) -> tuple[Accuracy, np.ndarray]:
    """Trains and judges one network, without a control.

    Args:
      real: finite flux per pixel, float32 `[n, H, W]` or `[n, H, W, C]`.
      other: images to be told from the real images, in the same form.
      seed: for halves, first parameters and batches.

    Returns:
      The accuracy, and the logits of real and other images, float32 `[n + m]`.
    """
    generator = np.random.default_rng(seed)
    count = len(real)
    real, other = (images.reshape(*images.shape[:3], -1) for images in (real, other))
    rms, median = _scales(real)
    layer = InputLayer(np.concatenate([real, other]), rms, median)
    orders = generator.permutation(count), count + generator.permutation(len(other))
    halves = [[order[fold::_FOLDS] for order in orders] for fold in range(_FOLDS)]
    folds = []
    for taught, judged in (halves, halves[::-1]):
        # Both folds get the same shapes; of an odd number, the first half has one image more.
        train = [half[: len(order) // _FOLDS] for half, order in zip(taught, orders, strict=True)]
        groups = layer.groups(*train)
        inputs = np.concatenate(groups, axis=1)
        # The last place is repeated where this half is the smaller.
        most = sum(-(-len(order) // _FOLDS) for order in orders)
        places = np.concatenate(judged)
        places = np.pad(places, (0, most - len(places)), mode="edge")
        folds.append((inputs[train[0]], inputs[train[1]], inputs[places], places))
    real_inputs, other_inputs, judged_inputs, all_places = map(np.stack, zip(*folds, strict=True))
    members = _weights([group.shape[1] for group in groups])
    shape = (_FOLDS, len(members))
    params = _first_parameters(generator, shape, members.shape[1])
    batches = np.stack(
        [
            generator.integers(side.shape[1], size=(*shape, _STEPS, _IMAGES_PER_SIDE))
            for side in (real_inputs, other_inputs)
        ],
        axis=3,
    )
    fold_logits = _logits(params, batches, members, real_inputs, other_inputs, judged_inputs)
    logits = np.full(count + len(other), np.nan, np.float32)
    logits[all_places.ravel()] = np.asarray(fold_logits).ravel()
    return _accuracy(logits[:count], logits[count:]), logits


def _scales(real: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """RMS and median absolute pixel of each channel of images, float32 `[C]`; 1 for a black one."""
    rms = np.sqrt(np.mean(np.square(real, dtype=np.float64), axis=(0, 1, 2)))
    rms = np.where(rms > 0, rms, 1.0)
    median = np.maximum(np.median(np.abs(real), axis=(0, 1, 2)), _LEAST_MEDIAN * rms)
    return rms.astype(np.float32), median.astype(np.float32)


def _accuracy(real_logits: np.ndarray, other_logits: np.ndarray) -> Accuracy:
    shares = [float(np.mean(real_logits < 0)), float(np.mean(other_logits > 0))]
    counts = len(real_logits), len(other_logits)
    # Never 0: even a share of 0 or 1 has an error.
    smooth = [(share * n + 1) / (n + 2) for share, n in zip(shares, counts, strict=True)]
    variances = [share * (1 - share) * _FOLDS / n for share, n in zip(smooth, counts, strict=True)]
    return Accuracy(sum(shares) / 2, math.sqrt(sum(variances)) / 2, *shares)


def c2st(real: np.ndarray, generated: np.ndarray, control: np.ndarray, seed: int = 0) -> C2ST:
    """Tests whether a network tells generated images from real ones, and a control from real ones.

    For a score, pass images with instrument noise, drawn with different seeds for real and for
    generated images; noise-free images serve only as a diagnostic. The control's result depends on
    the real images, the control and the seed, not on the generated images.

    Args:
      real: flux per pixel, `[n, H, W]` or `[n, H, W, C]`, at least 50, which the generator never
        saw.
      generated: m images in the same form and in the same proportion of classes.
      control: m real lenses with a 30 % wider point-spread function; other lenses than those of
        `real`.
      seed: for halves, first parameters and batches.

    Raises:
      MeasureError: for too few images, sizes that differ, or values that are not finite.
    """
    sets = {"real": real, "generated": generated, "control": control}
    channels = real.shape[3:4]
    arrays = {
        name: check_images(
            images, f"{name} images", shape=(None, None, *channels), min_count=MIN_COUNT
        )
        for name, images in sets.items()
    }
    real, generated, control = arrays.values()
    if len({images.shape[1:] for images in arrays.values()}) > 1:
        sizes = ", ".join(f"{name} {images.shape[1:]}" for name, images in arrays.items())
        raise MeasureError(f"images differ in size: {sizes}; all three need the same size")
    if len(control) != len(generated):
        raise MeasureError(
            f"got {len(control)} control images and {len(generated)} generated ones; both need the"
            " same number"
        )
    if not real.any():
        raise MeasureError("real images are black; pass flux")
    accuracy, logits = judge(real, generated, seed)
    on_control, _ = judge(real, control, seed)
    has_power = on_control.value >= max(POWER_ACCURACY, 0.5 + POWER_ERRORS * on_control.error)
    apart = accuracy.value >= 0.5 + POWER_ERRORS * accuracy.error
    verdict = ("told apart" if apart else "not told apart") if has_power else NO_POWER
    by_set = (logits[: len(real)], logits[len(real) :])
    return C2ST(accuracy, on_control, has_power, verdict, by_set)
