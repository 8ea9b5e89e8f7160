"""The whole way of a user's files: folder, set, training, resume, images in the files' units."""

import json
import pathlib
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from folder_support import Bomb, object_array, pixels, write, write_classes, write_flat
from run_support import DATA, TINY, metrics_of, run_commands

import lensjax
from lensjax.data.folder import folder_set
from lensjax.data.folder.reading import Reading
from lensjax.data.scaling import Scaling
from lensjax.inference.describe import weights_hash

pytestmark = pytest.mark.usefixtures("quick_compiles")
CLASSES = ("axion", "cdm", "no_sub")
NUM = 9  # images of a class
MASSES = np.logspace(-24, -22, NUM)  # eV
PUBLISHED_SCALE = 2.0  # published files hold twice the flux


def _flags(**changes: object) -> list[str]:
    settings = {**TINY, **changes, "data.name": "deeplense/folder"}
    given = {name: str(value).replace(" ", "") for name, value in settings.items()}
    return [
        "--config=configs/smoke.py",
        *(f"--config.{name}={text}" for name, text in given.items()),
    ]


def _published(name: str) -> np.ndarray:
    """Images of Model II in published units, float64 `[NUM, 64, 64]`: of three lenses."""
    lenses = np.load(DATA / "lenstronomy_images.npz")[f"II/{name}/ss1/image"]
    fainter = np.linspace(1.0, 0.7, NUM)[:, None, None]
    return PUBLISHED_SCALE * fainter * lenses[np.arange(NUM) % len(lenses)]


def _write_published(root: pathlib.Path) -> None:
    """Files as DeepLense publishes them: old names, object arrays for the vortices."""
    for index in range(NUM):
        axion, cdm, no_sub = (_published(name)[index] for name in CLASSES)
        write(root / "vort" / f"{index}.npy", object_array(axion, MASSES[index]))
        write(root / "sphere" / f"{index}.npy", cdm)
        write(root / "no" / f"{index}.npy", no_sub)


def _write_flat(root: pathlib.Path) -> None:
    """Unlabelled oblong images in one file, some with pixels that were not measured."""
    stack = pixels(0, (20, 13, 18))
    for index, value in enumerate((np.nan, np.inf, -np.inf)):
        stack[index::7, : 2 + index, 3:6] = value
    write(root / "stack.npy", stack)


SETS: dict[str, tuple[Any, dict[str, Any]]] = {
    "published": (_write_published, {}),
    "flat": (
        _write_flat,
        {
            "model.name": "unet",
            "model.num_classes": 0,
            "sample.guidance": 1.0,
            "data.nan_policy": "mask",
            "data.scaling": "sqrt",
        },
    ),
}
RESUMED = BUILT = ("published",)
AVERAGES = {"optim.ema_more_half_lives_images": "0.5,2", "optim.ema_warmup_share": 0.5}
DRAWN_WITH = {"published": "2", "flat": "raw"}


def _write_refused(folder: pathlib.Path) -> dict[str, tuple[pathlib.Path, str]]:
    """Folders that no command may accept; what it must name."""
    names = ("bomb", "text", "empty_class", "one_file", "no_files", "loop", "terminal")
    roots = {name: folder / name for name in names}
    for name in ("bomb", "text", "empty_class", "loop", "terminal"):
        write_classes(roots[name])
    write(roots["bomb"] / "cdm" / "bomb.npy", object_array(pixels(1), Bomb(folder / "flag")))
    (roots["text"] / "cdm" / "words.npy").write_text("words")
    (roots["empty_class"] / "vortices").mkdir()
    write_flat(roots["one_file"], 1)
    roots["no_files"].mkdir()
    (roots["loop"] / "cdm" / "loop").symlink_to(roots["loop"])
    (roots["terminal"] / "cdm" / "\x1b[31m\x9b1m\r\nred.npy").write_text("words")
    said = (
        "bomb.npy",
        "words.npy: is text",
        "vortices",
        "000.npy",
        "has no image file",
        "loop: is",
        r"\x1b[31m\x9b1m\r\nred.npy: is text",
    )
    return {name: (roots[name], text) for name, text in zip(names, said, strict=True)}


