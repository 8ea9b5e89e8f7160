"""Classifier two-sample test: can a small network tell generated images from real ones?

After Lopez-Paz & Oquab (2017). The images are halved; a network learns on one half and is judged on
the other, then the other way round, so that every image is judged once by a network that never saw
it. A network that finds nothing proves little: the same network with the same budget must find a
control, real images with a 30 % wider point-spread function, or the result says "no power".

The first layer is fixed (`c2st_inputs`), the others are trained: with a few hundred images a side
this finds smaller differences than a network that has to learn its filters, and within seconds.
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
# What the members of the ensemble see: powers and components of the flux, of the stretched flux.
_MEMBERS = ((1.0, 1.0, 0.0, 0.0), (1.0, 1.0, 1.0, 0.5))
# Components of little variance are many: together they would drown the first ones.
_DECAY_COMPONENT = 5.0
_LEAST_MEDIAN = 1e-6  # of the RMS, for images that are mostly black

_Parameters = dict[str, Any]


class Accuracy(NamedTuple):
    """How often a network is right about images that it never saw; 0.5 is chance.

    Attributes:
      value: mean of the shares of real and of other images that are recognised.
      error: its standard error. The two halves teach each other nearly the same, so that it is that
        of half of the images.
      real: share of the real images taken for real.
      other: share of the other images taken for others.
    """

    value: float
    error: float
    real: float
    other: float


class C2ST(NamedTuple):
    """The test's result.

    Attributes:
      accuracy: on generated images.
      control: the same network's on the control.
      has_power: whether the control is found: at least 0.6, and 3 standard errors above 0.5.
      verdict: `no power`, `told apart` (accuracy 3 standard errors above 0.5) or `not told apart`.
      logits: of real and generated images, real ones negative where recognised, float32 `[n]` and
        `[m]`: the images with the largest are worth looking at.
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


def _train(params: _Parameters, batches: Array, real: Array, other: Array) -> _Parameters:
    """The trained parameters of one network.

    Args:
      params: the first ones.
      batches: places in `real` and in `other` of each step, int32 `[steps, 2, B]`.
      real: inputs of the real training images, `[T, D]`.
      other: those of the others, `[U, D]`.
    """
    schedule = optax.cosine_decay_schedule(_LEARNING_RATE, len(batches))
    optimizer = optax.adamw(schedule, weight_decay=_WEIGHT_DECAY)

    def loss(params: _Parameters, real_batch: Array, other_batch: Array) -> Array:
        real_loss = jnp.mean(jax.nn.softplus(_network(params, real_batch)))
        return real_loss + jnp.mean(jax.nn.softplus(-_network(params, other_batch)))

    def step(carry: tuple[_Parameters, Any], places: Array) -> tuple[tuple[_Parameters, Any], None]:
        params, state = carry
        gradient = jax.grad(loss)(params, real[places[0]], other[places[1]])
        updates, state = optimizer.update(gradient, state, params)
        return (optax.apply_updates(params, updates), state), None

    (params, _), _ = jax.lax.scan(step, (params, optimizer.init(params)), batches)
    return params


@jax.jit
def _logits(
    params: _Parameters, batches: Array, members: Array, real: Array, other: Array, judged: Array
) -> Array:
    """Trains every member of the ensemble on every fold; returns mean logits `[folds, J]`.

    Args:
      params: first parameters, `[folds, M, ...]`.
      batches: int32 `[folds, M, steps, 2, B]`.
      members: what each member multiplies the inputs with, `[M, D]`.
      real: training inputs of each fold, `[folds, T, D]`.
      other: the same, `[folds, U, D]`.
      judged: inputs of the images to be judged, `[folds, J, D]`.
    """

    def one(
        params: _Parameters, batches: Array, member: Array, real: Array, other: Array, judged: Array
    ) -> Array:
        params = _train(params, batches, real * member[None], other * member[None])
        return _network(params, judged * member[None])

    over_members = jax.vmap(one, in_axes=(0, 0, 0, None, None, None))
    over_folds = jax.vmap(over_members, in_axes=(0, 0, None, 0, 0, 0))
    return jnp.mean(over_folds(params, batches, members, real, other, judged), axis=1)


def _weights(sizes: list[int]) -> np.ndarray:
    """What each member multiplies each input with, float32 `[M, D]`."""
    rows = []
    for member in _MEMBERS:
        parts = []
        for group, (scale, size) in enumerate(zip(member, sizes, strict=True)):
            components = group % 2 == 1
            decay = 1 / np.sqrt(1 + np.arange(size) / _DECAY_COMPONENT) if components else 1.0
            parts.append(scale * decay * np.ones(size))
        rows.append(np.concatenate(parts))
    return np.asarray(rows, np.float32)


