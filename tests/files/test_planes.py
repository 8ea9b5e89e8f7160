"""Planes of a file: chosen, asked about, and read with their variances and masks."""

import pathlib
import pickle

import numpy as np
import pytest

from lensjax.errors import AmbiguousFileError, BadFileError
from lensjax.files.file_image import FileImage
from lensjax.files.image_files import PlaneRules, read_images
from lensjax.files.planes import mask_of, variance_of

fits = pytest.importorskip("astropy.io.fits")
h5py = pytest.importorskip("h5py")

SIDE = 16
CONTAINERS = ("a.fits", "a.fits.gz", "a.npz", "a.h5")


def plane(seed: int, side: int = SIDE) -> np.ndarray:
    return np.random.default_rng(seed).gamma(2.0, 1.0, (side, side)).astype("f4")


def euclid() -> dict[str, np.ndarray]:
    """Planes like those of a cut-out of Euclid: image, RMS, flags and PSF in two bands."""
    planes = {}
    for seed, band in enumerate(("VIS", "NIR_H")):
        flags = np.zeros((SIDE, SIDE), np.int32)
        flags[seed, 3] = 2 + seed
        planes |= {
            f"{band}_BGSUB": plane(seed),
            f"{band}_RMS": 0.1 * plane(10 + seed) + 0.1,
            f"{band}_FLAG": flags,
            f"{band}_PSF": plane(20 + seed, SIDE + 1),
        }
    return planes


def write(path: pathlib.Path, planes: dict[str, np.ndarray]) -> pathlib.Path:
    if path.suffix == ".npz":
        np.savez(path, **planes)
    elif path.suffix == ".h5":
        with h5py.File(path, "w") as file:
            for name, values in planes.items():
                file[name] = values
    else:
        hdus = [fits.ImageHDU(values, name=name) for name, values in planes.items()]
        fits.HDUList([fits.PrimaryHDU(), *hdus]).writeto(path)
    return path


def read(path: pathlib.Path, layout: str = "auto", **rules) -> list[FileImage]:
    return list(read_images(path, layout, PlaneRules(**rules)))


def refusal(path: pathlib.Path, **rules) -> str:
    with pytest.raises(BadFileError) as caught:
        read(path, **rules)
    return caught.value.reason


@pytest.mark.parametrize("name", CONTAINERS)
def test_several_images_are_asked_about_with_all_planes(tmp_path, name):
    path = write(tmp_path / name, euclid())
    with pytest.raises(AmbiguousFileError, match="2 planes that could be images") as caught:
        read(path)
    assert len(caught.value.planes) == 8
    text = "; ".join(caught.value.planes)
    for words in ("VIS_BGSUB", "16x16", "NIR_H_RMS", "standard deviation", "17x17", "mask"):
        assert words in text
    assert "HDU 4" in text or not name.startswith("a.fits")
    again = pickle.loads(pickle.dumps(caught.value))
    assert (str(again), again.planes) == (str(caught.value), caught.value.planes)


@pytest.mark.parametrize("name", CONTAINERS)
def test_chosen_planes_with_variances_and_masks(tmp_path, name):
    planes = euclid()
    path = write(tmp_path / name, planes)
    for rules in (
        {"planes": ("*_bgsub",), "variance_planes": ("auto",), "mask_planes": ("auto",)},
        {"planes": ("VIS_BGSUB", "NIR_H_BGSUB"), "variance_planes": ("*RMS",)}
        | {"mask_planes": ("VIS_FLAG", "NIR_H_FLAG")},
    ):
        images = read(path, **rules)
        assert sorted(image.plane for image in images) == ["NIR_H_BGSUB", "VIS_BGSUB"]
        for image in images:
            band = image.plane.removesuffix("_BGSUB")
            np.testing.assert_array_equal(image.pixels[..., 0], planes[f"{band}_BGSUB"])
            np.testing.assert_allclose(image.variance[..., 0], planes[f"{band}_RMS"] ** 2, 1e-6)
            np.testing.assert_array_equal(image.mask[..., 0], planes[f"{band}_FLAG"] != 0)
            assert f"{band}_BGSUB" in image.place
            assert sum("PSF" in words for words in image.unread) == 2


@pytest.mark.parametrize("name", CONTAINERS)
def test_bands_become_channels_in_the_users_order(tmp_path, name):
    planes = euclid()
    path = write(tmp_path / name, planes)
    (image,) = read(
        path,
        planes=("NIR_H_BGSUB", "VIS_BGSUB"),
        variance_planes=("auto",),
        mask_planes=("*FLAG",),
        mask_bits=2,
        bands="channels",
    )
    assert image.band_names == ("NIR_H_BGSUB", "VIS_BGSUB")
    for channel, band in enumerate(("NIR_H", "VIS")):
        np.testing.assert_array_equal(image.pixels[..., channel], planes[f"{band}_BGSUB"])
        np.testing.assert_array_equal(image.mask[..., channel], planes[f"{band}_FLAG"] & 2 > 0)
    assert image.variance.shape == image.mask.shape == (SIDE, SIDE, 2)


