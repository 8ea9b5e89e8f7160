"""A classifier of the user's judges in `classes`: sets that nobody else knows, and refusals."""

import dataclasses
import math
import types
from typing import Any

import numpy as np
import pytest
from run_support import SHARED_SPLIT as SPLIT
from run_support import tiny_config, tiny_split

from lensjax.config import Config, EvaluateConfig, differences, to_dict
from lensjax.data.catalogue import SIMULATED_SETS
from lensjax.errors import ConfigError, WorkdirError
from lensjax.evaluation import feature_measures
from lensjax.evaluation.class_network import given_classifier
from lensjax.evaluation.rows import Row, Setting
from lensjax.inference.classifier import load_classifier
from lensjax.inference.describe import weights_hash
from lensjax.run.workdir import claim

pytestmark = pytest.mark.usefixtures("quick_compiles")


@pytest.fixture(scope="module")
def workdirs(trained_classifier, tmp_path_factory):
    """The folder of runs: a classifier, and two that were begun and have no weights yet."""
    folder = tmp_path_factory.mktemp("runs")
    (folder / "classifier").symlink_to(trained_classifier)
    for name in ("dit", "mae"):
        claim(folder / name, tiny_config(model={"name": name}))
    return folder


def setting_of(folder, *, name=None, info=SPLIT.info, **settings):
    evaluate = dataclasses.replace(EvaluateConfig(), classifier=folder and str(folder), **settings)
    splits: Any = None
    simulated = SIMULATED_SETS.get(name)
    return Setting(info, simulated, evaluate, 10, None, splits)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", [None, "deeplense/model_i_noisy"])
def test_it_judges_sets_that_the_network_of_lensjax_does_not_know(workdirs, name):
    without = setting_of(None, name=name)
    assert "evaluate.classifier" in str(feature_measures.classes_missing(without))
    setting = setting_of(workdirs / "classifier", name=name)
    assert feature_measures.classes_missing(setting) is None
    other = tiny_split(24, seed=2)
    row = Row("given", other.images, other.labels, setting)
    real = Row("real", SPLIT.images, SPLIT.labels, setting)
    found = feature_measures.classes(row, real, setting)["as they are"]
    network = load_classifier(workdirs / "classifier")
    taken = network.classify(other.images).label
    assert found["accuracy"] == np.mean(taken == other.labels)
    assert found["real_accuracy"] == np.mean(network.classify(SPLIT.images).label == SPLIT.labels)
    for label, class_name in enumerate(network.class_names):
        assert found[f"share_{class_name}"] == np.mean(taken == label)


def test_two_classes_are_judged(monkeypatch):
    info = dataclasses.replace(SPLIT.info, class_names=("cdm", "no_sub"))
    setting, labels = setting_of(None, info=info), np.arange(30, dtype=np.int32) % 2
    row, real = (Row(name, SPLIT.images[:30], labels, setting) for name in ("given", "real"))
    half = np.linspace(0.1, 0.9, 30)
    half[::2] /= 10
    network = types.SimpleNamespace(
        predict_probabilities=lambda images: np.stack([1 - half, half], axis=1)
    )
    monkeypatch.setattr(feature_measures, "_class_network", lambda setting: network)
    found = feature_measures.classes(row, real, setting)["as they are"]
    others, own = half[::2], half[1::2]
    assert found["auc"] == pytest.approx(np.mean(own[:, None] > others[None]))
    assert found["confusion"] == [[15, 0], [np.sum(own <= 0.5), np.sum(own > 0.5)]]
    alone = Row("alone", SPLIT.images[:30:2], labels[::2], setting)
    network.predict_probabilities = lambda images: np.full((len(images), 2), 0.5)
    assert math.isnan(feature_measures.classes(alone, real, setting)["as they are"]["auc"])


def test_the_protocol_names_it(workdirs):
    network = load_classifier(workdirs / "classifier")
    found = feature_measures.protocol_of_classes(setting_of(workdirs / "classifier"))
    assert found["sha256"] == weights_hash(network.params)
    assert found["network"] == "rescnn"
    assert found["trained_on"] == SPLIT.info.name
    assert found["trained_on_fingerprint"] == SPLIT.info.fingerprint
    assert found["checkpoint_step"] == network.step


def test_it_needs_flux(workdirs):
    setting = setting_of(workdirs / "classifier", image_scale="max")
    assert "evaluate.image_scale is max" in str(feature_measures.classes_missing(setting))


def test_none_is_loaded_where_none_is_named():
    assert given_classifier(setting_of(None)) is None


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"class_names": ("cdm", "axion", "no_sub")}, "apart; allowed: the classes of .*, cdm, ax"),
        ({"class_names": ("cdm", "no_sub")}, "it tells axion, cdm, no_sub apart"),
        ({"class_names": ()}, r"none \(unlabelled\)"),
        ({"image_shape": (64, 64, 1)}, "images of 16x16x1; allowed: 64x64x1"),
        ({"image_shape": (16, 16, 3)}, "images of 16x16x1; allowed: 16x16x3"),
    ],
)
def test_other_classes_and_sizes_are_refused(workdirs, changes, words):
    info = dataclasses.replace(SPLIT.info, **changes)
    with pytest.raises(ConfigError, match=rf"^evaluate\.classifier: got .*{words}"):
        feature_measures.classes_missing(setting_of(workdirs / "classifier", info=info))


@pytest.mark.parametrize("name", ["dit", "mae"])
def test_other_networks_are_refused(workdirs, name):
    words = rf"^evaluate\.classifier: got .*model\.name={name}\) is not .*; allowed: the workdir"
    with pytest.raises(ConfigError, match=words):
        feature_measures.classes_missing(setting_of(workdirs / name))


def test_what_is_no_run_is_refused(tmp_path):
    with pytest.raises(WorkdirError, match=r"config\.json does not exist"):
        given_classifier(setting_of(tmp_path))
    with pytest.raises(ConfigError, match=r"^evaluate\.classifier: got 'pretrained/nothing'"):
        given_classifier(setting_of("pretrained/nothing"))


def test_it_may_differ_when_a_run_goes_on():
    before, now = to_dict(Config()), to_dict(Config())
    now["evaluate"]["classifier"] = "runs/classifier"
    assert differences(before, now) == []
