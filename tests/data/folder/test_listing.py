"""What lies where in a user's folder: splits, classes, links and everything that is odd."""

import os
import pathlib

import numpy as np
import pytest
from folder_support import CLASSES, pixels, write, write_classes, write_flat

from lensjax.data.folder.entries import class_name_of, is_class_name
from lensjax.data.folder.listing import list_files
from lensjax.errors import DataError

OLD_NAMES = ("vort", "sphere", "no")
SPLITS: dict[str, tuple[str, ...]] = {
    "none": ("",),
    "train and test": ("train", "test"),
    "Train and VAL": ("Train", "VAL"),
}


@pytest.mark.parametrize("splits", SPLITS)
@pytest.mark.parametrize(
    "names",
    [CLASSES, OLD_NAMES, ("VORT", "Sphere", "No"), ("vort", "cdm", "no"), ("b", "C", "a"), ("x",)],
)
def test_every_file_gets_the_split_and_the_class_of_its_folders(tmp_path, splits, names):
    for split in SPLITS[splits]:
        write_classes(tmp_path / split, names, 2)
    listing = list_files(tmp_path)
    assert listing.bad == ()
    assert len(listing.files) == 2 * len(names) * len(SPLITS[splits])
    renamed = dict(zip(("vort", "sphere", "no"), CLASSES, strict=True))
    for file in listing.files:
        folder = file.path.parent
        assert file.class_name == renamed.get(folder.name.lower(), folder.name)
        expected = {"train": "train", "test": "test", "val": "test"}.get(folder.parent.name.lower())
        assert file.split == (expected if splits != "none" else None)
        assert file.size == file.path.stat().st_size


@pytest.mark.parametrize("splits", SPLITS)
def test_a_flat_folder_has_no_classes(tmp_path, splits):
    for split in SPLITS[splits]:
        write_flat(tmp_path / split, 3)
    listing = list_files(tmp_path)
    assert {file.class_name for file in listing.files} == {None}
    assert {file.split is None for file in listing.files} == {splits == "none"}
    assert len(listing.files) == 3 * len(SPLITS[splits])


def test_files_come_in_the_order_of_their_names_from_any_depth_of_a_class(tmp_path):
    for name in ("b/2.npy", "a/x/10.npy", "a/x/y/1.npy", "a/3.NPY", "b/1.fits.gz"):
        write(tmp_path / "class_a" / name, pixels(0))
    os.rename(tmp_path / "class_a/b/1.fits.gz.npy", tmp_path / "class_a/b/1.fits.gz")
    os.rename(tmp_path / "class_a/a/3.NPY.npy", tmp_path / "class_a/a/3.NPY")
    found = [
        file.path.relative_to(tmp_path / "class_a").as_posix()
        for file in list_files(tmp_path).files
    ]
    assert found == ["a/3.NPY", "a/x/10.npy", "a/x/y/1.npy", "b/1.fits.gz", "b/2.npy"]


