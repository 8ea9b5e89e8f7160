"""The forward model: a lens and a source become an image; pure functions that jit and vmap.

A lens is a singular isothermal ellipsoid with external shear and a set of point masses (the
sub-structure); the source is an elliptical Sersic profile. The deflection of the ellipsoid follows
Kormann, Schneider & Bartelmann (1994). Lengths are in arcsec.

Constant parameters are Python floats, so that under `vmap` whatever depends on them alone is
computed once for the whole batch; that is most of the speed.
"""

import functools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from lensjax.arguments import instance, whole_number
from lensjax.data.surveys import Survey, check_survey
from lensjax.errors import DataError

SIGMA_PER_FWHM = 1 / (2 * math.sqrt(2 * math.log(2)))
_CORE = 1e-10
_MAX_AXIS_RATIO = 1 - 1e-5
_MIN_SOURCE_RADIUS = 1e-4
_POINTS_PER_UNROLL = 5


class Lens(NamedTuple):
    """Everything that one noise-free image depends on; each field a float or an array.

    Attributes:
      theta_e: Einstein radius of the main halo in arcsec, before `deflection_factor`.
      e1: ellipticity component of the main halo; `|e| = (1 - q) / (1 + q)`.
      e2: ellipticity component of the main halo.
      gamma1: shear component.
      gamma2: shear component.
      deflection_factor: beta, by which every deflection is multiplied.
      amplitude: source surface brightness at the Sersic radius, flux per arcsec^2.
      radius: Sersic radius in arcsec.
      sersic_index: Sersic index n.
      source_e1: ellipticity component of the source.
      source_e2: ellipticity component of the source.
      source_x: source position in arcsec.
      source_y: source position in arcsec.
      point_theta_e: `[K]`, Einstein radii of the point masses in arcsec; K may be 0.
      point_x: `[K]`, positions in arcsec.
      point_y: `[K]`, positions in arcsec.
    """

    theta_e: float | Array
    e1: float | Array
    e2: float | Array
    gamma1: float | Array
    gamma2: float | Array
    deflection_factor: float | Array
    amplitude: float | Array
    radius: float | Array
    sersic_index: float | Array
    source_e1: float | Array
    source_e2: float | Array
    source_x: float | Array
    source_y: float | Array
    point_theta_e: Array
    point_x: Array
    point_y: Array


def pixel_centres(num_pixels: int, pixel_scale_arcsec: float) -> np.ndarray:
    """The centres of the pixels along one axis, float64 `[num_pixels]`, in arcsec."""
    return (np.arange(num_pixels) - (num_pixels - 1) / 2) * pixel_scale_arcsec


def _axis_ratio_and_angle(e1: float | Array, e2: float | Array) -> tuple[Array, Array]:
    ellipticity = jnp.sqrt(jnp.square(e1) + jnp.square(e2))
    axis_ratio = jnp.minimum((1 - ellipticity) / (1 + ellipticity), _MAX_AXIS_RATIO)
    return axis_ratio, jnp.arctan2(e2, e1) / 2


def _rotate(x: Array, y: Array, angle: Array) -> tuple[Array, Array]:
    cosine, sine = jnp.cos(angle), jnp.sin(angle)
    return cosine * x + sine * y, -sine * x + cosine * y


def ellipsoid_deflection(
    x: Array, y: Array, e1: float | Array, e2: float | Array
) -> tuple[Array, Array]:
    """The deflection of an isothermal ellipsoid at the origin with an Einstein radius of 1.

    The deflection is proportional to the Einstein radius: a varied radius costs one product.

    Args:
      x: positions in arcsec, broadcastable against `y`.
      y: positions in arcsec.
      e1: ellipticity component.
      e2: ellipticity component.

    Returns:
      `(alpha_x, alpha_y)` per arcsec of Einstein radius.
    """
    q, angle = _axis_ratio_and_angle(e1, e2)
    core = _CORE / jnp.sqrt(q)
    u, v = _rotate(x, y, angle)
    f = jnp.sqrt(1 - q**2)
    psi = jnp.sqrt(q**2 * (core**2 + u**2) + v**2)
    scale = jnp.sqrt(q) / f
    alpha_u = scale * jnp.arctan(f * u / (psi + core))
    alpha_v = scale * jnp.arctanh(f * v / (psi + q**2 * core))
    return _rotate(alpha_u, alpha_v, -angle)


def points_deflection(
    x: Array, y: Array, theta_e: Array, point_x: Array, point_y: Array
) -> tuple[Array, Array]:
    """The summed deflection of point masses, `theta^2 d / |d|^2` each.

    Args:
      x: positions in arcsec, `[1, W]`.
      y: positions in arcsec, `[H, 1]`.
      theta_e: Einstein radii in arcsec, `[K]`.
      point_x: x of the points in arcsec, `[K]`.
      point_y: y of the points.

    Returns:
      `(alpha_x, alpha_y)`, each `[H, W]`, in arcsec.
    """

    # A scan with few points per turn stays in the cache; a broadcast axis of K is ten times slower.
    def add_point(
        total: tuple[Array, Array], point: tuple[Array, Array, Array]
    ) -> tuple[tuple[Array, Array], None]:
        theta, centre_x, centre_y = point
        dx, dy = x - centre_x, y - centre_y
        factor = theta**2 / (dx**2 + dy**2)
        return (total[0] + factor * dx, total[1] + factor * dy), None

    zero = jnp.zeros(jnp.broadcast_shapes(x.shape, y.shape), jnp.result_type(x, theta_e))
    total, _ = jax.lax.scan(
        add_point, (zero, zero), (theta_e, point_x, point_y), unroll=_POINTS_PER_UNROLL
    )
    return total


