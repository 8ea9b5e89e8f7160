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

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array

from lensjax import prng
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


class _Network(nn.Module):
    """Two hidden layers beside a linear path; the logit is 0 at the start."""

    @nn.compact
    def __call__(self, inputs: Array) -> Array:
        hidden = nn.gelu(nn.Dense(_HIDDEN)(inputs))
        hidden = nn.gelu(nn.Dense(_HIDDEN)(hidden))
        both = jnp.concatenate([hidden, inputs], axis=-1)
        return nn.Dense(1, kernel_init=nn.initializers.zeros)(both)[..., 0]


def _apply(params: Any, inputs: Array) -> Array:
    logits: Any = _Network().apply(params, inputs)
    return logits


def _train(key: Array, real: Array, other: Array) -> Any:
    """Returns the trained parameters of one network.

    Args:
      key: a typed key.
      real: inputs of the real training images, `[T, D]`.
      other: those of the others, `[U, D]`.
    """
    init_key, batch_key = jax.random.split(key)
    params = _Network().init(init_key, real[:1])
    schedule = optax.cosine_decay_schedule(_LEARNING_RATE, _STEPS)
    optimizer = optax.adamw(schedule, weight_decay=_WEIGHT_DECAY)

    def loss(params: Any, real_batch: Array, other_batch: Array) -> Array:
        real_loss = jnp.mean(jax.nn.softplus(_apply(params, real_batch)))
        return real_loss + jnp.mean(jax.nn.softplus(-_apply(params, other_batch)))

    def step(carry: tuple, number: Array) -> tuple[tuple, None]:
        params, state = carry
        keys = jax.random.split(jax.random.fold_in(batch_key, number))
        batches = [
            side[jax.random.randint(side_key, (_IMAGES_PER_SIDE,), 0, len(side))]
            for side_key, side in zip(keys, (real, other), strict=True)
        ]
        gradient = jax.grad(loss)(params, *batches)
        updates, state = optimizer.update(gradient, state, params)
        return (optax.apply_updates(params, updates), state), None

    (params, _), _ = jax.lax.scan(step, (params, optimizer.init(params)), jnp.arange(_STEPS))
    return params


@jax.jit
def _logits(key: Array, members: Array, real: Array, other: Array, judged: Array) -> Array:
    """Trains every member of the ensemble on every fold; returns mean logits `[folds, J]`.

    Args:
      key: a typed key.
      members: what each member multiplies the inputs with, `[M, D]`.
      real: training inputs of each fold, `[folds, T, D]`.
      other: the same, `[folds, U, D]`.
      judged: inputs of the images to be judged, `[folds, J, D]`.
    """

    def one(key: Array, member: Array, real: Array, other: Array, judged: Array) -> Array:
        params = _train(key, real * member[None], other * member[None])
        return _apply(params, judged * member[None])

    keys = jax.random.split(key, (len(real), len(members)))
    over_members = jax.vmap(one, in_axes=(0, 0, None, None, None))
    logits = jax.vmap(over_members, in_axes=(0, None, 0, 0, 0))(keys, members, real, other, judged)
    return jnp.mean(logits, axis=1)


def _weights(sizes: list[int]) -> np.ndarray:
    """Returns what each member multiplies each input with, float32 `[M, D]`."""
    rows = []
    for member in _MEMBERS:
        parts = []
        for group, (scale, size) in enumerate(zip(member, sizes, strict=True)):
            components = group % 2 == 1
            decay = 1 / np.sqrt(1 + np.arange(size) / _DECAY_COMPONENT) if components else 1.0
            parts.append(scale * decay * np.ones(size))
        rows.append(np.concatenate(parts))
    return np.asarray(rows, np.float32)


def _judge(real: np.ndarray, other: np.ndarray, seed: int) -> tuple[Accuracy, np.ndarray]:
    """Returns the cross-fitted accuracy and the logits of real and other images, `[n + m]`."""
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
    found = _logits(prng.key(seed, "c2st"), members, real_inputs, other_inputs, judged_inputs)
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
      ValueError: for too few images, sizes that differ, or values that are not finite.
    """
    sets = {"real": real, "generated": generated, "control": control}
    arrays = {
        name: check_images(images, f"{name} images", min_count=MIN_COUNT)
        for name, images in sets.items()
    }
    real, generated, control = arrays.values()
    if len({images.shape[1:] for images in arrays.values()}) > 1:
        sizes = ", ".join(f"{name} {images.shape[1:]}" for name, images in arrays.items())
        raise ValueError(f"images differ in size: {sizes}; all three need the same")
    if len(control) != len(generated):
        raise ValueError(
            f"control images are {len(control)}, generated ones {len(generated)}; the same budget"
            " needs as many of each"
        )
    if not real.any():
        raise ValueError("real images are black; hand in flux")
    accuracy, logits = _judge(real, generated, seed)
    found, _ = _judge(real, control, seed)
    has_power = found.value >= max(POWER_ACCURACY, 0.5 + POWER_ERRORS * found.error)
    apart = accuracy.value >= 0.5 + POWER_ERRORS * accuracy.error
    verdict = ("told apart" if apart else "not told apart") if has_power else NO_POWER
    return C2ST(accuracy, found, has_power, verdict, (logits[: len(real)], logits[len(real) :]))
