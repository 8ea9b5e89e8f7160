"""Objects, the unit of the split: named by folders, patterns or a table, with bands as files."""

import itertools
import pathlib
import re

import numpy as np
import pytest
from folder_support import SIDE, pixels, prepare, scan, write

from lensjax.data.folder.objects import are_objects
from lensjax.errors import BadFileError, ConfigError, DataError
from lensjax.files.planes import PlaneRules

fits = pytest.importorskip("astropy.io.fits")


def sides(found) -> dict[str, set[str]]:
    """The splits in which the images of each object lie."""
    by_object: dict[str, set[str]] = {}
    for image in found.images:
        by_object.setdefault(str(image.object_name), set()).add(image.split)
    return by_object


def write_bands(root: pathlib.Path, num: int = 12, bands: str = "gri") -> None:
    for index, band in itertools.product(range(num), range(len(bands))):
        write(root / f"lens{index:03d}_{bands[band]}.npy", (band + 1) * pixels(100 * band + index))


def write_objects(root: pathlib.Path, names: tuple[str, ...], num: int = 12) -> None:
    for index, (place, name) in itertools.product(range(num), enumerate(names)):
        write(root / f"slacs_{index:02d}" / name, pixels(100 * place + index) + 0.5)


# Questions ------------------------------------------------------------------------------------


def test_files_of_bands_are_asked_about_and_the_answers_work(tmp_path):
    write_bands(tmp_path)
    with pytest.raises(DataError, match=r"12 objects differ only in .* \(g, r, i\)") as caught:
        scan(tmp_path)
    (pattern,) = re.findall(r"data\.group='([^']*)'", str(caught.value))
    found = scan(tmp_path, group=pattern)
    assert len(found.images) == 36
    assert len(sides(found)) == 12
    assert all(len(splits) == 1 for splits in sides(found).values())
    assert len({image.object_name for image in scan(tmp_path, files="*").images}) == 1  # no names


@pytest.mark.parametrize(
    ("names", "asked"),
    [
        (("a_exp1.npy", "a_exp2.npy", "b_exp1.npy", "b_exp2.npy"), True),
        (("a_F160W.npy", "a_F814W.npy", "b_F160W.npy", "b_F814W.npy"), True),
        (("a-VIS.npy", "a-NIR_Y.npy", "b-VIS.npy", "b-NIR_Y.npy"), True),
        (("a.visit_1.npy", "a.visit_2.npy", "b.visit_1.npy", "b.visit_2.npy"), True),
        (("lens_visit0.npy", "lens_visit1.npy", "lens_visit2.npy"), False),
        (("c_HSC_g_v1.npy", "c_HSC_r_v1.npy", "d_HSC_g_v1.npy", "d_HSC_r_v1.npy"), True),
        (("g_lens1.npy", "r_lens1.npy", "g_lens2.npy", "r_lens2.npy"), True),
        (("h_f555w_j9_drz.npy", "h_f814w_j9_drz.npy", "k_f555w_j8_drz.npy"), True),
        (("A_F814W_exp1.npy", "A_F555W_exp1.npy", "B_F814W_exp2.npy", "B_F814W_exp1.npy"), True),
        (("group_g.npy", "group_h.npy", "group_i.npy", "group_j.npy"), False),
        (("field_f0.npy", "field_f1.npy", "field_f2.npy"), False),
        (("lens_1.npy", "lens_2.npy", "lens_3.npy"), False),
        (("lens_a.npy", "lens_b.npy", "lens_g.npy", "lens_i.npy"), False),
        (("a_g.npy", "b_r.npy", "c_i.npy"), False),
        (("model_i_axion_1.npy", "model_ii_axion_1.npy"), False),
    ],
)
def test_names_that_differ_by_a_band_or_exposure(tmp_path, names, asked):
    for index, name in enumerate(names):
        write(tmp_path / name, pixels(index))
    if asked:
        with pytest.raises(DataError, match="data\\.group") as caught:
            scan(tmp_path)
        (pattern,) = re.findall(r"data\.group='([^']*)'", str(caught.value))
        found = {image.object_name for image in scan(tmp_path, group=pattern).images}
        assert 1 < len(found) < len(names)
    else:
        assert len(scan(tmp_path).images) == len(names)


