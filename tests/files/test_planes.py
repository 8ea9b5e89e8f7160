"""Planes of a file: chosen, asked about, and read with their variances and masks."""

import pathlib
import pickle
from typing import Any

import numpy as np
import pytest

from lensjax.errors import AmbiguousFileError, BadFileError, UnusableError
from lensjax.files.image_files import Limits, PlaneRules, read_images
from lensjax.files.plane_reading import bad_pixels, variance_of
from lensjax.files.planes import Flags

fits = pytest.importorskip("astropy.io.fits")
h5py = pytest.importorskip("h5py")

SIDE = 16
CONTAINERS = ("a.fits", "a.fits.gz", "a.npz", "a.h5")


def plane(seed: int, side: int = SIDE) -> np.ndarray:
    return np.random.default_rng(seed).gamma(2.0, 1.0, (side, side)).astype("f4")


def euclid() -> dict[str, np.ndarray]:
    """Planes like those of a cut-out of Euclid: image, RMS, flags and PSF in two bands."""
    planes: dict[str, np.ndarray] = {}
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


def write(path: pathlib.Path, planes: dict[str, Any]) -> pathlib.Path:
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


def read(path: pathlib.Path, layout: str = "auto", **rules) -> list[Any]:
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
    assert sorted(caught.value.names) == ["NIR_H_BGSUB", "VIS_BGSUB"]
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
    # Two planes of flags are asked about, one alone is taken.
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
    assert "write what it holds behind its name" in refusal(
        path, planes=("VIS_BGSUB",), variance_planes=("VIS_PSF",)
    )
    assert "one plane for two of data.planes" in refusal(
        path, planes=("VIS_BGSUB", "1"), bands="channels"
    )
    assert "which plane belongs to HDU 10 CUBE (data.mask_planes=auto)" in refusal(
        path, planes=("CUBE",), mask_planes=("auto",)
    )


@pytest.mark.parametrize(
    ("kind", "values", "variance"),
    [
        ("standard deviation", (2.0, 0.0, -1.0, np.nan, np.inf), (4.0, *4 * (np.inf,))),
        ("inverse variance", (0.25, 0.0, -1.0, np.nan, np.inf), (4.0, *4 * (np.inf,))),
        ("weight", (100.0, 0.0, -1.0, np.nan, np.inf), (0.01, *4 * (np.inf,))),
        ("variance", (2.0, 0.0, -1.0, np.nan, np.inf), (2.0, *4 * (np.inf,))),
        ("variance", (3.0, 1e-30), (3.0, 1e-30)),
    ],
)
def test_planes_are_variances_by_their_kind(kind, values, variance):
    np.testing.assert_allclose(variance_of(kind, np.array(values, "f4")), variance, 1e-6)


def test_variances_beyond_float32_are_refused():
    for kind, value in (("standard deviation", 1e-23), ("variance", 1e-40), ("weight", 1e-39)):
        with pytest.raises(UnusableError, match="float32 cannot hold"):
            variance_of(kind, np.array([value, 1.0]))


@pytest.mark.parametrize("dtype", ["f4", "i2", "u4", ">i8"])
def test_masks_by_any_value_by_bits_or_as_maps_of_good_pixels(dtype):
    flags = np.array([0, 1, 16, 4096, 17], dtype)
    assert bad_pixels(flags, Flags(False, 0)).tolist() == [0, 1, 1, 1, 1]
    assert bad_pixels(flags, Flags(False, 16 + 4096)).tolist() == [0, 0, 1, 1, 1]
    assert bad_pixels(flags, Flags(True, 0)).tolist() == [1, 0, 0, 0, 0]


def test_masks_of_many_bits_of_bools_and_of_nan():
    assert bad_pixels(np.array([2**31 + 1, 2**31], "u4"), Flags(False, 5)).tolist() == [1, 0]
    assert bad_pixels(np.array([True, False]), Flags(False, 0)).tolist() == [1, 0]
    assert bad_pixels(np.array([True, False]), Flags(True, 0)).tolist() == [0, 1]
    assert bad_pixels(np.array([np.nan, 0.0]), Flags(False, 4)).tolist() == [1, 0]
    assert bad_pixels(np.array([np.nan, 1.0]), Flags(True, 0)).tolist() == [1, 0]


def test_pixels_without_a_variance_are_masked(tmp_path):
    weight = np.full((SIDE, SIDE), 4.0, "f4")
    weight[2, 5] = 0
    path = write(tmp_path / "a.fits", {"SCI": plane(0), "WHT": weight})
    (image,) = read(path, variance_planes=("auto",))
    assert np.argwhere(image.mask[..., 0]).tolist() == [[2, 5]]
    assert image.variance[2, 5, 0] == np.inf


