"""What is remembered of an image: what its file says, whole numbers, pixels not measured."""

import pathlib

import numpy as np
import pytest
from folder_support import SIDE, counts, pixels, prepare, scan, write, write_classes, write_flat

from lensjax.data.folder.image import digest_of
from lensjax.errors import DataError


def fits(path: pathlib.Path, image: np.ndarray, extension: bool = False, **header: object) -> None:
    from astropy.io import fits as astropy_fits

    path.parent.mkdir(parents=True, exist_ok=True)
    keywords = astropy_fits.Header(header)
    hdus = [astropy_fits.PrimaryHDU(header=keywords), astropy_fits.ImageHDU(image)]
    one = astropy_fits.PrimaryHDU(image, keywords)
    astropy_fits.HDUList(hdus if extension else [one]).writeto(path)


@pytest.mark.parametrize("extension", [False, True])
def test_fits_keeps_what_its_header_says(tmp_path, extension):
    for index in range(3):
        said = {"BUNIT": "nJy", "MAGZERO": 31.4, "EXPTIME": 100.0 + index, "PIXSCALE": 0.2}
        fits(tmp_path / f"{index}.fits", pixels(index), extension, **said)
    found = scan(tmp_path)
    assert found.flux_unit == "nJy"
    assert found.zero_point_mag == 31.4
    assert found.pixel_scale_arcsec == 0.2
    assert found.psf_fwhm_arcsec is None
    assert found.parameter_names == ("exposure_time_s", "zero_point_mag")


@pytest.mark.parametrize("other", ["BUNIT", "MAGZERO", "PIXSCALE", "PSFFWHM", "EXPTIME"])
def test_what_a_header_says_is_part_of_the_identity(tmp_path, other):
    common = {"BUNIT": "nJy", "MAGZERO": 31.4, "PIXSCALE": 0.2, "EXPTIME": 100.0, "PSFFWHM": 0.5}
    changed = common | {other: "Jy" if other == "BUNIT" else 7.5}
    for name, header in (("a", common), ("b", changed), ("c", common)):
        for index in range(3):
            fits(tmp_path / name / f"{index}.fits", pixels(index), **header)
    first, second, third = (scan(tmp_path / name).fingerprint for name in "abc")
    assert first == third != second


def test_facts_that_differ_between_images_are_unknown_for_the_set(tmp_path):
    for index in range(3):
        fits(tmp_path / f"{index}.fits", pixels(index), PIXSCALE=0.2 + 0.01 * index, MAGZERO=30.0)
    found = scan(tmp_path)
    assert found.pixel_scale_arcsec is None
    assert found.zero_point_mag == 30.0


def test_images_in_different_units_are_refused_by_name(tmp_path):
    for index, unit in enumerate(("nJy", "nJy", "adu")):
        fits(tmp_path / f"{index}.fits", pixels(index), BUNIT=unit)
    with pytest.raises(DataError, match=r"units: .*0\.fits has nJy; .*2\.fits has adu"):
        scan(tmp_path)


def test_files_that_are_left_out_have_no_say(tmp_path):
    """Their units, parameters and number types do not count."""
    for index in range(4):
        fits(tmp_path / f"{index}.fits", pixels(index), BUNIT="nJy", PIXSCALE=0.2)
    good = scan(tmp_path)
    for index in range(4, 7):
        image = counts(index, (SIDE, SIDE + 1))
        fits(tmp_path / f"{index}.fits", image, BUNIT="adu", EXPTIME=3.0, PIXSCALE=0.3)
    found = scan(tmp_path, on_bad_file="skip")
    assert len(found.bad) == 3
    fields = ("flux_unit", "parameter_names", "pixel_scale_arcsec", "integer", "fingerprint")
    assert [getattr(found, name) for name in fields] == [getattr(good, name) for name in fields]
    assert not found.integer


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (counts(0), True),
        (counts(0).astype("f8"), True),
        (-counts(0).astype("i2"), True),
        (counts(0) + 0.5, False),
        (counts(0) * 1e9 + 2.0**25, False),  # float32 has no digits behind the point there
    ],
)
def test_integer_means_whole_numbers(tmp_path, values, expected):
    write(tmp_path / "a.npy", values)
    write(tmp_path / "b.npy", values + 1)
    assert scan(tmp_path).integer == expected


# Pixels that are not finite --------------------------------------------------------------------


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("policy", ["mask", "fill"])
def test_policies_for_pixels_that_are_not_finite(tmp_path, policy, value):
    write_flat(tmp_path / "root", 4)
    image = pixels(7)
    image[2, 3] = value
    write(tmp_path / "root" / "bad.npy", image)
    rest = np.delete(image.reshape(-1), 2 * SIDE + 3)
    image[2, 3] = np.nan if policy == "mask" else np.median(rest.astype("f4"))
    expected = digest_of(image.astype("f4")[..., None])
    (found,) = (one for one in scan(tmp_path / "root", nan_policy=policy).images if one.not_finite)
    assert found.digest == expected
    assert found.not_finite == 1
    assert (found.minimum, found.maximum) == (rest.min(), rest.max())
    split = [
        prepare(tmp_path / "root", tmp_path / "sets", nan_policy=policy).read(name)
        for name in ("train", "test")
    ]
    stored_images = np.concatenate([one.images for one in split])
    assert np.isnan(stored_images).sum() == (policy == "mask")
    assert split[0].info.masked == (policy == "mask")
    assert np.isfinite([split[0].info.minimum, split[0].info.maximum]).all()


def test_a_policy_without_a_use_changes_nothing(tmp_path):
    write_classes(tmp_path)
    assert len({scan(tmp_path, nan_policy=name).fingerprint for name in ("refuse", "mask")}) == 1
    assert not prepare(tmp_path, tmp_path.with_suffix(".sets"), nan_policy="mask").info().masked
