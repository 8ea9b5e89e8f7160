"""A folder becomes a set: what is written, what it is called, and when it is written again."""

import json
import os
import pathlib
import shutil
import stat
import tempfile
from typing import Any

import numpy as np
import pytest
from folder_support import (
    CLASSES,
    SIDE,
    WRITERS,
    class_of_pixels,
    counts,
    object_array,
    pixels,
    prepare,
    scan,
    write,
    write_classes,
    write_flat,
)
from run_support import ROOT, run_python

from lensjax.data import folder_builder, folder_set, sets
from lensjax.data.dataset import DataError
from lensjax.data.folder_scan import Reading

MASSES = {seed: 10.0 ** -(22 + seed / 10) for seed in range(6)}


def write_published(root: pathlib.Path, names: tuple[str, ...] = CLASSES) -> pathlib.Path:
    """Axion as object arrays, the others plain, as the public sets are."""
    for label, name in enumerate(names):
        for index in range(6):
            image = pixels(100 * label + index)
            content = object_array(image, MASSES[index]) if label == 0 else image
            write(root / name / f"{name}_{index}.npy", content)
    return root


def finished(sets_folder: pathlib.Path) -> list[str]:
    """The fingerprints of the sets that look finished."""
    found = sets_folder.glob("deeplense_folder/*/1.0.0")
    return sorted(path.parent.name for path in found)


@pytest.fixture
def no_scan(monkeypatch):
    """Makes every reading of files an error."""

    def scan_again(*_: Any) -> None:
        raise AssertionError("the files were read again")

    return lambda: monkeypatch.setattr(folder_set, "scan", scan_again)


@pytest.mark.parametrize("names", [CLASSES, ("vort", "sphere", "no"), ("Vort", "cdm", "NO")])
def test_published_files_keep_pixels_classes_and_masses(tmp_path, names):
    prepared = prepare(write_published(tmp_path / "root", names), tmp_path / "sets")
    classes = class_of_pixels(prepared)
    assert len(classes) == 18
    for split in map(prepared.read, ("train", "test")):
        assert split.info.class_names == CLASSES
        assert split.info.parameter_names == ("log10_axion_mass",)
        assert split.images.dtype == split.parameters.dtype == np.float32
        masses = split.parameters[:, 0]
        np.testing.assert_array_equal(np.isnan(masses), split.labels != 0)
        for image, label, mass in zip(split.images, split.labels, masses, strict=True):
            seed = next(seed for seed in range(300) if (pixels(seed) == image[..., 0]).all())
            assert seed // 100 == label
            if label == 0:
                assert mass == pytest.approx(np.log10(MASSES[seed]), rel=1e-6)


@pytest.mark.parametrize("names", [("b", "C", "a", "10", "9"), ("only",)])
def test_other_classes_are_alphabetical(tmp_path, names):
    prepared = prepare(write_classes(tmp_path / "root", names), tmp_path / "sets")
    assert prepared.info().class_names == tuple(sorted(names))
    classes = class_of_pixels(prepared)
    for label, name in enumerate(names):
        for index in range(4):
            image = pixels(1000 * label + index).astype(np.float32)[..., None]
            assert classes[image.tobytes()] == name


@pytest.mark.parametrize("splits", [("",), ("train", "test")])
def test_a_flat_folder_is_unlabelled(tmp_path, splits):
    for number, name in enumerate(splits):
        write_flat(tmp_path / "root" / name, seed=100 * number)
    prepared = prepare(tmp_path / "root", tmp_path / "sets")
    info = prepared.info()
    assert info.class_names == ()
    assert info.num_classes == 0
    for name in ("train", "test"):
        labels = prepared.read(name).labels
        assert len(labels) > 0
        assert not labels.any()  # 0 is the null label


def test_own_splits_come_back(tmp_path):
    root = tmp_path / "root"
    write_classes(root / "train", num=5)
    write_classes(root / "val", num=2, seed=50)
    prepared = prepare(root, tmp_path / "sets")
    assert prepared.info().split_sizes == {"train": 15, "test": 6}
    for name, seed, num in (("train", 0, 5), ("test", 50, 2)):
        expected = {
            (label, pixels(seed + 1000 * label + index).astype(np.float32).tobytes())
            for label in range(3)
            for index in range(num)
        }
        split = prepared.read(name)
        pairs = zip(split.labels.tolist(), split.images, strict=True)
        assert {(label, image.tobytes()) for label, image in pairs} == expected


