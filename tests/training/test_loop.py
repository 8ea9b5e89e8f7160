"""The training loop: what it writes, that it stops where it must, and that it goes on exactly."""

import ast
import dataclasses
import json
import os
import pathlib
import re
import shutil
import signal
from typing import Any

import jax
import numpy as np
import pytest
from run_support import (
    CLASS_NAMES,
    ROOT,
    TINY,
    captured_log,
    metrics_of,
    nested,
    signal_at,
    start_python,
    states_differ,
    tiny_config,
    tiny_split,
    wait_for,
)

from lensjax import config as configuration
from lensjax.errors import ConfigError, DataError, TrainingError, UserError, WorkdirError
from lensjax.run import workdir as workdirs
from lensjax.run import writers
from lensjax.training import generator_watch, monitor, prepare
from lensjax.training.loop import train

pytestmark = pytest.mark.usefixtures("quick_compiles")
SUPPORT = ROOT / "tests" / "support" / "run_support.py"


BLANK = np.zeros((4, 4, 3), np.uint8)
draw_picture, lens_grid = generator_watch.Samples.draw, generator_watch.lens_grid
SHOWN: dict[str, Any] = {}  # in the last picture of `finished`


@pytest.fixture(autouse=True)
def _plain(monkeypatch):
    """Leaves out TensorFlow, and the sampler's compilation, where a test is not about them."""
    monkeypatch.setattr(writers, "_open_tensorboard", lambda folder: None)
    monkeypatch.setattr(generator_watch.Samples, "draw", lambda self, params: (BLANK, {}))


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run of 12 steps that nothing disturbed: workdir, state and log."""
    workdir = tmp_path_factory.mktemp("finished") / "run"

    def grid(generated, names, real, bands):
        SHOWN.update(generated=generated, real=real, names=names)
        return lens_grid(generated, names, real, bands)

    with pytest.MonkeyPatch.context() as patch, captured_log() as log:
        patch.setattr(generator_watch, "lens_grid", grid)
        patch.setattr(writers, "_open_tensorboard", lambda folder: None)
        patch.setattr(generator_watch.Samples, "draw", draw_picture)
        state = train(tiny_config(train={"sample_every": 6}), workdir, tiny_split())
    return workdir, state, log


def _steps(workdir: pathlib.Path) -> list[int]:
    return [line["step"] for line in metrics_of(workdir)]


def test_the_workdir_holds_what_the_contract_says(finished):
    workdir, _, _ = finished
    assert {path.name for path in workdir.iterdir()} == {
        "checkpoints",
        "config.json",
        "dataset.json",
        "metrics.jsonl",
        "parameters.txt",
        "provenance.json",
        "samples",
    }
    pictures = sorted(path.name for path in (workdir / "samples").iterdir())
    assert pictures == ["step_00000006.png", "step_00000012.png"]
    assert not list(workdir.rglob("*.partial"))


def test_config_json_is_the_configuration_with_versions_and_revision(finished):
    content = json.loads((finished[0] / "config.json").read_text())
    config = configuration.from_config_dict(content["config"])
    assert config == tiny_config(train={"sample_every": 6})
    assert content["versions"]["jax"] == jax.__version__
    assert {"python", "flax", "optax", "orbax-checkpoint", "numpy"} <= set(content["versions"])
    assert content["git_revision"] is None or re.fullmatch(
        r"[0-9a-f]{40}(\+changes)?", content["git_revision"]
    )


def test_dataset_json_holds_what_sampling_needs(finished):
    content = json.loads((finished[0] / "dataset.json").read_text())
    split = tiny_split()
    assert content["class_names"] == list(CLASS_NAMES)
    assert content["image_shape"] == [16, 16, 1]
    assert content["fingerprint"] == split.info.fingerprint
    assert content["pixel_scale_arcsec"] == 0.1
    assert content["psf_fwhm_arcsec"] is None
    assert content["zero_point_mag"] is None
    assert content["flux_unit"] == "counts"
    assert content["scaling"]["kind"] == "linear"
    assert content["scaling"]["shift"] == pytest.approx(split.images.mean(), rel=1e-5)
    assert content["scaling"]["spread"] == pytest.approx(split.images.std() / 0.5, rel=1e-5)


def test_each_step_has_one_line_of_metrics(finished):
    lines = metrics_of(finished[0])
    assert [line["step"] for line in lines] == list(range(1, 13))
    scores = {
        f"score/{name}_{quantity}"
        for name in ("axion", "cdm", "no_sub")
        for quantity in ("flux", "peak", "negative")  # images of 16 x 16 pixels cannot be fitted
    }
    for line in lines:
        drawn = scores if line["step"] % 6 == 0 else set()
        assert set(line) == drawn | {
            "step",
            "loss",
            "gradient_norm",
            "learning_rate",
            "images_per_second",
        }
        assert all(np.isfinite(value) for value in line.values())
    # Two steps of warm-up to 1e-2, then down to a hundredth of it.
    rates = [line["learning_rate"] for line in lines]
    assert rates[0] < rates[1] == pytest.approx(1e-2)
    assert rates[-1] < 0.1 * rates[2]


def test_the_loss_falls(finished):
    losses = [line["loss"] for line in metrics_of(finished[0])]
    assert np.mean(losses[-3:]) < np.mean(losses[:3])


def test_the_log_shows_parameters_compilation_progress_and_no_resume(finished):
    workdir, state, log = finished
    total = sum(leaf.size for leaf in jax.tree.leaves(state.params))
    assert sum(f"{total:,} parameters" in line for line in log) == 1
    table = (workdir / "parameters.txt").read_text()
    assert f"Total: {total:,}" in table
    assert "patches_in/kernel" in table
    assert "starting at step 0" in log
    assert sum("compiled the train step once" in line for line in log) == 1
    progress = [line for line in log if line.startswith("step ")]
    # Of a run of seconds the first line and the last.
    assert [int(line.split()[1]) for line in progress] == [1, 12]
    form = (
        r"step \d+ of 12 \| loss [\d.]+ \| gradient norm [\d.]+ \| learning rate [\de.-]+ \| "
        r"[\d.e+]+ images/s \| \d\d:\d\d:\d\d left"
    )
    assert all(re.fullmatch(form, line) for line in progress), progress[0]
    assert progress[-1].endswith("00:00:00 left")


def test_several_steps_share_a_line_with_their_mean_loss(tmp_path, finished):
    train(tiny_config(train={"log_every": 5}), tmp_path / "run", tiny_split())
    single = [line["loss"] for line in metrics_of(finished[0])]
    lines = metrics_of(tmp_path / "run")
    assert [line["step"] for line in lines] == [5, 10, 12]
    expected = [np.mean(single[:5]), np.mean(single[5:10]), np.mean(single[10:])]
    assert [line["loss"] for line in lines] == pytest.approx(expected, rel=1e-6)


def test_sample_pictures_have_real_rows_above_generated_ones(finished):
    split = tiny_split()
    assert tuple(SHOWN["names"]) == CLASS_NAMES
    for label, (real, generated) in enumerate(zip(SHOWN["real"], SHOWN["generated"], strict=True)):
        assert np.array_equal(real, split.images[split.labels == label][:2])
        # So few updates cannot make an image of the set.
        assert generated.shape == real.shape
        assert not np.array_equal(generated, real)


@pytest.mark.nightly
def test_another_seed_gives_another_state(tmp_path, finished):
    state = train(dataclasses.replace(tiny_config(), seed=1), tmp_path / "run", tiny_split())
    assert states_differ(state.params, finished[1].params)
    assert metrics_of(tmp_path / "run")[-1]["loss"] != metrics_of(finished[0])[-1]["loss"]


def _count_traces(patch: pytest.MonkeyPatch) -> list[int]:
    """Returns a list that grows whenever the train step is traced to be compiled."""
    build, traces = prepare.build_train_step, []

    def build_counted(*arguments):
        step_fn = build(*arguments)

        def counted(*state_and_data):
            traces.append(1)
            return step_fn(*state_and_data)

        return counted

    patch.setattr(prepare, "build_train_step", build_counted)
    return traces


def test_a_run_in_parts_is_the_run_in_one_bit_for_bit(tmp_path, finished):
    """The parts end between two checkpoints, at signals that come during the step before.

    Each part compiles its step once; the first has more than two epochs.
    """
    workdir = tmp_path / "run"
    for number, (at, begun) in enumerate([(6, "starting at step 0"), (8, "resumed at step 7")]):
        with pytest.MonkeyPatch.context() as patch, captured_log() as log:
            patch.setattr(writers.MetricWriters, "scalars", writers.MetricWriters.scalars)
            signal_at(at, (signal.SIGTERM, signal.SIGINT)[number])
            traces = _count_traces(patch)
            train(tiny_config(), workdir, tiny_split())
        assert begun in log
        name = ("SIGTERM", "SIGINT")[number]
        assert log[-1] == f"{name}: saved step {at + 1}; to continue, run the same command again"
        assert len(traces) == 1
    with captured_log() as log:
        state = train(tiny_config(), workdir, tiny_split())
    assert "resumed at step 9" in log
    assert [line.split()[1] for line in log if line.startswith("step ")] == ["10", "12"]
    assert states_differ(state, finished[1]) == []
    assert _steps(workdir) == list(range(1, 13))
    expected = [line["loss"] for line in metrics_of(finished[0])]
    assert [line["loss"] for line in metrics_of(workdir)] == expected


MORE_AVERAGES = {"ema_more_half_lives_images": (0.5, 2.0)}


@pytest.mark.nightly  # compiled as a user's: bits of two programs
def test_more_averages_come_through_a_resume_and_leave_the_others_as_they_are(tmp_path, finished):
    """Bit for bit: as a run in one part without them, and as one whose main average it is."""
    config = tiny_config(optim=MORE_AVERAGES)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(writers.MetricWriters, "scalars", writers.MetricWriters.scalars)
        signal_at(5)
        assert int(train(config, tmp_path / "all", tiny_split()).step) == 6
    state = train(config, tmp_path / "all", tiny_split())
    assert set(state.ema) == {"main", "0.5", "2"}
    assert states_differ(state._replace(ema={"main": state.ema["main"]}), finished[1]) == []
    alone = tiny_config(optim={"ema_half_life_images": 2.0})
    expected = train(alone, tmp_path / "alone", tiny_split()).ema["main"]
    assert states_differ(state.ema["2"], expected) == []
    assert all(states_differ(state.ema[name], expected) for name in ("main", "0.5"))


@pytest.mark.parametrize("name", ["main", "2", "raw"])
def test_pictures_and_validation_are_of_the_parameters_that_are_named(tmp_path, monkeypatch, name):
    seen: dict[str, Any] = {}

    def note(what):
        def noted(self, step, params, scores=None):
            seen[f"{what} {step}"] = jax.device_get(params)

        return noted

    monkeypatch.setattr(monitor.Monitor, "write_line", note("line"))
    monkeypatch.setattr(monitor.Monitor, "draw_samples", note("samples"))
    config = tiny_config(
        train={"log_every": 8},
        optim=MORE_AVERAGES,
        sample={"ema": name},
    )
    state = train(config, tmp_path / "run", tiny_split())
    assert set(seen) == {"line 8", "line 12", "samples 12"}
    assert seen["line 8"] is None  # without a validation
    expected = state.params if name == "raw" else state.ema[name]
    for what in ("line 12", "samples 12"):
        assert states_differ(seen[what], expected) == []
    others = [
        state.params if other == "raw" else state.ema[other] for other in ("raw", "main", "2")
    ]
    assert sum(states_differ(seen["line 12"], other) == [] for other in others) == 1


def test_a_signal_during_a_picture_is_saved_a_step_later(tmp_path, monkeypatch):
    def draw(self, params):
        os.kill(os.getpid(), signal.SIGTERM)
        return BLANK, {}

    monkeypatch.setattr(generator_watch.Samples, "draw", draw)
    config = tiny_config(train={"sample_every": 5, "checkpoint_every": 50})
    before = signal.getsignal(signal.SIGTERM)
    with captured_log() as log:
        state = train(config, tmp_path / "run", tiny_split())
    assert log[-1].startswith("SIGTERM: saved step 6;")
    assert int(state.step) == 6
    assert [path.name for path in (tmp_path / "run" / "checkpoints").iterdir()] == ["6"]
    assert signal.getsignal(signal.SIGTERM) == before


@pytest.fixture(scope="module")
def children(tmp_path_factory):
    """Two runs in processes of their own that stand still after steps 10 and 5."""
    folder = tmp_path_factory.mktemp("children")
    found = {}
    for name, step in (("killed", 10), ("ended", 5)):
        settings = json.dumps({"stall_after": step})
        log = folder / f"{name}.log"
        process = start_python(log, SUPPORT, "train", folder / name, settings)
        found[name] = (process, folder / name, log)
    yield found
    for process, _, _ in found.values():
        process.kill()
        process.wait()


def test_a_killed_run_goes_on_bit_for_bit(children, finished):
    process, workdir, _ = children["killed"]
    wait_for(workdir / "stalled", process)
    wait_for(workdir / "checkpoints" / "8", process)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    assert _steps(workdir) == list(range(1, 11))
    with (workdir / "metrics.jsonl").open("a") as file:
        file.write('{"step": 11, "lo')  # a kill can come in the middle of a line

    with captured_log() as log:
        state = train(tiny_config(), workdir, tiny_split())
    resumed = [int(line.split()[-1]) for line in log if line.startswith("resumed at step")]
    assert resumed == [8]
    assert [line.split()[1] for line in log if line.startswith("step ")] == ["9", "12"]
    assert states_differ(state, finished[1]) == []
    assert _steps(workdir) == list(range(1, 13))
    expected = [line["loss"] for line in metrics_of(finished[0])]
    assert [line["loss"] for line in metrics_of(workdir)] == expected


def test_sigterm_saves_says_how_to_go_on_and_ends_with_code_0(children):
    process, workdir, log = children["ended"]
    wait_for(workdir / "stalled", process)
    process.terminate()
    assert process.wait(timeout=120) == 0
    text = log.read_text()
    assert "SIGTERM: saved step 6; " in text
    assert "Traceback" not in text
    assert (workdir / "checkpoints" / "6").is_dir()
    assert _steps(workdir) == list(range(1, 7))


def test_a_finished_run_has_nothing_to_do(tmp_path, finished):
    workdir, state, _ = finished
    before = {path: path.stat().st_mtime_ns for path in workdir.rglob("*.png")}
    lines = (workdir / "metrics.jsonl").read_text()
    with captured_log() as log:
        again = train(tiny_config(train={"sample_every": 6}), workdir, tiny_split())
    assert log[-1] == "nothing to do: the run has ended after 12 steps"
    assert states_differ(state, again) == []
    assert (workdir / "metrics.jsonl").read_text() == lines
    assert {path: path.stat().st_mtime_ns for path in workdir.rglob("*.png")} == before


def _stops(config: configuration.Config, workdir: pathlib.Path, split) -> int:
    """Trains until a step is not finite, and returns that step."""
    with pytest.raises(TrainingError, match="was not finite") as caught:
        train(config, workdir, split)
    step = re.search(r"gradient of step (\d+) was not finite", str(caught.value))
    assert step
    for remedy in ("data", "optim.learning_rate", "model.dtype=float32"):
        assert remedy in str(caught.value)
    return int(step.group(1))


@pytest.mark.parametrize(("log_every", "checkpoint_every"), [(1, 1), (100, 4), (3, 100)])
def test_a_run_that_blows_up_stops_and_names_the_step(tmp_path, log_every, checkpoint_every):
    config = tiny_config(
        optim={"learning_rate": 1e30, "warmup_steps": 0, "clip_norm": 1e30},
        train={"log_every": log_every, "checkpoint_every": checkpoint_every},
    )
    bad = _stops(config, tmp_path / "run", tiny_split())
    lines = metrics_of(tmp_path / "run")
    if log_every == 1:  # the step of the log whose loss is the first that is not finite
        assert bad == next(line["step"] for line in lines if line["loss"] is None)
    assert bad > 1
    saved = [int(path.name) for path in (tmp_path / "run" / "checkpoints").iterdir()]
    assert all(step < bad for step in saved)
    assert saved or checkpoint_every > 1


def _train_two_steps(workdir: pathlib.Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(writers.MetricWriters, "scalars", writers.MetricWriters.scalars)
        signal_at(1)
        assert int(train(tiny_config(), workdir, tiny_split()).step) == 2


def test_bad_data_stops_a_run_and_good_data_lets_it_go_on(tmp_path):
    workdir, split = tmp_path / "run", tiny_split()
    _train_two_steps(workdir)
    images = split.images.copy()
    images[:, 3, 3] = np.nan
    poisoned = dataclasses.replace(split, images=images)
    assert _stops(tiny_config(), workdir, poisoned) == 3
    saved = {path.name: path for path in (workdir / "checkpoints").iterdir()}
    assert set(saved) == {"2"}
    with captured_log() as log:
        state = train(tiny_config(), workdir, split)
    assert "resumed at step 2" in log
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(state))
    assert all(line["loss"] is not None for line in metrics_of(workdir))
    assert _steps(workdir) == list(range(1, 13))


def test_more_steps_may_be_asked_for_and_other_fields_may_not_differ(tmp_path):
    workdir = tmp_path / "run"
    _train_two_steps(workdir)
    saved = json.loads((workdir / "config.json").read_text())
    saved["config"]["train"]["num_steps"] = 2  # as if no more had been asked for
    (workdir / "config.json").write_text(json.dumps(saved))
    longer = tiny_config(train={"keep_last": 1}, sample={"steps": 1, "ema": "raw"})
    assert int(train(longer, workdir, tiny_split()).step) == 12
    assert [path.name for path in (workdir / "checkpoints").iterdir()] == ["12"]
    changes = {"b1": 0.5, "ema_more_half_lives_images": (2.0,)}
    with pytest.raises(ConfigError) as caught:
        train(tiny_config(optim=changes, loss={"label_drop": 0.5}), workdir, tiny_split())
    averages = "  optim.ema_more_half_lives_images: the workdir has [], this run [2.0]"
    assert averages in str(caught.value)
    assert "  optim.b1: the workdir has 0.9, this run 0.5" in str(caught.value)
    assert "  loss.label_drop: the workdir has 0.1, this run 0.5" in str(caught.value)


def test_a_run_by_an_older_version_is_named_as_such(tmp_path):
    workdir = tmp_path / "run"
    workdirs.claim(workdir, tiny_config())
    saved = json.loads((workdir / "config.json").read_text())
    del saved["config"]["path"]["betas"]
    (workdir / "config.json").write_text(json.dumps(saved))
    with pytest.raises(WorkdirError, match=r"by an older version .* had no path\.betas; load"):
        workdirs.load_config(workdir)


def test_a_workdir_without_checkpoint_belongs_to_nobody(tmp_path):
    """Data that a scaling refuses must not keep the workdir from the scaling that is advised."""
    split = tiny_split()
    negative = dataclasses.replace(split, info=dataclasses.replace(split.info, minimum=-1.0))
    with pytest.raises(DataError, match="allowed here: linear, asinh"):
        train(tiny_config(data={"scaling": "sqrt"}), tmp_path, negative)
    changes: dict[str, Any] = {"data": {"scaling": "linear"}}
    assert int(train(tiny_config(**changes), tmp_path, negative).step) == 12
    assert (
        json.loads((tmp_path / "config.json").read_text())["config"]["data"]["scaling"] == "linear"
    )


def test_two_trainings_in_one_workdir_are_refused(tmp_path):
    with (
        workdirs.training_lock(tmp_path),
        pytest.raises(WorkdirError, match="another process is training in"),
    ):
        train(tiny_config(), tmp_path, tiny_split())
    assert int(train(tiny_config(), tmp_path, tiny_split()).step) == 12


def _content(folder: pathlib.Path) -> dict[str, tuple[bytes, int]]:
    """Content and time of change of every file."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path): (path.read_bytes(), path.stat().st_mtime_ns) for path in files}