def test_stacks_of_planes_are_read_row_by_row(tmp_path):
    stacks = {
        "sci": np.stack([plane(seed) for seed in range(6)]),
        "ivar": np.stack([plane(seed + 6) for seed in range(6)]),
    }
    path = write(tmp_path / "a.npz", stacks)
    images = read(path, variance_planes=("ivar",))
    assert [(image.row, image.place) for image in images] == [(n, f"[{n}]") for n in range(6)]
    for image, variance in zip(images, 1 / stacks["ivar"], strict=True):
        np.testing.assert_allclose(image.variance[..., 0], variance, 1e-6)
    stacks["ivar"] = stacks["ivar"][:5]
    assert "different numbers of images" in refusal(
        write(tmp_path / "b.npz", stacks), variance_planes=("ivar",)
    )


def test_only_science_planes_where_there_are_any(tmp_path):
    planes = {"SCI": plane(0), "STAMP": plane(1), "WHT": plane(2)}
    (image,) = read(write(tmp_path / "a.fits", planes))
    np.testing.assert_array_equal(image.pixels[..., 0], planes["SCI"])
    assert image.unread == ("HDU 2 STAMP (16x16)", "HDU 3 WHT (16x16, weight)")


def test_content_decides_where_names_say_nothing(tmp_path):
    objects = np.zeros((SIDE, SIDE), np.int16)
    objects[4:7, 4:7] = 3
    planes = {"one": plane(0), "two": objects, "three": np.full((SIDE, SIDE), 2.5)}
    (image,) = read(write(tmp_path / "a.h5", planes))
    np.testing.assert_array_equal(image.pixels[..., 0], planes["one"])
    # Counts of few photons look like flags: two of them are asked about, one alone is taken.
    photons = {"g": objects, "r": objects.T.copy()}
    assert "2 planes that could be images" in refusal(write(tmp_path / "b.npz", photons))
    (image,) = read(write(tmp_path / "c.npz", {"g": objects}))
    np.testing.assert_array_equal(image.pixels[..., 0], objects)


def test_refusals_name_the_extension_and_its_name(tmp_path):
    path = write(tmp_path / "a.fits", {**euclid(), "TINY": plane(0, 5), "CUBE": plane(0)[None]})
    assert "has no plane 'VIS'" in refusal(path, planes=("VIS",))
    assert "HDU 1 VIS_BGSUB (16x16)" in refusal(path, planes=("VIS",))
    assert "(HDU 9 TINY) has the shape (5, 5)" in refusal(path, planes=("TINY",))
    assert "2 planes for '*_BGSUB' (data.planes), where one is wanted" in refusal(
        path, planes=("*_BGSUB", "CUBE"), bands="channels"
    )
    assert "17x17 pixels in band VIS_PSF, but 16x16 in band VIS_BGSUB" in refusal(
        path, planes=("VIS_BGSUB", "VIS_PSF"), bands="channels"
    )
    assert "17x17 pixels in HDU 4 VIS_PSF, but 16x16 in" in refusal(
        path, planes=("VIS_BGSUB",), variance_planes=("VIS_PSF",)
    )
    assert "one plane for two of data.planes" in refusal(
        path, planes=("VIS_BGSUB", "1"), bands="channels"
    )
    assert "which plane belongs to HDU 10 CUBE (data.mask_planes=auto)" in refusal(
        path, planes=("CUBE",), mask_planes=("auto",)
    )


@pytest.mark.parametrize(
    ("name", "values", "variance"),
    [
        ("VIS_RMS", (2.0, 0.0, -1.0, np.nan, np.inf), (4.0, *4 * (np.inf,))),
        ("IVAR", (0.25, 0.0, -1.0, np.nan, np.inf), (4.0, *4 * (np.inf,))),
        ("WHT", (100.0, 0.0, -1.0, np.nan, np.inf), (0.01, *4 * (np.inf,))),
        ("VARIANCE", (2.0, 0.0, -1.0, np.nan, np.inf), (2.0, *4 * (np.inf,))),
        ("anything", (3.0, 1e-30), (3.0, 1e-30)),
    ],
)
def test_planes_are_variances_by_their_kind(name, values, variance):
    np.testing.assert_allclose(variance_of(name, np.array(values, "f4")), variance, 1e-6)


def test_masks_by_any_value_by_bits_or_as_maps_of_good_pixels():
    flags = np.array([0, 1, 16, 4096, 17, np.nan], "f4")
    assert mask_of("DQ", flags, 0).tolist() == [False, True, True, True, True, True]
    assert mask_of("DQ", flags, 16 + 4096).tolist() == [False, False, True, True, True, True]
    assert mask_of("GOOD", flags, 0).tolist() == [True, False, False, False, False, True]


def test_pixels_without_a_variance_are_masked(tmp_path):
    weight = np.full((SIDE, SIDE), 4.0, "f4")
    weight[2, 5] = 0
    path = write(tmp_path / "a.fits", {"SCI": plane(0), "WHT": weight})
    (image,) = read(path, variance_planes=("auto",))
    assert np.argwhere(image.mask[..., 0]).tolist() == [[2, 5]]
    assert image.variance[2, 5, 0] == np.inf