@pytest.mark.parametrize("shape", [(SIDE, SIDE), (37, 50), (150, 150), (9, 8, 3)])
@pytest.mark.parametrize("suffix", WRITERS)
def test_any_container_and_size_comes_back(tmp_path, suffix, shape):
    (tmp_path / "root").mkdir()
    for index in range(3):
        WRITERS[suffix](tmp_path / "root" / f"{index}{suffix}", pixels(index, shape).astype(">f4"))
    prepared = prepare(tmp_path / "root", tmp_path / "sets")
    info = prepared.info()
    assert info.image_shape == (shape if len(shape) == 3 else (*shape, 1))
    expected = {pixels(index, shape).astype(np.float32).tobytes() for index in range(3)}
    assert set(class_of_pixels(prepared)) == expected


def test_a_labelled_stack_comes_back(tmp_path):
    images, labels = counts(0, (30, SIDE, SIDE)), np.arange(30) % 3
    (tmp_path / "root").mkdir()
    names = np.array(["no", "vort", "sphere"])
    path = tmp_path / "root" / "all.npz"
    np.savez(path, images=images, labels=labels, class_names=names)
    prepared = prepare(tmp_path / "root", tmp_path / "sets")
    classes = class_of_pixels(prepared)
    for image, label in zip(images.astype(np.float32), labels, strict=True):
        assert classes[image.tobytes()] == ("no_sub", "axion", "cdm")[label]
    assert prepared.info().integer


def test_facts_of_fits_files_are_kept(tmp_path):
    from astropy.io import fits

    (tmp_path / "root").mkdir()
    for index in range(3):
        header = {"BUNIT": "nJy", "MAGZERO": 31.4, "EXPTIME": 100.0 + index, "PIXSCALE": 0.2}
        hdus = [fits.PrimaryHDU(), fits.ImageHDU(pixels(index), fits.Header(header))]
        fits.HDUList(hdus).writeto(tmp_path / "root" / f"{index}.fits")
    prepared = prepare(tmp_path / "root", tmp_path / "sets")
    info = prepared.info()
    assert (info.flux_unit, info.pixel_scale_arcsec, info.zero_point_mag) == ("nJy", 0.2, 31.4)
    assert info.psf_fwhm_arcsec is None
    assert info.parameter_names == ("exposure_time_s", "zero_point_mag")
    rows = np.concatenate([prepared.read(name).parameters for name in ("train", "test")])
    expected = np.array([[100.0 + index, 31.4] for index in range(3)], np.float32)
    np.testing.assert_array_equal(rows[np.argsort(rows[:, 0])], expected)


def test_any_beginning_of_a_split_has_the_classes_in_their_shares(tmp_path):
    for name, num in (("a", 40), ("b", 20), ("c", 4)):
        write_classes(tmp_path / "root" / "train", (name,), num, seed=ord(name) * 100)
    write_classes(tmp_path / "root" / "test", ("a", "b", "c"), 1, seed=5)
    labels = prepare(tmp_path / "root", tmp_path / "sets").read("train").labels
    for num in range(1, 65):
        found = np.bincount(labels[:num], minlength=3)
        assert np.abs(found - num * np.array([40, 20, 4]) / 64).max() <= 1


def test_the_range_is_that_of_the_training_images(tmp_path):
    write(tmp_path / "root" / "train" / "a.npy", pixels(0) + 1)
    write(tmp_path / "root" / "test" / "a.npy", 100 * pixels(1))
    info = prepare(tmp_path / "root", tmp_path / "sets").info()
    assert info.minimum == np.float32(pixels(0) + 1).min()
    assert info.maximum == np.float32(pixels(0) + 1).max()


