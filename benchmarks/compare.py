"""Which small model learns these images fastest on a CPU: equal processor time for each candidate.

    python benchmarks/compare.py family --cpu-seconds=200
    python benchmarks/compare.py sizes --cpu-seconds=240
    python benchmarks/compare.py training --cpu-seconds=200 --seeds=3

Every candidate is the base with a few fields changed, built from the same parts as the real run.
`family` compares paths, networks and predictions, `sizes` sizes, rates and scalings. Their bases
are `configs/quickstart.py` with times that are not stratified and 25 steps of Heun's rule; for
`sizes` with linear scaling and uniform times too. `training` compares ways to train the quickstart
itself on the whole of Model II.

Processor time is counted, not the clock's, so that other work on the machine does not favour a
candidate: the steps that fit are found from 40 timed ones, then the whole schedule runs. Results
are added to `benchmarks/results/` after each candidate; those that stand there with the same fields
are not run again.
"""

import argparse
import dataclasses
import importlib.util
import itertools
import os
import pathlib
import time
from typing import Any, NamedTuple

import jax
import numpy as np

from lensjax.config import Config, from_config_dict, to_dict
from lensjax.data import deeplense
from lensjax.data.augmentation import make_augment_fn
from lensjax.data.catalogue import SIMULATED_SETS
from lensjax.data.dataset import LensSplit
from lensjax.data.feed import DeviceFeed, Feed
from lensjax.data.fresh import FreshFeed
from lensjax.data.pipeline import make_batch_fn
from lensjax.data.scaling import Scaling, fit_scaling
from lensjax.devices.mesh import all_devices
from lensjax.files.atomic import write_json
from lensjax.inference.sampling import (
    Drawing,
    Weights,
    generate_chunks,
    make_sample_fn,
    passes_per_image,
)
from lensjax.metrics.lensing import fit_smooth, smooth_scores
from lensjax.run import provenance, workdir
from lensjax.run.learning import build_spread, build_train_step, make_init_state
from lensjax.run.state import sampling_params
from lensjax.training.tasks import task_of

ROOT = pathlib.Path(__file__).resolve().parent.parent
Candidates = dict[str, dict[str, Any]]
# Both tables were begun with these.
BASE = {
    "loss.stratified": False,
    "sample.sampler": "heun",
    "sample.steps": 25,
    "sample.time_grid": "uniform",
}
LINEAR_BASE = BASE | {"data.scaling": "linear", "loss.time_distribution": "uniform"}
PATCHES_OF_4 = {"model.patch_size": 4}
DIT = {"model.name": "dit", "model.depth": 4, "model.num_heads": 4, "model.width": 128}
DDPM = {
    "path.name": "vp",
    "path.table_steps": 1000,
    "loss.time_distribution": "uniform",
    "loss.space": "v",
}
COSINE = DDPM | {"path.betas": "cosine"}
EPS = {"model.prediction": "eps", "loss.space": "eps"}
V = {"model.prediction": "v"}
VELOCITY = {"model.prediction": "velocity"}
EDM = {
    "path.name": "edm",
    "model.preconditioning": "edm",
    "loss.space": "x0",
    "loss.weight": "edm",
    "loss.min_sigma": 1e-3,
    "loss.time_distribution": "log_normal_sigma",
    "loss.time_mean": -1.2,
    "loss.time_std": 1.2,
}
FINE = PATCHES_OF_4 | {"model.widths": (32, 64, 96)}
FAMILY: Candidates = {
    "flow, UNet, x0": {},
    "flow, UNet, v": V,
    "flow, UNet, velocity": VELOCITY,
    "DDPM, UNet, x0": DDPM,
    "DDPM, UNet, v": DDPM | V,
    "DDPM, UNet, eps": DDPM | EPS,
    "DDPM with cosine betas, UNet, x0": COSINE,
    "EDM, UNet": EDM,
    "flow, DiT, x0": DIT,
    "flow, DiT, v": DIT | V,
    "flow, DiT, velocity": DIT | VELOCITY,
    "DDPM, DiT, x0": DIT | DDPM,
    "DDPM, DiT, v": DIT | DDPM | V,
    "DDPM, DiT, eps": DIT | DDPM | EPS,
    "flow, UNet on patches of 4, velocity": FINE | VELOCITY,
    "DDPM, UNet on patches of 4, eps": FINE | DDPM | EPS,
    "flow, UNet, x0, stratified times (the quickstart)": {"loss.stratified": True},
    "flow, UNet, x0, min-SNR": {"loss.space": "x0", "loss.weight": "min_snr"},
    "flow, UNet, EDM preconditioning": {"model.preconditioning": "edm"},
    "flow, UNet with attention, x0": {"model.attention_resolutions": (8, 4)},
}
SIZES: Candidates = {
    "base": {},
    "sqrt scaling, logit-normal times": {
        "data.scaling": "sqrt",
        "loss.time_distribution": "logit_normal",
    },
    "widths 96 192": {"model.widths": (96, 192)},
    "widths 48 96": {"model.widths": (48, 96)},
    "widths 64 128 192": {"model.widths": (64, 128, 192)},
    "2 blocks": {"model.blocks": 2},
    "patches of 16, widths 128 256": {"model.patch_size": 16, "model.widths": (128, 256)},
    "patches of 4, widths 24 48 72": {**PATCHES_OF_4, "model.widths": (24, 48, 72)},
    "patches of 4, widths 32 64 96": {**PATCHES_OF_4, "model.widths": (32, 64, 96)},
    "patches of 4, widths 48 96 144": {**PATCHES_OF_4, "model.widths": (48, 96, 144)},
    "patches of 4, widths 24 48 96 144": {**PATCHES_OF_4, "model.widths": (24, 48, 96, 144)},
    "DiT, width 128": DIT,
    "predicts velocity": {"model.prediction": "velocity"},
    "loss in x0": {"loss.space": "x0"},
    "logit-normal times": {"loss.time_distribution": "logit_normal"},
    "batch 12": {"train.batch_size": 12},
    "batch 48": {"train.batch_size": 48},
    "learning rate 3e-3": {"optim.learning_rate": 3e-3},
    "learning rate 7e-4": {"optim.learning_rate": 7e-4},
    "EMA half-life 8,000": {"optim.ema_half_life_images": 8_000.0},
    "EMA half-life 500": {"optim.ema_half_life_images": 500.0},
    "sqrt scaling": {"data.scaling": "sqrt"},
    "asinh scaling": {"data.scaling": "asinh"},
    "model std 1": {"data.model_std": 1.0},
    "floor of sigma 0.02": {"loss.min_sigma": 0.02},
    "floor of sigma 0.1": {"loss.min_sigma": 0.1},
    "rotation by 180 degrees": {"data.augmentation": "rotate_180"},
}


