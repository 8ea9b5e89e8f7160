"""Scores that everyone can place: the shipped generator beside a plain NanoDiT and the simulator.

    python benchmarks/baseline.py [--workdir=runs/baseline] [--images-per-class=12]

trains NanoDiT of `configs/dit_flow.py` in PyTorch for an hour of two cores, draws with it, and
judges these images by the measures of `--mode=evaluate`, as many of `pretrained/model_ii` and of
the simulator with a fresh seed beside them. An hour holds only 7,200 images, so steps have 8 of
them in place of 160, and the warm-up is the same share of the training; products are in bfloat16,
which is twice as fast. Killed, the same command goes on. Results go to `baseline.json` and
`baseline.md` in `benchmarks/results/`.
"""

import argparse
import dataclasses
import pathlib
import time
from typing import Any

import jax.numpy as jnp
import numpy as np
import torch
from judge import judge, make_config
from nanodit_torch import NanoDiT, Trainer, draw
from networks import overridden, read_config

import lensjax
from lensjax.config import Config, to_dict
from lensjax.config.diffusion import sample_times
from lensjax.data.scaling import Scaling
from lensjax.evaluation.evaluate_generator import make_setting
from lensjax.evaluation.goals import MET, MISSED, NO_POWER, Check
from lensjax.evaluation.real import RealImages
from lensjax.evaluation.rows import Row
from lensjax.evaluation.tables import number, plain
from lensjax.files.atomic import replacing, write_array, write_json
from lensjax.run import datasets, provenance
from lensjax.run.networks import build_path
from lensjax.training.data import scaling_of_images

RESULTS = pathlib.Path(__file__).parent / "results" / "baseline.json"
DATA = "deeplense/model_ii"
PRETRAINED = "pretrained/model_ii"
PRECISION = "bfloat16"
CLASSES = ("no_sub", "cdm", "axion")
SIMULATOR_SEED = 2_026  # not that of the set
_WARMUP_SHARE = 0.01  # 1,000 of 100,000 steps in configs/dit_flow.py
_DRAWN_TOGETHER = 8
_STEPS_KEPT = 50  # between two checkpoints


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workdir", type=pathlib.Path, default=pathlib.Path("runs/baseline"))
    parser.add_argument("--steps", type=int, default=900, help="of the training in PyTorch")
    parser.add_argument("--batch", type=int, default=8, help="images a step")
    parser.add_argument("--images-per-class", type=int, default=12)
    parser.add_argument("--measures", default="all", help="as evaluate.measures")
    parser.add_argument("--results", type=pathlib.Path, default=RESULTS)
    return parser.parse_args()


def _config(options: argparse.Namespace) -> Config:
    fields = {
        "train.batch_size": options.batch,
        "train.num_steps": options.steps,
        "optim.warmup_steps": max(1, round(_WARMUP_SHARE * options.steps)),
    }
    config = read_config("configs/dit_flow.py", (), fields)
    return dataclasses.replace(
        config, data=dataclasses.replace(config.data, name=DATA, folder=None)
    )


def _keep(path: pathlib.Path, content: dict[str, Any]) -> None:
    with replacing(path) as partial:
        torch.save(content, partial)