@pytest.mark.parametrize("saved", [False, True], ids=["before its first checkpoint", "later"])
def test_a_training_that_is_refused_leaves_no_trace_in_the_run_that_is_there(
    tmp_path, finished, saved
):
    workdir, split = tmp_path / "run", tiny_split()
    shutil.copytree(finished[0], workdir)
    if not saved:
        shutil.rmtree(workdir / "checkpoints")
    before = _content(tmp_path)
    assert str(workdir / "dataset.json") in before
    with workdirs.training_lock(workdir), pytest.raises(WorkdirError, match="another process"):
        train(dataclasses.replace(tiny_config(), seed=1), workdir, split)
    assert _content(tmp_path) == before
    negative = dataclasses.replace(split, info=dataclasses.replace(split.info, minimum=-1.0))
    refused = [(tiny_config(data={"scaling": "sqrt"}), negative)]
    refused += [(tiny_config(), tiny_split(num=7))]  # fewer than a batch
    if saved:
        refused += [
            (dataclasses.replace(tiny_config(), seed=1), split),
            (tiny_config(), tiny_split(seed=1)),
        ]
    for config, images in refused:
        with pytest.raises(UserError):
            train(config, workdir, images)
        assert _content(tmp_path) == before


def _run_ids(workdir: pathlib.Path) -> list[str | None]:
    leaves = sorted(workdir.glob("checkpoints/*/leaves/metadata"))
    return [json.loads(path.read_text()).get("run_id") for path in leaves]


