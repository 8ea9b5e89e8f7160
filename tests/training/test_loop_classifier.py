"""Training of classifiers and of the encoder behind them: best step, stops, resumes, transfer."""

import dataclasses
import json
import pathlib
from typing import Any

import jax
import numpy as np
import pytest
from run_support import (
    captured_log,
    metrics_of,
    saved_run,
    signal_at,
    states_differ,
    tiny_config,
    tiny_split,
)
from support import random_like

import lensjax
from lensjax.config import Config
from lensjax.data.dataset import LensSplit
from lensjax.data.subset import divide
from lensjax.errors import CheckpointError, ConfigError, DataError, WorkdirError
from lensjax.run import writers
from lensjax.run.figures import Row
from lensjax.run.learning import abstract_state
from lensjax.run.selection import VALIDATION_LOSS, restore_best
from lensjax.training import class_watch, monitor, tasks
from lensjax.training.loop import train
from lensjax.training.transfer import with_encoder

pytestmark = pytest.mark.usefixtures("quick_compiles")
SHAPE = (16, 16, 1)
BLANK = np.zeros((4, 4, 3), np.uint8)
EVERY = 3  # steps between validations


def classifier_config(**sections: dict[str, Any]) -> Config:
    """A residual network with validations after steps 3, 6, 9 ... and saves after 4, 8 ..."""
    settings: dict[str, dict[str, Any]] = {
        "model": {"name": "rescnn", "dropout": 0.1},
        "train": {"evaluate_every": EVERY, "evaluate_images": 30, "num_steps": 18},
        "classify": {"validation_share": 0.25},
        "data": {"augmentation": "rotate_180"},
    }
    for name, changes in sections.items():
        settings[name] = settings.get(name, {}) | changes
    return tiny_config(**settings)


class Unreadable:
    """A test split of which nothing may be known."""

    def __getattr__(self, name: str) -> Any:
        raise AssertionError(f"{name} of the test split was asked for")

    def __len__(self) -> int:
        raise AssertionError("the length of the test split was asked for")


UNREADABLE: Any = Unreadable()


@pytest.fixture(autouse=True)
def _plain(monkeypatch):
    """Leaves out TensorFlow, and the drawing of curves."""
    monkeypatch.setattr(writers, "_open_tensorboard", lambda folder: None)
    monkeypatch.setattr(monitor, "training_curves", lambda metrics: BLANK)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A classifier's run that nothing disturbed: workdir, state and log."""
    workdir = tmp_path_factory.mktemp("finished") / "run"
    with pytest.MonkeyPatch.context() as patch, captured_log() as log:
        patch.setattr(writers, "_open_tensorboard", lambda folder: None)
        patch.setattr(monitor, "training_curves", lambda metrics: BLANK)
        state = train(classifier_config(), workdir, tiny_split(48), UNREADABLE)
    return workdir, state, log


def best_state(workdir: pathlib.Path, config: Config | None = None) -> Any:
    return restore_best(workdir, abstract_state(config or classifier_config(), SHAPE))


def known_best(workdir: pathlib.Path) -> dict[str, float]:
    return json.loads((workdir / "classifier.json").read_text())


def validations(workdir: pathlib.Path) -> dict[int, float]:
    lines = metrics_of(workdir)
    return {line["step"]: line[VALIDATION_LOSS] for line in lines if VALIDATION_LOSS in line}


def test_the_workdir_of_a_classifier(finished):
    workdir, _, log = finished
    assert {path.name for path in workdir.iterdir()} == {
        "best",
        "checkpoints",
        "classifier.json",
        "config.json",
        "dataset.json",
        "metrics.jsonl",
        "parameters.txt",
        "provenance.json",
        "samples",
    }
    assert [path.name for path in (workdir / "samples").iterdir()] == ["curves.png"]
    assert not list(workdir.rglob("*.partial"))
    assert json.loads((workdir / "dataset.json").read_text())["num_train_images"] == 36
    assert sum(line.startswith("validation on 12 images of the training split") for line in log) > 4


def test_validations_and_what_they_find(finished):
    lines = metrics_of(finished[0])
    assert list(validations(finished[0])) == list(range(EVERY, 19, EVERY))
    for line in lines:
        found = {name for name in line if name.startswith("validation/")}
        names = ("loss", "accuracy", "temperature") if line["step"] % EVERY == 0 else ()
        assert found == {f"validation/{name}" for name in names}
        assert all(np.isfinite(value) for value in line.values())


