"""Full disks, forbidden and vanished folders, and odd names."""

import contextlib
import os
import pathlib
import shutil
import subprocess
import time
from collections.abc import Iterator

from campaign import judge
from campaign.trial import MODES, Case, Job, Trial, earlier_stays, job

_PAGE = 4096


def _mount(folder: pathlib.Path, options: str) -> bool:
    folder.mkdir(parents=True, exist_ok=True)
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder], capture_output=True
    )
    return done.returncode == 0


def _remount(folder: pathlib.Path, options: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{options}", folder], check=True, capture_output=True)


@contextlib.contextmanager
def _mounted(trial: Trial) -> Iterator[pathlib.Path | None]:
    """A disk of its own for a trial; None where this sandbox cannot mount one."""
    folder = trial.folder / "disk"
    if not _mount(folder, "size=64m"):
        yield None
        return
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", folder], check=False, capture_output=True)


def _blocks(folder: pathlib.Path) -> int:
    """The bytes that a tmpfs takes for a folder: whole pages."""
    used = sum(-(-path.stat().st_size // _PAGE) for path in folder.rglob("*") if path.is_file())
    return used * _PAGE


def _finished_size(trial: Trial, mode: str) -> int:
    """The bytes that a mode writes when nothing disturbs it, about."""
    world = trial.world
    if mode.startswith("build"):
        return _blocks(world.lab.scratch / "world" / mode)
    part = {"sample": "generated", "evaluate": "evaluation", "export": "export"}.get(mode)
    if mode == "classify":
        return _PAGE
    return _blocks(world.run / part) if part else _blocks(world.run / "checkpoints") * 2


def _again(trial: Trial, mode: str, disturbed: Job) -> None:
    """Judges what is left, then that the same command ends as if nothing had happened."""
    disturbed.check(earlier_stays(mode))
    trial.run(disturbed.line)
    if not trial.problems:
        disturbed.check(True)


def _full(trial: Trial, mode: str, part: tuple[float, float]) -> None:
    with _mounted(trial) as disk:
        if disk is None:
            trial.note("no disk can be mounted here")
            return
        disturbed = job(trial, mode, disk)
        share = trial.rng.uniform(*part)
        room = _blocks(disk) + int(share * _finished_size(trial, mode)) // _PAGE * _PAGE
        _remount(disk, f"size={max(room, _PAGE)}")
        trial.note(f"room for {share:.0%} of what it writes")
        trial.run(disturbed.line, (judge.REFUSED, 0))
        _remount(disk, "size=64m")
        _again(trial, mode, disturbed)


def _read_only(trial: Trial, mode: str) -> None:
    with _mounted(trial) as disk:
        if disk is None:
            return
        disturbed = job(trial, mode, disk)
        _remount(disk, "ro")
        trial.note("on a read-only disk")
        trial.run(disturbed.line, (judge.REFUSED,))
        _remount(disk, "rw")
        _again(trial, mode, disturbed)


def _limited(trial: Trial, mode: str) -> None:
    """No file may be larger than a bound, as with a quota; works where nothing can be mounted."""
    disturbed = job(trial, mode)
    limit = trial.rng.choice((3_000, 6_000, 9_000))  # the output counts too
    trial.note(f"no file may have more than {limit} bytes")
    trial.run(disturbed.line, (judge.REFUSED, 0), file_bytes=limit)
    _again(trial, mode, disturbed)


def _forbidden(trial: Trial, mode: str) -> None:
    """Nobody may write into the folder."""
    disturbed = job(trial, mode)
    disturbed.place.mkdir(exist_ok=True)
    folders = [disturbed.place, *(p for p in disturbed.place.rglob("*") if p.is_dir())]
    for folder in folders:
        folder.chmod(0o555)
    trial.note("without the permission to write into any of its folders")
    trial.run(disturbed.line, (judge.REFUSED,), obeys=True)
    for folder in folders:
        folder.chmod(0o755)
    _again(trial, mode, disturbed)


def _forbidden_files(trial: Trial, name: str) -> None:
    """A file or folder of a run may not be read."""
    run = trial.copy(trial.world.run)
    (run / name).chmod(0)
    trial.note(f"without the permission to read {name}")
    trial.run(trial.world.flags(run, "sample"), (judge.REFUSED,), obeys=True)
    (run / name).chmod(0o755)
    trial.add(*judge.judge_generated(run, trial.world.generated, needed=True))


def _vanishes(trial: Trial, mode: str) -> None:
    """The folder is deleted while the command writes into it."""
    disturbed = job(trial, mode)
    if mode == "train":
        disturbed.line.append("--config.train.num_steps=20000")
    running = trial.start(disturbed.line)
    waits_for = {"train": "checkpoints/4", "build_folder": "deeplense_folder"}.get(mode)
    moment = trial.rng.uniform(0.2, 1.0) * trial.world.cpu.get(mode, 1.0)
    while running.status() is None and not (
        (disturbed.place / waits_for).exists() if waits_for else running.cpu_seconds() > moment
    ):
        time.sleep(0.005)
    shutil.rmtree(disturbed.place, ignore_errors=True)
    trial.note(f"{disturbed.place.name} is deleted meanwhile")
    if mode == "train":
        trial.end(running, (judge.REFUSED,))
        return
    ended = trial.end(running, (judge.REFUSED, 0))
    disturbed.check(ended.status == 0 and disturbed.place.exists())


def _full_output(trial: Trial, mode: str) -> None:
    disturbed = job(trial, mode)
    trial.note("stdout is /dev/full")
    trial.run(disturbed.line, (judge.REFUSED, 0, 1), output="/dev/full")
    disturbed.check(False)


def _full_cache(trial: Trial) -> None:
    """A cache without room must cost nothing but time."""
    with _mounted(trial) as disk:
        if disk is None:
            return
        disturbed = job(trial, "evaluate")
        _remount(disk, f"size={_PAGE}")
        trial.note("the cache's disk is full")
        trial.run([*disturbed.line, f"--config.evaluate.cache={disk}"])
        disturbed.check(True)


_NAMES = {
    "brackets": "w=[64,128]",
    "star": "a*b?",
    "spaces": " two  spaces ",
    "umlauts": "Läufe/größer",
    "quote": 'it\'s "so"',
    "percent": "100%d%s{x}",
    "hash": "a#b;c&d",
    "numbers": "12/900",
    "emoji": "run🔭",
    "newline": "a\nb",
    "home": "~/in_home",
    "variable": "$HOME/in_variable",
    "long": "x" * 200,
    "bang": "!important",
    "backslash": "a\\b",
}


def _odd_name(trial: Trial, name: str, **environment: str) -> None:
    """Trains in a workdir with an odd name, goes on there, and draws: it works or is refused."""
    text = _NAMES[name]
    given = text if text[0] in "~$" else os.fspath(trial.folder / text)
    real = pathlib.Path(given.replace("$HOME", "~").replace("~", f"{trial.lab.scratch}/home"))
    shutil.rmtree(real, ignore_errors=True)
    trial.note(f"the workdir is {text!r}")
    line = trial.world.flags(given)
    start = trial.lab.fresh(line, trial.folder, **environment) if environment else trial.start(line)
    ended = trial.end(start, (0, judge.REFUSED))
    if ended.status == 0:
        trial.check_training(real)
    for place in (trial.folder / "~", trial.folder / "$HOME"):
        if place.exists():
            trial.lost(f"a folder named {place.name} was made")


def _too_long(trial: Trial, field: str) -> None:
    mode = {"workdir": "train", "data.directory": "build_folder", "export.folder": "export"}
    disturbed = job(trial, mode.get(field, "evaluate"))
    flag = f"--workdir={trial.folder}/" if field == "workdir" else f"--config.{field}="
    trial.note(f"{field} is a name of 300 letters")
    line = [*disturbed.line, flag + "y" * 300]
    trial.run(line, (judge.REFUSED,) if field != "evaluate.cache" else (judge.REFUSED, 0))


def cases() -> Iterator[Case]:
    """Everything that a disk can do to each mode."""
    for number, mode in enumerate(MODES):
        for turn in range(2):
            part = (0.0, 0.5) if turn == 0 else (0.5, 0.95)
            short = turn == number % 2 and mode in ("resume", "sample", "export", "build_folder")
            yield Case.of(f"full_{mode}_{turn}", "disk full", mode, _full, mode, part, short=short)
        yield Case.of(f"limit_{mode}", "file too large", mode, _limited, mode, short=number == 4)
        yield Case.of(f"readonly_{mode}", "read-only", mode, _read_only, mode, short=number == 0)
        yield Case.of(
            f"forbidden_{mode}", "permission", mode, _forbidden, mode, short=mode == "resume"
        )
    for name in ("config.json", "dataset.json", "checkpoints", "checkpoints/12"):
        place = name.replace("/", "_")
        yield Case.of(f"unreadable_{place}", "permission", "sample", _forbidden_files, name)
    for mode in ("train", "sample", "export", "build_folder"):
        yield Case.of(f"vanishes_{mode}", "deleted", mode, _vanishes, mode, short=mode == "train")
    for mode in ("evaluate", "classify", "build_folder"):
        yield Case.of(f"devfull_{mode}", "disk full", mode, _full_output, mode)
    yield Case("full_cache", "disk full", "evaluate", _full_cache)
    for name in _NAMES:
        short = name in ("brackets", "home")
        yield Case.of(f"name_{name}", "odd name", "train", _odd_name, name, short=short)
    yield Case(
        "name_ascii_locale",
        "odd name",
        "train",
        lambda trial: _odd_name(trial, "umlauts", LC_ALL="C", LANG="C", PYTHONUTF8="0"),
    )
    for field in ("workdir", "data.directory", "export.folder", "evaluate.cache"):
        place = field.replace(".", "_")
        yield Case.of(f"long_{place}", "odd name", "train", _too_long, field)
