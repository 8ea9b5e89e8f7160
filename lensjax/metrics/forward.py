"""Pieces of the renderer, in its own arithmetic, for fits that differentiate it by hand.

An image is `P S(theta - beta alpha(theta))`: the source S at the traced positions, blurred by P.
Its derivative by any parameter of the lens is `-beta P (S_x d alpha_x + S_y d alpha_y)`, so that
the slopes of the source, computed once, serve all parameters.
"""

import functools

import jax
import jax.numpy as jnp
from jax import Array

from lensjax.data import raytracing
from lensjax.data.raytracing import Lens
from lensjax.data.surveys import Survey

multiply = functools.partial(jnp.matmul, precision="highest")


def image_grid(survey: Survey) -> tuple[Array, Array]:
    """The centres of the pixels in arcsec, x `[1, n]` and y `[n, 1]`."""
    centres = jnp.asarray(
        raytracing.pixel_centres(survey.num_pixels, survey.pixel_scale_arcsec), jnp.float32
    )
    return centres[None, :], centres[:, None]


def image_matrix(survey: Survey) -> Array:
    """The blur along one axis times the side of a pixel, `[n, n]`."""
    # The renderer's own matrix, so that the two cannot differ.
    matrix = raytracing._image_matrix(survey, 1, False)
    return jnp.asarray(matrix * survey.pixel_scale_arcsec, jnp.float32)


def blur(brightness: Array, survey: Survey) -> Array:
    """Flux per pixel of surface brightnesses `[..., n, n]` in flux per arcsec^2."""
    matrix = image_matrix(survey)
    return multiply(multiply(matrix, brightness), matrix.T)


def smooth_deflection(lens: Lens, survey: Survey) -> tuple[Array, Array]:
    """The deflection of halo and shear, x and y `[n, n]` in arcsec, before beta."""
    x, y = image_grid(survey)
    alpha_x, alpha_y = raytracing.ellipsoid_deflection(x, y, lens.e1, lens.e2)
    alpha_x = lens.theta_e * alpha_x + (lens.gamma1 * x + lens.gamma2 * y)
    alpha_y = lens.theta_e * alpha_y + (lens.gamma2 * x - lens.gamma1 * y)
    return alpha_x, alpha_y


def trace(
    lens: Lens, survey: Survey, extra_x: Array | float, extra_y: Array | float
) -> tuple[Array, Array, Array]:
    """Traces every pixel to the source plane.

    Args:
      lens: halo, shear and source; its point masses are left out.
      survey: the DeepLense model.
      extra_x: deflection of everything else in arcsec, `[n, n]`, before beta.
      extra_y: the same along y.

    Returns:
      Brightness `[n, n]` and its slopes along x and y of the source plane per arcsec, before blur.
    """
    x, y = image_grid(survey)
    alpha_x, alpha_y = smooth_deflection(lens, survey)
    beta = lens.deflection_factor
    traced = (x - beta * (alpha_x + extra_x), y - beta * (alpha_y + extra_y))
    brightness, push = jax.linearize(
        functools.partial(raytracing.sersic_brightness, lens=lens), *traced
    )
    ones, zeros = jnp.ones_like(brightness), jnp.zeros_like(brightness)
    return brightness, push(ones, zeros), push(zeros, ones)