def test_the_best_state_is_that_of_the_lowest_validation_loss(finished):
    workdir, state, _ = finished
    losses = validations(workdir)
    step = min(losses, key=lambda step: losses[step])
    assert [path.name for path in (workdir / "best").iterdir()] == [str(step)]
    known = known_best(workdir)
    assert known["step"] == step
    line = metrics_of(workdir)[step - 1]
    for name in ("loss", "accuracy", "temperature"):
        assert known[name] == line[f"validation/{name}"]
    assert int(best_state(workdir).step) == step
    assert int(state.step) == 18


def test_it_learns_and_its_validation_is_that_of_the_loaded_network(finished):
    """On the part that `divide` holds back, by the average of the parameters."""
    workdir, state, _ = finished
    classifier = lensjax.load(workdir)
    known = known_best(workdir)
    assert (classifier.step, classifier.temperature) == (known["step"], known["temperature"])
    held_back = divide(tiny_split(48), 0, 0.25)[1].in_memory()
    found = classifier.predict(held_back.images)
    right = found.logits.argmax(axis=1) == held_back.labels
    assert right.mean() == pytest.approx(known["accuracy"])
    log_p = np.log(np.exp(found.logits).sum(axis=1))
    losses = log_p - found.logits[np.arange(12), held_back.labels]
    assert losses.mean() == pytest.approx(known["loss"], rel=1e-4)
    unseen = tiny_split(60, seed=1)
    assert np.mean(classifier.classify(unseen.images).label == unseen.labels) > 0.6
    assert states_differ(lensjax.load(workdir, step=16, ema=False).params, state.params)


def test_a_run_in_parts_is_the_run_in_one_bit_for_bit(tmp_path, finished):
    """A signal just before a validation, and a death after a best state that is saved alone."""
    workdir, parts = tmp_path / "run", ((5, "starting at step 0"), (None, "resumed at step 6"))
    for stop, begun in parts:
        with pytest.MonkeyPatch.context() as patch, captured_log() as log:
            patch.setattr(writers.MetricWriters, "scalars", writers.MetricWriters.scalars)
            if stop:
                signal_at(stop)
                train(classifier_config(), workdir, tiny_split(48), UNREADABLE)
                assert list(validations(workdir)) == [3, 6]  # the signal came for this step
            else:
                die_at(patch, 11)
                with pytest.raises(KeyboardInterrupt):
                    train(classifier_config(), workdir, tiny_split(48), UNREADABLE)
                assert known_best(workdir)["step"] == 9  # dropped, since step 8 is the newest saved
        assert begun in log
    with captured_log() as log:
        state = train(classifier_config(), workdir, tiny_split(48), UNREADABLE)
    assert "resumed at step 8" in log
    assert states_differ(state, finished[1]) == []
    assert states_differ(best_state(workdir), best_state(finished[0])) == []
    assert known_best(workdir) == known_best(finished[0])
    for name in ("loss", VALIDATION_LOSS, "validation/temperature"):
        expected = [line.get(name) for line in metrics_of(finished[0])]
        assert [line.get(name) for line in metrics_of(workdir)] == expected


def die_at(patch: pytest.MonkeyPatch, step: int) -> None:
    """Ends the training while a line is written, with nothing saved since."""
    write = writers.MetricWriters.scalars

    def scalars(self: Any, at: int, values: Any) -> None:
        write(self, at, values)
        if at == step:
            raise KeyboardInterrupt

    patch.setattr(writers.MetricWriters, "scalars", scalars)


def script(monkeypatch, losses: dict[int, float]) -> None:
    """Makes validations find the given losses, by step."""
    found = iter(losses.values())

    def validate(self: Any, step: int, params: Any) -> dict[str, float]:
        return {VALIDATION_LOSS: next(found), "validation/temperature": 1.5}

    monkeypatch.setattr(class_watch.ClassifierWatch, "validate", validate)


