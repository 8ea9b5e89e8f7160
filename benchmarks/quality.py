"""How good the images of a run become, minute by minute, beside real ones.

    python -m lensjax.main --config=configs/cpu_fast.py --workdir=runs/cpu_fast
    python benchmarks/quality.py --workdir=runs/cpu_fast

draws images with the average of every checkpoint that is still there (`train.keep_every` keeps
them), fits each by the lens without sub-structure, and adds the curve to
`benchmarks/results/quality.json`, `quality.md` and `docs/quality.png`. What stands there of the
same weights is not drawn again.

Minutes are those of the steps by the run's own log, without validation, pictures and checkpoints.
Where other programs ran beside the training, `--images-per-second` takes their place by a rate
that was measured without them.
"""

import argparse
import pathlib
from typing import Any

import jax
import numpy as np
from classifiers import training_minutes

import lensjax
from lensjax.data.catalogue import SIMULATED_SETS
from lensjax.files.atomic import write_json
from lensjax.inference.describe import weights_hash
from lensjax.inference.generator import LensGenerator
from lensjax.metrics.lensing import smooth_scores
from lensjax.run import workdir

ROOT = pathlib.Path(__file__).resolve().parent.parent
SPLIT_OF_REFERENCE = "test"


def scores_of(
    images: np.ndarray, labels: np.ndarray, run: LensGenerator
) -> dict[str, dict[str, float]]:
    """The smooth-lens scores of each class.

    Args:
      images: flux, `[N, H, W, C]`.
      labels: `[N]`.
      run: says names of the classes and the survey.
    """
    survey = SIMULATED_SETS[run.config.data.name].survey
    return {
        name: dict(smooth_scores(images[labels == label, ..., 0], survey))
        for label, name in enumerate(run.class_names)
    }


def steps_of(folder: pathlib.Path) -> list[int]:
    """The checkpoints of a run, oldest first."""
    names = [path.name for path in (folder / workdir.CHECKPOINTS).iterdir()]
    return sorted(int(name) for name in names if name.isdigit())


def row_of(folder: pathlib.Path, step: int, num_images: int, minutes: float) -> dict[str, Any]:
    """Draws with a checkpoint and judges.

    Args:
      folder: the run's workdir.
      step: the checkpoint.
      num_images: images a class.
      minutes: of training up to this step.
    """
    run = lensjax.load(folder, step)
    labels = np.repeat(np.arange(len(run.class_names), dtype=np.int32), num_images)
    images = run.generate(label=labels, num=len(labels))
    return {
        "step": step,
        "minutes": minutes,
        "weights_sha256": weights_hash(run.params),
        "scores": scores_of(images, labels, run),
    }


def reference(run: LensGenerator, num_images: int) -> dict[str, dict[str, float]]:
    """The scores of the first real images of each class that no training has seen."""
    name = run.config.data.name
    images, table = lensjax.load_data(name, SPLIT_OF_REFERENCE)
    chosen = [np.flatnonzero(table["label"] == label)[:num_images] for label in range(3)]
    rows = np.concatenate(chosen)
    return scores_of(images[rows], table["label"][rows], run)


def measure(options: argparse.Namespace, known: dict[str, Any]) -> dict[str, Any]:
    """The curve of a run; rows of the same weights are taken over."""
    folder, steps = options.workdir, steps_of(options.workdir)
    if not steps:
        raise SystemExit(f"{folder} has no checkpoint yet; train first")
    run, made = lensjax.load(folder), workdir.read_json(folder / workdir.CONFIG_FILE)
    batch_size = run.config.train.batch_size
    same = known.get("num_images") == options.num_images
    before = {row["step"]: row for row in known.get("rows", [])} if same else {}
    rows = []
    for step in steps:
        minutes = training_minutes(folder, step)
        if options.images_per_second:
            minutes = step * batch_size / options.images_per_second / 60
        row = before.get(step)
        if row is None or row["weights_sha256"] != weights_hash(lensjax.load(folder, step).params):
            row = row_of(folder, step, options.num_images, minutes)
        rows.append(row | {"minutes": minutes})
        print(line_of(rows[-1]), flush=True)
    return {
        "data": run.config.data.name,
        "parameters": sum(leaf.size for leaf in jax.tree.leaves(run.params)),
        "batch_size": batch_size,
        "num_images": options.num_images,
        "images_per_second": options.images_per_second,
        **{name: made[name] for name in ("hardware", "versions")},
        "real": reference(run, options.num_images),
        "rows": rows,
    }


