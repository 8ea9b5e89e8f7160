"""lensjax and PyTorch side by side: what `train.py` and `sample.py` have in common.

Each framework computes in a child of its own; rounds are timed in turn, so that slow phases of the
machine meet both. Numbers are medians over rounds, and of the ratio of each pair of rounds.
"""

import argparse
import contextlib
import math
import os
import pathlib
import shlex
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from channel import MEMORY_SETTINGS, Child, ChildError

from lensjax.files.atomic import write_json
from lensjax.run import workdir

ROOT = pathlib.Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
LENSJAX, TORCH = "lensjax", "PyTorch"
PRECISIONS = {"cpu": ("float32",), "gpu": ("bfloat16", "tf32")}
_PRODUCT_SIZE = {"cpu": 2048, "gpu": 8192}
Numbers = dict[str, Any]
Children = dict[str, Child]


def parser(description: str) -> argparse.ArgumentParser:
    """The options of both benchmarks."""
    made = argparse.ArgumentParser(description=description)
    made.add_argument("--config", default="configs/dit_flow.py", help="a file, of a DiT")
    made.add_argument("--set", action="append", default=[], metavar="SECTION.FIELD=VALUE")
    for name in ("patch", "width", "depth", "heads"):
        made.add_argument(f"--{name}", type=int, help="of the network; as configured by default")
    made.add_argument("--side", type=int, default=64, help="pixels")
    made.add_argument("--batch", type=int, help="images; 4 on a CPU")
    made.add_argument("--precisions", nargs="+", choices=("float32", "tf32", "bfloat16"))
    made.add_argument("--rounds", type=int, default=7, help="timed rounds of each framework")
    made.add_argument("--sleep", type=float, default=0.0, help="seconds between rounds")
    made.add_argument("--product-size", type=int, help="rows of the matrices of the product")
    made.add_argument("--compile-mode", default="default", help="of torch.compile, on a GPU")
    made.add_argument("--torch-python", default=sys.executable, help="a Python with PyTorch")
    made.add_argument(
        "--results", type=pathlib.Path, help="a folder; benchmarks/results for what is published"
    )
    return made


def folder_of_results(options: argparse.Namespace) -> pathlib.Path | None:
    """Where results go, None for a trial: another network is not what is published."""
    changed = (options.patch, options.width, options.depth, options.heads, options.batch)
    trial = any(changed) or options.side != 64 or options.set or options.precisions
    return options.results or (None if trial else RESULTS)


def _environment() -> dict[str, str]:
    found = {
        **MEMORY_SETTINGS,
        "PYTHONPATH": os.pathsep.join(
            filter(None, [os.fspath(ROOT), os.environ.get("PYTHONPATH")])
        ),
        # A compiler that finds yesterday's program would take no time.
        "JAX_ENABLE_COMPILATION_CACHE": "false",
        "TORCHINDUCTOR_FORCE_DISABLE_CACHES": "1",
        "XLA_PYTHON_CLIENT_PREALLOCATE": "false",  # or the peak would be the whole device
    }
    return found


def start_lensjax(more: dict[str, str] | None = None, *, quiet: bool = False) -> Child:
    """Starts lensjax's child.

    Args:
      more: variables of its environment.
      quiet: whether to drop what it prints.
    """
    program = os.fspath(ROOT / "benchmarks" / "side_lensjax.py")
    return Child(LENSJAX, [sys.executable, program], _environment() | (more or {}), quiet=quiet)


def start_torch(python: str, platform: str) -> Child:
    """Starts PyTorch's child on `cpu` or `gpu`."""
    program = os.fspath(ROOT / "benchmarks" / "side_torch.py")
    return Child(TORCH, [python, program, platform], _environment())


@contextlib.contextmanager
def both(options: argparse.Namespace) -> Iterator[tuple[Children, Numbers]]:
    """Starts both children; yields them by name, and what they say of themselves.

    Raises:
      ChildError: where PyTorch is not there.
    """
    with start_lensjax() as lensjax:
        hello = {LENSJAX: lensjax.ask("hello")}
        with start_torch(options.torch_python, platform_of(hello[LENSJAX])) as torch:
            try:
                hello[TORCH] = torch.ask("hello")
            except ChildError as error:
                raise ChildError(
                    f"{error}; PyTorch is needed: pip install 'lensjax[bench-torch]', or name a "
                    "Python that has it by --torch-python"
                ) from None
            yield {LENSJAX: lensjax, TORCH: torch}, hello


