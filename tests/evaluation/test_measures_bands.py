"""Images of several bands are judged in all of them: a fault in any band is found and named."""

import dataclasses
import functools
import json
import re
import types
from typing import Any

import numpy as np
import pytest
from run_support import OWN_SET, tiny_config, tiny_split

from lensjax.config import EvaluateConfig
from lensjax.data.dataset import LensSplit
from lensjax.evaluation import evaluate_generator as mode
from lensjax.evaluation import feature_measures, memory_measures, report, shape_measures
from lensjax.evaluation.checks import check_row
from lensjax.evaluation.evaluate_generator import evaluate_generator
from lensjax.evaluation.judge_measures import c2st
from lensjax.evaluation.real import RealImages, first_places
from lensjax.evaluation.rows import Row, Setting
from lensjax.evaluation.taught_measures import Lesson, taught
from lensjax.metrics.inception_features import to_bytes
from lensjax.metrics.two_sample import LEVEL
from lensjax.run import datasets

pytestmark = pytest.mark.usefixtures("quick_compiles")
BANDS, SHAPE = ("g", "r", "i"), (13, 11, 3)
NUM, NUM_TRAIN = 40, 120  # a class


def lenses(num: int, seed: int) -> LensSplit:
    """Two classes of rings in three bands: one of each brightness, and red ones and blue ones."""
    split = tiny_split(2 * num, seed, ("a", "b"), SHAPE, BANDS)
    random = np.random.default_rng(seed)
    y, x = np.mgrid[-6:7, -5:6]
    radius = 3.0 + 0.7 * split.labels + 0.3 * random.normal(size=2 * num)
    ring = np.exp(-((np.hypot(x, y)[None] - radius[:, None, None]) ** 2))
    brightness = np.exp(0.3 * random.normal(size=(2 * num, 1)))
    colour = np.exp(0.2 * random.normal(size=(2 * num, 3))) * (1.0, 10.0, 100.0)
    noise = random.normal(size=(2 * num, *SHAPE)) * (0.02, 0.2, 2.0)
    images = (ring[..., None] * (brightness * colour)[:, None, None] + noise).astype(np.float32)
    info = dataclasses.replace(
        split.info, split_sizes={"train": 2 * num, "test": 2 * num}, name="deeplense/folder"
    )
    return dataclasses.replace(split, images=images, info=info)


TEST, TRAIN, FRESH = lenses(NUM, 1), lenses(NUM_TRAIN, 2), lenses(NUM, 3)


class Splits:
    """Stands for the splits of a set on disk."""

    info, test, per_class = TEST.info, TEST, NUM

    def train(self, num):
        places = first_places(TRAIN, num)
        images, labels = TRAIN.images[places], TRAIN.labels[places]
        return dataclasses.replace(
            TRAIN, images=images, labels=labels, parameters=TRAIN.parameters[places]
        )


def setting_of(folder, **settings) -> Setting:
    evaluate = dataclasses.replace(EvaluateConfig(), train_images=NUM_TRAIN, **settings)
    splits: Any = Splits()
    return Setting(TEST.info, None, evaluate, NUM, folder, splits)


def rows_of(folder, images=FRESH.images, **settings) -> tuple[Row, Row, Setting]:
    setting = setting_of(folder, **settings)
    row = Row("given", images, FRESH.labels, setting)
    return row, Row("real", TEST.images, TEST.labels, setting), setting


def in_band(band: int, change) -> np.ndarray:
    images = FRESH.images.copy()
    images[..., band] = change(images[..., band])
    return images


def test_each_band_has_its_shapes_and_neighbours_have_a_colour(tmp_path):
    found = shape_measures.shapes(*rows_of(tmp_path))
    assert set(found) == {"a", "b"}
    names = set(found["a"])
    for band in BANDS:
        assert {f"total_flux ({band})", f"gini ({band})", f"power_spectrum ({band})"} <= names
    assert {name for name in names if "colour" in name} == {"colour (g - r)", "colour (r - i)"}
    assert len(names) == 3 * 23 + 2 + 1
    assert all(group["largest"]["p"] >= LEVEL for group in found.values())
    unnamed = setting_of(tmp_path)
    info = dataclasses.replace(unnamed.info, band_names=())
    assert dataclasses.replace(unnamed, info=info).info.bands == ("band 1", "band 2", "band 3")