def test_the_configuration_reaches_the_reading(tmp_path):
    from run_support import tiny_config

    image = pixels(0)
    image[0, 0] = np.nan
    write_flat(tmp_path / "root")
    write(tmp_path / "root" / "nan.npy", image)
    (tmp_path / "root" / "text.npy").write_text("text")
    data = {
        "name": "deeplense/folder",
        "folder": os.fspath(tmp_path / "root"),
        "directory": os.fspath(tmp_path / "sets"),
        "layout": "HW",
        "nan_policy": "mask",
        "on_bad_file": "skip",
        "test_share": 0.6,
    }
    prepared = sets.prepare(tiny_config(data=data, model={"num_classes": 0}).data)
    again = scan(tmp_path / "root", nan_policy="mask", on_bad_file="skip", test_share=0.6)
    assert prepared.fingerprint == again.fingerprint
    assert prepared.info().masked
    assert prepared.report is not None
    assert prepared.report["left_out"] == 1


# Identity --------------------------------------------------------------------------------------


def _elsewhere(root: pathlib.Path) -> pathlib.Path:
    return pathlib.Path(shutil.copytree(root, root.parent / "other" / "place"))


def _renamed(root: pathlib.Path) -> pathlib.Path:
    return root.rename(root.with_name("renamed"))


def _link(root: pathlib.Path) -> pathlib.Path:
    (root.parent / "link").symlink_to(root)
    return root.parent / "link"


def _touched(root: pathlib.Path) -> pathlib.Path:
    for path in root.glob("*/*"):
        os.utime(path, ns=(1, 1))
    return root


def _other_dtype(root: pathlib.Path) -> pathlib.Path:
    for path in root.glob("[cn]*/*"):
        np.save(path, np.load(path).astype(">f4"))
    return root


def _old_names(root: pathlib.Path) -> pathlib.Path:
    for name, old in (("axion", "vort"), ("cdm", "sphere"), ("no_sub", "no")):
        (root / name).rename(root / old)
    return root


def _names_in_the_same_order(root: pathlib.Path) -> pathlib.Path:
    for path in root.glob("*/*"):
        path.rename(path.with_name(f"x{path.name}"))
    return root


def _in_a_stack(root: pathlib.Path) -> pathlib.Path:
    paths = sorted((root / "cdm").iterdir())
    np.save(root / "cdm" / "stack.npy", [np.load(path) for path in paths])
    for path in paths:
        path.unlink()
    return root


def _with_a_readme(root: pathlib.Path) -> pathlib.Path:
    (root / "README.md").write_text("about")
    return root


SAME = [
    _elsewhere,
    _renamed,
    _link,
    _touched,
    _other_dtype,
    _old_names,
    _names_in_the_same_order,
    _in_a_stack,
    _with_a_readme,
]


class NoBuild:
    """In place of the builder; a build raises."""

    name = folder_builder.DeeplenseFolder.name


@pytest.mark.parametrize("change", SAME, ids=lambda change: change.__name__.strip("_"))
def test_the_same_content_is_the_same_set_without_a_build(tmp_path, change, monkeypatch):
    root = write_published(tmp_path / "root")
    first = prepare(root, tmp_path / "sets")
    monkeypatch.setattr(folder_set, "DeeplenseFolder", NoBuild)
    again = prepare(change(root), tmp_path / "sets")
    assert again.fingerprint == first.fingerprint
    assert again.folder == first.folder
    assert again.info() == first.info()
    assert finished(tmp_path / "sets") == [first.fingerprint]


def _pixel(root: pathlib.Path) -> None:
    path = root / "cdm" / "cdm_3.npy"
    image = np.load(path)
    image[5, 5] = np.nextafter(np.float32(image[5, 5]), np.float32(9))
    np.save(path, image)


def _pixel_in_secret(root: pathlib.Path) -> None:
    """With size and time of change as they were; nobody can set the other time."""
    path = root / "cdm" / "cdm_3.npy"
    before = path.stat()
    _pixel(root)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert (path.stat().st_size, path.stat().st_mtime_ns) == (before.st_size, before.st_mtime_ns)


def _mass(root: pathlib.Path) -> None:
    write(root / "axion" / "axion_3.npy", object_array(pixels(3), 1.5 * MASSES[3]))


def _masses_exchanged(root: pathlib.Path) -> None:
    for image, mass in ((3, 4), (4, 3)):
        content = object_array(pixels(image), MASSES[mass])
        write(root / "axion" / f"axion_{image}.npy", content)


def _class_of_an_image(root: pathlib.Path) -> None:
    (root / "cdm" / "cdm_3.npy").rename(root / "no_sub" / "cdm_3.npy")


def _class_renamed(root: pathlib.Path) -> None:
    (root / "cdm").rename(root / "wdm")


