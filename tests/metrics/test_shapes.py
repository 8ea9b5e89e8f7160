"""Shapes of images: closed forms, a plain reference, and statmorph where it is installed."""

import functools
import math
import warnings

import jax.numpy as jnp
import numpy as np
import pytest

from lensjax import prng
from lensjax.data.simulator import CLASS_NAMES, simulate
from lensjax.data.surveys import SURVEYS
from lensjax.metrics import shapes

SURVEY = SURVEYS["model_ii"]
SCALE = SURVEY.pixel_scale_arcsec


@functools.cache
def lenses() -> np.ndarray:
    """Four images of each class."""
    images = []
    for class_name in CLASS_NAMES:
        keys = prng.keys(prng.key(3, "test"), jnp.arange(4))
        images.append(np.asarray(simulate(keys, SURVEY, class_name)[0]))
    return np.concatenate(images)


def noisy(images: np.ndarray, share: float) -> np.ndarray:
    noise = np.random.default_rng(0).normal(size=images.shape)
    return (images + share * images.max(axis=(1, 2), keepdims=True) * noise).astype(np.float32)


def polar(side: int, height: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Distance in pixels from the image's centre, and direction."""
    x = np.arange(side) - (side - 1) / 2
    y = np.arange(height or side) - ((height or side) - 1) / 2
    return np.hypot(x[None, :], y[:, None]), np.arctan2(y[:, None], x[None, :] + 0 * y[:, None])


def everywhere(images: np.ndarray) -> np.ndarray:
    return np.ones(images.shape, bool)


def gini_by_pairs(values: np.ndarray) -> float:
    """The definition: mean absolute difference over twice the mean, of |values|."""
    values = np.abs(values.astype(np.float64))
    differences = np.abs(values[:, None] - values[None, :]).sum()
    return float(differences / (2 * len(values) * (len(values) - 1) * values.mean()))


def m20_by_loop(image: np.ndarray, region: np.ndarray) -> float:
    inside = np.where(region, image.astype(np.float64), 0)
    rows, columns = np.indices(image.shape)
    total = inside.sum()
    centre_row, centre_column = (inside * rows).sum() / total, (inside * columns).sum() / total
    moments = inside * ((rows - centre_row) ** 2 + (columns - centre_column) ** 2)
    flux, moment = 0.0, 0.0
    for place in np.argsort(inside.ravel(), kind="stable")[::-1]:
        if flux > 0.2 * total:
            break
        flux += inside.ravel()[place]
        moment += moments.ravel()[place]
    return math.log10(moment / moments.sum())


@pytest.mark.parametrize("share", [0.0, 0.01])
def test_gini_and_m20_of_lenses_agree_with_their_definitions(share):
    images = noisy(lenses(), share)
    region = np.asarray(shapes.ring_region(jnp.asarray(images)))
    assert 100 < region.sum(axis=(1, 2)).min() < region.sum(axis=(1, 2)).max() < 1500
    measured = shapes.measure_shapes(images, SCALE)
    for index, image in enumerate(images):
        inside = image[region[index]]
        assert measured["gini"][index] == pytest.approx(gini_by_pairs(inside), rel=1e-5)
        expected = m20_by_loop(image, region[index])
        assert measured["m20"][index] == pytest.approx(expected, abs=1e-4)


def test_gini_in_closed_form():
    """Equal pixels: 0; a single bright one: 1; the numbers 1 to n: 1/3."""
    uniform = np.ones((1, 9, 10), np.float32)
    assert shapes.gini(uniform, everywhere(uniform))[0] == pytest.approx(0, abs=1e-6)
    single = np.zeros((1, 9, 10), np.float32)
    single[0, 4, 4] = -3
    assert shapes.gini(single, everywhere(single))[0] == pytest.approx(1, abs=1e-6)
    ramp = np.arange(1, 91, dtype=np.float32).reshape(1, 9, 10)
    assert shapes.gini(ramp, everywhere(ramp))[0] == pytest.approx(1 / 3, abs=1e-6)


def test_gini_looks_at_the_region_alone():
    image = np.random.default_rng(0).exponential(size=(1, 12, 12)).astype(np.float32)
    region = np.random.default_rng(1).random(image.shape) < 0.4
    changed = np.where(region, image, 100).astype(np.float32)
    assert shapes.gini(changed, region)[0] == shapes.gini(image, region)[0]
    assert shapes.m20(changed, region)[0] == shapes.m20(image, region)[0]


def test_asymmetry_in_closed_form():
    random = np.random.default_rng(0).random((3, 20, 24)).astype(np.float32)
    symmetric = random + random[:, ::-1, ::-1]
    odd = random - random[:, ::-1, ::-1]
    assert np.max(shapes.asymmetry(jnp.asarray(symmetric))) < 1e-6
    # Turned, an odd image is its negative.
    np.testing.assert_allclose(shapes.asymmetry(jnp.asarray(odd)), 2, rtol=1e-6)
    single = np.zeros((1, 20, 24), np.float32)
    single[0, 3, 3] = 5
    assert shapes.asymmetry(jnp.asarray(single))[0] == pytest.approx(2)


@pytest.mark.parametrize("class_name", CLASS_NAMES)
@pytest.mark.parametrize("share", [0.0, 0.01])
def test_statmorph_measures_the_same(class_name, share):
    """The same segmentation is handed to both."""
    statmorph = pytest.importorskip("statmorph")
    index = 4 * CLASS_NAMES.index(class_name)
    image = noisy(lenses()[index : index + 1], share)
    segmentation = np.zeros(image.shape[1:], int)
    segmentation[polar(64)[0] < 22] = 1
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of Sersic fits to a ring
        source = statmorph.SourceMorphology(
            image[0].astype(np.float64),
            segmentation,
            1,
            weightmap=np.full(segmentation.shape, 0.01),
            cutout_extent=10.0,
            n_sigma_outlier=0,
            sersic_fitting_args={"maxiter": 1},
        )
        stamp = source._cutout_stamp_maskzeroed
    assert stamp.shape == (64, 64)
    region = source._segmap_gini[None]
    assert shapes.gini(image, region)[0] == pytest.approx(source.gini, rel=1e-5)
    assert shapes.m20(image, region)[0] == pytest.approx(source.m20, abs=1e-4)


@pytest.mark.parametrize("sigma", [3.0, 5.0])
def test_gaussian_disc(sigma):
    """Mean distance sigma sqrt(pi / 2), s.d. sigma sqrt(2 - pi / 2): a Rayleigh distribution."""
    distance, _ = polar(64)
    image = np.exp(-0.5 * (distance / sigma) ** 2).astype(np.float32)[None]
    radius, width = shapes.ring_radius_and_width(image, everywhere(image))
    assert radius[0] == pytest.approx(sigma * math.sqrt(math.pi / 2), rel=2e-3)
    assert width[0] == pytest.approx(sigma * math.sqrt(2 - math.pi / 2), rel=5e-3)
    x, y, e1, e2 = shapes.centroid_and_ellipticity(image, everywhere(image))
    np.testing.assert_allclose([x[0], y[0], e1[0], e2[0]], 0, atol=1e-5)


def test_gaussian_ring_in_arcsec():
    """Flux falls as r exp(...): radius R (1 + s^2/R^2) and width s sqrt(1 - s^2/R^2) to s^2/R^2."""
    distance, _ = polar(64)
    image = np.exp(-0.5 * ((distance - 14) / 1.5) ** 2).astype(np.float32)[None]
    radius, width = shapes.ring_radius_and_width(image, everywhere(image))
    assert radius[0] == pytest.approx(14 + 1.5**2 / 14, rel=1e-3)
    assert width[0] == pytest.approx(1.5 * math.sqrt(1 - (1.5 / 14) ** 2), rel=2e-3)
    measured = shapes.measure_shapes(image, 0.1)
    assert measured["ring_radius_arcsec"][0] == pytest.approx(0.1 * float(radius[0]), rel=5e-3)
    # Inside 5 % of the peak, a Gaussian keeps 95 % of its s.d.
    assert 0.88 < measured["ring_width_arcsec"][0] / (0.1 * width[0]) < 0.98


@pytest.mark.parametrize("mode", range(1, 9))
@pytest.mark.parametrize("amplitude", [0.1, 0.6])
def test_ring_with_one_mode(mode, amplitude):
    distance, angle = polar(64)
    ring = np.exp(-0.5 * ((distance - 16) / 2.0) ** 2)
    image = (ring * (1 + amplitude * np.cos(mode * angle + 0.4))).astype(np.float32)[None]
    expected = np.where(np.arange(1, 9) == mode, amplitude, 0.0)
    found = shapes.azimuthal_modes(image, everywhere(image))[0]
    np.testing.assert_allclose(found, expected, atol=2e-3)
    measured = shapes.measure_shapes(image, 0.05)
    assert measured[f"mode_{mode}"][0] == pytest.approx(amplitude, rel=0.05)


@pytest.mark.parametrize("axis_ratio", [0.5, 0.8, 1.0])
@pytest.mark.parametrize("angle", [0.0, 0.5, 2.0])
def test_ellipse_off_the_centre(axis_ratio, angle):
    x, y = np.arange(64.0)[None, :], np.arange(64.0)[:, None]
    dx, dy = x - 37.5, y - 29.0
    u, v = (
        math.cos(angle) * dx + math.sin(angle) * dy,
        -math.sin(angle) * dx + math.cos(angle) * dy,
    )
    image = np.exp(-0.5 * (u**2 + (v / axis_ratio) ** 2) / 36).astype(np.float32)[None]
    centre_x, centre_y, e1, e2 = shapes.centroid_and_ellipticity(image, everywhere(image))
    ellipticity = (1 - axis_ratio) / (1 + axis_ratio)
    assert e1[0] == pytest.approx(ellipticity * math.cos(2 * angle), abs=2e-3)
    assert e2[0] == pytest.approx(ellipticity * math.sin(2 * angle), abs=2e-3)
    assert centre_x[0] == pytest.approx(37.5 - 31.5, abs=1e-2)
    assert centre_y[0] == pytest.approx(29.0 - 31.5, abs=1e-2)


def test_fluxes_and_frame():
    image = np.zeros((1, 32, 48), np.float32)
    image[0, 10, 20] = 7
    image[0, 0, :6] = -2  # in the frame of two pixels
    image[0, 2, 2] = -1  # just inside it
    measured = shapes.measure_shapes(image, 0.1)
    assert measured["total_flux"][0] == pytest.approx(7 - 12 - 1)
    assert measured["peak"][0] == 7
    assert measured["negative_share"][0] == pytest.approx(7 / (32 * 48))
    assert measured["frame_rms"][0] == pytest.approx(math.sqrt(24 / (32 * 48 - 28 * 44)))


def test_ring_region_follows_its_definition():
    images = noisy(lenses()[:2], 0.02)
    region = np.asarray(shapes.ring_region(jnp.asarray(images)))
    for image, found in zip(images, region, strict=True):
        padded = np.pad(image, 1, mode="edge")
        windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3))
        mean = windows.mean(axis=(2, 3))
        assert np.mean(found == (mean > 0.05 * mean.max())) > 0.9995  # but for rounding