@pytest.fixture(scope="module")
def walk(tmp_path_factory):
    """Runs every command of this file, and returns the folder and what each command said."""
    folder = tmp_path_factory.mktemp("walk")
    commands = {}
    for name, (make, changes) in SETS.items():
        root = folder / "files" / name
        make(root)
        own = _flags(**{**changes, **AVERAGES, "data.folder": root})
        run = [*own, f"--workdir={folder / 'runs' / name}"]
        if name in BUILT:
            commands[f"{name}: build_data"] = [*own, "--mode=build_data"]
        commands[f"{name}: train"] = [*run, "--config.train.num_steps=6"]
        if name in RESUMED:
            commands[f"{name}: resume"] = run
        drawn_with = f"--config.sample.ema={DRAWN_WITH[name]}"
        commands[f"{name}: sample"] = [*run, "--mode=sample", drawn_with]
    inside = folder / "files" / "flat"
    commands["inside: train"] = [
        *_flags(**{**SETS["flat"][1], "data.folder": inside}),
        f"--workdir={inside / 'run'}",
    ]
    for name, (root, _) in _write_refused(folder).items():
        own = [*_flags(**{"data.folder": root}), f"--config.data.directory={folder / 'none'}"]
        commands[f"{name}: build_data"] = [*own, "--mode=build_data"]
        commands[f"{name}: train"] = [*own, f"--workdir={folder / 'none' / name}"]
    environment = {"TFDS_DATA_DIR": str(folder / "sets"), "TRAININGS": "1"}
    return folder, run_commands(folder, commands, **environment)


def _prepared(folder: pathlib.Path, name: str):
    reading = Reading(nan_policy="mask" if name == "flat" else "refuse")
    return folder_set.prepare(str(folder / "files" / name), reading, str(folder / "sets"))


def _real(folder: pathlib.Path, name: str) -> np.ndarray:
    prepared = _prepared(folder, name)
    images = np.concatenate([prepared.read(split).images for split in ("train", "test")])
    return np.nan_to_num(images, nan=1.0)  # a flux like any other


@pytest.mark.parametrize("name", SETS)
def test_every_command_ends_well(walk, name):
    for command, (code, output) in walk[1].items():
        if command.startswith(f"{name}: "):
            assert code == 0, output
            assert "Traceback" not in output


def test_the_build_says_what_the_folder_holds(walk):
    _, output = walk[1]["published: build_data"]
    lines = [" ".join(line.split()) for line in output.splitlines()]
    (train,) = (line for line in lines if line.startswith("train "))
    (test,) = (line for line in lines if line.startswith("test "))
    counts = [int(word.strip(",")) for line in (train, test) for word in line.split()[4::2]]
    assert sum(counts) == 3 * NUM
    for name in CLASSES:
        assert f"{name} " in train
        assert f"{name} " in test
    assert "64x64 pixels, 1 channel" in lines
    assert any(line.startswith("values ") for line in lines)
    assert any("of the pixels are exactly 0" in line for line in lines)
    assert "0 images are copies of others; 0 across the splits, 0 across classes" in lines
    assert "parameters: log10_axion_mass" in lines
    (sheet,) = (line.split(": ")[1] for line in lines if line.startswith("contact sheet: "))
    assert pathlib.Path(sheet).read_bytes().startswith(b"\x89PNG")


def test_the_set_holds_the_files(walk):
    folder, _ = walk
    prepared = _prepared(folder, "published")
    assert prepared.info().class_names == CLASSES
    found = {}
    for split in map(prepared.read, ("train", "test")):
        for image, label, row in zip(split.images, split.labels, split.parameters, strict=True):
            found[image.tobytes()] = (label, row[0])
    for label, name in enumerate(CLASSES):
        for image, mass in zip(_published(name), MASSES, strict=True):
            known, stored = found.pop(image.astype(np.float32).tobytes())
            assert known == label
            assert np.isnan(stored) if name != "axion" else abs(stored - np.log10(mass)) < 1e-5
    assert not found


@pytest.mark.parametrize("name", SETS)
def test_training_met_the_set_and_its_losses_are_finite(walk, name):
    folder, results = walk
    lines = metrics_of(folder / "runs" / name)
    assert [line["step"] for line in lines] == list(range(1, 13 if name in RESUMED else 7))
    assert np.isfinite([line["loss"] for line in lines]).all()
    assert np.isfinite([line["gradient_norm"] for line in lines]).all()
    assert ("Building deeplense/folder" in results[f"{name}: train"][1]) == (
        name not in BUILT
    )  # if not known
    dataset = json.loads((folder / "runs" / name / "dataset.json").read_text())
    assert dataset["fingerprint"] == _prepared(folder, name).fingerprint


