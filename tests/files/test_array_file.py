"""One array in a `.npy` file, whatever is in its place."""

import os

import numpy as np
import pytest

from lensjax.errors import ConfigError, DataError
from lensjax.files.array_file import read_array
from lensjax.files.user_paths import expanded

HEADER = b"\x93NUMPY\x01\x00"


def _npy(header: str) -> bytes:
    text = header.encode() + b"\n"
    return HEADER + len(text).to_bytes(2, "little") + text


FLOATS = "{{'descr': '<f4', 'fortran_order': False, 'shape': ({},), }}"
FILES = {
    "empty": (b"", "suffix"),
    "text": (b"0.1, 0.2\n", "is text"),
    "a zip cut short": (b"PK\x03\x04junk", "is a zip"),
    "too large a shape": (_npy(FLOATS.format("10**30")), "is damaged"),
    "a shape beyond words": (_npy(FLOATS.format(10**30)), "is damaged"),
    "more than there is": (_npy(FLOATS.format(2**47)), "is truncated"),
    "a header of brackets": (_npy("(" * 5000), "is damaged"),
    "a second array behind": (_npy(FLOATS.format(2)) + bytes(8 + 16), "16 bytes after its array"),
}


@pytest.mark.parametrize("mmap_mode", [None, "r"])
@pytest.mark.parametrize("name", FILES)
def test_what_is_no_array_is_refused(tmp_path, name, mmap_mode):
    content, words = FILES[name]
    (tmp_path / "a.npy").write_bytes(content)
    with pytest.raises(DataError, match=r"^--images .*a\.npy .*; allowed: one array") as caught:
        read_array(tmp_path / "a.npy", "--images", mmap_mode=mmap_mode)
    assert words in str(caught.value)
    assert "allow_pickle" not in str(caught.value)


def test_objects_and_archives_are_refused(tmp_path):
    np.save(tmp_path / "objects.npy", np.array([{}], object), allow_pickle=True)
    np.savez(tmp_path / "several.npz", a=np.zeros(2))
    for name, words in (("objects.npy", "Python objects"), ("several.npz", "several arrays")):
        with pytest.raises(DataError, match=words):
            read_array(tmp_path / name, "--images")


def test_what_is_not_a_file_is_refused_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.npy")
    for name, words in (("pipe.npy", "not a file"), (".", "not a file"), ("x.npy", "not exist")):
        with pytest.raises(DataError, match=words):
            read_array(tmp_path / name, "--images")


@pytest.mark.parametrize("mmap_mode", [None, "r"])
def test_an_array_is_read_as_it_is(tmp_path, mmap_mode):
    array = np.arange(6, dtype=np.int16).reshape(2, 3)
    np.save(tmp_path / "a.npy", array)
    np.testing.assert_array_equal(
        read_array(tmp_path / "a.npy", "x", mmap_mode=mmap_mode), array, strict=True
    )


def test_paths_of_users(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert expanded("~/x", "--workdir") == tmp_path / "x"
    assert str(expanded("a/~b", "--workdir")) == "a/~b"
    for text in ("~nobody_of_this_name/x", "gs://bucket/x"):
        with pytest.raises(ConfigError, match=r"^--workdir: got '.*x'; allowed: a path"):
            expanded(text, "--workdir")