def train(config: Config, scaling: Scaling, folder: pathlib.Path) -> tuple[NanoDiT, float]:
    """Trains, or goes on, to the configured number of steps.

    Args:
      config: of the NanoDiT.
      scaling: from flux to the model's range.
      folder: of the checkpoint.

    Returns:
      The network with its averaged parameters, and the minutes of processor time.
    """
    values, checkpoint = to_dict(config), folder / "checkpoint.pt"
    torch.manual_seed(config.seed)
    network = NanoDiT(values["model"], (64, 64, 1))
    trainer = Trainer(values, network, PRECISION, None)
    minutes = 0.0
    if checkpoint.exists():
        kept = torch.load(checkpoint, weights_only=True)
        network.load_state_dict(kept["network"])
        trainer.optimizer.load_state_dict(kept["optimizer"])
        trainer.average, trainer.steps, minutes = kept["average"], kept["steps"], kept["minutes"]
        torch.manual_seed(trainer.steps)
    if trainer.steps < config.train.num_steps:
        flux, table = lensjax.load_data(DATA, "train")
        images = torch.from_numpy(np.array(scaling.to_model(jnp.asarray(flux))))
        labels = torch.from_numpy(table["label"].astype(np.int64))
    while trainer.steps < config.train.num_steps:
        begin, losses = time.process_time(), []
        for _ in range(min(_STEPS_KEPT, config.train.num_steps - trainer.steps)):
            losses.append(float(trainer.step(images, labels)))
        minutes += (time.process_time() - begin) / 60
        kept = {"network": network.state_dict(), "optimizer": trainer.optimizer.state_dict()}
        kept |= {"average": trainer.average, "steps": trainer.steps, "minutes": minutes}
        _keep(checkpoint, kept)
        print(f"step {trainer.steps}: loss {np.mean(losses):.4f}, {minutes:.1f} min", flush=True)
    with torch.no_grad():
        for parameter, average in zip(trainer.parameters, trainer.average, strict=True):
            parameter.copy_(average)
    return network, minutes


def drawn(
    network: NanoDiT, config: Config, scaling: Scaling, labels: np.ndarray, folder: pathlib.Path
) -> np.ndarray:
    """Images of the network by the configured sampler, in flux; those in the folder are read.

    Args:
      network: with averaged parameters.
      config: says steps and guidance.
      scaling: from the model's range to flux.
      labels: `[N]`.
      folder: keeps every few of them.
    """
    folder.mkdir(parents=True, exist_ok=True)
    times = np.asarray(sample_times(build_path(config), config.sample)).tolist()
    parts = []
    for begin in range(0, len(labels), _DRAWN_TOGETHER):
        path = folder / f"{begin}.npy"
        if not path.exists():
            chosen = torch.from_numpy(labels[begin : begin + _DRAWN_TOGETHER].astype(np.int64))
            generator = torch.Generator().manual_seed(begin)
            noise = torch.randn((len(chosen), 64, 64, 1), generator=generator)
            images = draw(
                network.eval(),
                noise,
                chosen,
                times,
                config.sample.guidance,
                config.model.num_classes,
                PRECISION,
            )
            write_array(path, np.asarray(scaling.to_flux(jnp.asarray(images.numpy()))))
            print(f"{folder.name}: {begin + len(chosen)} of {len(labels)} images", flush=True)
        parts.append(np.load(path))
    return np.concatenate(parts)


def subjects(options: argparse.Namespace) -> tuple[dict[str, np.ndarray], np.ndarray, float]:
    """The images of each row in flux, their labels, and the minutes of the training."""
    config = _config(options)
    options.workdir.mkdir(parents=True, exist_ok=True)
    labels = np.repeat(np.arange(3, dtype=np.int32), options.images_per_class)
    split = datasets.prepare(config.data).open_split("train")
    scaling = scaling_of_images(split, config.data)
    network, minutes = train(config, scaling, options.workdir)
    rows = {}
    for guidance in (config.sample.guidance, 1.0):
        guided = overridden(config, (), {"sample.guidance": guidance})
        name = f"NanoDiT in PyTorch, guidance {guidance:g}"
        folder = options.workdir / f"guidance_{guidance:g}_{options.images_per_class}_a_class"
        rows[name] = drawn(network, guided, scaling, labels, folder)
    rows[PRETRAINED] = lensjax.load(PRETRAINED).generate(label=labels, num=len(labels))
    simulated = [
        lensjax.simulate("model_ii", name, options.images_per_class, seed=SIMULATOR_SEED)[0]
        for name in sorted(CLASSES)  # as their labels
    ]
    rows["simulator, fresh seed"] = np.concatenate(simulated)
    return rows, labels, minutes


