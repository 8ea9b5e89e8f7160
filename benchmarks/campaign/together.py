"""Two commands at once: in one workdir, on one set, with one cache."""

import pathlib
import time
from collections.abc import Iterator

from campaign import judge
from campaign.trial import Case, Trial, job


def _two_trainings(trial: Trial) -> None:
    """One trains, the other is refused; the result is that of one."""
    line = trial.world.flags(trial.folder / "run")
    one, two = trial.start(line), trial.start(line)
    statuses = {trial.end(process, (0, judge.REFUSED)).status for process in (one, two)}
    if 0 not in statuses:
        trial.lost("both trainings were refused")
    trial.check_training(trial.folder / "run")


def _other_seed(trial: Trial) -> None:
    """A second training with another seed is refused, and the first is as it was."""
    run = trial.folder / "run"
    one = trial.start(trial.world.flags(run))
    delay = trial.rng.uniform(0.0, 0.6)
    while one.status() is None and not (run / "dataset.json").exists():
        time.sleep(0.005)
    time.sleep(delay)
    trial.note(f"another seed {delay:.2f} s after the first wrote dataset.json")
    two = trial.start(trial.world.flags(run, seed=1))
    trial.end(two, (judge.REFUSED,))
    trial.end(one, (0,))
    content = judge.read_json(run / "config.json") or {}
    if content.get("config", {}).get("seed") != 0:
        trial.lost("config.json has the seed of the training that was refused")
    if not (run / "dataset.json").exists():
        trial.lost("dataset.json is gone")
    trial.run(trial.world.flags(run))
    trial.check_training(run)


def _two_builds(trial: Trial, mode: str) -> None:
    disturbed = job(trial, mode)
    one, two = trial.start(disturbed.line), trial.start(disturbed.line)
    for process in (one, two):
        trial.end(process, (0,))
    disturbed.check(True)


def _build_killed_beside(trial: Trial) -> None:
    """One of two builds is killed; the other finishes the set."""
    disturbed = job(trial, "build_simulated")
    one, two = trial.start(disturbed.line), trial.start(disturbed.line)
    moment = trial.rng.uniform(0.3, 0.9) * trial.world.cpu["build_simulated"]
    while one.status() is None and max(one.cpu_seconds(), two.cpu_seconds()) < moment:
        time.sleep(0.02)
    first = max((one, two), key=lambda process: process.cpu_seconds())
    first.send(9)
    trial.note(f"the build that is ahead is killed after {moment:.1f} s")
    for process in (one, two):
        trial.end(process, (-9, 0) if process is first else (0,))
    disturbed.check(True)


def _beside_training(trial: Trial) -> None:
    """Drawing and evaluating while a training goes on."""
    run, world = trial.copy(trial.world.half), trial.world
    training = trial.start(world.flags(run))
    drawing = trial.start(world.flags(run, "sample"))
    own = trial.folder / "cache"
    scoring = trial.start(world.flags(run, "evaluate", evaluate__cache=own))
    trial.end(training, (0,))
    trial.end(drawing, (0,))
    trial.end(scoring, (0,))
    trial.add(*judge.judge_generated(run, world.generated, needed=True))
    trial.add(*judge.judge_evaluation(run, world.measures, needed=True))
    trial.check_training(run)


def _two_evaluations(trial: Trial) -> None:
    """Two runs are evaluated with one cache."""
    own = trial.folder / "cache"
    runs = [trial.copy(trial.world.run, name) for name in ("one", "two")]
    lines = [trial.world.flags(run, "evaluate", evaluate__cache=own) for run in runs]
    for process in [trial.start(line) for line in lines]:
        trial.end(process, (0,))
    for run in runs:
        trial.add(*judge.judge_evaluation(run, trial.world.measures, needed=True))


def _two_in_one(trial: Trial, mode: str) -> None:
    """Two of a mode in one workdir: both end, or one is refused, and what lies there is whole."""
    disturbed = job(trial, mode)
    other = list(disturbed.line)
    if mode == "sample":
        other += ["--config.sample.seed=1", "--config.sample.num_images=3"]
    processes = [trial.start(disturbed.line), trial.start(other)]
    if 0 not in {trial.end(process, (0, judge.REFUSED)).status for process in processes}:
        trial.lost("both were refused")
    disturbed.check(True)


def _one_set_of_two(trial: Trial) -> None:
    """Two trainings build the same set, each in its own workdir."""
    sets = trial.folder / "sets"
    runs: list[pathlib.Path] = [trial.folder / "one", trial.folder / "two"]
    processes = [trial.start(trial.world.flags(run, data__directory=sets)) for run in runs]
    for process in processes:
        trial.end(process, (0,))
    for run in runs:
        trial.check_training(run)


def _killed_and_again(trial: Trial) -> None:
    """A killed training is run again while its first process is not yet gone."""
    run = trial.copy(trial.world.half)
    line = trial.world.flags(run)
    one = trial.start(line)
    moment = trial.rng.uniform(0.2, 0.8) * trial.world.cpu["train"]
    while one.status() is None and one.cpu_seconds() < moment:
        time.sleep(0.01)
    one.send(9)
    trial.run(line, (0, judge.REFUSED))
    trial.end(one, (-9, 0))
    trial.run(line)
    trial.check_training(run)


def cases() -> Iterator[Case]:
    """Pairs of commands."""
    kind = "two at once"
    for turn in range(2):
        yield Case(f"two_trainings_{turn}", kind, "train", _two_trainings, turn == 0)
    for turn in range(4):
        yield Case(f"other_seed_{turn}", kind, "train", _other_seed, turn == 0)
    for mode in ("build_folder", "build_simulated"):
        action = lambda trial, mode=mode: _two_builds(trial, mode)  # noqa: E731
        yield Case(f"two_{mode}", kind, mode, action, mode == "build_folder")
    yield Case("build_killed_beside", kind, "build_simulated", _build_killed_beside)
    yield Case("beside_training", kind, "train", _beside_training)
    yield Case("two_evaluations", kind, "evaluate", _two_evaluations)
    for mode in ("sample", "export", "evaluate", "classify"):
        for turn in range(2 if mode in ("sample", "export") else 1):
            action = lambda trial, mode=mode: _two_in_one(trial, mode)  # noqa: E731
            yield Case(f"two_{mode}_{turn}", kind, mode, action, mode == "sample" and turn == 0)
    yield Case("one_set_of_two", kind, "train", _one_set_of_two)
    for turn in range(2):
        yield Case(f"killed_and_again_{turn}", kind, "resume", _killed_and_again)
