"""The physical parameters of a simulated image as one float vector, and the way back to the image.

A vector is much faster to store and to read than one feature for each number. A parameter that a
class does not have is NaN.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from lensjax import prng
from lensjax.arguments import array_of, choice
from lensjax.data import raytracing, simulator
from lensjax.data.catalogue import CHUNK, SimulatedSet
from lensjax.data.surveys import Survey, check_survey
from lensjax.errors import DataError

_SCALARS = (
    "theta_e_arcsec",  # of the main halo, before the deflection factor
    "deflection_factor",
    "source_x_arcsec",
    "source_y_arcsec",
    "source_amplitude",  # flux per arcsec^2
    "log10_axion_mass",  # eV
    "vortex_half_length_arcsec",
    "vortex_cos_2a",  # a line has the same direction after half a turn
    "vortex_sin_2a",
    "exposure_time_s",  # NaN for noise-free images
    "subhalo_mass_nominal",  # solar masses, the sum over the sub-structure as labelled
    "subhalo_mass_effective",  # solar masses that deflect as much with right distances
)
# A nominal mass acts as this times the deflection factor, since the published Einstein radii use
# luminosity distances.
EFFECTIVE_MASS_FACTOR = (
    simulator.ARCSEC_PER_SQRT_MASS / simulator.ARCSEC_PER_SQRT_MASS_ANGULAR
) ** 2
PARAMETER_NAMES: tuple[str, ...] = _SCALARS + tuple(
    f"subhalo_{index:02d}_{quantity}"
    for index in range(simulator.NUM_SUBHALOES)
    for quantity in ("log10_mass", "x_arcsec", "y_arcsec")
)


def needed_parameters(class_name: str) -> frozenset[str]:
    """The parameters that determine the noise-free image of a class; others may be NaN."""
    needed = {"theta_e_arcsec", "deflection_factor", "source_x_arcsec", "source_y_arcsec"}
    needed.add("source_amplitude")
    if class_name == "axion":
        needed |= {"log10_axion_mass", "vortex_cos_2a", "vortex_sin_2a"}
    if class_name == "cdm":
        needed |= set(PARAMETER_NAMES[len(_SCALARS) :])
    return frozenset(needed)


def parameter_vector(draw: simulator.Draw, exposure_time_s: Array, class_name: str) -> Array:
    """The parameters of one simulated image in the order of `PARAMETER_NAMES`.

    Args:
      draw: one lens, without leading axes.
      exposure_time_s: `[]`, NaN for noise-free images.
      class_name: one of `simulator.CLASS_NAMES`.

    Returns:
      float32 `[P]`.
    """
    lens = draw.lens
    missing = jnp.full((), jnp.nan, jnp.float32)
    half_length = nominal_mass = effective_mass = missing
    subhaloes = jnp.full((simulator.NUM_SUBHALOES, 3), jnp.nan, jnp.float32)
    if class_name != "no_sub":
        nominal_mass = jnp.sum(draw.point_mass)
        effective_mass = nominal_mass * EFFECTIVE_MASS_FACTOR * lens.deflection_factor
    if class_name == "axion":
        half_length = simulator.VORTEX_HALF_LENGTH * 10 ** (-22 - draw.log10_axion_mass)
    if class_name == "cdm":
        subhaloes = jnp.stack([jnp.log10(draw.point_mass), lens.point_x, lens.point_y], axis=-1)
    scalars = [
        lens.theta_e,
        lens.deflection_factor,
        lens.source_x,
        lens.source_y,
        lens.amplitude,
        draw.log10_axion_mass,
        half_length,
        jnp.cos(2 * draw.vortex_angle),
        jnp.sin(2 * draw.vortex_angle),
        exposure_time_s,
        nominal_mass,
        effective_mass,
    ]
    stacked = jnp.stack([jnp.asarray(value, jnp.float32) for value in scalars])
    return jnp.concatenate([stacked, subhaloes.reshape(-1).astype(jnp.float32)])


def lens_from_parameters(parameters: Array, survey: Survey, class_name: str) -> raytracing.Lens:
    """The lens that a parameter vector describes.

    Args:
      parameters: `[P]`, in the order of `PARAMETER_NAMES`.
      survey: the DeepLense model.
      class_name: one of `simulator.CLASS_NAMES`.

    Raises:
      DataError: for an unknown class.
    """
    choice("class_name", class_name, simulator.CLASS_NAMES, error=DataError)
    value = dict(zip(_SCALARS, parameters, strict=False))
    lens = simulator.smooth_lens(
        survey, value["source_x_arcsec"], value["source_y_arcsec"], value["theta_e_arcsec"]
    )
    lens = lens._replace(
        deflection_factor=value["deflection_factor"], amplitude=value["source_amplitude"]
    )
    if class_name == "no_sub":
        return lens
    if class_name == "axion":
        angle = jnp.arctan2(value["vortex_sin_2a"], value["vortex_cos_2a"]) / 2
        mass, x, y = simulator.vortex_points(value["log10_axion_mass"], angle)
    else:
        log10_mass, x, y = parameters[len(_SCALARS) :].reshape(simulator.NUM_SUBHALOES, 3).T
        mass = 10**log10_mass
    theta_e = simulator.ARCSEC_PER_SQRT_MASS * jnp.sqrt(mass)
    return lens._replace(point_theta_e=theta_e, point_x=x, point_y=y)


@functools.partial(jax.jit, static_argnames=("survey", "class_name"))
def _render_class(parameters: Array, survey: Survey, class_name: str) -> Array:
    def render_vector(vector: Array) -> Array:
        return raytracing.render(lens_from_parameters(vector, survey, class_name), survey)

    # Chunks bound the memory, whatever the number of images.
    return jax.lax.map(render_vector, parameters, batch_size=128)


def render_parameters(parameters: np.ndarray, labels: np.ndarray, survey: Survey) -> np.ndarray:
    """Renders the noise-free images that parameter vectors describe.

    Args:
      parameters: `[N, P]`, in the order of `PARAMETER_NAMES`.
      labels: integers `[N]`, indices into `simulator.CLASS_NAMES`.
      survey: the DeepLense model.

    Returns:
      Flux per pixel, float32 `[N, H, W, 1]`.

    Raises:
      DataError: for a number of parameters or a label that does not exist.
    """
    check_survey(survey)
    parameters = array_of("parameters", parameters, error=DataError)
    labels = array_of("labels", labels, "integers", kinds="iu", error=DataError)
    if labels.ndim != 1:
        raise DataError(f"labels: got shape {labels.shape}; allowed: [N]")
    expected = (len(labels), len(PARAMETER_NAMES))
    if parameters.shape != expected:
        raise DataError(f"parameters have the shape {parameters.shape}; expected {expected}")
    num_classes = len(simulator.CLASS_NAMES)
    if len(labels) and (np.min(labels) < 0 or np.max(labels) >= num_classes):
        raise DataError(
            f"labels go from {np.min(labels)} to {np.max(labels)}; expected 0 to {num_classes - 1}"
        )
    side = survey.num_pixels
    images = np.empty((len(labels), side, side, 1), np.float32)
    for label, class_name in enumerate(simulator.CLASS_NAMES):
        (chosen,) = np.nonzero(labels == label)
        if len(chosen):
            images[chosen, ..., 0] = _render_class(parameters[chosen], survey, class_name)
    return images


@functools.partial(jax.jit, static_argnames=("source", "class_name"))
def simulate_chunk(
    base: Array, start: Array | int, source: SimulatedSet, class_name: str
) -> tuple[Array, Array]:
    """Simulates the `catalogue.CHUNK` lenses of a class that begin at a given one.

    Args:
      base: the typed key of the class; lens i has the key `prng.keys(base, i)`.
      start: number of the first lens, int32 `[]`.
      source: the settings of the set (static).
      class_name: one of `simulator.CLASS_NAMES` (static).

    Returns:
      Images, float32 `[CHUNK, H, W]`, flux per pixel, and parameter vectors, float32 `[CHUNK, P]`.
    """
    images, draws, exposures = simulator.simulate(
        prng.keys(base, start + jnp.arange(CHUNK)),
        source.survey,
        class_name,
        noisy=source.noisy,
        conserved=source.conserved,
    )
    to_vector = functools.partial(parameter_vector, class_name=class_name)
    return images.astype(jnp.float32), jax.vmap(to_vector)(draws, exposures)
