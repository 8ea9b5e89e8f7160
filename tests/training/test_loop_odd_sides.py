"""Runs on images of three bands and 41x41 pixels, which no patch divides, from training to use."""

import dataclasses
import json
from typing import Any

import numpy as np
import pytest
from PIL import Image
from run_support import OWN_SET, metrics_of, tiny_config, tiny_split

import lensjax
from lensjax.data.dataset import LensSplit
from lensjax.errors import ConfigError
from lensjax.run import writers
from lensjax.training import class_watch, monitor
from lensjax.training.loop import train

pytestmark = pytest.mark.usefixtures("quick_compiles")
SHAPE, BANDS = (41, 41, 3), ("g", "r", "i")
FACTORS = np.array([1.0, 10.0, 100.0], np.float32)  # bands differ in brightness


def split_of(num: int = 24, seed: int = 0) -> LensSplit:
    split = tiny_split(num, seed, shape=SHAPE, band_names=BANDS)
    images = split.images * FACTORS
    info = dataclasses.replace(split.info, minimum=0.0, maximum=float(images.max()))
    return dataclasses.replace(split, images=images, info=info)


def config_of(name: str, **model: Any):
    """A run of two steps on patches of 8 pixels, with a validation and a picture behind them."""
    every = dict.fromkeys(("sample_every", "evaluate_every", "checkpoint_every"), 2)
    settings = {"name": name, "patch_size": 8, **model}
    parts = (
        {"sample": {"grid_columns": 1}}
        if name == "dit"
        else {"classify": {"validation_share": 0.25}}
    )
    return tiny_config(data=OWN_SET, model=settings, train={"num_steps": 2, **every}, **parts)


@pytest.fixture(autouse=True)
def _plain(monkeypatch):
    """Leaves out TensorFlow, and the drawing of curves."""
    monkeypatch.setattr(writers, "_open_tensorboard", lambda folder: None)
    monkeypatch.setattr(monitor, "training_curves", lambda metrics: np.zeros((4, 4, 3), np.uint8))


def rows_of(workdir) -> float:
    """The number of rows in the picture of the last step."""
    with Image.open(workdir / "samples" / "step_00000002.png") as picture:
        return (picture.height / 100 - 0.1) / 1.02


def test_a_generator_is_trained_and_draws(tmp_path):
    state = train(config_of("dit"), tmp_path / "run", split_of(), split_of(12, seed=1))
    assert int(state.step) == 2
    lines = metrics_of(tmp_path / "run")
    assert all(np.isfinite(line["loss"]) for line in lines)
    assert np.isfinite(lines[-1]["validation/test_loss"])
    assert {f"score/cdm_{band}_flux" for band in BANDS} <= set(lines[-1])
    assert rows_of(tmp_path / "run") == pytest.approx(24, abs=0.1)  # 3 classes x (1 + 3) x 2
    assert json.loads((tmp_path / "run" / "dataset.json").read_text())["band_names"] == [*BANDS]


def test_an_autoencoder_is_trained_and_shows_whole_patches(tmp_path, monkeypatch):
    shown: list[tuple[Any, ...]] = []

    def keep(*arguments: Any) -> np.ndarray:
        shown.append(arguments)
        return np.zeros((4, 4, 3), np.uint8)

    monkeypatch.setattr(class_watch, "flux_rows", keep)
    train(config_of("mae"), tmp_path / "mae", split_of())
    line = metrics_of(tmp_path / "mae")[-1]
    assert np.isfinite([line["loss"], line["validation/loss"]]).all()
    ((rows, _, bands),) = shown
    assert bands == BANDS
    real, seen, found = (row.images for row in rows[:3])
    assert real.shape == seen.shape == found.shape
    kept = np.isclose(seen, real, rtol=1e-3).all(axis=-1)
    assert 0 < kept.mean() < 1
    np.testing.assert_allclose(found[kept], real[kept], rtol=1e-3)
    assert (kept[:, :8, :8] == kept[:, :1, :1]).all()  # patches are seen as a whole


def test_a_classifier_is_trained(tmp_path):
    train(config_of("vit"), tmp_path / "vit", split_of())
    line = metrics_of(tmp_path / "vit")[-1]
    assert np.isfinite([line["loss"], line["validation/loss"]]).all()


@pytest.mark.nightly
def test_a_generator_draws_and_an_encoder_begins_a_classifier(tmp_path):
    train(config_of("dit"), tmp_path / "dit", split_of())
    generator = lensjax.load(tmp_path / "dit")
    assert generator.band_names == BANDS
    images = generator.generate(num=2, steps=1)
    assert images.shape == (2, *SHAPE)
    assert np.isfinite(images).all()
    train(config_of("mae"), tmp_path / "mae", split_of())
    config = config_of("vit")
    start = dataclasses.replace(config.classify, start_from=str(tmp_path / "mae"))
    train(dataclasses.replace(config, classify=start), tmp_path / "vit", split_of())
    assert np.isfinite(metrics_of(tmp_path / "vit")[-1]["validation/loss"])
    swapped = dataclasses.replace(split_of().info, band_names=("i", "r", "g"))
    other = dataclasses.replace(split_of(), info=swapped)
    with pytest.raises(ConfigError, match="the bands i, r, g in this order; it saw g, r, i"):
        train(dataclasses.replace(config, classify=start), tmp_path / "other", other)
    classifier = lensjax.load(tmp_path / "vit")
    classes = classifier.classify(split_of(4).images)
    assert classes.probabilities.shape == (4, 3)
