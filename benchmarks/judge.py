"""Which measure notices which fault? Real images with known faults, judged as generated ones are.

    python benchmarks/judge.py [--data=deeplense/model_ii] [--images-per-class=300] [--controls=3]

Each fault of `lensjax/metrics/corruptions.py` is put into real images that the judge has not seen;
the judge compares them with others. Real images without a fault are the control: a goal that they
miss is a false alarm. The answer goes to `benchmarks/results/judge.json` and `docs/judge.md`.
"""

import argparse
import dataclasses
import json
import pathlib
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from absl import logging

from lensjax.config import Config, from_config_dict, to_dict
from lensjax.config.evaluate import measure_names
from lensjax.data.dataset import LensSplit
from lensjax.data.subset import SubsetSplit
from lensjax.evaluation.checks import check_row
from lensjax.evaluation.evaluate_generator import make_setting
from lensjax.evaluation.goals import Check
from lensjax.evaluation.measures import measure_rows, missing_measures
from lensjax.evaluation.real import RealImages as RealSplits
from lensjax.evaluation.real import first_places
from lensjax.evaluation.rows import Row, Setting
from lensjax.evaluation.tables import number, plain
from lensjax.metrics.corruptions import CORRUPTIONS, RealImages, corrupt
from lensjax.run import datasets, provenance

RESULTS = pathlib.Path(__file__).parent / "results" / "judge.json"
PERFECT_SETS = RESULTS.with_name("perfect_sets.md")
TABLE = pathlib.Path(__file__).parent.parent / "docs" / "judge.md"


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default="deeplense/model_ii")
    parser.add_argument("--images-per-class", type=int, default=300)
    parser.add_argument("--controls", type=int, default=3, help="sets of images without a fault")
    parser.add_argument("--measures", default="all", help="as evaluate.measures")
    parser.add_argument("--only", nargs="*", default=list(CORRUPTIONS), help="names of faults")
    parser.add_argument("--table", action="store_true", help="only the table, from judge.json")
    parser.add_argument(
        "--update", action="store_true", help="keep what judge.json has of other measures"
    )
    parser.add_argument("--no-files", action="store_true", help="prints the table alone")
    return parser.parse_args()


def make_config(
    data: str, per_class: int, measures: str, cache: str | None = None, **settings: int
) -> Config:
    """The configuration of an evaluation without a run; `settings` are fields of `evaluate`."""
    values = to_dict(Config())
    values["data"]["name"] = data
    values["evaluate"] |= {
        "num_images": per_class,
        "measures": measures,
        "cache": cache,
        "download": False,
        **settings,
    }
    return from_config_dict(values)


def unseen_images(config: Config, splits: RealSplits, number: int) -> LensSplit:
    """Test images beyond those that the judge compares with, as many again.

    Args:
      config: the configuration.
      splits: the real images of the evaluation.
      number: 0 for the next images of each class, 1 for those after them, and so on.
    """
    count = splits.per_class
    test = datasets.prepare(config.data).open_split("test")
    places = first_places(test, (number + 2) * count)
    labels = test.examples(places).labels
    chosen = [
        places[labels == label][(number + 1) * count : (number + 2) * count]
        for label in np.unique(labels)
    ]
    short = min(len(one) for one in chosen)
    if short < count:
        sys.exit(f"the test split has only {short} images a class for part {number}; ask for fewer")
    return SubsetSplit(test, np.sort(np.concatenate(chosen))).in_memory()


def faulty_row(name: str, base: LensSplit, setting: Setting, seed: int) -> Row:
    """Real images with a fault."""
    train = setting.real_images.train(setting.settings.train_images)
    real = RealImages(
        base.images, base.labels, setting.survey, base.parameters, train.images, train.labels
    )
    return Row(name, *corrupt(name, real, seed), setting)


def judge(
    subjects: Sequence[Row], setting: Setting
) -> tuple[dict[str, list[Check]], Mapping[str, Any]]:
    """The checks of each row, and all numbers."""
    test = setting.real_images.test
    real = Row("real", test.images, test.labels, setting)
    results = measure_rows(subjects, [real], setting, missing_measures(setting))
    survey = setting.survey.name if setting.survey else None
    return {row.name: check_row(results, row.name, survey) for row in subjects}, results


def _cells(found: Sequence[Check], names: Sequence[str]) -> list[str]:
    """For each measure how many of its goals are missed."""
    cells = []
    for name in names:
        goals = [one for one in found if one.name.startswith(name) and one.outcome != "no power"]
        missed = sum(one.outcome == "missed" for one in goals)
        cells.append(f"**{missed}**/{len(goals)}" if missed else f"0/{len(goals)}" if goals else "")
    return cells


