"""How many network passes does each sampler need? Distance to fresh lenses against passes.

    python benchmarks/samplers.py --workdir=runs/quickstart

Draws images from a trained run with each sampler at several numbers of passes (Karras times), and
with the other time grids at 20, all from the same starting noise, and compares them with freshly
simulated lenses of the same classes. Two numbers, each with its standard error over the drawn
images:

- distance: the energy distance (Szekely & Rizzo 2013), unbiased, per class and averaged, between
  the first 64 principal components of the square root of flux, each of unit variance;
- residual: the median of RMS(image - fit) / RMS(image) of the best lens without sub-structure, for
  no_sub images.

A row is as good as 200 passes where both lie within the error bars of the same sampler at 200
passes. Rows that stand in the results with the same weights and number of images are not drawn
again.
"""

import argparse
import pathlib
from typing import Any

import numpy as np

import lensjax
from lensjax.data.catalogue import SIMULATED_SETS
from lensjax.data.surveys import Survey
from lensjax.diffusion.samplers import SAMPLERS
from lensjax.diffusion.time_grids import TIME_GRIDS
from lensjax.files.atomic import write_json
from lensjax.inference.describe import weights_hash
from lensjax.inference.generator import LensGenerator
from lensjax.inference.sampling import passes_per_image
from lensjax.metrics.lensing import fit_smooth
from lensjax.run import provenance, workdir

ROOT = pathlib.Path(__file__).resolve().parent.parent
PASSES = (4, 8, 12, 20, 50, 200)
MAIN_GRID = "karras"
GRID_PASSES = 20
NUM_REAL = 1_000
NUM_COMPONENTS = 64
# The solver that the library recommends; its row must be as good as 200 passes.
RECOMMENDED = ("dpmpp_2m", MAIN_GRID, 20)
Row = dict[str, Any]


def steps_for(sampler: str, passes: int) -> int:
    """The intervals for which a sampler passes the network about so often."""
    return passes // 2 if sampler in ("heun", "midpoint", "churn") else passes


class Judge:
    """Compares images with freshly simulated lenses.

    Args:
      set_name: the simulated set.
      class_names: its classes.
    """

    def __init__(self, set_name: str, class_names: tuple[str, ...]) -> None:
        self.survey: Survey = SIMULATED_SETS[set_name].survey
        self.class_names = class_names
        real = [self._simulate(set_name, name, seed=1) for name in class_names]
        roots = np.concatenate([np.sqrt(images) for images in real])
        self._mean = roots.mean(axis=0)
        _, scales, directions = np.linalg.svd(roots - self._mean, full_matrices=False)
        deviations = scales[:NUM_COMPONENTS] / np.sqrt(len(roots))
        self._directions = directions[:NUM_COMPONENTS].T / deviations
        self._real = [self._features(images) for images in real]
        self._within = [_mean_distance_within(features) for features in self._real]

    @staticmethod
    def _simulate(set_name: str, class_name: str, seed: int) -> np.ndarray:
        images, _ = lensjax.simulate(set_name, class_name, num=NUM_REAL, seed=seed)
        return images.reshape(NUM_REAL, -1).astype(np.float64)

    def _features(self, images: np.ndarray) -> np.ndarray:
        flat = np.maximum(images.reshape(len(images), -1).astype(np.float64), 0)
        return (np.sqrt(flat) - self._mean) @ self._directions

    def distance(self, images: np.ndarray, labels: np.ndarray) -> tuple[float, float]:
        """The energy distance and its standard error by the jackknife."""
        pairs = [
            _energy_distance(self._features(images[labels == label]), real, within)
            for label, (real, within) in enumerate(zip(self._real, self._within, strict=True))
        ]
        values, variances = np.transpose(pairs)
        return float(values.mean()), float(np.sqrt(variances.sum()) / len(pairs))

    def residual(self, images: np.ndarray, labels: np.ndarray) -> tuple[float, float]:
        """The median smooth-lens residual of `no_sub` and its standard error."""
        smooth = images[labels == self.class_names.index("no_sub"), ..., 0]
        ratios = fit_smooth(smooth, self.survey).ratio
        # The standard error of a median, from the order statistics around it.
        half = 0.5 / np.sqrt(len(ratios))
        low, high = np.quantile(ratios, (0.5 - half, 0.5 + half))
        return float(np.median(ratios)), float((high - low) / 2)

    def numbers(self, images: np.ndarray, labels: np.ndarray) -> Row:
        """Both numbers with their errors."""
        distance, distance_error = self.distance(images, labels)
        residual, residual_error = self.residual(images, labels)
        return {
            "distance": distance,
            "distance_error": distance_error,
            "residual": residual,
            "residual_error": residual_error,
        }