def test_a_run_keeps_its_id_and_takes_no_checkpoint_of_another(tmp_path, finished):
    workdir, other = tmp_path / "run", tmp_path / "other"
    _train_two_steps(workdir)
    run_id = workdirs.run_id_of(workdir)
    assert run_id
    shutil.copytree(finished[0], other)
    other_id = workdirs.run_id_of(other)
    assert other_id not in (run_id, None)
    shutil.copytree(other / "checkpoints" / "12", workdir / "checkpoints" / "12")
    with captured_log() as log:
        assert int(train(tiny_config(), workdir, tiny_split()).step) == 12
    assert "resumed at step 2" in log
    assert [path.name for path in (workdir / "damaged_checkpoints").iterdir()] == ["12"]
    assert workdirs.run_id_of(workdir) == run_id
    assert set(_run_ids(workdir)) == {run_id}
    assert workdirs.id_to_run_with(workdir, tiny_config()) == run_id
    shutil.rmtree(workdir / "checkpoints")  # the folder is free for a new run
    assert workdirs.id_to_run_with(workdir, tiny_config()) not in (run_id, None)


def test_a_run_from_before_there_were_ids_goes_on_without_one(tmp_path):
    workdir = tmp_path / "run"
    _train_two_steps(workdir)
    for path in (workdir / "config.json", *workdir.glob("checkpoints/*/leaves/metadata")):
        content = json.loads(path.read_text())
        del content["run_id"]
        path.write_text(json.dumps(content))
    with captured_log() as log:
        assert int(train(tiny_config(), workdir, tiny_split()).step) == 12
    assert "resumed at step 2" in log
    assert workdirs.run_id_of(workdir) is None
    assert set(_run_ids(workdir)) == {None}


