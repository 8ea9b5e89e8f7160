"""Which folder meets which set, and what happens when files change."""

import json
import os
import pathlib
import shutil
from typing import Any

import numpy as np
import pytest
from folder_support import (
    CLASSES,
    MASSES,
    SIDE,
    finished,
    object_array,
    pixels,
    prepare,
    write,
    write_classes,
    write_flat,
    write_published,
)

from lensjax.data.folder import builder, folder_set
from lensjax.data.folder.reading import Reading
from lensjax.errors import ConfigError, DataError


@pytest.fixture
def no_scan(monkeypatch):
    """Makes every reading of files an error."""

    def scan_again(*_: Any) -> None:
        raise AssertionError("the files were read again")

    return lambda: monkeypatch.setattr(folder_set, "scan", scan_again)


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

    name = builder.DeeplenseFolder.name


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
        assert r"\xe9toile_bad.npy: is text" in " ".join(prepared.report["left_out_files"])
        json.dumps(prepared.report, ensure_ascii=False).encode()


@pytest.mark.parametrize("where", [".", "sets", "cdm/sets", ".sets"])
def test_a_place_for_sets_within_the_folder_is_refused(tmp_path, where):
    root = write_classes(tmp_path / "root")
    before = sorted(root.rglob("*"))
    with pytest.raises(DataError, match=r"root contains .*set data\.directory or TFDS_DATA_DIR"):
        prepare(root, root / where)
    assert sorted(root.rglob("*")) == before


def test_the_home_of_nobody_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"data\.folder: got '~nobody_of_this_name/x'"):
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
