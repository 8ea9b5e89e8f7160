"""Readers of image files: round trips, users' formats, and every way in which a file can be bad."""

import gzip
import itertools
import os
import pathlib
import pickle
import random
import subprocess
import sys
import tracemalloc
import zipfile
from typing import Any

import h5py
import numpy as np
import pytest
from astropy.io import fits
from run_support import DATA, ROOT

from lensjax.errors import BadFileError, DataError
from lensjax.files import file_image, npy
from lensjax.files.image_files import (
    LAYOUTS,
    SUFFIXES,
    FileImage,
    PlaneRules,
    is_image_file,
    read_images,
)

PUBLIC = DATA / "public_samples"
DTYPES = ("f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8")
SHAPES = {
    "HW": (9, 11),
    "CHW": (3, 9, 11),
    "HWC": (9, 11, 3),
    "NHW": (5, 9, 11),
    "NHWC": (5, 9, 11, 2),
    "NCHW": (5, 3, 9, 11),
}
SMALL = np.linspace(0, 1, 99).reshape(9, 11)


def save(path: pathlib.Path, array: np.ndarray, **others) -> pathlib.Path:
    """Writes an array, and others beside it, in the format that the suffix says."""
    name = path.name
    if name.endswith(".npy"):
        np.save(path, array)
    elif name.endswith("packed.npz"):
        np.savez_compressed(path, images=array, **others)
    elif name.endswith(".npz"):
        np.savez(path, images=array, **others)
    elif name.endswith(".h5"):
        with h5py.File(path, "w") as file:
            packed = {"chunks": True, "compression": "gzip"} if "packed" in name else {}
            file.create_dataset("images", data=array, **packed)
            for key, value in others.items():
                file[key] = value.astype("S") if np.asarray(value).dtype.kind == "U" else value
    else:
        fits.PrimaryHDU(array).writeto(path, overwrite=True)
    return path


def channels_last(array: np.ndarray, layout: str) -> np.ndarray:
    """The stack `[N, H, W, C]` that a file of this layout holds, by einsum's letters."""
    letters = layout.lower()
    for letter in "nc":
        if letter not in letters:
            array, letters = array[None], letter + letters
    return np.einsum(f"{letters}->nhwc", array)


def read(path: pathlib.Path, layout: str = "auto", **options: Any) -> list[FileImage]:
    return list(read_images(path, layout, **options))


def reason(path: pathlib.Path, layout: str = "auto") -> str:
    """Why the file is refused."""
    with pytest.raises(BadFileError) as caught:
        read(path, layout)
    assert str(caught.value) == f"{path}: {caught.value.reason}"
    assert caught.value.path == path
    return caught.value.reason


@pytest.mark.parametrize("num_dtypes", [2, pytest.param(len(DTYPES), marks=pytest.mark.nightly)])
@pytest.mark.parametrize("block", [None, 300])
@pytest.mark.parametrize("name", ["a.npy", "a.npz", "packed.npz", "a.h5", "packed.h5", "a.fits"])
def test_every_dtype_and_order_comes_back(tmp_path, monkeypatch, name, block, num_dtypes):
    """In every layout and order of axes and bytes, with the next few of all dtypes."""
    if block:  # whatever is larger than this is read in pieces
        monkeypatch.setattr(file_image, "BLOCK_BYTES", block)
        monkeypatch.setattr(npy, "BLOCK_BYTES", block)
    codes = itertools.cycle(DTYPES)
    for layout, byte_order, order, _ in itertools.product(SHAPES, "<>", "CF", range(num_dtypes)):
        values = np.random.default_rng(0).normal(0, 30, SHAPES[layout])
        code = next(codes)
        if name == "a.fits" and code == "f2":  # FITS has none
            continue
        signed = values if code[0] != "u" else np.abs(values)
        array = signed.astype(byte_order + code)
        array = np.asfortranarray(array) if order == "F" else array
        images = read(save(tmp_path / name, array), layout)
        expected = channels_last(array, layout).astype(np.float32)
        assert len(images) == len(expected)
        for index, (image, pixels) in enumerate(zip(images, expected, strict=True)):
            assert image.pixels.dtype == np.float32
            assert image.pixels.dtype.isnative
            assert image.pixels.flags.c_contiguous
            np.testing.assert_array_equal(image.pixels, pixels)
            assert image.place == (f"[{index}]" if "N" in layout else "")
            assert image.integer == (code[0] != "f")
            assert (image.parameters, image.class_name, image.flux_unit) == ({}, None, None)


