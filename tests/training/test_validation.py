"""Validation: known losses of a known network, equal parts of the splits, and the alarm."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest
from run_support import captured_log, metrics_of, states_differ, tiny_config, tiny_split

from lensjax.data.scaling import Scaling
from lensjax.devices.mesh import all_devices
from lensjax.run import networks, writers
from lensjax.training.data import TrainingData
from lensjax.training.loop import train
from lensjax.training.validation import NUM_BINS, Report, Validation

pytestmark = pytest.mark.usefixtures("quick_compiles")
SCALING = Scaling("linear", 1.0, 2.0)


class Memory:
    """A network that gives back the training image that its input came from, or nothing."""

    def __init__(self, known: np.ndarray) -> None:
        self.known = jnp.asarray(SCALING.to_model(jnp.asarray(known)))

    def apply(self, variables, x_t, t, condition):
        """Predicts x0: the nearest known image where it is near enough for one, else zeros."""
        scaled = (1 - t)[:, None, None, None, None] * self.known[None]
        distance = jnp.mean(jnp.square(x_t[:, None] - scaled), axis=(2, 3, 4))
        nearest = jnp.argmin(distance, axis=1)
        near = jnp.min(distance, axis=1) < 1.5 * jnp.square(t) + 1e-3
        return jnp.where(near[:, None, None, None], self.known[nearest], 0.0)


class Blind:
    """A network that predicts zeros."""

    def apply(self, variables, x_t, t, condition):
        return jnp.zeros_like(x_t)


MESH = all_devices(most=1)


def config_of(prediction="x0", space="x0", **train_fields):
    model = {"name": "unet", "prediction": prediction}
    fields = {"evaluate_images": 24} | train_fields
    return tiny_config(model=model, loss={"space": space}, train=fields)


def validate(monkeypatch, model, train_split, test_split, config=None):
    monkeypatch.setattr(networks, "build_model", lambda settings: model)
    data = TrainingData(train_split, test_split, train_split.info.image_shape, SCALING)
    return Validation(config or config_of(), data, MESH).run({})


def test_loss_of_a_blind_network_is_the_power_of_the_images(monkeypatch):
    train_split, test_split = tiny_split(seed=0), tiny_split(seed=1)
    report = validate(monkeypatch, Blind(), train_split, test_split)
    for losses, split in ((report.train, train_split), (report.test, test_split)):
        power = np.mean(np.square((split.images - 1) / 2))
        np.testing.assert_allclose(losses, np.full(NUM_BINS, power), rtol=1e-5)
    assert report.gap == pytest.approx(float(np.mean(report.test - report.train)))


def test_velocity_loss_of_a_blind_network_has_noise_and_image_in_it(monkeypatch):
    config = config_of("velocity", "velocity", evaluate_images=240)
    split = tiny_split(num=240)
    report = validate(monkeypatch, Blind(), split, split, config)
    expected = 1 + np.mean(np.square((split.images - 1) / 2))
    assert np.mean(report.test) == pytest.approx(expected, rel=0.01)


def test_times_lie_in_their_bins(monkeypatch):
    class Clock:
        def apply(self, variables, x_t, t, condition):
            return jnp.broadcast_to(t[:, None, None, None], x_t.shape)

    split = tiny_split()
    zeros = dataclasses.replace(split, images=np.ones_like(split.images))  # 0 to the model
    report = validate(monkeypatch, Clock(), zeros, zeros)
    lower, upper = np.arange(NUM_BINS) / NUM_BINS, (np.arange(NUM_BINS) + 1) / NUM_BINS
    root = np.sqrt(report.test)
    assert np.all((lower <= root) & (root <= upper))
    assert np.allclose(root, (lower + upper) / 2, atol=0.03)


def test_the_same_images_have_no_gap(monkeypatch):
    split = tiny_split()
    report = validate(monkeypatch, Memory(split.images[:3]), split, split)
    assert report.gap == 0.0
    assert not report.alarm
    np.testing.assert_array_equal(report.train, report.test)


def test_memory_rings_the_alarm_and_ignorance_does_not(monkeypatch):
    train_split, test_split = tiny_split(seed=0), tiny_split(seed=1)
    remembered = validate(monkeypatch, Memory(train_split.images), train_split, test_split)
    assert remembered.alarm
    assert np.all(remembered.train <= remembered.test)
    assert np.mean(remembered.train[:3]) < 1e-3  # with little noise it knows the image
    assert not validate(monkeypatch, Blind(), train_split, test_split).alarm


@pytest.mark.parametrize(
    ("gap", "error", "alarm"),
    [(0.0, 0.0, False), (0.2, 0.01, True), (0.2, 0.1, False), (0.05, 0.001, False), (-1, 0, False)],
)
def test_the_alarm_needs_significance_and_size(gap, error, alarm):
    ones = np.ones(NUM_BINS)
    assert Report(ones + gap, ones, gap, error).alarm == alarm


def test_losses_do_not_depend_on_the_batch(monkeypatch):
    train_split, test_split = tiny_split(seed=0), tiny_split(seed=1)
    reports = [
        validate(
            monkeypatch,
            Memory(train_split.images),
            train_split,
            test_split,
            config_of(batch_size=n),
        )
        for n in (1, 5, 24)
    ]
    for other in reports[1:]:
        np.testing.assert_allclose(other.test, reports[0].test, rtol=1e-6)
        np.testing.assert_allclose(other.train, reports[0].train, rtol=1e-6)
        assert other.gap_error == pytest.approx(reports[0].gap_error)


@pytest.mark.parametrize(
    ("num_train", "num_test", "asked", "used"),
    [(24, 24, 12, 12), (24, 9, 24, 9), (6, 24, 24, 6), (24, 24, 1, 3), (24, 10, 24, 10)],
)
def test_both_parts_are_equal_class_by_class(num_train, num_test, asked, used):
    config = config_of(evaluate_images=asked)
    train, test = tiny_split(num_train), tiny_split(num_test, seed=1)
    one = Validation(config, TrainingData(train, test, train.info.image_shape, SCALING), MESH)
    assert len(one) == used
    train_part, test_part = one._train, one._test
    np.testing.assert_array_equal(train_part.labels, test_part.labels)
    assert np.ptp(np.bincount(test_part.labels)) <= 1


def test_pixels_without_a_measurement_do_not_count(monkeypatch):
    split = tiny_split()
    images = split.images.copy()
    images[:, :4] = np.nan
    masked = dataclasses.replace(
        split, images=images, info=dataclasses.replace(split.info, masked=True)
    )
    report = validate(monkeypatch, Blind(), masked, masked)
    power = np.mean(np.square((split.images[:, 4:] - 1) / 2))
    np.testing.assert_allclose(report.test, np.full(NUM_BINS, power), rtol=1e-5)


@pytest.fixture
def _plain(monkeypatch):
    monkeypatch.setattr(writers, "_open_tensorboard", lambda folder: None)


@pytest.mark.usefixtures("_plain")
def test_a_run_validates_at_its_steps_draws_curves_and_trains_as_without(tmp_path):
    config = tiny_config(train={"evaluate_every": 5, "log_every": 3, "num_steps": 12})
    with captured_log() as log:
        state = train(config, tmp_path / "with", tiny_split(), tiny_split(seed=1))
    lines = {line["step"]: line for line in metrics_of(tmp_path / "with")}
    assert sorted(lines) == [3, 5, 6, 9, 10, 12]
    assert [step for step in lines if "validation/test_loss" in lines[step]] == [5, 10, 12]
    for step in (5, 10, 12):
        bins = [lines[step][f"validation/test_loss_bin_{place}"] for place in range(NUM_BINS)]
        assert np.mean(bins) == pytest.approx(lines[step]["validation/test_loss"])
        gap = lines[step]["validation/test_loss"] - lines[step]["validation/train_loss"]
        assert lines[step]["validation/gap"] == pytest.approx(gap, abs=1e-9)
        assert np.isfinite(lines[step]["loss"])
    assert sum("validation on 6 images of each split" in line for line in log) == 3
    assert (tmp_path / "with" / "samples" / "curves.png").stat().st_size > 5_000
    assert states_differ(train(config, tmp_path / "without", tiny_split()), state) == []
    assert not (tmp_path / "without" / "samples" / "curves.png").exists()
    assert not any(
        "validation" in name for line in metrics_of(tmp_path / "without") for name in line
    )
