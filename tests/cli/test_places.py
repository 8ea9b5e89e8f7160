"""Networks that come with lensjax in the modes of the command line, and `--output`."""

import dataclasses
import hashlib
import json
import os
import pathlib
import shutil

import numpy as np
import pytest
from run_support import SHARED_CLASSIFIER, SHARED_GENERATOR, SHARED_SPLIT, captured_log, tiny_split

from lensjax.cli import modes
from lensjax.cli.classify_mode import CSV_FILE
from lensjax.cli.places import find_places
from lensjax.config import Config
from lensjax.errors import ConfigError, RequestError
from lensjax.evaluation import evaluate_generator
from lensjax.inference import pretrained
from lensjax.inference.classifier import load_classifier
from lensjax.inference.generator import load_generator
from lensjax.inference.trained import restore
from lensjax.run import datasets

pytestmark = pytest.mark.usefixtures("quick_compiles")
GENERATOR = dataclasses.replace(
    SHARED_GENERATOR,
    sample=dataclasses.replace(SHARED_GENERATOR.sample, num_images=6),
    evaluate=dataclasses.replace(
        SHARED_GENERATOR.evaluate, num_images=2, measures="copies", baselines=False
    ),
)
SPLITS = {"train": SHARED_SPLIT, "test": tiny_split(9, seed=2)}


class TinySet:
    """Stands for a data set on disk."""

    def open_split(self, name):
        return SPLITS[name]


@pytest.fixture(scope="module")
def weights(trained_generator, trained_classifier, tmp_path_factory) -> pathlib.Path:
    """What stands for the package's folder of networks."""
    folder = tmp_path_factory.mktemp("weights")
    pretrained.save(folder / "draws", restore(trained_generator[0], SHARED_GENERATOR), {})
    tells = restore(trained_classifier, SHARED_CLASSIFIER, best=True)
    pretrained.save(folder / "tells", tells, {"temperature": 2.5})
    return folder


@pytest.fixture(autouse=True)
def shipped(weights, tmp_path, monkeypatch):
    """The networks come with lensjax, and the user is in another folder; nothing else changes."""
    monkeypatch.setattr(pretrained, "WEIGHTS_FOLDER", weights)
    for name in ("load_card", "with_settings"):
        function = getattr(pretrained, name)
        monkeypatch.setattr(function, "__defaults__", (weights,))
    monkeypatch.setattr(pretrained.names, "__defaults__", (weights,))
    monkeypatch.setattr(datasets, "prepare", lambda data: TinySet())
    monkeypatch.setattr(evaluate_generator, "show", lambda *arguments: None)
    monkeypatch.setattr(evaluate_generator.report, "_pictures", lambda *arguments: [])
    monkeypatch.setenv("LENSJAX_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    before = _digest(weights)
    yield
    assert _digest(weights) == before


def _digest(folder: pathlib.Path) -> dict[str, str]:
    return {
        str(path): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }


def run(mode: str, config: Config, workdir: str, output: str | None = None, **more) -> None:
    where = pathlib.Path(output) if output else None
    assert modes.run(mode, config, pathlib.Path(workdir), output=where, **more) == 0


@pytest.mark.parametrize("output", [None, "elsewhere/results"])
def test_a_generator_draws_exports_and_is_judged(weights, output):
    target = pathlib.Path(output or "runs/draws")
    # What the training was like is of no use here.
    other = dataclasses.replace(GENERATOR, seed=5, optim=Config().optim)
    with captured_log() as lines:
        run("sample", other, "pretrained/draws", output)
    assert any(f"results go to {target}" in line for line in lines)
    drawn = np.load(target / "generated" / "images.npy")
    expected = load_generator(weights / "draws").generate(num=6, seed=GENERATOR.sample.seed)
    np.testing.assert_array_equal(drawn, expected)
    meta = json.loads((target / "generated" / "meta.json").read_text())
    assert (meta["checkpoint_step"], meta["ema"]) == (12, "main")
    half_life = SHARED_GENERATOR.optim.ema_half_life_images
    assert meta["ema_half_life_images"] == half_life
    export = dataclasses.replace(other.export, source="generated")
    run("export", dataclasses.replace(other, export=export), "pretrained/draws", output)
    assert len(list((target / "export").rglob("*.npy"))) == 6
    run("evaluate", other, "pretrained/draws", output)
    numbers = json.loads((target / "evaluation" / "metrics.json").read_text())
    assert numbers["protocol"]["generated"]["weights_sha256"] == meta["weights_sha256"]
    assert sorted(os.listdir(target)) == ["evaluation", "export", "generated"]


def test_a_classifier_tells_with_its_own_temperature(weights):
    np.save("images.npy", SHARED_SPLIT.images[:3])
    run("classify", SHARED_CLASSIFIER, "pretrained/tells", images=pathlib.Path("images.npy"))
    lines = pathlib.Path("runs/tells", CSV_FILE).read_text().splitlines()
    classifier = load_classifier(weights / "tells")
    assert classifier.temperature == 2.5
    expected = classifier.classify(SHARED_SPLIT.images[:3], warn=False)
    assert [line.split(",")[1] for line in lines[1:]] == list(expected.class_name)


def test_results_of_a_run_go_where_they_are_asked_for(trained_generator, tmp_path):
    shutil.copytree(trained_generator[0], "run")
    before = _digest(tmp_path / "run")
    run("sample", GENERATOR, "run", "out")
    assert sorted(os.listdir("out")) == ["generated"]
    assert _digest(tmp_path / "run") == before


@pytest.mark.parametrize(
    ("section", "field", "value"),
    [("data", "model_std", 0.7), ("model", "depth", 5), ("path", "name", "edm")],
)
def test_the_configuration_of_another_network_is_refused(section, field, value):
    changed = dataclasses.replace(getattr(GENERATOR, section), **{field: value})
    config = dataclasses.replace(GENERATOR, **{section: changed})
    message = rf"pretrained/draws.*another configuration(?s:.*){section}\.{field}: the network has"
    with pytest.raises(ConfigError, match=message):
        find_places("sample", config, pathlib.Path("pretrained/draws"), None)


def test_what_cannot_be_meant_is_refused(trained_generator):
    draws = pathlib.Path("pretrained/draws")
    with pytest.raises(ConfigError, match=r"not trained further.*allowed: .*runs/draws"):
        modes.run("train", GENERATOR, draws)
    with pytest.raises(RequestError, match="allowed: pretrained/draws, pretrained/tells"):
        modes.run("sample", GENERATOR, pathlib.Path("pretrained/drawn"))
    raw = dataclasses.replace(GENERATOR.sample, ema="raw")
    with pytest.raises(RequestError, match=r"ema=raw; allowed: .*ema=main"):
        modes.run("sample", dataclasses.replace(GENERATOR, sample=raw), draws)
    shutil.copytree(trained_generator[0], "runs/draws")
    for output in (None, pathlib.Path("runs/draws")):
        with pytest.raises(ConfigError, match=r"--output: got 'runs/draws'; it is the workdir of"):
            modes.run("sample", GENERATOR, draws, output=output)


def test_a_local_folder_of_the_name_is_that_folder(trained_generator):
    shutil.copytree(trained_generator[0], "pretrained/draws")
    run("sample", GENERATOR, "pretrained/draws")
    assert pathlib.Path("pretrained/draws/generated/images.npy").exists()
