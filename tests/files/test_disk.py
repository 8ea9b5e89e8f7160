"""What a disk refuses, in one line."""

import errno
import os
import pathlib
import resource

import numpy as np
import pytest
from folder_children import in_fork

from lensjax.errors import FileError
from lensjax.files import disk


def _limited(write, path: pathlib.Path) -> list:
    """What is said about a file that a limit of this user cuts short."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))
    try:
        write(path)
    except Exception as error:
        return [disk.is_refusal(error), str(disk.refused(error, path))]
    return [None, ""]


def _fits(path: pathlib.Path) -> None:
    fits = pytest.importorskip("astropy.io.fits")
    fits.PrimaryHDU(np.zeros((100, 100), np.float32)).writeto(path)


def _records(path: pathlib.Path) -> None:
    from array_record.python import array_record_module

    writer = array_record_module.ArrayRecordWriter(os.fspath(path), "group_size:1")
    for seed in range(100):
        writer.write(np.random.default_rng(seed).bytes(10_000))
    writer.close()


WRITERS = {
    "numpy": lambda path: np.save(path, np.zeros(10_000)),
    "numpy in an open file": lambda path: np.zeros(10_000).tofile(path),
    "bytes": lambda path: path.write_bytes(bytes(100_000)),
    "text": lambda path: path.write_text("x" * 100_000),
    "fits": _fits,
    "records": _records,
}


@pytest.mark.parametrize("name", WRITERS)
@pytest.mark.filterwarnings("ignore:os.fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_file_that_is_cut_short_is_said_by_every_writer(tmp_path, name):
    path = tmp_path / "file.npy"
    is_refusal, message = in_fork(lambda: _limited(WRITERS[name], path))()
    assert is_refusal is True
    assert message.startswith(f"{path} cannot be written: ")
    assert "are free in" in message
    assert "\n" not in message


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (RuntimeError("write() failed: No space left on device; at byte 2097152"), "No space left"),
        (ValueError("RESOURCE_EXHAUSTED: Disk quota exceeded"), "quota exceeded; .* are free in /"),
        (OSError(errno.EROFS, "Read-only file system"), "Read-only file system$"),
        (OSError(errno.EIO, "Input/output error"), "Input/output error$"),
        (OSError("8 requested and 4 written"), "cut short, as by a full disk; .* are free"),
    ],
    ids=str,
)
def test_errors_of_any_form_are_recognised(tmp_path, error, said):
    assert disk.is_refusal(error)
    with pytest.raises(FileError, match=said):
        raise disk.refused(error, tmp_path / "x")


@pytest.mark.parametrize(
    "error",
    [ValueError("8 requested and 4 written"), RuntimeError("RESOURCE_EXHAUSTED"), OSError()],
)
def test_other_errors_are_not_the_disks(error):
    assert not disk.is_refusal(error)


def test_room_is_looked_at_where_the_file_will_be(tmp_path):
    free = os.statvfs(tmp_path).f_bavail * os.statvfs(tmp_path).f_frsize
    path = tmp_path / "not" / "yet" / "x"
    disk.check_room(path, free / 2, "ask")
    message = rf"/x cannot be written: it needs about .* GiB, but .* are free in {tmp_path}; "
    with pytest.raises(FileError, match=message) as caught:
        disk.check_room(path, 2 * free + 2**31, "look elsewhere")
    assert str(caught.value).endswith("make room, or look elsewhere")
    with pytest.raises(FileError, match=r"it needs 10,000,000,000,000 files, but .* can be made"):
        disk.check_room(path, 1, "ask", num_files=10**13)
    (tmp_path / "not").write_text("")
    with pytest.raises(FileError, match=r"/not is not a folder"):
        disk.check_room(path, 1, "ask")
    with pytest.raises(FileError, match=r"/not is not a folder"):
        disk.check_room(tmp_path / "not", 1, "ask")
    with pytest.raises(FileError, match=r"File name too long"):
        disk.check_room(tmp_path / ("x" * 300), 1, "ask")
    assert os.listdir(tmp_path) == ["not"]


@pytest.mark.parametrize(
    ("num_bytes", "said"), [(0, "0.0 KiB"), (2**20, "1.00 MiB"), (3 * 2**29, "1.50 GiB")]
)
def test_sizes_for_people(num_bytes, said):
    assert disk.size_text(num_bytes) == said
