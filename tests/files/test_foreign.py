"""Images that a user names: which files are read, in which order, under which names."""

import numpy as np
import pytest

from lensjax.errors import DataError
from lensjax.files.foreign import read_foreign
from lensjax.files.planes import PlaneRules

IMAGES = np.random.default_rng(0).random((4, 9, 8)).astype(np.float32)


def read(path, **settings):
    pairs = list(read_foreign(path, "classify", **settings))
    return [name for name, _ in pairs], [image.pixels[..., 0] for _, image in pairs]


def test_files_below_a_folder_come_by_name_without_those_left_out(tmp_path):
    (tmp_path / "b").mkdir()
    np.savez(tmp_path / "b" / "deep.npz", images=IMAGES[1:3])
    np.save(tmp_path / "a.npy", IMAGES[0])
    for name in ("c.npy", ".hidden.npy", "notes.txt"):
        (tmp_path / name).write_text("no image")
    names, pixels = read(tmp_path, leave_out=[tmp_path / "c.npy"], image_shape=(9, 8, 1))
    assert names == ["a.npy", "b/deep.npz [0]", "b/deep.npz [1]"]
    np.testing.assert_array_equal(pixels, IMAGES[:3])


@pytest.mark.parametrize("num", [2, 4])
def test_a_doubtful_shape_is_asked_about_under_its_field_or_settled_by_the_expected_one(
    tmp_path, num
):
    np.save(tmp_path / "x.npy", IMAGES[:num])
    with pytest.raises(DataError, match=r"set classify\.layout=CHW .* or classify\.layout=NHW"):
        read(tmp_path / "x.npy", layout="auto")
    with pytest.raises(DataError, match=r"images or one image of \d channels$"):
        read(tmp_path / "x.npy", image_shape=(7, 7, 1))
    _, pixels = read(tmp_path / "x.npy", image_shape=(9, 8, 1))
    np.testing.assert_array_equal(pixels, IMAGES[:num])
    assert len(read(tmp_path / "x.npy", image_shape=(9, 8, num))[0]) == 1


def test_another_shape_is_left_to_the_caller(tmp_path):
    np.save(tmp_path / "x.npy", IMAGES)
    (name, image), *_ = read_foreign(
        tmp_path / "x.npy", "evaluate", image_shape=(9, 8, 3), layout="NHW"
    )
    assert (name, image.pixels.shape) == ("x.npy [0]", (9, 8, 1))


@pytest.mark.parametrize("name", ["nothing.npy", "empty"])
def test_nothing_to_read_is_said(tmp_path, name):
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"--images=.*(does not exist|holds no images); allowed"):
        read(tmp_path / name)


def test_planes_are_chosen_by_the_section_that_reads_them(tmp_path):
    fits = pytest.importorskip("astropy.io.fits")
    hdus = [fits.ImageHDU(IMAGES[n], name=name) for n, name in enumerate(("A", "B", "RMS"))]
    fits.HDUList([fits.PrimaryHDU(), *hdus]).writeto(tmp_path / "x.fits")
    with pytest.raises(DataError, match=r"set classify\.planes to those that are$"):
        read(tmp_path / "x.fits")
    _, pixels = read(tmp_path / "x.fits", rules=PlaneRules(("B",)))
    np.testing.assert_array_equal(pixels, IMAGES[1:2])
    with pytest.raises(DataError, match=r"no plane 'C' \(evaluate\.planes\)"):
        list(read_foreign(tmp_path / "x.fits", "evaluate", rules=PlaneRules(("C",))))
