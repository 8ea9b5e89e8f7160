"""Exports of sets with variances, masks and bands, read back as a user's files."""

import numpy as np
import pytest
from folder_support import SIDE, pixels

import lensjax
from lensjax.cli.export_mode import export_mode
from lensjax.config import default_config, from_config_dict

fits = pytest.importorskip("astropy.io.fits")
h5py = pytest.importorskip("h5py")

BANDS = ("VIS", "NIR_Y")
ZERO_POINTS = [fits.Header({"MAGZERO": value}) for value in (24.6, 29.9)]


@pytest.fixture(params=[1, 2], ids=["one band", "two bands"])
def data(request, tmp_path):
    """Fields of `data` for six files with errors and flags."""
    names = BANDS[: request.param]
    (tmp_path / "files").mkdir()
    for index in range(6):
        hdus = [fits.PrimaryHDU()]
        for number, name in enumerate(names):
            seed = 10 * index + number
            flags = np.zeros((SIDE, SIDE), np.int16)
            flags[index, number] = 1
            hdus += [
                fits.ImageHDU(pixels(seed).astype("f4"), ZERO_POINTS[number], name=name),
                fits.ImageHDU((0.1 + pixels(100 + seed)).astype("f4"), name=f"{name}_RMS"),
                fits.ImageHDU(flags, name=f"{name}_DQ"),
            ]
        fits.HDUList(hdus).writeto(tmp_path / "files" / f"{index}.fits")
    fields = {"planes": names, "variance_planes": ("auto",), "mask_planes": ("auto",)}
    return fields | {"bands": "channels" if len(names) > 1 else "images"}


def planes_of(tmp_path, folder: str, fields) -> list[np.ndarray]:
    arrays = lensjax.load_data(
        "folder", "train", str(tmp_path / "sets"), folder, with_planes=True, **fields
    )
    images, _, variance, mask = arrays
    assert variance is not None
    assert mask is not None
    order = np.argsort(images[:, 0, 0, 0])
    return [images[order], variance[order], mask[order]]


def export(tmp_path, fields, file_format: str, **settings):
    config = default_config()
    config.data.update(name="deeplense/folder", folder=str(tmp_path / "files"), **fields)
    config.data.directory = str(tmp_path / "sets")
    config.export.update(format=file_format, folder=str(tmp_path / file_format), **settings)
    config.model.num_classes = 0
    export_mode(from_config_dict(config), tmp_path)
    return tmp_path / file_format / "train"


def test_fits_comes_back_through_the_reader(tmp_path, data):
    folder = export(tmp_path, data, "fits")
    again = planes_of(tmp_path, str(folder), data | {"planes": data["planes"][1:] and BANDS})
    # The train split of the export is divided once more; all of its images are in the first set.
    before = planes_of(tmp_path, str(tmp_path / "files"), data)
    rows = [int(np.argmin(np.abs(before[0][:, 0, 0, 0] - x[0, 0, 0]))) for x in again[0]]
    for first, second in zip(before, again, strict=True):
        np.testing.assert_array_equal(first[rows], second)


def test_each_band_has_its_zero_point(tmp_path, data):
    path = min(export(tmp_path, data, "fits").rglob("*.fits"))
    with fits.open(path) as hdus:
        if len(data["planes"]) == 1:
            assert hdus[0].header["MAGZERO"] == pytest.approx(24.6)
            assert [hdu.name for hdu in hdus[1:]] == ["VARIANCE", "MASK"]
        else:
            assert [hdus[name].header["MAGZERO"] for name in BANDS] == pytest.approx([24.6, 29.9])
            assert "MAGZERO" not in hdus["VIS_VARIANCE"].header


def test_hdf5_and_npy_hold_the_three_planes(tmp_path, data):
    images, variance, mask = planes_of(tmp_path, str(tmp_path / "files"), data)
    with h5py.File(export(tmp_path, data, "hdf5").with_suffix(".h5")) as file:
        order = np.argsort(file["images"][:, 0, 0, 0])
        np.testing.assert_array_equal(file["images"][:][order], images)
        np.testing.assert_array_equal(file["variance"][:][order], variance)
        np.testing.assert_array_equal(file["mask"][:][order], mask)
    folder = export(tmp_path, data, "npy")
    for name, expected in (("_variance", variance), ("_mask", mask)):
        paths = sorted(folder.glob(f"*{name}.npy"))
        found = np.stack([np.load(path) for path in paths]).reshape(expected.shape)
        np.testing.assert_array_equal(np.sort(found, axis=None), np.sort(expected, axis=None))
    assert len(list(folder.glob("*.npy"))) == 3 * len(images)
