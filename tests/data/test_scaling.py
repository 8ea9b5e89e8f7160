"""Maps between flux and the model's range: there and back, their constants, what they refuse."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lensjax.data.scaling import (
    NUM_REFERENCE_IMAGES,
    Scaling,
    fit_scaling,
    num_reference_images,
)
from lensjax.errors import DataError

KINDS = ("linear", "sqrt", "asinh")
each_kind = pytest.mark.parametrize("kind", KINDS)
each_unit = pytest.mark.parametrize("unit", [1e-3, 1.0, 250.0])


def flux_images(unit: float = 1.0, negative: bool = False) -> np.ndarray:
    """Mostly faint pixels and a few bright ones, as in a lens image."""
    random = np.random.default_rng(0)
    images = random.gamma(0.3, size=(64, 8, 6, 1)) ** 2
    images[0, 0, 0] = 0.0
    if negative:
        images -= 0.01 * images.max() * random.random(images.shape)
    return (unit * images / images.max()).astype(np.float32)


def fitted(kind: str, images: np.ndarray, model_std: float = 0.5) -> Scaling:
    return fit_scaling(kind, model_std, images, float(images.min()))


def formula(kind: str, flux: np.ndarray, softening: float) -> np.ndarray:
    flux = flux.astype(np.float64)
    return {"linear": flux, "sqrt": np.sqrt(np.abs(flux)), "asinh": np.arcsinh(flux / softening)}[
        kind
    ]


@each_unit
@pytest.mark.parametrize(
    ("kind", "negative"),
    [(kind, False) for kind in KINDS] + [("linear", True), ("asinh", True)],
)
def test_round_trip_is_exact_to_a_millionth_of_the_maximum(kind, negative, unit):
    images = flux_images(unit, negative)
    scaling = fitted(kind, images)
    there_and_back = jax.jit(lambda flux: scaling.to_flux(scaling.to_model(flux)))
    error = np.abs(np.asarray(there_and_back(jnp.asarray(images)), np.float64) - images)
    assert np.max(error) <= 1e-6 * images.max()


@each_unit
@each_kind
@pytest.mark.parametrize("model_std", [0.5, 1.0, 2.5])
def test_images_have_mean_zero_and_the_wanted_deviation(kind, model_std, unit):
    images = flux_images(unit)
    model = np.asarray(fitted(kind, images, model_std).to_model(jnp.asarray(images)), np.float64)
    assert abs(model.mean()) < 1e-5 * model_std
    assert model.std() == pytest.approx(model_std, rel=1e-5)


@each_kind
def test_map_is_the_named_function_up_to_a_line(kind):
    images = flux_images(3.0)
    scaling = fitted(kind, images)
    softening = 0.01 * float(images.max())
    assert scaling.softening == pytest.approx(softening if kind == "asinh" else 1.0)
    shape = formula(kind, images, softening)
    expected = (shape - shape.mean()) / shape.std() * 0.5
    np.testing.assert_allclose(scaling.to_model(jnp.asarray(images)), expected, atol=2e-5)


def test_square_root_clips_what_no_flux_maps_to():
    scaling = fitted("sqrt", flux_images())
    darkest = float(scaling.to_model(jnp.zeros(())))
    below = jnp.asarray([darkest, darkest - 1e-3, darkest - 5.0])
    np.testing.assert_allclose(scaling.to_flux(below), 0.0, atol=1e-12)
    # Without the clip the square would make a dark place bright again.
    assert float(scaling.to_flux(jnp.float32(darkest + 1))) > 0.01


@each_kind
def test_brighter_is_always_brighter(kind):
    scaling = fitted(kind, flux_images())
    flux = jnp.linspace(0.0, 2.0, 1001)
    model = scaling.to_model(flux)
    assert np.all(np.diff(model) > 0)
    assert np.all(np.diff(scaling.to_flux(model)) > 0)


def test_square_root_refuses_negative_pixels():
    images = flux_images()
    # The pixel may lie beyond the images that the constants come from.
    with pytest.raises(DataError, match=r"sqrt.*smallest pixel is -0\.001; allowed.*linear, asinh"):
        fit_scaling("sqrt", 0.5, images, -0.001)
    assert fit_scaling("sqrt", 0.5, images, 0.0).kind == "sqrt"


@each_kind
@pytest.mark.parametrize("value", [0.0, 0.7])
def test_constant_images_are_refused(kind, value):
    images = np.full((5, 4, 4, 1), value, np.float32)
    with pytest.raises(DataError, match="all pixels of the training images are equal"):
        fitted(kind, images)


@each_kind
def test_constants_come_from_the_first_images_alone(kind):
    random = np.random.default_rng(0)
    images = random.random((NUM_REFERENCE_IMAGES + 50, 2, 2, 1)).astype(np.float32)
    changed = images.copy()
    changed[NUM_REFERENCE_IMAGES:] *= 9
    assert fitted(kind, images) == fitted(kind, changed)
    changed[NUM_REFERENCE_IMAGES - 1] *= 9
    assert fitted(kind, images) != fitted(kind, changed)


@each_kind
def test_constants_survive_json(kind):
    scaling = fitted(kind, flux_images())
    assert Scaling(**json.loads(json.dumps(scaling.to_dict()))) == scaling


@pytest.mark.parametrize(
    ("shape", "expected"),
    [((64, 64, 1), 4096), ((150, 150, 1), 2982), ((512, 512, 4), 64), ((20_000, 20_000, 1), 1)],
)
def test_large_images_give_fewer_references(shape, expected):
    assert num_reference_images(shape) == expected
    assert expected == 1 or expected * 4 * np.prod(shape) <= 2**28


def test_constants_come_from_the_references_alone():
    images = np.random.default_rng(0).normal(size=(5000, 8, 8, 1)).astype(np.float32)
    changed = images.copy()
    changed[4096:] = 100.0
    assert fit_scaling("asinh", 0.5, images, -9.0) == fit_scaling("asinh", 0.5, changed, -9.0)


@pytest.mark.parametrize("kind", ["linear", "sqrt", "asinh"])
def test_pixels_without_a_measurement_do_not_count(kind):
    images = np.random.default_rng(0).gamma(2.0, 1.0, (50, 8, 8, 1)).astype(np.float32)
    masked = np.concatenate([images, np.full_like(images, np.nan)], axis=1)
    found = fit_scaling(kind, 0.5, masked, 0.0, masked=True)
    expected = fit_scaling(kind, 0.5, images, 0.0)
    assert found.shift == pytest.approx(expected.shift, rel=1e-6)
    assert found.spread == pytest.approx(expected.spread, rel=1e-6)
    with pytest.raises(DataError, match="not finite"):
        fit_scaling(kind, 0.5, masked, 0.0)
