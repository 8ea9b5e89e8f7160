"""Where the time of the tests goes, by cause and by file.

    python benchmarks/time_of_tests.py --name=NAME [--cold] [PYTEST_ARGUMENT ...]

runs the tests as `launch/test.sh` does and stores the seconds of each file and cause under a name
in `benchmarks/results/time_of_tests.json`; `time_of_tests.md` shows all stored runs. `--cold`
removes the compiled programs first. The causes are those of `tests/support/time_causes.py`; the
seconds of the workers are added up, so that two workers have two seconds a second.
"""

import argparse
import collections
import datetime
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import time
from typing import Any

ROOT = pathlib.Path(__file__).resolve().parent.parent
RESULT = ROOT / "benchmarks" / "results" / "time_of_tests.json"
PROGRAMS = ROOT / ".pytest_cache" / "programs"
_LISTED = 40  # files in the table


def measure(arguments: list[str]) -> dict[str, Any]:
    """Runs the tests and reads what their workers wrote."""
    with tempfile.TemporaryDirectory() as folder:
        environment = os.environ | {
            "LENSJAX_TEST_TIMES": folder,
            "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests" / "support")]),
        }
        command = [sys.executable, "-m", "pytest", "-n", "2", "--dist", "loadfile"]
        command += ["--no-loadscope-reorder"]
        begun = time.perf_counter()
        done = subprocess.run(
            [*command, "-p", "time_causes", *arguments],
            cwd=ROOT,
            env=environment,
            stdout=subprocess.PIPE,
            text=True,
        )
        clock = time.perf_counter() - begun
        files: dict[str, dict[str, float]] = collections.defaultdict(
            lambda: collections.defaultdict(float)
        )
        for path in pathlib.Path(folder).glob("*.json"):
            for name, causes in json.loads(path.read_text(encoding="utf-8")).items():
                for cause, seconds in causes.items():
                    files[name][cause] += seconds
    print(done.stdout[-2000:])
    outcome = {word: int(num) for num, word in re.findall(r"(\d+) (passed|failed)", done.stdout)}
    return {"clock_s": round(clock, 1), "tests": outcome, "files": _rounded(files)}


def _rounded(files: dict[str, dict[str, float]]) -> dict[str, dict[str, float]]:
    return {
        name: {cause: round(seconds, 1) for cause, seconds in sorted(causes.items())}
        for name, causes in sorted(files.items(), key=lambda item: -sum(item[1].values()))
    }


def _row(cells: list[Any]) -> str:
    shown = [f"{cell:.0f}" if isinstance(cell, float) else str(cell) for cell in cells]
    return f"| {' | '.join(shown)} |"


def table(runs: dict[str, dict[str, Any]]) -> str:
    """All stored runs as Markdown: seconds by cause, and by file and cause."""
    lines = ["# Where the time of the tests goes", ""]
    lines += [
        "Seconds, added up over two workers; `python benchmarks/time_of_tests.py` measures.",
        "",
    ]
    causes = sorted(
        {cause for run in runs.values() for file in run["files"].values() for cause in file}
    )
    lines += [_row(["run", "by the clock", "passed", *causes]), _row(["---"] * (3 + len(causes)))]
    for name, run in runs.items():
        files = run["files"].values()
        sums = [sum(file.get(cause, 0.0) for file in files) if files else "" for cause in causes]
        lines.append(_row([name, float(run["clock_s"]), run["tests"].get("passed", 0), *sums]))
    for name, run in runs.items():
        if not run["files"]:
            continue
        lines += ["", f"## {name}", "", _row(["file", "all", *causes])]
        lines.append(_row(["---"] * (2 + len(causes))))
        for file, seconds in list(run["files"].items())[:_LISTED]:
            cells = [seconds.get(cause, 0.0) for cause in causes]
            lines.append(_row([file, float(sum(cells)), *cells]))
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measures one run, stores it and writes the tables."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--name", required=True, help="of the run in the tables")
    parser.add_argument("--cold", action="store_true", help="remove the compiled programs first")
    options, arguments = parser.parse_known_args()
    if options.cold:
        shutil.rmtree(PROGRAMS, ignore_errors=True)
    runs = json.loads(RESULT.read_text(encoding="utf-8")) if RESULT.exists() else {}
    date = datetime.date.today().isoformat()
    runs[options.name] = {"date": date} | measure(arguments)
    RESULT.write_text(json.dumps(runs, indent=1) + "\n", encoding="utf-8")
    RESULT.with_suffix(".md").write_text(table(runs), encoding="utf-8")


if __name__ == "__main__":
    main()
