"""Floors, limits and power of Frechet distances at the number of images that is judged."""

import dataclasses
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from run_support import tiny_split

from lensjax.config import EvaluateConfig
from lensjax.data.dataset import LensSplit
from lensjax.evaluation import feature_measures
from lensjax.evaluation.checks import check_row
from lensjax.evaluation.real import first_places
from lensjax.evaluation.rows import Row, Setting
from lensjax.metrics.frechet import Moments, frechet_distance

NUM, NUM_TRAIN = 60, 400  # a class


class Extractor:
    """Eight pixels as features."""

    name, layer, num_features, hash = "pixels", "all", 8, "0"

    def __call__(self, images):
        return images.reshape(len(images), -1)[:, :8].astype(np.float32)


def noise(num: int, seed: int) -> LensSplit:
    split = tiny_split(3 * num, seed)
    images = np.random.default_rng(seed).normal(size=split.images.shape).astype(np.float32)
    return dataclasses.replace(split, images=images)


TEST, TRAIN = noise(NUM, 1), noise(NUM_TRAIN, 2)


class Splits:
    test, per_class = TEST, NUM

    def train(self, num):
        places = first_places(TRAIN, num)
        return dataclasses.replace(
            TRAIN,
            images=TRAIN.images[places],
            labels=TRAIN.labels[places],
            parameters=TRAIN.parameters[places],
        )


@pytest.fixture
def judged(tmp_path, monkeypatch):
    """Judges images by the Frechet distance of their pixels."""
    splits: Any = Splits()
    setting = Setting(TEST.info, None, EvaluateConfig(), NUM, tmp_path, splits)
    real = Row("real", TEST.images, TEST.labels, setting)
    # The control of a set without a simulator is blurred, which white noise shows.
    levels = {"as they are": None}

    def judge(images: np.ndarray, labels: np.ndarray) -> dict[str, Any]:
        row = Row("given", images, labels, setting)
        return feature_measures._scores(Extractor(), row, real, levels, setting)["as they are"]

    return SimpleNamespace(judge=judge, setting=setting, cache=tmp_path)


def some(per_class: list[int], seed: int) -> tuple[np.ndarray, np.ndarray]:
    split = noise(max(per_class), seed)
    places = np.concatenate(
        [np.flatnonzero(split.labels == label)[:n] for label, n in enumerate(per_class)]
    )
    return split.images[places], split.labels[places]


def test_few_images_are_judged_beside_sets_as_small(judged):
    """Beside the floor of as many as are real, any ten images would be at fault."""
    few, all_of = (judged.judge(*some([n] * 3, seed=5)) for n in (10, NUM))
    assert few["overall"]["floor_mean"] > 1.5 * all_of["overall"]["floor_mean"]
    for name in ("overall", *TEST.info.class_names):
        assert few[name]["p"] > 0.01
        assert few[name]["floor_sets"] == all_of[name]["floor_sets"] == 6
        assert abs(few[name]["z"]) < 4
    wrong = (few["overall"]["frechet"] - all_of["overall"]["floor_mean"]) / all_of["overall"][
        "floor_sd"
    ]
    assert wrong > 6


def test_each_class_has_the_floor_of_its_own_number(judged):
    found = judged.judge(*some([12, 48, 24], seed=6))
    names = TEST.info.class_names
    floors = [found[name]["floor_mean"] for name in names]
    assert floors[0] > floors[2] > floors[1]
    assert all(score["p"] > 0.01 for score in found.values())
    # The floor, by hand, of the second class.
    train = TRAIN.images[TRAIN.labels == 1].reshape(NUM_TRAIN, -1)[:, :8]
    reference = Moments.of(TEST.images[TEST.labels == 1].reshape(NUM, -1)[:, :8])
    by_hand = [
        frechet_distance(reference, Moments.of(part)) for part in train[: 8 * 48].reshape(8, 48, 8)
    ]
    assert floors[1] == pytest.approx(np.mean(by_hand), rel=0.25)


def test_the_cache_keeps_each_number_apart(judged):
    first = judged.judge(*some([10] * 3, seed=7))
    files = set(judged.cache.iterdir())
    judged.judge(*some([11] * 3, seed=7))
    assert len(set(judged.cache.iterdir()) - files) == 1  # floors; the real features are the same
    assert judged.judge(*some([10] * 3, seed=7)) == first


def test_images_of_one_class_alone_are_compared_with_that_class(judged):
    images, labels = some([0, 40, 0], seed=8)
    found = judged.judge(images, labels)
    assert set(found) == {"overall", TEST.info.class_names[1]}
    unlabelled = judged.judge(images, np.full(len(images), 3, np.int32))
    assert set(unlabelled) == {"overall"}


def test_power_is_whether_the_control_would_be_seen(judged, monkeypatch):
    found = judged.judge(*some([40] * 3, seed=9))
    assert found["overall"]["has_power"]  # blurred noise has a fifth of the variance
    blind = Row("control", TRAIN.images[:360], TRAIN.labels[:360], judged.setting)
    monkeypatch.setattr(feature_measures, "control_row", lambda setting, count: blind)
    other = judged.judge(*some([39] * 3, seed=9))
    assert not other["overall"]["has_power"]
    results = {"lens_features": {"rows": {"given": {"as they are": other}}}}
    outcomes = {check.outcome for check in check_row(results, "given", None)}
    assert outcomes == {"no power"}
    far = judged.judge(5 + some([39] * 3, seed=9)[0], some([39] * 3, seed=9)[1])
    results = {"lens_features": {"rows": {"given": {"as they are": far}}}}
    assert {check.outcome for check in check_row(results, "given", None)} == {"missed"}
