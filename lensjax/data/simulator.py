"""Ray-shooting simulator of DeepLense Models I, II and III as pure functions that jit and vmap.

A lens is a singular isothermal ellipsoid with external shear and a set of point masses (the
sub-structure); the source is an elliptical Sersic profile. The published generator is DeepLenseSim
(Alexander et al. 2020, arXiv:1909.07346); the deflection of the ellipsoid follows
Kormann, Schneider & Bartelmann (1994). Lengths are in arcsec; masses in solar masses.

Constant parameters are Python floats, so that under `vmap` whatever depends on them alone is
computed once for the whole batch; that is most of the speed.
"""

import dataclasses
import functools
import math
from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

CLASS_NAMES = ("axion", "cdm", "no_sub")

# theta_E = ARCSEC_PER_SQRT_MASS sqrt(M), as published (luminosity distances; lens 0.5, source 1.0).
ARCSEC_PER_SQRT_MASS = 1.2814905676e-6
# The same with angular-diameter distances, which is the physically right one.
ARCSEC_PER_SQRT_MASS_ANGULAR = 1.6645190e-6
HALO_MASS = 1e12
LENS_E1, LENS_E2 = 0.1, 0.0
SHEAR_GAMMA1, SHEAR_GAMMA2 = 0.05, 0.0
SOURCE_RADIUS, SOURCE_INDEX = 0.25, 1.0
SOURCE_E1, SOURCE_E2 = -0.1, 0.1
SOURCE_POSITION_LIMIT = 0.35
NUM_SUBHALOES = 25
SUBHALO_MASS_RANGE = (1e6, 1e10)
SUBHALO_MASS_EXPONENT = 0.1  # b + 1 for a density that falls as m^b, b = -0.9
SUBHALO_RADIUS_RANGE = (0.25, 2.0)
NUM_VORTEX_POINTS = 100
VORTEX_POINT_MASS = 3e8
LOG10_AXION_MASS_RANGE = (-24.0, -22.0)
# Half-length of the vortex in arcsec at an axion mass of 1e-22 eV; it falls as 1 / mass.
VORTEX_HALF_LENGTH = 0.03
LOG10_EXPOSURE_RANGE = (3.0, 3.5)
SIGMA_PER_FWHM = 1 / (2 * math.sqrt(2 * math.log(2)))
_CORE = 1e-10
_MAX_AXIS_RATIO = 1 - 1e-5
_MIN_SOURCE_RADIUS = 1e-4
_POINTS_PER_UNROLL = 5


@dataclasses.dataclass(frozen=True)
class Survey:
    """One DeepLense model: the image plane, its multi-plane factor, and its noise.

    Attributes:
      name: `model_i`, `model_ii` or `model_iii`.
      num_pixels: pixels a side.
      pixel_scale_arcsec: side of a pixel.
      psf_fwhm_arcsec: full width at half maximum of the Gaussian point-spread function.
      deflection_factor: beta, by which every deflection is multiplied.
      source_amplitude: surface brightness of the source at its Sersic radius, flux per arcsec^2.
      flux_unit: the unit of `image`.
      exposure_time_s: total exposure; None where it is drawn for each image (Model I).
      background_rms: standard deviation of sky and read-out noise, flux per pixel.
      published_scale: what the published files are multiplied by.
    """

    name: str
    num_pixels: int
    pixel_scale_arcsec: float
    psf_fwhm_arcsec: float
    deflection_factor: float
    source_amplitude: float
    flux_unit: str
    exposure_time_s: float | None
    background_rms: float
    published_scale: float