def _first_missed(found: Sequence[Check]) -> str:
    """The first goal that each measure misses, with value and limit."""
    first = {one.name.partition(",")[0]: one for one in reversed(found) if one.outcome == "missed"}
    return "; ".join(
        f"{one.name} ({number(one.value)}, limit {number(one.limit)})"
        for one in reversed(first.values())
    )


def _what(name: str) -> str:
    return CORRUPTIONS[name].description if name in CORRUPTIONS else f"none ({name})"


def _table(checks: Mapping[str, Sequence[Check]], per_class: int, data: str) -> str:
    names = list(
        dict.fromkeys(one.name.partition(",")[0].partition(":")[0] for one in checks["control 0"])
    )
    lines = [
        "# The judge judged",
        "",
        f"Real images of `{data}` with a known fault, {per_class} per class, were judged by",
        "`--mode=evaluate` against other real images. `python benchmarks/judge.py",
        f"--images-per-class={per_class}` makes this page; the value of every goal is in",
        "`benchmarks/results/judge.json`. The controls have no fault, so a goal that they miss is",
        "a false alarm. Each cell shows the missed goals and all goals of a measure that have",
        "power. `inception` needs its weights and `hole` needs a training with a hole, so they are",
        "left out.",
        "",
        f"| fault | {' | '.join(names)} |",
        f"|---|{'--:|' * len(names)}",
    ]
    lines += [
        f"| {_what(name)} | {' | '.join(_cells(found, names))} |" for name, found in checks.items()
    ]
    lines += [
        "",
        "For each fault, the first goal that each measure misses:",
        "",
        "| fault | missed |",
        "|---|---|",
    ]
    lines += [
        f"| {_what(name)} | {_first_missed(found) or '-'} |" for name, found in checks.items()
    ]
    perfect = PERFECT_SETS.read_text() if PERFECT_SETS.exists() else "Not measured.\n"
    return "\n".join([*lines, "", "## Perfect sets", "", perfect])


def _from_results() -> None:
    content = json.loads(RESULTS.read_text(encoding="utf-8"))
    checks = _known_checks(content)
    TABLE.write_text(_table(checks, content["images_per_class"], content["data"]), encoding="utf-8")


def _known_checks(content: Mapping[str, Any]) -> dict[str, list[Check]]:
    return {
        name: [
            Check(**{**one, "value": _number(one["value"]), "limit": _number(one["limit"])})
            for one in found
        ]
        for name, found in content["checks"].items()
    }


def _number(value: float | None) -> float:
    """A number of JSON, which has no infinity."""
    return float("inf") if value is None else value


def _with_known(
    checks: Mapping[str, Sequence[Check]], measures: Sequence[str]
) -> dict[str, list[Check]]:
    """New checks among those of the other measures in the result file.

    Args:
      checks: the new ones, by fault.
      measures: names of the measures that they are of.
    """
    titles = tuple(name.replace("_", " ") for name in measures)
    found = {}
    for name, known in _known_checks(json.loads(RESULTS.read_text(encoding="utf-8"))).items():
        others = [one for one in known if not one.name.startswith(titles)]
        place = next(
            (index for index, one in enumerate(known) if one.name.startswith(titles)), len(known)
        )
        found[name] = [*others[:place], *checks.get(name, ()), *others[place:]]
    return found


def main() -> None:
    """Judges every fault and writes the table."""
    arguments = _arguments()
    if arguments.table:
        _from_results()
        return
    logging.set_verbosity(logging.INFO)
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as cache:
        config = make_config(arguments.data, arguments.images_per_class, arguments.measures, cache)
        splits = RealSplits(config, datasets.prepare(config.data))
        setting = make_setting(config, splits)
        base = unseen_images(config, splits, 0)
        rows = [faulty_row(name, base, setting, seed=1) for name in arguments.only]
        for part in range(arguments.controls):
            control = unseen_images(config, splits, part)
            rows.append(Row(f"control {part}", control.images, control.labels, setting))
        checks, _ = judge(rows, setting)
    if arguments.update:
        checks = _with_known(checks, measure_names(arguments.measures))
    table = _table(checks, arguments.images_per_class, arguments.data)
    print(table)
    print(f"{time.monotonic() - started:.0f} s")
    if arguments.no_files:
        return
    content = {
        "data": arguments.data,
        "images_per_class": arguments.images_per_class,
        "seconds": time.monotonic() - started,
        "checks": {name: [one._asdict() for one in found] for name, found in checks.items()},
        "settings": dataclasses.asdict(config.evaluate) | {"cache": None},
        "versions": provenance.versions(),
        "git_revision": provenance.git_revision(),
        "hardware": provenance.hardware(),
    }
    RESULTS.write_text(json.dumps(plain(content), indent=1) + "\n", encoding="utf-8")
    TABLE.write_text(table, encoding="utf-8")


if __name__ == "__main__":
    main()