def judge(real: np.ndarray, other: np.ndarray, seed: int) -> tuple[Accuracy, np.ndarray]:
    """The accuracy of one network, without control, and its logits.

    Args:
      real: finite flux per pixel, float32 `[n, H, W]`.
      other: the same, `[m, H, W]`.
      seed: of halves, first parameters and batches.

    Returns:
      The accuracy, and the logits of real and other images, float32 `[n + m]`.
    """
    generator = np.random.default_rng(seed)
    count = len(real)
    rms = float(np.sqrt(np.mean(np.square(real, dtype=np.float64))))
    median = max(float(np.median(np.abs(real))), _LEAST_MEDIAN * rms)
    layer = InputLayer(np.concatenate([real, other]), rms, median)
    orders = generator.permutation(count), count + generator.permutation(len(other))
    halves = [[order[fold::_FOLDS] for order in orders] for fold in range(_FOLDS)]
    folds = []
    for taught, judged in (halves, halves[::-1]):
        # Of an odd number the first half has one more; equal shapes for both folds.
        train = [half[: len(order) // _FOLDS] for half, order in zip(taught, orders, strict=True)]
        groups = layer.groups(*train)
        inputs = np.concatenate(groups, axis=1)
        # The last place is repeated where this half is the smaller one.
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
    found = _logits(params, batches, members, real_inputs, other_inputs, judged_inputs)
    logits = np.full(count + len(other), np.nan, np.float32)
    logits[all_places.ravel()] = np.asarray(found).ravel()
    return _accuracy(logits[:count], logits[count:]), logits


def _accuracy(real_logits: np.ndarray, other_logits: np.ndarray) -> Accuracy:
    shares = [float(np.mean(real_logits < 0)), float(np.mean(other_logits > 0))]
    counts = len(real_logits), len(other_logits)
    # Never 0: a share of 0 or 1 of so many images still has an error.
    smooth = [(share * n + 1) / (n + 2) for share, n in zip(shares, counts, strict=True)]
    variances = [share * (1 - share) * _FOLDS / n for share, n in zip(smooth, counts, strict=True)]
    return Accuracy(sum(shares) / 2, math.sqrt(sum(variances)) / 2, *shares)


def c2st(real: np.ndarray, generated: np.ndarray, control: np.ndarray, seed: int = 0) -> C2ST:
    """Tests whether a network tells generated images from real ones, and whether it could.

    Hand in images with instrument noise for a score, with another seed of the noise on each side;
    noise-free ones for a diagnostic alone. The control's result depends on the real images and the
    seed, not on the generated ones.

    Args:
      real: flux per pixel, `[n, H, W]`, at least 50, which the generator never saw.
      generated: `[m, H, W]`, in the same proportion of classes.
      control: real lenses with a 30 % wider point-spread function, `[m, H, W]`; lenses of their own
        and not those of `real`.
      seed: of halves, first parameters and batches.

    Raises:
      MeasureError: for too few images, sizes that differ, or values that are not finite.
    """
    sets = {"real": real, "generated": generated, "control": control}
    arrays = {
        name: check_images(images, f"{name} images", min_count=MIN_COUNT)
        for name, images in sets.items()
    }
    real, generated, control = arrays.values()
    if len({images.shape[1:] for images in arrays.values()}) > 1:
        sizes = ", ".join(f"{name} {images.shape[1:]}" for name, images in arrays.items())
        raise MeasureError(f"images differ in size: {sizes}; all three need the same")
    if len(control) != len(generated):
        raise MeasureError(
            f"control images are {len(control)}, generated ones {len(generated)}; the same budget"
            " needs as many of each"
        )
    if not real.any():
        raise MeasureError("real images are black; hand in flux")
    accuracy, logits = judge(real, generated, seed)
    found, _ = judge(real, control, seed)
    has_power = found.value >= max(POWER_ACCURACY, 0.5 + POWER_ERRORS * found.error)
    apart = accuracy.value >= 0.5 + POWER_ERRORS * accuracy.error
    verdict = ("told apart" if apart else "not told apart") if has_power else NO_POWER
    return C2ST(accuracy, found, has_power, verdict, (logits[: len(real)], logits[len(real) :]))