def background_rms(
    num_exposures: int,
    exposure_time_s: float,
    zero_point: float,
    sky_magnitude: float,
    read_noise: float,
    pixel_scale_arcsec: float,
) -> float:
    """Returns the background's standard deviation of one pixel in counts per second.

    Args:
      num_exposures: number of read-outs that are added.
      exposure_time_s: total exposure in seconds.
      zero_point: magnitude of one count per second.
      sky_magnitude: sky brightness in magnitudes per arcsec^2.
      read_noise: electrons per read-out.
      pixel_scale_arcsec: side of a pixel.
    """
    sky_counts = (
        10 ** (0.4 * (zero_point - sky_magnitude)) * exposure_time_s * pixel_scale_arcsec**2
    )
    return math.sqrt(num_exposures * read_noise**2 + sky_counts) / exposure_time_s


_FLUX_PER_AMPLITUDE = 0.7476859076  # total flux of the common source with amplitude 1


def _amplitude(magnitude: float, zero_point: float) -> float:
    return 10 ** (0.4 * (zero_point - magnitude)) / _FLUX_PER_AMPLITUDE


SURVEYS: Mapping[str, Survey] = {
    "model_i": Survey(
        name="model_i",
        num_pixels=150,
        pixel_scale_arcsec=0.05,
        psf_fwhm_arcsec=0.087,
        deflection_factor=1.0,
        source_amplitude=20.0,
        flux_unit="arbitrary",
        exposure_time_s=None,
        background_rms=0.01,
        published_scale=1.0,
    ),
    "model_ii": Survey(  # Euclid VIS
        name="model_ii",
        num_pixels=64,
        pixel_scale_arcsec=0.101,
        psf_fwhm_arcsec=0.16,
        deflection_factor=0.63431476657394,
        source_amplitude=_amplitude(20.0, 24.0),
        flux_unit="counts/s",
        exposure_time_s=2260.0,
        background_rms=background_rms(4, 2260.0, 24.0, 22.35, 4.2, 0.101),
        published_scale=2.0,
    ),
    "model_iii": Survey(  # HST WFC3 F160W
        name="model_iii",
        num_pixels=64,
        pixel_scale_arcsec=0.08,
        psf_fwhm_arcsec=0.08,
        deflection_factor=0.63431476657394,
        source_amplitude=_amplitude(20.0, 25.96),
        flux_unit="counts/s",
        exposure_time_s=5400.0,
        background_rms=background_rms(1, 5400.0, 25.96, 22.3, 4.0, 0.08),
        published_scale=2.0,
    ),
}


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


def smooth_lens(
    survey: Survey,
    source_x: float | Array,
    source_y: float | Array,
    theta_e: float | Array | None = None,
) -> Lens:
    """Returns the common lens of a DeepLense model without sub-structure.

    Args:
      survey: the model.
      source_x: source position in arcsec, any shape.
      source_y: the same.
      theta_e: Einstein radius in arcsec; None for the published one.
    """
    no_points = jnp.zeros((0,))
    return Lens(
        theta_e=ARCSEC_PER_SQRT_MASS * math.sqrt(HALO_MASS) if theta_e is None else theta_e,
        e1=LENS_E1,
        e2=LENS_E2,
        gamma1=SHEAR_GAMMA1,
        gamma2=SHEAR_GAMMA2,
        deflection_factor=survey.deflection_factor,
        amplitude=survey.source_amplitude,
        radius=SOURCE_RADIUS,
        sersic_index=SOURCE_INDEX,
        source_e1=SOURCE_E1,
        source_e2=SOURCE_E2,
        source_x=source_x,
        source_y=source_y,
        point_theta_e=no_points,
        point_x=no_points,
        point_y=no_points,
    )


