"""HDF5 files on a disk that takes only a part of them."""

import os
import pathlib
import resource

import numpy as np
import pytest
from folder_children import in_fork
from run_support import tiny_split

from lensjax.cli.export_formats import Description
from lensjax.cli.export_hdf5 import write_hdf5

h5py = pytest.importorskip("h5py")
SPLIT = tiny_split(60, seed=1)


def _write(path: pathlib.Path) -> None:
    write_hdf5(SPLIT, path, Description(SPLIT.info, 1.0), lambda count: None)


def _refused_at(limits: list[int], path: pathlib.Path) -> list[int]:
    """The system's number of the error at each limit to the size of files; 0 for none."""
    codes = []
    for limit in limits:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
        try:
            _write(path)
        except OSError as error:
            codes.append(error.errno or -1)
        else:
            codes.append(0)
    return codes


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:os.fork")
def test_a_file_that_is_cut_short_anywhere_is_an_error_and_python_lives_on(tmp_path):
    path = tmp_path / "a.h5"
    _write(path)
    with h5py.File(path) as file:
        np.testing.assert_array_equal(file["images"][:], SPLIT.images)
        np.testing.assert_array_equal(file["labels"][:], SPLIT.labels)
    size = os.path.getsize(path)
    limits = [1, 97, 600, 2048, *range(3000, size, 2777), size]
    codes = in_fork(lambda: _refused_at(limits, path))()
    assert codes == [27] * (len(limits) - 1) + [0]
