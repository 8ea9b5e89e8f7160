"""The curve of quality against minutes: its table, its picture, its minutes."""

import json

import pytest
import quality
from classifiers import training_minutes
from PIL import Image
from run_support import ROOT

pytestmark = pytest.mark.nightly

RESULTS = ROOT / "benchmarks" / "results"


def test_the_committed_table_is_made_from_the_committed_numbers():
    content = json.loads((RESULTS / "quality.json").read_text())
    assert (RESULTS / "quality.md").read_text() == quality.page(content)


def _scores(no_sub: float) -> dict:
    names = {"no_sub": no_sub, "cdm": 0.07, "axion": 0.15}
    return {name: {"ratio_p50": value, "ratio_p90": 2 * value} for name, value in names.items()}


def test_a_line_holds_minutes_step_and_medians():
    row = {"minutes": 12.6, "step": 3000, "scores": _scores(0.0312)}
    assert quality.line_of(row) == "| 13 | 3,000 | 0.031 | 0.062 | 0.070 | 0.150 |"
    assert quality.line_of({"scores": _scores(0.0)}).startswith("| real |  | 0.000 |")


def test_each_config_has_a_panel(tmp_path):
    rows = [{"minutes": 5.0 * n, "step": n, "scores": _scores(0.1 / n)} for n in (1, 2, 3)]
    content = {name: {"rows": rows, "real": _scores(0.0)} for name in ("cpu_fast", "unet_fast")}
    sizes = []
    for number in (1, 2):
        part = dict(list(content.items())[:number])
        quality.draw(part, tmp_path / "picture.png")
        with Image.open(tmp_path / "picture.png") as picture:
            sizes.append(picture.size)
    assert sizes[1][0] == 2 * sizes[0][0]


def test_minutes_are_those_of_the_steps_up_to_one(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"config": {"train": {"batch_size": 30}}}))
    lines = [{"step": 60, "images_per_second": 30.0}, {"step": 120, "images_per_second": 15.0}]
    (tmp_path / "metrics.jsonl").write_text("\n".join(map(json.dumps, lines)))
    assert training_minutes(tmp_path) == pytest.approx(3.0)
    assert training_minutes(tmp_path, last=60) == pytest.approx(1.0)
    assert training_minutes(tmp_path, last=119) == pytest.approx(1.0)