def pixel_centres(num_pixels: int, pixel_scale_arcsec: float) -> np.ndarray:
    """Returns the centres of the pixels along one axis, float64 `[num_pixels]`, in arcsec."""
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
    """Returns the deflection of an isothermal ellipsoid at the origin with an Einstein radius of 1.

    The deflection is proportional to the Einstein radius, so that a varied radius costs one product.

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
    """Returns the summed deflection of point masses, `theta^2 d / |d|^2` each.

    Args:
      x: positions in arcsec, `[1, W]`.
      y: positions in arcsec, `[H, 1]`.
      theta_e: Einstein radii in arcsec, `[K]`.
      point_x: positions of the points in arcsec, `[K]`.
      point_y: the same.

    Returns:
      `(alpha_x, alpha_y)`, each `[H, W]`, in arcsec.
    """

    # A scan with few points a turn stays in the cache; a broadcast axis of K is ten times slower.
    def add_point(total, point):
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
    """Returns the source's surface brightness at source-plane positions, flux per arcsec^2.

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
    """Returns the `[n, n * supersampling]` matrix A of binning and blurring along one axis.

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
    """
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


def _uniform(key: Array, shape: tuple[int, ...], low: float, high: float) -> Array:
    return jax.random.uniform(key, shape, jnp.float32, low, high)


def _sample_subhaloes(key: Array) -> tuple[Array, Array, Array]:
    """Returns masses in solar masses and positions in arcsec, each `[25]`."""
    mass_key, radius_key, angle_key = jax.random.split(key, 3)
    shape = (NUM_SUBHALOES,)
    low, high = (mass**SUBHALO_MASS_EXPONENT for mass in SUBHALO_MASS_RANGE)
    mass = _uniform(mass_key, shape, low, high) ** (1 / SUBHALO_MASS_EXPONENT)
    radius = _uniform(radius_key, shape, *SUBHALO_RADIUS_RANGE)
    angle = _uniform(angle_key, shape, 0.0, 2 * math.pi)
    return mass, radius * jnp.sin(angle), radius * jnp.cos(angle)


def vortex_points(log10_axion_mass: Array, angle: Array) -> tuple[Array, Array, Array]:
    """Returns the point masses of an axion vortex, a line through the lens's centre.

    Args:
      log10_axion_mass: log10 of the axion's mass in eV, `[]`.
      angle: direction of the line in radians, `[]`.

    Returns:
      Masses in solar masses and positions x and y in arcsec, each `[100]`.
    """
    half_length = VORTEX_HALF_LENGTH * 10 ** (-22 - log10_axion_mass)
    along = jnp.linspace(-1.0, 1.0, NUM_VORTEX_POINTS, dtype=half_length.dtype) * half_length
    mass = jnp.full((NUM_VORTEX_POINTS,), VORTEX_POINT_MASS, half_length.dtype)
    return mass, along * jnp.cos(angle), along * jnp.sin(angle)


def conserved_theta_e(survey: Survey, point_theta_e: Array, x: Array, y: Array) -> Array:
    """Returns the main halo's Einstein radius after the points inside the ring took their mass.

    Args:
      survey: the DeepLense model.
      point_theta_e: Einstein radii of the points in arcsec, `[K]`.
      x: positions in arcsec, `[K]`.
      y: the same.
    """
    theta_e = ARCSEC_PER_SQRT_MASS * math.sqrt(HALO_MASS)
    ring = survey.deflection_factor * theta_e
    inside = x**2 + y**2 < ring**2
    return theta_e - jnp.sum(jnp.where(inside, point_theta_e**2, 0.0)) / ring


class Draw(NamedTuple):
    """One lens drawn from the priors of a class, and what labels it.

    Attributes:
      lens: what `render` needs.
      point_mass: nominal masses in solar masses, `[K]`.
      log10_axion_mass: log10 of the mass in eV; NaN but for `axion`.
      vortex_angle: direction in radians; NaN but for `axion`.
    """

    lens: Lens
    point_mass: Array
    log10_axion_mass: Array
    vortex_angle: Array