TRAINING: Candidates = {
    "base": {},
    "uniform share 0.1": {"loss.uniform_share": 0.1},
    "times nearer to the data, mean -0.5": {"loss.time_mean": -0.5},
    "mean -0.5, uniform share 0.1": {"loss.time_mean": -0.5, "loss.uniform_share": 0.1},
    "fresh lenses": {"data.fresh": True},
    "EMA half-life 8,000": {"optim.ema_half_life_images": 8_000.0},
    "widths 96 192": {"model.widths": (96, 192)},
    "batch 48": {"train.batch_size": 48},
    "Muon": {"optim.name": "muon"},
}


class Group(NamedTuple):
    """Candidates that stand in one table.

    Attributes:
      title: of the table.
      candidates: what each of them changes in the base.
      changes: what the base changes in the quickstart.
      base: the same in words.
    """

    title: str
    candidates: Candidates
    changes: dict[str, Any]
    base: str


_BASE = "`configs/quickstart.py` with times that are not stratified and 25 steps of Heun's rule"
GROUPS = {
    "family": Group(
        "Paths, networks and predictions after equal processor time", FAMILY, BASE, _BASE
    ),
    "sizes": Group(
        "Small models after equal processor time",
        SIZES,
        LINEAR_BASE,
        f"{_BASE}, linear scaling and uniform times",
    ),
    "training": Group(
        "Ways to train after equal processor time",
        TRAINING,
        {"data.name": "deeplense/model_ii"},
        "`configs/quickstart.py` on the whole of Model II",
    ),
}
TIMED_STEPS = 40
IMAGES_PER_CLASS = 64


def changed(config: Config, overrides: dict[str, Any]) -> Config:
    """The configuration with fields replaced by their full path, checked again."""
    values = dataclasses.asdict(config)
    for path, value in overrides.items():
        section, field = path.split(".")
        values[section][field] = value
    return from_config_dict(values)


