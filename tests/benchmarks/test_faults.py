"""The judge of the campaign sees what is planted; the nightly test runs a part of the campaign."""

import json
import subprocess
import sys

import numpy as np
import pytest
import speed_table
from campaign import judge
from campaign.lab import Ended, Lab, Running
from campaign.trial import MODES
from faults import RESULTS, all_cases, counts_of, shuffled, summary, table
from run_support import ROOT

NAMES = ("faults_before", "faults")
REFUSAL = "07:00:00 resumed at step 4\nlensjax: train.num_steps: got 0; allowed: more\n"
TRACE = "Traceback (most recent call last):\n  File 'a'\nRuntimeError: no room\n"


def kinds(problems):
    return [problem.kind for problem in problems]


@pytest.mark.parametrize(
    ("status", "errors", "allowed", "found"),
    [
        (0, "07:00:00 wrote it\n", (0,), []),
        (2, REFUSAL, (0, 2), []),
        (2, REFUSAL, (0,), [judge.LOST]),
        (-9, "", (-9, 0), []),
        (1, TRACE, (0, 2), [judge.TRACEBACK, judge.LOST]),
        (2, TRACE, (2,), [judge.TRACEBACK]),
        (0, "Exception ignored in: <function f>\nKeyboardInterrupt:\n", (0,), [judge.TRACEBACK]),
        (75, "", (75,), [judge.LOST]),  # without a word
        (2, "lensjax: no\n" + "more\n" * 40, (2,), [judge.LOST]),
        (None, "", (0,), [judge.LOST]),  # it hung
    ],
)
def test_an_end_is_judged_by_status_and_words(status, errors, allowed, found):
    assert kinds(judge.judge_end(Ended(status, "", errors, 1.0), allowed)) == found


def test_a_hang_is_seen_and_ended(tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-S", "-c", "import time; time.sleep(60)"], start_new_session=True
    )
    ended = Running(tmp_path / "a.end", process).wait(0.2)
    assert ended.status is None
    assert process.returncode == -9
    assert "hung" in judge.judge_end(ended, (0,))[0].text


def test_images_that_their_record_does_not_describe_are_half_written(tmp_path):
    folder = tmp_path / "generated"
    folder.mkdir()
    np.save(folder / "images.npy", np.zeros((3, 2, 2, 1)))
    np.save(folder / "labels.npy", np.zeros(3, int))
    right = {(12, 0): judge.digest(folder / "images.npy")}
    meta = {"checkpoint_step": 12, "seed": 0, "num_images": 3}

    def judged(**changes):
        (folder / "meta.json").write_text(json.dumps(meta | changes))
        return kinds(judge.judge_generated(tmp_path, right, needed=True))

    assert judged() == []
    assert judged(seed=1) == [judge.HALF]
    assert judged(num_images=4) == [judge.HALF]
    (folder / "images.npy").write_bytes(b"")
    assert judged() == [judge.HALF]
    (folder / "meta.json").write_text("{")
    assert kinds(judge.judge_generated(tmp_path, right, needed=False)) == [judge.HALF]
    (folder / "meta.json").unlink()
    assert kinds(judge.judge_generated(tmp_path, right, needed=True)) == [judge.LOST]
    assert judge.judge_generated(tmp_path, right, needed=False) == []


def test_a_report_about_other_numbers_is_half_written(tmp_path):
    folder = tmp_path / "evaluation"
    folder.mkdir()
    origin = {"checkpoint_step": 8, "weights_sha256": "abc"}
    content = {"measures": {"fit": 1}, "protocol": {"generated": origin}}
    (folder / "metrics.json").write_text(json.dumps(content))
    (folder / "report.html").write_text("<html>abc</html>\n")
    right = {8: judge.measures_text(content)}
    assert judge.judge_evaluation(tmp_path, right, needed=True) == []
    assert kinds(judge.judge_evaluation(tmp_path, {8: "{}"}, needed=True)) == [judge.LOST]
    for text in ("<html>abd</html>", "<html>abc"):
        (folder / "report.html").write_text(text)
        assert kinds(judge.judge_evaluation(tmp_path, right, needed=True)) == [judge.HALF]


def test_an_export_that_calls_itself_complete_must_be(tmp_path):
    (tmp_path / "train").mkdir()
    (tmp_path / "train" / "0.npy").write_bytes(b"image")
    (tmp_path / "export.json").write_text('{"complete": true}')
    files = judge.export_files(tmp_path)
    assert judge.judge_export(tmp_path, files, needed=True) == []
    assert kinds(judge.judge_export(tmp_path, files | {"train/1.npy": "x"}, needed=False)) == [
        judge.HALF
    ]
    (tmp_path / "export.json").write_text('{"complete": false}')
    assert judge.judge_export(tmp_path, files, needed=False) == []
    assert kinds(judge.judge_export(tmp_path, files, needed=True)) == [judge.LOST]