def test_patience_ends_a_run_for_good_and_its_best_step_is_loaded(tmp_path, monkeypatch):
    script(monkeypatch, {3: 1.0, 6: 0.5, 9: 0.7, 12: 0.6})
    config = classifier_config(classify={"patience": 2})
    with captured_log() as log:
        state = train(config, tmp_path, tiny_split(48))
    assert int(state.step) == 12
    assert "stopping early: 2 validations without a lower loss" in log
    assert (tmp_path / "checkpoints" / "12").is_dir()
    before = (tmp_path / "metrics.jsonl").read_text()
    with captured_log() as log:
        again = train(config, tmp_path, tiny_split(48))
    assert log[-1] == "nothing to do: the run has ended after 12 steps"
    assert states_differ(state, again) == []
    assert (tmp_path / "metrics.jsonl").read_text() == before
    classifier = lensjax.load(tmp_path)
    assert (classifier.step, classifier.temperature) == (6, 1.5)
    newest = lensjax.load(tmp_path, step=12)
    assert (newest.step, newest.temperature) == (12, 1.0)  # nobody calibrated that step


def weights_that_train_uses(monkeypatch, tmp_path, split: LensSplit, text: str) -> Any:
    seen = []

    def make(apply_fn, smoothing, weights, train_encoder):
        seen.append(weights)
        raise KeyboardInterrupt

    monkeypatch.setattr(tasks, "make_classifier_loss_fn", make)
    with pytest.raises(KeyboardInterrupt):
        train(classifier_config(classify={"class_weights": text}), tmp_path, split)
    return seen[0]


@pytest.mark.parametrize("text", ["none", "balanced"])
def test_balanced_weights_are_of_the_images_that_are_trained_on(tmp_path, monkeypatch, text):
    split = tiny_split(48)
    split = dataclasses.replace(split, labels=np.repeat(np.arange(3, dtype=np.int32), (8, 16, 24)))
    weights = weights_that_train_uses(monkeypatch, tmp_path / "run", split, text)
    expected = 12 / np.array([6, 12, 18]) if text == "balanced" else np.ones(3)
    np.testing.assert_allclose(weights, expected, rtol=1e-6)


@pytest.mark.parametrize("names", [(), ("lens",)])
def test_fewer_than_two_classes_are_refused(tmp_path, names):
    message = r"has no class \(it is unl.*; a" if not names else r"has 1 class \(lens\); a"
    with pytest.raises(DataError, match=f"{message} classifier needs at least two"):
        train(classifier_config(), tmp_path / "run", tiny_split(class_names=names))
    assert not (tmp_path / "run").exists()


def test_fewer_labelled_images_than_a_batch_are_refused(tmp_path):
    config = classifier_config(classify={"label_share": 0.1})
    with pytest.raises(DataError, match=r"train\.batch_size: got 8; allowed: at most the 3 images"):
        train(config, tmp_path / "run", tiny_split(48))


ENCODER = {"patch_size": 8, "width": 4, "depth": 1, "num_heads": 1, "mlp_ratio": 1}


def pretraining_config(**model: Any) -> Config:
    return tiny_config(
        model={"name": "mae", **ENCODER, "decoder_width": 4, "decoder_heads": 1, **model},
        data={"scaling": "asinh"},
        train={"num_steps": 6, "evaluate_every": 6, "log_every": 2, "evaluate_images": 6},
    )


def probing_config(start_from: pathlib.Path, model: Any = None, **classify: Any) -> Config:
    return tiny_config(
        model={"name": "vit", **ENCODER, **(model or {})},
        classify={"start_from": str(start_from), "validation_share": 0.25, **classify},
        optim={"weight_decay": 0.1},
        train={"num_steps": 4, "evaluate_every": 4, "evaluate_images": 12},
    )


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory):
    """Workdir and state of a masked autoencoder, and the rows of its last picture."""
    workdir = tmp_path_factory.mktemp("pretrained") / "run"
    rows: list[Row] = []

    def keep(found: list[Row], *settings: Any) -> np.ndarray:
        rows.extend(found)
        return BLANK

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(writers, "_open_tensorboard", lambda folder: None)
        patch.setattr(monitor, "training_curves", lambda metrics: BLANK)
        patch.setattr(class_watch, "flux_rows", keep)
        state = train(pretraining_config(), workdir, tiny_split(48), UNREADABLE)
    return workdir, state, rows