@pytest.mark.parametrize("name", CONTAINERS)
def test_errors_that_belong_to_something_else_are_not_taken(tmp_path, name):
    planes = euclid()
    del planes["VIS_RMS"]
    path = write(tmp_path / name, planes)
    assert "does not say which plane belongs to" in refusal(
        path, planes=("VIS_BGSUB",), variance_planes=("auto",)
    )
    assert "belongs to" in refusal(
        path, planes=("VIS_BGSUB", "NIR_H_BGSUB"), variance_planes=("NIR_H_RMS", "NIR_H_RMS")
    )
    planes = {"image": plane(0), "psf": plane(1), "psf_err": plane(2), "image_err": plane(3)}
    (image,) = read(write(tmp_path / f"b{name[1:]}", planes), variance_planes=("auto",))
    np.testing.assert_allclose(image.variance[..., 0], plane(3) ** 2, 1e-6)


def test_planes_whose_names_say_nothing_are_read_as_they_are_said_to_be(tmp_path):
    good = np.ones((SIDE, SIDE), np.int32)
    good[3, 4] = 0
    planes = {"image": plane(0), "sig": 0.1 + plane(1), "ok": good}
    path = write(tmp_path / "a.npz", planes)
    assert "whose name says nothing; write" in refusal(path, variance_planes=("sig",))
    assert "=bad or =good" in refusal(path, mask_planes=("ok",))
    assert "whose kind 'rms' does not exist; allowed: variance, sigma" in refusal(
        path, variance_planes=("sig=rms",)
    )
    (image,) = read(path, variance_planes=("sig=sigma",), mask_planes=("ok=good",))
    np.testing.assert_allclose(image.variance[..., 0], planes["sig"] ** 2, 1e-6)
    assert np.argwhere(image.mask[..., 0]).tolist() == [[3, 4]]
    assert image.companions == ("'sig' (standard deviation)", "'ok' (map of good pixels)")


def test_extensions_of_one_name_belong_together_by_their_version(tmp_path):
    hdus = [fits.PrimaryHDU()]
    for version in (1, 2):
        hdus += [
            fits.ImageHDU(plane(version), name="SCI", ver=version),
            fits.ImageHDU(1 + plane(10 + version), name="ERR", ver=version),
        ]
    fits.HDUList(hdus).writeto(tmp_path / "a.fits")
    for variances in (("ERR",), ("auto",)):
        images = read(tmp_path / "a.fits", planes=("SCI",), variance_planes=variances)
        for version, image in zip((1, 2), images, strict=True):
            np.testing.assert_array_equal(image.pixels[..., 0], plane(version))
            np.testing.assert_allclose(image.variance[..., 0], (1 + plane(10 + version)) ** 2, 1e-6)
    (image,) = read(tmp_path / "a.fits", planes=("1", "3"), bands="channels")
    assert image.band_names == ("SCI_1", "SCI_3")


def test_one_mask_serves_a_stack_and_all_channels(tmp_path):
    mask = np.zeros((SIDE, SIDE), bool)
    mask[2] = True
    stack = np.stack([plane(seed) for seed in range(6)])
    path = write(tmp_path / "a.npz", {"images": stack, "mask": mask})
    images = read(path, mask_planes=("auto",))
    assert len(images) == 6
    assert all(np.array_equal(image.mask[..., 0], mask) for image in images)
    path = write(tmp_path / "b.npz", {"images": np.moveaxis(stack[:3], 0, -1), "mask": mask})
    (image,) = read(path, mask_planes=("auto",))
    assert image.mask.shape == (SIDE, SIDE, 3)


def test_a_cube_of_a_few_planes_is_asked_about(tmp_path):
    fits.writeto(tmp_path / "a.fits", np.stack([plane(seed) for seed in range(5)]))
    assert "may be one image of 5 bands or 5 images" in refusal(tmp_path / "a.fits")
    (image,) = read(tmp_path / "a.fits", "CHW")
    assert image.pixels.shape == (SIDE, SIDE, 5)


def test_an_array_of_many_channels_is_asked_about(tmp_path):
    np.save(tmp_path / "a.npy", np.random.default_rng(0).random((32, 32, 8)))
    assert "one image of 8 channels or 32 images of 32 x 8 pixels" in refusal(tmp_path / "a.npy")
    assert len(read(tmp_path / "a.npy", "NHW")) == 32
    np.save(tmp_path / "a.npy", np.random.default_rng(0).random((30, 32, 8)))
    assert len(read(tmp_path / "a.npy")) == 30


def test_many_planes_must_fit_into_memory_together(tmp_path):
    path = write(tmp_path / "a.npz", {f"b{n}": plane(n, 256) for n in range(8)})
    rules = PlaneRules(tuple(f"b{n}" for n in range(8)), bands="channels")
    with pytest.raises(BadFileError, match=r"planes that take together 0\.00781 GiB"):
        list(read_images(path, rules=rules, limits=Limits(memory_gib=1 / 256)))
    assert len(list(read_images(path, rules=rules))) == 1


def test_a_file_of_one_plane_has_no_others(tmp_path):
    np.save(tmp_path / "a.npy", plane(0))
    for field in ("planes", "variance_planes", "mask_planes"):
        assert f"has one plane, but data.{field}" in refusal(
            tmp_path / "a.npy", **{field: ("auto",)}
        )