def test_hidden_files_are_passed_over_and_others_are_counted(tmp_path):
    write_classes(tmp_path, num=1)
    for name in (".DS_Store", "cdm/._000.npy", ".git/x.npy", "__MACOSX/cdm/000.npy"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("?")
    for name in ("README.txt", "cdm/notes.TXT", "no_sub/Makefile", "axion/a.png"):
        (tmp_path / name).write_text("?")
    listing = list_files(tmp_path)
    assert len(listing.files) == 3
    assert listing.ignored == {".txt": 2, "no suffix": 1, ".png": 1}


def test_links_to_files_and_folders_are_followed(tmp_path):
    write_classes(tmp_path / "elsewhere", ("x",), 2)
    write_classes(tmp_path / "root", ("axion",), 1)
    (tmp_path / "root" / "cdm").symlink_to(tmp_path / "elsewhere" / "x")
    (tmp_path / "root" / "axion" / "zzz.npy").symlink_to(tmp_path / "elsewhere" / "x" / "000.npy")
    listing = list_files(tmp_path / "root")
    assert [file.class_name for file in listing.files] == ["axion", "axion", "cdm", "cdm"]
    assert listing.bad == ()


@pytest.mark.parametrize("where", ["", "cdm", "cdm/deeper", "cdm/deeper/still"])
@pytest.mark.parametrize("target", ["root", "class"])
@pytest.mark.parametrize("splits", [("",), ("train", "test")])
def test_a_link_in_a_circle_is_named_and_not_followed(tmp_path, where, target, splits):
    for split in splits:
        write_classes(tmp_path / split, num=2)
    top = tmp_path / splits[0]
    (top / where).mkdir(parents=True, exist_ok=True)
    link = top / where / "loop"
    link.symlink_to(tmp_path if target == "root" else top / where)
    listing = list_files(tmp_path)
    assert len(listing.files) == 6 * len(splits)
    (bad,) = listing.bad
    assert bad.path == link
    assert "a link to a folder that contains it" in str(bad)


def test_two_folders_that_hold_each_other_end(tmp_path):
    write_classes(tmp_path, ("axion", "cdm"), 1)
    (tmp_path / "axion" / "other").symlink_to(tmp_path / "cdm")
    (tmp_path / "cdm" / "one").symlink_to(tmp_path / "axion")
    with pytest.raises(DataError, match=r"a link to a folder|CLASS/FILE below data\.folder"):
        raise (list_files(tmp_path).bad or (DataError("nothing"),))[0]


@pytest.mark.parametrize("kind", ["circle of one", "circle of two", "nowhere"])
def test_a_file_that_is_a_link_to_nothing_is_named(tmp_path, kind):
    write_classes(tmp_path, num=2)
    link = tmp_path / "cdm" / "loop.npy"
    target = {"circle of one": link, "circle of two": tmp_path / "cdm" / "back.npy"}
    link.symlink_to(target.get(kind, tmp_path / "not there.npy"))
    if kind == "circle of two":
        (tmp_path / "cdm" / "back.npy").symlink_to(link)
    listing = list_files(tmp_path)
    assert len(listing.files) == 6
    assert link in {error.path for error in listing.bad}
    assert all("cannot be read: " in str(error) for error in listing.bad)
    assert len(listing.bad) == (2 if kind == "circle of two" else 1)


def _nothing(root: pathlib.Path) -> None:
    root.mkdir()


def _only_text(root: pathlib.Path) -> None:
    root.mkdir()
    (root / "images.txt").write_text("none")


def _all_classes_empty(root: pathlib.Path) -> None:
    for name in CLASSES:
        (root / name).mkdir(parents=True)


def _one_class_empty(root: pathlib.Path) -> None:
    write_classes(root, num=1)
    (root / "vortices").mkdir()
    (root / "vortices" / "README").write_text("to come")


def _empty_class_beside_a_broken_link(root: pathlib.Path) -> None:
    write_classes(root, num=1)
    (root / "vortices").mkdir()
    (root / "cdm" / "x.npy").symlink_to(root / "gone.npy")


def _files_beside_classes(root: pathlib.Path) -> None:
    write_classes(root, num=1)
    write(root / "stray.npy", pixels(9))


def _files_beside_splits(root: pathlib.Path) -> None:
    for split in ("train", "test"):
        write_classes(root / split, num=1)
    write(root / "stray.npy", pixels(9))


def _folder_beside_splits(root: pathlib.Path) -> None:
    for split in ("train", "test", "plots"):
        write_classes(root / split, num=1)


def _train_alone(root: pathlib.Path) -> None:
    write_classes(root / "train", num=1)


def _two_trains(root: pathlib.Path) -> None:
    for split in ("train", "test", "Training"):
        write_classes(root / split, num=1)


def _unknown_split(root: pathlib.Path) -> None:
    for split in ("trainset", "holdout"):
        write_flat(root / split, 1)


def _half_of_the_splits(root: pathlib.Path) -> None:
    for folder in ("lenses/train", "lenses/test", "others"):
        write_flat(root / folder, 1)


def _split_and_class_mixed(root: pathlib.Path) -> None:
    for folder in ("train", "test", "test_lenses"):
        write_flat(root / folder, 1)


def _empty_test(root: pathlib.Path) -> None:
    write_flat(root / "train", 1)
    (root / "test").mkdir()


def _classes_differ(root: pathlib.Path) -> None:
    write_classes(root / "train", ("axion", "cdm"), 1)
    write_classes(root / "test", ("vort", "no"), 1)


def _classes_and_flat(root: pathlib.Path) -> None:
    write_classes(root / "train", num=1)
    write_flat(root / "test", 1)


def _two_names_for_a_class(root: pathlib.Path) -> None:
    write_classes(root, ("axion", "vort", "no"), 1)


def _one_folder_too_high(root: pathlib.Path) -> None:
    write_classes(root / "Model_II", CLASSES, 1)


def _splits_too_deep(root: pathlib.Path) -> None:
    for split in ("train", "test"):
        write_classes(root / "Model_II" / split, num=1)


def _line_break(root: pathlib.Path) -> None:
    write_classes(root, ("axion", "two\nlines"), 1)


def _blank_behind(root: pathlib.Path) -> None:
    write_classes(root, ("axion", "cdm "), 1)


def _other_encoding(root: pathlib.Path) -> None:
    write_classes(root, ("axion", os.fsdecode(b"sph\xe8re")), 1)


def _a_file(root: pathlib.Path) -> None:
    write(root, pixels(0))
    os.rename(f"{root}.npy", root)


REFUSED = {
    _nothing: ("has no image file", ".npy", ".fits"),
    _only_text: ("has no image file",),
    _all_classes_empty: ("has no image file",),
    _one_class_empty: ("no image in vortices", "a class needs images"),
    _empty_class_beside_a_broken_link: ("no image in vortices", "x.npy: cannot be read"),
    _files_beside_classes: ("stray.npy", "one or the other"),
    _files_beside_splits: ("beside them stray.npy",),
    _folder_beside_splits: ("beside them plots",),
    _train_alone: ("no folder for the test split", "train_CLASS/FILES and test_CLASS/FILES"),
    _two_trains: ("Training, train for the train split",),
    _unknown_split: ("holdout is called like a split", "CLASS/train/FILES"),
    _half_of_the_splits: ("others beside it has none", "train/CLASS/FILES"),
    _split_and_class_mixed: ("with and without a class",),
    _empty_test: ("test has no image file",),
    _classes_differ: ("only one of them has cdm, no_sub",),
    _classes_and_flat: ("different classes",),
    _two_names_for_a_class: ("axion and vort for the same class axion",),
    _one_folder_too_high: ("Model_II/", "of one class", "CLASS/FILE"),
    _splits_too_deep: ("Model_II/", "of one class"),
    _line_break: ("two\\nlines", "not a valid class name"),
    _blank_behind: ("cdm ", "not a valid class name"),
    _other_encoding: ("not a valid class name",),
    _a_file: ("that is a file, not a folder",),
}


@pytest.mark.parametrize("make", REFUSED, ids=lambda make: make.__name__.strip("_"))
def test_another_structure_is_refused(tmp_path, make):
    root = tmp_path / "root"
    make(root)
    with pytest.raises(DataError) as caught:
        list_files(root)
    text = str(caught.value)
    assert text.startswith("data.folder: ")
    assert "root" in text
    for words in REFUSED[make]:
        assert words in text


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("not there", "no such folder"),
        ("000.npy/below", "no such folder"),
        ("x" * 300, "cannot be read: File name too long"),
        ("with\0zero", "cannot be read: embedded null"),
        ("loop", "cannot be read: Too many levels"),
    ],
)
def test_a_path_that_is_no_folder_is_named(tmp_path, name, words):
    write_flat(tmp_path, 1)
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    with pytest.raises(DataError, match=words) as caught:
        list_files(tmp_path / name)
    assert repr(str(tmp_path / name)) in str(caught.value)


