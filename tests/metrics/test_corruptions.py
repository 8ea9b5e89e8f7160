"""Known faults: each leaves the number that it is known for, and nothing else changes."""

import dataclasses
import functools
from typing import Any

import numpy as np
import pytest
import scipy.ndimage

from lensjax.data.arrays import simulate
from lensjax.data.parameters import PARAMETER_NAMES, render_parameters
from lensjax.data.simulator import CLASS_NAMES
from lensjax.data.surveys import SURVEYS
from lensjax.errors import CorruptionError
from lensjax.metrics.corruptions import CORRUPTIONS, RealImages, corrupt, gaussian_blur
from lensjax.metrics.lensing import fit_smooth

pytestmark = pytest.mark.usefixtures("quick_compiles")
SURVEY = SURVEYS["model_ii"]
NUM = 40
# Medians of EVALUATION.md on no_sub images; the speckle's is that of 1 % of white noise.
KNOWN_RATIO = {
    "psf_10": 0.017,
    "psf_30": 0.050,
    "speckle_white": 0.100,
    "flip": 0.145,
    "shift": 0.050,
    "theta_e": 0.030,
    "flux": 0.082,
    "flux_1": 0.0081,
}
KEEPS_IMAGES = {"labels_shuffled", "class_absent"}
NEEDS_SIMULATOR = {"theta_e"}


@functools.cache
def real(num: int = NUM) -> RealImages:
    """As many images of each class, classes taking turns, and another seed's as training images."""
    parts = [simulate("model_ii", name, num, 3) for name in CLASS_NAMES]
    images = np.stack([images for images, _ in parts], axis=1).reshape(-1, 64, 64, 1)
    columns = [[table[name] for name in PARAMETER_NAMES] for _, table in parts]
    parameters = np.stack(columns, axis=-1).transpose(1, 2, 0).reshape(3 * num, -1)
    labels = np.tile(np.arange(3, dtype=np.int32), num)
    train = np.concatenate([simulate("model_ii", name, num, 4)[0] for name in CLASS_NAMES])
    train_labels = np.repeat(np.arange(3, dtype=np.int32), num)
    return RealImages(images, labels, SURVEY, parameters, train, train_labels)


@functools.cache
def corrupted(name: str) -> tuple[np.ndarray, np.ndarray]:
    return corrupt(name, real(), 0)


def toy(num: int = 12, num_classes: int = 3, **more: Any) -> RealImages:
    """Small images without a simulator."""
    random = np.random.default_rng(0)
    labels = np.arange(num, dtype=np.int32) % num_classes
    images = scipy.ndimage.gaussian_filter(random.random((num, 12, 10, 2)), (0, 1, 1, 0))
    return RealImages(images.astype(np.float32), labels, **more)


def test_the_parameters_render_the_images():
    known = real()
    assert known.parameters is not None
    again = render_parameters(known.parameters, known.labels, SURVEY)
    np.testing.assert_allclose(again, known.images, atol=2e-5 * known.images.max())


def test_each_fault_leaves_its_known_ratio():
    """All of them in one batch."""
    parts = [corrupted(name) for name in KNOWN_RATIO]
    images = np.concatenate([images[labels == 2][..., 0] for images, labels in parts])
    ratios = np.median(fit_smooth(images, SURVEY).ratio.reshape(-1, NUM), axis=1)
    found = dict(zip(KNOWN_RATIO, ratios.tolist(), strict=True))
    assert found == pytest.approx(KNOWN_RATIO, rel=0.1)


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_sizes_and_labels_are_kept_and_real_images_untouched(name):
    known = real()
    before = known.images.copy(), known.labels.copy()
    images, labels = corrupted(name)
    again = corrupt(name, known, 0)
    np.testing.assert_array_equal(images, again[0])
    np.testing.assert_array_equal(labels, again[1])
    np.testing.assert_array_equal(known.images, before[0])
    np.testing.assert_array_equal(known.labels, before[1])
    assert (images.dtype, labels.dtype) == (np.float32, np.int32)
    assert np.isfinite(images).all()
    if name == "class_absent":
        kept = known.labels != 1
        np.testing.assert_array_equal(images, known.images[kept])
        np.testing.assert_array_equal(labels, known.labels[kept])
        return
    assert images.shape == known.images.shape
    changed = (images != known.images).any(axis=(1, 2, 3))
    assert changed.any() == (name not in KEEPS_IMAGES)
    assert (labels != known.labels).any() == (name == "labels_shuffled")