def _distances(some: np.ndarray, others: np.ndarray) -> np.ndarray:
    squares = np.square(some).sum(axis=1)[:, None] + np.square(others).sum(axis=1)[None]
    return np.sqrt(np.maximum(squares - 2 * some @ others.T, 0))


def _mean_distance_within(features: np.ndarray) -> float:
    count = len(features)
    return float(_distances(features, features).sum() / (count * (count - 1)))


def _energy_distance(
    drawn: np.ndarray, real: np.ndarray, within_real: float
) -> tuple[float, float]:
    """The unbiased energy distance and its variance over the drawn images."""
    count = len(drawn)
    across = _distances(drawn, real).mean(axis=1)
    own = _distances(drawn, drawn).sum(axis=1)
    value = 2 * across.mean() - own.sum() / (count * (count - 1)) - within_real
    left = count - 1  # the same with each image left out in turn
    without = 2 * (across.sum() - across) / left - (own.sum() - 2 * own) / (left * (left - 1))
    variance = left / count * np.sum(np.square(without - without.mean()))
    return float(value), float(variance)


def measure(
    run: LensGenerator, judge: Judge, sampler: str, grid: str, passes: int, num: int
) -> Row:
    """Draws images and judges them."""
    count = num * len(judge.class_names)
    labels = run.labels(None, count)
    steps = steps_for(sampler, passes)
    images = run.generate(
        labels, count, steps=steps, guidance=1.0, sampler=sampler, time_grid=grid, batch_size=96
    )
    used = run.settings(steps, 1.0, sampler, time_grid=grid)
    return {
        "sampler": sampler,
        "time_grid": grid,
        "steps": steps,
        "passes": passes_per_image(run.config, used),
        **judge.numbers(images, labels),
    }


def floor(judge: Judge, set_name: str, num: int) -> Row:
    """The numbers of fresh lenses instead of drawn ones."""
    images = np.concatenate(
        [lensjax.simulate(set_name, name, num=num, seed=2)[0] for name in judge.class_names]
    )
    labels = np.repeat(np.arange(len(judge.class_names)), num)
    return judge.numbers(images, labels)


def as_good(row: Row, reference: Row) -> bool:
    """Whether a row lies within the error bars of another one."""
    return all(
        abs(row[name] - reference[name]) <= reference[f"{name}_error"]
        for name in ("distance", "residual")
    )


def reference_of(rows: list[Row], row: Row) -> Row | None:
    """The row of the same sampler with the most passes, None where there is none yet."""
    same = [
        one for one in rows if one["sampler"] == row["sampler"] and one["time_grid"] == MAIN_GRID
    ]
    best = max(same, key=lambda one: one["passes"], default=None)
    return best if best and best["passes"] >= max(PASSES) - 2 else None


def table(rows: list[Row]) -> str:
    """The rows as a Markdown table."""
    lines = [
        "| sampler | time grid | intervals | passes | distance | residual | as good as 200 |",
        "|---|---|--:|--:|--:|--:|---|",
    ]
    for row in rows:
        reference = reference_of(rows, row)
        verdict = ""
        if reference and reference is not row:
            verdict = "yes" if as_good(row, reference) else "no"
        lines.append(
            f"| {row['sampler']} | {row['time_grid']} | {row['steps']} | {row['passes']} | "
            f"{row['distance']:.4f} +- {row['distance_error']:.4f} | {row['residual']:.4f} +- "
            f"{row['residual_error']:.4f} | {verdict} |"
        )
    return "\n".join(lines)


