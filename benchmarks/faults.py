"""Is work ever lost? Commands are killed, their files damaged, their disks filled.

    python benchmarks/faults.py [--short] [--seed N] [--only NAME ...] [--kind KIND ...]
        [--tree DIR] [--scratch DIR] [--jobs N] [--minutes M] [--name NAME] [--write]

tries some 470 cases: signals at random moments of every mode, damaged checkpoints, JSON, caches
and sets, full, read-only and vanishing disks, odd names, two commands at once, and bad inputs.
Each case decides by itself. It *survived* if the command ended as documented, in a few lines
without a traceback, and the same command then gives the same bits as an undisturbed one, or is
refused in one line. Otherwise it was *lost*: wrong bits, lost work, a process that hangs, a wrong
exit status, a *traceback*, or something *half-written* that looks finished. The exit status is 1 if
one was lost.

`--only NAME --seed N` repeats a case. `--scratch DIR` keeps what a lost one wrote in
`DIR/cases/NAME`, and the undisturbed runs for the next time. `--tree` tries the lensjax of another
checkout. The table of a whole run goes to `faults.md` and `faults.json` among the results (`--name
before`: `faults_before`), and `--write` puts a summary of both into docs/numbers.md.
"""

import argparse
import concurrent.futures
import datetime
import json
import math
import pathlib
import shutil
import subprocess
import sys
import tempfile
import time
import traceback
import zlib
from collections.abc import Sequence
from typing import Any

import speed_table
from campaign import damage, disk, inputs, judge, kills, together
from campaign.lab import Lab
from campaign.trial import Case, Trial
from campaign.world import World

ROOT = pathlib.Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
PROGRAMS = ROOT / ".pytest_cache" / "campaign_programs"
_PARTS = (kills, together, disk, damage, inputs)


def all_cases() -> list[Case]:
    """The cases of the campaign by kind."""
    return [case for part in _PARTS for case in part.cases()]


def shuffled(cases: Sequence[Case]) -> list[Case]:
    """The cases in an order that does not depend on their kind, the same each time."""
    return sorted(cases, key=lambda case: zlib.crc32(case.name.encode()))


def try_case(world: World, case: Case, seed: int) -> dict[str, Any]:
    """Tries a case and returns its row of the result."""
    trial = Trial(world, case.name, seed)
    begun = time.monotonic()
    try:
        case.action(trial)
    except Exception as error:  # a fault of the case, which must not end the campaign
        trial.lost(f"the case itself failed: {error!r}")
        trial.errors = traceback.format_exc(limit=-3)[-600:]
    if not trial.problems:
        shutil.rmtree(trial.folder, ignore_errors=True)

    def without_folders(text: str) -> str:
        return text.replace(f"{world.lab.scratch}/", "").replace(f"{world.lab.tree}/", "")

    return {
        "name": case.name,
        "kind": case.kind,
        "mode": case.mode,
        "did": without_folders("; ".join(trial.did)),
        "problems": [
            {"kind": problem.kind, "text": without_folders(problem.text)}
            for problem in trial.problems
        ],
        "stderr": without_folders(trial.errors) if trial.problems else "",
        "seconds": round(time.monotonic() - begun, 1),
    }


def counts_of(rows: Sequence[dict[str, Any]]) -> dict[str, int]:
    """How many cases of some rows were tried, survived, and were lost in which way."""
    kinds = [{problem["kind"] for problem in row["problems"]} for row in rows]
    return {
        "tried": len(rows),
        "survived": sum(not kind for kind in kinds),
        "lost": sum(bool(kind) for kind in kinds),
        "tracebacks": sum(judge.TRACEBACK in kind for kind in kinds),
        "half-written": sum(judge.HALF in kind for kind in kinds),
    }


def _line(cells: Sequence[object]) -> str:
    return f"| {' | '.join(str(cell).replace('|', chr(92) + '|') for cell in cells)} |"


def table(result: dict[str, Any]) -> str:
    """The results as Markdown: a row for each kind and mode, then each lost case."""
    rows = result["cases"]
    total = counts_of(rows)
    lines = [
        "# Is work ever lost?",
        "",
        f"`{result['command']}` with seed {result['seed']}: {total['survived']} of "
        f"{total['tried']} faults survived, {total['lost']} lost, {total['tracebacks']} with a "
        f"traceback, {total['half-written']} half-written; {result['seconds'] / 60:.0f} minutes "
        f"on {result['hardware'].get('cpu_count', 'some')} cores.",
        "",
        _line(["fault", "mode", *total]),
        _line(["---", "---", *["--:"] * len(total)]),
    ]
    for kind, mode in dict.fromkeys((row["kind"], row["mode"]) for row in rows):
        part = [row for row in rows if (row["kind"], row["mode"]) == (kind, mode)]
        lines.append(_line([kind, mode, *counts_of(part).values()]))
    lines.append(_line(["**all**", "", *total.values()]))
    lost = [row for row in rows if row["problems"]]
    if lost:
        lines += ["", "## Lost", "", _line(["case", "what was done", "what was seen"])]
        lines.append(_line(["---"] * 3))
    for row in lost:
        seen = "; ".join(f"{problem['kind']}: {problem['text']}" for problem in row["problems"])
        lines.append(_line([row["name"], row["did"], " ".join(seen[:400].split())]))
    return "\n".join(lines) + "\n"


