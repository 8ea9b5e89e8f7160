"""Files that are whole or not there."""

import json
import os
import pathlib

import kill_support
import numpy as np
import pytest
from kill_support import ours
from run_support import run_python

from lensjax.errors import FileError, UserError
from lensjax.files import atomic
from lensjax.files.atomic import (
    read_together,
    replacing,
    replacing_folder,
    write_array,
    write_bytes,
    write_json,
    write_text,
)


def test_a_file_is_written_with_its_folder(tmp_path):
    write_json(tmp_path / "a" / "b.json", {"x": [1, None]})
    assert json.loads((tmp_path / "a" / "b.json").read_text()) == {"x": [1, None]}
    write_text(tmp_path / "c.txt", "Å\n")
    assert (tmp_path / "c.txt").read_bytes() == "Å\n".encode()
    write_array(tmp_path / "d.npy", np.arange(3.0))
    np.testing.assert_array_equal(np.load(tmp_path / "d.npy"), np.arange(3.0))


def _interrupted(path: pathlib.Path) -> None:
    with replacing(path) as partial:
        partial.write_bytes(b"ne")
        assert path.read_bytes() == b"old"
        raise RuntimeError


def test_the_old_content_stays_until_the_new_one_is_whole(tmp_path):
    path = tmp_path / "file"
    write_bytes(path, b"old")
    with pytest.raises(RuntimeError):
        _interrupted(path)
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["file"]
    write_bytes(path, b"new")
    assert path.read_bytes() == b"new"
    assert os.listdir(tmp_path) == ["file"]


def test_what_a_killed_writer_left_is_removed_and_what_another_writes_is_not(tmp_path):
    path, left = tmp_path / "file", tmp_path / ".file.0123abcd.partial"
    for name in (left.name, ".file.0123abcd.partial.txt", ".other.0123abcd.partial"):
        (tmp_path / name).write_bytes(b"")
    with replacing(path) as first:
        assert not left.exists()
        write_bytes(path, b"2")
        assert first.exists()
    assert sorted(os.listdir(tmp_path)) == [
        ".file.0123abcd.partial.txt",
        ".other.0123abcd.partial",
        "file",
    ]


def test_two_writers_of_a_file_do_not_meet(tmp_path):
    path = tmp_path / "file"
    with replacing(path) as first, replacing(path) as second:
        assert first != second
        first.write_bytes(b"1")
        second.write_bytes(b"2")
    assert path.read_bytes() == b"1"  # the outer one ends last


def test_a_file_may_be_read_by_whoever_the_system_lets(tmp_path):
    (tmp_path / "plain").write_bytes(b"")
    write_bytes(tmp_path / "whole", b"")
    modes = {(tmp_path / name).stat().st_mode for name in ("plain", "whole")}
    assert len(modes) == 1


def _full_disk(self, content):
    raise OSError(28, "No space left on device")


