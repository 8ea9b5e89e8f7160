"""Several steps a dispatch, gradients in parts, and what a loop asks of compiler and host."""

import signal
from typing import Any

import jax
import jax.monitoring
import numpy as np
import pytest
from run_support import captured_log, metrics_of, nested, signal_at, states_differ, tiny_config
from run_support import tiny_split as small_split

from lensjax.config import from_config_dict
from lensjax.data.feed import DeviceFeed, StreamFeed
from lensjax.errors import ConfigError, TrainingError
from lensjax.run import writers
from lensjax.training import generator_watch, prepare
from lensjax.training.loop import train

pytestmark = pytest.mark.usefixtures("quick_compiles")
NUM_STEPS = 12  # of nearly every run here, so that a program is compiled once
NUM_IMAGES = 40  # five steps of eight: epochs begin within dispatches


def _leave_out(patch: pytest.MonkeyPatch) -> None:
    blank = np.zeros((4, 4, 3), np.uint8)
    patch.setattr(writers, "_open_tensorboard", lambda folder: None)
    patch.setattr(generator_watch.Samples, "draw", lambda self, params: (blank, {}))


@pytest.fixture(autouse=True)
def _plain(monkeypatch):
    """Leaves out TensorFlow and the sampler's compilation."""
    _leave_out(monkeypatch)


def run(workdir, at_once=1, *, num=NUM_IMAGES, data=None, **changes):
    settings = {"steps_per_dispatch": at_once, "log_every": at_once, "num_steps": NUM_STEPS}
    settings |= {"checkpoint_every": NUM_STEPS} | changes
    config = tiny_config(train=settings, loss={"stratified": True}, data=data or {})
    return train(config, workdir, small_split(num))


@pytest.fixture(scope="module")
def single(tmp_path_factory):
    """State and losses of a run with one step a dispatch."""
    workdir = tmp_path_factory.mktemp("single") / "run"
    with pytest.MonkeyPatch.context() as patch:
        _leave_out(patch)
        state = run(workdir)
    return state, np.asarray([line["loss"] for line in metrics_of(workdir)])


@pytest.fixture(scope="module")
def four_at_once(tmp_path_factory):
    """Workdir and state of a run with four steps a dispatch."""
    workdir = tmp_path_factory.mktemp("four_at_once") / "run"
    with pytest.MonkeyPatch.context() as patch:
        _leave_out(patch)
        return workdir, run(workdir, 4)


@pytest.mark.parametrize(  # the other runs have four at once, in one part, on the device
    ("at_once", "parts", "placement"), [(2, 4, "stream"), (4, 1, "stream"), (4, 4, "device")]
)
def test_steps_at_once_and_gradients_in_parts_make_the_same_run(
    tmp_path, single, at_once, parts, placement
):
    data = {"placement": placement}
    state = run(tmp_path / "run", at_once, accumulate_steps=parts, data=data)
    expected, losses = single
    lines = metrics_of(tmp_path / "run")
    assert [line["step"] for line in lines] == list(range(at_once, NUM_STEPS + 1, at_once))
    found = [line["loss"] for line in lines]
    np.testing.assert_allclose(found, losses.reshape(-1, at_once).mean(axis=1), rtol=1e-5)
    assert int(state.step) == NUM_STEPS
    jax.tree.map(
        lambda one, other: np.testing.assert_allclose(one, other, atol=2e-5),
        state.ema,
        expected.ema,
    )


def test_a_signal_ends_after_a_dispatch_and_the_run_goes_on_bit_for_bit(tmp_path, four_at_once):
    whole, expected = four_at_once
    with pytest.MonkeyPatch.context() as patch, captured_log() as log:
        patch.setattr(writers.MetricWriters, "scalars", writers.MetricWriters.scalars)
        signal_at(4, signal.SIGTERM)
        run(tmp_path / "parts", 4)
    assert log[-1].startswith("SIGTERM: saved step 8;")
    state = run(tmp_path / "parts", 4)
    assert states_differ(state, expected) == []
    assert metrics_of(tmp_path / "parts")[-1]["loss"] == metrics_of(whole)[-1]["loss"]


