"""The four-parameter fit of an axion vortex: source position, axion mass, angle of the line.

The vortex is a line of point masses at `z = s_k = t_k L e^(i a)`. With `z = x + i y` its deflection
is the conjugate of `theta^2 sum 1 / (z - s_k)`, an analytic function of `log L + i a`: but for a
factor i, its derivatives by length and by angle are the same, `theta^2 sum s_k / (z - s_k)^2`.

Long lines (small masses) are made of points farther apart than a pixel, which gives the cost narrow
side minima a few per cent of the image deep. A fit therefore makes a table of lenses over the
prior, then several short searches from its best entries, and a long search from the best result.
"""

import functools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from lensjax.data import raytracing
from lensjax.data.raytracing import Lens
from lensjax.data.simulator import (
    ARCSEC_PER_SQRT_MASS,
    LOG10_AXION_MASS_RANGE,
    conserved_theta_e,
    smooth_lens,
    vortex_points,
)
from lensjax.data.surveys import Survey
from lensjax.devices.chunks import map_chunks
from lensjax.metrics import fitting, forward, starts

_MASSES, _ANGLES, _POSITIONS = 21, 16, 13
_NUM_STARTS = 4
_SHORT_SEARCH, _LONG_SEARCH = 8, 32
_CHUNK = 16
_TABLE_CHUNKS = (32, 512)
_PAIRS_PER_UNROLL = 2
# A little beyond the prior, so that a fit that ends at a bound is recognised.
_LOG10_MASS_LIMITS = (LOG10_AXION_MASS_RANGE[0] - 0.2, LOG10_AXION_MASS_RANGE[1] + 0.2)
_LOWER = np.array(
    [-fitting.POSITION_LIMIT, -fitting.POSITION_LIMIT, _LOG10_MASS_LIMITS[0], -np.inf]
)
_UPPER = np.array([fitting.POSITION_LIMIT, fitting.POSITION_LIMIT, _LOG10_MASS_LIMITS[1], np.inf])


class AxionFit(NamedTuple):
    """The best lens with an axion vortex for each image.

    Attributes:
      source_x: arcsec, float32 `[N]`.
      source_y: arcsec, float32 `[N]`.
      log10_axion_mass: log10 of the mass in eV, float32 `[N]`, within 0.2 of the prior.
      angle: direction of the line in radians, from 0 to pi, float32 `[N]`. Above a mass of
        10^-22.5 eV the line is shorter than a pixel, and angle and mass mean little.
      image: the fitted image, flux, float32 `[N, H, W]`.
      ratio: RMS(image - fit) / RMS(image), float32 `[N]`.
      converged: see `fitting.Fitted`, bool `[N]`.
      amplitude: see `fitting.Fitted`, float32 `[N]`.
    """

    source_x: np.ndarray
    source_y: np.ndarray
    log10_axion_mass: np.ndarray
    angle: np.ndarray
    image: np.ndarray
    ratio: np.ndarray
    converged: np.ndarray
    amplitude: np.ndarray


def axion_lens(parameters: Array, survey: Survey, *, conserved: bool = False) -> Lens:
    """The lens of source x, source y, log10 of the axion's mass and angle, `[4]`."""
    mass, x, y = vortex_points(parameters[2], parameters[3])
    theta = ARCSEC_PER_SQRT_MASS * jnp.sqrt(mass)
    lens = smooth_lens(survey, parameters[0], parameters[1])
    lens = lens._replace(point_theta_e=theta, point_x=x, point_y=y)
    return lens._replace(theta_e=conserved_theta_e(survey, theta, x, y)) if conserved else lens


def _deflection_by_log_length(lens: Lens, survey: Survey) -> tuple[Array, Array]:
    """Real and imaginary part of `theta^2 sum s_k / (z - s_k)^2`, each `[n, n]`.

    Points come in pairs s and -s, whose terms add up to `4 z s^2 / (z^2 - s^2)^2`.
    """
    x, y = forward.image_grid(survey)
    half = lens.point_x.shape[0] // 2
    point_x, point_y = lens.point_x[half:], lens.point_y[half:]
    square_x, square_y = x**2 - y**2, 2 * x * y

    def add_pair(
        total: tuple[Array, Array], pair: tuple[Array, Array]
    ) -> tuple[tuple[Array, Array], None]:
        pair_x, pair_y = pair
        dx, dy = square_x - pair_x, square_y - pair_y
        factor = 1 / (dx**2 + dy**2)
        dx, dy = factor * dx, factor * dy
        real, imaginary = dx**2 - dy**2, -2 * dx * dy
        return (
            total[0] + (pair_x * real - pair_y * imaginary),
            total[1] + (pair_x * imaginary + pair_y * real),
        ), None

    zero = jnp.zeros_like(square_y)
    squares = (point_x**2 - point_y**2, 2 * point_x * point_y)
    (real, imaginary), _ = jax.lax.scan(add_pair, (zero, zero), squares, unroll=_PAIRS_PER_UNROLL)
    scale = 4 * lens.point_theta_e[0] ** 2
    return scale * (x * real - y * imaginary), scale * (x * imaginary + y * real)


