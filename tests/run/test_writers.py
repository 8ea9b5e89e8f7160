"""Metrics: the file of JSON lines and the TensorBoard events."""

import itertools
import json
import math
import signal
from typing import Any

import numpy as np
import pytest
from absl import logging
from absl.logging import converter
from run_support import captured_log, metrics_of, states_differ, tiny_config, tiny_split

from lensjax.run import writers
from lensjax.run.writers import MetricWriters
from lensjax.training.loop import train

pytestmark = pytest.mark.usefixtures("quick_compiles")


@pytest.fixture
def _without_tensorboard(monkeypatch):
    monkeypatch.setattr(writers, "_open_tensorboard", lambda folder: None)


def _write(workdir, resumed_at, steps):
    workdir.mkdir(exist_ok=True)
    writer = MetricWriters(workdir / "metrics.jsonl", resumed_at)
    for step in steps:
        writer.scalars(step, {"loss": float(step)})
    writer.close()


TAILS = (
    "",
    '{"step": 5, "lo',
    "{",
    "\n",
    "not json\n",
    "[5]\n",
    '{"loss": 1.0}\n',
    '{"step": "5"}\n',
)


@pytest.mark.usefixtures("_without_tensorboard")
def test_each_step_stands_once_after_a_resume(tmp_path):
    found: dict[Any, Any] = {}
    expected: dict[Any, Any] = {}
    for case in itertools.product((0, 2, 4, 9), TAILS):
        resumed_at, tail = case
        folder = tmp_path / str(len(found))
        _write(folder, 0, [1, 2, 3, 4])
        with (folder / "metrics.jsonl").open("a") as file:
            file.write(tail)
        _write(folder, resumed_at, [resumed_at + 1, resumed_at + 2])
        kept = [step for step in (1, 2, 3, 4) if step <= resumed_at]
        steps = [*kept, resumed_at + 1, resumed_at + 2]
        expected[case] = [{"step": step, "loss": float(step)} for step in steps]
        found[case] = metrics_of(folder)
    assert found == expected


@pytest.mark.usefixtures("_without_tensorboard")
def test_a_line_can_be_read_at_once_and_not_finite_values_are_null(tmp_path):
    writer = MetricWriters(tmp_path / "metrics.jsonl", 0)
    writer.scalars(1, {"loss": math.nan, "rate": 0.1})
    (line,) = metrics_of(tmp_path)
    writer.close()
    assert list(line) == ["step", "loss", "rate"]
    assert line["loss"] is None
    assert "NaN" not in (tmp_path / "metrics.jsonl").read_text()  # which is no JSON


def _events(workdir):
    from tensorboard.backend.event_processing import event_accumulator

    everything = {"scalars": 0, "images": 0, "tensors": 0}
    events = event_accumulator.EventAccumulator(str(workdir), size_guidance=everything)
    events.Reload()
    return events


def _values(events, tag):
    """Returns the values of a scalar by step; TensorFlow 2 keeps scalars as tensors."""
    from tensorboard.util import tensor_util

    return {
        event.step: float(tensor_util.make_ndarray(event.tensor_proto))
        for event in events.Tensors(tag)
    }


def _picture(events, tag):
    """Returns step and picture of the one image, uint8 `[H, W, 3]`."""
    import io

    from PIL import Image
    from tensorboard.util import tensor_util

    (event,) = events.Tensors(tag)
    *_, encoded = tensor_util.make_ndarray(event.tensor_proto)
    return event.step, np.asarray(Image.open(io.BytesIO(encoded)))


def test_tensorboard_shows_what_metrics_jsonl_and_the_sample_picture_hold(tmp_path):
    from PIL import Image

    pytest.importorskip("tensorflow")
    with captured_log() as log:
        train(tiny_config(), tmp_path, tiny_split())
    assert not any("TensorFlow" in line for line in log)
    assert len(list(tmp_path.glob("events.out.tfevents.*"))) == 1
    events = _events(tmp_path)
    lines = {line["step"]: line for line in metrics_of(tmp_path)}
    for name in ("loss", "gradient_norm", "learning_rate", "images_per_second"):
        expected = {step: line[name] for step, line in lines.items()}
        assert _values(events, name) == pytest.approx(expected, rel=1e-6)
    step, picture = _picture(events, "samples")
    assert step == 12
    file = np.asarray(Image.open(tmp_path / "samples" / "step_00000012.png"))
    assert np.array_equal(picture, file)
    writers.show(tmp_path / "shown", 7, {"score": 0.25}, {"grid": file})
    events = _events(tmp_path / "shown")
    assert _values(events, "score") == {7: 0.25}
    step, picture = _picture(events, "grid")
    assert step == 7
    assert np.array_equal(picture, file)