def line_of(row: dict[str, Any]) -> str:
    """A row of the table."""
    scores = row["scores"]
    numbers = [scores["no_sub"][name] for name in ("ratio_p50", "ratio_p90")]
    numbers += [scores[name]["ratio_p50"] for name in ("cdm", "axion")]
    where = (f"{row['minutes']:.0f}", f"{row['step']:,}") if "step" in row else ("real", "")
    cells = (*where, *(f"{number:.3f}" for number in numbers))
    return "| " + " | ".join(cells) + " |"


def page(content: dict[str, Any]) -> str:
    """The curves as a Markdown page."""
    parts = ["# Quality against minutes of training\n"]
    for name, run in content.items():
        rate = run["images_per_second"]
        clock = f"at {rate:g} images a second" if rate else "by the run's log"
        parts.append(
            f"## `configs/{name}.py`\n\n`python benchmarks/quality.py --workdir=runs/{name}` on "
            f"{run['hardware']['cpu_model']} (jax {run['versions']['jax']}): "
            f"{run['num_images']} images a class of `{run['data']}`; {run['parameters']:,} "
            f"parameters, {run['batch_size']} images a step; minutes {clock}. Numbers are "
            "RMS(image - fit) / RMS(image) of the best lens without sub-structure.\n\n"
            "| minutes | step | no_sub p50 | no_sub p90 | cdm p50 | axion p50 |\n"
            "|--:|--:|--:|--:|--:|--:|"
        )
        parts += [line_of(row) for row in run["rows"]]
        parts.append(line_of({"scores": run["real"]}))
        parts.append("")
    parts.append("![quality against minutes](../../docs/quality.png)\n")
    return "\n".join(parts)


def draw(content: dict[str, Any], path: pathlib.Path) -> None:
    """Draws the medians of each class against minutes, with those of real images beside."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.5 * len(content), 4.2), dpi=100, layout="constrained")
    axes = figure.subplots(1, len(content), squeeze=False)[0]
    for axis, (name, run) in zip(axes, content.items(), strict=True):
        minutes = [row["minutes"] for row in run["rows"]]
        for number, class_name in enumerate(("no_sub", "cdm", "axion")):
            colour = f"C{number}"
            medians = [row["scores"][class_name]["ratio_p50"] for row in run["rows"]]
            axis.plot(minutes, medians, color=colour, marker="o", markersize=3, label=class_name)
            axis.axhline(run["real"][class_name]["ratio_p50"], color=colour, linestyle=":")
        axis.set(
            title=name, xlabel="minutes of training", ylabel="residual of the smooth lens (median)"
        )
        axis.set_ylim(bottom=0)
        axis.legend(title="dotted: real images")
        axis.grid(alpha=0.3)
    figure.savefig(path)


def main() -> None:
    """Judges the checkpoints of a run and writes table, picture and numbers."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--workdir", type=pathlib.Path, required=True)
    parser.add_argument("--name", default="cpu_fast", help="the config that the run was made by")
    parser.add_argument("--num-images", type=int, default=300, help="a class")
    parser.add_argument("--images-per-second", type=float, help="of the training, measured alone")
    parser.add_argument("--results", type=pathlib.Path, default=ROOT / "benchmarks" / "results")
    parser.add_argument("--picture", type=pathlib.Path, default=ROOT / "docs" / "quality.png")
    options = parser.parse_args()
    target = options.results / "quality.json"
    content = workdir.read_json(target) if target.exists() else {}
    content[options.name] = measure(options, content.get(options.name, {}))
    write_json(target, content)
    target.with_suffix(".md").write_text(page(content), encoding="utf-8")
    draw(content, options.picture)
    print(page(content))


if __name__ == "__main__":
    main()