@pytest.mark.parametrize(
    ("other", "kind"),
    [
        ("noise_map.npy", "standard deviation"),
        ("psf.npy", "point-spread function"),
        ("mask.npy", "mask"),
        ("lens_wht.npy", "weight"),
        ("seg.npy", "segmentation"),
    ],
)
def test_files_named_like_no_image_are_asked_about(tmp_path, other, kind):
    for index in range(5):
        write(tmp_path / f"lens{index}.npy", pixels(index))
    write(tmp_path / other, pixels(99))
    with pytest.raises(DataError, match=rf"1 of 6 image files .*{re.escape(other)} \({kind}\)"):
        scan(tmp_path)
    assert len(scan(tmp_path, files="lens?.npy").images) == 5
    assert len(scan(tmp_path, files="*").images) == 6


def test_a_folder_of_nothing_but_such_names_is_not_asked_about(tmp_path):
    for index in range(5):
        write(tmp_path / f"noise_{index}.npy", pixels(index))
    assert len(scan(tmp_path).images) == 5


# Folders of objects -----------------------------------------------------------------------------


def test_folders_with_the_same_few_names_are_objects(tmp_path):
    write_objects(tmp_path, ("data.npy", "noise_map.npy", "psf.npy"))
    with pytest.raises(DataError, match="24 of 36 image files"):
        scan(tmp_path)
    found = scan(tmp_path, files="*/data.npy")
    assert (found.class_names, len(found.images)) == ((), 12)
    assert found.listing.objects
    rules = PlaneRules(("data",), ("noise_map",))
    found = scan(tmp_path, rules=rules)
    assert (found.class_names, len(found.images), found.has_variance) == ((), 12, True)


def test_objects_may_lie_in_folders_of_classes_and_splits(tmp_path):
    for seed, place in enumerate(("train/a", "train/b", "test/a", "test/b")):
        for index in range(4):
            write(tmp_path / place / f"object{seed}{index}" / "data.npy", pixels(10 * seed + index))
    found = scan(tmp_path)
    assert found.class_names == ("a", "b")
    assert len(found.of_split("train")) == len(found.of_split("test")) == 8


def test_several_images_in_folders_of_objects_are_asked_about(tmp_path):
    write_objects(tmp_path, ("g.npy", "r.npy"))
    with pytest.raises(DataError, match=r"12 folders have the same file names \(g\.npy, r\.npy\)"):
        scan(tmp_path)
    assert len(scan(tmp_path, folders="objects").images) == 24
    assert all(len(splits) == 1 for splits in sides(scan(tmp_path, folders="objects")).values())
    assert len(scan(tmp_path, folders="classes").class_names) == 12
    channels = PlaneRules(("r", "g"), bands="channels")
    found = scan(tmp_path, rules=channels)
    assert (found.image_shape, found.band_names) == ((SIDE, SIDE, 2), ("r", "g"))


@pytest.mark.parametrize(
    ("folders", "names", "objects"),
    [
        (100, ("data.fits",), True),
        (4, ("data.fits",), True),
        (3, ("data.fits",), False),
        (12, ("data.fits", "psf.fits"), True),
        (12, ("1.npy", "2.npy", "3.npy"), False),
        (100, ("1.npy", "2.npy", "3.npy"), False),
        (10, tuple(f"{n:03d}.npy" for n in range(1000)), False),
        (4, ("a.npy", "b.npy", "c.npy", "d.npy"), False),
    ],
)
def test_folders_of_objects_and_of_classes(folders, names, objects):
    assert are_objects({str(number): names for number in range(folders)}) == objects


def test_many_folders_with_the_same_few_numbers_are_asked_about(tmp_path):
    for index in range(20):
        for number in range(2):
            write(tmp_path / f"f{index}" / f"{number}.npy", pixels(2 * index + number))
    with pytest.raises(DataError, match=r"20 folders have the same file names \(0\.npy, 1\.npy\)"):
        scan(tmp_path)
    assert len(scan(tmp_path, folders="classes").class_names) == 20
    assert scan(tmp_path, folders="objects").class_names == ()


