"""Trains and scores the classifiers, and writes the tables of models and of label efficiency.

    python benchmarks/classifiers.py models --runs=runs/classifiers --size=two_cores
    python benchmarks/classifiers.py labels --runs=runs/labels --size=two_cores

trains what is not there yet (a run that was stopped goes on), scores each on the test split, and
writes `benchmarks/results/classifiers.{json,md}` or `labels.{json,md}`. `--size=full` takes the
configurations as they are, for an accelerator; `--only=NAME,NAME` a part; `--table` trains nothing
and makes the tables from the runs that are there.
"""

import argparse
import json
import os
import pathlib
import subprocess
import sys
from collections.abc import Mapping
from typing import Any, NamedTuple

ROOT = pathlib.Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
LABEL_SHARES = (0.01, 0.1, 1.0)


class Run(NamedTuple):
    """One training.

    Attributes:
      config: name of the file in `configs/`.
      changes: fields that differ whatever the size.
      two_cores: fields that differ on two CPU cores, where the whole run would take days.
      needs: the run that it starts from; empty for none.
    """

    config: str
    changes: Mapping[str, Any] = {}
    two_cores: Mapping[str, Any] = {}
    needs: str = ""


def _steps(batch_size: int, num_steps: int, warmup: int) -> dict[str, Any]:
    """The fields of a short run that validates eight times."""
    every = max(1, num_steps // 8)
    return {
        "train.batch_size": batch_size,
        "train.num_steps": num_steps,
        "train.log_every": min(50, every),
        "train.evaluate_every": every,
        "train.evaluate_images": 900,
        "train.checkpoint_every": every,
        "optim.warmup_steps": warmup,
        "optim.ema_half_life_images": 5_000,
    }


_EIGHT_THOUSAND = {"train.num_steps": 8_000, "train.evaluate_every": 1_000}
_FOUR_THOUSAND = {"train.num_steps": 4_000, "train.evaluate_every": 1_000}
_CONSERVED = {
    "data.name": "deeplense/model_ii_conserved",
    "classify.noise_share": 1.0,
    "classify.noise_magnitudes": "(20.0,20.0)",
}
# Two cores make eight images of it a second, and score forty.
_FIRST_STEPS = {
    "model.stem": "imagenet",
    **_steps(16, 100, 10),
    "train.evaluate_images": 90,
    "evaluate.num_images": 200,
    "evaluate.baselines": False,
}
MODELS = {
    "rescnn": Run("classifier_rescnn"),
    "rescnn_noise_free": Run("classifier_rescnn", {"classify.noise_share": 0.0}, _EIGHT_THOUSAND),
    "rescnn_conserved": Run("classifier_rescnn", _CONSERVED, _FOUR_THOUSAND),
    "cnn": Run("classifier_cnn", {}, _steps(48, 1_000, 100)),
    "vit": Run("classifier_vit", {}, _steps(48, 400, 50)),
    "resnet18": Run("classifier_resnet18", {}, _FIRST_STEPS),
}


def _label_runs() -> dict[str, Run]:
    short = _steps(48, 400, 50)
    runs = {
        "mae": Run(
            "mae_vit",
            {},
            {
                "train.batch_size": 64,
                "train.num_steps": 4_000,
                "optim.warmup_steps": 300,
                "optim.ema_half_life_images": 20_000,
                "train.evaluate_every": 1_500,
                "train.sample_every": 3_000,
                "train.checkpoint_every": 1_000,
            },
        )
    }
    for share in LABEL_SHARES:
        changes = {"classify.label_share": share}
        probe = {"classify.train_encoder": False, "optim.weight_decay": 0.0}
        runs[f"scratch_{share:g}"] = Run("classifier_vit", changes, short)
        runs[f"tuned_{share:g}"] = Run("classifier_vit", changes, short, "mae")
        runs[f"probe_{share:g}"] = Run(
            "classifier_vit",
            {**changes, **probe},
            {**short, "optim.learning_rate": 5e-3},
            "mae",
        )
    return runs


GROUPS = {"models": MODELS, "labels": _label_runs()}
# Scores of the second table take a part of the test split; all runs the same one.
_EVALUATION = {
    "models": {},
    "labels": {"evaluate.num_images": 1_000, "evaluate.baselines": False},
}


def _command(group: str, name: str, runs: pathlib.Path, size: str, mode: str) -> list[str]:
    run = GROUPS[group][name]
    changes = {**run.changes, **(run.two_cores if size == "two_cores" else {})}
    changes |= _EVALUATION[group]
    if run.needs:
        changes["classify.start_from"] = os.fspath(runs / run.needs)
    return [
        sys.executable,
        "-m",
        "lensjax.main",
        f"--config=configs/{run.config}.py",
        f"--workdir={runs / name}",
        f"--mode={mode}",
        *(f"--config.{field}={value}" for field, value in changes.items()),
    ]


def _train_and_score(group: str, name: str, runs: pathlib.Path, size: str) -> None:
    """Trains a run as far as it is not, and scores it once it is trained."""
    modes = ["train"] if GROUPS[group][name].config == "mae_vit" else ["train", "evaluate"]
    for mode in modes:
        if mode == "evaluate" and (runs / name / "evaluation" / "metrics.json").exists():
            continue
        subprocess.run(_command(group, name, runs, size, mode), cwd=ROOT, check=True)


def training_minutes(folder: pathlib.Path, last: int | None = None) -> float:
    """How long a run trained, without validation and checkpoints, by its metrics.

    Args:
      folder: its workdir.
      last: the last step that counts; None for all.
    """
    batch = json.loads((folder / "config.json").read_text(encoding="utf-8"))["config"]["train"][
        "batch_size"
    ]
    seconds, before = 0.0, 0
    for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines():
        values = json.loads(line)
        if last is not None and values["step"] > last:
            break
        seconds += (values["step"] - before) * batch / values["images_per_second"]
        before = values["step"]
    return seconds / 60


def _result(folder: pathlib.Path) -> dict[str, Any]:
    """What is known of a trained run."""
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    last = json.loads((folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()[-1])
    found = {
        "config": config["config"],
        "versions": config["versions"],
        "hardware": config["hardware"],
        "steps": last["step"],
        "minutes": training_minutes(folder),
        "num_parameters": _num_parameters(config["config"]),
    }
    scores = folder / "evaluation" / "metrics.json"
    if scores.exists():
        measured = json.loads(scores.read_text(encoding="utf-8"))
        for beside in measured["baseline"].values():
            if beside:
                beside.pop("curves")
        found |= {name: measured[name] for name in ("scores", "baseline", "protocol")}
    return found


def _num_parameters(config: Mapping[str, Any]) -> int:
    import math

    import jax

    from lensjax.config import brought_up_to_date, from_config_dict
    from lensjax.run.learning import abstract_state

    params = abstract_state(from_config_dict(brought_up_to_date(config)), (64, 64, 1)).params
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(params))


def _cell(scores: Mapping[str, Any] | None) -> str:
    return f"{100 * scores['accuracy']:.2f} % / {scores['macro_auc']:.4f}" if scores else "-"


def _models_table(results: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """A row for each run, and one of the baseline."""
    levels = list(
        dict.fromkeys(name for found in results.values() for name in found.get("scores", {}))
    )
    lines = [
        "| network | trained on | parameters | images seen | minutes | "
        + " | ".join(levels)
        + " |",
        "|---|---|--:|--:|--:|" + "--:|" * len(levels),
    ]
    baselines: dict[str, Any] = {}
    for name, found in results.items():
        scores, config = found.get("scores", {}), found["config"]
        baselines |= {level: one for level, one in found.get("baseline", {}).items() if one}
        seen = found["steps"] * config["train"]["batch_size"]
        noise = config["classify"]["noise_share"]
        data = config["data"]["name"].removeprefix("deeplense/")
        data += f", {100 * noise:.0f} % behind noise" if noise else ""
        cells = " | ".join(_cell(scores.get(level)) for level in levels)
        lines.append(
            f"| {name} | {data} | {found['num_parameters']:,} | {seen:,} | "
            f"{found['minutes']:.1f} | {cells} |"
        )
    cells = " | ".join(_cell(baselines.get(level)) for level in levels)
    lines.append(f"| the ring's radius alone | the same | - | - | - | {cells} |")
    return lines


def _labels_table(results: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """A row for each share of the labels."""
    kinds = {
        "scratch": "from new weights",
        "tuned": "pre-trained, all of it trained",
        "probe": "pre-trained, last layer alone (linear probe)",
    }
    lines = [
        "| labels | " + " | ".join(kinds.values()) + " |",
        "|---|" + "--:|" * len(kinds),
    ]
    for share in LABEL_SHARES:
        cells = []
        for kind in kinds:
            found = results.get(f"{kind}_{share:g}", {})
            scores = found.get("scores", {}).get("model_ii, as they are")
            cells.append(f"{_cell(scores)} ({found['minutes']:.1f} min)" if scores else "-")
        lines.append(f"| {100 * share:g} % | " + " | ".join(cells) + " |")
    mae = results.get("mae")
    if mae:
        seen = mae["steps"] * mae["config"]["train"]["batch_size"]
        lines += ["", f"Pre-training: {seen:,} images in {mae['minutes']:.1f} minutes."]
    return lines


def _write(group: str, results: Mapping[str, Mapping[str, Any]], size: str) -> None:
    name = {"models": "classifiers", "labels": "labels"}[group]
    content = {"size": size, "runs": results}
    (RESULTS / f"{name}.json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    first = next(iter(results.values()))
    hardware = ", ".join(f"{key} {value}" for key, value in first["hardware"].items())
    text = [
        f"# {'Classifiers' if group == 'models' else 'Label efficiency of pre-training'}",
        "",
        f"`python benchmarks/classifiers.py {group} --size={size}`; accuracy / macro AUC on images "
        "of the test split. Minutes are of training alone, other work beside it not excluded.",
        "",
        f"Machine: {hardware}; jax {first['versions'].get('jax')}.",
        "",
        *(_models_table(results) if group == "models" else _labels_table(results)),
    ]
    (RESULTS / f"{name}.md").write_text("\n".join(text) + "\n", encoding="utf-8")
    print("\n".join(text))


def main() -> None:
    """Trains, scores, writes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("group", choices=GROUPS)
    parser.add_argument("--runs", type=pathlib.Path, required=True, help="folder of the workdirs")
    parser.add_argument("--size", choices=("two_cores", "full"), default="full")
    parser.add_argument("--only", default="", help="names of runs with commas between")
    parser.add_argument("--table", action="store_true", help="train nothing")
    arguments = parser.parse_args()
    runs = arguments.runs.absolute()
    names = arguments.only.split(",") if arguments.only else list(GROUPS[arguments.group])
    for name in [] if arguments.table else names:
        _train_and_score(arguments.group, name, runs, arguments.size)
    there = [name for name in GROUPS[arguments.group] if (runs / name / "metrics.jsonl").exists()]
    _write(arguments.group, {name: _result(runs / name) for name in there}, arguments.size)


if __name__ == "__main__":
    main()
