"""Maps between flux and the model's range: there and back, their constants, what they refuse."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lensjax.data.arrays import simulate
from lensjax.data.catalogue import SIMULATED_SETS
from lensjax.data.scaling import (
    NUM_REFERENCE_IMAGES,
    Scaling,
    fit_scaling,
    num_reference_images,
    usual_range,
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


# Images whose constants are known: mostly faint pixels, fluxes as those of a survey.
SURVEY = np.random.default_rng(1).gamma(0.3, size=(1000, 8, 8, 1)).astype(np.float32)
SURVEY *= np.random.default_rng(2).lognormal(0.0, 1.0, (1000, 1, 1, 1)).astype(np.float32)


def with_bright_pixels(images: np.ndarray, num: int, value: float = 1e6) -> np.ndarray:
    """The images with one pixel each in the first `num` that no lens has."""
    hit = images.copy()
    hit[:num, 3, 3, 0] = value
    return hit


def all_pixels_formula(kind: str, images: np.ndarray) -> Scaling:
    """The constants with every pixel, as each set had them before bright pixels were left out."""
    softening = 1.0
    if kind == "asinh":
        softening = 0.01 * float(np.max(np.abs(images)))
        images = np.arcsinh(images / softening)
    elif kind == "sqrt":
        images = np.sqrt(images)
    std = float(images.std(dtype=np.float64))
    return Scaling(kind, float(images.mean(dtype=np.float64)), std / 0.5, softening)


@each_kind
@pytest.mark.parametrize(
    ("num_images", "num", "value"),
    [(1000, 12, 1e6), (100, 12, 1e6), (12, 2, 1e6), (4, 1, 1e6), (1000, 12, -1e6)],
)
def test_a_few_bright_pixels_do_not_set_the_scale(kind, num_images, num, value):
    value = abs(value) if kind == "sqrt" else value
    images = SURVEY[:num_images]
    found = fitted(kind, with_bright_pixels(images, num, value))
    model = np.asarray(found.to_model(jnp.asarray(images)), np.float64)
    assert model.std() == pytest.approx(0.5, rel=0.05)
    assert abs(model.mean()) < 0.02
    assert found.softening == pytest.approx(fitted(kind, images).softening, rel=0.4)


@each_kind
def test_a_sky_that_was_not_subtracted_hides_no_bright_pixel(kind):
    images = SURVEY + np.float32(5000)
    found = fitted(kind, with_bright_pixels(images, 12))
    # The sky leaves float32 few digits for the lenses.
    assert np.asarray(found.to_model(jnp.asarray(images))).std() == pytest.approx(0.5, rel=0.05)


@each_kind
def test_an_image_thirty_times_as_bright_is_not_clipped(kind):
    scaling = fitted(kind, SURVEY)
    bright = SURVEY[:4] / SURVEY[:4].max() * 30 * np.median(SURVEY.max(axis=(1, 2, 3)))
    # float32 keeps fewer digits of a flux the steeper its map back is.
    for images, tolerance in ((bright, 1e-6), (1000 * bright, 4e-6)):
        there_and_back = np.asarray(scaling.to_flux(scaling.to_model(jnp.asarray(images))))
        assert np.max(np.abs(there_and_back - images)) <= tolerance * images.max()


@pytest.mark.nightly
@pytest.mark.parametrize("name", sorted(SIMULATED_SETS))
def test_simulated_sets_keep_their_constants_bit_for_bit(name):
    class_names = ("axion", "cdm", "no_sub")
    images = np.concatenate([simulate(name, label, 100, seed=3)[0] for label in class_names])
    for kind in KINDS:
        if kind != "sqrt" or images.min() >= 0:
            assert fitted(kind, images) == all_pixels_formula(kind, images)
    low, high = usual_range(images[..., 0])
    assert low / 15 < images.min() < images.max() < high / 15


@each_kind
def test_a_set_without_bright_pixels_keeps_its_constants_bit_for_bit(kind):
    assert fitted(kind, SURVEY) == all_pixels_formula(kind, SURVEY)


@each_kind
def test_each_band_has_its_own_constants(kind):
    bands = np.concatenate([SURVEY, 100 * SURVEY[::-1], 1e-3 * SURVEY], axis=-1)
    scaling = fitted(kind, bands)
    model = np.asarray(jax.jit(scaling.to_model)(jnp.asarray(bands)), np.float64)
    np.testing.assert_allclose(model.std(axis=(0, 1, 2)), 0.5, rtol=1e-4)
    np.testing.assert_allclose(model.mean(axis=(0, 1, 2)), 0.0, atol=1e-4)
    for channel in range(3):
        alone = fitted(kind, bands[..., channel : channel + 1])
        for name in ("shift", "spread", "softening"):
            assert getattr(scaling, name)[channel] == pytest.approx(getattr(alone, name), rel=1e-6)
    there_and_back = np.asarray(scaling.to_flux(jnp.asarray(model, jnp.float32)))
    error = np.max(np.abs(there_and_back - bands), axis=(0, 1, 2))
    assert np.all(error <= 2e-6 * bands.max(axis=(0, 1, 2)))


def test_constants_of_bands_are_hashed_and_survive_json():
    scaling = fitted("asinh", np.concatenate([SURVEY, 7 * SURVEY], axis=-1))
    again = Scaling(**json.loads(json.dumps(scaling.to_dict())))
    assert again == scaling
    assert hash(again) == hash(scaling)
    assert all(isinstance(value, list) for value in list(scaling.to_dict().values())[1:])


@each_kind
def test_numbers_serve_all_bands_as_in_older_files(kind):
    one = Scaling(kind, 0.5, 2.0, 0.1)
    three = Scaling(kind, (0.5,) * 3, (2.0,) * 3, (0.1,) * 3)
    images = jnp.asarray(np.repeat(SURVEY[:3], 3, axis=-1))
    np.testing.assert_allclose(one.to_model(images), three.to_model(images), rtol=1e-6)
    np.testing.assert_allclose(one.to_flux(images), three.to_flux(images), rtol=1e-6)


def test_a_band_without_contrast_is_named():
    bands = np.concatenate([SURVEY, np.ones_like(SURVEY)], axis=-1)
    with pytest.raises(DataError, match="all pixels of channel 1 of the training images are equal"):
        fitted("linear", bands)
    with pytest.raises(DataError, match=r"channel 1 \(i\) of"):
        fit_scaling("linear", 0.5, bands, 0.0, band_names=("g", "i"))


@each_kind
def test_masked_pixels_and_bright_ones_are_left_out_together(kind):
    images = with_bright_pixels(SURVEY, 12)
    images[20:60, :4] = np.nan
    images[60] = np.nan
    found = fit_scaling(kind, 0.5, images, 0.0, masked=True)
    kept = SURVEY[61:]
    assert np.asarray(found.to_model(jnp.asarray(kept))).std() == pytest.approx(0.5, rel=0.05)


def test_infinite_pixels_are_refused_though_a_set_is_masked():
    images = SURVEY[:5].copy()
    images[0, 0, 0] = np.inf
    with pytest.raises(DataError, match="not finite"):
        fit_scaling("linear", 0.5, images, 0.0, masked=True)
