"""Numbers as JSON, as cells, and as what is printed."""

import json
import math
from typing import Any

import numpy as np
import pytest

from lensjax.evaluation import tables
from lensjax.evaluation.goals import Check
from lensjax.evaluation.verdict import Verdict


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (math.nan, None),
        (math.inf, None),
        (np.float32(0.5), 0.5),
        (np.int64(3), 3),
        (np.bool_(True), True),
        ((1, (2.0, None)), [1, [2.0, None]]),
        (np.arange(3), [0, 1, 2]),
        ({"a": {"b": np.float64("nan")}, 1: "text"}, {"a": {"b": None}, "1": "text"}),
    ],
)
def test_everything_becomes_json(value, expected):
    assert tables.plain(value) == expected
    json.dumps(tables.plain(value), allow_nan=False)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, ""),
        (math.nan, ""),
        (True, "yes"),
        (0.0312345, "0.0312"),
        (2.5e-8, "2.5e-08"),
        (123456.7, "123,457"),
        (64, "64"),
        ("no power", "no power"),
        (np.float64(0.25), "0.25"),
    ],
)
def test_cells(value, text):
    assert tables.number(value) == text


ROWS: dict[str, Any] = {
    "generated": {"no_sub": {"p": 0.5, "deep": {"z": 1.0}, "list": [1]}, "cdm": {"p": 0.1}},
    "real": {"no_sub": {"p": 0.9, "more": 2}},
}


def test_a_table_for_each_group_with_a_line_for_each_row():
    no_sub, cdm = tables.tables_of(ROWS)
    assert (no_sub.title, cdm.title) == ("no_sub", "cdm")
    assert list(no_sub.columns) == ["images", "p", "deep z", "more"]
    assert [line["cells"] for line in no_sub.rows] == [
        ["generated", 0.5, 1.0, None],
        ["real", 0.9, None, 2],
    ]
    assert [line["cells"] for line in cdm.rows] == [["generated", 0.1]]
    assert no_sub.rows[0]["kind"] == "generated"


SCORES = {
    "no_sub": {
        "num_images": 64,
        "ratio_p50": 0.0311,
        "ratio_p90": 0.0391,
        "ks_x": 0.161,
        "ks_y": 0.09,
        "ks_limit": 0.214,
        "faint_rms_percent": 0.0181,
    },
    "cdm": {"num_images": 64, "ratio_p50": 0.0681, "ratio_p90": 0.075},
}
RESULTS: dict[str, Any] = {
    "smooth_fit": {"status": "measured", "rows": {"generated": SCORES, "real": SCORES}},
    "inception": {"status": "not measured", "reason": "no weights; get them"},
    "twins": {"status": "not measured", "reason": "not asked for"},
    "copies": {"status": "not measured", "reason": "not asked for"},
}
CHECKS = [
    Check("first", 0.0311, 0.0076, "missed", "words", p=0.0),
    Check("second", 0.5, 0.001, "met", "words", "at least", p=0.5),
    Check("third", math.nan, math.nan, "no power", "words"),
]


def test_what_is_printed():
    verdict = Verdict(True, ("PASSED as pictures of lenses.", "1 of 2 goals are missed."))
    lines = tables.text(RESULTS, "generated", CHECKS, verdict).splitlines()
    rows = [line.split() for line in lines]
    expected = ["no_sub", "generated", "0.031", "0.039", "0.16", "0.09", "0.018", "%"]
    assert expected in rows
    assert ["cdm", "real", "0.068", "0.075"] in rows
    assert ["first", "0.0311", "at", "most", "0.0076", "missed"] in rows
    assert ["second", "0.5", "at", "least", "0.001", "met"] in rows
    assert ["third", "no", "power"] in rows
    assert "not measured: inception (no weights; get them)" in lines
    assert "not measured: twins, copies (not asked for)" in lines
    assert "0.21 or less" in "\n".join(lines)
    assert lines[-1] == verdict.sentences[-1]


def test_without_fits_the_goals_alone_are_printed():
    text = tables.text({}, "generated", CHECKS, Verdict(False, ("nothing",)))
    assert "smooth lens" not in text
    assert text.splitlines()[0].split() == ["goal", "value", "limit", "outcome"]