def test_one_band_has_the_names_that_it_always_had(tmp_path):
    info = dataclasses.replace(TEST.info, image_shape=(13, 11, 1), band_names=("g",))
    setting = dataclasses.replace(setting_of(tmp_path), info=info)
    row = Row("given", FRESH.images[..., :1], FRESH.labels, setting)
    found = shape_measures.shapes(row, row, setting)["a"]
    assert {"total_flux", "gini", "mode_8", "radial_profile", "power_spectrum"} <= set(found)
    assert not any("(" in name for name in found)
    assert "bands" not in shape_measures.protocol(setting)
    assert "RMS" not in memory_measures.protocol_of_neighbours(setting)["distance"]


def test_a_fault_in_one_band_is_found_and_named(tmp_path):
    row, real, setting = rows_of(tmp_path, in_band(1, lambda plane: 3 * plane))
    rows = {"given": shape_measures.shapes(row, real, setting)}
    goals = check_row({"shapes": {"rows": rows}}, "given", None)
    assert [goal.outcome for goal in goals] == ["missed", "missed"]
    assert all("(r)" in goal.name or "colour" in goal.name for goal in goals)
    for other in "gi":
        assert rows["given"]["a"][f"total_flux ({other})"]["wasserstein_p"] >= LEVEL


@functools.cache
def mixed() -> np.ndarray:
    """Images whose last band belongs to another image of the class: each band alone is perfect."""
    images = FRESH.images.copy()
    for label in range(2):
        places = np.flatnonzero(FRESH.labels == label)
        images[places, ..., 2] = FRESH.images[np.roll(places, 1), ..., 2]
    return images


def test_bands_that_do_not_belong_together_have_other_colours(tmp_path):
    _, _, setting = rows_of(tmp_path)
    ours, theirs = (
        shape_measures.colours_of(x[TEST.labels == 0], TEST.images[TEST.labels == 0], setting)
        for x in (mixed(), TEST.images)
    )
    assert ours["colour (r - i)"].std() > 1.3 * theirs["colour (r - i)"].std()
    assert ours["colour (g - r)"].std() == pytest.approx(theirs["colour (g - r)"].std(), rel=0.4)


@pytest.mark.nightly
def test_a_network_tells_bands_that_do_not_belong_together(tmp_path):
    row, real, setting = rows_of(tmp_path, mixed())
    fresh = rows_of(tmp_path)[0]
    shuffled, fine = (c2st(x, real, setting)["as they are"]["accuracy"] for x in (row, fresh))
    assert shuffled > 0.8
    assert abs(fine - 0.5) < 0.2


@pytest.mark.parametrize(
    ("scale", "has_colours"), [("flux", True), ("max", True), ("minmax", False)]
)
def test_colours_need_the_zero_of_the_flux(tmp_path, scale, has_colours):
    row, real, setting = rows_of(tmp_path, image_scale=scale)
    assert bool(shape_measures.colours_of(row.images, real.images, setting)) == has_colours


def test_copies_and_twins_are_looked_for_in_all_bands(tmp_path):
    """An image that is copied in its first band alone is another image."""
    copied, first = FRESH.images.copy(), FRESH.images.copy()
    collapsed, same = FRESH.images.copy(), FRESH.images.copy()
    for label in range(2):
        places, originals = (np.flatnonzero(s.labels == label) for s in (FRESH, TRAIN))
        copied[places] = TRAIN.images[originals[:NUM]]
        first[places, ..., 0] = copied[places, ..., 0]
        collapsed[places] = FRESH.images[places[0]]
        same[places, ..., 0] = collapsed[places, ..., 0]
    fine, real, setting = rows_of(tmp_path)
    wrong, right = (Row("given", x, FRESH.labels, setting) for x in (copied, first))
    for row, identical in ((wrong, NUM), (right, 0), (fine, 0)):
        found = memory_measures.copies(row, real, setting)
        assert [score["identical"] for score in found.values()] == [identical] * 2
    wrong, right = (Row("given", x, FRESH.labels, setting) for x in (collapsed, same))
    for row, share in ((wrong, 1.0), (right, 0.9), (fine, 0.3)):
        for score in memory_measures.twins(row, real, setting).values():
            assert score["num_twins"] <= share * score["num_images"]
            assert (score["num_twins"] == NUM) == (row is wrong)


