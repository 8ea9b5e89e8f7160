"""The table of docs/numbers.md is what the results print; what was not measured says so."""

import json
from typing import Any

import pytest
import speed_table

pytestmark = pytest.mark.nightly

PAGE = speed_table.PAGE.read_text()


def case(precision: str, **more: Any) -> dict[str, Any]:
    return {
        "precision": precision,
        "images_per_second": {"lensjax": 300.0, "PyTorch": 200.0},
        "median_seconds": {"lensjax": 3.333, "PyTorch": 5.0},
        "ratio": {"median": 1.5, "least": 1.4, "most": 1.75},
        "mfu": {"lensjax": 0.6, "PyTorch": 0.4},
        "product": {"rate": {"lensjax": 458e9, "PyTorch": 1216e9}},
        "memory": {name: {"peak_bytes": 3 * 2**30} for name in ("lensjax", "PyTorch")},
        "built": {name: {"compile_seconds": 12.0} for name in ("lensjax", "PyTorch")},
        **more,
    }


def entry(platform: str, *cases: dict[str, Any]) -> dict[str, Any]:
    return {"platform": platform, "cases": list(cases)}


def test_the_page_holds_what_is_printed():
    assert speed_table.table_in(PAGE) == speed_table.table()


def test_nothing_measured_is_said_in_every_cell(tmp_path):
    lines = speed_table.table(tmp_path).splitlines()[2:]
    for line in lines:
        assert [cell.strip() for cell in line.split("|")[2:-1]] == ["not measured"] * 3


def test_each_case_stands_in_its_column(tmp_path):
    trained = {
        "a GPU": entry("gpu", case("tf32", batch_size=160), case("bfloat16", batch_size=160)),
        "an old CPU": entry("cpu", case("float32", batch_size=4)),
        "a CPU": entry("cpu", case("float32", batch_size=4)),
    }
    drawn = {"a GPU": entry("gpu", case("bfloat16", num_images=1000, passes=20))}
    (tmp_path / "train.json").write_text(json.dumps({"devices": trained}))
    (tmp_path / "sample.json").write_text(json.dumps({"devices": drawn}))
    lines = speed_table.table(tmp_path).splitlines()
    assert "| measured on | a CPU | a GPU | a GPU |" in lines
    assert "| training: batch | 4 | 160 | 160 |" in lines
    speed = "300 / 200"
    assert f"| images a second | {speed} | {speed} | {speed} |" in lines
    assert f"| images a second | not measured | not measured | {speed} |" in lines
    assert "| seconds for them | not measured | not measured | 3.33 / 5 |" in lines
    assert "| peak memory, GiB | not measured | not measured | 3.00 / 3.00 |" in lines
    assert "| the same as a ratio | not measured | not measured | 1.50 (1.40 to 1.75) |" in lines
    assert sum("458 / 1,216 | 458 / 1,216 | 458 / 1,216 |" in line for line in lines) == 1
    assert "| MFU | 60% / 40% | 60% / 40% | 60% / 40% |" in lines


def test_the_table_is_written_between_the_marks():
    text = "before\n<!-- speed -->\nold\n<!-- /speed -->\nbehind\n"
    written = speed_table.written_into(text, "| \\1 new |\n")
    assert written == text.replace("old", "| \\1 new |")
    assert speed_table.table_in(written) == "| \\1 new |\n"
    with pytest.raises(ValueError, match="0 pairs"):
        speed_table.written_into("no marks", "")