def _smooth(results: dict[str, Any], name: str, class_name: str) -> dict[str, float]:
    return results["smooth_fit"]["rows"][name][class_name]


def page(content: dict[str, Any]) -> str:
    """The scores as a Markdown page."""
    rows = content["rows"]
    lines = [
        "# Scores that everyone can place\n",
        f"`python benchmarks/baseline.py`: {content['images_per_class']} images a class of "
        f"`{DATA}`, judged by the measures of `--mode=evaluate`. The NanoDiT is that of "
        "`configs/dit_flow.py` (29.3 million parameters, 50 Euler steps), trained in PyTorch for "
        f"{content['steps']:,} steps of {content['batch_size']} images in "
        f"{content['processor_minutes']:.0f} minutes of processor time, on two cores of "
        f"{content['hardware']['cpu_model']}.\n",
        "Median residual of the best lens without sub-structure, its brightness free; this "
        "brightness for no_sub; goals missed of those that can be judged:\n",
        "| images | no_sub | cdm | axion | brightness of no_sub | goals missed |",
        "|---|--:|--:|--:|--:|--:|",
    ]
    for name, row in rows.items():
        cells = [number(row["residual"][one]) for one in CLASSES]
        cells.append(number(row["brightness"]))
        cells.append(f"{row['missed']} of {row['judged']}" if row["judged"] else "-")
        lines.append(f"| {name} | {' | '.join(cells)} |")
    judged = {name: row["checks"] for name, row in rows.items() if row["checks"]}
    lines += [
        "\nEvery goal that has power at so few images, with its limit, which follows from the "
        "scatter of the images; what is missed is bold:\n",
        f"| goal | {' | '.join(judged)} |",
        "|---|" + "--:|" * len(judged),
    ]
    found = {name: {one["name"]: one for one in checks} for name, checks in judged.items()}
    for goal in found[PRETRAINED].values():
        same = [checks.get(goal["name"]) for checks in found.values()]
        if any(one and one["outcome"] != NO_POWER for one in same):
            lines.append(f"| {goal['name']} | {' | '.join(map(_cell, same))} |")
    return "\n".join(lines) + "\n"


def _cell(check: dict[str, Any] | None) -> str:
    if check is None:
        return "-"
    shown = number(check["value"])
    if check["outcome"] == MISSED:
        shown = f"**{shown}**"
    return f"{shown} ({check['bound']} {number(check['limit'])})"


def _row(results: dict[str, Any], name: str, checks: list[Check]) -> dict[str, Any]:
    judged = [one for one in checks if one.outcome in (MET, MISSED)]
    return {
        "residual": {one: _smooth(results, name, one)["free_ratio_p50"] for one in CLASSES},
        "brightness": _smooth(results, name, "no_sub")["brightness"],
        "missed": sum(one.outcome == MISSED for one in judged),
        "judged": len(judged),
        "checks": [one._asdict() for one in checks],
    }


def main() -> None:
    """Trains, draws, judges and writes the table."""
    options = _arguments()
    images, labels, minutes = subjects(options)
    config = make_config(DATA, options.images_per_class, options.measures)
    setting = make_setting(config, RealImages(config, datasets.prepare(config.data)))
    rows = [Row(name, one, labels, setting) for name, one in images.items()]
    checks, results = judge(rows, setting)
    content = {
        "images_per_class": options.images_per_class,
        "steps": options.steps,
        "batch_size": options.batch,
        "processor_minutes": minutes,
        "rows": {name: _row(results, name, checks.get(name, [])) for name in [*images, "real"]},
        "hardware": provenance.hardware(),
        "versions": provenance.versions() | {"torch": torch.__version__},
    }
    write_json(options.results, plain(content))
    options.results.with_suffix(".md").write_text(page(content), encoding="utf-8")
    print(page(content))


if __name__ == "__main__":
    main()
