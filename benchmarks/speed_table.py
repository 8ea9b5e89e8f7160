"""Prints the table of speeds of docs/numbers.md from the results of `train.py` and `sample.py`.

    python benchmarks/speed_table.py [--write]

`--write` puts it into that page between its two marks. What was not measured says so.
"""

import argparse
import pathlib
import re
from collections.abc import Callable
from typing import Any

from lensjax.run import workdir

ROOT = pathlib.Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
PAGE = ROOT / "docs" / "numbers.md"
MARK = "speed"  # the table stands between `<!-- speed -->` and `<!-- /speed -->`
MISSING = "not measured"
FRAMEWORKS = ("lensjax", "PyTorch")
# Platform, precision, title.
COLUMNS = (
    ("cpu", "float32", "CPU, float32"),
    ("gpu", "tf32", "GPU, TF32"),
    ("gpu", "bfloat16", "GPU, bfloat16"),
)
Case = dict[str, Any]


def read_cases(path: pathlib.Path) -> dict[tuple[str, str], Case]:
    """The cases of a file of results by platform and precision; the newest entry counts.

    Args:
      path: of `train.json` or `sample.json`; none where it is missing.
    """
    if not path.exists():
        return {}
    devices = workdir.read_json(path)["devices"]
    return {
        (entry["platform"], case["precision"]): case | {"device": device}
        for device, entry in devices.items()
        for case in entry["cases"]
    }


def _beside(form: str, value_of: Callable[[Case, str], float]) -> Callable[[Case], str]:
    return lambda case: " / ".join(format(value_of(case, name), form) for name in FRAMEWORKS)


def _ratio(case: Case) -> str:
    ratio = case["ratio"]
    return f"{ratio['median']:.2f} ({ratio['least']:.2f} to {ratio['most']:.2f})"


_SPEED = _beside(".3g", lambda case, name: case["images_per_second"][name])
_MFU = _beside(".0%", lambda case, name: case["mfu"][name])
_MEMORY = _beside(".2f", lambda case, name: case["memory"][name]["peak_bytes"] / 2**30)
_PRODUCT = _beside(",.0f", lambda case, name: case["product"]["rate"][name] / 1e9)
_COMPILE = _beside(".0f", lambda case, name: case["built"][name]["compile_seconds"])
_SECONDS = _beside(".3g", lambda case, name: case["median_seconds"][name])
# Title, of training, what stands in the cell.
ROWS: tuple[tuple[str, bool, Callable[[Case], str]], ...] = (
    ("measured on", True, lambda case: case["device"]),
    ("training: batch", True, lambda case: f"{case['batch_size']:,}"),
    ("images a second", True, _SPEED),
    ("the same as a ratio (least and most of pairs of rounds)", True, _ratio),
    ("MFU", True, _MFU),
    ("rate of plain matrix products, GFLOP/s", True, _PRODUCT),
    ("peak memory, GiB", True, _MEMORY),
    ("compile time, s", True, _COMPILE),
    (
        "sampling: images, network passes each",
        False,
        lambda case: f"{case['num_images']:,}, {case['passes']}",
    ),
    ("seconds for them", False, _SECONDS),
    ("images a second", False, _SPEED),
    ("the same as a ratio", False, _ratio),
    ("MFU", False, _MFU),
    ("peak memory, GiB", False, _MEMORY),
    ("compile time, s", False, _COMPILE),
)


def table(folder: pathlib.Path = RESULTS) -> str:
    """The Markdown table.

    Args:
      folder: with `train.json` and `sample.json`, or without.
    """
    titles = " | ".join(title for _, _, title in COLUMNS)
    lines = [f"| NanoDiT, lensjax / PyTorch | {titles} |", "|---|" + "---|" * len(COLUMNS)]
    trained, drawn = (read_cases(folder / name) for name in ("train.json", "sample.json"))
    for title, of_training, cell in ROWS:
        cases = trained if of_training else drawn
        found = (cases.get((platform, precision)) for platform, precision, _ in COLUMNS)
        cells = " | ".join(MISSING if case is None else cell(case) for case in found)
        lines.append(f"| {title} | {cells} |")
    return "\n".join(lines) + "\n"


def _marked(mark: str) -> re.Pattern:
    return re.compile(rf"(<!-- {mark} -->\n)(.*?)(<!-- /{mark} -->)", re.DOTALL)


def table_in(text: str, mark: str = MARK) -> str:
    """The table that stands between the marks of a text.

    Raises:
      ValueError: where the marks are not there exactly once.
    """
    tables = _marked(mark).findall(text)
    if len(tables) != 1:
        raise ValueError(f"{len(tables)} pairs of the mark {mark}; allowed: one")
    return tables[0][1]


def written_into(text: str, content: str, mark: str = MARK) -> str:
    """A text with another table between its marks."""
    table_in(text, mark)
    return _marked(mark).sub(lambda parts: f"{parts[1]}{content}{parts[3]}", text)


def main() -> None:
    """Prints the table, and writes it where that is asked for."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--write", action="store_true", help="into docs/numbers.md")
    parser.add_argument("--results", type=pathlib.Path, default=RESULTS)
    options = parser.parse_args()
    content = table(options.results)
    print(content, end="")
    if options.write:
        PAGE.write_text(written_into(PAGE.read_text(encoding="utf-8"), content))


if __name__ == "__main__":
    main()