def platform_of(hello: Numbers) -> str:
    """`cpu`, or `gpu` for any accelerator."""
    return "cpu" if hello["hardware"]["devices"]["platform"] == "cpu" else "gpu"


def device_name(hello: Numbers) -> str:
    """What results are kept under: the GPU, or the CPU with its cores."""
    hardware = hello["hardware"]
    if platform_of(hello) == "gpu":
        return hardware["devices"]["kind"]
    return f"{hardware['cpu_model']}, {hardware['cpu_usable']} cores"


def in_turn(
    children: Children,
    counts: dict[str, int],
    rounds: int,
    sleep: float,
    *,
    settle: bool = True,
) -> Numbers:
    """Times rounds of the jobs that the children hold, one after the other and again.

    While a child waits, a virtual machine may give its free memory back; a step of a training that
    took 2.1 s took 3.8 s after four seconds of waiting.

    Args:
      children: by name.
      counts: repetitions a round.
      rounds: of each.
      sleep: seconds of rest before each round.
      settle: whether each round is made twice, and only the second one timed.

    Returns:
      `seconds` of one repetition: all of them by child.
    """
    seconds: dict[str, list[float]] = {name: [] for name in children}
    for _ in range(rounds):
        for name, child in children.items():
            time.sleep(sleep)
            if settle:
                child.ask("round", count=counts[name])
            taken = child.ask("round", count=counts[name])["seconds"]
            seconds[name].append(taken / counts[name])
    return {"counts": counts, "seconds": seconds}


def compared(timed: Numbers) -> Numbers:
    """Medians, and PyTorch's time over lensjax's in each pair of rounds."""
    seconds = timed["seconds"]
    pairs = sorted(
        theirs / ours for ours, theirs in zip(seconds[LENSJAX], seconds[TORCH], strict=True)
    )
    return {
        "median_seconds": {name: statistics.median(values) for name, values in seconds.items()},
        "ratio": {"median": statistics.median(pairs), "least": pairs[0], "most": pairs[-1]},
    }


def build(children: Children, job: str, settings: dict[str, Numbers]) -> Numbers:
    """Builds a job in each child, one after the other; returns what each says of it."""
    return {
        name: child.ask("build", job=job, settings=settings[name])
        for name, child in children.items()
    }


def counts_for(built: Numbers, seconds: float) -> dict[str, int]:
    """How often to repeat jobs in a round that shall take so long."""
    return {
        name: max(1, math.ceil(seconds / max(info["first_seconds"], 1e-6)))
        for name, info in built.items()
    }


def product_rates(
    children: Children, precision: str, size: int, rounds: int, sleep: float
) -> Numbers:
    """Measures FLOPs a second of a product of square matrices in each framework.

    Returns:
      `size`, `rate` by child, and `reference`, the higher one.
    """
    settings = {"precision": precision, "size": size}
    built = build(children, "product", dict.fromkeys(children, settings))
    timed = in_turn(children, counts_for(built, 1.0), rounds, sleep)
    rates = {
        name: 2 * size**3 / seconds for name, seconds in compared(timed)["median_seconds"].items()
    }
    return {"size": size, "rate": rates, "reference": max(rates.values()), **timed}


def memory(children: Children) -> Numbers:
    """The peak of each child's memory, and what the job added to it."""
    found = {name: child.ask("memory") for name, child in children.items()}
    for answer in found.values():
        answer["added_bytes"] = answer["peak_bytes"] - answer["before_bytes"]
    return found


