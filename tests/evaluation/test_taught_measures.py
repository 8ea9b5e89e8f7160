"""Classifiers taught by a row: who is trained on what, and what their numbers say."""

import dataclasses
import tempfile
from typing import Any

import numpy as np
import pytest
from run_support import captured_log, tiny_split
from scipy import stats

from lensjax.config import EvaluateConfig
from lensjax.data.catalogue import SIMULATED_SETS
from lensjax.data.dataset import LensSplit
from lensjax.evaluation import taught_measures
from lensjax.evaluation.checks import check_row
from lensjax.evaluation.real import first_places
from lensjax.evaluation.rows import Row, Setting
from lensjax.evaluation.taught_measures import (
    LEAST_IMAGES,
    Lesson,
    missing,
    probability_of_so_low,
    taught,
)
from lensjax.metrics.classification import score
from lensjax.metrics.two_sample import LEVEL

pytestmark = pytest.mark.usefixtures("quick_compiles")
NUM, NUM_TRAIN = 24, 75  # a class
LESSON = Lesson(num_steps=40, batch_size=24, width=8, num_controls=3)
TEST, TRAIN = tiny_split(3 * NUM, seed=1), tiny_split(3 * NUM_TRAIN, seed=2)


class Splits:
    """Stands for the splits of a set on disk."""

    def __init__(self, test: LensSplit, train: LensSplit) -> None:
        self.test, self._train, self.per_class = test, train, NUM

    def train(self, num):
        places = first_places(self._train, num)
        return dataclasses.replace(
            self._train,
            images=self._train.images[places],
            labels=self._train.labels[places],
            parameters=self._train.parameters[places],
        )


def setting_of(folder, *, simulated=None, labelled=True, test=TEST, train=TRAIN, **settings):
    splits: Any = Splits(test, train)
    evaluate = dataclasses.replace(EvaluateConfig(), **settings)
    return Setting(test.info, simulated, evaluate, NUM, folder, splits, labelled=labelled)


def row_of(name, split, setting, labels=None):
    return Row(name, split.images, split.labels if labels is None else labels, setting)


class Note:
    """Takes the place of a training: remembers its images and recognises every test image."""

    def __init__(self, monkeypatch) -> None:
        self.rows: list[tuple[Row, int]] = []
        monkeypatch.setattr(taught_measures, "_scores", self)

    def __call__(self, row, real, seed, setting, lesson):
        self.rows.append((row, seed))
        perfect = np.eye(3, dtype=np.float32)[real.labels]
        return {"as they are": score(real.labels, perfect, setting.info.class_names)}


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """Numbers of real rows and of known faults, the lines that were logged, and what was left."""
    setting = setting_of(tmp_path_factory.mktemp("cache"))
    fresh = tiny_split(3 * NUM, seed=3)
    shuffled = np.random.default_rng(0).permutation(fresh.labels)
    rows = {
        "fresh": row_of("fresh", fresh, setting),
        "shuffled": row_of("shuffled", fresh, setting, shuffled),
        "black": Row("black", np.zeros_like(fresh.images), fresh.labels, setting),
    }
    real = row_of("real", TEST, setting)
    with pytest.MonkeyPatch.context() as patch, captured_log() as lines:
        patch.setattr(tempfile, "tempdir", str(tmp_path_factory.mktemp("temporary")))
        found = {name: taught(row, real, setting, LESSON) for name, row in rows.items()}
        found["real"] = taught(real, real, setting, LESSON)
        left = sorted(tmp_path_factory.getbasetemp().glob("temporary*/*"))
    return found, lines, left


def outcomes(results, name):
    measured = {"taught": {"status": "measured", "rows": results}}
    return {one.name: one.outcome for one in check_row(measured, name, None)}


@pytest.mark.nightly
def test_fresh_real_images_teach_as_real_ones_do(results):
    assert outcomes(results[0], "fresh") == {"taught, as they are: accuracy": "met"}
    assert results[0]["fresh"]["as they are"]["accuracy"] > 0.9