def _model(parameters: Array, survey: Survey, conserved: bool) -> tuple[Array, Array]:
    """The image `[n, n]` and its derivatives by the four parameters `[4, n, n]`."""
    lens = axion_lens(parameters, survey, conserved=conserved)
    x, y = forward.image_grid(survey)
    points = raytracing.points_deflection(x, y, lens.point_theta_e, lens.point_x, lens.point_y)
    brightness, slope_x, slope_y = forward.trace(lens, survey, *points)
    real, imaginary = _deflection_by_log_length(lens, survey)
    beta = lens.deflection_factor
    by_log_length = -beta * (slope_x * real - slope_y * imaginary)
    by_angle = beta * (slope_x * imaginary + slope_y * real)
    by_log10_mass = -math.log(10) * by_log_length  # the length falls as 1 / mass
    images = jnp.stack([brightness, -slope_x, -slope_y, by_log10_mass, by_angle])
    blurred = forward.blur(images, survey)
    return blurred[0], blurred[1:]


@functools.cache
def _make_evaluate(survey: Survey, conserved: bool, free_amplitude: bool) -> fitting.Evaluate:
    def evaluate(parameters: Array, image: Array) -> fitting.Expansion:
        model, jacobian = _model(parameters, survey, conserved)
        if free_amplitude:
            model, jacobian = fitting.project_amplitude(model, jacobian, image)
        return fitting.expand(model - image, jacobian)

    return evaluate


@functools.cache
def _make_render(survey: Survey, conserved: bool) -> fitting.Render:
    def render(parameters: Array) -> Array:
        return raytracing.render(axion_lens(parameters, survey, conserved=conserved), survey)

    return render


@functools.partial(jax.jit, static_argnames=("survey", "conserved", "free_amplitude"))
def _table_chunk(
    images: Array, survey: Survey, conserved: bool, free_amplitude: bool
) -> tuple[Array, Array]:
    """The lowest costs over all source positions, `[M * A, N]`, and their positions."""
    x, y = forward.image_grid(survey)
    positions = starts.position_grid(_POSITIONS)
    structures = jnp.stack(jnp.meshgrid(*_table_axes(), indexing="ij"), axis=-1).reshape(-1, 2)

    def best_positions(structure: Array) -> tuple[Array, Array]:
        lens = axion_lens(jnp.append(jnp.zeros(2), structure), survey, conserved=conserved)
        points = raytracing.points_deflection(x, y, lens.point_theta_e, lens.point_x, lens.point_y)

        def brightness(position: Array) -> Array:
            moved = lens._replace(source_x=position[0], source_y=position[1])
            return forward.trace(moved, survey, *points)[0]

        candidates = forward.blur(jax.vmap(brightness)(positions), survey)
        costs = starts.candidate_costs(images, candidates, free_amplitude)
        best = jnp.argmin(costs, axis=1)
        return jnp.min(costs, axis=1), positions[best]

    return jax.lax.map(best_positions, structures)


def _table_axes() -> tuple[np.ndarray, np.ndarray]:
    masses = np.linspace(*LOG10_AXION_MASS_RANGE, _MASSES)
    return masses.astype(np.float32), (np.arange(_ANGLES) * np.pi / _ANGLES).astype(np.float32)


def _starts(
    images: np.ndarray, survey: Survey, conserved: bool, free_amplitude: bool
) -> np.ndarray:
    """The best entries of the table, float32 `[N, S, 4]`."""
    # Rendering the table takes as long as comparing 300 images with it; few images need less.
    chunk = min(size for size in _TABLE_CHUNKS if size >= len(images) or size == _TABLE_CHUNKS[-1])
    masses, angles = _table_axes()

    def best_positions(image_chunk: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        table = _table_chunk(image_chunk, survey, conserved, free_amplitude)
        costs, positions = map(np.asarray, table)
        return costs.T, positions.swapaxes(0, 1)

    costs, positions = map_chunks(best_positions, chunk, images)  # [N, M * A], [N, M * A, 2]
    grid = costs.reshape(-1, _MASSES, _ANGLES)
    best = starts.local_minima(grid, _NUM_STARTS, periodic=True)
    places = np.take_along_axis(positions, best[..., None], axis=1)
    structure = np.stack([masses[best // _ANGLES], angles[best % _ANGLES]], axis=-1)
    return np.concatenate([places, structure], axis=-1)


def fit_axion(
    images: np.ndarray,
    survey: Survey,
    *,
    conserved: bool = False,
    free_amplitude: bool = False,
) -> AxionFit:
    """Fits source position, axion mass and angle of the vortex to each image.

    Args:
      images: flux per pixel, float32 `[N, H, W]`.
      survey: the DeepLense model of the images.
      conserved: for the `_conserved` sets, whose main halo gave its mass to the vortex.
      free_amplitude: for images scaled by their maximum; the flux is then not tested.

    Raises:
      ValueError: for no images, a size other than the survey's, or pixels that are not finite.
    """
    images = fitting.check_images(images, survey)
    evaluate = _make_evaluate(survey, conserved, free_amplitude)
    search = functools.partial(
        fitting.minimise, evaluate, images, lower=_LOWER, upper=_UPPER, chunk=_CHUNK
    )
    begin = _starts(images, survey, conserved, free_amplitude)
    short = search(begin, max_iterations=_SHORT_SEARCH)
    minimum = search(short.parameters[:, None], max_iterations=_LONG_SEARCH)
    parameters = minimum.parameters
    inside = fitting.strictly_inside(parameters, _LOWER, _UPPER)
    models = fitting.map_rows(_make_render(survey, conserved), parameters)
    fitted = fitting.finish(images, models, minimum.ended & inside, free_amplitude)
    angle = np.mod(parameters[:, 3].astype(np.float64), np.pi).astype(np.float32)
    return AxionFit(parameters[:, 0], parameters[:, 1], parameters[:, 2], angle, **fitted._asdict())