def test_images_are_measured_one_by_one():
    images = noisy(np.tile(lenses(), (12, 1, 1)), 0.01)  # more than a chunk
    assert len(images) > 128
    together = shapes.measure_shapes(images, SCALE)
    for index in (0, 7, 127, 128, 143):
        alone = shapes.measure_shapes(images[index : index + 1], SCALE)
        assert alone.keys() == together.keys()
        for name, values in alone.items():
            assert values.shape == (1,)
            assert values.dtype == np.float32
            assert together[name].shape == (144,)
            assert values[0] == pytest.approx(together[name][index], rel=1e-6, abs=1e-7)


def test_black_images_have_finite_shapes():
    for value in (0.0, -1.0):
        measured = shapes.measure_shapes(np.full((1, 32, 48), value, np.float32), 0.1)
        assert all(np.isfinite(values).all() for values in measured.values())


@pytest.mark.parametrize("shape", [(64, 64), (2, 64, 64, 1), (2, 4, 64), (0, 64, 64)])
def test_images_of_another_shape_are_refused(shape):
    with pytest.raises(ValueError, match=r"allowed: (\[N, H, W\]|at least 1)"):
        shapes.measure_shapes(np.zeros(shape, np.float32), 0.1)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_images_that_are_not_finite_are_refused(value):
    images = np.ones((5, 16, 16), np.float32)
    images[3, 2, 2] = value
    with pytest.raises(ValueError, match=r"1 of 5 have pixels that are NaN .* number 3; allowed"):
        shapes.measure_shapes(images, 0.1)