def test_a_workdir_that_is_deleted_ends_the_training_and_is_not_made_again(tmp_path, monkeypatch):
    workdir = tmp_path / "run"

    def delete(self: Any, step: int, values: Any) -> None:
        shutil.rmtree(workdir)

    monkeypatch.setattr(writers.MetricWriters, "scalars", delete)
    with pytest.raises(WorkdirError, match="was deleted or moved while the run was training"):
        train(tiny_config(), workdir, tiny_split())
    assert not workdir.exists()


def test_other_data_of_the_same_name_is_refused(finished, tmp_path):
    with pytest.raises(ConfigError, match="began with fingerprint made for tests with seed 0"):
        train(tiny_config(train={"sample_every": 6}), finished[0], tiny_split(seed=1))


def test_classes_that_the_set_does_not_have_are_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"model\.num_classes: got 3; allowed: 0"):
        train(tiny_config(), tmp_path / "run", tiny_split(class_names=()))


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ({"patch_size": 13}, r"model\.patch_size: got 13; .* side of the images, 12x12 pixels"),
        (
            {"name": "unet", "patch_size": 2, "widths": (8, 8), "attention_resolutions": (8, 4)},
            r"model\.attention_resolutions: got \(8, 4\); .*, 6, 3 for images of 12 rows",
        ),
        (
            {
                "name": "unet",
                "widths": (20,),
                "attention_head_width": 6,
                "attention_resolutions": (2,),
            },
            r"model\.attention_head_width: got 6; allowed: a divisor of 20,",
        ),
    ],
    ids=["patch", "attention", "heads"],
)
def test_a_network_that_does_not_fit_the_cut_out_of_a_folder_is_refused(tmp_path, model, message):
    data = {"name": "deeplense/folder", "folder": "images", "shift_pixels": 2}
    model = {"patch_size": 8, **model}
    with pytest.raises(ConfigError, match=f"^{message}"):
        train(tiny_config(data=data, model=model), tmp_path / "run", tiny_split())
    assert not (tmp_path / "run").exists()


