"""Training, lensjax beside PyTorch: images a second, MFU, peak memory and compile time.

    python benchmarks/train.py [--torch-python=PYTHON] [--operations]
    python benchmarks/train.py --width=64 --depth=1 --patch=8 --rounds=2   # tries the program

Both frameworks train NanoDiT of `configs/dit_flow.py` on synthetic images: on a CPU in float32 at
batch 4, on a GPU at batch 160 with TF32 and with bfloat16. `--operations` asks where the time goes:
forward and backward pass of each operation by itself, for all blocks of a step. Results go to
`train.json` in `benchmarks/results/` under the device's name, those of another network or batch
only where `--results` names a folder.
"""

import argparse

import networks
import pairs
from flops import train_flops
from pairs import LENSJAX, TORCH, Children, Numbers

from lensjax.config import Config, to_dict

BATCH = {"cpu": 4, "gpu": 160}
ROUND_STEPS = {"cpu": 2, "gpu": 20}
# Name, what it is, and how often a block does it.
OPERATIONS = (
    ("attention", "attention", 1),
    ("qkv_out", "qkv and out products", 1),
    ("mlp", "MLP products", 1),
    ("gelu", "GELU", 1),
    ("norm", "layer norm, modulation and gate", 2),
)
_UPDATE = ("update", "clipping, optimizer and EMA")
_OPERATION_SECONDS = 0.5


def settings_for(config: Config, options: argparse.Namespace, precision: str) -> dict[str, Numbers]:
    """The settings of both children."""
    shape = (options.side, options.side, 1)
    common = {
        "config": to_dict(config),
        "precision": precision,
        "image_shape": shape,
        "num_images": networks.num_images(config.train.batch_size, shape),
        "batch_size": config.train.batch_size,
        "compile_mode": options.compile_mode,
    }
    return {LENSJAX: common, TORCH: common}


def config_for(options: argparse.Namespace, platform: str, precision: str) -> Config:
    """The checked configuration of a precision."""
    fields = {"train.batch_size": options.batch or BATCH[platform]}
    return networks.config_for(options, precision, fields)


def measure(
    children: Children, options: argparse.Namespace, platform: str, precision: str
) -> Numbers:
    """Measures training in one precision."""
    config = config_for(options, platform, precision)
    batch, model = config.train.batch_size, to_dict(config)["model"]
    flops = batch * train_flops(model, (options.side, options.side, 1))
    settings = settings_for(config, options, precision)
    steps = options.round_steps or ROUND_STEPS[platform]
    case = pairs.measured(children, "train", settings, steps, options, flops)
    speed = {name: batch / seconds for name, seconds in case["median_seconds"].items()}
    print(pairs.shown_case(case, speed), flush=True)
    case |= {"batch_size": batch, "side": options.side, "images_per_second": speed}
    if options.operations:
        step = case["median_seconds"]
        case["operations"] = operations(children, options, config, settings, step)
    return case | {"config": to_dict(config)}


def operations(
    children: Children,
    options: argparse.Namespace,
    config: Config,
    settings: dict[str, Numbers],
    step: Numbers,
) -> list[Numbers]:
    """Times each operation by itself, and prints milliseconds of a step."""
    rows: list[Numbers] = []
    for name, title, times in OPERATIONS:
        seconds = _operation(children, settings, name, options)
        factor = times * config.model.depth
        rows.append(_row(title, {key: factor * value for key, value in seconds.items()}))
    rows.append(_row(_UPDATE[1], _operation(children, settings, _UPDATE[0], options)))
    sums = {key: sum(row["milliseconds"][key] for row in rows) / 1e3 for key in (LENSJAX, TORCH)}
    rows.append(_row("the rest", {key: step[key] - value for key, value in sums.items()}))
    rows.append(_row("all of it", step))
    print(operations_table(rows), flush=True)
    return rows


def _row(title: str, seconds: dict[str, float]) -> Numbers:
    return {
        "operation": title,
        "milliseconds": {key: 1e3 * seconds[key] for key in (LENSJAX, TORCH)},
    }


def _operation(
    children: Children, settings: dict[str, Numbers], name: str, options: argparse.Namespace
) -> dict[str, float]:
    named = {child: one | {"operation": name} for child, one in settings.items()}
    built = pairs.build(children, "operation", named)
    counts = pairs.counts_for(built, options.operation_seconds)
    timed = pairs.in_turn(children, counts, options.rounds, options.sleep)
    return pairs.compared(timed)["median_seconds"]


def operations_table(rows: list[Numbers]) -> str:
    """Milliseconds of a step by operation as a Markdown table."""
    lines = [f"| forward and backward, ms a step | {LENSJAX} | {TORCH} |", "|---|--:|--:|"]
    for row in rows:
        cells = " | ".join(f"{row['milliseconds'][key]:,.2f}" for key in (LENSJAX, TORCH))
        lines.append(f"| {row['operation']} | {cells} |")
    return "\n".join(lines)


def main() -> None:
    """Measures each precision."""
    parser = pairs.parser(__doc__.partition("\n")[0])
    parser.add_argument("--round-steps", type=int, help="steps a round; 2 on a CPU, 20 on a GPU")
    parser.add_argument("--operations", action="store_true", help="where the time goes")
    parser.add_argument("--operation-seconds", type=float, default=_OPERATION_SECONDS)
    options = parser.parse_args()
    pairs.run(options, "train.json", measure)


if __name__ == "__main__":
    main()
