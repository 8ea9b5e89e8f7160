"""Bands as channels: the same place on the sky, the same unit, facts of each band."""

import pathlib
from typing import Any

import numpy as np
import pytest

from lensjax.errors import BadFileError
from lensjax.files.bands import offset_pixels
from lensjax.files.file_image import FileImage
from lensjax.files.image_files import PlaneRules, read_images

fits = pytest.importorskip("astropy.io.fits")

SIDE = 16


def plane(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).gamma(2.0, 1.0, (SIDE, SIDE)).astype("f4")


def read(path: pathlib.Path, **rules) -> list[FileImage]:
    return list(read_images(path, rules=PlaneRules(**rules)))


def refusal(path: pathlib.Path, **rules) -> str:
    with pytest.raises(BadFileError) as caught:
        read(path, **rules)
    return caught.value.reason


def sky(shift: float, **more) -> Any:
    keys = {"CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN", "CRVAL1": 150.1, "CRVAL2": 2.2}
    keys |= {"CRPIX1": 8.5 + shift, "CRPIX2": 8.5, "CDELT1": -2.8e-5, "CDELT2": 2.8e-5}
    return fits.Header({**keys, **more})


@pytest.mark.parametrize(
    ("other", "words"),
    [
        (sky(0.05), ""),
        (sky(0.2), "0.2 pixels apart"),
        (sky(0.0, CDELT1=2.8e-5), "pixels apart"),
        (sky(0.0, CRVAL2=2.3), "pixels apart"),
        (fits.Header(), ""),
        (sky(0.0, BUNIT="Jy"), "flux unit Jy in band B, but none in band A"),
        (sky(0.0, CLASS="cdm"), "class name cdm in band B"),
    ],
)
def test_bands_must_show_the_same_place(tmp_path, other, words):
    first, second = (fits.ImageHDU(plane(n), header=h) for n, h in enumerate((sky(0.0), other)))
    first.name, second.name = "A", "B"
    path = tmp_path / "a.fits"
    fits.HDUList([fits.PrimaryHDU(), first, second]).writeto(path)
    rules = {"planes": ("A", "B"), "bands": "channels"}
    if words:
        assert words in refusal(path, **rules)
    else:
        (image,) = read(path, **rules)
        assert image.pixel_scale_arcsec == pytest.approx(0.1008)


def test_the_offset_is_that_of_the_whole_image():
    from astropy.wcs import WCS

    turned = sky(0.0, PC1_1=1.0, PC1_2=0.01, PC2_1=-0.01, PC2_2=1.0)
    # A hundredth of a radian moves a corner 7.5 pixels from the centre in x and y by 0.106.
    offset = offset_pixels(WCS(sky(0.0)), WCS(turned), (SIDE, SIDE))
    assert offset == pytest.approx(0.01 * 7.5 * 2**0.5, rel=0.02)


def test_facts_that_bands_do_not_share_get_their_names(tmp_path):
    headers = [sky(0.0, MAGZERO=24.6, EXPTIME=100.0), sky(0.0, MAGZERO=25.9, EXPTIME=100.0)]
    hdus = [fits.ImageHDU(plane(n), header=header) for n, header in enumerate(headers)]
    for name, hdu in zip(("VIS", "H"), hdus, strict=True):
        hdu.name = name
    fits.HDUList([fits.PrimaryHDU(), *hdus]).writeto(tmp_path / "a.fits")
    (image,) = read(tmp_path / "a.fits", planes=("VIS", "H"), bands="channels")
    assert image.parameters == {
        "exposure_time_s": 100.0,
        "zero_point_mag_VIS": 24.6,
        "zero_point_mag_H": 25.9,
    }
