"""Progress of long work: bars in a terminal, lines in a log file."""

import logging
import sys

import jax.numpy as jnp
import pytest
from run_support import tiny_config

from lensjax.devices import progress
from lensjax.training import monitor


@pytest.fixture
def terminal(capsys, monkeypatch):
    """Captures standard error, which is taken for a terminal."""
    for module in (progress, monitor):
        monkeypatch.setattr(module, "shows_bars", lambda: True)
    return capsys


def test_a_log_file_gets_whole_lines(capsys, monkeypatch):
    monkeypatch.setattr(progress, "SECONDS_BETWEEN_LINES", 0.0)
    with progress.progress_bar(3, "Checking", unit=" files") as bar:
        for _ in range(3):
            bar.update()
    said = capsys.readouterr().err
    assert "\r" not in said
    assert said.splitlines()[-1].startswith("Checking: 3 of 3 files")


def test_a_log_file_gets_nothing_of_short_work(capsys):
    with progress.progress_bar(3, "Checking") as bar:
        bar.update(3)
    assert capsys.readouterr().err == ""


def test_a_terminal_gets_a_bar_with_the_lines_of_the_log_above_it(terminal):
    handler = logging.StreamHandler(sys.stderr)
    progress.write_above_bars(handler)
    with progress.progress_bar(3, "Checking") as bar:
        bar.update()
        handler.emit(logging.makeLogRecord({"msg": "a line of the log"}))
        bar.update(2)
    said = terminal.readouterr().err
    assert "\ra line of the log\n" in said
    assert "3/3" in said


@pytest.mark.parametrize("quiet", [False, True])
def test_training_shows_the_newest_loss_and_the_time_left(terminal, quiet):
    shown = monitor.Progress(tiny_config(train={"num_steps": 8}), 4, quiet=quiet)
    for loss in (0.25, 0.75):
        scalars = dict.fromkeys(("gradient_norm", "learning_rate"), jnp.ones(1))
        shown.add({"loss": jnp.full(1, loss), **scalars})
    assert shown.summary(6)["loss"] == 0.5
    shown.close()
    said = terminal.readouterr().err
    assert ("6/8" in said, "loss 0.5000" in said) == (not quiet, not quiet)