AUTO = {
    (9, 11): "HW",
    (1, 150, 150): "CHW",
    (64, 64, 3): "HWC",
    (64, 64, 1): "HWC",
    (5, 9, 11): "NHW",
    (5, 9, 11, 4): "NHWC",
    (5, 9, 11, 1): "NHWC",
    (5, 1, 9, 11): "NCHW",
    (1, 1, 9, 11): "NCHW",
    (2, 9, 11): "set data.layout=CHW (bands of one image) or data.layout=NHW",
    (4, 9, 11): "set data.layout=CHW (bands of one image) or data.layout=NHW",
    (5, 9, 9, 9): "set data.layout to one of",
    (1, 1, 1, 9, 9): "set data.layout to one of",
    (9,): "at least two axes",
    (): "at least two axes",
    (0, 9, 11): "is empty",
    (9, 0): "is empty",
    (7, 11): "a side needs at least 8",
    (9, 7): "a side needs at least 8",
    (5, 9, 7): "a side needs at least 8",
    (3, 3, 3): "a side needs at least 8",
}


@pytest.mark.parametrize(("shape", "expected"), AUTO.items(), ids=str)
@pytest.mark.parametrize("name", ["a.npy", "a.npz", "a.h5"])
def test_auto_tells_the_axes_or_says_why_not(tmp_path, name, shape, expected):
    array = np.arange(np.prod(shape, dtype=int), dtype=np.float32).reshape(shape)
    path = save(tmp_path / name, array)
    if expected not in LAYOUTS:
        assert expected in reason(path)
        return
    pixels = [image.pixels for image in read(path)]
    np.testing.assert_array_equal(pixels, channels_last(array, expected))


@pytest.mark.parametrize(("held", "asked"), list(itertools.product(SHAPES, LAYOUTS[1:])))
def test_an_explicit_layout_has_to_fit_the_number_of_axes(tmp_path, held, asked):
    path = save(tmp_path / "a.npy", np.zeros(SHAPES[held]))
    if len(held) != len(asked):
        assert f"data.layout={asked} does not fit" in reason(path, asked)
    elif held == asked:
        assert read(path, asked)


def test_an_unknown_layout_is_refused_at_once(tmp_path):
    with pytest.raises(DataError, match="'WH'; choose one of auto, HW, CHW"):
        read_images(tmp_path / "a.npy", "WH")


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (SMALL.astype(complex), "complex128"),
        (SMALL > 0.5, "bool"),
        (SMALL.astype("U4"), "text"),
        (SMALL.astype("S4"), "text"),
        (SMALL.astype("M8[s]"), "dates"),
        (SMALL.astype("m8[s]"), "time differences"),
        (SMALL.astype(np.longdouble), "64 bits"),
        (np.zeros((9, 11), [("a", "f4"), ("b", "i2")]), "structured"),
        (np.zeros((9, 11), "V2"), "raw records"),
        (np.array([SMALL * 1e300, SMALL] * 3), "image [0] holds pixels beyond 3.4e38"),
        (SMALL * -1e40, "beyond 3.4e38"),
    ],
    ids=str,
)
@pytest.mark.parametrize("name", ["a.npy", "a.npz"])
def test_pixels_that_are_no_numbers_are_refused_by_name(tmp_path, name, array, words):
    assert words in reason(save(tmp_path / name, array))


@pytest.mark.parametrize("name", ["a.npy", "a.npz", "a.h5", "a.fits"])
def test_nan_and_infinities_are_kept(tmp_path, name):
    array = SMALL.copy()
    array[0, :3] = np.nan, np.inf, -np.inf
    (image,) = read(save(tmp_path / name, array))
    np.testing.assert_array_equal(image.pixels[..., 0], array.astype(np.float32))


def test_the_public_files_are_read():
    for name in ("model_iii_no_sub.npy", "model_iii_axion.npy"):
        (image,) = read(PUBLIC / name)
        np.testing.assert_array_equal(image.pixels[..., 0], np.load(PUBLIC / name).astype("f4"))
    (image,) = read(PUBLIC / "axion_object_array.npy")
    # The repository's own file, read once as numpy reads it.
    pixels, mass = np.load(PUBLIC / "axion_object_array.npy", allow_pickle=True)
    np.testing.assert_array_equal(image.pixels[..., 0], pixels.astype("f4"))
    assert image.parameters == {"log10_axion_mass": pytest.approx(np.log10(mass))}
    assert image.place == ""


def objects(*items, shape=None) -> np.ndarray:
    array = np.empty(len(items), object)
    array[:] = items
    return array.reshape(shape if shape is not None else array.shape)