@pytest.mark.parametrize("factor", [1.1, 1.3])
@pytest.mark.parametrize("label", [0, 1, 2])
def test_a_wider_psf_is_nearly_a_second_blur(factor, label):
    """Gaussians add up but for being sampled at whole pixels."""
    known = real()
    images, _ = corrupted(f"psf_{round(100 * (factor - 1))}")
    fwhm = SURVEY.psf_fwhm_arcsec / SURVEY.pixel_scale_arcsec
    blurred, _ = corrupt(
        f"psf_{round(100 * (factor - 1))}",
        RealImages(known.images, known.labels, psf_fwhm_pixels=fwhm),
        0,
    )
    rows = known.labels == label
    change = np.square(images - known.images)[rows].mean()
    assert np.square(images - blurred)[rows].mean() < 0.02 * change


@pytest.mark.parametrize("sigma", [0.1, 0.3, 0.7, 1.7])
def test_blurs_of_gaussians_add_up(sigma):
    y, x = np.mgrid[-15:16, -16:17]
    squares = (x - 0.3) ** 2 + (y + 1.2) ** 2

    def gaussian(variance):
        return np.exp(-0.5 * squares / variance) / (2 * np.pi * variance)

    images = np.zeros((2, 31, 33, 2), np.float32)
    images[0, ..., 1] = gaussian(1.1**2)
    blurred = gaussian_blur(images, sigma)
    np.testing.assert_allclose(blurred[0, ..., 1], gaussian(1.1**2 + sigma**2), atol=5e-4)
    assert np.abs(blurred[0, ..., 1] - images[0, ..., 1]).max() > (5e-3 if sigma > 0.2 else 5e-4)
    assert not blurred[1].any()
    assert not blurred[..., 0].any()


def test_blur_repeats_the_edge():
    flat = np.full((1, 9, 7, 1), 3.0, np.float32)
    np.testing.assert_allclose(gaussian_blur(flat, 2.0), flat, rtol=1e-5)


@pytest.mark.parametrize(("name", "smooth"), [("speckle_white", False), ("speckle_smooth", True)])
def test_speckle_has_one_per_cent_of_the_peak(name, smooth):
    known, (images, _) = real(), corrupted(name)
    peak = known.images.max(axis=(1, 2, 3))
    noise = (images - known.images)[..., 0] / peak[:, None, None]
    np.testing.assert_allclose(noise.std(axis=(1, 2)), 0.01, rtol=0.05)
    beside = np.mean(noise[:, 1:] * noise[:, :-1]) / 1e-4
    # A Gaussian of 2 pixels has the correlation exp(-1 / (4 2^2)) one pixel further.
    assert beside == pytest.approx(np.exp(-1 / 16) if smooth else 0, abs=0.02)


def test_the_shift_moves_the_centre_of_light_along_x_alone():
    known, (images, _) = real(), corrupted("shift")

    def centre(part, axis):
        light = part[..., 0].sum(axis=3 - axis, dtype=np.float64)
        return light @ np.arange(64) / light.sum(axis=1)

    np.testing.assert_allclose(centre(images, 2) - centre(known.images, 2), 0.25, atol=2e-3)
    np.testing.assert_allclose(centre(images, 1), centre(known.images, 1), atol=1e-4)
    assert images.min() > -1e-4 * images.max()  # no ringing that would give it away


def test_the_shift_is_scipys_spline():
    known = toy()
    for image, moved in zip(known.images, corrupt("shift", known, 0)[0], strict=True):
        expected = scipy.ndimage.shift(image, (0, 0.25, 0), order=3, mode="nearest")
        np.testing.assert_allclose(moved, expected, atol=1e-5)


def test_half_of_each_class_is_garbage_with_the_right_spectrum():
    known, (images, labels) = real(), corrupted("garbage_half")
    changed = (images != known.images).any(axis=(1, 2, 3))
    for label in range(3):
        assert changed[labels == label].sum() == NUM // 2
    spectra = [np.abs(np.fft.fft2(part[changed][..., 0])) for part in (images, known.images)]
    # Real noise has real phases at 0 and at half the sampling rate, so that all of them are kept.
    np.testing.assert_allclose(spectra[0], spectra[1], atol=1e-3 * spectra[1].max())
    fit = fit_smooth(images[changed & (labels == 2)][..., 0], SURVEY)
    assert np.median(fit.ratio) > 0.5


def test_a_collapse_leaves_ten_images_a_class():
    images, labels = corrupted("collapse")
    for label in range(3):
        found = {image.tobytes() for image in images[labels == label]}
        known = {image.tobytes() for image in real().images[labels == label]}
        assert len(found) == 10
        assert found <= known