def report(content: dict[str, Any]) -> str:
    """The results as a Markdown page."""
    rows, protocol, zero = content["rows"], content["protocol"], content["floor"]
    sampler, grid, passes = RECOMMENDED
    row = next(
        one
        for one in rows
        if (one["sampler"], one["time_grid"], one["passes"]) == (sampler, grid, passes)
    )
    reference = reference_of(rows, row)
    verdict = "yes" if reference and as_good(row, reference) else "no"
    return f"""# Samplers: distance against network passes

`python benchmarks/samplers.py --workdir=...` on a run of `{protocol["data"]}` at step
{protocol["checkpoint_step"]} ({protocol["device"]}, jax {protocol["versions"]["jax"]}):
{protocol["num_images"]} images a class without guidance, against {NUM_REAL} fresh lenses a class.
Fresh lenses in their place: distance {zero["distance"]:.4f} +- {zero["distance_error"]:.4f},
residual {zero["residual"]:.1e}. The distance is an unbiased estimate and may be below 0.

Recommended: `{sampler}` on the `{grid}` grid with {passes} passes; within the error bars of 200
passes: {verdict}.

![distance and residual against passes](../../docs/samplers.png)

{table(rows)}
"""


def draw(rows: list[Row], zero: Row, path: pathlib.Path) -> None:
    """Draws both numbers against passes, one line a sampler, on the main grid."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4.5), dpi=100, layout="constrained")
    for axis, name in zip(figure.subplots(1, 2), ("distance", "residual"), strict=True):
        for sampler in SAMPLERS:
            points = [
                (row["passes"], row[name], row[f"{name}_error"])
                for row in rows
                if row["sampler"] == sampler and row["time_grid"] == MAIN_GRID
            ]
            passes, values, errors = zip(*points, strict=True)
            axis.errorbar(passes, values, errors, marker="o", markersize=3, label=sampler)
        axis.set(xlabel="network passes an image", title=name, xscale="log")
        axis.grid(alpha=0.3)
        axis.set_yscale("symlog", linthresh=0.1) if name == "distance" else axis.set_yscale("log")
    figure.axes[0].axhline(zero["distance"], color="0.4", linestyle=":", label="fresh lenses")
    figure.axes[0].legend()
    figure.savefig(path)


def combinations() -> list[tuple[str, str, int]]:
    """Sampler, time grid and passes of each row."""
    main = [(sampler, MAIN_GRID, passes) for sampler in SAMPLERS for passes in PASSES]
    grids = [
        (sampler, grid, GRID_PASSES)
        for sampler in ("dpmpp_2m", "heun")
        for grid in TIME_GRIDS
        if grid != MAIN_GRID
    ]
    return main + grids


def main() -> None:
    """Draws and judges every row, and writes table, picture and numbers."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--workdir", type=pathlib.Path, required=True)
    parser.add_argument("--num-images", type=int, default=128, help="a class")
    parser.add_argument("--results", type=pathlib.Path, default=ROOT / "benchmarks" / "results")
    parser.add_argument("--picture", type=pathlib.Path, default=ROOT / "docs" / "samplers.png")
    options = parser.parse_args()
    run = lensjax.load(options.workdir)
    set_name = run.config.data.name
    judge = Judge(set_name, run.class_names)
    protocol = {
        "data": set_name,
        "checkpoint_step": run.step,
        "weights_sha256": weights_hash(run.params),
        "num_images": options.num_images,
        "device": provenance.hardware()["cpu_model"],
        "versions": provenance.versions(),
    }
    target = options.results / "samplers.json"
    known = workdir.read_json(target) if target.exists() else {}
    before = known.get("protocol", {})
    same = all(before.get(name) == protocol[name] for name in ("weights_sha256", "num_images"))
    rows: list[Row] = known["rows"] if same else []
    zero = known["floor"] if same else floor(judge, set_name, options.num_images)
    for sampler, grid, passes in combinations():
        steps = steps_for(sampler, passes)
        if any((r["sampler"], r["time_grid"], r["steps"]) == (sampler, grid, steps) for r in rows):
            continue
        rows.append(measure(run, judge, sampler, grid, passes, options.num_images))
        write_json(target, {"protocol": protocol, "floor": zero, "rows": rows})
        print(table(rows[-1:]).splitlines()[-1], flush=True)
    content = workdir.read_json(target)
    target.with_suffix(".md").write_text(report(content), encoding="utf-8")
    draw(rows, zero, options.picture)
    print(report(content))


if __name__ == "__main__":
    main()
