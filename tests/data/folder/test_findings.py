"""What a user should look at: extreme pixels, unusual fluxes, copies, facts that differ, blanks."""

import numpy as np
import pytest
from folder_support import SIDE, pixels, prepare, scan, write, write_flat

from lensjax.errors import BadFileError

fits = pytest.importorskip("astropy.io.fits")


def only(found, words: str) -> str:
    (line,) = [line for line in found.warnings if words in line]
    return line


def test_ordinary_images_are_not_warned_of(tmp_path):
    for index in range(60):  # fluxes that differ by a factor of ten
        write(tmp_path / f"{index}.npy", 10 ** (index / 60) * pixels(index))
    assert scan(tmp_path).warnings == ()


def test_extreme_pixels_are_named_with_place_and_value(tmp_path):
    write_flat(tmp_path, 20)
    for index, value in ((3, 1e6), (7, -4e4)):
        image = pixels(index)
        image[index, 5] = value
        write(tmp_path / f"{index:03d}.npy", image)
    line = only(scan(tmp_path), "have pixels beyond")
    assert line.startswith("2 images")
    assert line.index("003.npy has 1e+06 in row 3, column 5") < line.index(
        "007.npy has -40000 in row 7, column 5"
    )


def test_unusual_fluxes_are_named_in_a_stack_too(tmp_path):
    stack = np.stack([pixels(index) for index in range(50)])
    stack[31] *= 1000
    write(tmp_path / "stack.npy", stack)
    line = only(scan(tmp_path), "total flux more than 10 robust")
    assert line.startswith("1 images have")
    assert f"stack.npy [31] has {stack[31].sum():.4g}" in line


def test_a_faint_band_is_looked_at_by_itself(tmp_path):
    for index in range(20):
        image = np.stack([1e4 * pixels(index), pixels(100 + index)], axis=-1)
        image[..., 1] *= 1e3 if index == 4 else 1  # in all bands together that is a tenth
        write(tmp_path / f"{index}.npy", image)
    assert "4.npy" in only(scan(tmp_path), "total flux more than")


def test_copies_are_named_and_never_refused(tmp_path):
    write_flat(tmp_path, 8)
    write(tmp_path / "z.npy", pixels(5).astype(">f4"))
    found = scan(tmp_path)
    assert only(found, "copies") == "1 images are copies of others: z.npy equals 005.npy"
    assert len(found.images) == 9


def test_facts_that_differ_are_told(tmp_path):
    for index in range(6):
        header = fits.Header({"MAGZERO": 25.0 + 0.1 * (index == 2), "PIXSCALE": 0.1})
        if index:
            header["PSFFWHM"] = 0.15
        fits.writeto(tmp_path / f"{index}.fits", pixels(index).astype("f4"), header)
    found = scan(tmp_path)
    assert "25 to 25.1" in only(found, "different zero points in mag")
    assert "only some images state PSF widths" in only(found, "PSF")
    assert not any("pixel scale" in line for line in found.warnings)


@pytest.mark.parametrize("value", [0.0, 7.5])
def test_blank_images_are_refused_or_left_out_one_by_one(tmp_path, value):
    stack = np.stack([pixels(index) for index in range(9)])
    stack[4] = value
    write(tmp_path / "stack.npy", stack)
    with pytest.raises(BadFileError, match=rf"is blank: every pixel is {value:g} in \[4\]"):
        scan(tmp_path)
    found = scan(tmp_path, on_bad_file="skip")
    assert sorted(image.number for image in found.images) == [0, 1, 2, 3, 5, 6, 7, 8]
    assert len(found.bad) == 1
    split = {
        part: prepare(tmp_path, tmp_path.parent / "sets", on_bad_file="skip").read(part)
        for part in ("train", "test")
    }
    assert sum(map(len, split.values())) == 8


def test_a_blank_band_is_a_blank_image(tmp_path):
    for index in range(5):
        image = np.stack([pixels(index), pixels(50 + index)], axis=-1)
        if index == 2:
            image[..., 1] = 0
        write(tmp_path / f"{index}.npy", image)
    with pytest.raises(BadFileError, match=r"2\.npy: is blank: every pixel is 0 in band 2"):
        scan(tmp_path)


def test_an_image_of_one_value_and_missing_pixels_is_blank(tmp_path):
    write_flat(tmp_path, 4)
    image = np.full((SIDE, SIDE), 3.0)
    image[0] = np.nan
    write(tmp_path / "x.npy", image)
    with pytest.raises(BadFileError, match="every pixel is 3"):
        scan(tmp_path, nan_policy="mask")