@pytest.mark.nightly
@pytest.mark.parametrize("name", ["shuffled", "black"])
def test_images_that_teach_nothing_miss_the_goal(results, name):
    assert outcomes(results[0], name) == {"taught, as they are: accuracy": "missed"}


@pytest.mark.nightly
def test_without_contrast_the_classes_are_guessed(results):
    black = results[0]["black"]["as they are"]
    assert black["accuracy"] == pytest.approx(1 / 3)
    assert black["auc"] == 0.5


@pytest.mark.nightly
def test_each_row_stands_beside_the_trainings_on_real_images(results):
    real = results[0]["real"]["as they are"]
    for name in ("fresh", "shuffled", "black"):
        row = results[0][name]["as they are"]
        assert {part: row[f"real_{part}"] for part in real if part != "num_images"} == {
            part: value for part, value in real.items() if part != "num_images"
        }
        assert row["num_images"] == real["num_images"] == 3 * NUM
        assert set(row["recall"]) == set(TEST.info.class_names)
        assert np.mean(list(row["recall"].values())) == pytest.approx(row["accuracy"])


@pytest.mark.nightly
def test_nothing_is_logged_and_nothing_left_behind(results):
    _, lines, left = results
    assert lines == []
    assert left == []


def test_controls_have_as_many_images_of_each_class_and_none_in_common(tmp_path, monkeypatch):
    setting, note = setting_of(tmp_path, seed=7), Note(monkeypatch)
    real = row_of("real", TEST, setting)
    known = np.flatnonzero(TEST.labels != 2)  # a class is missing, another has fewer images
    chosen = np.setdiff1d(known, np.flatnonzero(TEST.labels == 1)[20:])
    few = Row("few", TEST.images[chosen], TEST.labels[chosen], setting)
    taught(few, real, setting, LESSON)
    *controls, (judged, seed) = note.rows
    np.testing.assert_array_equal(np.bincount(judged.labels, minlength=3), [20, 20, 0])
    assert [one for _, one in controls] == [7, 8, 9]
    assert seed == 7
    for row, _ in controls:
        np.testing.assert_array_equal(np.bincount(row.labels), [20, 20, 20])
    images = np.concatenate([row.images for row, _ in controls])
    assert len(np.unique(images.reshape(len(images), -1), axis=0)) == len(images) == 3 * 60
    pool = {image.tobytes() for image in TRAIN.images}
    assert all(image.tobytes() in pool for image in images)


def test_trainings_on_real_images_are_kept(tmp_path, monkeypatch):
    setting, note = setting_of(tmp_path), Note(monkeypatch)
    real = row_of("real", TEST, setting)
    first = taught(real, real, setting, LESSON)
    assert len(note.rows) == LESSON.num_controls
    assert taught(real, real, setting, LESSON) == first
    assert len(note.rows) == LESSON.num_controls
    taught(real, real, setting, LESSON._replace(num_steps=41))
    assert len(note.rows) == 2 * LESSON.num_controls


@pytest.mark.parametrize("scale", ["max", "minmax"])
def test_scaled_images_and_real_ones_are_trained_on_alike(tmp_path, monkeypatch, scale):
    setting, note = setting_of(tmp_path, image_scale=scale), Note(monkeypatch)
    row = Row("given", 7 * TEST.images, TEST.labels, setting)
    taught(row, row_of("real", TEST, setting), setting, LESSON)
    assert len(note.rows) == LESSON.num_controls + 1
    for trained, _ in note.rows:
        np.testing.assert_allclose(trained.images.max(axis=(1, 2, 3)), 1.0)


class StopError(Exception):
    """Ends a training before it begins."""


