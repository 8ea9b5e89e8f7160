"""Decides how a case ended: from exit status and messages, and from what lies on disk."""

import csv
import hashlib
import json
import pathlib
import re
from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

import numpy as np

from campaign.lab import Ended

LOST, TRACEBACK, HALF = "lost", "traceback", "half-written"
REFUSED, STOPPED, INTERRUPTED = 2, 75, 130
_MOST_LINES = 12  # of a refusal that lists fields
_TRACES = (
    "Traceback (most recent call last)",
    "Exception ignored in",
    "Exception in thread",
    "Fatal Python error",
    "terminate called",
    "Segmentation fault",
    "*** Check failure",
)
_ERROR_NAME = re.compile(r"^[\w.]*(?:Error|Exception|Interrupt)\b.*$", re.MULTILINE)
_LOG_LINE = re.compile(r"^\d\d:\d\d:\d\d ")
# Files of a set, an export or a run that name a time, a machine or a picture of it.
_CHANGING = (".png", ".lock", ".html", "provenance.json")


class Problem(NamedTuple):
    """Why a case did not survive.

    Attributes:
      kind: `lost`, `traceback` or `half-written`.
      text: what was seen.
    """

    kind: str
    text: str


def message_lines(errors: str) -> list[str]:
    """The lines of stderr that are not of the log."""
    return [line for line in errors.splitlines() if line.strip() and not _LOG_LINE.match(line)]


def judge_end(ended: Ended, allowed: Collection[int]) -> list[Problem]:
    """What is wrong with the end of a process.

    Args:
      ended: the process.
      allowed: exit statuses that it may have.
    """
    problems = []
    trace = next((mark for mark in _TRACES if mark in ended.errors + ended.output), None)
    if trace:
        named = _ERROR_NAME.findall(ended.errors + ended.output)
        problems.append(Problem(TRACEBACK, f"{trace} ... {named[-1] if named else ''}"[:300]))
    if ended.status is None:
        problems.append(Problem(LOST, f"hung; killed after {ended.seconds:.0f} s"))
    elif ended.status not in allowed:
        words = ", ".join(map(str, sorted(allowed)))
        problems.append(Problem(LOST, f"exit status {ended.status}; allowed: {words}"))
    lines = message_lines(ended.errors)
    if ended.status in (REFUSED, STOPPED, INTERRUPTED) and not trace:
        if not ended.errors.strip():
            problems.append(Problem(LOST, f"ended with {ended.status} without a word"))
        elif len(lines) > _MOST_LINES:
            problems.append(Problem(LOST, f"{len(lines)} lines on stderr: {lines[0][:100]}"))
    return problems


def read_json(path: pathlib.Path) -> Any:
    """The content of a JSON file; None where it cannot be read."""
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError):
        return None


def digest(path: pathlib.Path) -> str:
    """A hash of a file's bytes; empty where it cannot be read."""
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()[:16]
    except OSError:
        return ""


def tree_digest(folder: pathlib.Path) -> dict[str, str]:
    """Hashes of all files below a folder by their paths, but those that change from run to run."""
    result = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_file() and not name.endswith(_CHANGING) and "/." not in f"/{name}":
            result[name] = digest(path)
    return result


def _find(content: Any, name: str) -> Any:
    """The value of a key anywhere in nested dicts; None without one."""
    if isinstance(content, dict):
        if name in content:
            return content[name]
        for value in content.values():
            if (found := _find(value, name)) is not None:
                return found
    return None


def state_of(workdir: pathlib.Path, step: int) -> dict[str, int] | None:
    """The checksums of a checkpoint's arrays; None where it has none."""
    for path in (workdir / "checkpoints" / str(step)).rglob("metadata"):
        arrays = _find(read_json(path), "arrays")
        if isinstance(arrays, dict):
            return {name: leaf["crc32"] for name, leaf in arrays.items()}
    return None


def losses_of(workdir: pathlib.Path) -> list[tuple[int, float]]:
    """Step and loss of each line of the metrics; a line that is no JSON counts as step -1."""
    result = []
    try:
        text = (workdir / "metrics.jsonl").read_text(errors="replace")
    except OSError:
        return []
    for line in text.splitlines():
        try:
            values = json.loads(line)
            result.append((values["step"], values["loss"]))
        except (ValueError, KeyError, TypeError):
            result.append((-1, 0.0))
    return result


def judge_training(
    workdir: pathlib.Path,
    step: int,
    state: Mapping[str, int],
    losses: list[tuple[int, float]],
    first_line: int = 0,
) -> list[Problem]:
    """Compares a finished training with an undisturbed one.

    Args:
      workdir: the run's folder.
      step: the last.
      state: the checksums that its last checkpoint must have.
      losses: that its metrics must have.
      first_line: lines of this step and earlier ones do not count.
    """
    found = state_of(workdir, step)
    if found is None:
        return [Problem(LOST, f"the training ended with 0, and there is no checkpoint {step}")]
    problems = []
    if found != state:
        count = sum(found.get(name) != value for name, value in state.items())
        problems.append(Problem(LOST, f"wrong bits: {count} of {len(state)} arrays differ"))
    own = [pair for pair in losses_of(workdir) if first_line == 0 or pair[0] > first_line]
    if own != losses:
        problems.append(Problem(LOST, f"metrics.jsonl: {len(own)} lines, expected {len(losses)}"))
    return problems


