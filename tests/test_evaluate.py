"""`--mode=evaluate`: the table, the verdict, the file of numbers, and what is refused."""

import dataclasses
import itertools
import json
import math

import numpy as np
import pytest
from run_support import tiny_config, tiny_split

from lensjax import evaluate, generate, writers
from lensjax.config import ConfigError
from lensjax.data import deeplense
from lensjax.data.catalogue import SIMULATED_SETS
from lensjax.evaluate import CDM_SIGNAL_MODEL_II as CDM_SIGNAL
from lensjax.evaluate import PASS_LIMITS, evaluate_mode, failures
from lensjax.sample_mode import weights_hash
from lensjax.train import train

pytestmark = pytest.mark.usefixtures("quick_compiles")
CONFIG = tiny_config(train={"num_steps": 2, "checkpoint_every": 2})
GOOD = {name: 0.5 * limit for name, limit in PASS_LIMITS.items()}


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("evaluated")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(writers, "_open_tensorboard", lambda folder: None)
        train(CONFIG, folder, tiny_split())
    return folder


def _mean_as_score(images: np.ndarray, survey: object) -> dict[str, float]:
    """Stands for the fit: tells which images it was given."""
    assert images.ndim == 3
    assert survey is SIMULATED_SETS[CONFIG.data.name].survey
    return dict.fromkeys(PASS_LIMITS, float(images.astype(np.float64).mean()))


@pytest.fixture
def evaluated(workdir, monkeypatch, capsys):
    """Content of metrics.json, what was printed, and the test split of a mode that has run."""
    split = tiny_split(num=30, seed=7)
    asked = []

    def read(*arguments):
        asked.append(arguments)
        return split

    monkeypatch.setattr(deeplense, "read", read)
    monkeypatch.setattr(evaluate, "smooth_scores", _mean_as_score)
    evaluate_mode(CONFIG, workdir)
    assert asked == [(CONFIG.data.name, CONFIG.data.directory, "test")]
    content = json.loads((workdir / "evaluation" / "metrics.json").read_text())
    return content, capsys.readouterr().out, split


def test_scores_belong_to_their_class_and_kind(evaluated, workdir):
    content, _, split = evaluated
    images = generate.load(workdir).generate(None, 12, CONFIG.sample.seed)
    for label, name in enumerate(("axion", "cdm", "no_sub")):
        row = content["lensing"][name]
        real = split.images[split.labels == label][:4]
        assert row["real"]["ratio_p50"] == pytest.approx(real.mean(dtype=np.float64))
        expected = images[label::3].mean(dtype=np.float64)
        assert row["generated"]["ratio_p50"] == pytest.approx(expected)


def test_the_protocol_says_what_was_scored(evaluated, workdir):
    content, _, _ = evaluated
    protocol = content["protocol"]
    expected = {
        "num_images": 12,
        "split": "test",
        "data": CONFIG.data.name,
        "checkpoint_step": 2,
        "ema": "main",
        "ema_half_life_images": 32.0,
        "sampler": "euler",
        "steps": 2,
        "passes_per_image": 4,
        "guidance": 2.0,
        "seed": 0,
    }
    assert {name: protocol[name] for name in expected} == expected
    assert protocol["weights_sha256"] == weights_hash(generate.load(workdir).params)
    assert (workdir / "evaluation" / "grid.png").is_file()


def test_the_table_has_a_row_for_each_class_and_kind(evaluated):
    content, printed, _ = evaluated
    rows = [line.split() for line in printed.splitlines()]
    for name, kind in itertools.product(("no_sub", "cdm", "axion"), ("generated", "real")):
        (row,) = [row for row in rows if row[:2] == [name, kind]]
        value = content["lensing"][name][kind]["ratio_p50"]
        assert row[2:4] == [f"{value:.3f}"] * 2
        # Positions and dark pixels are asked of smooth lenses alone.
        assert len(row) == (8 if name == "no_sub" else 4)
    assert content["verdict"] in printed
    assert printed.splitlines()[-1] == content["verdict"]


def test_images_that_are_no_lenses_fail(evaluated):
    content, _, _ = evaluated
    assert content["verdict"].startswith("FAILED: for no_sub ")
    assert [line.split()[0] for line in content["failed"]] == list(PASS_LIMITS)


@pytest.mark.parametrize("name", PASS_LIMITS)
def test_the_limit_itself_passes_and_what_is_above_fails(name):
    limit = PASS_LIMITS[name]
    assert failures(GOOD | {name: limit}) == []
    (line,) = failures(GOOD | {name: math.nextafter(limit, math.inf)})
    assert line.startswith(f"{name} is ")
    assert line.endswith(f"the limit is {limit:g}")


@pytest.mark.parametrize("name", PASS_LIMITS)
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_score_that_is_not_finite_fails(name, bad):
    assert len(failures(GOOD | {name: bad})) == 1


def test_every_failed_limit_is_in_the_verdict():
    bad = dict.fromkeys(PASS_LIMITS, 1e3)
    verdict = evaluate._verdict(failures(bad), bad["ratio_p50"], CDM_SIGNAL)
    assert verdict.startswith("FAILED: ")
    assert all(name in verdict for name in PASS_LIMITS)


@pytest.mark.parametrize(
    ("median", "words"),
    [
        (CDM_SIGNAL, "the median error is 0.076, the cdm signal 0.076"),
        (CDM_SIGNAL + 1e-6, "exceeds the cdm signal"),
    ],
)
def test_a_pass_says_what_the_images_are_good_for(median, words):
    verdict = evaluate._verdict([], median, CDM_SIGNAL)
    assert verdict.startswith("PASSED as pictures of lenses: ")
    assert words in verdict


UNFIT = [name for name, one in SIMULATED_SETS.items() if one.noisy or one.conserved]


@pytest.mark.parametrize("name", UNFIT)
def test_sets_that_the_smooth_fit_does_not_describe_are_refused(workdir, name):
    config = dataclasses.replace(CONFIG, data=dataclasses.replace(CONFIG.data, name=name))
    with pytest.raises(ConfigError, match=rf"data\.name: got '{name}'; allowed for --mode=eval"):
        evaluate_mode(config, workdir)


def test_more_images_than_the_test_split_has_are_refused(workdir):
    settings = dataclasses.replace(CONFIG.evaluate, num_images=201)
    with pytest.raises(ConfigError, match=r"evaluate\.num_images: got 201; .* the 200 images"):
        evaluate_mode(dataclasses.replace(CONFIG, evaluate=settings), workdir)
