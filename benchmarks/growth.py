"""How training grows: images a second, peak memory and compile time over three axes.

    python benchmarks/growth.py [--config=configs/dit_flow.py] [--row-seconds=120]

Batches of 1 to 1,024 images of 64x64 pixels, images of 32 to 256 pixels, and 1 to 8 virtual CPU
devices, each row in a process of its own. A row that would not fit into the memory, or would take
longer than `--row-seconds`, says so, and the larger ones of its axis are not tried. The network is
that of `--config`: by default the quickstart's on a CPU and NanoDiT on a GPU. Results go to
`growth.json` in `benchmarks/results/` under the device's name, the table to `growth.md` beside it,
the picture `growth.png` to `docs/`.
"""

import argparse
import pathlib
import time
from typing import Any, NamedTuple

import networks
import pairs
from channel import ChildError, ChildTimeoutError
from pairs import ROOT, Numbers

from lensjax.config import Config, to_dict
from lensjax.run import workdir

CONFIG = {"cpu": "configs/quickstart.py", "gpu": "configs/dit_flow.py"}
BASE_BATCH = {"cpu": 16, "gpu": 64}  # of the rows over side
DEVICES_BATCH = 64  # of the rows over devices
BASE_SIDE = 64
PICTURE = "growth.png"
_MEMORY_SHARE = 0.9  # what is left of the memory is the system's
_NO_MEMORY = ("RESOURCE_EXHAUSTED", "Out of memory", "out of memory", "code -9", "MemoryError")


