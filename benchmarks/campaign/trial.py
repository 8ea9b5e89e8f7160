"""One case of the campaign while it is tried."""

import dataclasses
import pathlib
import random
import shutil
import signal
from collections.abc import Callable, Collection
from typing import Any

from campaign import judge
from campaign.judge import Problem
from campaign.lab import Ended, Running
from campaign.world import STEPS, World

REPEATABLE = ("train", "resume", "build_folder", "build_simulated")


class Trial:
    """A case while it is tried: its folder, its random numbers, and the problems that were seen.

    Args:
      world: templates and right results.
      name: of the case.
      seed: of the campaign.
    """

    def __init__(self, world: World, name: str, seed: int) -> None:
        self.world, self.lab = world, world.lab
        self.rng = random.Random(f"{seed}/{name}")
        self.folder = self.lab.scratch / "cases" / name
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)
        self.problems: list[Problem] = []
        self.did: list[str] = []
        self.errors = ""

    def note(self, text: str) -> None:
        """Notes what was done, for the table of lost cases."""
        self.did.append(text)

    def add(self, *problems: Problem) -> None:
        """Adds problems."""
        self.problems += problems

    def lost(self, text: str) -> None:
        """Adds a problem of the kind `lost`."""
        self.add(Problem(judge.LOST, text))

    def copy(self, template: pathlib.Path, name: str = "run") -> pathlib.Path:
        """A copy of a template in the folder of this case."""
        target = self.folder / name
        shutil.copytree(template, target)
        return target

    def start(self, arguments: list[str], **options: Any) -> Running:
        """Starts a command in the folder of this case; see `Lab.start`."""
        return self.lab.start(arguments, self.folder, **options)

    def end(self, running: Running, allowed: Collection[int]) -> Ended:
        """Waits for a command and judges its end."""
        ended = running.wait()
        self.add(*judge.judge_end(ended, allowed))
        if self.problems and not self.errors:
            self.errors = "\n".join(ended.errors.strip().splitlines()[-4:])[-600:]
        return ended

    def run(self, arguments: list[str], allowed: Collection[int] = (0,), **options: Any) -> Ended:
        """Runs a command and judges its end."""
        return self.end(self.start(arguments, **options), allowed)

    def call(self, code: str, allowed: Collection[int] = (judge.REFUSED,)) -> Ended:
        """Runs Python code and judges its end; an error of lensjax is exit status 2."""
        lines = [
            "import sys, os, math, pathlib, numpy as np, lensjax",
            "from lensjax.errors import UserError",
            "try:",
            *(f"    {line}" for line in code.splitlines()),
            "except UserError as error:",
            "    print('lensjax:', str(error).replace(chr(10), ' '), file=sys.stderr)",
            "    sys.exit(2)",
        ]
        return self.end(self.start([], code="\n".join(lines)), allowed)

    def check_training(self, workdir: pathlib.Path, first_line: int = 0) -> None:
        """Compares a finished training with the undisturbed one, and reads its checkpoint.

        Args:
          workdir: the run's folder.
          first_line: lines of the metrics before this one were damaged, and may be missing.
        """
        world = self.world
        expected = [pair for pair in world.losses if pair[0] > first_line]
        found = judge.judge_training(workdir, STEPS, world.state, expected, first_line)
        self.add(*found)
        if not self.problems:
            self.run(world.flags(workdir, "sample"))
            self.add(*judge.judge_generated(workdir, world.generated, needed=True))


@dataclasses.dataclass(frozen=True)
class Case:
    """A case of the campaign.

    Attributes:
      name: for `--only`.
      kind: its row of the table.
      mode: the mode that it disturbs.
      action: does it to a trial.
      short: whether `--short` tries it too.
    """

    name: str
    kind: str
    mode: str
    action: Callable[[Trial], None]
    short: bool = False

    @classmethod
    def of(
        cls,
        name: str,
        kind: str,
        mode: str,
        action: Callable[..., None],
        *given: object,
        short: bool = False,
    ) -> "Case":
        """A case whose action takes a trial and the arguments that are given here."""
        return cls(name, kind, mode, lambda trial: action(trial, *given), short)


@dataclasses.dataclass(frozen=True)
class Job:
    """A command of a mode that can be disturbed, and then run again.

    Attributes:
      line: the command line.
      place: the folder that it writes into.
      check: judges what it wrote; the argument says whether it must be whole.
    """

    line: list[str]
    place: pathlib.Path
    check: Callable[[bool], None]


def _check(
    judging: Callable[..., list[Problem]], trial: Trial, *fixed: Any
) -> Callable[[bool], None]:
    return lambda needed: trial.add(*judging(*fixed, needed=needed))


def _training(trial: Trial, workdir: pathlib.Path) -> Job:
    def check(needed: bool) -> None:
        if needed:
            trial.check_training(workdir)

    return Job(trial.world.flags(workdir), workdir, check)


def job(trial: Trial, mode: str, parent: pathlib.Path | None = None) -> Job:
    """A command of a mode in a folder where an earlier result lies, as a user's would.

    Args:
      trial: the trial.
      mode: `train`, `resume`, `build_folder` and so on.
      parent: the folder to work in; None for that of the trial.
    """
    world, parent = trial.world, parent or trial.folder
    run = parent / "run"
    if mode == "train":
        return _training(trial, run)
    if mode == "resume":
        shutil.copytree(world.half, run)
        return _training(trial, run)
    if mode.startswith("build"):
        sets = parent / "sets"
        line = world.flags_of_simulated(sets)
        if mode == "build_folder":
            line = world.flags(run, "build_data", data__directory=sets)
        return Job(line, sets, _check(judge.judge_set, trial, sets, world.shards[mode]))
    if mode == "classify":
        shutil.copytree(world.classifier, run)
        table = run / "classified.csv"
        checked = _check(judge.judge_table, trial, table, world.classified)
        return Job(world.flags(run, mode), run, checked)
    shutil.copytree(world.run, run)
    if mode == "export":
        checked = _check(judge.judge_export, trial, run / "export", world.exported)
        return Job(world.flags(run, mode), run, checked)
    if mode == "sample":
        checked = _check(judge.judge_generated, trial, run, world.generated)
        return Job(world.flags(run, mode), run, checked)
    assert mode == "evaluate", mode
    shutil.rmtree(run / "evaluation" / "drawn")
    checked = _check(judge.judge_evaluation, trial, run, world.measures)
    own = trial.folder / "cache"
    return Job(world.flags(run, mode, evaluate__cache=own), run, checked)


def earlier_stays(mode: str) -> bool:
    """Whether a result of the mode lay there before, which must not be lost."""
    return mode in ("sample", "evaluate", "classify")


MODES = (
    "train",
    "resume",
    "build_folder",
    "build_simulated",
    "sample",
    "evaluate",
    "classify",
    "export",
)
SIGNALS = {"KILL": signal.SIGKILL, "TERM": signal.SIGTERM, "INT": signal.SIGINT}
