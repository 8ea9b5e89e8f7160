"""Images of any generator from a file: what is taken, and what is refused in which words."""

import dataclasses
import os

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
    with pytest.raises(DataError, match=r"images\.npy: "):
        read_images(tmp_path / "images.npy", EvaluateConfig(), INFO)
    assert not (tmp_path / "written_by_a_pickle").exists()


@pytest.mark.parametrize("content", [b"", b"\x93NUMPY\x01\x00", b"no array at all"])
def test_files_that_are_no_arrays_are_refused(tmp_path, content):
    (tmp_path / "images.npy").write_bytes(content)
    with pytest.raises(DataError, match=r"images\.npy: .*(is empty|is truncated|is text)"):
        read_images(tmp_path / "images.npy", EvaluateConfig(), INFO)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(DataError, match=r"--images=.*nothing\.npy does not exist"):
        read_images(tmp_path / "nothing.npy", EvaluateConfig(), INFO)


def test_a_few_images_are_a_stack_though_they_might_be_channels(tmp_path):
    for num in (2, 3, 4):
        np.save(tmp_path / "few.npy", IMAGES[:num, ..., 0])
        images, _ = read_images(tmp_path / "few.npy", EvaluateConfig(), INFO)
        np.testing.assert_array_equal(images, IMAGES[:num])


@pytest.mark.parametrize("channels", [3, 5])
def test_channels_stand_where_they_give_the_shape_of_the_set(tmp_path, channels):
    info = dataclasses.replace(INFO, image_shape=(16, 16, channels))
    colour = np.repeat(IMAGES, channels, axis=3) * np.arange(1, channels + 1, dtype=np.float32)
    for name, stored in (("last", colour), ("first", np.moveaxis(colour, -1, 1))):
        np.save(tmp_path / f"{name}.npy", stored)
        images, _ = read_images(tmp_path / f"{name}.npy", EvaluateConfig(), info)
        np.testing.assert_array_equal(images, colour)


def test_every_format_is_read_and_files_of_a_folder_stand_in_the_order_of_their_names(tmp_path):
    np.savez(tmp_path / "b.npz", images=IMAGES[1:5])
    (tmp_path / "c").mkdir()
    np.save(tmp_path / "c" / "x.npy", IMAGES[5])
    np.save(tmp_path / "a.npy", IMAGES[0, ..., 0])
    np.save(tmp_path / "labels.npy", LABELS[:6])
    images, labels = read_images(tmp_path, EvaluateConfig(), INFO)
    np.testing.assert_array_equal(images, IMAGES[:6])
    np.testing.assert_array_equal(labels, LABELS[:6])


def test_beside_images_npy_nothing_else_is_read(tmp_path):
    save(tmp_path)
    np.save(tmp_path / "more.npy", IMAGES)
    (tmp_path / "damaged.npz").write_bytes(b"no zip")
    assert len(read_images(tmp_path, EvaluateConfig(), INFO)[0]) == 7


def test_no_more_images_are_kept_than_are_judged(tmp_path):
    path = save(tmp_path)
    settings = EvaluateConfig(num_images=2)
    images, labels = read_images(path, settings, INFO)
    np.testing.assert_array_equal(images, IMAGES[:6])
    np.testing.assert_array_equal(labels, LABELS[:6])
    (tmp_path / "labels.npy").unlink()
    assert len(read_images(path, settings, INFO)[0]) == 6


def test_a_bad_image_is_named_though_it_would_not_be_judged(tmp_path):
    images = IMAGES.copy()
    images[6, 3, 3] = np.nan
    with pytest.raises(DataError, match=r"images\.npy \[6\]: pixels are NaN or infinite"):
        read_images(save(tmp_path, images), EvaluateConfig(num_images=2), INFO)
    np.save(tmp_path / "images.npy", IMAGES[:, :12])
    message = r"images\.npy \[0\]: got an image of shape \(12, 16, 1\); allowed: \[N, 16, 16, 1\]"
    with pytest.raises(DataError, match=message):
        read_images(tmp_path, EvaluateConfig(), INFO)


