"""Generators that come with lensjax: rounded, judged as they are then, loaded without data."""

import dataclasses
import functools
import importlib
import json
import os
import pathlib
import shutil

import jax
import numpy as np
import pytest
from run_support import (
    ROOT,
    SHARED_GENERATOR,
    SHARED_SPLIT,
    TINY_PARTS,
    run_python,
    saved_run,
    states_differ,
    tiny_config,
    tiny_split,
)
from safetensors.numpy import save

import lensjax
from lensjax.config import Config
from lensjax.errors import RequestError
from lensjax.evaluation import evaluate_generator
from lensjax.inference import pretrained
from lensjax.inference.describe import weights_hash
from lensjax.inference.generator import LensGenerator
from lensjax.inference.trained import Trained, restore
from lensjax.run import datasets
from lensjax.run import workdir as files

pytestmark = pytest.mark.usefixtures("quick_compiles")
NUM = 8
SPLITS = {"train": SHARED_SPLIT, "test": tiny_split(3 * NUM, seed=2)}
CONFIG = dataclasses.replace(
    SHARED_GENERATOR,
    sample=dataclasses.replace(SHARED_GENERATOR.sample, guidance=1.0),
    evaluate=dataclasses.replace(
        SHARED_GENERATOR.evaluate, num_images=NUM, measures="copies", baselines=False
    ),
)
COMMAND = "python -m lensjax.main --config=mine.py"


class TinySet:
    """Stands for a data set on disk."""

    def open_split(self, name):
        return SPLITS[name]


@pytest.fixture(scope="module")
def workdir(trained_generator, tmp_path_factory) -> pathlib.Path:
    folder = tmp_path_factory.mktemp("generator") / "run"
    shutil.copytree(trained_generator[0], folder)
    return folder


@pytest.fixture(scope="module")
def shipped(workdir, tmp_path_factory) -> pathlib.Path:
    """What one command makes of the run, but for the package's own folder."""
    weights = tmp_path_factory.mktemp("weights")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(ROOT / "benchmarks")
        patch.setattr(datasets, "prepare", lambda data: TinySet())
        patch.setattr(evaluate_generator, "show", lambda *arguments: None)
        patch.setattr(evaluate_generator.report, "_pictures", lambda *arguments: [])
        patch.setenv("LENSJAX_CACHE", os.fspath(weights / "cache"))
        importlib.import_module("ship").ship(workdir, CONFIG, weights / "tiny", COMMAND, "small")
    return weights


@pytest.fixture
def load(shipped, monkeypatch):
    """`lensjax.load` where the network was shipped."""
    there = functools.partial(pretrained.load_trained, weights=shipped)
    monkeypatch.setattr(pretrained, "load_trained", there)
    return lensjax.load


def bfloat16(value: np.ndarray) -> np.ndarray:
    """Returns float32 rounded to 16 bits by arithmetic on its bits, to even."""
    bits = np.asarray(value, np.float32).view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) & 0xFFFF0000).view(np.float32)


def test_the_loaded_parameters_are_the_rounded_averages(workdir, load):
    run, loaded = lensjax.load(workdir), load("pretrained/tiny")
    assert isinstance(loaded, LensGenerator)
    assert (loaded.step, loaded.ema, loaded.folder) == (12, "main", None)
    assert loaded.config == CONFIG
    assert states_differ(loaded.params, jax.tree.map(bfloat16, run.params)) == []
    assert states_differ(loaded.params, run.params) != []
    assert all(leaf.dtype == np.float32 for leaf in jax.tree.leaves(loaded.params))


def test_the_card_holds_what_was_measured_of_these_weights(shipped, workdir, load):
    card, loaded = pretrained.load_card("tiny", shipped), load("pretrained/tiny")
    assert card["protocol"]["generated"]["weights_sha256"] == weights_hash(loaded.params)
    measured = json.loads((workdir / "shipped" / "evaluation" / "metrics.json").read_text())
    for row in ("generated", "real"):
        expected = measured["measures"]["copies"]["rows"][row]
        assert card["measures"]["copies"][row] == expected
    assert card["checks"] == measured["checks"]["generated"]
    assert (card["verdict"], card["passed"]) == (measured["verdict"], measured["passed"])
    run = files.read_json(workdir / files.CONFIG_FILE)
    assert card["versions"] == run["versions"]
    assert card["hardware"] == run["hardware"]
    assert (card["command"], card["note"]) == (COMMAND, "small")
    assert card["data_fingerprint"] == SPLITS["train"].info.fingerprint
    assert card["training_minutes"] >= 0
    assert card["num_parameters"] == sum(leaf.size for leaf in jax.tree.leaves(loaded.params))


