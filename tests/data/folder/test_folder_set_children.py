"""Folders that may not be read, killed builds, two builds at once, memory."""

import json
import os
import pathlib
import stat
import tempfile

import pytest
from folder_support import prepare, write_flat
from run_support import ROOT, run_python


@pytest.fixture(scope="module")
def children():
    """What `folder_children.py` found, in a place that everybody may look into."""
    with tempfile.TemporaryDirectory(prefix="lensjax_children_") as folder:
        os.chmod(folder, 0o755)
        path = f"{ROOT}{os.pathsep}{ROOT / 'tests'}"
        done = run_python(
            ROOT / "tests" / "support" / "folder_children.py", folder, PYTHONPATH=path
        )
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
    assert children[1].count("did not finish") == 1


def test_of_two_processes_at_once_one_builds(children):
    both = children[0]["two_at_once"]["both"]
    assert [lines[0] for lines in both] == ["30 images, []"] * 2
    said = "\n".join(both[0] + both[1])
    assert said.count("Building deeplense/folder") == 1
    assert said.count("waiting for it") == 1


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