def sample_lens(key: Array, survey: Survey, class_name: str, *, conserved: bool = False) -> Draw:
    """Draws one lens from the published priors.

    Args:
      key: a typed key.
      survey: the DeepLense model.
      class_name: one of `CLASS_NAMES`.
      conserved: takes the sub-structure's mass inside the ring from the main halo.

    Raises:
      ValueError: for an unknown class.
    """
    if class_name not in CLASS_NAMES:
        raise ValueError(f"class {class_name!r} is not one of {', '.join(CLASS_NAMES)}")
    source_key, structure_key, angle_key = jax.random.split(key, 3)
    limit = SOURCE_POSITION_LIMIT
    source_x, source_y = _uniform(source_key, (2,), -limit, limit)
    nothing = jnp.full((), jnp.nan, jnp.float32)
    lens = smooth_lens(survey, source_x, source_y)
    if class_name == "no_sub":
        return Draw(lens, jnp.zeros((0,)), nothing, nothing)
    if class_name == "cdm":
        log10_axion_mass = angle = nothing
        mass, x, y = _sample_subhaloes(structure_key)
    else:
        log10_axion_mass = _uniform(structure_key, (), *LOG10_AXION_MASS_RANGE)
        angle = _uniform(angle_key, (), 0.0, 2 * math.pi)
        mass, x, y = vortex_points(log10_axion_mass, angle)
    theta = ARCSEC_PER_SQRT_MASS * jnp.sqrt(mass)
    lens = lens._replace(point_theta_e=theta, point_x=x, point_y=y)
    if conserved:
        lens = lens._replace(theta_e=conserved_theta_e(survey, theta, x, y))
    return Draw(lens, mass, log10_axion_mass, angle)


def add_noise(key: Array, image: Array, survey: Survey) -> tuple[Array, Array]:
    """Adds the instrument's noise to one noise-free image.

    Models II and III: Gaussian background and the source's shot noise, counts per second. Model I:
    whole counts, `Poisson(max(0, t (I + sqrt(I/t) N1 + 0.01 N2)))`, exposure t drawn for the image.

    Args:
      key: a typed key.
      image: flux per pixel, float32 `[H, W]`.
      survey: the DeepLense model.

    Returns:
      The noisy image, float32 `[H, W]`, and the exposure time in seconds, `[]`.
    """
    shot_key, background_key, exposure_key, count_key = jax.random.split(key, 4)
    if survey.exposure_time_s is None:
        exposure = 10 ** _uniform(exposure_key, (), *LOG10_EXPOSURE_RANGE)
    else:
        exposure = jnp.float32(survey.exposure_time_s)
    shot = jnp.sqrt(image / exposure) * jax.random.normal(shot_key, image.shape, jnp.float32)
    background = survey.background_rms * jax.random.normal(background_key, image.shape, jnp.float32)
    noisy = image + shot + background
    if survey.exposure_time_s is not None:
        return noisy, exposure
    counts = jax.random.poisson(count_key, jnp.maximum(0.0, exposure * noisy))
    return counts.astype(jnp.float32), exposure


@functools.partial(jax.jit, static_argnames=("survey", "class_name", "noisy", "conserved"))
def simulate(
    keys: Array, survey: Survey, class_name: str, *, noisy: bool = False, conserved: bool = False
) -> tuple[Array, Draw, Array]:
    """Draws and renders a batch of lenses of one class.

    Args:
      keys: typed keys, `[N]`; image i depends on key i alone.
      survey: the DeepLense model (static).
      class_name: one of `CLASS_NAMES` (static).
      noisy: adds the instrument's noise (static).
      conserved: see `sample_lens` (static).

    Returns:
      Images, float32 `[N, H, W]`, row 0 at the lowest y; the draws, every field with a leading
      axis N; exposure times in seconds, `[N]`, NaN for noise-free images.
    """

    def simulate_one(key: Array) -> tuple[Array, Draw, Array]:
        lens_key, noise_key = jax.random.split(key)
        draw = sample_lens(lens_key, survey, class_name, conserved=conserved)
        image = render(draw.lens, survey)
        exposure = jnp.full((), jnp.nan, jnp.float32)
        if noisy:
            image, exposure = add_noise(noise_key, image, survey)
        return image, draw, exposure

    return jax.vmap(simulate_one)(keys)