class Row(NamedTuple):
    """What one process trains.

    Attributes:
      axis: what grows: `batch`, `side` or `devices`.
      batch: images a step.
      side: of an image, pixels.
      devices: virtual ones; 0 for one real device.
    """

    axis: str
    batch: int
    side: int
    devices: int

    @property
    def images(self) -> int:
        """Pixels of a step in images of 64x64."""
        return max(1, self.batch * self.side**2 // BASE_SIDE**2)


def rows_of(options: argparse.Namespace, platform: str) -> list[Row]:
    """The rows of all axes, small ones first."""
    side, base = BASE_SIDE, options.base_batch or BASE_BATCH[platform]
    rows = [Row("batch", batch, side, 0) for batch in options.batches]
    rows += [Row("side", base, pixels, 0) for pixels in options.sides]
    if platform == "cpu":  # XLA makes virtual devices of a CPU alone
        batch = max(options.devices_batch, *options.devices)
        rows += [Row("devices", batch, side, count) for count in options.devices]
    return rows


def config_for(options: argparse.Namespace, name: str, row: Row) -> Config:
    """The checked configuration of a row."""
    fixed = {"train.batch_size": row.batch, "parallel.num_devices": max(1, row.devices)}
    return networks.read_config(name, options.set, fixed)


def measure(options: argparse.Namespace, config: Config, row: Row) -> Numbers:
    """Trains a row in a process of its own.

    Returns:
      `images_per_second`, `step_seconds`, `peak_bytes`, `added_bytes` and `compile_seconds`; or
      `stopped`, why there are none.
    """
    shape, limit = (row.side, row.side, 1), options.row_seconds
    settings = {
        "config": to_dict(config),
        "precision": options.precision,
        "image_shape": shape,
        "num_images": networks.num_images(row.batch, shape),
        "first_run": False,
    }
    flags = f"--xla_force_host_platform_device_count={row.devices}"
    more = {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"} if row.devices else {}
    deadline = time.monotonic() + limit
    with pairs.start_lensjax(more, quiet=True) as child:
        try:
            memory = child.ask("hello", timeout=limit)["memory_bytes"]
            left = deadline - time.monotonic()
            built = child.ask("build", job="train", settings=settings, timeout=left)
            planned = built["planned_bytes"]
            if memory and planned and planned > _MEMORY_SHARE * memory:
                wanted, there = planned / 2**30, memory / 2**30
                return {"stopped": f"does not fit: {wanted:.0f} of {there:.0f} GiB"}
            left = deadline - time.monotonic()
            first = child.ask("round", count=1, timeout=left)["seconds"]
            steps = int(min(options.steps, (deadline - time.monotonic()) / max(first, 1e-9)))
            if steps < 1:
                return {"stopped": f"longer than {limit:g} s"}
            seconds = child.ask("round", count=steps, timeout=limit)["seconds"] / steps
            numbers = child.ask("memory")
        except ChildTimeoutError:
            return {"stopped": f"longer than {limit:g} s"}
        except ChildError as error:
            if not any(word in str(error) for word in _NO_MEMORY):
                raise
            return {"stopped": "does not fit into the memory"}
    return {
        "images_per_second": row.batch / seconds,
        "step_seconds": seconds,
        "steps": steps,
        "peak_bytes": numbers["peak_bytes"],
        "added_bytes": numbers["peak_bytes"] - numbers["before_bytes"],
        "planned_bytes": planned,
        "compile_seconds": built["compile_seconds"],
    }


def measure_all(options: argparse.Namespace, platform: str, name: str) -> list[Numbers]:
    """Measures every row; behind one that was stopped, the larger ones of its axis are not."""
    found: list[Numbers] = []
    stopped: dict[str, Row] = {}
    for row in rows_of(options, platform):
        before = stopped.get(row.axis)
        if before and row.images > before.images:
            numbers: Numbers = {"stopped": "not tried: larger than the row before"}
        else:
            numbers = measure(options, config_for(options, name, row), row)
        if "stopped" in numbers:
            stopped.setdefault(row.axis, row)
        found.append(row._asdict() | numbers)
        print(table(found[-1:]).splitlines()[-1], flush=True)
    return found


def table(rows: list[Numbers]) -> str:
    """The rows as a Markdown table."""
    lines = [
        "| grows | batch | side | devices | images a second | peak memory, MiB | compile, s |",
        "|---|--:|--:|--:|--:|--:|--:|",
    ]
    for row in rows:
        shape = f"| {row['axis']} | {row['batch']:,} | {row['side']} | {row['devices'] or 1} |"
        if "stopped" in row:
            lines.append(f"{shape} {row['stopped']} | | |")
            continue
        lines.append(
            f"{shape} {row['images_per_second']:,.1f} | {row['peak_bytes'] / 2**20:,.0f} | "
            f"{row['compile_seconds']:.1f} |"
        )
    return "\n".join(lines)


def report(devices: dict[str, Numbers]) -> str:
    """The entries of all devices as a Markdown page."""
    parts = [
        "# How training grows\n\nEach row is a process of its own, steps of training on synthetic "
        "images. Peak memory is the process's\non a CPU, Python and JAX included, and the device's "
        f"on a GPU.\n\n![growth](../../docs/{PICTURE})\n"
    ]
    for device, entry in devices.items():
        jax_version = entry["child"]["versions"]["jax"]
        parts.append(
            f"## {device}\n\n`{entry['config']}`, {entry['precision']}, jax {jax_version}:\n"
            f"`{entry['command']}`\n\n{table(entry['rows'])}\n"
        )
    return "\n".join(parts)


def draw(devices: dict[str, Numbers], path: pathlib.Path) -> None:
    """Draws the three numbers over the three axes, one line a device."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 9), dpi=100, layout="constrained")
    grid = figure.subplots(3, 3)
    shown = (
        ("images_per_second", 1.0, "images a second"),
        ("peak_bytes", 2**20, "peak memory, MiB"),
        ("compile_seconds", 1.0, "compile time, s"),
    )
    labels = ("batch", "side", "devices")
    for line, (name, unit, title) in zip(grid, shown, strict=True):
        for axes, axis in zip(line, labels, strict=True):
            for device, entry in devices.items():
                rows = [r for r in entry["rows"] if r["axis"] == axis and "stopped" not in r]
                values = [row[name] / unit for row in rows]
                axes.plot([row[axis] or 1 for row in rows], values, marker="o", label=device)
            axes.set_xscale("log", base=2)
            axes.set(xlabel=axis, ylabel=title if axis == "batch" else "", ylim=(0, None))
            axes.grid(alpha=0.3)
    grid[0][0].legend(fontsize=7)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)


def _parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    made.add_argument("--config", help="a file; by default the one for the device")
    made.add_argument("--set", action="append", default=[], metavar="SECTION.FIELD=VALUE")
    powers = [2**exponent for exponent in range(11)]
    made.add_argument("--batches", type=int, nargs="*", default=powers)
    made.add_argument("--sides", type=int, nargs="*", default=[32, 64, 128, 256])
    made.add_argument("--devices", type=int, nargs="*", default=[1, 2, 4, 8])
    made.add_argument("--base-batch", type=int, help="of the rows over side")
    made.add_argument("--devices-batch", type=int, default=DEVICES_BATCH)
    made.add_argument("--precision", choices=("float32", "tf32"), help="of float32 products")
    made.add_argument("--steps", type=int, default=20, help="timed steps of a row at most")
    made.add_argument("--row-seconds", type=float, default=120.0)
    made.add_argument("--results", type=pathlib.Path, default=pairs.RESULTS)
    made.add_argument("--picture", type=pathlib.Path, default=ROOT / "docs" / PICTURE)
    return made


def main() -> None:
    """Measures all rows, and writes numbers, table and picture."""
    options = _parser().parse_args()
    with pairs.start_lensjax() as child:
        hello: dict[str, Any] = child.ask("hello")
    platform = pairs.platform_of(hello)
    name = options.config or CONFIG[platform]
    options.precision = options.precision or pairs.PRECISIONS[platform][0]
    rows = measure_all(options, platform, name)
    entry = {
        "platform": platform,
        "command": pairs.command(),
        "config": name,
        "precision": options.precision,
        "child": hello,
        "rows": rows,
    }
    target = options.results / "growth.json"
    pairs.save(target, pairs.device_name(hello), entry)
    devices = workdir.read_json(target)["devices"]
    target.with_suffix(".md").write_text(report(devices), encoding="utf-8")
    draw(devices, options.picture)


if __name__ == "__main__":
    main()
