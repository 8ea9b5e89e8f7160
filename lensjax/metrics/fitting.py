"""Levenberg-Marquardt for many images together: several starts, bounds, and residuals.

A problem is one function, `evaluate(parameters, image) -> Expansion`: the cost at a point with the
gradient and the Gauss-Newton matrix there. One evaluation gives cost and derivatives; each trial
takes one evaluation. Rows (an image and a start) that have ended leave the batch, so that a slow
row does not hold up the rest.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from lensjax.data.simulator import SOURCE_POSITION_LIMIT
from lensjax.data.surveys import Survey, check_survey
from lensjax.devices.chunks import map_chunks
from lensjax.metrics import image_input

Render = Callable[[Array], Array]
# A fit may go a little beyond the prior: a wrong image must not look right because its fit ends
# at a bound.
POSITION_LIMIT = 1.3 * SOURCE_POSITION_LIMIT
# A black image would have an infinite ratio; this limit keeps means finite.
MAX_RATIO = 1e6
# Above this ratio, a fit describes almost nothing of the image, and its parameters mean nothing.
_CONVERGED_RATIO = 0.5
_CHUNKS_PER_BLOCK = 8
_MAP_CHUNK, _MAP_BATCH = 64, 16
_ITERATIONS_PER_ROUND = 4  # between checks of which rows have ended
_FIRST_DAMPING = 1e-3
_MIN_DAMPING, _MAX_DAMPING = 1e-7, 1e5
_MIN_GAIN = 1e-4  # a search ends if the next move can gain at most this share of the cost
# A search also ends if it fails to improve a cost below this share of the image's power: float32
# has no more digits.
_EXACT_COST = 1e-13


class Expansion(NamedTuple):
    """A sum of squares to second order around a point.

    Attributes:
      cost: the sum of squares, `[]`.
      gradient: half of the cost's gradient, `[P]`.
      normal: half of the cost's Gauss-Newton matrix, `[P, P]`.
    """

    cost: Array
    gradient: Array
    normal: Array


Evaluate = Callable[[Array, Array], Expansion]


def expand(residual: Array, jacobian: Array) -> Expansion:
    """The expansion of a residual's sum of squares.

    Args:
      residual: model minus image, any shape.
      jacobian: its derivatives, `[P, ...]`.
    """
    flat, rows = residual.ravel(), jacobian.reshape(len(jacobian), -1)
    multiply = functools.partial(jnp.matmul, precision="highest")
    return Expansion(multiply(flat, flat), multiply(rows, flat), multiply(rows, rows.T))


def project_amplitude(model: Array, jacobian: Array, image: Array) -> tuple[Array, Array]:
    """Scales a model to the best amplitude, which enters linearly and needs no search.

    Args:
      model: `[H, W]`.
      jacobian: its derivatives, `[P, H, W]`.
      image: the image to fit, `[H, W]`.

    Returns:
      The model times its amplitude, which is at least 0, and the derivatives of that product.
    """

    def scaled(model: Array) -> Array:
        power = jnp.maximum(jnp.sum(jnp.square(model)), jnp.finfo(model.dtype).tiny)
        return jnp.maximum(jnp.sum(model * image) / power, 0.0) * model

    product, derivative = jax.linearize(scaled, model)
    return product, jax.vmap(derivative)(jacobian)


class _Row(NamedTuple):
    """The state of one search; leading axes are rows."""

    parameters: Array
    expansion: Expansion
    damping: Array
    ended: Array


def _propose(row: _Row, lower: Array, upper: Array) -> tuple[Array, Array]:
    """The next point to try, and the gain in cost that the expansion promises there."""
    parameters, (_, gradient, normal) = row.parameters, row.expansion
    # A parameter that the cost pushes against its bound stays; the rest move as if it were fixed.
    held = ((parameters <= lower) & (gradient > 0)) | ((parameters >= upper) & (gradient < 0))
    scale = jnp.sqrt(jnp.diag(normal))
    free = ~held & (scale > 0)
    scale = jnp.where(free, scale, 1.0)
    matrix = jnp.where(free[:, None] & free[None, :], normal / scale[:, None] / scale[None, :], 0.0)
    diagonal = jnp.arange(len(parameters))
    matrix = matrix.at[diagonal, diagonal].set(1 + row.damping)
    slope = jnp.where(free, gradient / scale, 0.0)
    move = jax.scipy.linalg.cho_solve(jax.scipy.linalg.cho_factor(matrix), slope)
    gain = jnp.matmul(move, slope, precision="highest")
    gain += row.damping * jnp.matmul(move, move, precision="highest")
    return jnp.clip(parameters - move / scale, lower, upper), gain


def _iterate(row: _Row, image: Array, evaluate: Evaluate, lower: Array, upper: Array) -> _Row:
    tried, gain = _propose(row, lower, upper)
    expansion = evaluate(tried, image)
    # Written so that NaN does not count as an improvement.
    better = (expansion.cost < row.expansion.cost) & ~row.ended

    def choose(new: Array, old: Array) -> Array:
        return jnp.where(better, new, old)

    damping = jnp.clip(
        jnp.where(better, row.damping / 8, row.damping * 4), _MIN_DAMPING, _MAX_DAMPING
    )
    best = jax.tree.map(choose, expansion, row.expansion)
    ended = (row.damping <= 1) & ~(gain > _MIN_GAIN * row.expansion.cost)
    ended |= damping >= _MAX_DAMPING
    ended |= ~better & (best.cost <= _EXACT_COST * jnp.sum(jnp.square(image)))
    return _Row(choose(tried, row.parameters), best, damping, row.ended | ended)


@functools.partial(jax.jit, static_argnames="evaluate")
def _first_round(images: Array, starts: Array, evaluate: Evaluate) -> _Row:
    expansion = jax.vmap(evaluate)(starts, images)
    damping = jnp.full(len(starts), _FIRST_DAMPING, starts.dtype)
    return _Row(starts, expansion, damping, jnp.zeros(len(starts), bool))


@functools.partial(jax.jit, static_argnames="evaluate")
def _next_round(rows: _Row, images: Array, evaluate: Evaluate, lower: Array, upper: Array) -> _Row:
    iterate = jax.vmap(lambda row, image: _iterate(row, image, evaluate, lower, upper))
    return jax.lax.fori_loop(0, _ITERATIONS_PER_ROUND, lambda _, rows: iterate(rows, images), rows)


class Minimum(NamedTuple):
    """The end of the best search for each image.

    Attributes:
      parameters: float32 `[N, P]`.
      cost: the sum of squares there, float32 `[N]`.
      ended: False where the iterations ran out first, bool `[N]`.
    """

    parameters: np.ndarray
    cost: np.ndarray
    ended: np.ndarray


def _minimise_block(
    evaluate: Evaluate,
    images: np.ndarray,
    starts: np.ndarray,
    bounds: tuple[Array, Array],
    rounds: int,
    chunk: int,
) -> Minimum:
    """One search for each image, from its start; a block's states all stay in memory."""
    next_round = functools.partial(_next_round, evaluate=evaluate, lower=bounds[0], upper=bounds[1])
    rows = map_chunks(functools.partial(_first_round, evaluate=evaluate), chunk, images, starts)
    for _ in range(rounds):
        active = np.flatnonzero(~rows.ended)
        if not len(active):
            break
        before = jax.tree.map(lambda leaf, active=active: leaf[active], rows)
        after = map_chunks(next_round, chunk, before, images[active])
        for leaf, new in zip(jax.tree.leaves(rows), jax.tree.leaves(after), strict=True):
            leaf[active] = new
    return Minimum(rows.parameters, rows.expansion.cost, rows.ended)


