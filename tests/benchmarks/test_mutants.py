"""The planted faults fit the files of today, and a run of tests is read rightly."""

import ast

import pytest
from mutants import (
    KILLED,
    MUTANTS,
    SURVIVED,
    UNCLEAR,
    Mutant,
    failed_test,
    mutated,
    outcome_of,
    run_tests,
    table,
    try_mutant,
)
from run_support import ROOT

FAILED = (
    "..F\n=== short test summary info ===\nFAILED tests/a/test_b.py::test_c[x - y] - assert 0\n"
)


def test_there_are_thirty_faults_with_names_and_tests_of_their_own():
    assert len({mutant.name for mutant in MUTANTS}) == len(MUTANTS) >= 30
    for mutant in MUTANTS:
        assert mutant.tests


def test_every_test_file_is_there_and_runs_ordinarily():
    for path in {ROOT / test for mutant in MUTANTS for test in mutant.tests}:
        assert path.is_file(), path
        assert "pytestmark = pytest.mark.nightly" not in path.read_text()


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_a_fault_fits_its_file_once_and_leaves_it_python(mutant):
    text = (ROOT / mutant.file).read_text()
    assert text.count(mutant.old) == 1
    changed = mutated(text, mutant)
    assert ast.dump(ast.parse(changed)) != ast.dump(ast.parse(text))


@pytest.mark.parametrize(("text", "count"), [("", 0), ("a b a", 2)])
def test_a_fault_that_no_longer_fits_is_named(text, count):
    mutant = MUTANTS[0]._replace(old="a")
    with pytest.raises(SystemExit, match=f"^{mutant.name} no longer fits .* occurs {count} times"):
        mutated(text, mutant)


def test_the_first_failure_is_read_from_the_output():
    assert failed_test("ERROR tests/a/test_b.py::test_c\nFAILED d\n") == "tests/a/test_b.py::test_c"
    assert failed_test(FAILED) == "tests/a/test_b.py::test_c[x - y]"
    assert failed_test("2 passed in 0.1s\n") == ""


@pytest.mark.parametrize(
    ("status", "output", "outcome"),
    [
        (0, "2 passed\n", SURVIVED),
        (1, FAILED, KILLED),
        (2, "ERROR tests/a/test_b.py - ImportError\n", KILLED),
        (None, FAILED, UNCLEAR),  # out of time
        (4, "ERROR: not found: tests/a/test_b.py\n", UNCLEAR),
        (5, "no tests ran\n", UNCLEAR),
    ],
)
def test_only_a_failed_test_kills(status, output, outcome):
    assert outcome_of(status, output) == outcome


@pytest.mark.parametrize(
    ("tests", "outcome", "killer"),
    [
        (("test_other.py", "test_power.py"), KILLED, "test_power.py::test_square"),
        (("test_other.py",), SURVIVED, ""),
        (("test_gone.py", "test_other.py"), SURVIVED, ""),
        (("test_gone.py",), UNCLEAR, ""),
    ],
)
def test_a_fault_is_planted_tried_and_taken_out(tmp_path, tests, outcome, killer):
    copy = tmp_path / "copy"
    copy.mkdir()
    (copy / "power.py").write_text("def square(x):\n    return x * x\n")
    (copy / "test_power.py").write_text(
        "import power\n\ndef test_square():\n    assert power.square(3) == 9\n"
    )
    (copy / "test_other.py").write_text("def test_nothing():\n    pass\n")
    run = try_mutant(copy, Mutant("sum", "a sum", "power.py", "x * x", "x + x", tests))
    assert (run.outcome, run.test) == (outcome, killer)
    assert "x * x" in (copy / "power.py").read_text()


def test_tests_that_take_too_long_decide_nothing(tmp_path):
    (tmp_path / "test_slow.py").write_text("import time\n\ndef test():\n    time.sleep(60)\n")
    run = run_tests(tmp_path, ["test_slow.py"], 2)
    assert run.outcome == UNCLEAR
    assert run.output.endswith("ended after 2 s")
    assert run.seconds < 30


def test_the_table_shows_what_survived():
    row = {"name": "a", "fault": "b", "file": "lensjax/c.py", "tests": ["tests/d/test_e.py"]}
    rows = [
        row | {"outcome": KILLED, "killed_by": "tests/d/test_e.py::test_f", "seconds": 1.6},
        row | {"outcome": SURVIVED, "killed_by": "", "seconds": 2.0},
    ]
    shown = table({"command": "run", "seconds": 5.0, "check_seconds": 1.0, "mutants": rows})
    assert "`run`: 1 of 2 planted faults" in shown
    assert "| a | b | c.py | d/test_e.py | test_e.py::test_f | 2 |" in shown
    assert "| a | b | c.py | d/test_e.py | **survived** | 2 |" in shown