@pytest.mark.parametrize("name", RESUMED)
def test_the_second_start_goes_on(walk, name):
    _, output = walk[1][f"{name}: resume"]
    assert "resumed at step 6" in output
    assert "step 12 of 12" in output


@pytest.mark.parametrize("name", SETS)
def test_generated_images_are_in_the_units_of_the_files(walk, name):
    folder, _ = walk
    run, real = folder / "runs" / name, _real(folder, name)
    images = np.load(run / "generated" / "images.npy")
    assert images.shape == (6, *real.shape[1:])
    assert images.dtype == np.float32
    assert np.isfinite(images).all()
    # So few steps leave noise of about the size of the images.
    assert abs(images.mean() - real.mean()) < 2 * real.std()
    assert 0.2 * real.std() < images.std() < 6 * real.std()
    labels = np.load(run / "generated" / "labels.npy")
    num_classes = {"published": 3, "flat": 0}[name]
    assert labels.tolist() == [i % max(1, num_classes) for i in range(6)]


@pytest.mark.parametrize("name", SETS)
def test_dataset_json_brings_flux_back(walk, name):
    folder, _ = walk
    real = _real(folder, name)
    dataset = json.loads((folder / "runs" / name / "dataset.json").read_text())
    assert dataset["flux_unit"] == "unknown"
    assert dataset["image_shape"] == list(real.shape[1:])
    scaling = Scaling(**dataset["scaling"])
    model = np.asarray(scaling.to_model(jnp.asarray(real)))
    again = np.asarray(scaling.to_flux(jnp.asarray(model)))
    assert np.abs(again - real).max() <= 1e-6 * np.abs(real).max()
    assert model.std() == pytest.approx(0.5, rel=0.1)
    assert dataset["maximum"] <= real.max()
    assert not np.allclose(model, real)


@pytest.mark.parametrize("name", SETS)
def test_python_draws_what_the_command_wrote(walk, name):
    folder, _ = walk
    run = lensjax.load(folder / "runs" / name, ema=DRAWN_WITH[name])
    written = np.load(folder / "runs" / name / "generated" / "images.npy")
    meta = json.loads((folder / "runs" / name / "generated" / "meta.json").read_text())
    assert (run.ema, meta["ema"]) == (DRAWN_WITH[name], DRAWN_WITH[name])
    assert meta["weights_sha256"] == weights_hash(run.params)
    assert meta["weights_sha256"] != weights_hash(lensjax.load(folder / "runs" / name).params)
    np.testing.assert_allclose(run.generate(num=6), written, rtol=1e-4, atol=1e-4 * written.max())
    assert run.flux_unit == "unknown"


def test_masked_pixels_reach_the_training(walk):
    folder, _ = walk
    prepared = _prepared(folder, "flat")
    assert prepared.info().masked
    assert np.isnan(prepared.read("train").images).any()
    assert not np.isinf(prepared.read("train").images).any()
    assert np.isfinite(prepared.info().maximum)


REFUSED = ("bomb", "text", "empty_class", "one_file", "no_files", "loop")


@pytest.mark.parametrize("mode", ["build_data", "train"])
@pytest.mark.parametrize("name", REFUSED)
def test_a_folder_that_is_refused_leaves_nothing(walk, name, mode, tmp_path):
    folder, results = walk
    code, output = results[f"{name}: {mode}"]
    words = _write_refused(tmp_path)[name][1]
    assert code == 2, output
    assert "Traceback" not in output
    (said,) = (line for line in output.splitlines() if line.startswith("lensjax: "))
    assert words in said
    assert f"{folder / name}" in said
    assert "\x1b" not in output
    assert not (folder / "none").exists()
    assert not (folder / "flag").exists()


def test_a_run_among_the_files_is_refused(walk):
    folder, results = walk
    code, output = results["inside: train"]
    assert code == 2
    assert "is inside data.folder=" in output
    assert not (folder / "files" / "flat" / "run").exists()
