"""Promises of files are not believed: memory and time of a file are bounded before it is read."""

import gzip
import pathlib
import subprocess
import sys
import zipfile

import numpy as np
import pytest

from lensjax.errors import BadFileError, UnusableError
from lensjax.files.image_files import Limits, read_images

fits = pytest.importorskip("astropy.io.fits")
h5py = pytest.importorskip("h5py")

SMALL = Limits(memory_gib=1 / 64)


def refusal(path: pathlib.Path, limits: Limits = SMALL) -> str:
    with pytest.raises(BadFileError) as caught:
        list(read_images(path, "NHW", limits=limits))
    return caught.value.reason


def stack(num: int = 6) -> np.ndarray:
    return np.random.default_rng(0).random((num, 16, 16), np.float32)


@pytest.mark.parametrize("chunks", [None, (1, 64, 64)])
def test_an_array_that_was_never_written(tmp_path, chunks):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("images", (10**9, 64, 64), "f4", chunks=chunks)
        file["labels"] = np.zeros(3)
    assert "not written completely" in refusal(tmp_path / "a.h5")


def test_chunks_that_unpack_to_more_than_the_memory(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        shape = (64, 256, 256)
        file.create_dataset("images", data=np.zeros(shape, "f4"), chunks=shape, compression="gzip")
    assert "in chunks, of which one takes 0.0469 GiB" in refusal(tmp_path / "a.h5")
    assert "data.file_memory_gib" in refusal(tmp_path / "a.h5")


@pytest.mark.parametrize("where", ["in the image", "behind it"])
def test_a_gzip_that_unpacks_to_more_than_the_memory(tmp_path, where):
    side = 4096 if where == "in the image" else 16
    header = fits.Header({"SIMPLE": True, "BITPIX": -32, "NAXIS": 2})
    header["NAXIS1"] = header["NAXIS2"] = side
    with gzip.open(tmp_path / "a.fits.gz", "wb") as file:
        file.write(header.tostring().encode())
        for _ in range(20):
            file.write(bytes(2**20))
    assert "unpacks to more than 0.0195 GiB" in refusal(tmp_path / "a.fits.gz")


def test_tiles_that_unpack_to_more_than_the_memory(tmp_path):
    image = np.zeros((1024, 1024), np.int32)
    hdu = fits.CompImageHDU(image, compression_type="RICE_1", tile_shape=image.shape)
    fits.HDUList([fits.PrimaryHDU(), hdu]).writeto(tmp_path / "a.fits.fz")
    with pytest.raises(BadFileError, match=r"compressed in tiles that take 0\.0234 GiB"):
        list(read_images(tmp_path / "a.fits.fz", limits=SMALL))


@pytest.mark.parametrize("name", ["a.npy", "a.npz", "a.h5", "a.fits"])
def test_images_larger_than_the_memory(tmp_path, name):
    image, path = np.zeros((2048, 2048), np.float32), tmp_path / name
    if name == "a.npy":
        np.save(path, image)
    elif name == "a.npz":
        np.savez_compressed(path, images=image)
    elif name == "a.h5":
        with h5py.File(path, "w") as file:
            file["images"] = image
    else:
        fits.writeto(path, image)
    with pytest.raises(
        BadFileError, match=r"has (images that take 0\.0[34]|planes that take together 0\.06)"
    ):
        list(read_images(path, limits=SMALL))


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        (np.array(["x" * 300_000, *"abcde"]), "texts of 1200000 bytes"),
        (np.array([b"x" * 900, *5 * [b"y"]]), "texts of 900 bytes"),
        (np.arange(7), "labels of the shape (7,) for 6 images"),
        (np.zeros((6, 10_000), np.int64), "labels of the shape (6, 10000)"),
    ],
)
def test_labels_that_are_no_labels(tmp_path, labels, words):
    np.savez(tmp_path / "a.npz", images=stack(), labels=labels)
    assert words in refusal(tmp_path / "a.npz")


def test_more_classes_than_anybody_has(tmp_path):
    images = np.random.default_rng(0).random((10_001, 8, 8), np.float32)
    for labels in (np.arange(10_001), np.arange(10_001).astype(str)):
        np.savez(tmp_path / "a.npz", images=images, labels=labels)
        assert "10001 different" in refusal(tmp_path / "a.npz")


def test_long_texts_of_hdf5_are_not_read_all_at_once(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["images"] = stack()
        file["labels"] = np.array(["x" * 10_000, *"abcde"], object)
    assert "text of 10000 bytes" in refusal(tmp_path / "a.h5")


def test_a_file_may_take_a_limited_time(tmp_path):
    np.save(tmp_path / "a.npy", np.ones((200_000, 8, 8), np.uint8))
    images = read_images(tmp_path / "a.npy", limits=Limits(seconds=0.05))
    with pytest.raises(BadFileError, match=r"more than 0.05 s to read \(data.file_seconds\)"):
        list(images)


def test_the_time_of_the_reader_alone_counts():
    moments = iter((0.0, 0.4, 10.0, 10.4, 50.0, 50.4))
    items = Limits(seconds=1.0).timed(iter("abc"), clock=lambda: next(moments))
    assert [next(items), next(items)] == ["a", "b"]
    with pytest.raises(UnusableError):
        next(items)


_MEASURE = """
import resource, sys
from lensjax.files.image_files import BadFileError, read_images
import astropy.io.fits, h5py
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    for _ in read_images(sys.argv[1], "NHW"):
        pass
except BadFileError:
    pass
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 2**20)
"""


@pytest.mark.nightly
def test_the_memory_of_bombs_is_bounded(tmp_path):
    """Each would take 3 GiB and more, from a file of a few MB."""
    with (
        zipfile.ZipFile(tmp_path / "a.npz", "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open("images.npy", "w", force_zip64=True) as stream,
    ):
        header = {"descr": "<f4", "fortran_order": False, "shape": (800_000, 32, 32)}
        np.lib.format.write_array_header_1_0(stream, header)
        for _ in range(800):
            stream.write(bytes(4 * 1000 * 32 * 32))
    shape = (800_000, 32, 32)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("images", shape, "f4", chunks=(800_000, 8, 32), compression="gzip")
        for row in range(0, 32, 8):
            file["images"].id.write_direct_chunk((0, row, 0), b"damaged")
    with gzip.open(tmp_path / "a.fits.gz", "wb") as packed:
        for _ in range(3 * 2**10):
            packed.write(bytes(2**20))
    for name in ("a.npz", "a.h5", "a.fits.gz"):
        command = [sys.executable, "-c", _MEASURE, str(tmp_path / name)]
        grown = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        assert float(grown) < 1.5, name