def sersic_brightness(x: Array, y: Array, lens: Lens) -> Array:
    """The source's surface brightness at source-plane positions, flux per arcsec^2.

    `I = A exp(-b_n ((r / R)^(1/n) - 1))` with `b_n = 1.9992 n - 0.3271` and
    `r^2 = q u^2 + v^2 / q`, at least 1e-4 arcsec.
    """
    q, angle = _axis_ratio_and_angle(lens.source_e1, lens.source_e2)
    u, v = _rotate(x - lens.source_x, y - lens.source_y, angle)
    # The square of the radius keeps the gradient finite at the centre.
    radius_squared = jnp.maximum(q * u**2 + v**2 / q, _MIN_SOURCE_RADIUS**2) / lens.radius**2
    if isinstance(lens.sersic_index, float) and lens.sersic_index == 1.0:
        scaled_radius = jnp.sqrt(radius_squared)  # a general power costs several times as much
    else:
        scaled_radius = radius_squared ** (0.5 / lens.sersic_index)
    b_n = 1.9992 * lens.sersic_index - 0.3271
    return lens.amplitude * jnp.exp(-b_n * (scaled_radius - 1))


@functools.lru_cache(maxsize=32)
def _image_matrix(survey: Survey, supersampling: int, fine_psf: bool) -> np.ndarray:
    """The `[n, n * supersampling]` matrix A of binning and blurring along one axis.

    An image is `A I A^T`. The blur repeats the edge value and is cut at 4 sigma.
    """
    pixels = survey.num_pixels * supersampling
    binning = np.kron(np.eye(survey.num_pixels), np.full((1, supersampling), 1 / supersampling))
    blurred_pixels = pixels if fine_psf else survey.num_pixels
    scale = survey.pixel_scale_arcsec * survey.num_pixels / blurred_pixels
    sigma = survey.psf_fwhm_arcsec * SIGMA_PER_FWHM / scale
    radius = int(4 * sigma + 0.5)
    offsets = np.arange(-radius, radius + 1)
    kernel = np.exp(-0.5 * (offsets / sigma) ** 2)
    kernel /= kernel.sum()
    blur = np.zeros((blurred_pixels, blurred_pixels))
    for row in range(blurred_pixels):
        columns = np.clip(row + offsets, 0, blurred_pixels - 1)
        np.add.at(blur[row], columns, kernel)
    return binning @ blur if fine_psf else blur @ binning


def render(lens: Lens, survey: Survey, *, supersampling: int = 1, fine_psf: bool = False) -> Array:
    """Renders one noise-free lens image.

    Args:
      lens: the parameters of one image; use `vmap` for more.
      survey: pixels and point-spread function (static).
      supersampling: rays along each side of a pixel; the published sets use 1.
      fine_psf: True applies the point-spread function to the rays, False to the pixels.

    Returns:
      Flux per pixel, `[n, n]`, row 0 at the lowest y; float32, or float64 where that is enabled.

    Raises:
      DataError: for no survey or lens, or a `supersampling` that is no integer of at least 1.
    """
    check_survey(survey)
    instance("lens", lens, Lens, "a lensjax.data.raytracing.Lens", error=DataError)
    supersampling = whole_number("supersampling", supersampling, 1, 1024, error=DataError)
    side = survey.num_pixels * supersampling
    centres = jnp.asarray(pixel_centres(side, survey.pixel_scale_arcsec / supersampling))
    x, y = centres[None, :], centres[:, None]
    alpha_x, alpha_y = ellipsoid_deflection(x, y, lens.e1, lens.e2)
    alpha_x = lens.theta_e * alpha_x + (lens.gamma1 * x + lens.gamma2 * y)
    alpha_y = lens.theta_e * alpha_y + (lens.gamma2 * x - lens.gamma1 * y)
    if lens.point_theta_e.shape[-1]:
        points_x, points_y = points_deflection(x, y, lens.point_theta_e, lens.point_x, lens.point_y)
        alpha_x, alpha_y = alpha_x + points_x, alpha_y + points_y
    beta = lens.deflection_factor
    brightness = sersic_brightness(x - beta * alpha_x, y - beta * alpha_y, lens)
    pixel_area = survey.pixel_scale_arcsec**2
    matrix = jnp.asarray(
        _image_matrix(survey, supersampling, fine_psf) * math.sqrt(pixel_area), brightness.dtype
    )
    multiply = functools.partial(jnp.matmul, precision="highest")
    return multiply(multiply(matrix, brightness), matrix.T)