def test_another_number_of_steps_at_once_is_refused_on_a_resume(four_at_once):
    with pytest.raises(ConfigError, match=r"train\.steps_per_dispatch: the workdir has 4, this"):
        run(four_at_once[0], 2)


def test_a_bad_step_within_a_dispatch_is_named(tmp_path, monkeypatch):
    build = prepare.build_train_step

    def broken(*arguments):
        step_fn = build(*arguments)

        def step(state, *data):
            spoilt = jax.tree.map(lambda x: np.nan * x, state.params)
            chosen = jax.tree.map(
                lambda bad, good: jax.numpy.where(state.step == 5, bad, good), spoilt, state.params
            )
            after, scalars = step_fn(state._replace(params=chosen), *data)
            return after, scalars

        return step

    monkeypatch.setattr(prepare, "build_train_step", broken)
    with pytest.raises(TrainingError, match="the loss or gradient of step 6 was not finite"):
        run(tmp_path / "run", 4, checkpoint_every=4)
    saved = {path.name for path in (tmp_path / "run" / "checkpoints").iterdir()}
    assert saved == {"4"}


@pytest.mark.parametrize(
    ("placement", "at_once"),
    [
        ("device", 1),
        ("device", 4),
        ("stream", 4),
        pytest.param("stream", 1, marks=pytest.mark.nightly),
    ],
)
def test_nothing_is_compiled_or_read_between_lines_of_the_log(
    tmp_path, monkeypatch, placement, at_once
):
    """Counts from the first line to the last step but one, over several epochs."""
    compiled, read = [], []
    counts = {}

    def on_event(event: str, duration_secs: float, **kwargs: str | int) -> None:
        if event == "/jax/core/compile/backend_compile_duration":
            compiled.append(event)

    owner: Any = type(jax.numpy.zeros(()))
    value = owner._value.fget

    def counted(self):
        read.append(self.shape)
        return value(self)

    monkeypatch.setattr(owner, "_value", property(counted))
    jax.monitoring.register_event_duration_secs_listener(on_event)
    scalars = writers.MetricWriters.scalars

    def note(self, step, values):
        counts[step] = len(compiled), len(read)
        scalars(self, step, values)

    monkeypatch.setattr(writers.MetricWriters, "scalars", note)
    kind: Any = {"device": DeviceFeed, "stream": StreamFeed}[placement]
    arguments = kind.arguments

    def before(feed, step):
        counts.setdefault(f"before {step}", (len(compiled), len(read)))
        return arguments(feed, step)

    monkeypatch.setattr(kind, "arguments", before)
    try:
        run(
            tmp_path / "run",
            at_once,
            num_steps=32,
            checkpoint_every=32,
            log_every=16,
            data={"placement": placement},
        )
    finally:
        jax.monitoring.unregister_event_duration_listener(on_event)
    assert counts["before 28"] == counts["before 16"]
    assert counts["before 28"][0] == counts["before 4"][0]
    # The counts see what is done: three scalars of each dispatch are read for a line.
    assert counts[16][1] - counts["before 12"][1] >= 3 * 16 // at_once
    assert counts[16][0] > 0


def test_what_would_happen_within_a_dispatch_is_refused():
    values = {"train.steps_per_dispatch": 4, "train.log_every": 4, "train.num_steps": 12}
    values |= {"train.sample_every": 4, "train.evaluate_every": 4, "train.checkpoint_every": 4}
    values |= {"train.batch_size": 8}
    assert from_config_dict(nested(values)).train.steps_per_dispatch == 4
    refused = {"log_every": 10, "num_steps": 10, "keep_every": 6, "checkpoint_every": 2}
    refused |= {"sample_every": 2, "evaluate_every": 2, "accumulate_steps": 3}
    for name, value in refused.items():
        with pytest.raises(ConfigError, match=rf"^train\.{name}: got {value}; allowed: a "):
            from_config_dict(nested(values | {f"train.{name}": value}))


def test_more_steps_than_an_epoch_has_are_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"steps_per_dispatch: got 4; allowed: at most 3, the"):
        run(tmp_path / "run", 4, num=24)
    assert not (tmp_path / "run" / "checkpoints").exists()