def test_an_autoencoder_trains_and_shows_what_it_finds(pretrained):
    workdir, _, rows = pretrained
    lines = metrics_of(workdir)
    assert [line["step"] for line in lines] == [2, 4, 6]
    assert lines[-1]["loss"] < lines[0]["loss"]
    assert np.isfinite(lines[-1][VALIDATION_LOSS])
    assert not (workdir / "best").exists()
    kinds = ("real", "seen", "found")
    names = [(name, kind) for name in ("axion", "cdm", "no_sub") for kind in kinds]
    assert [row[:2] for row in rows] == names
    images = [row.images for row in rows]
    for real, seen, found in zip(images[::3], images[1::3], images[2::3], strict=True):
        assert real.shape == seen.shape == found.shape == (1, *SHAPE)
        patches = [one.reshape(1, 2, 8, 2, 8).swapaxes(2, 3) for one in (real, seen, found)]
        same = np.isclose(patches[0], patches[1], rtol=1e-3).all(axis=(-1, -2))
        np.testing.assert_array_equal(same.sum(axis=(1, 2)), 1)  # of four patches
        np.testing.assert_allclose(patches[2][same], patches[0][same], rtol=1e-3)
        assert not np.isclose(patches[2][~same], patches[0][~same], rtol=1e-3).all(axis=-1).any()


def test_a_linear_probe_has_the_encoder_and_the_scaling_of_the_other_run(tmp_path, pretrained):
    workdir, source, _ = pretrained
    config = probing_config(workdir, train_encoder=False)
    state = train(config, tmp_path / "run", tiny_split(48), UNREADABLE)
    expected = source.ema["main"]["encoder"]
    assert states_differ(state.params["encoder"], expected) == []
    for one, other in zip(
        jax.tree.leaves(state.ema["main"]["encoder"]), jax.tree.leaves(expected), strict=True
    ):
        np.testing.assert_allclose(one, other, rtol=1e-6)
    assert np.any(state.params["classes"]["bias"] != 0)  # where it begins
    scalings = [
        json.loads((folder / "dataset.json").read_text())["scaling"]
        for folder in (workdir, tmp_path / "run")
    ]
    assert scalings[0] == scalings[1]
    assert scalings[0]["kind"] == "asinh"


def test_a_run_begins_with_the_encoder_of_the_other_and_a_head_of_its_own(tmp_path):
    folder = tmp_path / "mae"
    states = {step: saved_run(folder, pretraining_config(), tiny_split(), step) for step in (3, 5)}
    fresh = random_like(abstract_state(probing_config(folder), SHAPE))
    for step, expected in ((None, states[5]), (3, states[3])):
        found = with_encoder(fresh, probing_config(folder, start_step=step))
        for params, own in ((found.params, fresh.params), (found.ema["main"], fresh.ema["main"])):
            assert states_differ(params["encoder"], expected.ema["main"]["encoder"]) == []
            assert states_differ(params["classes"], own["classes"]) == []
        assert states_differ(found.opt_state, fresh.opt_state) == []
        buffers = [leaf.unsafe_buffer_pointer() for leaf in jax.tree.leaves(found)]
        assert len(set(buffers)) == len(buffers)  # a donated one may stand in the state once
    with pytest.raises(CheckpointError, match=r"there is no checkpoint 4; .*: 3, 5"):
        with_encoder(fresh, probing_config(folder, start_step=4))


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ({"depth": 2}, r"model\.depth: got 2; allowed: 1, as in classify\.start_from="),
        ({"mlp_ratio": 2}, r"model\.mlp_ratio: got 2; allowed: 1, as in"),
        ({"patch_size": 4}, r"model\.patch_size: got 4; allowed: 8, as in"),
        ({"width": 8}, r"model\.width: got 8; allowed: 4, as in"),
        ({"num_heads": 2}, r"model\.num_heads: got 2; allowed: 1, as in"),
    ],
)
def test_an_encoder_that_does_not_fit_is_refused(tmp_path, pretrained, model, message):
    config = probing_config(pretrained[0], model)
    with pytest.raises(ConfigError, match=f"^{message}"):
        train(config, tmp_path / "run", tiny_split(48))
    assert not (tmp_path / "run").exists()


def test_a_start_from_other_images_another_network_or_nothing_is_refused(
    tmp_path, pretrained, finished
):
    split = tiny_split(48)
    info = dataclasses.replace(split.info, image_shape=(16, 8, 1))
    narrow = dataclasses.replace(split, images=split.images[:, :, :8], info=info)
    cases = [
        (pretrained[0], narrow, ConfigError, r"images of shape \(16, 8, 1\); this one saw \(16, 1"),
        (finished[0], split, ConfigError, "allowed: a run with model.name=mae or vit; .* rescnn"),
        (tmp_path / "nothing", split, WorkdirError, "does not exist"),
    ]
    for folder, images, error, message in cases:
        with pytest.raises(error, match=message):
            train(probing_config(folder), tmp_path / "run", images)
    assert not (tmp_path / "run").exists()