def _classes_exchanged(root: pathlib.Path) -> None:
    (root / "cdm").rename(root / "x")
    (root / "no_sub").rename(root / "cdm")
    (root / "x").rename(root / "no_sub")


def _file_added(root: pathlib.Path) -> None:
    write(root / "cdm" / "more.npy", pixels(999))


def _copy_added(root: pathlib.Path) -> None:
    shutil.copy(root / "cdm" / "cdm_1.npy", root / "cdm" / "copy.npy")


def _file_removed(root: pathlib.Path) -> None:
    (root / "cdm" / "cdm_3.npy").unlink()


def _own_split(root: pathlib.Path) -> None:
    for name in CLASSES:
        for path in sorted((root / name).iterdir()):
            target = root / ("test" if path.stem.endswith("0") else "train") / name / path.name
            target.parent.mkdir(parents=True, exist_ok=True)
            path.rename(target)
        (root / name).rmdir()


def _turned(root: pathlib.Path) -> None:
    """Other axes of the same bytes."""
    for index in range(6):
        write(root / "cdm" / f"cdm_{index}.npy", pixels(100 + index).reshape(9, 16))
        write(root / "no_sub" / f"no_sub_{index}.npy", pixels(200 + index).reshape(9, 16))
        content = object_array(pixels(index).reshape(9, 16), MASSES[index])
        write(root / "axion" / f"axion_{index}.npy", content)


OTHER = [
    _pixel,
    _pixel_in_secret,
    _mass,
    _masses_exchanged,
    _class_of_an_image,
    _class_renamed,
    _classes_exchanged,
    _file_added,
    _copy_added,
    _file_removed,
    _own_split,
    _turned,
]


@pytest.mark.parametrize("change", OTHER, ids=lambda change: change.__name__.strip("_"))
def test_other_content_is_another_set_and_the_first_stays(tmp_path, change):
    root = write_published(tmp_path / "root")
    first = prepare(root, tmp_path / "sets")
    before = first.read("train").images
    change(root)
    second = prepare(root, tmp_path / "sets")
    assert second.fingerprint != first.fingerprint
    assert finished(tmp_path / "sets") == sorted([first.fingerprint, second.fingerprint])
    np.testing.assert_array_equal(first.read("train").images, before)


def test_another_share_is_another_set(tmp_path):
    root = write_published(tmp_path / "root")
    found = {prepare(root, tmp_path / "sets", test_share=share).fingerprint for share in (0.1, 0.6)}
    assert len(found) == 2