def measured(
    children: Children,
    job: str,
    settings: dict[str, Numbers],
    count: int,
    options: argparse.Namespace,
    flops: int,
    *,
    settle: bool = True,
) -> Numbers:
    """Builds and times a job in both children, then the matrix product of the same precision.

    Args:
      children: fresh ones, so that peaks of memory are this job's.
      job: its name.
      settings: of each child.
      count: repetitions a round.
      options: `rounds`, `sleep` and the size of the product.
      flops: of one repetition.
      settle: see `in_turn`; for repetitions of many seconds it is not worth the time.

    Returns:
      Everything that was measured, as JSON types; `mfu` is the model's FLOPs a second over the
      higher rate of the matrix product.
    """
    built = build(children, job, settings)
    counts = dict.fromkeys(children, count)
    timed = in_turn(children, counts, options.rounds, options.sleep, settle=settle)
    result = compared(timed) | {"built": built, "rounds": timed, "memory": memory(children)}
    precision = settings[LENSJAX]["precision"]
    size = options.product_size
    product = product_rates(children, precision, size, options.rounds, options.sleep)
    reference = product["reference"]
    result["mfu"] = {
        name: flops / seconds / reference for name, seconds in result["median_seconds"].items()
    }
    return {"precision": precision, "flops": flops, **result, "product": product}


def command() -> str:
    """How this program was called, without paths of this machine."""
    program = f"benchmarks/{pathlib.Path(sys.argv[0]).name}"
    return shlex.join(["python", program, *_shown(sys.argv[1:])])


def _shown(arguments: Sequence[str]) -> list[str]:
    """The arguments without those that hold a path of this machine."""
    shown, skip = [], False
    for argument in arguments:
        named = argument.partition("=")[0] in ("--torch-python", "--results", "--picture")
        if not skip and not named:
            shown.append(argument)
        skip = named and "=" not in argument
    return shown


def run(
    options: argparse.Namespace,
    name: str,
    measure: Callable[[Children, argparse.Namespace, str, str], Numbers],
) -> None:
    """Measures every precision, each in fresh children, and saves the device's entry after each.

    Args:
      options: of `parser`; gets the size of the product for the platform.
      name: of the file of results.
      measure: `(children, options, platform, precision) -> case`.
    """
    left = options.precisions
    cases = []
    while left is None or left:
        with both(options) as (children, hello):
            platform = platform_of(hello[LENSJAX])
            precision, *left = left or PRECISIONS[platform]
            options.product_size = options.product_size or _PRODUCT_SIZE[platform]
            try:
                cases.append(measure(children, options, platform, precision))
            except ChildError as error:  # such as too little memory; the others can do
                print(f"{precision}: not measured, {error}", flush=True)
                continue
        entry = {"platform": platform, "command": command(), "children": hello, "cases": cases}
        folder = folder_of_results(options)
        if folder is None:
            print("a trial: not written; --results names a folder for it", flush=True)
        else:
            save(folder / name, device_name(hello[LENSJAX]), entry)


def save(path: pathlib.Path, device: str, entry: Numbers) -> None:
    """Puts a device's entry into a file of results, in the place of its last one."""
    devices = workdir.read_json(path)["devices"] if path.exists() else {}
    devices.pop(device, None)
    write_json(path, {"devices": devices | {device: entry}})


def shown_case(case: Numbers, per_second: dict[str, float]) -> str:
    """A few lines with both frameworks side by side.

    Args:
      case: of `measured`.
      per_second: images a second by framework.
    """
    rows = [f"{case['precision']:<22}{LENSJAX:>14}{TORCH:>14}"]
    memories = {name: case["memory"][name]["peak_bytes"] / 2**20 for name in per_second}
    compiled = {name: case["built"][name]["compile_seconds"] for name in per_second}
    for title, values, form in (
        ("images a second", per_second, ".2f"),
        ("MFU", case["mfu"], ".1%"),
        ("peak memory, MiB", memories, ",.0f"),
        ("compile time, s", compiled, ".1f"),
        ("product, GFLOP/s", {k: v / 1e9 for k, v in case["product"]["rate"].items()}, ",.1f"),
    ):
        cells = "".join(f"{format(values[name], form):>14}" for name in (LENSJAX, TORCH))
        rows.append(f"{title:<22}{cells}")
    ratio = case["ratio"]
    rows.append(
        f"lensjax over PyTorch: {ratio['median']:.3f} ({ratio['least']:.3f} to "
        f"{ratio['most']:.3f} over pairs of rounds)"
    )
    return "\n".join(rows)
