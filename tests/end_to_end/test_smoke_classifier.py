"""The smoke classifier from the command line: it trains, is scored, classifies, and says no."""

import csv
import json

import numpy as np
import pytest
from run_support import metrics_of, run_commands, smoke_set_once

import lensjax

pytestmark = pytest.mark.usefixtures("quick_compiles")
CONFIG = "--config=configs/smoke_classifier.py"


@pytest.fixture(scope="module")
def commands(tfds_directory, tmp_path_factory):
    """Exit code and output of each command, and the workdir."""
    folder = tmp_path_factory.mktemp("smoke_classifier")
    images = np.concatenate([lensjax.simulate("model_ii", name, 2)[0] for name in ("cdm", "axion")])
    np.save(folder / "images.npy", images)
    run = f"--workdir={folder / 'run'}"
    given = f"--images={folder / 'images.npy'}"
    wanted = {
        "train": [CONFIG, run],
        "again": [CONFIG, run],
        "evaluate": [CONFIG, run, "--mode=evaluate"],
        "classify": [CONFIG, run, "--mode=classify", given, "--config.classify.batch_size=3"],
        "nothing": [CONFIG, run, "--mode=classify"],
        "sample": [CONFIG, run, "--mode=sample"],
        "score_pretrained": [
            "--config=configs/mae_vit.py",
            f"--workdir={folder / 'mae'}",
            "--mode=evaluate",
        ],
    }
    smoke_set_once(tfds_directory)
    found = run_commands(folder, wanted, TFDS_DATA_DIR=str(tfds_directory), TRAININGS="1")
    return found, folder


@pytest.mark.parametrize("name", ["train", "again", "evaluate", "classify"])
def test_it_ends_well(commands, name):
    code, output = commands[0][name]
    assert code == 0, output


def test_each_step_and_the_validations_stand_in_the_metrics(commands):
    lines = metrics_of(commands[1] / "run")
    assert [line["step"] for line in lines] == list(range(1, 61))
    validated = [line for line in lines if "validation/loss" in line]
    assert [line["step"] for line in validated] == [20, 40, 60]
    best = json.loads((commands[1] / "run" / "classifier.json").read_text())
    assert best["loss"] == min(line["validation/loss"] for line in validated)


def test_the_scores_are_those_of_the_test_split(commands):
    scores = json.loads((commands[1] / "run" / "evaluation" / "metrics.json").read_text())["scores"]
    assert [one["num_images"] for one in scores.values()] == [300] * 4
    assert "model_ii_conserved_mini, magnitude 20" in commands[0]["evaluate"][1]


def test_the_classes_are_those_that_python_gives(commands):
    with (commands[1] / "run" / "classified.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    classifier = lensjax.load(commands[1] / "run")
    found = classifier.classify(np.load(commands[1] / "images.npy"))
    assert [row["class"] for row in rows] == list(found.class_name)
    np.testing.assert_allclose(
        [float(row["probability"]) for row in rows], found.probability, atol=1e-4
    )


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("nothing", "--images: got None; allowed: a file or a folder of images"),
        ("sample", "is a classifier; allowed: the workdir of a generator"),
        ("score_pretrained", "allowed: the workdir of a generator or a classifier"),
    ],
)
def test_what_a_network_cannot_do_is_said_in_one_line(commands, name, words):
    code, output = commands[0][name]
    assert code != 0
    assert words in output
    assert "Traceback" not in output