def judge_generated(
    workdir: pathlib.Path, images: Mapping[tuple[int, int], str], *, needed: bool
) -> list[Problem]:
    """Whether `generated/` is what its `meta.json` says.

    Args:
      workdir: the run's folder.
      images: hashes of the right `images.npy` by checkpoint and seed.
      needed: whether there must be one.
    """
    folder = workdir / "generated"
    meta = read_json(folder / "meta.json")
    if meta is None:
        if (folder / "meta.json").exists():
            return [Problem(HALF, "generated/meta.json is there and cannot be read")]
        return [Problem(LOST, "there is no generated/meta.json")] if needed else []
    key = (meta.get("checkpoint_step"), meta.get("seed"))
    if images.get(key) != digest(folder / "images.npy"):
        return [Problem(HALF, f"generated/: not the images of checkpoint, seed {key}")]
    try:
        count = len(np.load(folder / "labels.npy"))
    except (OSError, ValueError) as error:
        return [Problem(HALF, f"generated/labels.npy: {error}")]
    if count != meta.get("num_images"):
        return [Problem(HALF, f"generated/: {count} labels for {meta.get('num_images')} images")]
    return []


def judge_evaluation(
    workdir: pathlib.Path, measures: Mapping[int, str], *, needed: bool
) -> list[Problem]:
    """Whether the numbers of an evaluation are right, and its report is about them.

    Args:
      workdir: the run's folder.
      measures: the right numbers as text, by checkpoint.
      needed: whether there must be an evaluation.
    """
    folder = workdir / "evaluation"
    content = read_json(folder / "metrics.json")
    if content is None:
        if (folder / "metrics.json").exists():
            return [Problem(HALF, "evaluation/metrics.json is there and cannot be read")]
        if (folder / "report.html").exists():
            return [Problem(HALF, "evaluation/report.html without metrics.json")]
        return [Problem(LOST, "there is no evaluation/metrics.json")] if needed else []
    origin = content["protocol"]["generated"]
    if measures.get(origin["checkpoint_step"]) != measures_text(content):
        return [Problem(LOST, f"wrong numbers for checkpoint {origin['checkpoint_step']}")]
    report = folder / "report.html"
    text = report.read_text(errors="replace") if report.exists() else ""
    if origin["weights_sha256"] not in text or not text.rstrip().endswith("</html>"):
        return [Problem(HALF, "evaluation/report.html is not about the numbers in metrics.json")]
    return []


def measures_text(content: Mapping[str, Any]) -> str:
    """The numbers of an evaluation as text."""
    return json.dumps(content["measures"], sort_keys=True)


def judge_export(folder: pathlib.Path, files: Mapping[str, str], *, needed: bool) -> list[Problem]:
    """Whether an export that calls itself complete is.

    Args:
      folder: of the export.
      files: the right files and their hashes.
      needed: whether it must be complete.
    """
    record = read_json(folder / "export.json")
    complete = isinstance(record, dict) and record.get("complete") is True
    if not complete:
        return [Problem(LOST, "there is no complete export")] if needed else []
    own = export_files(folder)
    if own != dict(files):
        wrong = [name for name in files if own.get(name) != files[name]]
        more = [name for name in own if name not in files]
        text = f"a complete export with {len(wrong)} wrong or missing files, {len(more)} others"
        return [Problem(HALF, text)]
    return []


def export_files(folder: pathlib.Path) -> dict[str, str]:
    """The files of an export but its record, which names the machine."""
    files = tree_digest(folder)
    files.pop("export.json", None)
    return files


def judge_set(directory: pathlib.Path, files: Mapping[str, str], *, needed: bool) -> list[Problem]:
    """Whether the data sets below a folder, where they look finished, hold all examples.

    Args:
      directory: the folder of all sets.
      files: the right files of the set and their hashes, shards alone.
      needed: whether it must be there.
    """
    found = list(directory.rglob("dataset_info.json"))
    finished = [path for path in found if "incomplete" not in path.as_posix()]
    if not finished:
        return [Problem(LOST, "there is no data set")] if needed else []
    own = shards(finished[0].parent)
    if own != dict(files):
        return [Problem(HALF, f"a data set with shards {own}, expected {dict(files)}")]
    return []


def shards(folder: pathlib.Path) -> dict[str, str]:
    """The number of examples and a hash of the content of each file of a set.

    The fields of an example are written in another order by each process, so the bytes of each
    record are sorted.
    """
    from array_record.python.array_record_module import ArrayRecordReader

    result = {}
    for path in sorted(folder.glob("*array_record*")):
        try:
            reader = ArrayRecordReader(str(path))
            records = reader.read_all() if reader.num_records() else []
            reader.close()
        except (RuntimeError, ValueError) as error:
            result[path.name] = f"unreadable: {str(error)[:60]}"
            continue
        content = hashlib.sha256(b"".join(bytes(sorted(record)) for record in records))
        result[path.name] = f"{len(records)} examples {content.hexdigest()[:12]}"
    return result


def judge_table(path: pathlib.Path, rows: list[list[str]], *, needed: bool) -> list[Problem]:
    """Whether a table of classified images is whole.

    Args:
      path: the file.
      rows: the right ones.
      needed: whether it must be there.
    """
    own = table_rows(path)
    if own is None:
        return [Problem(LOST, f"there is no {path.name}")] if needed else []
    return [] if own == rows else [Problem(HALF, f"{path.name}: {len(own)} rows, or other ones")]


def table_rows(path: pathlib.Path) -> list[list[str]] | None:
    """The rows of a table; None where there is none."""
    try:
        with path.open(newline="") as file:
            return list(csv.reader(file))
    except OSError:
        return None