def test_an_unchanged_folder_is_known_without_reading_its_files(tmp_path, no_scan):
    root = write_published(tmp_path / "root")
    first = prepare(root, tmp_path / "sets")
    no_scan()
    again = prepare(root, tmp_path / "sets")
    assert again == first  # with the report
    with pytest.raises(AssertionError, match="read again"):
        prepare(root, tmp_path / "sets", nan_policy="mask")
    with pytest.raises(AssertionError, match="read again"):
        prepare(_touched(root), tmp_path / "sets")


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"listing": 3}', "\x00", '{"listing": '])
def test_a_damaged_memory_means_reading_again(tmp_path, content):
    root = write_flat(tmp_path / "root")
    first = prepare(root, tmp_path / "sets")
    (memory,) = (tmp_path / "sets" / "deeplense_folder" / ".known").iterdir()
    memory.write_text(content)
    assert prepare(root, tmp_path / "sets") == first
    assert json.loads(memory.read_text())["fingerprint"] == first.fingerprint


def test_a_set_that_was_removed_is_built_again(tmp_path):
    root = write_flat(tmp_path / "root")
    first = prepare(root, tmp_path / "sets")
    images = first.read("train").images
    shutil.rmtree(first.folder)
    np.testing.assert_array_equal(prepare(root, tmp_path / "sets").read("train").images, images)


def test_a_damaged_set_is_refused_with_the_command_that_builds_it(tmp_path):
    root = write_flat(tmp_path / "root")
    first = prepare(root, tmp_path / "sets")
    next(first.folder.glob("*train*")).unlink()
    words = "lacks .*train.*remove that folder and build it again .*--config.data.folder="
    with pytest.raises(DataError, match=words):
        prepare(root, tmp_path / "sets")


def test_the_report_of_another_folder_of_the_same_content_is_its_own(tmp_path):
    one, two = (write_flat(tmp_path / name) for name in ("one", "two"))
    (two / "bad.npy").write_text("text")
    (two / "notes.txt").write_text("text")
    first = prepare(one, tmp_path / "sets", on_bad_file="skip")
    for _ in range(2):  # read, and then known
        second = prepare(two, tmp_path / "sets", on_bad_file="skip")
        assert second.folder == first.folder
        assert second.report is not None
        assert second.report["left_out"] == 1
        assert second.report["left_out_files"][0].startswith(f"{two / 'bad.npy'}: is text")
        assert second.report["other_files"] == {".txt": 1}
    again = prepare(one, tmp_path / "sets", on_bad_file="skip")
    assert again == first
    assert first.report is not None
    assert first.report["left_out_files"] == []


def test_names_in_another_encoding_are_no_problem(tmp_path):
    root = write_flat(tmp_path / "root")
    name = os.fsdecode(b"\xe9toile")
    write(root / f"{name}.npy", pixels(99))
    (root / f"{name}_bad.npy").write_text("text")
    (root / f"{name}_loop.npy").symlink_to(root / f"{name}_loop.npy")
    for _ in range(2):
        prepared = prepare(root, tmp_path / "sets", on_bad_file="skip")
        assert sum(prepared.info().split_sizes.values()) == 7
        assert prepared.report is not None
        assert r"\udce9toile_bad.npy: is text" in str(prepared.report["left_out_files"])
        json.dumps(prepared.report, ensure_ascii=False).encode()


@pytest.mark.parametrize("where", [".", "sets", "cdm/sets", ".sets"])
def test_a_place_for_sets_within_the_folder_is_refused(tmp_path, where):
    root = write_classes(tmp_path / "root")
    before = sorted(root.rglob("*"))
    with pytest.raises(DataError, match=r"root holds .*set data\.directory or TFDS_DATA_DIR"):
        prepare(root, root / where)
    assert sorted(root.rglob("*")) == before


def test_the_home_of_nobody_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"data\.folder: got '~nobody_of_this_name/x'"):
        folder_set.prepare("~nobody_of_this_name/x", Reading(), os.fspath(tmp_path))


def test_tfds_does_not_log_every_image(tmp_path, caplog):
    prepare(write_flat(tmp_path / "root", 50), tmp_path / "sets")
    assert "ScannedImage" not in caplog.text
    assert all(len(record.getMessage()) < 1000 for record in caplog.records)


# Between the two readings ----------------------------------------------------------------------


def _grown_stack(root: pathlib.Path) -> None:
    write(root / "stack" / "stack.npy", pixels(5000, (9, SIDE, SIDE)))


def _shrunk_stack(root: pathlib.Path) -> None:
    write(root / "stack" / "stack.npy", pixels(5000, (8, SIDE, SIDE))[:7])


def _cut(root: pathlib.Path) -> None:
    path = root / "cdm" / "cdm_3.npy"
    path.write_bytes(path.read_bytes()[:-9])


def _labels(root: pathlib.Path) -> None:
    path = root / "labelled" / "some.npz"
    before = path.stat()
    content = dict(np.load(path))
    content["parameters"] = content["parameters"][::-1]
    np.savez(path, **content)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert path.stat().st_size == before.st_size


BETWEEN = [
    _pixel,
    _pixel_in_secret,
    _mass,
    _file_removed,
    _cut,
    _labels,
    _grown_stack,
    _shrunk_stack,
]