def _shown(workdir, tag):
    """The steps of a scalar as the data provider of TensorBoard's own pages has them."""
    from tensorboard.backend.event_processing import data_provider, plugin_event_multiplexer
    from tensorboard.context import RequestContext

    multiplexer = plugin_event_multiplexer.EventMultiplexer(tensor_size_guidance={"scalars": 0})
    multiplexer.AddRunsFromDirectory(str(workdir))
    multiplexer.Reload()
    provider = data_provider.MultiplexerDataProvider(multiplexer, str(workdir))
    found = provider.read_scalars(
        RequestContext(), experiment_id="", plugin_name="scalars", downsample=1000
    )
    return [(point.step, point.value) for point in found["."][tag]]


def test_tensorboard_shows_each_step_once_after_a_kill_and_a_resume(tmp_path):
    pytest.importorskip("tensorflow")
    path = tmp_path / "metrics.jsonl"
    killed: list[MetricWriters] = []
    expected: dict[int, float] = {}
    for resumed_at, last in ((0, 6), (4, 7), (4, 5), (5, 8)):
        writer = MetricWriters(path, resumed_at)
        for step in range(resumed_at + 1, last + 1):
            writer.scalars(step, {"loss": step + 0.1 * len(killed)})
        writer.flush()
        kept = {step: value for step, value in expected.items() if step <= resumed_at}
        new = {step: step + 0.1 * len(killed) for step in range(resumed_at + 1, last + 1)}
        expected = kept | new
        killed.append(writer)  # what was flushed is all that a kill leaves
        points = _shown(tmp_path, "loss")
        assert [step for step, _ in points] == list(expected)
        assert dict(points) == pytest.approx(expected)
    for writer in killed:
        writer.close()


@pytest.mark.usefixtures("_without_tensorboard")
def test_a_quiet_training_says_nothing_and_computes_the_same(tmp_path, monkeypatch):
    config = tiny_config(train={"evaluate_every": 6})
    split, test = tiny_split(), tiny_split(12, seed=1)
    with captured_log() as log:
        loud = train(config, tmp_path / "loud", split, test)
        lines = len(log)
        monkeypatch.setattr(writers, "_open_tensorboard", _refuse)
        monkeypatch.setattr(signal, "signal", _refuse)
        quiet = train(config, tmp_path / "quiet", split, test, quiet=True)
        assert len(log) == lines > 0
        assert logging.get_absl_logger().level == converter.STANDARD_INFO
    assert states_differ(loud, quiet) == []
    assert (tmp_path / "loud" / "samples" / "curves.png").is_file()
    assert not (tmp_path / "quiet" / "samples" / "curves.png").exists()
    timeless = [
        [{name: one for name, one in line.items() if name != "images_per_second"} for line in kept]
        for kept in (metrics_of(tmp_path / "loud"), metrics_of(tmp_path / "quiet"))
    ]
    assert timeless[0] == timeless[1]


def _refuse(*arguments):
    raise AssertionError(f"called with {arguments}")


def test_tensorflow_never_sees_an_accelerator(tmp_path):
    tf = pytest.importorskip("tensorflow")
    MetricWriters(tmp_path / "metrics.jsonl", 0).close()
    assert tf.config.get_visible_devices("GPU") == []


def test_without_tensorflow_one_line_says_so_and_the_rest_goes_on(tmp_path, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "tensorflow", None)
    with captured_log() as log:
        _write(tmp_path, 0, [1])
    assert len(log) == 1
    assert "TensorFlow is not installed" in log[0]
    assert "metrics.jsonl" in log[0]
    assert json.loads((tmp_path / "metrics.jsonl").read_text()) == {"step": 1, "loss": 1.0}
    assert [path.name for path in tmp_path.iterdir()] == ["metrics.jsonl"]
