"""What lensjax 0.1.0 wrote still loads: a data set, a generator's workdir, a classifier's workdir.

`tests/data/stored/README.md` says how they were made. Every later version resumes, samples,
evaluates and classifies from them as 0.1.0 did.
"""

import csv
import json
import pathlib

import numpy as np
import pytest
from old_folders_support import CLASSIFIER, GENERATOR, WRITTEN, unpack
from run_support import metrics_of, run_commands

import lensjax

pytestmark = pytest.mark.usefixtures("quick_compiles")
# What `expected.npz` was computed on was another processor, with all optimisations.
LOSS_TOLERANCE = 1e-4
IMAGE_TOLERANCE = 1e-3


@pytest.fixture(scope="module")
def expected() -> dict[str, np.ndarray]:
    """What 0.1.0 itself made of the folders."""
    with np.load(WRITTEN / "expected.npz") as content:
        return dict(content)


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> pathlib.Path:
    """A copy of the folders as 0.1.0 left them."""
    folder = tmp_path_factory.mktemp("written_by_0_1_0")
    unpack(folder)
    return folder


@pytest.fixture(scope="module")
def outcomes(folders) -> dict[str, tuple[int, str]]:
    """Exit code and output of each command, run in this order."""
    images, _ = lensjax.load_data("model_ii_mini", "test", str(folders / "sets"))
    np.save(folders / "given.npy", images)
    generator = [*GENERATOR, f"--workdir={folders / 'generator'}"]
    classifier = [*CLASSIFIER, f"--workdir={folders / 'classifier'}"]
    commands = {
        "resume": generator,
        "sample": [*generator, "--mode=sample"],
        "evaluate": [*generator, "--mode=evaluate"],
        "resume_classifier": classifier,
        "classify": [*classifier, "--mode=classify", f"--images={folders / 'given.npy'}"],
    }
    environment = {"TFDS_DATA_DIR": str(folders / "sets"), "TRAININGS": "1"}
    return run_commands(folders, commands, WITHOUT_PICTURES="1", **environment)


@pytest.mark.parametrize("name", ["resume", "sample", "evaluate", "resume_classifier", "classify"])
def test_every_mode_ends_well(outcomes, name):
    code, output = outcomes[name]
    assert code == 0, output
    assert "Traceback" not in output
    assert "Building" not in output  # the set is taken as it is


@pytest.mark.parametrize("name", ["generator", "classifier"])
def test_a_training_goes_on_with_the_losses_that_it_would_have_had(
    outcomes, folders, expected, name
):
    assert "resumed at step 4" in outcomes["resume" if name == "generator" else f"resume_{name}"][1]
    lines = metrics_of(folders / name)
    assert [line["step"] for line in lines] == [1, 2, 3, 4, 5, 6]
    losses = [line["loss"] for line in lines]
    np.testing.assert_allclose(losses, expected[f"{name}_losses"], rtol=LOSS_TOLERANCE)


def test_the_images_are_those_that_it_would_have_drawn(outcomes, folders, expected):
    generated = folders / "generator" / "generated"
    assert np.array_equal(np.load(generated / "labels.npy"), expected["labels"])
    difference = np.abs(np.load(generated / "images.npy") - expected["images"])
    assert difference.max() < IMAGE_TOLERANCE * expected["images"].max()


def test_an_older_checkpoint_of_the_run_is_still_there_to_load(outcomes, folders):
    older, newest = (lensjax.load(folders / "generator", step=step) for step in (4, None))
    assert (older.step, newest.step) == (4, 6)
    images = [run.generate("cdm", num=2) for run in (older, newest)]
    assert np.abs(images[0] - images[1]).max() > 1e-3


def test_the_evaluation_finds_what_it_would_have_found(outcomes, folders, expected):
    content = json.loads((folders / "generator" / "evaluation" / "metrics.json").read_text())
    rows = content["measures"]["smooth_fit"]["rows"]
    ratios = [
        [rows[row][name]["ratio_p50"] for name in ("axion", "cdm", "no_sub")]
        for row in ("generated", "real")
    ]
    np.testing.assert_allclose(ratios, expected["ratios"], atol=1e-3)


def test_the_classifier_says_what_it_would_have_said(outcomes, folders, expected):
    classifier = lensjax.load(folders / "classifier")
    found = classifier.predict(np.load(folders / "given.npy"))
    np.testing.assert_allclose(found.logits, expected["logits"], atol=1e-4)
    with (folders / "classifier" / "classified.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    probabilities = [[float(row[f"p_{name}"]) for name in classifier.class_names] for row in rows]
    np.testing.assert_allclose(probabilities, found.probabilities, atol=1e-5)
