"""`--mode=evaluate` of a classifier: numbers, pictures, noise, the conserved set, the baseline."""

import functools
import json
import re
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from run_support import OWN_SET, saved_run, tiny_config, tiny_split

from lensjax import prng
from lensjax.data.dataset import DatasetInfo, LensSplit
from lensjax.data.simulator import CLASS_NAMES, simulate
from lensjax.data.surveys import SURVEYS
from lensjax.evaluation import evaluate_classifier as mode
from lensjax.evaluation.evaluate_classifier import evaluate_classifier
from lensjax.inference.classifier import load_classifier
from lensjax.metrics.ring_radius import RadiusClassifier
from lensjax.run import datasets

pytestmark = pytest.mark.usefixtures("quick_compiles")
NUM = 8  # images a class


def config_with(data, **evaluate):
    model = {"name": "rescnn", "num_features": 8, "cells": 2, "widths": (8,)}
    return tiny_config(data=data, model=model, evaluate={"num_images": None} | evaluate)


class Shelf:
    """Stands for the sets on disk: splits by the name of the set and of the split."""

    def __init__(self, make):
        self._make, self.asked = make, []

    def prepare(self, data):
        shelf = self

        class Prepared:
            def open_split(self, split):
                shelf.asked.append((data.name, split))
                return shelf._make(data.name, split)

        return Prepared()


@functools.cache
def lenses(name, split):
    seed = 7 if split == "train" else 8
    images = []
    for label, class_name in enumerate(CLASS_NAMES):
        keys = prng.keys(prng.key(seed, "test", label), jnp.arange(NUM))
        images.append(
            simulate(keys, SURVEYS["model_ii"], class_name, conserved="conserved" in name)[0]
        )
    stack = np.concatenate(images)[..., None]
    info = DatasetInfo(
        name=name,
        fingerprint=f"{name} made for tests",
        class_names=CLASS_NAMES,
        parameter_names=(),
        split_sizes={"train": 3 * NUM, "test": 3 * NUM},
        image_shape=(64, 64, 1),
        flux_unit="counts/s",
        minimum=0.0,
        maximum=float(stack.max()),
    )
    labels = np.repeat(np.arange(3, dtype=np.int32), NUM)
    return LensSplit(stack, labels, np.zeros((3 * NUM, 0), np.float32), info)


def evaluated(config, splits, folder, monkeypatch):
    shown: dict[str, Any] = {}
    shelf = Shelf(splits)
    monkeypatch.setattr(datasets, "prepare", shelf.prepare)
    monkeypatch.setattr(mode, "show", lambda *arguments: shown.update(arguments=arguments))
    monkeypatch.setenv("LENSJAX_CACHE", str(folder / "cache"))
    saved_run(folder / "run", config, splits(config.data.name, "train"))
    evaluate_classifier(config, folder / "run")
    content = json.loads((folder / "run" / "evaluation" / "metrics.json").read_text())
    return content, shown["arguments"], shelf.asked


def test_a_users_images_are_scored_as_they_are(tmp_path, monkeypatch, capsys):
    test = tiny_split(30, seed=2)
    config = config_with(OWN_SET)
    splits = {"train": tiny_split(60), "test": test}
    content, shown, asked = evaluated(config, lambda _, split: splits[split], tmp_path, monkeypatch)
    assert set(content["scores"]) == {"folder, as they are"}
    assert content["baseline"] == {"folder, as they are": None}
    scores = content["scores"]["folder, as they are"]
    classifier = load_classifier(tmp_path / "run")
    found = classifier.classify(test.images)
    assert scores["num_images"] == 30
    assert scores["accuracy"] == pytest.approx((found.label == test.labels).mean())
    assert np.sum(scores["confusion"]) == 30
    assert content["protocol"]["checkpoint_step"] == classifier.step
    folder, step, scalars, pictures = shown
    assert folder == tmp_path / "run" / "evaluation"
    assert step == classifier.step
    assert scalars["test/folder, as they are/accuracy"] == scores["accuracy"]
    assert set(pictures) == {"roc", "confusion", "calibration"}
    assert all((folder / f"{name}.png").is_file() for name in pictures)
    page = (folder / "report.html").read_text()
    links = re.findall(r"""(?:src|href)\s*=\s*["']([^"']*)""", page)
    assert len(links) == 3
    assert all(link.startswith("data:image/png;base64,") for link in links)
    assert "folder, as they are" in capsys.readouterr().out
    assert ("deeplense/folder", "test") in asked


def rough_radius(images, survey, *, free_amplitude):
    """The mean distance of the light from the middle, in place of a fit."""
    offsets = np.hypot(*(np.indices(images.shape[1:]) - (images.shape[1] - 1) / 2))
    return (images * offsets).sum(axis=(1, 2)) / images.sum(axis=(1, 2))


@pytest.mark.parametrize("radius", [rough_radius, pytest.param(None, marks=pytest.mark.nightly)])
def test_a_simulated_set_is_scored_behind_noise_conserved_and_beside_the_ring(
    tmp_path, monkeypatch, radius
):
    config = config_with({"name": "deeplense/model_ii_mini"}, seed=3)
    few = functools.partial(RadiusClassifier.fit, num_neighbours=5)
    monkeypatch.setattr(RadiusClassifier, "fit", few)
    if radius:
        monkeypatch.setattr(mode, "fit_ring_radius", radius)
    content, _, asked = evaluated(config, lenses, tmp_path, monkeypatch)
    names = [
        "model_ii_mini, as they are",
        "model_ii_mini, magnitude 20",
        "model_ii_mini, magnitude 23",
        "model_ii_conserved_mini, magnitude 20",
    ]
    assert list(content["scores"]) == list(content["baseline"]) == names
    assert ("deeplense/model_ii_conserved_mini", "test") in asked
    for name in names:
        baseline = content["baseline"][name]
        assert baseline["num_images"] == 3 * NUM
        assert len(baseline["curves"]) == 3
    if radius:
        train_split, test = (lenses("deeplense/model_ii_mini", part) for part in ("train", "test"))
        radii = [
            radius(one.images[..., 0], None, free_amplitude=True) for one in (train_split, test)
        ]
        probabilities = few(radii[0], train_split.labels, 3).predict_probabilities(radii[1])
        expected = np.mean(probabilities.argmax(axis=1) == test.labels)
        assert content["baseline"][names[0]]["accuracy"] == pytest.approx(expected)
    else:
        # Behind noise the radius still tells far more than chance, a third.
        assert content["baseline"][names[1]]["accuracy"] > 0.55
    plain, dimmed = (content["scores"][name]["log_loss"] for name in names[:2])
    assert plain != dimmed


def test_the_baseline_can_be_left_out(tmp_path, monkeypatch):
    config = config_with({"name": "deeplense/model_iii_mini"}, baselines=False, num_images=5)
    content, _, _ = evaluated(config, lenses, tmp_path, monkeypatch)
    assert set(content["baseline"].values()) == {None}
    assert [one["num_images"] for one in content["scores"].values()] == [15, 15, 15]