def summary(before: dict[str, Any], after: dict[str, Any]) -> str:
    """What was lost of each kind of fault in two campaigns, as Markdown."""
    sides = [before["cases"], after["cases"]]
    names = ("tried", "lost", "tracebacks", "half-written")
    lines = [
        _line(["fault", "tried", *(f"{name}, before / now" for name in names[1:])]),
        _line(["---", *["--:"] * len(names)]),
    ]
    for kind in (*dict.fromkeys(row["kind"] for row in sides[1]), None):
        counts = [counts_of([row for row in rows if kind in (None, row["kind"])]) for rows in sides]
        cells = [" / ".join(str(count[name]) for count in counts) for name in names[1:]]
        tried = counts[1]["tried"] if kind else f"**{counts[1]['tried']}**"
        lines.append(_line([kind or "**all**", tried, *cells]))
    return "\n".join(lines) + "\n"


def _write_summary() -> None:
    results = [
        json.loads((RESULTS / f"{name}.json").read_text()) for name in ("faults_before", "faults")
    ]
    page = speed_table.PAGE
    content = summary(*results)
    print(content, end="")
    page.write_text(speed_table.written_into(page.read_text(), content, "faults"))


def _chosen(options: argparse.Namespace) -> list[Case]:
    cases = all_cases()
    names, kinds = {case.name for case in cases}, {case.kind for case in cases}
    for got, allowed in ((options.only, names), (options.kind, kinds)):
        unknown = sorted(set(got) - allowed)
        if unknown:
            raise SystemExit(f"got {unknown[0]!r}; allowed: {', '.join(sorted(allowed))}")
    if options.only or options.kind:
        return [case for case in cases if case.name in options.only or case.kind in options.kind]
    return [case for case in cases if case.short or not options.short]


def _report(row: dict[str, Any]) -> None:
    kinds = ", ".join(sorted({problem["kind"] for problem in row["problems"]})) or "survived"
    print(f"{row['name']:32} {row['seconds']:6.1f} s  {kinds}", flush=True)
    for problem in row["problems"]:
        print(f"    {problem['text'][:300]}", flush=True)


def run(
    options: argparse.Namespace, scratch: pathlib.Path, cases: Sequence[Case]
) -> list[dict[str, Any]]:
    """Prepares a world in a scratch folder and tries cases in it, some at a time."""
    programs = scratch / "cache" / "programs"
    if PROGRAMS.exists():
        shutil.copytree(PROGRAMS, programs, dirs_exist_ok=True)
    lab = Lab(options.tree.resolve(), scratch)
    begun = time.monotonic()
    end = begun + 60 * options.minutes
    try:
        world = World(lab)
        world.load_or_prepare()
        print(f"undisturbed runs took {time.monotonic() - begun:.0f} s", flush=True)
        shutil.copytree(programs, PROGRAMS, dirs_exist_ok=True)
        rows = []

        def attempt(case: Case) -> None:
            if time.monotonic() < end:
                rows.append(try_case(world, case, options.seed))
                _report(rows[-1])

        with concurrent.futures.ThreadPoolExecutor(options.jobs) as pool:
            list(pool.map(attempt, shuffled(cases)))
    finally:
        lab.close()
    order = {case.name: place for place, case in enumerate(cases)}
    return sorted(rows, key=lambda row: order[row["name"]])


def _about(tree: pathlib.Path) -> dict[str, Any]:
    """Versions and machine, and the commit that was tried."""
    from lensjax.run import provenance

    revision = subprocess.run(
        ["git", "-C", tree, "rev-parse", "HEAD"], capture_output=True, text=True
    )
    return {
        "date": datetime.date.today().isoformat(),
        "versions": provenance.versions(),
        "hardware": provenance.hardware(),
        "git_revision": revision.stdout.strip(),
    }


def main() -> int:
    """Tries the cases; writes the table unless only some were chosen by hand."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--short", action="store_true", help="a part of the cases: 3 minutes")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="+", default=(), metavar="NAME", help="writes no table")
    parser.add_argument("--kind", nargs="+", default=(), metavar="KIND", help="writes no table")
    parser.add_argument("--tree", type=pathlib.Path, default=ROOT, help="the checkout to try")
    parser.add_argument("--scratch", type=pathlib.Path, help="kept, and used again")
    parser.add_argument(
        "--minutes", type=float, default=math.inf, help="no case begins later; the order is mixed"
    )
    parser.add_argument("--jobs", type=int, default=2, help="cases at a time")
    parser.add_argument("--name", default="", help="of the result: faults_NAME")
    parser.add_argument("--write", action="store_true", help="only the table of docs/numbers.md")
    parser.add_argument("--list", action="store_true", help="prints the cases alone")
    options = parser.parse_args()
    if options.write:
        _write_summary()
        return 0
    cases = _chosen(options)
    if options.list:
        print("\n".join(f"{case.name:36} {case.kind:20} {case.mode}" for case in cases))
        return 0
    begun = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="lensjax_faults_") as temporary:
        scratch = (options.scratch or pathlib.Path(temporary)).resolve()
        rows = run(options, scratch, cases)
    print(f"{counts_of(rows)} in {time.monotonic() - begun:.0f} s")
    if not (options.only or options.kind or options.short):
        words = f" --name {options.name}" if options.name else ""
        result = {
            "command": f"python benchmarks/faults.py{words}",
            "seed": options.seed,
            **_about(options.tree),
            "seconds": round(time.monotonic() - begun),
            "counts": counts_of(rows),
            "cases": rows,
        }
        stem = f"faults_{options.name}" if options.name else "faults"
        (RESULTS / f"{stem}.json").write_text(json.dumps(result, indent=1) + "\n")
        (RESULTS / f"{stem}.md").write_text(table(result))
    return int(any(row["problems"] for row in rows))


if __name__ == "__main__":
    sys.exit(main())