@pytest.mark.parametrize(
    ("name", "num_levels", "augmentation"),
    [
        (None, 1, "none"),
        ("deeplense/model_i_noisy", 1, "rotate_180"),
        *[(name, 3, "rotate_180") for name in ("deeplense/model_i", "deeplense/model_ii")],
    ],
)
def test_networks_are_trained_behind_every_noise_that_they_are_asked_behind(
    tmp_path, monkeypatch, name, num_levels, augmentation
):
    setting = setting_of(tmp_path, simulated=SIMULATED_SETS.get(name))
    row = row_of("given", TEST, setting)
    seen = []

    def note(config, workdir, split, *, quiet):
        seen.append((config, split, quiet))
        raise StopError

    monkeypatch.setattr(taught_measures, "train", note)
    with pytest.raises(StopError):
        taught_measures._train(row, 5, setting, LESSON)
    ((config, split, quiet),) = seen
    assert len(split) == num_levels * len(row.labels)
    np.testing.assert_array_equal(split.images[: len(row.labels)], row.images)
    np.testing.assert_array_equal(split.labels, np.tile(row.labels, num_levels))
    parts = split.images.reshape(num_levels, -1)
    assert len(np.unique(parts, axis=0)) == num_levels
    assert (config.data.augmentation, config.seed, quiet) == (augmentation, 5, True)


@pytest.mark.parametrize(("side", "patch"), [(16, 2), (64, 8), (150, 19), (5, 1)])
def test_images_of_any_size_become_about_as_many_patches(tmp_path, side, patch):
    setting = setting_of(tmp_path)
    info = dataclasses.replace(setting.info, image_shape=(side, side, 1))
    config = taught_measures._config(dataclasses.replace(setting, info=info), 60, 0, LESSON)
    assert config.model.patch_size == patch


def test_every_class_must_have_enough_images(tmp_path):
    setting = setting_of(tmp_path)
    real = row_of("real", TEST, setting)
    few = Row(
        "few", TEST.images[: 3 * LEAST_IMAGES - 1], TEST.labels[: 3 * LEAST_IMAGES - 1], setting
    )
    assert taught(few, real, setting, LESSON) == {
        "as they are": {"num_images": 3 * LEAST_IMAGES - 1}
    }
    assert outcomes({"few": taught(few, real, setting, LESSON)}, "few") == {
        "taught, as they are: accuracy": "no power"
    }
    unlabelled = Row("some", TEST.images, np.full(len(TEST), 3, np.int32), setting)
    assert taught(unlabelled, real, setting, LESSON) == {}


def test_what_is_missing_is_said(tmp_path):
    assert missing(setting_of(tmp_path), LESSON) is None
    plain = {"test": tiny_split(72, class_names=()), "train": tiny_split(300, class_names=())}
    assert "fewer than two classes" in str(missing(setting_of(tmp_path, **plain), LESSON))
    words = str(missing(setting_of(tmp_path, labelled=False), LESSON))
    assert "labels.npy" in words
    short = setting_of(tmp_path, train=tiny_split(3 * 59, seed=2))
    words = str(missing(short, LESSON))
    assert "it needs 20 images per class" in words
    assert words.endswith("there are 24 and 59")
    assert missing(setting_of(tmp_path, train=tiny_split(3 * 60, seed=2)), LESSON) is None
    assert "there are 19 and" in str(missing(dataclasses.replace(short, per_class=19), LESSON))


def known(accuracies, error=0.0):
    return {
        "accuracy": float(np.mean(accuracies)),
        "accuracy_deviation": float(np.std(accuracies, ddof=1)),
        "accuracy_error": error,
    }


@pytest.mark.parametrize("accuracy", [0.95, 0.9, 0.87, 0.7])
def test_the_probability_is_that_of_one_more_draw(accuracy):
    accuracies = [0.90, 0.91, 0.88, 0.93, 0.89]
    expected = stats.ttest_ind([accuracy], accuracies, equal_var=True, alternative="less").pvalue
    assert probability_of_so_low(accuracy, known(accuracies), 5) == pytest.approx(expected)


def test_trainings_that_agree_by_chance_are_not_taken_for_exact():
    alike = known([1.0] * 6, error=0.003)
    assert probability_of_so_low(0.99, alike, 6) > LEVEL
    assert probability_of_so_low(0.97, alike, 6) < LEVEL
    assert probability_of_so_low(1.0, alike, 6) == 0.5
