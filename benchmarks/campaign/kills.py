"""Signals at random moments of every mode, from the first imports on."""

import time
from collections.abc import Iterator

from campaign import judge
from campaign.trial import MODES, SIGNALS, Case, Trial, earlier_stays, job

# Seconds of processor time: of Python itself, before which nobody can catch a signal, of the
# imports of a mode, and of TensorFlow, which a training imports for its first line.
_STARTUP, _IMPORTS, _TENSORFLOW = 0.4, 2.0, 2.5
_ROUNDS = {"train": 3, "resume": 3}
_OTHER_ROUNDS = 2
_ALLOWED: dict[str, tuple[int, ...]] = {
    "KILL": (-9, 0),
    "TERM": (judge.STOPPED, 0),
    "INT": (judge.INTERRUPTED, 0),
}


def _seconds_of(trial: Trial, mode: str) -> float:
    seconds = trial.world.cpu["train" if mode == "resume" else mode] + _IMPORTS
    return seconds + (_TENSORFLOW if mode in ("train", "resume", "evaluate") else 0)


def _kill(trial: Trial, mode: str, name: str, part: tuple[float, float]) -> None:
    """Sends a signal at a random moment, looks at what is there, and runs the command again."""
    disturbed = job(trial, mode)
    share = trial.rng.uniform(*part)
    moment = _STARTUP + share * _seconds_of(trial, mode)
    running = trial.lab.fresh(disturbed.line, trial.folder)
    while running.status() is None and running.cpu_seconds() < moment:
        time.sleep(0.01)
    trial.note(f"{name} after {moment:.1f} s of processor time ({share:.0%})")
    running.send(SIGNALS[name])
    allowed = _ALLOWED[name]
    if name == "INT" and mode in ("train", "resume"):
        allowed = (*allowed, judge.STOPPED)  # it has saved, as it promises
    trial.end(running, allowed)
    disturbed.check(earlier_stays(mode))
    trial.run(disturbed.line)
    if not trial.problems:
        disturbed.check(True)


def cases() -> Iterator[Case]:
    """Moments of each signal in each mode: one in each third of a training, each half of others."""
    for place, mode in enumerate(MODES):
        for number, name in enumerate(SIGNALS):
            rounds = _ROUNDS.get(mode, _OTHER_ROUNDS)
            for turn in range(rounds):
                part = turn / rounds, (turn + 0.9) / rounds
                yield Case(
                    f"{name.lower()}_{mode}_{turn}",
                    f"signal {name}",
                    mode,
                    lambda trial, mode=mode, name=name, part=part: _kill(trial, mode, name, part),
                    short=(place + number) % rounds == turn and (place + number) % 3 == 0,
                )
