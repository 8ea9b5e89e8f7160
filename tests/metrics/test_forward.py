"""The fits' pieces of the renderer against the renderer."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from fit_support import real

from lensjax.data import raytracing
from lensjax.data.simulator import smooth_lens
from lensjax.data.surveys import SURVEYS
from lensjax.metrics import forward

POSITION = jnp.array([0.11, -0.27])


nightly = pytest.mark.nightly


@pytest.mark.parametrize(
    ("name", "class_name"),
    [
        *(("model_ii", "no_sub"), ("model_iii", "axion"), ("model_i", "no_sub")),
        pytest.param("model_ii", "axion", marks=nightly),
        pytest.param("model_iii", "no_sub", marks=nightly),
        pytest.param("model_i", "axion", marks=nightly),
    ],
)
def test_traced_and_blurred_is_rendered(name, class_name):
    survey = SURVEYS[name]
    images, draw = real(class_name, 1, name)
    lens = jax.tree.map(lambda leaf: leaf[0] if np.ndim(leaf) else leaf, draw.lens)
    lens = smooth_lens(survey, lens.source_x, lens.source_y)._replace(
        point_theta_e=lens.point_theta_e, point_x=lens.point_x, point_y=lens.point_y
    )

    @jax.jit
    def found(lens):
        points: tuple = (0.0, 0.0)
        if class_name == "axion":
            x, y = forward.image_grid(survey)
            of_points = (lens.point_theta_e, lens.point_x, lens.point_y)
            points = raytracing.points_deflection(x, y, *of_points)
        return forward.blur(forward.trace(lens, survey, *points)[0], survey)

    peak = images[0].max()
    np.testing.assert_allclose(found(lens), images[0], atol=2e-6 * peak)


@pytest.mark.parametrize("name", ["model_ii", "model_iii", pytest.param("model_i", marks=nightly)])
def test_slopes_are_those_of_the_renderer(name):
    survey = SURVEYS[name]

    def render_at(position):
        return raytracing.render(smooth_lens(survey, position[0], position[1]), survey)

    @jax.jit
    def blurred_slopes(position):
        lens = smooth_lens(survey, position[0], position[1])
        return -forward.blur(jnp.stack(forward.trace(lens, survey, 0.0, 0.0)[1:]), survey)

    jacobian = np.moveaxis(np.asarray(jax.jit(jax.jacfwd(render_at))(POSITION)), -1, 0)
    expected = blurred_slopes(POSITION)
    np.testing.assert_allclose(jacobian, expected, atol=2e-6 * np.abs(jacobian).max())


def test_blur_takes_any_leading_axes():
    survey = dataclasses.replace(SURVEYS["model_ii"], num_pixels=12)
    images = np.random.default_rng(0).random((2, 3, 12, 12), np.float32)
    blurred = forward.blur(jnp.asarray(images), survey)
    alone = forward.blur(jnp.asarray(images[1, 2]), survey)
    np.testing.assert_allclose(blurred[1, 2], alone, rtol=1e-6)
    flat = forward.blur(jnp.ones((12, 12)), survey)
    np.testing.assert_allclose(flat, survey.pixel_scale_arcsec**2, rtol=1e-5)
