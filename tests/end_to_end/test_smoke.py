"""The smoke config from the command line: each mode, without TensorFlow, killed and resumed."""

import json
import pathlib
import signal
import sys

import jax
import numpy as np
import pytest
from PIL import Image
from run_support import (
    ROOT,
    SMOKE,
    metrics_of,
    run_python,
    start_python,
    states_differ,
    wait_for,
)

import lensjax
from lensjax.config import from_config_dict
from lensjax.run.checkpoint import Checkpoints
from lensjax.run.learning import abstract_state

pytestmark = pytest.mark.usefixtures("quick_compiles")


def _config():
    sys.modules.pop("smoke", None)
    import smoke

    return from_config_dict(smoke.get_config())


def _state(workdir: pathlib.Path):
    checkpoints = Checkpoints(workdir / "checkpoints", read_only=True)
    state = checkpoints.restore(abstract_state(_config(), (64, 64, 1)))
    checkpoints.close()
    return state


def test_the_config_is_a_run_that_shows_something():
    config = _config()
    assert config.train.num_steps >= 40
    assert config.train.num_steps // config.train.checkpoint_every >= 2
    assert config.train.log_every == 1


def test_the_build_says_what_the_set_holds(smoke_run):
    assert "deeplense/model_ii_mini, fingerprint " in smoke_run.built
    assert "train     3,000 images: axion 1,000, cdm 1,000, no_sub 1,000" in smoke_run.built
    sheet = pathlib.Path(smoke_run.built.partition("contact sheet: ")[2].strip())
    with Image.open(sheet) as picture:
        assert min(picture.size) > 100


def test_training_without_tensorflow_says_so_in_one_line_and_goes_on(smoke_run):
    workdir, log = smoke_run.workdir, smoke_run.log
    assert log.count("TensorFlow is not installed") == 1
    assert "Traceback" not in log
    assert not list(workdir.glob("events*"))
    lines = metrics_of(workdir)
    assert [line["step"] for line in lines] == list(range(1, _config().train.num_steps + 1))
    losses = [line["loss"] for line in lines]
    assert np.isfinite(losses).all()
    assert np.mean(losses[-10:]) < 0.85 * np.mean(losses[:10])
    assert sorted(path.name for path in (workdir / "checkpoints").iterdir()) == ["40", "60"]
    pictures = sorted(path.name for path in (workdir / "samples").iterdir())
    assert pictures == ["curves.png", "step_00000030.png", "step_00000060.png"]
    assert "compiled the train step once" in log
    assert "step 60 of 60 | loss " in log


@pytest.mark.nightly
def test_a_killed_run_goes_on_as_if_nothing_had_happened(smoke_run, tfds_directory, tmp_path):
    """Pictures and validations, which this run leaves out, leave the state as it is."""
    workdir, sets = tmp_path / "run", str(tfds_directory)
    fewer = [f"--config.train.{name}_every=100" for name in ("sample", "evaluate")]
    fewer += ["--config.evaluate.while_training=0"]
    command = ("-m", "lensjax.main", SMOKE, f"--workdir={workdir}", *fewer)
    process = start_python(tmp_path / "log", *command, TFDS_DATA_DIR=sets)
    wait_for(workdir / "checkpoints" / "20", process)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    done = run_python(*command, TFDS_DATA_DIR=sets)
    assert done.returncode == 0, done.stderr
    (resumed,) = [line for line in done.stderr.splitlines() if "resumed at step" in line]
    at = int(resumed.split()[-1])
    assert at in (20, 40)
    assert f"step {at + 1} of 60 | loss " in done.stderr
    state = _state(workdir)
    assert int(state.step) == 60
    assert states_differ(state, _state(smoke_run.workdir)) == []
    expected = [(line["step"], line["loss"]) for line in metrics_of(smoke_run.workdir)]
    assert [(line["step"], line["loss"]) for line in metrics_of(workdir)] == expected
    if "TensorFlow is not installed" not in done.stderr:
        assert list(workdir.glob("events.out.tfevents.*"))


@pytest.mark.parametrize("mode", ["sample", "evaluate", "export", "build_data"])
def test_each_mode_ends_well(smoke_run, mode):
    code, output = smoke_run.modes[mode]
    assert code == 0, output
    assert "Traceback" not in output


def test_export_without_a_workdir_writes_the_test_split(smoke_run, tfds_directory):
    folder = smoke_run.exported
    images, table = lensjax.load_data("model_ii_mini", "test", str(tfds_directory))
    with (folder / "test" / "parameters.csv").open() as file:
        names = [line.partition(",")[0] for line in file][1:]
    assert len(names) == len(images) == 600
    for index in (0, 1, 599):
        assert names[index] == f"{table['class_name'][index]}/{index:06d}.npy"
        assert np.array_equal(np.load(folder / "test" / names[index]), images[index, ..., 0])
    assert json.loads((folder / "export.json").read_text())["complete"] is True


def test_sample_writes_what_load_generates(smoke_run):
    workdir = smoke_run.workdir
    images = np.load(workdir / "generated" / "images.npy")
    sample = _config().sample
    assert images.shape == (sample.num_images, 64, 64, 1)
    assert images.dtype == np.float32
    assert np.array_equal(images, lensjax.load(workdir).generate(num=12, seed=sample.seed))
    labels = np.load(workdir / "generated" / "labels.npy")
    assert labels.tolist() == [0, 1, 2] * 4
    meta = json.loads((workdir / "generated" / "meta.json").read_text())
    assert meta["checkpoint_step"] == 60


def test_evaluate_knows_real_images_from_those_of_a_minute(smoke_run):
    workdir = smoke_run.workdir
    content = json.loads((workdir / "evaluation" / "metrics.json").read_text())
    rows = content["measures"]["smooth_fit"]["rows"]
    assert set(rows) == {"generated", "generated at guidance 1", "real"}
    assert set(rows["generated"]) == set(rows["real"]) == {"no_sub", "cdm", "axion"}
    assert rows["real"]["no_sub"]["ratio_p90"] < 1e-3  # the exact simulator made them
    assert rows["generated"]["no_sub"]["ratio_p50"] > 0.08
    assert content["verdict"][0].startswith("FAILED as pictures of lenses: ")
    assert all(sentence in smoke_run.modes["evaluate"][1] for sentence in content["verdict"])
    assert content["protocol"]["images_per_class"] == 6
    assert "</html>" in (workdir / "evaluation" / "report.html").read_text()


def test_all_pictures_can_be_opened_and_nothing_is_left_half_written(smoke_run):
    workdir = smoke_run.workdir
    pictures = list(workdir.rglob("*.png"))
    assert len(pictures) >= 3
    for picture in pictures:
        assert np.asarray(Image.open(picture)).std() > 5
    assert not list(workdir.rglob("*.partial"))
    assert not list(workdir.rglob("*orbax-checkpoint-tmp*"))


def test_config_json_has_the_revision_of_this_checkout(smoke_run):
    content = json.loads((smoke_run.workdir / "config.json").read_text())
    assert content["versions"]["jax"] == jax.__version__
    if (ROOT / ".git").exists():
        assert len(content["git_revision"].removesuffix("+changes")) == 40