def test_a_few_folders_of_bands_are_asked_about(tmp_path):
    write_objects(tmp_path, ("g.npy", "r.npy"), num=3)
    with pytest.raises(DataError, match=r"3 folders have the same file names \(g\.npy, r\.npy\)"):
        scan(tmp_path)
    assert len(scan(tmp_path, folders="classes").class_names) == 3


def test_classes_that_share_no_names_are_no_objects():
    assert not are_objects({str(number): (f"{number}x.npy",) for number in range(10)})


# Groups and bands ------------------------------------------------------------------------------


def test_bands_of_a_group_become_channels_with_their_variances(tmp_path):
    for index, (band, factor) in itertools.product(range(8), (("g", 1), ("r", 3))):
        image = (factor * pixels(index)).astype("f4")
        sigma = (0.1 + factor * pixels(50 + index)).astype("f4")
        fits.writeto(tmp_path / f"s{index}_{band}.fits", image)
        fits.writeto(tmp_path / f"s{index}_{band}_rms.fits", sigma)
    rules = PlaneRules(("r", "g"), ("r_rms", "g_rms"), bands="channels")
    prepared = prepare(tmp_path, tmp_path.parent / "sets", group="(s[0-9]+)_", rules=rules)
    info = prepared.info()
    assert (info.image_shape, info.band_names, info.has_variance) == (
        (SIDE, SIDE, 2),
        ("r", "g"),
        True,
    )
    split = prepared.read("train")
    images = {pixels(index).astype("f4").tobytes(): index for index in range(8)}
    for image, variance in zip(split.images, split.variance, strict=True):
        index = images[np.ascontiguousarray(image[..., 1]).tobytes()]
        np.testing.assert_array_equal(image[..., 0], (3 * pixels(index)).astype("f4"))
        expected = (0.1 + 3 * pixels(50 + index)) ** 2
        np.testing.assert_allclose(variance[..., 0], expected, 1e-5)


def test_an_object_without_a_band_is_named(tmp_path):
    write_bands(tmp_path)
    (tmp_path / "lens003_r.npy").unlink()
    options = {"group": "(.*)_[gri]", "rules": PlaneRules(("g", "r"), bands="channels")}
    with pytest.raises(BadFileError, match=r"object lens003\) has no plane 'r'"):
        scan(tmp_path, **options)
    found = scan(tmp_path, on_bad_file="skip", **options)
    assert (len(found.images), len(found.bad)) == (11, 1)


def test_stacks_of_bands_are_joined_row_by_row(tmp_path):
    for band, letter in enumerate("gr"):
        write(tmp_path / f"set_{letter}.npy", pixels(band, (20, SIDE, SIDE)))
    rules = PlaneRules(("g", "r"), bands="channels")
    found = scan(tmp_path, group="(set)_", rules=rules, layout="NHW")
    assert (len(found.images), found.image_shape) == (20, (SIDE, SIDE, 2))
    assert {image.split for image in found.images} == {"train", "test"}


def test_a_pattern_that_fits_no_file_or_not_all(tmp_path):
    write_bands(tmp_path, num=3)
    with pytest.raises(ConfigError, match=r"data\.group: got '\(x\+\)_'; no file of"):
        scan(tmp_path, group="(x+)_")
    with pytest.raises(BadFileError, match=r"lens000_i\.npy: does not match data\.group"):
        scan(tmp_path, group="(.*)_[gr]")


def test_planes_of_a_file_are_one_object(tmp_path):
    for index in range(10):
        hdus = [fits.ImageHDU(pixels(10 * index + n).astype("f4"), name=f"B{n}X") for n in range(3)]
        fits.HDUList([fits.PrimaryHDU(), *hdus]).writeto(tmp_path / f"{index}.fits")
    with pytest.raises(DataError, match="10 files have several planes") as caught:
        scan(tmp_path, on_bad_file="skip")  # a question is no bad file
    assert "HDU 2 B1X (12x12) in 10 files" in str(caught.value)
    found = scan(tmp_path, rules=PlaneRules(("B*",)))
    assert len(found.images) == 30
    for file in range(10):
        assert len({image.split for image in found.images if image.file == file}) == 1