def test_what_the_disk_refuses_is_said_in_one_line(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    with pytest.raises(FileError, match=r"file/x\.json cannot be written: .*file is not a fold"):
        write_json(tmp_path / "file" / "x.json", {})
    monkeypatch.setattr(pathlib.Path, "write_bytes", _full_disk)
    with pytest.raises(
        UserError, match=r"x cannot be written: No space left on device; .* are free in /"
    ) as caught:
        write_bytes(tmp_path / "x", b"1")
    assert isinstance(caught.value, OSError)
    assert os.listdir(tmp_path) == ["file"]


def test_what_was_read_meanwhile_is_not_said_to_be_written(tmp_path):
    def write() -> None:
        with replacing(tmp_path / "table.csv"):
            (tmp_path / "not there").read_bytes()

    with pytest.raises(FileNotFoundError, match="not there") as caught:
        write()
    assert not isinstance(caught.value, FileError)
    assert os.listdir(tmp_path) == []


def _fill(path: pathlib.Path, content: str) -> None:
    with replacing_folder(path, ours) as new:
        for name in kill_support.NAMES:
            write_text(new / name, content)


def _content(path: pathlib.Path) -> dict[str, str]:
    return {entry.name: entry.read_text() for entry in path.iterdir() if entry.is_file()}


OLD, NEW = {"a.npy": "old", "b.json": "old"}, {"a.npy": "new", "b.json": "new"}


def test_a_kill_at_any_call_leaves_the_old_or_the_new_folder_whole(tmp_path):
    done = run_python(kill_support.__file__, tmp_path)
    assert done.returncode == 0, done.stderr
    assert min(map(int, done.stdout.split())) > 20


@pytest.mark.parametrize("way", ["exchange", "no_exchange", "one by one"])
def test_a_folder_is_replaced_and_its_users_files_stay(tmp_path, monkeypatch, way):
    if way == "no_exchange":
        monkeypatch.setattr(atomic, "_exchange", kill_support.no_exchange)
    if way == "one by one":
        monkeypatch.setattr(os.path, "ismount", lambda path: True)
    path = tmp_path / "deep" / "folder"
    _fill(path, "old")
    assert _content(path) == OLD
    (path / "notes.txt").write_text("mine")
    (path / "more").mkdir()
    (path / "more" / "b.json").write_text("mine")
    inside = path.stat().st_ino
    _fill(path, "new")
    assert _content(path) == {**NEW, "notes.txt": "mine"}
    assert (path / "more" / "b.json").read_text() == "mine"
    assert sorted(os.listdir(path)) == ["a.npy", "b.json", "more", "notes.txt"]
    assert os.listdir(path.parent) == ["folder"]
    assert (path.stat().st_ino == inside) == (way == "one by one")


@pytest.mark.parametrize("error", [RuntimeError(), KeyboardInterrupt(), OSError(28, "No space")])
def test_a_folder_that_cannot_be_finished_stays_as_it_was(tmp_path, error):
    path = tmp_path / "folder"
    _fill(path, "old")

    def fail() -> None:
        with replacing_folder(path, ours) as new:
            write_text(new / "a.npy", "new")
            raise error

    with pytest.raises(FileError if isinstance(error, OSError) else type(error)) as caught:
        fail()
    assert _content(path) == OLD
    assert os.listdir(tmp_path) == ["folder"]
    if isinstance(error, OSError):
        assert "folder cannot be written: No space left" in str(caught.value)


def test_a_file_of_a_new_folder_is_named_where_it_would_have_been(tmp_path, monkeypatch):
    path = tmp_path / "folder"
    _fill(path, "old")
    monkeypatch.setattr(pathlib.Path, "write_bytes", _full_disk)
    message = rf"^{path}/a\.npy cannot be written: No space .*; the earlier folder is as it was$"
    with pytest.raises(FileError, match=message):
        _fill(path, "new")
    assert _content(path) == OLD


def test_a_link_to_a_folder_stays_one_and_other_obstacles_are_named(tmp_path):
    (tmp_path / "large_disk").mkdir()
    (tmp_path / "folder").symlink_to("large_disk")
    _fill(tmp_path / "folder", "new")
    assert (tmp_path / "folder").is_symlink()
    assert _content(tmp_path / "large_disk") == NEW
    (tmp_path / "dangling").symlink_to("nowhere")
    with pytest.raises(FileError, match="dangling is a link to nowhere, which does not exist"):
        _fill(tmp_path / "dangling", "new")
    (tmp_path / "file").write_text("precious")
    for place in (tmp_path / "file", tmp_path / "file" / "folder"):
        with pytest.raises(FileError, match=r"cannot be written: .*is not a folder"):
            _fill(place, "new")
    assert (tmp_path / "file").read_text() == "precious"
    with pytest.raises(FileError, match="File name too long"):
        _fill(tmp_path / ("x" * 300), "new")


def test_a_reader_of_two_folders_is_told(tmp_path):
    path = tmp_path / "folder"
    _fill(path, "old")
    with read_together(path):
        assert (path / "a.npy").read_text() == "old"

    def read() -> None:
        with read_together(path):
            _fill(path, "new")

    with pytest.raises(FileError, match="was replaced while it was read"):
        read()