def test_a_training_is_compared_bit_for_bit(tmp_path):
    leaves = tmp_path / "checkpoints" / "12" / "leaves"
    leaves.mkdir(parents=True)
    arrays = {"params": {"crc32": 5}, "step": {"crc32": 7}}
    (leaves / "metadata").write_text(json.dumps({"arrays": arrays}))
    (tmp_path / "metrics.jsonl").write_text('{"step": 1, "loss": 0.5}\n')
    state, losses = {"params": 5, "step": 7}, [(1, 0.5)]
    assert judge.judge_training(tmp_path, 12, state, losses) == []
    assert kinds(judge.judge_training(tmp_path, 8, state, losses)) == [judge.LOST]
    (wrong,) = judge.judge_training(tmp_path, 12, state | {"params": 6}, losses)
    assert "1 of 2 arrays differ" in wrong.text
    (tmp_path / "metrics.jsonl").write_text('{"step": 1, "loss": 0.5}\n' * 2)
    assert kinds(judge.judge_training(tmp_path, 12, state, losses)) == [judge.LOST]


def test_every_mode_and_each_kind_of_fault_is_there_under_one_name():
    cases = all_cases()
    assert len({case.name for case in cases}) == len(cases) == len(shuffled(cases))
    assert {case.mode for case in cases if case.kind == "signal KILL"} == set(MODES)
    assert sum(case.kind in ("flags", "config file", "Python call") for case in cases) >= 60
    short = [case for case in cases if case.short]
    assert {case.kind for case in short} >= {case.kind for case in cases} - {"pretrained"}


def test_the_table_counts_and_names_what_was_lost():
    row = {"kind": "flags", "mode": "train", "did": "a|b", "stderr": "", "seconds": 1.0}
    lost = {"kind": judge.LOST, "text": "exit status 1"}
    trace = {"kind": judge.TRACEBACK, "text": "Traceback"}
    rows = [
        row | {"name": "one", "problems": []},
        row | {"name": "two", "problems": [lost, trace]},
    ]
    assert counts_of(rows) == {
        "tried": 2,
        "survived": 1,
        "lost": 1,
        "tracebacks": 1,
        "half-written": 0,
    }
    text = table({"command": "run", "seed": 0, "seconds": 60, "hardware": {}, "cases": rows})
    assert "| flags | train | 2 | 1 | 1 | 1 | 0 |" in text
    assert "| two | a\\|b | lost: exit status 1; traceback: Traceback |" in text


def test_the_summary_has_both_campaigns_and_stands_in_the_documentation():
    row = {"kind": "flags", "mode": "train", "problems": []}
    lost = row | {"problems": [{"kind": judge.TRACEBACK, "text": "Traceback"}]}
    text = summary({"cases": [lost, lost]}, {"cases": [row, lost]})
    assert "| flags | 2 | 2 / 1 | 2 / 1 | 0 / 0 |" in text
    assert "| **all** | **2** | 2 / 1 | 2 / 1 | 0 / 0 |" in text
    results = [json.loads((RESULTS / f"{name}.json").read_text()) for name in NAMES]
    assert speed_table.table_in(speed_table.PAGE.read_text(), "faults") == summary(*results)


def test_a_fork_ends_as_a_process_does(tmp_path, monkeypatch):
    monkeypatch.setattr("campaign.lab._CHILD", tmp_path / "child.py")
    (tmp_path / "child.py").write_text(
        "import sys\nsys.path.insert(0, 'BENCHMARKS')\nfrom campaign import child\n"
        "child._MODULES = ()\nchild._without_tensorboard = lambda: None\nchild.main()\n".replace(
            "BENCHMARKS", str(ROOT / "benchmarks")
        )
    )
    lab = Lab(ROOT, tmp_path)
    try:
        codes = ("print('said')", "raise SystemExit(2)", "1 / 0")
        ends = [running.wait() for running in [lab.start(code=code) for code in codes]]
    finally:
        lab.close()
    assert [ended.status for ended in ends] == [0, 2, 1]
    assert ends[0].output == "said\n"
    assert kinds(judge.judge_end(ends[2], (2,))) == [judge.TRACEBACK, judge.LOST]


@pytest.mark.nightly
def test_nothing_is_lost():
    command = [sys.executable, str(ROOT / "benchmarks" / "faults.py"), "--short"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=1800)
    counts = "'lost': 0, 'tracebacks': 0, 'half-written': 0"
    assert counts in done.stdout, done.stdout + done.stderr
    assert done.returncode == 0