def test_a_batch_beyond_the_images_in_memory_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"train\.batch_size: got 8; allowed: at most the 7 images"):
        train(tiny_config(), tmp_path / "run", tiny_split(num=7))
    assert not (tmp_path / "run").exists()


@pytest.mark.nightly
def test_both_placements_of_augmented_images_end_in_the_same_state_bit_for_bit(tmp_path, finished):
    """`test_a_run_may_change_its_placement_on_a_resume` does the same without augmentation."""
    states = []
    for name in ("device", "stream"):
        config = tiny_config(data={"placement": name, "augmentation": "rotate_180"})
        states.append(train(config, tmp_path / name, tiny_split()))
    assert states_differ(*states) == []
    assert states_differ(states[0].params, finished[1].params)


@pytest.mark.nightly  # compiled as a user's: bits of two programs
def test_a_run_may_change_its_placement_on_a_resume(tmp_path, finished):
    _, expected, _ = finished
    split = tiny_split()
    for name, stopped_at in (("stream", 5), ("device", 9), ("stream", None)):
        with pytest.MonkeyPatch.context() as patch:
            if stopped_at:
                patch.setattr(writers.MetricWriters, "scalars", writers.MetricWriters.scalars)
                signal_at(stopped_at)
            config = tiny_config(data={"placement": name}, train={"sample_every": 6})
            state = train(config, tmp_path / "run", split)
    assert states_differ(state, expected) == []


