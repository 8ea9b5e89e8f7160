"""What `--mode=build_data` says and draws."""

import math

import numpy as np
import pytest
from folder_support import counts, object_array, pixels, prepare, write, write_classes, write_flat
from PIL import Image

from lensjax.cli import build_data_mode
from lensjax.data.dataset import DatasetInfo
from lensjax.errors import DataError, FileError
from lensjax.run.figures import contact_sheet


def lines_of(prepared) -> list[str]:
    text, _ = build_data_mode.show(prepared)
    return [" ".join(line.split()) for line in text.splitlines()]


def test_every_fact_is_counted(tmp_path):
    root = tmp_path / "root"
    zeros = pixels(50)
    zeros[:6] = 0.0
    holes = pixels(51)
    holes[0, :3] = np.nan
    write_classes(root / "train", ("vort", "no"), 8)
    write_classes(root / "test", ("vort", "no"), 2, seed=20)
    write(root / "train" / "no" / "zeros.npy", zeros)
    write(root / "train" / "vort" / "mass.npy", object_array(holes, 1e-23))
    write(root / "train" / "vort" / "copy.npy", pixels(1))
    write(root / "test" / "no" / "leak.npy", pixels(1))
    (root / "test" / "no" / "bad.npy").write_text("text")
    (root / "notes.txt").write_text("beside the splits")
    (root / "test" / "no" / "notes.txt").write_text("more")
    prepared = prepare(root, tmp_path / "sets", nan_policy="mask", on_bad_file="skip")
    lines = lines_of(prepared)
    assert lines[0] == f"deeplense/folder, fingerprint {prepared.fingerprint}"
    assert lines[1] == "train 17 images: axion 8, no_sub 9"
    assert lines[2] == "test 5 images: axion 2, no_sub 3"
    assert lines[3] == "12x12 pixels, 1 channel"
    info = prepared.info()
    assert lines[4] == (f"values 0 to {info.maximum:.6g} in the training images, flux unit unknown")
    assert lines.pop(5) == "objects: train 17, test 5; all images of an object are in one split"
    all_pixels = 22 * 144
    assert lines[5] == (
        f"{100 * 72 / all_pixels:.2f} % of the pixels are exactly 0, "
        f"{100 * 3 / all_pixels:.2f} % were not finite"
    )
    assert lines[6] == "0 images are copies of others; 0 across the splits, 0 across classes"
    assert lines[7] == "25 image files; 3 files or images left out"
    assert lines[8] == "parameters: log10_axion_mass"
    assert lines[9] == "not read: 2 .txt"
    assert len(lines) == 13
    assert sum("an image of the test split" in line for line in lines[10:]) == 2
    assert sum("bad.npy: is text" in line for line in lines[10:]) == 1


@pytest.mark.parametrize("policy", ["mask", "fill"])
def test_pixels_that_were_not_finite_are_counted_whatever_became_of_them(tmp_path, policy):
    image = pixels(9)
    image[3] = np.inf
    write_flat(tmp_path / "root", 3)
    write(tmp_path / "root" / "x.npy", image)
    lines = lines_of(prepare(tmp_path / "root", tmp_path / "sets", nan_policy=policy))
    assert "0.00 % of the pixels are exactly 0, 2.08 % were not finite" in lines


def test_copies_are_counted_and_none_is_across_the_splits(tmp_path):
    write_classes(tmp_path / "root", ("a", "b"), 20)
    for index in range(10):
        write(tmp_path / "root" / "a" / f"copy_{index}.npy", pixels(index))
    for index in range(3):
        write(tmp_path / "root" / "b" / f"copy_{index}.npy", pixels(index))
    lines = lines_of(prepare(tmp_path / "root", tmp_path / "sets", test_share=0.5))
    assert "13 images are copies of others; 0 across the splits, 3 across classes" in lines


def test_an_unlabelled_set_of_integers(tmp_path):
    for index in range(12):
        write(tmp_path / "root" / f"{index}.npy", counts(index, (12, 14, 3)))
    lines = lines_of(prepare(tmp_path / "root", tmp_path / "sets"))
    assert [line for line in lines if "unlabelled" in line] == lines[1:3]
    assert sum(int(line.split()[1]) for line in lines[1:3]) == 12
    assert lines[3] == "12x14 pixels, 3 channels"
    assert any(line.startswith("the images are integers: log_prob adds") for line in lines)


def test_the_first_files_left_out_are_named_and_the_others_counted(tmp_path):
    write_flat(tmp_path / "root", 3)
    for index in range(30):
        (tmp_path / "root" / f"bad_{index:02d}.npy").write_text("text")
    lines = lines_of(prepare(tmp_path / "root", tmp_path / "sets", on_bad_file="skip"))
    assert "33 image files; 30 files or images left out" in lines
    assert sum("/bad_" in line for line in lines) == 10
    assert lines[-1] == "and 20 more"