def test_the_unit_of_a_band_does_not_decide_which_images_are_near():
    images = FRESH.images[:6]
    other = images * np.array([1e4, 1.0, 1e-3], np.float32)
    found, expected = (memory_measures._balanced(x, x) for x in (other, images))
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    one = images[..., :1]
    assert memory_measures._balanced(one, one) is one


@pytest.mark.nightly
def test_a_classifier_is_taught_in_all_bands(tmp_path):
    row, real, setting = rows_of(tmp_path)
    lesson = Lesson(num_steps=20, batch_size=16, width=8, num_controls=2)
    found = taught(row, real, setting, lesson)["as they are"]
    assert 0 <= found["accuracy"] <= 1
    assert found["num_images"] == 2 * NUM


def test_inception_takes_three_bands_as_colours_and_no_other_number(tmp_path, monkeypatch):
    setting = setting_of(tmp_path, download=False)
    info = dataclasses.replace(setting.info, image_shape=(13, 11, 4))
    four = dataclasses.replace(setting, info=info)
    assert feature_measures.inception_missing(four) == (
        "Inception takes 1 or 3 channels; the images have 4"
    )
    network = types.SimpleNamespace(name="inception", layer="pool", hash="0")
    monkeypatch.setattr(feature_measures, "_inception", lambda *arguments: network)
    assert "red, green and blue" in feature_measures.protocol_of_inception(setting)["map"]
    # Each band fills the eight bits, or a faint one would be black.
    np.testing.assert_allclose(setting.flux_limits, TEST.images.max(axis=(0, 1, 2)))
    pixels = to_bytes(TEST.images, setting.flux_limits)
    np.testing.assert_array_equal(pixels.max(axis=(0, 1, 2)), 255)


def test_a_report_names_the_bands(tmp_path, monkeypatch, capsys):
    """All of `--mode=evaluate`, with the measures that any set has; pictures take longest."""
    splits = {"train": TRAIN, "test": TEST}
    prepared = types.SimpleNamespace(open_split=splits.__getitem__)
    monkeypatch.setattr(datasets, "prepare", lambda data: prepared)
    monkeypatch.setattr(mode, "show", lambda *arguments: None)
    titles: list[str] = []
    blank = np.zeros((4, 4, 3), np.uint8)

    def histograms(panels, logarithmic=()):
        titles.extend(panels)
        return blank

    monkeypatch.setattr(report.pictures, "histograms", histograms)
    monkeypatch.setattr(report.pictures, "curves", lambda panels: blank)
    monkeypatch.setattr(report, "_GRID_COLUMNS", 1)
    images = in_band(1, lambda plane: 3 * plane)
    np.save(tmp_path / "images.npy", images)
    np.save(tmp_path / "labels.npy", FRESH.labels)
    evaluate = {"measures": "shapes,copies,twins", "cache": str(tmp_path), "num_images": NUM}
    evaluate |= {"train_images": NUM_TRAIN, "download": False, "baselines": False}
    config = tiny_config(data=OWN_SET, model={"num_classes": 2}, evaluate=evaluate)
    evaluate_generator(config, tmp_path / "run", tmp_path / "images.npy")
    content = json.loads((tmp_path / "run" / "evaluation" / "metrics.json").read_text())
    assert content["protocol"]["bands"] == [*BANDS]
    assert content["measures"]["shapes"]["protocol"]["bands"] == [*BANDS]
    of_r = re.compile(r"\(r\)|colour \((g - r|r - i)\)")
    assert of_r.search(capsys.readouterr().out)
    assert of_r.search(content["verdict"][-1])
    page = (tmp_path / "run" / "evaluation" / "report.html").read_text()
    for words in ("3 bands: g, r, i", "a (r)", "colour (r - i)", "Distributions: a (g)"):
        assert words in page, words
    assert "Profile and spectrum: b (i)" in page
    assert "i is red, r green and g blue" in page
    assert "colour (g - r)" in titles


def test_real_images_keep_their_bands():
    prepared: Any = types.SimpleNamespace(open_split={"train": TRAIN, "test": TEST}.__getitem__)
    real = RealImages(tiny_config(evaluate={"num_images": 4}), prepared)
    assert real.test.images.shape == (8, *SHAPE)
