"""A folder becomes a set: what is written, what it is called, and when it is written again."""

import itertools
import os

import numpy as np
import pytest
from folder_support import (
    CLASSES,
    MASSES,
    SIDE,
    WRITERS,
    class_of_pixels,
    counts,
    pixels,
    prepare,
    scan,
    write,
    write_classes,
    write_flat,
    write_published,
)

from lensjax.run import datasets


@pytest.mark.parametrize("names", [CLASSES, ("vort", "sphere", "no"), ("Vort", "cdm", "NO")])
def test_published_files_keep_pixels_classes_and_masses(tmp_path, names):
    prepared = prepare(write_published(tmp_path / "root", names), tmp_path / "sets")
    classes = class_of_pixels(prepared)
    assert len(classes) == 18
    for split in map(prepared.read, ("train", "test")):
        assert split.info.class_names == CLASSES
        assert split.info.parameter_names == ("log10_axion_mass",)
        assert split.images.dtype == split.parameters.dtype == np.float32
        masses = split.parameters[:, 0]
        np.testing.assert_array_equal(np.isnan(masses), split.labels != 0)
        for image, label, mass in zip(split.images, split.labels, masses, strict=True):
            seed = next(seed for seed in range(300) if (pixels(seed) == image[..., 0]).all())
            assert seed // 100 == label
            if label == 0:
                assert mass == pytest.approx(np.log10(MASSES[seed]), rel=1e-6)


@pytest.mark.parametrize("names", [("b", "C", "a", "10", "9"), ("only",)])
def test_other_classes_are_alphabetical(tmp_path, names):
    prepared = prepare(write_classes(tmp_path / "root", names), tmp_path / "sets")
    assert prepared.info().class_names == tuple(sorted(names))
    classes = class_of_pixels(prepared)
    for label, name in enumerate(names):
        for index in range(4):
            image = pixels(1000 * label + index).astype(np.float32)[..., None]
            assert classes[image.tobytes()] == name


@pytest.mark.parametrize("splits", [("",), ("train", "test")])
def test_a_flat_folder_is_unlabelled(tmp_path, splits):
    for number, name in enumerate(splits):
        write_flat(tmp_path / "root" / name, seed=100 * number)
    prepared = prepare(tmp_path / "root", tmp_path / "sets")
    info = prepared.info()
    assert info.class_names == ()
    assert info.num_classes == 0
    for name in ("train", "test"):
        labels = prepared.read(name).labels
        assert len(labels) > 0
        assert not labels.any()  # 0 is the null label


def test_own_splits_come_back(tmp_path):
    root = tmp_path / "root"
    write_classes(root / "train", num=5)
    write_classes(root / "val", num=2, seed=50)
    prepared = prepare(root, tmp_path / "sets")
    assert prepared.info().split_sizes == {"train": 15, "test": 6}
    for name, seed, num in (("train", 0, 5), ("test", 50, 2)):
        expected = {
            (label, pixels(seed + 1000 * label + index).astype(np.float32).tobytes())
            for label in range(3)
            for index in range(num)
        }
        split = prepared.read(name)
        pairs = zip(split.labels.tolist(), split.images, strict=True)
        assert {(label, image.tobytes()) for label, image in pairs} == expected


@pytest.mark.parametrize(
    ("suffix", "shape"),
    [*zip(WRITERS, itertools.cycle([(SIDE, SIDE), (37, 50), (150, 150), (9, 8, 3)]), strict=False)],
)
def test_any_container_and_size_comes_back(tmp_path, suffix, shape):
    (tmp_path / "root").mkdir()
    for index in range(3):
        WRITERS[suffix](tmp_path / "root" / f"{index}{suffix}", pixels(index, shape).astype(">f4"))
    prepared = prepare(tmp_path / "root", tmp_path / "sets")
    info = prepared.info()
    assert info.image_shape == (shape if len(shape) == 3 else (*shape, 1))
    expected = {pixels(index, shape).astype(np.float32).tobytes() for index in range(3)}
    assert set(class_of_pixels(prepared)) == expected


