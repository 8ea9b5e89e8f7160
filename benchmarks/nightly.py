"""Runs the long tests and writes what came out.

    ./launch/test.sh --nightly [PYTEST_ARGUMENT ...]

runs the tests with the mark `nightly` and writes `benchmarks/results/nightly.json`: the date, the
versions, each test with its outcome and seconds. The exit status is that of pytest.
"""

import datetime
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import xml.etree.ElementTree
from typing import Any

from lensjax.run import provenance

ROOT = pathlib.Path(__file__).resolve().parent.parent
RESULT = ROOT / "benchmarks" / "results" / "nightly.json"


def tests_of(report: pathlib.Path) -> dict[str, dict[str, Any]]:
    """Outcome and seconds of each test of a JUnit report, by the test's name."""
    tests = {}
    for case in xml.etree.ElementTree.parse(report).getroot().iter("testcase"):
        ends = {child.tag for child in case} & {"failure", "error", "skipped"}
        name = f"{case.get('classname')}::{case.get('name')}"
        outcome = next(iter(sorted(ends)), "passed")
        tests[name] = {"outcome": outcome, "seconds": round(float(case.get("time") or 0), 1)}
    return tests


def main() -> int:
    """Runs the tests and returns the exit status of pytest."""
    with tempfile.TemporaryDirectory() as folder:
        report = pathlib.Path(folder) / "report.xml"
        command = [sys.executable, "-m", "pytest", "-m", "nightly", "-n", "2", "--dist", "loadfile"]
        command += ["--no-loadscope-reorder", f"--junitxml={report}", *sys.argv[1:]]
        as_users = os.environ | {"XLA_FLAGS": ""}  # ordinary tests take what compiles faster
        done = subprocess.run(command, cwd=ROOT, env=as_users)
        tests = tests_of(report)
    outcomes = [test["outcome"] for test in tests.values()]
    result = {
        "date": datetime.date.today().isoformat(),
        "versions": provenance.versions(),
        "hardware": provenance.hardware(),
        "git_revision": provenance.git_revision(),
        "outcomes": {outcome: outcomes.count(outcome) for outcome in sorted(set(outcomes))},
        "tests": tests,
    }
    RESULT.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    return done.returncode


if __name__ == "__main__":
    sys.exit(main())