OBJECTS = {
    "float": (objects(SMALL, 1e-23), {"log10_axion_mass": -23}),
    "numpy's float": (objects(SMALL, np.float64(1e-23)), {"log10_axion_mass": -23}),
    "an array without axes": (objects(SMALL, np.array(1e-23)), {"log10_axion_mass": -23}),
    "integer": (objects(SMALL, 10), {"log10_axion_mass": 1}),
    "five": (objects(SMALL, 1e-22, 3.0, np.ones(4), np.int32(2)), {"log10_axion_mass": -22}),
    "one": (objects(SMALL), {}),
    "no axis": (objects(SMALL, shape=()), {}),
    "an empty file": (objects(), "object array of the shape (0,)"),
    "zero": (objects(SMALL, 0.0), "element 1 is the value 0.0"),
    "negative": (objects(SMALL, -1e-23), "element 1 is the value -1e-23"),
    "infinite": (objects(SMALL, np.inf), "element 1 is the value inf"),
    "not a number": (objects(SMALL, np.nan), "element 1 is the value nan"),
    "nothing": (objects(SMALL, None), "element 1 is the value None"),
    "true": (objects(SMALL, True), "element 1 is the value True"),
    "a mass array": (objects(SMALL, np.ones(3)), "element 1 is an array of the shape (3,)"),
    "text": (objects(SMALL, "cdm"), "element 1 is text"),
    "a dictionary": (objects(SMALL, {"mass": 1}), "element 1 is a dictionary"),
    "text behind": (objects(SMALL, 1e-23, "cdm"), "element 2 is text"),
    "no image": (objects(1e-23, SMALL), "element 0 is the value 1e-23"),
    "a list": (objects([1.0, 2.0], 1e-23), "element 0 is a list"),
    "objects in it": (objects(objects(1.0, 2.0), 1e-23), "element 0 is an array of objects"),
    "a small image": (objects(SMALL[:4], 1e-23), "a side needs at least 8"),
    "a stack": (objects(np.zeros((9, 9, 9)), 1e-23), "9 images; allowed: one"),
    "two axes": (objects(SMALL, SMALL, 1, 2, shape=(2, 2)), "object array of the shape (2, 2)"),
    "complex": (objects(SMALL + 1j, 1e-23), "dtype c16"),
}


@pytest.mark.parametrize(("array", "expected"), OBJECTS.values(), ids=OBJECTS.keys())
@pytest.mark.parametrize("name", ["a.npy", "a.npz"])
def test_object_arrays_of_an_image_and_a_mass_are_read_and_no_others(
    tmp_path, name, array, expected
):
    path = save(tmp_path / name, array)
    if isinstance(expected, str):
        assert expected in reason(path)
        return
    (image,) = read(path)
    np.testing.assert_array_equal(image.pixels[..., 0], SMALL.astype("f4"))
    assert image.parameters == pytest.approx(expected)


@pytest.mark.parametrize("name", ["a.npz", "a.h5"])
def test_labels_and_parameters_belong_to_their_image(tmp_path, name):
    stack = np.random.default_rng(0).random((6, 9, 11))
    values = np.arange(12.0).reshape(6, 2)
    names = np.array(["axion", "cdm", "no_sub"])
    labels = np.array([2, 0, 1, 1, 0, 2])
    beside = {"parameters": values, "parameter_names": np.array(["mass", "angle"])}
    for others, expected in (
        ({"labels": labels, "class_names": names}, names[labels].tolist()),
        ({"label": names[labels]}, names[labels].tolist()),
        ({"labels": labels.astype("u1")}, [f"class_{label}" for label in labels]),
        ({}, [None] * 6),
    ):
        images = read(save(tmp_path / name, stack, **others, **beside))
        assert [image.class_name for image in images] == expected
        for index, image in enumerate(images):
            assert image.parameters == {"mass": 2.0 * index, "angle": 2.0 * index + 1}
            np.testing.assert_array_equal(image.pixels[..., 0], stack[index].astype("f4"))
    (image,) = read(save(tmp_path / name, SMALL, label=np.array(1), class_names=names))
    assert (image.class_name, image.place) == ("cdm", "")


BESIDE = {
    "too few labels": ({"labels": np.arange(5)}, "shape (5,) for 6 images"),
    "labels of two axes": ({"labels": np.zeros((6, 1), int)}, "shape (6, 1) for 6 images"),
    "a label without a name": (
        {"labels": np.arange(6), "class_names": np.array(["a", "b"])},
        "labels from 0 to 5, but 2 class_names",
    ),
    "a negative label": ({"labels": np.arange(6) - 1}, "label -1"),
    "labels of floats": ({"labels": np.zeros(6)}, "float64"),
    "an empty label": ({"labels": np.array(["a"] * 5 + [" "])}, "empty"),
    "parameters without names": ({"parameters": np.zeros((6, 2))}, "without parameter_names"),
    "too few parameters": (
        {"parameters": np.zeros((5, 1)), "parameter_names": np.array(["a"])},
        "shape (5, 1) for 6 images",
    ),
    "a name twice": (
        {"parameters": np.zeros((6, 2)), "parameter_names": np.array(["a", "a"])},
        "twice",
    ),
}


@pytest.mark.parametrize(("others", "words"), BESIDE.values(), ids=BESIDE.keys())
@pytest.mark.parametrize("name", ["a.npz", "a.h5"])
def test_labels_and_parameters_that_do_not_fit_are_refused(tmp_path, name, others, words):
    assert words in reason(save(tmp_path / name, np.zeros((6, 9, 11)), **others))


