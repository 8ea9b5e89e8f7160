"""`--mode=classify`: files, stacks and folders to a table, and what is refused."""

import csv
import dataclasses
import shutil

import numpy as np
import pytest
from run_support import CLASS_NAMES, SHARED_CLASSIFIER, SIDE, tiny_config, tiny_split

from lensjax.cli.classify_mode import CSV_FILE, classify_mode
from lensjax.errors import ConfigError, DataError
from lensjax.inference.classifier import load_classifier
from lensjax.inference.generator import load_generator

pytestmark = pytest.mark.usefixtures("quick_compiles")
IMAGES = tiny_split(10, seed=5).images[..., 0]


def config_with(**classify):
    changed = dataclasses.replace(SHARED_CLASSIFIER.classify, **classify)
    return dataclasses.replace(SHARED_CLASSIFIER, classify=changed)


@pytest.fixture(scope="module")
def trained(trained_classifier, tmp_path_factory):
    folder = tmp_path_factory.mktemp("classifier") / "run"
    shutil.copytree(trained_classifier, folder)
    return folder


def rows_of(trained, images, **settings):
    classify_mode(config_with(**settings), trained, images)
    path = trained / CSV_FILE
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def assert_says_what_the_classifier_says(rows, trained, images):
    found = load_classifier(trained).classify(images)
    assert [row["class"] for row in rows] == list(found.class_name)
    columns = ("probability", *(f"p_{name}" for name in CLASS_NAMES))
    written = np.array([[float(row[name]) for name in columns] for row in rows])
    wanted = np.column_stack([found.probability, found.probabilities])
    np.testing.assert_allclose(written, wanted, atol=1e-6)


def test_a_stack_has_a_row_an_image(trained, tmp_path, capsys):
    np.save(tmp_path / "stack.npy", IMAGES)
    rows = rows_of(trained, tmp_path / "stack.npy")
    assert [row["image"] for row in rows] == [f"stack.npy [{index}]" for index in range(10)]
    assert_says_what_the_classifier_says(rows, trained, IMAGES)
    printed = capsys.readouterr().out
    assert "stack.npy [9]" in printed
    assert printed.splitlines()[-1].startswith("10 images: axion ")


def test_one_image_is_a_file_too(trained, tmp_path):
    np.save(tmp_path / "one.npy", IMAGES[0])
    (row,) = rows_of(trained, tmp_path / "one.npy")
    assert row["image"] == "one.npy"


def test_a_folder_is_read_by_name_with_what_lies_below(trained, tmp_path):
    (tmp_path / "b" / "deep").mkdir(parents=True)
    np.save(tmp_path / "b" / "deep" / "1.npy", IMAGES[0])
    np.savez(tmp_path / "a.npz", images=IMAGES[4:9])
    np.save(tmp_path / "c.npy", IMAGES[3])
    (tmp_path / "notes.txt").write_text("no image")
    (tmp_path / ".hidden.npy").write_text("no image either")
    rows = rows_of(trained, tmp_path)
    names = [row["image"] for row in rows]
    assert names == [*(f"a.npz [{place}]" for place in range(5)), "b/deep/1.npy", "c.npy"]
    assert_says_what_the_classifier_says(rows, trained, IMAGES[[4, 5, 6, 7, 8, 0, 3]])


def test_axes_that_a_shape_does_not_tell_can_be_named(trained, tmp_path):
    np.save(tmp_path / "two.npy", IMAGES[:2])
    with pytest.raises(DataError, match=r"set classify\.layout=CHW .* or classify\.layout=NHW"):
        rows_of(trained, tmp_path / "two.npy")
    assert len(rows_of(trained, tmp_path / "two.npy", layout="NHW")) == 2


def test_published_files_are_divided_by_their_factor(trained, tmp_path):
    np.save(tmp_path / "stack.npy", IMAGES)
    classifier = load_classifier(trained)
    np.save(tmp_path / "scaled.npy", IMAGES * np.float32(classifier.published_scale))
    plain = rows_of(trained, tmp_path / "stack.npy")
    scaled = rows_of(trained, tmp_path / "scaled.npy", image_scale="published")
    for one, other in zip(plain, scaled, strict=True):
        assert float(one["probability"]) == pytest.approx(float(other["probability"]), abs=1e-5)


def test_a_factor_is_divided_out(trained, tmp_path):
    np.save(tmp_path / "stack.npy", IMAGES)
    np.save(tmp_path / "scaled.npy", -1000 * IMAGES)
    plain = rows_of(trained, tmp_path / "stack.npy")
    scaled = rows_of(trained, tmp_path / "scaled.npy", image_factor=-1000.0)
    for one, other in zip(plain, scaled, strict=True):
        assert float(one["probability"]) == pytest.approx(float(other["probability"]), abs=1e-4)


def test_images_unlike_the_training_images_are_said_to_be(trained, tmp_path, capsys):
    images = IMAGES.copy()
    images[7] *= 1e4
    images[8] = 0
    np.save(tmp_path / "stack.npy", images)
    rows = rows_of(trained, tmp_path / "stack.npy")
    assert [index for index, row in enumerate(rows) if row["outside"]] == [7, 8]
    assert "in training" in rows[7]["outside"]
    printed = capsys.readouterr().out
    assert printed.count(") outside") == 2
    warning = printed.splitlines()[-1]
    assert warning.startswith("2 of 10 images are unlike the training images (column outside)")
    assert "the first is stack.npy [7]: " in warning
    assert "classify.image_factor" in warning


def test_images_of_another_size_are_offered_a_resize(trained, tmp_path):
    larger = np.kron(IMAGES[:5], np.ones((2, 2), np.float32)) / 4  # the same flux
    np.save(tmp_path / "larger.npy", larger)
    with pytest.raises(DataError, match=rf"larger.npy \[0\].*got {2 * SIDE}x.*resize=True"):
        rows_of(trained, tmp_path / "larger.npy")
    assert not list(trained.glob("*.partial"))
    rows = rows_of(trained, tmp_path / "larger.npy", resize=True)
    resized = load_classifier(trained).classify(larger, resize=True)
    assert [row["class"] for row in rows] == list(resized.class_name)


def test_images_of_unlike_size_in_one_folder(trained, tmp_path):
    np.save(tmp_path / "a.npy", IMAGES[0])
    np.save(tmp_path / "b.npy", np.pad(IMAGES[1], 2))
    np.save(tmp_path / "c.npy", IMAGES[2])
    rows = rows_of(trained, tmp_path, resize=True)
    assert [row["image"] for row in rows] == ["a.npy", "b.npy", "c.npy"]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "does not exist"),
        ("folder", "holds no images"),
        (b"text and nothing else", "is text"),
        (np.full((SIDE, SIDE), np.nan), "NaN or infinite"),
        (np.zeros((2, SIDE, SIDE), complex), "complex"),
    ],
)
def test_what_cannot_be_classified_is_named(trained, tmp_path, content, words):
    path = tmp_path / "x.npy"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif isinstance(content, np.ndarray):
        np.save(path, content)
    elif content == "folder":
        path.mkdir()
    (trained / CSV_FILE).unlink(missing_ok=True)
    with pytest.raises(DataError, match=words):
        classify_mode(config_with(), trained, path)
    assert not list(trained.glob(f"*{CSV_FILE}*"))


def test_a_generator_does_not_classify_nor_a_classifier_generate(trained, tmp_path):
    with pytest.raises(ConfigError, match="is a classifier; allowed: the workdir of a generator"):
        load_generator(trained)
    with pytest.raises(ConfigError, match="this network generates images; allowed"):
        load_classifier(tmp_path, tiny_config())