@pytest.mark.parametrize("change", BETWEEN, ids=lambda change: change.__name__.strip("_"))
def test_a_file_that_changes_between_the_two_readings_is_an_error(tmp_path, change, monkeypatch):
    root = write_published(tmp_path / "root")
    write(root / "stack" / "stack.npy", pixels(5000, (8, SIDE, SIDE)))
    (root / "labelled").mkdir()
    np.savez(
        root / "labelled" / "some.npz",
        images=pixels(6000, (6, SIDE, SIDE)),
        parameters=np.arange(6.0)[:, None],
        parameter_names=["redshift"],
    )
    build = folder_set._build

    def changed_before(*arguments: Any) -> None:
        change(root)
        build(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(folder_set, "_build", changed_before)
        with pytest.raises(DataError, match=r"\.np[yz] changed while the set was being built"):
            prepare(root, tmp_path / "sets")
    assert finished(tmp_path / "sets") == []
    assert not list((tmp_path / "sets").rglob("*.json"))
    assert not list((tmp_path / "sets").rglob("*array_record*"))
    if change is not _cut:
        prepared = prepare(root, tmp_path / "sets")
        assert finished(tmp_path / "sets") == [prepared.fingerprint]


# In processes of their own ---------------------------------------------------------------------


@pytest.fixture(scope="module")
def children():
    """What `folder_children.py` found, in a place that everybody may look into."""
    with tempfile.TemporaryDirectory(prefix="lensjax_children_") as folder:
        os.chmod(folder, 0o755)
        path = f"{ROOT}{os.pathsep}{ROOT / 'tests'}"
        done = run_python(ROOT / "tests" / "folder_children.py", folder, PYTHONPATH=path)
        assert done.returncode == 0, done.stderr
        yield json.loads(pathlib.Path(folder, "results.json").read_text()), done.stderr


NOT_ALLOWED = {
    "file": "cdm/001.npy: Permission denied (data.on_bad_file=skip",
    "class": "has no image in cdm; ",
    "class without x": "cdm/000.npy: cannot be read: Permission denied",
    "root": "root cannot be read: Permission denied",
    "above": "which cannot be read: Permission denied",
}


@pytest.mark.parametrize("kind", NOT_ALLOWED)
def test_what_may_not_be_read_is_named_before_anything_is_written(children, kind):
    said = children[0]["permissions"][kind]["refuse"]
    assert NOT_ALLOWED[kind] in said, children[1]
    assert "Permission denied" in said
    assert said.endswith("sets: False")


def test_without_locks_the_same_user_builds(children):
    assert children[0]["permissions"]["nothing"] == dict.fromkeys(
        ("refuse", "skip"), "15 images, []"
    )


@pytest.mark.parametrize("kind", NOT_ALLOWED)
def test_skip_leaves_out_a_file_and_no_class(children, kind):
    said = children[0]["permissions"][kind]["skip"]
    if kind == "file":
        assert said.startswith("14 images, [")
        assert "cdm/001.npy: Permission denied" in said
    else:
        assert said == children[0]["permissions"][kind]["refuse"]


def test_a_file_that_was_unlocked_is_noticed(children):
    before, after = children[0]["unlocked_later"]
    assert before.startswith("14 images, [")
    assert after == "15 images, []"


def test_a_finished_set_is_used_where_nothing_can_be_written(children):
    without_sheet, with_sheet = children[0]["read_only"]
    assert "contact_sheet.png cannot be written: Permission denied" in without_sheet[0]
    assert with_sheet[0].startswith("deeplense/folder, fingerprint ")


def test_a_killed_build_leaves_nothing_that_looks_finished(children):
    found = children[0]["killed"]
    assert found["code"] == -9
    assert found["left"] == ["incomplete"]
    assert found["said"] == "27 images, []"
    assert found["after"] == ["1.0.0"]
    assert children[1].count("An earlier build of deeplense/folder did not finish") == 1


def test_of_two_processes_at_once_one_builds(children):
    both = children[0]["two_at_once"]["both"]
    assert [lines[0] for lines in both] == ["30 images, []"] * 2
    said = "\n".join(both[0] + both[1])
    assert said.count("Building deeplense/folder in") == 1
    assert said.count("Another process is building deeplense/folder; waiting for it.") == 1


def test_images_are_not_held_in_memory(children):
    found = children[0]["memory"]
    assert found["size"] == 200
    assert found["growth"] < 130
    assert found["with_images"] > found["size"]  # what it would be


def test_an_unchanged_folder_opens_no_file(children):
    assert children[0]["unchanged"] == [24, 0]  # two readings of 12 files


def test_a_set_can_be_read_by_others(tmp_path):
    """TFDS keeps the umask, so that one user's set serves a group."""
    prepared = prepare(write_flat(tmp_path / "root"), tmp_path / "sets")
    umask = os.umask(0)
    os.umask(umask)
    for path in prepared.folder.iterdir():
        assert stat.S_IMODE(path.stat().st_mode) & 0o444 == 0o444 & ~umask