def test_a_folder_named_like_its_class_may_lie_in_it(tmp_path):
    write(tmp_path / "vort" / "axion" / "1.npy", pixels(0))
    write(tmp_path / "sphere" / "part 2" / "1.npy", pixels(1))
    assert [one.class_name for one in list_files(tmp_path).files] == ["cdm", "axion"]


@pytest.mark.parametrize(
    ("name", "expected"),
    [("vort", "axion"), ("sphere", "cdm"), ("no", "no_sub"), ("NO_SUB", "no_sub")]
    + [(name, name) for name in ("spheres", "None", "no sub", "Éléphant", "1")],
)
def test_class_names(name, expected):
    assert class_name_of(name) == expected
    assert is_class_name(expected)


@pytest.mark.parametrize("name", ["", " a", "a\n", "a\nb", "a\tb", "\ud800", "\x1b[31m"])
def test_names_that_no_class_can_have(name):
    assert not is_class_name(name)


def test_times_of_change_are_kept(tmp_path):
    write_flat(tmp_path, 1)
    os.utime(tmp_path / "000.npy", ns=(0, 10**18))
    (file,) = list_files(tmp_path).files
    assert file.modified_ns == 10**18
    assert file.changed_ns == (tmp_path / "000.npy").stat().st_ctime_ns
    assert np.load(file.path).shape == (12, 12)