def test_the_images_that_were_judged_are_those_that_anyone_draws(workdir, load):
    chunks = sorted((workdir / "shipped").rglob("generated/*/0*.npy"))
    judged = np.concatenate([np.load(path) for path in chunks])
    drawn = load("pretrained/tiny").generate(num=len(judged), seed=CONFIG.sample.seed)
    np.testing.assert_array_equal(drawn, judged)


def test_the_same_seeds_give_the_same_images(load):
    first = load("pretrained/tiny").generate(label="cdm", num=8, seed=1)
    assert first.shape == (8, 16, 16, 1)
    np.testing.assert_array_equal(load("pretrained/tiny").generate("cdm", 8, seed=1), first)
    np.testing.assert_array_equal(load("pretrained/tiny").generate("cdm", 3, seed=1), first[:3])
    assert not np.array_equal(load("pretrained/tiny").generate("cdm", 8, seed=2), first)


def test_lenses_need_neither_data_nor_what_trains(shipped):
    code = f"""
import functools, pathlib, sys
import lensjax
from lensjax.inference import pretrained
there = pathlib.Path({os.fspath(shipped)!r})
pretrained.load_trained = functools.partial(pretrained.load_trained, weights=there)
images = lensjax.load("pretrained/tiny").generate(label="cdm", num=2, seed=1)
assert images.shape == (2, 16, 16, 1)
heavy = {{"tensorflow", "tensorflow_datasets", "clu", "grain", "ml_collections", "matplotlib"}}
assert not heavy & set(sys.modules), heavy & set(sys.modules)
"""
    done = run_python("-c", code, TFDS_DATA_DIR=os.fspath(shipped / "no_sets"))
    assert done.returncode == 0, done.stderr
    assert not (shipped / "no_sets").exists()


def _trained(tmp_path: pathlib.Path, config: Config) -> Trained:
    saved_run(tmp_path / "run", config, tiny_split())
    return restore(tmp_path / "run", config)


def test_a_network_that_is_too_large_is_refused_before_anything_is_written(tmp_path, monkeypatch):
    trained = _trained(tmp_path, tiny_config())
    size = len(pretrained.serialise("large", trained))
    for allowed in (size, size - 1):
        monkeypatch.setattr(pretrained, "MAX_BYTES", allowed)
        if allowed == size:
            pretrained.save(tmp_path / "fits", trained, {})
            continue
        message = rf"^pretrained/large: its weights take {size:,} bytes as bfloat16; allowed: at mo"
        with pytest.raises(RequestError, match=message):
            pretrained.save(tmp_path / "large", trained, {})
    assert not (tmp_path / "large").exists()


def test_the_bound_is_20_megabytes():
    assert pretrained.MAX_BYTES == 20_000_000


def test_a_classifier_stays_as_it_is(tmp_path):
    model = {"name": "cnn", **{key[6:]: value for key, value in TINY_PARTS["cnn"].items()}}
    trained = _trained(tmp_path, tiny_config(model=model))
    assert pretrained.rounded(trained) is trained
    pretrained.save(tmp_path / "tells", trained, {"temperature": 1.0})
    loaded, _ = pretrained.load_trained("tells", tmp_path)
    assert states_differ(loaded.params, trained.params) == []


def test_float32_is_read_as_any_reader_of_safetensors_reads_it():
    arrays = {"a": np.array([[1.5, -2.0]], np.float32), "b/c": np.array(3.25, np.float32)}
    shapes = {name: array.shape for name, array in arrays.items()}
    found = pretrained.parameters_of(save(arrays), shapes)
    assert set(found) == set(arrays)
    for name, value in arrays.items():
        np.testing.assert_array_equal(found[name], value, strict=True)


def test_a_name_that_does_not_exist_is_answered_by_those_that_are_there():
    with pytest.raises(RequestError, match=r"no such network; allowed: .*pretrained/lens_classifi"):
        lensjax.load("pretrained/model_iv")