def test_a_labelled_stack_comes_back(tmp_path):
    images, labels = counts(0, (30, SIDE, SIDE)), np.arange(30) % 3
    (tmp_path / "root").mkdir()
    names = np.array(["no", "vort", "sphere"])
    path = tmp_path / "root" / "all.npz"
    np.savez(path, images=images, labels=labels, class_names=names)
    prepared = prepare(tmp_path / "root", tmp_path / "sets")
    classes = class_of_pixels(prepared)
    for image, label in zip(images.astype(np.float32), labels, strict=True):
        assert classes[image.tobytes()] == ("no_sub", "axion", "cdm")[label]
    assert prepared.info().integer


def test_facts_of_fits_files_are_kept(tmp_path):
    from astropy.io import fits

    (tmp_path / "root").mkdir()
    for index in range(3):
        header = {"BUNIT": "nJy", "MAGZERO": 31.4, "EXPTIME": 100.0 + index, "PIXSCALE": 0.2}
        hdus = [fits.PrimaryHDU(), fits.ImageHDU(pixels(index), fits.Header(header))]
        fits.HDUList(hdus).writeto(tmp_path / "root" / f"{index}.fits")
    prepared = prepare(tmp_path / "root", tmp_path / "sets")
    info = prepared.info()
    assert (info.flux_unit, info.pixel_scale_arcsec, info.zero_point_mag) == ("nJy", 0.2, 31.4)
    assert info.psf_fwhm_arcsec is None
    assert info.parameter_names == ("exposure_time_s", "zero_point_mag")
    rows = np.concatenate([prepared.read(name).parameters for name in ("train", "test")])
    expected = np.array([[100.0 + index, 31.4] for index in range(3)], np.float32)
    np.testing.assert_array_equal(rows[np.argsort(rows[:, 0])], expected)


def test_any_beginning_of_a_split_has_the_classes_in_their_shares(tmp_path):
    for name, num in (("a", 40), ("b", 20), ("c", 4)):
        write_classes(tmp_path / "root" / "train", (name,), num, seed=ord(name) * 100)
    write_classes(tmp_path / "root" / "test", ("a", "b", "c"), 1, seed=5)
    labels = prepare(tmp_path / "root", tmp_path / "sets").read("train").labels
    for num in range(1, 65):
        found = np.bincount(labels[:num], minlength=3)
        assert np.abs(found - num * np.array([40, 20, 4]) / 64).max() <= 1


def test_the_range_is_that_of_the_training_images(tmp_path):
    write(tmp_path / "root" / "train" / "a.npy", pixels(0) + 1)
    write(tmp_path / "root" / "test" / "a.npy", 100 * pixels(1))
    info = prepare(tmp_path / "root", tmp_path / "sets").info()
    assert info.minimum == np.float32(pixels(0) + 1).min()
    assert info.maximum == np.float32(pixels(0) + 1).max()


def test_the_configuration_reaches_the_reading(tmp_path):
    from run_support import tiny_config

    image = pixels(0)
    image[0, 0] = np.nan
    write_flat(tmp_path / "root")
    write(tmp_path / "root" / "nan.npy", image)
    (tmp_path / "root" / "text.npy").write_text("text")
    data = {
        "name": "deeplense/folder",
        "folder": os.fspath(tmp_path / "root"),
        "directory": os.fspath(tmp_path / "sets"),
        "layout": "HW",
        "nan_policy": "mask",
        "on_bad_file": "skip",
        "test_share": 0.6,
    }
    others = {"model": {"num_classes": 0}, "sample": {"guidance": 1.0}}
    prepared = datasets.prepare(tiny_config(data=data, **others).data)
    again = scan(tmp_path / "root", nan_policy="mask", on_bad_file="skip", test_share=0.6)
    assert prepared.fingerprint == again.fingerprint
    assert prepared.info().masked
    assert prepared.report is not None
    assert prepared.report["left_out"] == 1