def test_copies_are_different_training_images_of_the_class():
    known, (images, labels) = real(), corrupted("train_copies")
    assert known.train_images is not None
    for label in range(3):
        found = {image.tobytes() for image in images[labels == label]}
        train = {image.tobytes() for image in known.train_images[known.train_labels == label]}
        assert found == train


def test_a_replaced_class_is_that_of_another():
    known, (images, labels) = real(), corrupted("class_replaced")
    changed = (images != known.images).any(axis=(1, 2, 3))
    np.testing.assert_array_equal(changed, labels == 1)
    smooth = {image.tobytes() for image in known.images[labels == 2]}
    assert {image.tobytes() for image in images[labels == 1]} == smooth


def test_shuffled_labels_are_the_same_ones():
    images, labels = corrupted("labels_shuffled")
    np.testing.assert_array_equal(images, real().images)
    assert np.bincount(labels).tolist() == [NUM] * 3
    assert np.mean(labels == real().labels) == pytest.approx(1 / 3, abs=0.15)


def at_source_of(index: int, label: int) -> np.ndarray:
    """The sub-structure of every image of a class, behind the source of one image."""
    known = real()
    assert known.parameters is not None
    parameters = known.parameters[known.labels == label]
    for name in ("source_x_arcsec", "source_y_arcsec"):
        column = PARAMETER_NAMES.index(name)
        parameters[:, column] = known.parameters[index, column]
    return render_parameters(parameters, np.full(NUM, label, np.int32), SURVEY)[..., 0]


@pytest.mark.parametrize("index", [0, 4, 8])
def test_guidance_pushes_away_from_the_classes_behind_the_same_source(index):
    """What it pushes away from is the mean of the image and one of each other class."""
    known, (images, _) = real(), corrupted("guidance")
    image = known.images[index, ..., 0]
    mean = 2 * image - images[index, ..., 0]
    one, other = (at_source_of(index, label) for label in range(3) if label != index % 3)
    wanted = 3 * mean - image
    left = [np.abs(wanted - first[None] - other).max(axis=(1, 2)).min() for first in one]
    assert min(left) < 1e-4 * image.max()
    assert np.median(left) > 1e-3 * image.max()


def test_guidance_without_a_simulator_raises_the_contrast():
    known = toy()
    images, _ = corrupt("guidance", known, 0)
    mean = known.images.mean(axis=0)
    np.testing.assert_allclose(images - mean[None], 2 * (known.images - mean[None]), atol=1e-5)


@pytest.mark.parametrize("name", sorted(set(CORRUPTIONS) - NEEDS_SIMULATOR))
def test_a_users_images_can_have_nearly_all_faults(name):
    known = toy()
    known = dataclasses.replace(known, train_images=known.images, train_labels=known.labels)
    images, labels = corrupt(name, known, 0)
    assert images.shape[1:] == known.images.shape[1:]
    assert len(images) == len(labels) == (8 if name == "class_absent" else 12)


@pytest.mark.parametrize(
    ("name", "lacking"),
    [
        ("theta_e", "the simulator"),
        ("train_copies", "training images"),
        ("labels_shuffled", "two classes"),
        ("class_replaced", "two classes"),
    ],
)
def test_what_is_not_available_says_why(name, lacking):
    with pytest.raises(CorruptionError, match=f"{name} is not available: it needs {lacking}"):
        corrupt(name, toy(num_classes=1), 0)


def test_two_classes_are_enough():
    known = toy(num_classes=2)
    images, _ = corrupt("class_replaced", known, 0)
    changed = (images != known.images).any(axis=(1, 2, 3))
    np.testing.assert_array_equal(changed, known.labels == 0)
    assert set(corrupt("class_absent", known, 0)[1]) == {1}


def test_names_and_parts_that_do_not_fit_are_refused():
    with pytest.raises(CorruptionError, match="'blur' does not exist; allowed: psf_10, "):
        corrupt("blur", toy(), 0)
    known = toy()
    with pytest.raises(CorruptionError, match=r"labels \(11,\); allowed: \[N, H, W, C\] and \[N\]"):
        RealImages(known.images, known.labels[1:])
    with pytest.raises(CorruptionError, match="not finite"):
        RealImages(np.where(known.images > 0.6, np.float32(np.nan), known.images), known.labels)
    with pytest.raises(CorruptionError, match="parameters of 3 images; allowed: of 12"):
        RealImages(known.images, known.labels, SURVEY, np.zeros((3, 4), np.float32))
    strange = dataclasses.replace(
        known, train_images=known.images, train_labels=np.zeros(12, np.int32)
    )
    with pytest.raises(CorruptionError, match="no training images of class 1"):
        corrupt("train_copies", strange, 0)