def test_equal_contents_join_their_objects(tmp_path):
    for index in range(40):
        write(tmp_path / f"lens{index:02d}_exp1.npy", pixels(index))
        write(tmp_path / f"lens{index:02d}_exp2.npy", pixels(100 + index))
    write(tmp_path / "again_exp1.npy", pixels(3))  # lens03 and lens17 are one object now
    write(tmp_path / "again_exp2.npy", pixels(17))
    found = scan(tmp_path, group="(.*)_exp", test_share=0.5)
    joined = {
        image.split for image in found.images if image.object_name in ("lens03", "lens17", "again")
    }
    assert len(joined) == 1
    assert {image.split for image in found.images} == {"train", "test"}


def test_objects_in_both_of_the_users_splits_are_left_out_of_training(tmp_path):
    for split, seeds in (("train", range(6)), ("test", range(4, 10))):
        for seed in seeds:
            write(tmp_path / split / f"lens{seed}_exp{split[1]}.npy", pixels(seed + ord(split[1])))
    found = scan(tmp_path, group="(lens[0-9])")
    assert sorted(image.object_name for image in found.of_split("train")) == [
        f"lens{seed}" for seed in range(4)
    ]
    assert all("an image of an object of the test split" in str(error) for error in found.bad)


def test_objects_of_the_same_name_in_both_splits_are_left_out_of_training(tmp_path):
    for split, numbers in (("train", range(6)), ("test", range(4, 10))):
        for number in numbers:
            seed = number + 50 * (split == "test")
            write(tmp_path / split / f"lens{number}" / "data.npy", pixels(seed))
    found = scan(tmp_path, folders="objects")
    assert len(found.of_split("train")) == 4
    assert [pathlib.Path(error.path).parent.name for error in found.bad] == ["lens4", "lens5"]


def test_folders_of_bands_in_folders_of_objects(tmp_path):
    for index, band in itertools.product(range(6), "gri"):
        folder = tmp_path / f"lens{index}" / band
        write(folder / "data.npy", pixels(10 * index + ord(band)))
        write(folder / "noise_map.npy", 0.1 + pixels(500 + 10 * index + ord(band)))
    names = tuple(f"{band}_data" for band in "gri")
    sigmas = tuple(f"{band}_noise_map" for band in "gri")
    found = scan(tmp_path, rules=PlaneRules(names, sigmas, bands="channels"))
    assert (len(found.images), found.image_shape) == (6, (SIDE, SIDE, 3))
    assert found.has_variance
    found = scan(tmp_path, files="*/data.npy", folders="objects")
    assert len(found.images) == 18
    assert all(len(splits) == 1 for splits in sides(found).values())
    assert len(sides(found)) == 6


def test_files_of_bands_with_errors_and_flags_of_their_own(tmp_path):
    for index, band in itertools.product(range(6), "gr"):
        image = pixels(10 * index + ord(band)).astype("f4")
        flags = np.zeros((SIDE, SIDE), np.uint8)
        flags[index, 2] = 1
        hdus = [fits.ImageHDU(image, name="IMAGE"), fits.ImageHDU(1 + image, name="VARIANCE")]
        hdus.append(fits.ImageHDU(flags, name="MASK"))
        fits.HDUList([fits.PrimaryHDU(), *hdus]).writeto(tmp_path / f"x{index}_{band}.fits")
    rules = PlaneRules(("g", "r"), ("VARIANCE",), ("auto",), bands="channels")
    found = scan(tmp_path, group="(x[0-9])_", rules=rules)
    assert (found.image_shape, found.has_variance) == ((SIDE, SIDE, 2), True)
    assert {image.masked for image in found.images} == {2}