def minimise(
    evaluate: Evaluate,
    images: np.ndarray,
    starts: np.ndarray,
    lower: np.ndarray,
    upper: np.ndarray,
    *,
    max_iterations: int = 40,
    chunk: int = 64,
) -> Minimum:
    """Finds the least sum of squares for each image from several starts.

    Args:
      evaluate: the problem (compiled once for each such function).
      images: float32 `[N, H, W]`.
      starts: float32 `[N, S, P]`.
      lower: bounds `[P]`; -inf for none.
      upper: bounds `[P]`; inf for none.
      max_iterations: trials for each start, rounded up to a multiple of 4.
      chunk: rows that are computed together.
    """
    num_images, num_starts, num_parameters = starts.shape
    bounds = (jnp.asarray(lower, jnp.float32), jnp.asarray(upper, jnp.float32))
    row_starts = starts.reshape(-1, num_parameters).astype(np.float32)
    image_index = np.repeat(np.arange(num_images), num_starts)
    rounds, step = -(-max_iterations // _ITERATIONS_PER_ROUND), _CHUNKS_PER_BLOCK * chunk
    blocks = [slice(first, first + step) for first in range(0, len(row_starts), step)]
    block_minima = [
        _minimise_block(
            evaluate, images[image_index[block]], row_starts[block], bounds, rounds, chunk
        )
        for block in blocks
    ]
    minima = jax.tree.map(lambda *leaves: np.concatenate(leaves), *block_minima)
    cost = np.where(np.isnan(minima.cost), np.inf, minima.cost).reshape(num_images, num_starts)
    best_rows = np.arange(num_images) * num_starts + np.argmin(cost, axis=1)
    return jax.tree.map(lambda leaf: leaf[best_rows], minima)


def strictly_inside(parameters: np.ndarray, lower: np.ndarray, upper: np.ndarray) -> np.ndarray:
    """Which rows of `[N, P]` touch none of their bounds `[P]`, bool `[N]`."""
    low, high = lower.astype(np.float32), upper.astype(np.float32)
    return np.all((parameters > low) & (parameters < high), axis=1)


class Fitted(NamedTuple):
    """The results of every fit besides its parameters.

    Attributes:
      image: the fitted image, flux, float32 `[N, H, W]`.
      ratio: RMS(image - fit) / RMS(image), at most `MAX_RATIO`, float32 `[N]`.
      converged: whether the search ended on its own, away from the bounds, with a ratio below 1/2,
        bool `[N]`.
      amplitude: factor of the model, 1 where the amplitude is fixed, float32 `[N]`.
    """

    image: np.ndarray
    ratio: np.ndarray
    converged: np.ndarray
    amplitude: np.ndarray


def finish(
    images: np.ndarray, models: np.ndarray, ended: np.ndarray, free_amplitude: bool
) -> Fitted:
    """Compares images with the models of their fits, with sums in float64.

    Args:
      images: flux, float32 `[N, H, W]`.
      models: the images of the fitted lenses with the survey's amplitude, the same shape.
      ended: which searches ended on their own away from the bounds, bool `[N]`.
      free_amplitude: scales each model to its image.
    """
    amplitude = np.ones(len(images), np.float32)
    if free_amplitude:
        product = np.sum(images * models, axis=(1, 2), dtype=np.float64)
        power = np.sum(np.square(models, dtype=np.float64), axis=(1, 2))
        tiny = np.finfo(np.float32).tiny
        amplitude = np.maximum(product / np.maximum(power, tiny), 0).astype(np.float32)
        models = models * amplitude[:, None, None]
    residual_rms, image_rms = rms(images - models), rms(images)
    black = image_rms == 0
    ratio = np.minimum(residual_rms / np.where(black, 1, image_rms), MAX_RATIO)
    ratio = np.where(black, MAX_RATIO, ratio).astype(np.float32)
    return Fitted(models, ratio, ended & (ratio < _CONVERGED_RATIO), amplitude)


def rms(images: np.ndarray) -> np.ndarray:
    """The root of the mean square of each image `[N, H, W]`, float64 `[N]`."""
    return np.sqrt(np.mean(np.square(images, dtype=np.float64), axis=(1, 2)))


def check_images(images: np.ndarray, survey: Survey) -> np.ndarray:
    """Checks images of a survey and converts them to float32 `[N, H, W]`.

    Raises:
      lensjax.errors.MeasureError: for no images, a size other than the survey's, or pixels that are
        not finite.
      lensjax.errors.DataError: for no survey.
    """
    check_survey(survey)
    return image_input.check_images(images, shape=(survey.num_pixels,) * 2)


@functools.partial(jax.jit, static_argnames="render")
def _map_chunk(render: Render, parameters: Array) -> Array:
    return jax.lax.map(render, parameters, batch_size=_MAP_BATCH)


def map_rows(render: Render, parameters: np.ndarray) -> np.ndarray:
    """The images of parameters `[N, P]`, float32 `[N, H, W]`.

    Args:
      render: the image of one row (compiled once for each such function).
      parameters: float32 `[N, P]`.
    """
    return map_chunks(functools.partial(_map_chunk, render), _MAP_CHUNK, parameters)
