"""Files that are whole or not there."""

import json
import os
import pathlib

import numpy as np
import pytest

from lensjax.errors import FileError, UserError
from lensjax.files.atomic import replacing, write_array, write_bytes, write_json, write_text


def test_a_file_is_written_with_its_folder(tmp_path):
    write_json(tmp_path / "a" / "b.json", {"x": [1, None]})
    assert json.loads((tmp_path / "a" / "b.json").read_text()) == {"x": [1, None]}
    write_text(tmp_path / "c.txt", "Å\n")
    assert (tmp_path / "c.txt").read_bytes() == "Å\n".encode()
    write_array(tmp_path / "d.npy", np.arange(3.0))
    np.testing.assert_array_equal(np.load(tmp_path / "d.npy"), np.arange(3.0))


def _interrupted(path: pathlib.Path, shared: bool) -> None:
    with replacing(path, shared=shared) as partial:
        partial.write_bytes(b"ne")
        assert path.read_bytes() == b"old"
        raise RuntimeError


@pytest.mark.parametrize("shared", [False, True])
def test_the_old_content_stays_until_the_new_one_is_whole(tmp_path, shared):
    path = tmp_path / "file"
    write_bytes(path, b"old")
    with pytest.raises(RuntimeError):
        _interrupted(path, shared)
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["file"]
    write_bytes(path, b"new", shared=shared)
    assert path.read_bytes() == b"new"
    assert os.listdir(tmp_path) == ["file"]


def test_two_writers_of_a_shared_file_do_not_meet(tmp_path):
    path = tmp_path / "file"
    with replacing(path, shared=True) as first, replacing(path, shared=True) as second:
        assert first != second
        first.write_bytes(b"1")
        second.write_bytes(b"2")
    assert path.read_bytes() == b"1"  # the outer one ends last


def test_a_file_may_be_read_by_whoever_the_system_lets(tmp_path):
    (tmp_path / "plain").write_bytes(b"")
    write_bytes(tmp_path / "whole", b"", shared=True)
    modes = {(tmp_path / name).stat().st_mode for name in ("plain", "whole")}
    assert len(modes) == 1


def _full_disk(self, content):
    raise OSError(28, "No space left on device")


def test_what_the_disk_refuses_is_said_in_one_line(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    with pytest.raises(FileError, match=r"file/x\.json cannot be written: (Not a dir|File exists)"):
        write_json(tmp_path / "file" / "x.json", {})
    monkeypatch.setattr(pathlib.Path, "write_bytes", _full_disk)
    with pytest.raises(UserError, match="x cannot be written: No space left on device") as caught:
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