def test_stacks_in_folders_with_the_same_names_are_asked_about(tmp_path):
    for index in range(4):
        write(tmp_path / f"class{index}" / "images.npy", pixels(index, (10, SIDE, SIDE)))
    with pytest.raises(DataError, match=r"holds several images; set data\.folders=classes"):
        scan(tmp_path)
    assert len(scan(tmp_path, folders="classes").class_names) == 4


def test_files_called_like_splits_are_asked_about(tmp_path):
    for name in ("train", "test"):
        write(tmp_path / f"{name}.npy", pixels(len(name), (10, SIDE, SIDE)))
    with pytest.raises(DataError, match=r"called like splits \(train\.npy, test\.npy\)"):
        scan(tmp_path)


def test_other_planes_in_other_files_are_asked_about(tmp_path):
    for index in range(6):
        planes = {"G": pixels(index), "R": pixels(50 + index)}
        planes["G" if index % 2 else "R"][:] = 0
        np.savez(tmp_path / f"{index}.npz", **planes)
    with pytest.raises(DataError, match="different planes look like images in different files"):
        scan(tmp_path)


@pytest.mark.parametrize("planes", [("g", "z"), ("g", "r", "x")])
def test_planes_of_which_only_some_are_files_are_refused(tmp_path, planes):
    write_bands(tmp_path)
    with pytest.raises(ConfigError, match="the files of an object are called g, i, r"):
        scan(tmp_path, group="(.*)_[gri]", rules=PlaneRules(planes, bands="channels"))


# The table --------------------------------------------------------------------------------------


def write_table(root: pathlib.Path, *lines: str) -> None:
    (root / "parameters.csv").write_text("\n".join(lines) + "\n")


def test_a_column_of_the_table_names_the_objects(tmp_path):
    lines = ["file,lens,z"]
    for index in range(12):
        write(tmp_path / f"{index:02d}.npy", pixels(index))
        lines.append(f"{index:02d}.npy,J{index // 3},0.5")
    write(tmp_path / "stack.npy", pixels(50, (8, SIDE, SIDE)))
    lines += [f"stack.npy,K{index // 4},0.5" for index in range(8)]
    write_table(tmp_path, *lines)
    found = scan(tmp_path, group="lens")
    assert len(sides(found)) == 6
    assert all(len(splits) == 1 for splits in sides(found).values())


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        ((), "there is no"),
        (("file,z", "00.npy,1"), "has no column lens"),
        (("lens", "J1"), "has no column file"),
        (("file,lens", "00.npy,"), "line 2: file or lens is empty"),
        (("file,lens", "00.npy,J1"), r"01\.npy: has no line 01\.npy in"),
    ],
)
def test_a_table_that_does_not_fit(tmp_path, lines, words):
    for index in range(3):
        write(tmp_path / f"{index:02d}.npy", pixels(index))
    if lines:
        write_table(tmp_path, *lines)
    with pytest.raises((DataError, ConfigError), match=words) as caught:
        scan(tmp_path, group="lens")
    assert "\n" not in str(caught.value)


def test_a_stack_with_more_rows_than_the_table(tmp_path):
    write(tmp_path / "stack.npy", pixels(50, (8, SIDE, SIDE)))
    write_table(tmp_path, "file,lens", *(f"stack.npy,K{index}" for index in range(6)))
    with pytest.raises(BadFileError, match="more images than the 6 lines"):
        scan(tmp_path, group="lens")


def test_a_stack_with_fewer_rows_than_the_table(tmp_path):
    write(tmp_path / "stack.npy", pixels(50, (8, SIDE, SIDE)))
    write_table(tmp_path, "file,lens", *(f"stack.npy,K{index}" for index in range(9)))
    with pytest.raises(BadFileError, match="has 8 images, but the table has 9 lines for it"):
        scan(tmp_path, group="lens")


def test_another_table_is_another_set(tmp_path):
    root, sets = tmp_path / "root", tmp_path / "sets"
    for index in range(12):
        write(root / f"{index:02d}.npy", pixels(index))
    for groups in (3, 4):
        write_table(root, "file,lens", *(f"{n:02d}.npy,J{n % groups}" for n in range(12)))
        report = prepare(root, sets, group="lens").report
        assert sum(report["objects"].values()) == groups