def test_the_network_sees_cut_outs_where_they_are_shifted(tmp_path):
    changes = {"data.name": "deeplense/folder", "data.folder": "images", "data.shift_pixels": 4}
    config = configuration.from_config_dict(
        nested(TINY | changes | {"train.num_steps": 2, "data.augmentation": "all"})
    )
    train(config, tmp_path / "run", tiny_split(), tiny_split(seed=1))
    described = json.loads((tmp_path / "run" / "dataset.json").read_text())
    assert described["image_shape"] == [8, 8, 1]  # of 16
    assert np.isfinite(metrics_of(tmp_path / "run")[-1]["validation/test_loss"])


@pytest.mark.nightly
def test_an_unlabelled_set_trains_and_generates(tmp_path, monkeypatch):
    monkeypatch.setattr(generator_watch.Samples, "draw", draw_picture)
    config = tiny_config(train={"num_steps": 1})
    config = dataclasses.replace(config, model=dataclasses.replace(config.model, num_classes=0))
    train(config, tmp_path / "run", tiny_split(class_names=()))
    assert (tmp_path / "run" / "samples" / "step_00000001.png").is_file()


def test_masked_pixels_do_not_touch_the_training(tmp_path):
    """Where nothing was measured may stand what wants to."""
    whole = tiny_split()
    holes = np.random.default_rng(5).random(whole.images.shape) < 0.1
    info = dataclasses.replace(whole.info, masked=True)
    images = np.where(holes, np.float32(np.nan), whole.images)
    masked = dataclasses.replace(whole, images=images, info=info)
    config = tiny_config(train={"num_steps": 4})
    train(config, tmp_path / "run", masked)
    losses = [line["loss"] for line in metrics_of(tmp_path / "run")]
    assert len(losses) == 4
    assert np.isfinite(losses).all()


def test_the_loop_is_short():
    tree = ast.parse((ROOT / "lensjax" / "training" / "loop.py").read_text())
    lines = {
        node.name: (node.end_lineno or 0) - node.lineno + 1
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef)
    }
    assert lines["train"] + lines["_loop"] < 120
