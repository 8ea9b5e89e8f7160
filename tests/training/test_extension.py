"""A run that gets more steps: bit for bit the longer run, or a line that says why it is not."""

import shutil

import numpy as np
import pytest
from run_support import (
    captured_log,
    metrics_of,
    states_differ,
    tiny_config,
    tiny_split,
)

from lensjax.run import writers
from lensjax.run.learning import branch_step
from lensjax.training import generator_watch
from lensjax.training.extension import COOLED, log_rates
from lensjax.training.loop import train

pytestmark = pytest.mark.usefixtures("quick_compiles")


@pytest.fixture(autouse=True)
def _plain(monkeypatch):
    """Leaves out TensorFlow and the sampler's compilation."""
    blank = np.zeros((4, 4, 3), np.uint8)
    monkeypatch.setattr(writers, "_open_tensorboard", lambda folder: None)
    monkeypatch.setattr(generator_watch.Samples, "draw", lambda self, params: (blank, {}))


def cooling(num_steps, **fields):
    return tiny_config(
        optim={"schedule": "cooldown", "cooldown_share": 0.25},
        train={"num_steps": num_steps, "keep_last": 1, **fields},
    )


def kept(workdir):
    return sorted(int(path.name) for path in (workdir / "checkpoints").glob("[0-9]*"))


def losses(workdir):
    return [(line["step"], line["loss"], line["learning_rate"]) for line in metrics_of(workdir)]


def extended(tmp_path, **fields):
    """A finished run of 12 steps that got 16, and one that had 16 from the beginning."""
    run, longer = tmp_path / "run", tmp_path / "longer"
    split = tiny_split()
    train(cooling(12, **fields), run, split, quiet=True)
    before = kept(run)
    with captured_log() as lines:
        state = train(cooling(16, **fields), run, split)
    expected = train(cooling(16, **fields), longer, split, quiet=True)
    return run, longer, before, state, expected, lines


def test_a_finished_cooldown_that_gets_more_steps_is_the_longer_run(tmp_path):
    run, longer, before, state, expected, lines = extended(tmp_path)
    assert before == [9, 12]
    assert states_differ(state, expected) == []
    assert losses(run) == losses(longer)
    assert kept(run) == kept(longer) == [12, 16]
    assert (run / COOLED / "12").is_dir()
    assert (run / COOLED / "metrics.jsonl").read_text().count("\n") == 12
    picture = "step_00000012.png"
    assert (run / COOLED / picture).exists()
    assert not (run / "samples" / picture).exists()
    text = "\n".join(lines)
    assert "going back to step 9, before the cooldown of the run of 12 steps began" in text
    assert "the result is that of a run of 16 steps" in text


@pytest.mark.nightly
@pytest.mark.parametrize(("steps", "branch"), [(2, 8), (4, 8)])
def test_the_branch_falls_between_dispatches(tmp_path, steps, branch):
    every = dict.fromkeys(
        ("log_every", "checkpoint_every", "evaluate_every", "sample_every"), 2 * steps
    )
    fields = {"steps_per_dispatch": steps, "batch_size": 4, **every}
    run, longer, before, state, expected, _ = extended(tmp_path, **fields)
    assert branch in before
    assert states_differ(state, expected) == []
    assert losses(run) == losses(longer)


@pytest.mark.nightly
@pytest.mark.parametrize("gone", ["removed", "damaged"])
def test_without_the_kept_checkpoint_it_goes_on_from_the_newest_and_says_so(tmp_path, gone):
    run, split = tmp_path / "run", tiny_split()
    train(cooling(12), run, split, quiet=True)
    if gone == "removed":
        shutil.rmtree(run / "checkpoints" / "9")
    else:
        for path in (run / "checkpoints" / "9").rglob("d/*"):
            path.write_bytes(path.read_bytes()[:-9])
    with captured_log() as lines:
        train(cooling(16), run, split)
    text = "\n".join(lines)
    assert "no checkpoint before the cooldown of the run of 12 steps" in text
    assert "resumed at step 12" in text
    assert "the result is that of neither" in text


@pytest.mark.parametrize(
    ("schedule", "num_steps", "start", "words"),
    [
        ("cosine", 60, 40, "learning rate of step 41 is 0.00266, was 0; "),
        ("cosine", 30, 20, "the result is that of neither"),
        ("cosine", 60, 2, "the result is that of a run of 60 steps"),  # in the warm-up
        ("cooldown", 60, 30, "the result is that of a run of 60 steps"),
        ("cooldown", 60, 33, "the result is that of neither"),
        ("cooldown", 20, 15, "the result is that of a run of 20 steps"),
        ("cooldown", 20, 17, "the result is that of neither"),
        ("cosine", 40, 20, None),
    ],
)
def test_another_number_of_steps_is_said_with_both_rates(schedule, num_steps, start, words):
    share = {"cooldown_share": 0.25} if schedule == "cooldown" else {}
    optim = {"schedule": schedule, "learning_rate_floor": 0.0, **share}
    earlier = tiny_config(optim=optim, train={"num_steps": 40})
    config = tiny_config(optim=optim, train={"num_steps": num_steps})
    with captured_log() as lines:
        log_rates(config, earlier, start)
    if words is None:
        assert lines == []
        return
    (line,) = lines
    assert line.startswith(f"train.num_steps is {num_steps}, was 40: ")
    assert words in line


@pytest.mark.parametrize(
    ("fields", "branch"),
    [
        ({"num_steps": 12}, 9),
        ({"num_steps": 12, "steps_per_dispatch": 4}, 8),
        ({"num_steps": 1}, 2),  # never before the end of the warm-up
    ],
)
def test_the_branch_is_the_last_step_before_the_cooldown(fields, branch):
    every = dict.fromkeys(("evaluate_every", "sample_every"), 100)
    steps = fields.get("steps_per_dispatch", 1)
    config = cooling(**fields, **every, log_every=steps, checkpoint_every=4 * steps, batch_size=4)
    assert branch_step(config) == branch
    assert branch_step(tiny_config()) is None
