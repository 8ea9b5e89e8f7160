"""How long a folder of image files takes to become a data set, and how much memory.

`python benchmarks/folder.py [--num_files N] [--json PATH]` writes files as they are published
(.npy, 64x64 float64, a third of them object arrays `[image, axion mass]`) into a temporary folder
below `$TMPDIR`, runs `--mode=build_data` on them as a user would, and once more when the set is
there. All that takes 50 KB of disk a file.
"""

import argparse
import importlib.metadata
import json
import os
import pathlib
import platform
import re
import subprocess
import sys
import tempfile
import time
from typing import Any

import numpy as np

ROOT = pathlib.Path(__file__).resolve().parent.parent
CLASSES = ("axion", "cdm", "no_sub")
SIDE = 64
BLOCK = 500  # images drawn at once


def write_files(root: pathlib.Path, num_files: int) -> None:
    """Writes files in equal shares for the classes, axion as object arrays."""
    rng = np.random.default_rng(0)
    for label, name in enumerate(CLASSES):
        (root / name).mkdir(parents=True)
        count = (num_files + len(CLASSES) - 1 - label) // len(CLASSES)
        for start in range(0, count, BLOCK):
            images = rng.gamma(2.0, 0.5, (min(BLOCK, count - start), SIDE, SIDE))
            for place, image in enumerate(images, start):
                path = root / name / f"sim_{place:06d}.npy"
                if name == "axion":
                    content = np.empty(2, object)
                    content[:] = image, 10.0 ** rng.uniform(-24, -22)
                    np.save(path, content, allow_pickle=True)
                else:
                    np.save(path, image)


def run(folder: pathlib.Path, sets: pathlib.Path) -> dict[str, Any]:
    """Builds the set, or finds it, in a process of its own.

    Returns:
      `seconds` on the clock, `processor_seconds` and `peak_memory_mib` of the process.
    """
    command = [sys.executable, "-m", "lensjax.main", "--config=configs/smoke.py"]
    command += ["--mode=build_data", "--config.data.name=deeplense/folder"]
    command += [f"--config.data.folder={folder}", f"--config.data.directory={sets}"]
    start = time.perf_counter()
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - start
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(f"the build ended with {process.returncode}; its messages are above")
    return {
        "seconds": round(seconds, 1),
        "processor_seconds": round(usage.ru_utime + usage.ru_stime, 1),
        "peak_memory_mib": round(usage.ru_maxrss / 1024),
    }


def _processor() -> str:
    found = re.search(
        r"model name\s*: (.*)", pathlib.Path("/proc/cpuinfo").read_text(encoding="utf-8")
    )
    return found[1] if found else platform.processor()


def measure(num_files: int) -> dict[str, Any]:
    """Everything that is printed."""
    with tempfile.TemporaryDirectory(prefix="lensjax_folder_") as temporary:
        folder, sets = pathlib.Path(temporary, "files"), pathlib.Path(temporary, "sets")
        write_files(folder, num_files)
        before = os.getloadavg()[0]
        return {
            "num_files": num_files,
            "pixels": [SIDE, SIDE],
            "dtype": "float64",
            "first_build": run(folder, sets),
            "known_again": run(folder, sets),
            "processor": _processor(),
            "cpu_cores": os.cpu_count(),
            "load_average_before": round(before, 2),
            "versions": {
                "python": platform.python_version(),
                **{
                    package: importlib.metadata.version(package)
                    for package in ("numpy", "tensorflow-datasets", "array-record")
                },
            },
        }


def main() -> None:
    """Measures, prints, and writes a file if asked."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--num_files", type=int, default=90_000, help="at least 6")
    parser.add_argument("--json", type=pathlib.Path, help="file for the result")
    arguments = parser.parse_args()
    result = measure(arguments.num_files)
    print(f"{result['num_files']:,} files on {result['cpu_cores']} cores ({result['processor']})")
    for name in ("first_build", "known_again"):
        row = result[name]
        print(
            f"{name:12}{row['seconds']:>8} s on the clock{row['processor_seconds']:>8} s of "
            f"processor{row['peak_memory_mib']:>7} MiB at most"
        )
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
