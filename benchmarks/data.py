"""Streaming beside the device placement: images a second, and the memory it takes.

    python benchmarks/data.py [--name=deeplense/model_ii] [--num_batches=400] [--json=FILE]

Reads shuffled batches of 160 images through Grain as training does, hands them to the device, and
prints images a second in steady state and the peak of the process's memory: with files that the
system has to read from disk, with files that it still holds in memory, and with the whole set on
the device, each in a process of its own. Builds the set where it is missing.
"""

import argparse
import json
import multiprocessing
import os
import pathlib
import resource
import time
from collections.abc import Iterable
from typing import Any

BATCH_SIZE = 160
WARM_UP = 20


def peak_mebibytes() -> float:
    """The largest resident memory of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def forget(paths: Iterable[os.PathLike[str]]) -> None:
    """Asks the system to drop its copies of files."""
    for path in paths:
        file = os.open(path, os.O_RDONLY)
        os.fsync(file)
        os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(file)


def measure(placement: str, name: str, num_batches: int, found: Any) -> None:
    """Reads batches through one placement; sends what it measured."""
    import jax

    from lensjax.config import default_config, from_config_dict
    from lensjax.data import deeplense
    from lensjax.data.feed import open_feed
    from lensjax.interfaces import Places
    from lensjax.run.learning import build_spread

    config = default_config()
    config.data.name = name
    split = deeplense.open_split(name, None, "train")
    before = peak_mebibytes()
    spread = build_spread(from_config_dict(config))
    feed = open_feed(split, placement, 0, spread)
    places = Places(jax.numpy.arange(BATCH_SIZE), BATCH_SIZE)
    gather = jax.jit(lambda step, *arguments: feed.batch(step, places, *arguments))
    started = time.monotonic()
    for step in range(WARM_UP + num_batches):
        if step == WARM_UP:
            started = time.monotonic()
        arguments = feed.arguments(step)
        batch = gather(step, *(arguments[0] if placement == "stream" else arguments))
    jax.block_until_ready(batch)
    seconds = time.monotonic() - started
    feed.close()
    found.put(
        {
            "images_per_second": num_batches * BATCH_SIZE / seconds,
            "peak_mebibytes": peak_mebibytes(),
            "peak_mebibytes_before_reading": before,
            "images_in_set": len(split),
        }
    )


def main() -> None:
    """Measures both placements, each in a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--name", default="deeplense/model_ii")
    parser.add_argument("--num_batches", type=int, default=400)
    parser.add_argument("--json", type=pathlib.Path)
    arguments = parser.parse_args()

    from lensjax.data import deeplense
    from lensjax.run.provenance import hardware, versions

    deeplense.prepare(arguments.name)
    spawn = multiprocessing.get_context("spawn")
    results: dict[str, Any] = {}
    folder = deeplense.locate(arguments.name).folder
    for row in ("stream from disk", "stream from memory", "device"):
        if row == "stream from disk":
            forget(folder.glob("*array_record*"))
        placement = row.partition(" ")[0]
        found = spawn.Queue()
        child = spawn.Process(
            target=measure, args=(placement, arguments.name, arguments.num_batches, found)
        )
        child.start()
        results[row] = found.get()
        child.join()
        print(
            f"{row}: {results[row]['images_per_second']:,.0f} images/s, peak "
            f"{results[row]['peak_mebibytes']:,.0f} MiB ({results[row]['images_in_set']:,} images)",
            flush=True,
        )
    if arguments.json:
        content = {
            "command": f"python benchmarks/data.py --name={arguments.name}",
            "batch_size": BATCH_SIZE,
            "results": results,
            "hardware": hardware(),
            "versions": versions(),
        }
        arguments.json.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