def test_what_is_known_of_the_telescope_is_said():
    info = DatasetInfo(
        name="deeplense/x",
        fingerprint="0",
        class_names=("a", "b"),
        parameter_names=(),
        split_sizes={"train": 2000, "test": 10},
        image_shape=(64, 64, 1),
        flux_unit="nJy",
        minimum=-0.5,
        maximum=3.25,
        pixel_scale_arcsec=0.2,
        psf_fwhm_arcsec=0.7,
        zero_point_mag=31.4,
    )
    text = build_data_mode.describe(info, None)  # as for a simulated set
    assert "64x64 pixels, 1 channel, pixel 0.2 arcsec, PSF 0.7 arcsec, zero point 31.4" in text
    assert "train     2,000 images: a 1,000, b 1,000" in text
    assert "values -0.5 to 3.25 in the training images, flux unit nJy" in text
    assert "copies" not in text


# The contact sheet -----------------------------------------------------------------------------


def brightness(picture: np.ndarray) -> np.ndarray:
    return picture.astype(float).sum(axis=2)


@pytest.mark.parametrize("num_classes", [0, 1, 3, 70])
def test_the_sheet_is_beside_the_set(tmp_path, num_classes):
    if num_classes:
        write_classes(tmp_path / "root", tuple(f"class {i}" for i in range(num_classes)), 2)
    else:
        write_flat(tmp_path / "root", 4)
    prepared = prepare(tmp_path / "root", tmp_path / "sets", folders="classes")
    _, path = build_data_mode.show(prepared)
    assert path == prepared.folder / "contact_sheet.png"
    picture = np.asarray(Image.open(path))
    rows = min(max(num_classes, 1), 20)  # a picture of 70 rows would be none to look at
    assert picture.shape[0] == pytest.approx(100 * (1.02 * rows + 0.1), abs=1)
    assert prepared.read("train").images.shape[0] > 0  # the set is as readable as before


def test_each_image_of_the_sheet_has_its_own_brightness():
    images = np.stack([pixels(i, (20, 20, 1)) * 10.0 ** (4 * i) for i in range(3)])
    picture = brightness(contact_sheet([images.astype(np.float32)], ("x",)))
    thirds = np.array_split(picture[:, 120:], 3, axis=1)
    spread = [third.std() for third in thirds]
    assert max(spread) < 1.2 * min(spread)


def test_the_sheet_shows_what_was_not_measured_in_green():
    image = pixels(0, (10, 10, 1)).astype(np.float32)
    image[:5] = np.nan
    picture = contact_sheet([image[None]], ("x",))
    green = (picture == [0, 128, 0]).all(axis=2)
    whole = np.zeros_like(green)
    whole[:, 120:] = True
    assert green[whole].mean() == pytest.approx(0.5, abs=0.1)
    assert green[len(green) // 2 + 8 :].mean() > 5 * green[: len(green) // 2 - 8].mean()


@pytest.mark.parametrize("value", [np.nan, 0.0, 7.0, -1e30, 1e-30])
def test_the_sheet_takes_channels_without_anything_to_see(value):
    image = np.full((1, 10, 10, 2), value, np.float32)
    image[..., 1] = 1.0
    assert contact_sheet([image], ("x",)).dtype == np.uint8


@pytest.mark.parametrize("name", ["$x$", r"$\foo$", "a$b_{", "x" * 300, "%s", "\\"])
def test_the_sheet_takes_any_name(tmp_path, name):
    images = pixels(0, (2, 10, 10, 1))
    assert contact_sheet([images, images], (name, "other")).std() > 0
    if len(name) < 200:
        write_classes(tmp_path / "root", (name, "other"), 2)
        text, _ = build_data_mode.show(prepare(tmp_path / "root", tmp_path / "sets"))
        assert name in text


def test_a_sheet_that_cannot_be_written_is_an_error_of_one_line(tmp_path, monkeypatch):
    prepared = prepare(write_flat(tmp_path / "root"), tmp_path / "sets")

    def full(path, picture):
        raise FileError(f"{path} cannot be written: No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(build_data_mode, "save_png", full)
        with pytest.raises(DataError, match=r"contact_sheet\.png cannot be written: No space"):
            build_data_mode.show(prepared)
    _, path = build_data_mode.show(prepared)
    monkeypatch.setattr(build_data_mode, "save_png", full)
    assert build_data_mode.show(prepared)[1] == path  # the one of before


def test_the_sheet_reads_little_at_once(tmp_path, monkeypatch):
    from lensjax.data.records import RecordSplit

    write(tmp_path / "root" / "stack.npy", pixels(0, (60, 256, 256)).astype(np.float32))
    prepared = prepare(tmp_path / "root", tmp_path / "sets")
    sizes = []
    read = RecordSplit.examples

    def examples(self, indices):
        sizes.append(len(indices) * math.prod(self.info.image_shape) * 4)
        return read(self, indices)

    monkeypatch.setattr(RecordSplit, "examples", examples)
    monkeypatch.setattr("lensjax.data.dataset._SEARCH_BYTES", 2**20)
    build_data_mode.show(prepared)
    assert sizes == [2**20] * 3  # ten images


@pytest.mark.parametrize(
    ("share", "said"), [(0.0, "0.00 %"), (1.6e-5, "0.002 %"), (5e-5, "0.01 %"), (0.5, "50.00 %")]
)
def test_a_small_share_is_not_nothing(share, said):
    assert build_data_mode._per_cent(share) == said
