"""Ray-shooting simulator of DeepLense Models I, II and III as pure functions for jit and vmap.

The priors of the three dark-matter classes, the instrument's noise, and `simulate`, which joins
both with `raytracing.render`. The published generator is DeepLenseSim (Alexander et al. 2020,
arXiv:1909.07346). Lengths are in arcsec; masses in solar masses.
"""

import functools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from lensjax.arguments import choice
from lensjax.data.raytracing import Lens, render
from lensjax.data.surveys import Survey, check_survey
from lensjax.errors import DataError

CLASS_NAMES = ("axion", "cdm", "no_sub")

# theta_E = ARCSEC_PER_SQRT_MASS sqrt(M), as published (luminosity distances; lens 0.5, source 1.0).
ARCSEC_PER_SQRT_MASS = 1.2814905676e-6
# The physically right factor, with angular-diameter distances.
ARCSEC_PER_SQRT_MASS_ANGULAR = 1.6645190e-6
HALO_MASS = 1e12
HALO_THETA_E = ARCSEC_PER_SQRT_MASS * math.sqrt(HALO_MASS)
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


def smooth_lens(
    survey: Survey,
    source_x: float | Array,
    source_y: float | Array,
    theta_e: float | Array | None = None,
) -> Lens:
    """The lens without sub-structure of a DeepLense model.

    Args:
      survey: the model.
      source_x: x of the source in arcsec, any shape.
      source_y: y of the source.
      theta_e: Einstein radius in arcsec; None for the published one.

    Raises:
      DataError: for no survey.
    """
    check_survey(survey)
    no_points = jnp.zeros((0,))
    return Lens(
        theta_e=HALO_THETA_E if theta_e is None else theta_e,
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


def _uniform(key: Array, shape: tuple[int, ...], low: float, high: float) -> Array:
    return jax.random.uniform(key, shape, jnp.float32, low, high)


def _sample_subhaloes(key: Array) -> tuple[Array, Array, Array]:
    """Masses in solar masses and positions in arcsec, each `[25]`."""
    mass_key, radius_key, angle_key = jax.random.split(key, 3)
    shape = (NUM_SUBHALOES,)
    low, high = (mass**SUBHALO_MASS_EXPONENT for mass in SUBHALO_MASS_RANGE)
    mass = _uniform(mass_key, shape, low, high) ** (1 / SUBHALO_MASS_EXPONENT)
    radius = _uniform(radius_key, shape, *SUBHALO_RADIUS_RANGE)
    angle = _uniform(angle_key, shape, 0.0, 2 * math.pi)
    return mass, radius * jnp.sin(angle), radius * jnp.cos(angle)


def vortex_points(log10_axion_mass: Array, angle: Array) -> tuple[Array, Array, Array]:
    """The point masses of an axion vortex, a line through the lens's centre.

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
    """The main halo's Einstein radius without the mass of the points inside the ring.

    Args:
      survey: the DeepLense model.
      point_theta_e: Einstein radii of the points in arcsec, `[K]`.
      x: x of the points in arcsec, `[K]`.
      y: y of the points.
    """
    ring = survey.deflection_factor * HALO_THETA_E
    inside = x**2 + y**2 < ring**2
    return HALO_THETA_E - jnp.sum(jnp.where(inside, point_theta_e**2, 0.0)) / ring


class Draw(NamedTuple):
    """One lens drawn from the priors of a class, with its labels.

    Attributes:
      lens: the parameters that `render` needs.
      point_mass: nominal masses in solar masses, `[K]`.
      log10_axion_mass: log10 of the axion's mass in eV; NaN except for `axion`.
      vortex_angle: the vortex's direction in radians; NaN except for `axion`.
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
      DataError: for an unknown class or survey.
    """
    choice("class_name", class_name, CLASS_NAMES, error=DataError)
    check_survey(survey)
    source_key, structure_key, angle_key = jax.random.split(key, 3)
    limit = SOURCE_POSITION_LIMIT
    source_x, source_y = _uniform(source_key, (2,), -limit, limit)
    missing = jnp.full((), jnp.nan, jnp.float32)
    lens = smooth_lens(survey, source_x, source_y)
    if class_name == "no_sub":
        return Draw(lens, jnp.zeros((0,)), missing, missing)
    if class_name == "cdm":
        log10_axion_mass = angle = missing
        mass, x, y = _sample_subhaloes(structure_key)
    else:
        log10_axion_mass = _uniform(structure_key, (), *LOG10_AXION_MASS_RANGE)
        angle = _uniform(angle_key, (), 0.0, 2 * math.pi)
        mass, x, y = vortex_points(log10_axion_mass, angle)
    theta_e = ARCSEC_PER_SQRT_MASS * jnp.sqrt(mass)
    lens = lens._replace(point_theta_e=theta_e, point_x=x, point_y=y)
    if conserved:
        lens = lens._replace(theta_e=conserved_theta_e(survey, theta_e, x, y))
    return Draw(lens, mass, log10_axion_mass, angle)


def add_noise(key: Array, image: Array, survey: Survey) -> tuple[Array, Array]:
    """Adds the instrument's noise to one noise-free image.

    Models II and III: Gaussian background and the source's shot noise, in counts per second.
    Model I: whole counts, `Poisson(max(0, t (I + sqrt(I/t) N1 + 0.01 N2)))`, t a random exposure.

    Args:
      key: a typed key.
      image: flux per pixel, float32 `[H, W]`.
      survey: the DeepLense model.

    Returns:
      The noisy image, float32 `[H, W]`, and the exposure time in seconds, `[]`.

    Raises:
      DataError: for no survey.
    """
    check_survey(survey)
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

    Raises:
      DataError: for an unknown class or survey.
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