def test_the_images_of_an_npz_are_found_by_name_or_by_being_alone(tmp_path):
    path = tmp_path / "a.npz"
    noise = np.zeros((9, 11))
    choices: tuple[dict[str, Any], ...] = (
        {"images": SMALL, "z": noise},
        {"image": SMALL, "z": noise},
        {"other": SMALL},
    )
    for held in choices:
        np.savez(path, **held)
        np.testing.assert_array_equal(read(path)[0].pixels[..., 0], SMALL.astype("f4"))
    np.savez(path, SMALL, SMALL + 1)
    assert "2 planes that could be images: 'arr_0' (9x11), 'arr_1' (9x11)" in reason(path)
    np.savez(path, SMALL, noise)  # a constant array is no image
    np.testing.assert_array_equal(read(path)[0].pixels[..., 0], SMALL.astype("f4"))
    np.savez(path, a=np.zeros(3))
    assert "name it 'images'" in reason(path)
    np.savez(path, image=objects(SMALL, "x"), z=noise)
    assert "element 1 is text" in reason(path)


def test_a_zip_that_numpy_does_not_write_is_refused(tmp_path):
    path = tmp_path / "a.npz"
    np.save(tmp_path / "images.npy", SMALL)
    data = (tmp_path / "images.npy").read_bytes()
    for method in (zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA):
        with zipfile.ZipFile(path, "w", method) as archive:
            archive.writestr("images.npy", data)
        assert f"zip method {method}" in reason(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("notes.txt", "nothing here")
    assert "holds no array" in reason(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("images.npy", data[:-8])
    assert "truncated" in reason(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("images.npy", data)
    raw = bytearray(path.read_bytes())
    raw[200] ^= 1  # a pixel: only the checksum knows
    path.write_bytes(raw)
    assert "CRC" in reason(path)
    raw[6] |= 1  # says encrypted, here and in the central directory
    raw[raw.index(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(raw)
    assert "encrypted" in reason(path)


def test_hdf5_says_unit_pixel_scale_and_psf(tmp_path):
    path = save(tmp_path / "a.h5", SMALL)
    for unit in ("counts/s", np.bytes_(b"counts/s"), np.array(["counts/s"], "S")):
        with h5py.File(path, "a") as file:
            file.attrs["flux_unit"] = unit
            file.attrs["pixel_scale_arcsec"] = 0.05
            file.attrs["psf_fwhm_arcsec"] = np.float32(0.125)
        (image,) = read(path)
        found = image.flux_unit, image.pixel_scale_arcsec, image.psf_fwhm_arcsec
        assert found == ("counts/s", 0.05, 0.125)
    for wrong in (0.0, -1.0, np.nan, np.inf, "wide"):
        with h5py.File(path, "a") as file:
            file.attrs["psf_fwhm_arcsec"] = wrong
        assert "attribute psf_fwhm_arcsec" in reason(path)


def _external_link(file, other):
    file["images"] = h5py.ExternalLink(other, "images")


def _soft_link(file, other):
    file["images"] = h5py.SoftLink("/elsewhere")


def _external_storage(file, other):
    raw = [(str(other), 0, h5py.h5f.UNLIMITED)]
    file.create_dataset("images", (9, 11), "u1", external=raw)


def _virtual(file, other):
    layout = h5py.VirtualLayout((9, 11), "f8")
    layout[...] = h5py.VirtualSource(other, "images", (9, 11))
    file.create_virtual_dataset("images", layout)


def _never_written(file, other):
    file.create_dataset("images", (10**5, 64, 64), "f8", chunks=(1, 64, 64))


def _half_written(file, other):
    file.create_dataset("images", (100, 9, 11), "f8", chunks=(1, 9, 11))[:50] = 1


def _group(file, other):
    file.create_group("images")["stack"] = SMALL


HDF5 = {
    _external_link: "links are not followed",
    _soft_link: "links are not followed",
    _external_storage: "in other files",
    _virtual: "in other files",
    _never_written: "was not written completely",
    _half_written: "was not written completely",
    _group: "name it 'images'",
}


@pytest.mark.parametrize("make", HDF5, ids=lambda make: make.__name__)
def test_hdf5_that_points_elsewhere_or_is_unfinished_is_refused(tmp_path, make):
    other = save(tmp_path / "other.h5", SMALL)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        make(file, other)
    assert HDF5[make] in reason(tmp_path / "a.h5")


def write_fits(path: pathlib.Path, *hdus, **primary) -> pathlib.Path:
    """Writes HDUs of `(array, keywords)` behind a primary without data."""
    first = fits.PrimaryHDU()
    first.header.update(primary)
    others = [fits.ImageHDU(array, fits.Header(keywords.items())) for array, keywords in hdus]
    fits.HDUList([first, *others]).writeto(path, overwrite=True)
    return path


@pytest.mark.parametrize(
    ("names", "read_ones"),
    [
        (("SCI", "ERR", "DQ"), (0,)),
        (("sci", "WHT", "SCI"), None),
        (("R", "G", "weight"), None),
        (("SCI", "MODEL"), (0,)),
        (("R", "RMS_R", "weight"), (0,)),
        (("", ""), None),
    ],
)
def test_fits_extensions_of_errors_and_flags_are_no_images(tmp_path, names, read_ones):
    hdus = [(SMALL + place, {"EXTNAME": name}) for place, name in enumerate(names)]
    path = write_fits(tmp_path / "a.fits", *hdus)
    if read_ones is None:
        assert "2 planes that could be images" in reason(path)
        return
    found = [image.pixels[..., 0] for image in read(path)]
    assert len(found) == len(read_ones)
    for pixels, place in zip(found, read_ones, strict=True):
        np.testing.assert_array_equal(pixels, (SMALL + place).astype("f4"))


def test_fits_with_nothing_but_errors_and_flags_is_refused(tmp_path):
    path = write_fits(tmp_path / "a.fits", (SMALL, {"EXTNAME": "ERR"}), (SMALL, {"EXTNAME": "DQ"}))
    told = reason(path)
    assert "holds no image" in told
    assert "HDU 1 ERR (9x11, standard deviation), HDU 2 DQ (9x11, mask)" in told


@pytest.mark.parametrize("name", ["a.fits", "a.FIT", "a.fts", "a.fits.gz"])
def test_fits_says_unit_zero_point_exposure_scale_psf_and_class(tmp_path, name):
    keywords = {"BUNIT": "electron/s", "ZP": 25.96, "EXPTIME": 565.0, "PIXSCALE": 0.08}
    keywords |= {"PSFFWHM": 0.15, "CLASS": "cdm"}
    path = write_fits(tmp_path / name, (SMALL, keywords))
    (image,) = read(path)
    np.testing.assert_array_equal(image.pixels[..., 0], SMALL.astype("f4"))  # not flipped
    assert image.parameters == {"zero_point_mag": 25.96, "exposure_time_s": 565.0}
    found = image.flux_unit, image.pixel_scale_arcsec, image.psf_fwhm_arcsec, image.class_name
    assert found == ("electron/s", 0.08, 0.15, "cdm")
    assert (image.place, image.integer) == ("", False)


def test_an_extension_takes_from_the_primary_what_it_lacks(tmp_path):
    stack = np.arange(9 * 99, dtype="i2").reshape(9, 9, 11)
    path = write_fits(
        tmp_path / "a.fits",
        (SMALL, {"MAGZERO": 20.0, "EXPTIME": "unknown"}),
        (np.zeros(7), {}),
        (stack, {"BUNIT": "adu", "LABEL": "axion"}),
        MAGZPT=30.0,
        EXPOSURE=100,
        BUNIT="count",
        PIXELSCL=0.1,
    )
    first, *others = read(path, rules=PlaneRules(planes=("1", "3")))
    assert first.parameters == {"zero_point_mag": 20.0, "exposure_time_s": 100.0}
    assert (first.place, first.flux_unit, first.pixel_scale_arcsec) == ("HDU 1", "count", 0.1)
    assert [image.place for image in others] == [f"HDU 3 [{index}]" for index in range(9)]
    for image, pixels in zip(others, stack, strict=True):
        assert image.parameters == {"zero_point_mag": 30.0, "exposure_time_s": 100.0}
        assert (image.flux_unit, image.class_name, image.integer) == ("adu", "axion", True)
        np.testing.assert_array_equal(image.pixels[..., 0], pixels)


WCS = {
    "CD": ({"CD1_1": -2e-5, "CD1_2": 0.0, "CD2_1": 0.0, "CD2_2": 2e-5}, 0.072),
    "rotated": ({"CD1_1": -1e-5, "CD1_2": 1e-5, "CD2_1": 1e-5, "CD2_2": 1e-5}, 0.036 * 2**0.5),
    "CDELT": ({"CDELT1": -2e-5, "CDELT2": 2e-5}, 0.072),
    "not square": ({"CDELT1": -1e-5, "CDELT2": 4e-5}, 0.072),
    "with tables elsewhere": ({"CDELT1": -2e-5, "CDELT2": 2e-5, "CPDIS1": "LOOKUP"}, 0.072),
    "of nothing": ({}, None),
    "broken": ({"CDELT1": 0.0, "CDELT2": 0.0}, None),
}


@pytest.mark.parametrize(("keywords", "scale"), WCS.values(), ids=WCS.keys())
@pytest.mark.parametrize("projection", ["TAN", "TAN-SIP"])
def test_the_pixel_scale_comes_from_the_celestial_coordinates(
    tmp_path, keywords, scale, projection
):
    axes = {"CTYPE1": f"RA---{projection}", "CTYPE2": f"DEC--{projection}", "CRVAL2": 30.0}
    path = write_fits(tmp_path / "a.fits", (SMALL, axes | keywords))
    (image,) = read(path)
    assert image.pixel_scale_arcsec == (scale and pytest.approx(scale))
    path = write_fits(tmp_path / "a.fits", (SMALL, axes | keywords | {"PIXSCALE": 0.5}))
    assert read(path)[0].pixel_scale_arcsec == 0.5


@pytest.mark.parametrize("name", ["a.fits", "a.fits.gz", "a.fits.fz"])
def test_scaled_and_blank_pixels_of_fits(tmp_path, name):
    kind = fits.CompImageHDU if name.endswith(".fz") else fits.ImageHDU
    stored = np.arange(99, dtype="i2").reshape(9, 11)
    for zero, scale, integer in ((0, 1, True), (32768, 1, True), (3, 0.5, False)):
        hdu = kind(stored, fits.Header({"BLANK": 7}.items()))
        fits.HDUList([fits.PrimaryHDU(), hdu]).writeto(tmp_path / "plain.fits", overwrite=True)
        with fits.open(tmp_path / "plain.fits", do_not_scale_image_data=True) as hdus:
            hdus[1].header.update({"BZERO": zero, "BSCALE": scale, "BLANK": 7})
            hdus.writeto(tmp_path / name, overwrite=True)
        (image,) = read(tmp_path / name)
        expected = np.where(stored == 7, np.nan, stored.astype(float) * scale + zero)
        np.testing.assert_array_equal(image.pixels[..., 0], expected.astype("f4"))
        assert image.integer == integer


@pytest.mark.parametrize("kind", ["RICE_1", "GZIP_1", "GZIP_2", "PLIO_1", "HCOMPRESS_1"])
def test_compressed_fits_is_read(tmp_path, kind):
    stored = np.random.default_rng(0).integers(0, 1000, (16, 20)).astype("i2")
    hdu = fits.CompImageHDU(stored, compression_type=kind, tile_shape=(16, 20))
    fits.HDUList([fits.PrimaryHDU(), hdu]).writeto(tmp_path / "a.fits.fz")
    (image,) = read(tmp_path / "a.fits.fz")
    np.testing.assert_array_equal(image.pixels[..., 0], stored)


def test_fits_without_an_image_or_cut_short_is_refused(tmp_path):
    path = write_fits(tmp_path / "a.fits", (np.zeros(20), {}))
    assert "holds no image" in reason(path)
    table = fits.BinTableHDU.from_columns([fits.Column("a", "E", array=np.zeros(3))])
    fits.HDUList([fits.PrimaryHDU(), table]).writeto(path, overwrite=True)
    assert "holds no image" in reason(path)
    data = write_fits(path, (SMALL, {}), (np.zeros((64, 64)), {})).read_bytes()
    for length in range(100, len(data) - 2880, 2000):
        path.write_bytes(data[:length])
        assert reason(path)
    path.write_bytes(gzip.compress(data)[:200])
    assert reason(path)


def test_a_forged_length_does_not_send_the_reader_round_in_circles(tmp_path):
    data = write_fits(tmp_path / "a.fits", (SMALL, {}), (SMALL, {})).read_bytes()
    places = range(2880, len(data), 80)
    card = next(place for place in places if data[place : place + 6] == b"GCOUNT")
    for count in (-10, -5, -4, -1):
        forged = f"GCOUNT  = {count:20d}".ljust(80).encode()
        forged_path = tmp_path / f"forged{count}.fits"
        forged_path.write_bytes(data[:card] + forged + data[card + 80 :])
    code = f"""
import pathlib
from lensjax.files.image_files import BadFileError, read_images
for path in sorted(pathlib.Path({str(tmp_path)!r}).glob("forged*")):
    try:
        print("read", len(list(read_images(path))))
    except BadFileError as error:
        print("refused", error)
"""
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=ROOT, timeout=60, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 4
    assert "points backwards" in done.stdout


def test_what_is_no_file_of_its_suffix_says_what_it_is(tmp_path):
    npy = save(tmp_path / "good.npy", SMALL).read_bytes()
    for suffix in SUFFIXES:
        path = tmp_path / f"a{suffix}"
        path.write_bytes(b"")
        assert "0 bytes" in reason(path)
        path.write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n")
        assert "Git LFS pointer" in reason(path)
        path.write_bytes(b"0.1,0.2,0.3\n" * 20)
        assert "is text" in reason(path)
        path.write_bytes(bytes(range(256)))
        assert "another kind" in reason(path)
        path.unlink()
        assert reason(path) == os.strerror(2)
        path.symlink_to(tmp_path / "nowhere")
        assert reason(path) == os.strerror(2)
        path.unlink()
        path.mkdir()
        assert "directory" in reason(path)
        if suffix != ".npy":
            other = tmp_path / f"b{suffix}"
            other.write_bytes(npy)
            assert "is a .npy file" in reason(other)
    os.mkfifo(tmp_path / "pipe.npy")
    assert "not a file" in reason(tmp_path / "pipe.npy")
    (tmp_path / "a.jpg").write_bytes(b"x")
    assert "suffixes" in reason(tmp_path / "a.jpg")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read_is_refused(tmp_path):
    path = save(tmp_path / "a.npy", SMALL)
    path.chmod(0)
    assert reason(path) == os.strerror(13)


@pytest.mark.parametrize("name", ["a.npy", "a.NPZ", "x.y.Fits.GZ", "a.fits.fz", "a.H5", "a.fts"])
def test_suffixes_count_in_any_case(name):
    assert is_image_file(name)
    assert is_image_file(pathlib.Path("folder") / name)
    assert not is_image_file(name + ".txt")


HEADER = "{{'descr': {}, 'fortran_order': {}, 'shape': {}, }}"
HEADERS = {
    "too short": (HEADER.format("'<f8'", False, (9, 12)), "has 920 bytes, its header promises 992"),
    "too long": (HEADER.format("'<f8'", False, (9, 10)), "72 bytes after its array"),
    "huge": (HEADER.format("'<f8'", False, (2**40, 2**40)), "truncated"),
    "absurd": (HEADER.format("'<f8'", False, (2**60, 9, 9)), "no array has"),
    "negative": (HEADER.format("'<f8'", False, (-9, -11)), "no array has"),
    "true": (HEADER.format("'<f8'", False, (True, 11)), "no array has"),
    "digits": (HEADER.format("'<f8'", False, "(" + "9" * 5000 + ", 9)"), "header"),
    "hexadecimal": (HEADER.format("'<f8'", False, "(0x" + "f" * 5000 + ", 9)"), "no array has"),
    "code": ("__import__('os').system('touch ran')", "header"),
    "nested": ("(" * 3000 + ")" * 3000, "header"),
    "signs": ("-" * 9000 + "1", "header"),
    "open": ("{'descr': '''", "header"),
    "not a dictionary": ("[1, 2]", "header"),
    "another key": ("{'descr': '<f8', 'fortran_order': False, 'size': 3}", "header"),
    "a dtype that is none": (HEADER.format("'<q9'", False, (9, 11)), "header"),
    "a dtype of dtypes": (HEADER.format("('<f8', (2**31,))", False, (9, 11)), "header"),
    "a sub-array": (HEADER.format("('<f8', (3,))", False, (9, 11)), "raw records"),
    "objects": (HEADER.format("[('a', '|O')]", False, (9, 11)), "structured"),
}


@pytest.mark.parametrize(("header", "words"), HEADERS.values(), ids=HEADERS.keys())
def test_forged_headers_are_refused(tmp_path, monkeypatch, header, words):
    monkeypatch.chdir(tmp_path)
    text = header.encode().ljust(118) + b"\n"
    body = b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + bytes(99 * 8)
    path = tmp_path / "a.npy"
    path.write_bytes(body[: 129 + 99 * 8] if len(text) == 119 else body)
    if words.startswith("has 920"):
        words = f"has {path.stat().st_size} bytes, its header promises {path.stat().st_size + 72}"
    assert words in reason(path)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("name", ["a.npy", "a.npz", "a.h5", "a.fits"])
def test_a_large_stack_is_never_in_memory_as_a_whole(tmp_path, monkeypatch, name, order):
    block = 2**16
    monkeypatch.setattr(file_image, "BLOCK_BYTES", block)
    monkeypatch.setattr(npy, "BLOCK_BYTES", block)
    stack = np.zeros((2000, 32, 32), "f4", order=order)
    stack[:] = np.arange(2000, dtype="f4")[:, None, None]
    path, size = save(tmp_path / name, stack), stack.nbytes
    del stack
    read(save(tmp_path / f"warm_{name}", np.zeros((9, 32, 32), "f4")))  # imports
    tracemalloc.start()
    try:
        for index, image in enumerate(read_images(path)):
            if index % 500 == 0:
                assert (image.pixels == index).all()
            if order == "F" and index == 300:
                break
        assert tracemalloc.get_traced_memory()[1] < size / 4
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("order", ["C", "F"])
def test_a_file_that_is_cut_while_it_is_read_is_refused(tmp_path, monkeypatch, order):
    monkeypatch.setattr(file_image, "BLOCK_BYTES", 2**12)
    stack = np.asarray(np.random.default_rng(0).random((99, 32, 32)), order=order)
    path = save(tmp_path / "a.npy", stack)
    images = read_images(path)
    next(images)
    os.truncate(path, 2**13)
    with pytest.raises(BadFileError, match=r"truncated: \d+ bytes of its array are missing"):
        list(images)


def test_a_bomb_of_zeros_is_refused_by_the_size_of_its_images(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        header = {"descr": "<f8", "fortran_order": False, "shape": (2**15, 2**15)}
        with archive.open("images.npy", "w", force_zip64=True) as member:
            np.lib.format.write_array_header_1_0(member, header)
            member.write(bytes(1000))
    assert "truncated" in reason(tmp_path / "a.npz")
    path = tmp_path / "a.npy"
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, header)
        file.truncate(file.tell() + 2**33)  # without blocks on disk
    assert "at most 268435456 pixels" in reason(path)


@pytest.mark.parametrize(("package", "name"), [("h5py", "a.h5"), ("astropy", "a.fits")])
def test_a_missing_package_is_named_with_its_extra(tmp_path, monkeypatch, package, name):
    path = save(tmp_path / name, SMALL)
    for module in [package, "astropy.io"]:
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(DataError, match=rf"needs {package}, .*pip install 'lensjax\[files\]'"):
        read(path)


def test_errors_travel_between_processes_and_show_no_control_characters(tmp_path):
    error = BadFileError(tmp_path / "a.npy", "is empty")
    again = pickle.loads(pickle.dumps(error))
    assert (str(again), again.path, again.reason) == (str(error), error.path, "is empty")
    data = b"\x8c\x05a\x1b[2Jb\x8c\x01c\x93.".replace(b"\x05", b"\x06")
    path = tmp_path / "a.npy"
    with path.open("wb") as file:
        header = {"descr": "|O", "fortran_order": False, "shape": (2,)}
        np.lib.format.write_array_header_1_0(file, header)
        file.write(data)
    assert r"asks to run a\x1b[2Jb.c;" in reason(path)


def fuzz_files(folder: pathlib.Path) -> list[pathlib.Path]:
    """A valid file of each kind."""
    stack = np.random.default_rng(1).normal(size=(9, 9, 11)).astype("f4")
    beside = {"labels": np.arange(9), "class_names": np.array(list("abcdefghi"))}
    np.save(folder / "object.npy", objects(SMALL, 1e-23), allow_pickle=True)
    files = [folder / "object.npy"]
    for name in ("a.npy", "a.npz", "packed.npz", "a.h5", "packed.h5"):
        files.append(save(folder / name, stack, **beside))
    header = fits.Header({"BLANK": 3, "CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN"}.items())
    header.update({"CDELT1": -1e-5, "CDELT2": 1e-5, "BUNIT": "adu", "ZP": 25.0})
    hdus = [fits.PrimaryHDU(), fits.ImageHDU((stack * 100).astype("i2"), header)]
    for name in ("a.fits", "a.fits.gz"):
        fits.HDUList(hdus).writeto(folder / name)
        files.append(folder / name)
    packed = fits.CompImageHDU(SMALL.astype("f4"), compression_type="RICE_1")
    fits.HDUList([fits.PrimaryHDU(), packed]).writeto(folder / "a.fits.fz")
    return [*files, folder / "a.fits.fz"]


def mutations(data: bytes, seed: str, count: int):
    """Yields the data cut short or with some bytes changed, most of these near its beginning."""
    draw = random.Random(seed)
    for _ in range(count):
        broken = bytearray(data)
        if draw.random() < 0.2:
            del broken[draw.randrange(len(data)) :]
        else:
            for _ in range(draw.choice((1, 1, 2, 8))):
                reach = draw.choice((len(data), min(len(data), 3000)))
                broken[draw.randrange(reach)] = draw.choice((draw.randrange(256), 255, 0, 32))
        yield bytes(broken)


# In a process of its own: HDF5 and the decompression of FITS are C code.
FUZZ = """
import pathlib, sys, warnings
warnings.simplefilter("error")
sys.path[:0] = ["tests/support", "tests/files"]
import numpy as np
from test_image_files import mutations
from lensjax.files.image_files import BadFileError, read_images
for path in map(pathlib.Path, sys.argv[2:]):
    data, good, bad = path.read_bytes(), 0, 0
    for broken in mutations(data, path.name, int(sys.argv[1])):
        path.write_bytes(broken)
        try:
            for count, image in enumerate(read_images(path)):
                assert image.pixels.dtype == np.float32 and image.pixels.ndim == 3
                if count > 10_000:
                    break
            good += 1
        except BadFileError:
            bad += 1
    print(good, bad)
"""


@pytest.mark.parametrize("count", [60, pytest.param(1000, marks=pytest.mark.nightly)])
def test_a_damaged_file_is_read_or_refused_and_nothing_else(tmp_path, count):
    paths = fuzz_files(tmp_path)
    assert all(read(path) for path in paths)
    command = [sys.executable, "-c", FUZZ, str(count), *map(str, paths)]
    environment = {**os.environ, "JAX_PLATFORMS": "cpu"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    numbers = [tuple(map(int, line.split())) for line in done.stdout.splitlines()]
    assert [good + bad for good, bad in numbers] == [count] * len(paths)
    assert all(bad > 0 for _, bad in numbers)
