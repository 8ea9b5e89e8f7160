"""Images of any generator from a file: what is taken, and what is refused in which words."""

import dataclasses

import numpy as np
import pytest
from run_support import tiny_split

from lensjax.config import EvaluateConfig
from lensjax.errors import DataError
from lensjax.evaluation.given import check_images, labels_file, read_images

INFO = tiny_split().info  # 16 x 16 pixels, one channel, three classes
IMAGES = np.random.default_rng(0).gamma(2.0, 1.0, (7, 16, 16, 1)).astype(np.float32)
LABELS = np.arange(7) % 3


def save(folder, images=IMAGES, labels=LABELS):
    np.save(folder / "images.npy", images)
    if labels is not None:
        np.save(folder / "labels.npy", labels)
    return folder / "images.npy"


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8", "i4", "u1"])
@pytest.mark.parametrize("axes", [3, 4])
def test_numbers_of_any_kind_with_or_without_a_channel_are_taken(tmp_path, dtype, axes):
    given = (10 * IMAGES if axes == 4 else 10 * IMAGES[..., 0]).astype(dtype)
    images, labels = read_images(save(tmp_path, given), EvaluateConfig(), INFO)
    assert images.dtype == np.float32
    np.testing.assert_array_equal(images, given.reshape(7, 16, 16, 1).astype(np.float32))
    assert labels.dtype == np.int32
    np.testing.assert_array_equal(labels, LABELS)


def test_a_folder_stands_for_its_images(tmp_path):
    save(tmp_path)
    np.testing.assert_array_equal(read_images(tmp_path, EvaluateConfig(), INFO)[0], IMAGES)


def test_without_labels_all_have_the_null_label(tmp_path):
    _, labels = read_images(save(tmp_path, labels=None), EvaluateConfig(), INFO)
    np.testing.assert_array_equal(labels, 3)


def test_the_file_of_labels_may_lie_elsewhere(tmp_path):
    path = save(tmp_path)
    np.save(tmp_path / "other.npy", np.zeros(7, np.int64))
    settings = dataclasses.replace(EvaluateConfig(), labels=str(tmp_path / "other.npy"))
    np.testing.assert_array_equal(read_images(path, settings, INFO)[1], 0)


def test_it_is_known_beforehand_whether_there_are_labels(tmp_path):
    path = save(tmp_path, labels=None)
    other = dataclasses.replace(EvaluateConfig(), labels="other.npy")
    for named in (path, tmp_path):
        assert labels_file(named, EvaluateConfig()) is None
        assert str(labels_file(named, other)) == "other.npy"
    save(tmp_path)
    for named in (path, tmp_path):
        assert labels_file(named, EvaluateConfig()) == tmp_path / "labels.npy"


def test_labels_of_an_unlabelled_set_are_not_looked_for(tmp_path):
    info = dataclasses.replace(INFO, class_names=())
    _, labels = read_images(save(tmp_path), EvaluateConfig(), info)
    np.testing.assert_array_equal(labels, 0)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (IMAGES[:, :8], r"shape \(7, 8, 16, 1\); allowed: \[N, 16, 16, 1\]"),
        (np.repeat(IMAGES, 3, axis=3), r"shape \(7, 16, 16, 3\)"),
        (IMAGES[0], r"shape \(16, 16, 1\)"),
        (IMAGES[:1], "got 1 images; allowed: at least 2"),
        (IMAGES[:0], "got 0 images"),
        (np.where(IMAGES[4] == IMAGES, np.nan, IMAGES), "1 of 7 have .* the first is number 4"),
        (np.where(IMAGES[2] == IMAGES, np.inf, IMAGES), "1 of 7 have .* the first is number 2"),
        (IMAGES.astype(complex), "got complex128; allowed: real numbers"),
        (IMAGES.astype("U4"), "got <U4; allowed: real numbers"),
    ],
)
def test_unfit_images_are_refused(images, message):
    with pytest.raises(DataError, match=message):
        check_images(images, INFO, "--images=x.npy")


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (LABELS[:6], r"int64 \[6\]; allowed: integers \[7\]"),
        (LABELS.astype(float), r"float64 \[7\]"),
        (LABELS + 1, "from 1 to 3; allowed: 0 axion, 1 cdm, 2 no_sub"),
        (LABELS - 1, "from -1 to 1"),
    ],
)
def test_labels_that_do_not_fit_are_refused(tmp_path, labels, message):
    with pytest.raises(DataError, match=message):
        read_images(save(tmp_path, labels=labels), EvaluateConfig(), INFO)


class Runs:
    """A pickle of it would write a file."""

    def __reduce__(self):
        return (open, ("written_by_a_pickle", "w"))


def test_a_pickle_is_refused_and_not_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    np.save(tmp_path / "images.npy", np.array([Runs()], dtype=object), allow_pickle=True)
    with pytest.raises(DataError, match=r"--images .*images\.npy cannot be read"):
        read_images(tmp_path / "images.npy", EvaluateConfig(), INFO)
    assert not (tmp_path / "written_by_a_pickle").exists()


@pytest.mark.parametrize("content", [b"", b"\x93NUMPY\x01\x00", b"no array at all"])
def test_files_that_are_no_arrays_are_refused(tmp_path, content):
    (tmp_path / "images.npy").write_bytes(content)
    with pytest.raises(DataError, match="cannot be read"):
        read_images(tmp_path / "images.npy", EvaluateConfig(), INFO)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(DataError, match=r"--images .*nothing\.npy does not exist"):
        read_images(tmp_path / "nothing.npy", EvaluateConfig(), INFO)
