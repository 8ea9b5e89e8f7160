"""Damaged, missing and foreign files: checkpoints, JSON, drawn images, caches, data sets."""

import json
import os
import pathlib
import shutil
from collections.abc import Callable, Iterator
from typing import Any

from campaign import judge
from campaign.trial import Case, Trial
from campaign.world import EVERY, STEPS

_MANNERS = ("flip", "cut", "empty", "delete")
_NEWEST = 2 * EVERY  # of the half-finished run


def damage(trial: Trial, path: pathlib.Path, manner: str) -> None:
    """Damages a file; a flip changes the highest bit of a byte, which no text survives."""
    size = path.stat().st_size
    trial.note(f"{manner} {path.name}")
    if manner == "delete":
        path.unlink()
    elif manner == "empty" or not size:
        path.write_bytes(b"")
    elif manner == "cut":
        os.truncate(path, trial.rng.randrange(size))
    else:
        content = bytearray(path.read_bytes())
        content[trial.rng.randrange(size)] ^= 0x80
        path.write_bytes(content)


def _files(folder: pathlib.Path) -> list[pathlib.Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def _train_on(trial: Trial, run: pathlib.Path, first_line: int = 0) -> None:
    """Goes on with a run: it ends with the right bits, or is refused in one line."""
    ended = trial.run(trial.world.flags(run), (0, judge.REFUSED))
    if ended.status == 0:
        trial.check_training(run, first_line)


def _draw(trial: Trial, run: pathlib.Path) -> None:
    """Draws from a run: the right images of the checkpoint that is named, or a refusal."""
    ended = trial.run(trial.world.flags(run, "sample"), (0, judge.REFUSED))
    trial.add(*judge.judge_generated(run, trial.world.generated, needed=ended.status == 0))


_CHECKPOINT_FILES = {
    "arrays": "state/d/*",
    "index": "state/manifest.ocdbt",
    "process": "state/ocdbt.process_0/manifest.ocdbt",
    "state": "state/_METADATA",
    "leaves": "leaves/metadata",
    "metadata": "_CHECKPOINT_METADATA",
}


def _checkpoint(trial: Trial, part: str, manner: str, mode: str) -> None:
    world = trial.world
    run = trial.copy(world.half if mode == "resume" else world.run)
    newest = run / "checkpoints" / str(_NEWEST if mode == "resume" else STEPS)
    paths = sorted(newest.glob(_CHECKPOINT_FILES[part]))
    if not paths:
        trial.note(f"there is no {part} in a checkpoint of this version")
        return
    damage(trial, max(paths, key=lambda path: path.stat().st_size), manner)
    (_train_on if mode == "resume" else _draw)(trial, run)


def _copied(source: str, target: str) -> Callable[[Trial, pathlib.Path], None]:
    def change(trial: Trial, run: pathlib.Path) -> None:
        shutil.copytree(run / source, run / target, dirs_exist_ok=True)

    return change


def _moved(source: str, target: str) -> Callable[[Trial, pathlib.Path], None]:
    def change(trial: Trial, run: pathlib.Path) -> None:
        (run / source).rename(run / target)

    return change


def _foreign(source: str, target: str) -> Callable[[Trial, pathlib.Path], None]:
    def change(trial: Trial, run: pathlib.Path) -> None:
        shutil.rmtree(run / target, ignore_errors=True)
        shutil.copytree(trial.world.other / source, run / target)

    return change


def _made(target: str, *, folder: bool) -> Callable[[Trial, pathlib.Path], None]:
    def change(trial: Trial, run: pathlib.Path) -> None:
        place = run / target
        place.mkdir(parents=True) if folder else place.write_text("not of lensjax\n")

    return change


def _gone(target: str) -> Callable[[Trial, pathlib.Path], None]:
    return lambda trial, run: shutil.rmtree(run / target)


_CHANGED_FOLDERS: dict[str, Callable[[Trial, pathlib.Path], None]] = {
    "copy_4_as_9": _copied("checkpoints/4", "checkpoints/9"),
    "copy_8_as_12": _copied("checkpoints/8", "checkpoints/12"),
    "copy_8_as_900": _copied("checkpoints/8", "checkpoints/900"),
    "rename_8_to_10": _moved("checkpoints/8", "checkpoints/10"),
    "foreign_8": _foreign("checkpoints/8", "checkpoints/8"),
    "foreign_12": _foreign("checkpoints/12", "checkpoints/12"),
    "empty_folder_11": _made("checkpoints/11", folder=True),
    "file_11": _made("checkpoints/11", folder=False),
    "stray_folder": _made("checkpoints/notes", folder=True),
    "stray_file": _made("checkpoints/notes.txt", folder=False),
    "stray_file_in_8": _made("checkpoints/8/notes.txt", folder=False),
    "state_gone": _gone("checkpoints/8/state"),
    "leaves_gone": _gone("checkpoints/8/leaves"),
    "all_gone": _gone("checkpoints"),
    "leaves_of_4": _copied("checkpoints/4/leaves", "checkpoints/8/leaves"),
}


def _folder_changed(trial: Trial, name: str, mode: str) -> None:
    run = trial.copy(trial.world.half)
    trial.note(name.replace("_", " "))
    _CHANGED_FOLDERS[name](trial, run)
    (_train_on if mode == "resume" else _draw)(trial, run)


def _json_file(trial: Trial, name: str, manner: str, mode: str) -> None:
    run = trial.copy(trial.world.half)
    damage(trial, run / name, manner)
    if mode == "resume":  # nothing can bring the lines of a damaged metrics.jsonl back
        _train_on(trial, run, _NEWEST if name == "metrics.jsonl" else 0)
    else:
        _draw(trial, run)


# Values of a JSON file that no run has: file, path of the field, value.
_VALUES: dict[str, tuple[str, str, Any]] = {
    "spread_0": ("dataset.json", "scaling.spread", 0),
    "spread_nan": ("dataset.json", "scaling.spread", float("nan")),
    "spread_text": ("dataset.json", "scaling.spread", "wide"),
    "spread_huge": ("dataset.json", "scaling.spread", 1e300),
    "kind_unknown": ("dataset.json", "scaling.kind", "cube"),
    "no_scaling": ("dataset.json", "scaling", None),
    "few_names": ("dataset.json", "class_names", ["a"]),
    "name_twice": ("dataset.json", "class_names", ["a", "a", "b"]),
    "names_numbers": ("dataset.json", "class_names", [1, 2, 3]),
    "shape_huge": ("dataset.json", "image_shape", [1_000_000, 1_000_000, 1]),
    "shape_two": ("dataset.json", "image_shape", [16, 16]),
    "shape_other": ("dataset.json", "image_shape", [24, 24, 1]),
    "published_0": ("dataset.json", "published_scale", 0),
    "pixel_negative": ("dataset.json", "pixel_scale_arcsec", -1),
    "ranges_text": ("dataset.json", "flux_ranges", "none"),
    "bands_extra": ("dataset.json", "band_names", ["g", "r"]),
    "width_text": ("config.json", "config.model.width", "wide"),
    "width_huge": ("config.json", "config.model.width", 10**9),
    "depth_huge": ("config.json", "config.model.depth", 1_000_000),
    "patch_0": ("config.json", "config.model.patch_size", 0),
    "classes_list": ("config.json", "config.model.num_classes", [3]),
    "no_model": ("config.json", "config.model", None),
    "unknown_field": ("config.json", "config.model.colour", "red"),
    "config_list": ("config.json", "config", []),
}


def _value(trial: Trial, name: str) -> None:
    """A value that cannot be right is refused, by name, by `lensjax.load`."""
    run = trial.copy(trial.world.run)
    file, field, value = _VALUES[name]
    content = json.loads((run / file).read_text())
    *path, leaf = field.split(".")
    owner = content
    for part in path:
        owner = owner[part]
    owner[leaf] = value
    (run / file).write_text(json.dumps(content))
    trial.note(f"{file}: {field} is {value!r}")
    ended = trial.call(
        f"images = lensjax.load({os.fspath(run)!r}).generate(num=6)\nprint(images.shape)"
    )
    if ended.status == judge.REFUSED and file not in ended.errors:
        trial.lost(f"the message does not name {file}: {ended.errors.strip()[-200:]}")


def _generated(trial: Trial, name: str, manner: str) -> None:
    """Damaged drawn images are not exported as if they were whole."""
    run = trial.copy(trial.world.run)
    damage(trial, run / "generated" / name, manner)
    line = trial.world.flags(run, "export", export__source="generated")
    allowed = (judge.REFUSED,) if (name, manner) != ("images.npy", "flip") else (judge.REFUSED, 0)
    trial.run([*line, f"--config.export.folder={trial.folder / 'exported'}"], allowed)


def _evaluate(trial: Trial, run: pathlib.Path, cache: pathlib.Path) -> None:
    trial.run(trial.world.flags(run, "evaluate", evaluate__cache=cache))
    trial.add(*judge.judge_evaluation(run, trial.world.measures, needed=True))


def _drawn(trial: Trial, manner: str) -> None:
    """Images that an interrupted evaluation left, and a stray file among them."""
    run = trial.copy(trial.world.run)
    drawn = run / "evaluation" / "drawn"
    if manner == "stray":
        trial.note("a stray file in evaluation/drawn")
        (drawn / "notes.txt").write_text("not of lensjax\n")
        (drawn / "generated" / "notes.txt").write_text("not of lensjax\n")
    else:
        damage(trial, trial.rng.choice(_files(drawn)), manner)
    _evaluate(trial, run, trial.lab.scratch / "cache")


def _cache(trial: Trial, manner: str) -> None:
    """Kept results of an evaluation."""
    cache = trial.folder / "cache"
    cache.mkdir()
    for path in (trial.lab.scratch / "cache").glob("*-*"):
        if path.is_file():
            shutil.copy(path, cache)
    for path in _files(cache):
        damage(trial, path, manner)
    _evaluate(trial, trial.copy(trial.world.run), cache)


def _programs(trial: Trial, manner: str) -> None:
    """Half of the kept compiled programs are damaged."""
    own = trial.folder / "cache"
    shutil.copytree(trial.lab.scratch / "cache" / "programs", own / "programs")
    entries = [path for path in _files(own) if path.name.endswith("-cache")]
    for path in trial.rng.sample(entries, len(entries) // 2):
        damage(trial, path, manner)
    del trial.did[1:]
    trial.note("and half of all kept programs")
    run = trial.copy(trial.world.run)
    running = trial.lab.fresh(
        trial.world.flags(run, "sample"), trial.folder, LENSJAX_CACHE=os.fspath(own)
    )
    trial.end(running, (0,))
    trial.add(*judge.judge_generated(run, trial.world.generated, needed=True))


def _set(trial: Trial, pattern: str, manner: str) -> None:
    """A damaged data set is refused or built again; never trained on with fewer examples."""
    sets = trial.folder / "sets"
    shutil.copytree(trial.lab.scratch / "world" / "build_folder", sets)
    found = [path for path in _files(sets) if path.match(pattern)]
    if not found:
        trial.note(f"there is no {pattern} in a set of this version")
        return
    damage(trial, trial.rng.choice(found), manner)
    run = trial.folder / "run"
    line = trial.world.flags(run, data__directory=sets)
    ended = trial.run(line, (0, judge.REFUSED))
    if ended.status == 0:
        trial.check_training(run)


def _best(trial: Trial, manner: str) -> None:
    """The best state of a classifier."""
    run = trial.copy(trial.world.classifier)
    files = [path for path in _files(run / "best") if path.match("d/*")]
    damage(trial, max(files, key=lambda path: path.stat().st_size), manner)
    (run / "classified.csv").unlink()
    ended = trial.run(trial.world.flags(run, "classify"), (0, judge.REFUSED))
    table = run / "classified.csv"
    trial.add(*judge.judge_table(table, trial.world.classified, needed=ended.status == 0))


def cases() -> Iterator[Case]:
    """Each kind of file in each manner."""
    for number, manner in enumerate(_MANNERS):
        for turn, part in enumerate(_CHECKPOINT_FILES):
            for mode in ("resume", "sample"):
                name = f"checkpoint_{part}_{manner}_{mode}"
                short = turn == number and mode == "resume"
                yield Case.of(
                    name, "checkpoint", mode, _checkpoint, part, manner, mode, short=short
                )
        for name in ("config.json", "dataset.json", "metrics.jsonl", "provenance.json"):
            stem = name.partition(".")[0]
            for mode in ("resume", "sample"):
                yield Case.of(
                    f"{stem}_{manner}_{mode}",
                    "JSON of a run",
                    mode,
                    *(_json_file, name, manner, mode),
                    short=(stem, manner, mode) == ("config", "cut", "resume"),
                )
        for name in ("images.npy", "labels.npy", "meta.json"):
            stem = name.partition(".")[0]
            short = (stem, manner) == ("images", "cut")
            yield Case.of(
                f"{stem}_{manner}", "drawn images", "export", _generated, name, manner, short=short
            )
        yield Case.of(f"drawn_{manner}", "caches", "evaluate", _drawn, manner)
        yield Case.of(f"cache_{manner}", "caches", "evaluate", _cache, manner, short=number == 0)
        yield Case.of(
            f"programs_{manner}", "caches", "sample", _programs, manner, short=number == 1
        )
        yield Case.of(f"best_{manner}", "checkpoint", "classify", _best, manner)
        for name in ("*array_record*", "dataset_info.json", "features.json", "metadata.json"):
            stem = name.strip("*").partition(".")[0]
            short = number == 1 and stem == "array_record"
            yield Case.of(
                f"set_{stem}_{manner}", "data set", "train", _set, name, manner, short=short
            )
    yield Case.of("drawn_stray", "caches", "evaluate", _drawn, "stray", short=True)
    for name in _CHANGED_FOLDERS:
        for mode in ("resume", "sample"):
            short = mode == "resume" and name in ("copy_8_as_12", "foreign_8")
            yield Case.of(
                f"{name}_{mode}",
                "checkpoint folder",
                mode,
                _folder_changed,
                name,
                mode,
                short=short,
            )
    for name in _VALUES:
        short = name in ("spread_0", "shape_huge", "few_names")
        yield Case.of(f"value_{name}", "value in JSON", "load", _value, name, short=short)