def quickstart_config() -> Config:
    """The configuration of `configs/quickstart.py`."""
    path = ROOT / "configs" / "quickstart.py"
    spec = importlib.util.spec_from_file_location("quickstart_config", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return from_config_dict(module.get_config())


class Run:
    """A training run without files.

    Args:
      config: the configuration.
      split: the training images.
    """

    def __init__(self, config: Config, split: LensSplit) -> None:
        spread = build_spread(config)
        data = config.data
        self.config = config
        self.shape = split.info.image_shape
        self.scaling: Scaling = fit_scaling(
            data.scaling, data.model_std, split.images, split.info.minimum
        )
        self.feed: Feed = DeviceFeed(split, config.seed, spread)
        if data.fresh:
            self.feed = FreshFeed(split.info.name, config.seed, spread)
        batch_fn = make_batch_fn(
            self.feed.batch,
            self.scaling,
            make_augment_fn(data.augmentation, data.shift_pixels, self.shape),
            config.seed,
            masked=split.info.masked,
        )
        self.state = jax.jit(make_init_state(config, self.shape))()
        self.step = jax.jit(
            build_train_step(config, task_of(config).loss_fn(split), batch_fn, spread),
            donate_argnums=0,
        )

    def advance(self, first: int, num_steps: int) -> None:
        """Makes steps and waits for them."""
        for step in range(first, first + num_steps):
            self.state, _ = self.step(self.state, *self.feed.arguments(step))
        jax.block_until_ready(self.state)

    def num_parameters(self) -> int:
        """The number of trainable parameters."""
        return sum(leaf.size for leaf in jax.tree.leaves(self.state.params))

    def scores(self) -> dict[str, dict[str, float]]:
        """The smooth-lens scores of images drawn with the EMA, by class."""
        config = self.config
        names = ("axion", "cdm", "no_sub")
        labels = np.repeat(np.arange(len(names), dtype=np.int32), IMAGES_PER_CLASS)
        sample_fn = make_sample_fn(config, self.scaling, self.shape, config.sample)
        drawing = Drawing(sample_fn, all_devices(most=1))
        weights = drawing.placed(Weights(sampling_params(self.state, config.sample.ema)))
        numbers = np.arange(len(labels), dtype=np.int32)
        images = generate_chunks(drawing, weights, numbers, labels, seed=0, batch_size=48)
        survey = SIMULATED_SETS[config.data.name].survey
        scores = {}
        for label, name in enumerate(names):
            drawn = images[labels == label, ..., 0]
            free = fit_smooth(drawn, survey, free_amplitude=True)
            scores[name] = {
                **smooth_scores(drawn, survey),
                "free_ratio_p50": float(np.median(free.ratio)),
                "brightness": float(free.amplitude.mean(dtype=np.float64)),
            }
        return scores


def learned_by(config: Config) -> dict[str, Any]:
    """What decides how a candidate learns, as JSON types."""
    values = to_dict(config)
    chosen = {name: values[name] for name in ("data", "model", "path", "loss", "optim")}
    return chosen | {"batch_size": config.train.batch_size}


def measure(config: Config, split: LensSplit, cpu_seconds: float) -> dict[str, Any]:
    """Trains a candidate for the given processor time and scores it."""
    trial = Run(config, split)
    trial.advance(0, 5)
    started = time.process_time()
    trial.advance(5, TIMED_STEPS)
    per_step = (time.process_time() - started) / TIMED_STEPS
    num_steps = int(cpu_seconds / per_step)
    run = Run(changed(config, {"train.num_steps": num_steps}), split)
    run.advance(0, num_steps)
    return {
        "learned_by": learned_by(config),
        "versions": provenance.versions(),
        "device": f"{jax.devices()[0].device_kind} with {os.cpu_count()} cores",
        "parameters": run.num_parameters(),
        "steps": num_steps,
        "cpu_seconds": cpu_seconds,
        "cpu_milliseconds_per_image": 1e3 * per_step / config.train.batch_size,
        "passes": passes_per_image(config, config.sample),
        "scores": run.scores(),
    }


def table(results: dict[str, Any]) -> str:
    """The candidates as a Markdown table, best first."""
    lines = [
        "| candidate | parameters | steps | no_sub p50 | p90 | dark pixels | cdm p50 | axion p50 | "
        "no_sub brightness |",
        "|---|--:|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for name, row in sorted(
        results.items(), key=lambda item: item[1]["scores"]["no_sub"]["ratio_p50"]
    ):
        smooth, cdm, axion = (row["scores"][key] for key in ("no_sub", "cdm", "axion"))
        lines.append(
            f"| {name} | {row['parameters']:,} | {row['steps']:,} | {smooth['ratio_p50']:.3f} | "
            f"{smooth['ratio_p90']:.3f} | {smooth['faint_rms_percent']:.3f} % | "
            f"{cdm['ratio_p50']:.3f} | {axion['ratio_p50']:.3f} | "
            + (f"{smooth['brightness']:.3f} |" if "brightness" in smooth else " |")
        )
    return "\n".join(lines)


def _over_seeds(results: dict[str, Any]) -> str:
    """The candidates that were trained with several seeds: mean and standard deviation."""
    groups: dict[str, list[dict[str, Any]]] = {}
    for name, row in results.items():
        groups.setdefault(name.partition(", seed ")[0], []).append(row["scores"])
    several = {name: rows for name, rows in groups.items() if len(rows) > 1}
    if not several:
        return ""
    columns = [
        ("no_sub p50", lambda scores: scores["no_sub"]["ratio_p50"]),
        ("cdm p50, free", lambda scores: scores["cdm"]["free_ratio_p50"]),
        ("axion p50, free", lambda scores: scores["axion"]["free_ratio_p50"]),
        ("no_sub brightness", lambda scores: scores["no_sub"]["brightness"]),
    ]
    lines = [
        "",
        "Mean and standard deviation over seeds:",
        "",
        f"| candidate | seeds | {' | '.join(name for name, _ in columns)} |",
        f"|---|--:|{'--:|' * len(columns)}",
    ]
    for name, rows in several.items():
        cells = []
        for _, take in columns:
            values = [take(scores) for scores in rows]
            cells.append(f"{np.mean(values):.4f} +- {np.std(values, ddof=1):.4f}")
        lines.append(f"| {name} | {len(rows)} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def report(group: str, content: dict[str, Any]) -> str:
    """The results as a Markdown page."""
    candidates = content["candidates"]
    one = next(iter(candidates.values()))
    seeds = max(int(name.partition(", seed ")[2] or 0) for name in candidates) + 1
    command = f"compare.py {group} --cpu-seconds={one['cpu_seconds']:g}"
    command += f" --seeds={seeds}" if seeds > 1 else ""
    seconds = " or ".join(sorted({f"{row['cpu_seconds']:g}" for row in candidates.values()}))
    return f"""# {GROUPS[group].title}

`python benchmarks/{command}` on {one["device"]} (jax
{one["versions"]["jax"]}): the base is
{GROUPS[group].base}.
Every candidate is the base with the named change, trained on
`{one["learned_by"]["data"]["name"]}` for {seconds} seconds of processor time, its learning rate
brought down within them. Numbers are those of `--mode=evaluate`, over {IMAGES_PER_CLASS} images a
class drawn with {one["passes"]} network passes each; real ones stand at 0 (no_sub), 0.076 (cdm),
0.147 (axion). Of one seed, differences of a tenth mean nothing.

{table(candidates)}
{_over_seeds(candidates)}"""


def main() -> None:
    """Runs the candidates of a group and writes the results."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("group", choices=GROUPS)
    parser.add_argument("--cpu-seconds", type=float, default=200.0)
    parser.add_argument("--results", type=pathlib.Path, default=ROOT / "benchmarks" / "results")
    parser.add_argument("--seeds", type=int, default=1, help="trainings of each candidate")
    parser.add_argument("--only", nargs="*", help="names of candidates; all by default")
    options = parser.parse_args()
    candidates, changes = GROUPS[options.group].candidates, GROUPS[options.group].changes
    unknown = set(options.only or []) - candidates.keys()
    if unknown:
        parser.error(f"--only: got {', '.join(unknown)}; allowed: {', '.join(candidates)}")
    base = changed(quickstart_config(), changes)
    target = options.results / f"compare_{options.group}.json"
    results = workdir.read_json(target).get("candidates", {}) if target.exists() else {}
    deeplense.prepare(base.data.name, base.data.directory)
    split = deeplense.read(base.data.name, base.data.directory, "train")
    for seed, only in itertools.product(range(options.seeds), options.only or candidates):
        config = dataclasses.replace(changed(base, candidates[only]), seed=seed)
        name = f"{only}, seed {seed}" if seed else only
        row = results.get(name)
        if (
            row
            and row["learned_by"] == learned_by(config)
            and row["cpu_seconds"] == options.cpu_seconds
        ):
            continue
        results[name] = measure(config, split, options.cpu_seconds)
        content = {"candidates": results}
        write_json(target, content)
        target.with_suffix(".md").write_text(report(options.group, content), encoding="utf-8")
        print(table({name: results[name]}), flush=True)
    print(table(results))


if __name__ == "__main__":
    main()
