"""Minutes of training for each config and machine: measured, or computed from FLOPs.

    python benchmarks/minutes.py [--write]

prints a table; `--write` puts it into docs/numbers.md between its two marks. FLOPs of a forward
pass are XLA's count for the program before it is optimised; training takes three passes.
"""

import argparse
import importlib
import json
import pathlib
import sys
from typing import Any

import jax
import jax.numpy as jnp
import speed_table

from lensjax.config import Config, from_config_dict
from lensjax.models import build_model
from lensjax.run.learning import abstract_state

ROOT = pathlib.Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
PASSES_OF_TRAINING = 3
SIDE = 64
# Images of other sizes, and own images as the example of the page.
SIDES = {"unet_ddpm": 150}
LEFT_OUT = ("smoke", "smoke_classifier")
# By NVIDIA's data sheet, dense, in TFLOP/s.
H100 = {"bfloat16": 989.4, "float32": 494.7}
# Shares of it that are assumed: large products of a transformer, convolutions of few channels.
SHARES = {"dit": 0.35, "vit": 0.35, "mae": 0.35}
CONVOLUTIONS = 0.05


# Minutes on two CPU cores beside other programs (docs/numbers.md, benchmarks/results).
MEASURED = {"quickstart": 9, "classifier_rescnn": 57}


def measured() -> dict[str, float]:
    """Minutes of training on two CPU cores by config."""
    curve = json.loads((RESULTS / "quality.json").read_text(encoding="utf-8"))["cpu_fast"]["rows"]
    return MEASURED | {"cpu_fast": curve[-1]["minutes"]}


def cpu_rate() -> float:
    """FLOP/s that lensjax reached on two CPU cores with NanoDiT."""
    cases = speed_table.read_cases(RESULTS / "train.json")
    case = cases["cpu", "float32"]
    return case["flops"] / case["median_seconds"]["lensjax"]


def flops_of_training(config: Config, side: int) -> float:
    """FLOPs of all steps of a training, by XLA's count of one forward pass.

    Args:
      config: the run.
      side: pixels a side of its images.
    """
    shape = (side, side, 1)
    params = jax.eval_shape(lambda: abstract_state(config, shape).params)
    images = jnp.zeros((1, *shape))
    keys = jax.random.split(jax.random.key(0), 1)
    arguments: tuple[Any, ...] = (images, keys)
    if config.task == "generate":
        arguments = (images, jnp.zeros(1), {"label": jnp.zeros(1, jnp.int32)})
    model = build_model(config.model)
    lowered = jax.jit(lambda p, *rest: model.apply({"params": p}, *rest)).lower(params, *arguments)
    analysis = lowered.cost_analysis()
    assert analysis
    return PASSES_OF_TRAINING * analysis["flops"] * config.train.batch_size * config.train.num_steps


def _shown(minutes: float) -> str:
    if minutes < 1:
        return "below 1 min"
    return f"{minutes:.0f} min" if minutes < 120 else f"{minutes / 60:,.0f} h"


def table() -> str:
    """The Markdown table."""
    known, rate = measured(), cpu_rate()
    columns = ("config", "steps of images", "PFLOP", "two CPU cores", "one H100")
    lines = [f"| {' | '.join(columns)} |", "|---|--:|--:|--:|--:|"]
    for path in sorted((ROOT / "configs").glob("*.py")):
        if path.stem in LEFT_OUT:
            continue
        values = importlib.import_module(path.stem).get_config()
        if values.data.name.endswith("folder"):
            values.data.folder = "images"
        if values.model.name in SHARES:
            values.model.attention = "xla"  # XLA counts a loop's body once
        config = from_config_dict(values)
        flops = flops_of_training(config, SIDES.get(path.stem, SIDE))
        share = SHARES.get(config.model.name, CONVOLUTIONS)
        gpu = flops / (share * 1e12 * H100[config.model.dtype]) / 60
        cpu = f"{_shown(flops / rate / 60)}, computed"
        if path.stem in known:
            cpu = f"{known[path.stem]:.0f} min, measured"
        steps = f"{config.train.num_steps:,} of {config.train.batch_size}"
        cells = (f"`{path.stem}`", steps, f"{flops / 1e15:.3g}", cpu, f"{_shown(gpu)}, computed")
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Prints the table, and writes it where that is asked for."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--write", action="store_true", help="into docs/numbers.md")
    options = parser.parse_args()
    sys.path.append(str(ROOT / "configs"))
    content = table()
    print(content, end="")
    if options.write:
        page = speed_table.PAGE
        page.write_text(
            speed_table.written_into(page.read_text(encoding="utf-8"), content, "minutes")
        )


if __name__ == "__main__":
    main()