def test_a_pipe_and_numbers_beyond_float32_are_refused(tmp_path):
    os.mkfifo(tmp_path / "pipe.npy")
    with pytest.raises(DataError, match=r"pipe\.npy: is a device, not a file"):
        read_images(tmp_path / "pipe.npy", EvaluateConfig(), INFO)
    np.save(tmp_path / "huge.npy", np.full((3, 16, 16), 1e300))
    with pytest.raises(DataError, match=r"huge\.npy: .*beyond 3.4e38"):
        read_images(tmp_path / "huge.npy", EvaluateConfig(), INFO)


def test_advice_about_the_layout_of_data_sets_is_left_out(tmp_path):
    np.save(tmp_path / "five.npy", np.zeros((2, 2, 2, 9, 9), np.float32))
    with pytest.raises(DataError, match="looks like neither") as caught:
        read_images(tmp_path / "five.npy", EvaluateConfig(), INFO)
    assert "data.layout" not in str(caught.value)


REAL = np.random.default_rng(1).gamma(2.0, 1.0, (40, 16, 16, 1)).astype(np.float32)
EIGHT_BITS = np.round(255 * IMAGES / IMAGES.max(axis=(1, 2, 3), keepdims=True))


def test_images_in_other_units_are_refused_with_evidence_and_the_field(tmp_path):
    path = save(tmp_path, EIGHT_BITS.astype(np.uint8))
    message = (
        r"8-bit pictures.*total flux is .*; in the test images it is .* counts\. .*"
        r"Set evaluate\.image_scale=minmax.*evaluate\.image_factor=1 judges them as they are"
    )
    with pytest.raises(DataError, match=message) as caught:
        read_images(path, EvaluateConfig(), INFO, REAL)
    assert "train" not in str(caught.value)
    for settings in (EvaluateConfig(image_scale="minmax"), EvaluateConfig(image_factor=1.0)):
        np.testing.assert_array_equal(read_images(path, settings, INFO, REAL)[0], EIGHT_BITS)


def test_a_factor_is_divided_out(tmp_path):
    path = save(tmp_path, 500 * IMAGES)
    with pytest.raises(
        DataError, match=r"about 5\d\d times as bright.*evaluate.image_factor=5\d\d"
    ):
        read_images(path, EvaluateConfig(), INFO, REAL)
    images, _ = read_images(path, EvaluateConfig(image_factor=500.0), INFO, REAL)
    np.testing.assert_allclose(images, IMAGES, rtol=1e-6)


def test_a_maximum_of_one_is_no_flux_but_what_max_says(tmp_path):
    path = save(tmp_path, IMAGES / IMAGES.max(axis=(1, 2, 3), keepdims=True))
    with pytest.raises(DataError, match=r"each was divided by its maximum.*image_scale=max"):
        read_images(path, EvaluateConfig(), INFO, REAL)
    assert len(read_images(path, EvaluateConfig(image_scale="max"), INFO, REAL)[0]) == 7


def test_images_from_minus_one_to_one_are_not_what_max_says(tmp_path):
    low, high = (f(IMAGES, axis=(1, 2, 3), keepdims=True) for f in (np.min, np.max))
    path = save(tmp_path, 2 * (IMAGES - low) / (high - low) - 1)
    with pytest.raises(
        DataError, match=r"each was scaled to -1\.\.1, not like evaluate.image_scale=max"
    ):
        read_images(path, EvaluateConfig(image_scale="max"), INFO, REAL)


@pytest.mark.parametrize("factor", [1.0, 0.7, 1.3, 0.0])
def test_a_poor_generator_is_judged(tmp_path, factor):
    assert len(read_images(save(tmp_path, factor * IMAGES), EvaluateConfig(), INFO, REAL)[0]) == 7
