"""Samplers, guidance and grids of a trained run: passes, settings, stochastic ones, guides."""

import copy
import dataclasses
import itertools
import json
import shutil
from typing import Any

import numpy as np
import pytest
from run_support import OWN_SET, SHARED_GENERATOR, SHARED_SPLIT, nested, saved_run, tiny_config

import lensjax
from lensjax.cli.sample_mode import sample_mode
from lensjax.config import from_config_dict
from lensjax.data.scaling import Scaling
from lensjax.devices.mesh import all_devices
from lensjax.errors import ConfigError, WorkdirError
from lensjax.inference import generator as generation
from lensjax.inference.describe import describe, weights_hash
from lensjax.inference.generator import LensGenerator
from lensjax.inference.sampling import passes_per_image
from lensjax.training import generator_watch
from lensjax.training.data import TrainingData

pytestmark = pytest.mark.usefixtures("quick_compiles")
CONFIG = SHARED_GENERATOR
STOCHASTIC = [
    {"sampler": "ddim", "eta": 1.0},
    {"sampler": "ddpm"},
    {"sampler": "churn", "steps": 4},
]


@pytest.fixture(scope="module")
def runs(trained_generator, tmp_path_factory):
    """Workdirs of a run with checkpoints 6 and 12, and of a smaller one of random numbers."""
    small = tmp_path_factory.mktemp("small")
    saved_run(small, tiny_config(data=OWN_SET, model={"width": 4}), SHARED_SPLIT, step=4)
    return trained_generator[0], small


@pytest.fixture(scope="module")
def generator(runs) -> LensGenerator:
    return lensjax.load(runs[0])


@pytest.fixture(scope="module")
def images(generator):
    """Of the run's own settings."""
    return generator.generate(num=3)


# Passes.

TWO_A_STEP = {"heun", "midpoint", "churn"}
SAMPLER_NAMES = ("euler", "heun", "midpoint", "dpmpp_2m", "ddim", "ddpm", "churn")


def test_network_passes_are_counted():
    found, expected = {}, {}
    for case in itertools.product(SAMPLER_NAMES, (1, 5), (0.0, 1.0, 2.0), ("flow", "vp")):
        sampler, steps, guidance, path = case
        sample = {"sampler": sampler, "steps": steps, "guidance": guidance}
        config = tiny_config(path={"name": path}, sample=sample)
        each = 2 if sampler in TWO_A_STEP else 1
        # Where a path ends before the data, the last interval is one look at x0.
        passes = (steps - 1) * each + 1 if path == "vp" else steps * each
        expected[case] = passes * (1 if guidance == 1 else 2)
        found[case] = passes_per_image(config, config.sample)
    assert found == expected


def test_guidance_is_counted_where_it_acts():
    config = tiny_config(sample={"steps": 10, "guidance_interval": (0.3, 0.7)})
    # Times 0.3, 0.4, 0.5, 0.6 and 0.7 of 1.0 to 0.1, the ends of the interval among them.
    assert passes_per_image(config, config.sample) == 15


# Settings by keyword.


@pytest.mark.parametrize(
    "others",
    [
        {"time_grid": "karras"},
        {"time_grid": "shifted", "shift": 2.0},
        {"times": (1.0, 0.3, 0.0)},
        {"guidance_rescale": 0.7},
        {"guidance_interval": (0.4, 0.6)},
        {"sampler": "ddim", "eta": 0.5},
        {"sampler": "midpoint"},
        {"sampler": "dpmpp_2m", "steps": 3},
        *STOCHASTIC,
    ],
    ids=str,
)
def test_every_field_of_a_sampler_is_a_keyword(generator, images, others):
    found = generator.generate(num=3, **others)
    assert np.isfinite(found).all()
    assert not np.array_equal(found, images)


def test_numbers_of_numpy_are_taken(generator, images):
    found = generator.generate(num=3, steps=np.int64(2), guidance=np.float32(2.0))
    assert np.array_equal(found, images)


@pytest.mark.parametrize(
    ("others", "words"),
    [
        ({"grid": "karras"}, r"sample\.grid"),
        ({"time_grid": "even"}, r"sample\.time_grid: got 'even'; allowed: uniform"),
        ({"times": (1.0, 0.5)}, r"sample\.times: got \(1.0, 0.5\); allowed: .* one more than"),
        ({"times": (1.0, 0.5, 0.6)}, r"sample\.times: .*allowed: the times must fall"),
        ({"eta": 0.5}, r"sample\.eta: got 0.5; allowed: 0.0 with sample\.sampler=euler"),
        ({"sampler": "ddpm", "churn": 3.0}, r"sample\.churn: got 3.0; allowed: 10.0"),
        ({"shift": 2.0}, r"sample\.shift: got 2.0; allowed: 3.0 with sample\.time_grid=uniform"),
        ({"guidance": 1.0, "guidance_rescale": 0.5}, r"sample\.guidance_rescale: got 0.5"),
        ({"num_images": 3}, "num_images: got 3; .* use num"),
    ],
    ids=str,
)
def test_other_keywords_are_refused(generator, others, words):
    with pytest.raises(ValueError, match=words):
        generator.generate(num=3, **others)


def with_sample(generator: LensGenerator, **sample) -> LensGenerator:
    """The same weights with other fields in their `sample` section."""
    other = copy.copy(generator)
    changed = dataclasses.asdict(generator.config)
    changed["sample"] |= sample
    other.config = from_config_dict(changed)
    return other


def test_fields_of_another_choice_fall_back(generator):
    churning = with_sample(
        generator,
        sampler="churn",
        churn=3.0,
        churn_interval=(0.1, 0.2),
        time_grid="shifted",
        shift=5.0,
        guidance_rescale=0.5,
        guide_workdir="elsewhere",
    )
    assert churning.settings() == churning.config.sample
    assert churning.settings(steps=3).shift == 5.0
    assert churning.settings(sampler="churn").churn == 3.0
    euler = churning.settings(sampler="euler")
    assert (euler.churn, euler.churn_interval, euler.shift) == (10.0, (0.05, 0.95), 5.0)
    assert churning.settings(time_grid="karras").shift == 3.0
    alone = churning.settings(guidance=1.0)
    assert (alone.guidance_rescale, alone.guide_workdir) == (0.0, None)
    timed = with_sample(generator, times=(1.0, 0.4, 0.0))
    assert timed.settings(guidance=3.0).times == (1.0, 0.4, 0.0)
    assert timed.settings(steps=7).times == timed.settings(time_grid="cosine").times == ()


# Samplers that draw noise.


@pytest.mark.parametrize("others", STOCHASTIC, ids=lambda others: others["sampler"])
def test_noise_of_image_i_is_a_function_of_the_seed_and_i(generator, others):
    many = generator.generate("cdm", num=13, seed=4, **others)
    for num in (1, 5, 6, 7):
        few = generator.generate("cdm", num=num, seed=4, **others)
        assert np.array_equal(few, many[:num])
    other_seed = generator.generate("cdm", num=13, seed=5, **others)
    drawn = [image.tobytes() for image in (*many, *other_seed)]
    assert len(set(drawn)) == 26


# What is said of it.


@pytest.mark.parametrize(
    ("sample", "expected"),
    [
        ({}, {"time_grid": "uniform", "shift": None, "eta": None, "churn": None}),
        (
            {"sampler": "ddim", "eta": 0.5, "eta_interval": (0.2, 1.0)},
            {"eta": 0.5, "eta_interval": [0.2, 1.0], "churn_noise": None},
        ),
        ({"time_grid": "karras", "t_end": 0.25}, {"time_grid": "karras", "t_end": 0.25}),
        ({"time_grid": "shifted", "shift": 2.0}, {"time_grid": "shifted", "shift": 2.0}),
        (
            {"times": (1.0, 0.25, 0.0)},
            {"time_grid": [1.0, 0.25, 0.0], "shift": None, "t_end": 0.25},
        ),
        (
            {"sampler": "churn", "churn": 2.0},
            {"churn": 2.0, "churn_noise": 1.0, "churn_interval": [0.05, 0.95]},
        ),
        (
            {"guidance_rescale": 0.5, "guidance_interval": (0.5, 0.9)},
            {"guidance_rescale": 0.5, "guidance_interval": [0.5, 0.9], "passes_per_image": 3},
        ),
    ],
    ids=str,
)
def test_all_that_images_depend_on_is_described(generator, sample, expected):
    settings = with_sample(generator, **sample).config.sample
    described = json.loads(json.dumps(describe(generator, settings)))
    assert {name: described[name] for name in expected} == expected


@pytest.mark.parametrize(("num", "shown"), [(6, False), (7, True), (13, True)])
def test_several_chunks_show_how_far_they_are(generator, capfd, monkeypatch, num, shown):
    monkeypatch.setattr("lensjax.devices.progress.shows_bars", lambda: True)
    generator.generate(num=num)
    output, errors = capfd.readouterr()
    assert output == ""
    assert ("Drawing" in errors) == shown
    assert (f"{num}/{num}" in errors) == shown


# Autoguidance.


def test_an_earlier_checkpoint_guides(runs, generator, images):
    found = generator.generate(num=3, guide_step=6, guidance=2.0)
    guide = generator.guide(generator.settings(guide_step=6))
    assert guide is not None
    assert (guide.step, guide.ema) == (6, "main")
    assert not np.array_equal(found, images)
    # A run that is its own guide is not pushed anywhere.
    itself = generator.generate(num=3, guide_step=12, guidance=3.0)
    alone = generator.generate(num=3, guidance=1.0)
    np.testing.assert_allclose(itself, alone, atol=1e-4 * np.abs(alone).max())


def test_another_smaller_run_guides_by_the_formula(runs, generator):
    """One step of Euler's rule is linear in the estimates, and so are the images."""
    of: dict[str, Any] = {"num": 3, "steps": 1, "sampler": "euler"}
    found = generator.generate(guide_workdir=str(runs[1]), guidance=3.0, **of)
    strong = generator.generate(guidance=1.0, **of)
    weak = lensjax.load(runs[1]).generate(guidance=1.0, **of)
    expected = weak + 3.0 * (strong - weak)
    np.testing.assert_allclose(found, expected, atol=1e-4 * np.abs(expected).max())
    assert not np.allclose(found, strong, atol=1e-2 * np.abs(expected).max())


def test_autoguided_images_are_written_with_their_guide(runs, tmp_path):
    workdir = tmp_path / "run"
    shutil.copytree(runs[0], workdir)
    changes = {"guide_workdir": str(runs[1]), "guide_step": 4, "num_images": 3}
    sample = dataclasses.replace(CONFIG.sample, **changes)
    sample_mode(dataclasses.replace(CONFIG, sample=sample), workdir)
    meta = json.loads((workdir / "generated" / "meta.json").read_text())
    guide = lensjax.load(runs[1])
    assert meta["guide"] == {
        "weights_sha256": weights_hash(guide.params),
        "checkpoint_step": 4,
        "ema": "main",
    }
    assert meta["passes_per_image"] == 4
    drawn = lensjax.load(runs[0]).generate(None, 3, guide_workdir=str(runs[1]))
    assert np.array_equal(np.load(workdir / "generated" / "images.npy"), drawn)


def _changed_guide(runs, config=(), **dataset) -> LensGenerator:
    content = json.loads((runs[0] / "dataset.json").read_text()) | dataset
    changed = from_config_dict(
        nested({f"data.{name}": text for name, text in OWN_SET.items()} | dict(config))
    )
    return LensGenerator(changed, content, {}, 1, "main")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"image_shape": [8, 16, 1]}, r"same images; it has \(8, 16, 1\), this one \(16, 16, 1\)"),
        ({"class_names": ["a", "b", "c"]}, r"same classes; it has \('a', 'b', 'c'\), this one"),
        ({"class_names": ["axion"]}, r"same classes"),
        (
            {"scaling": dataclasses.asdict(Scaling("linear", 1.0, 2.0))},
            r"same scaling; it has Scaling\(",
        ),
        ({"config": {"path.name": "vp"}}, r"same path; it has PathConfig\(name='vp'"),
        (
            {"config": {"model.prediction": "eps"}},
            r"all times of this one, 0 to 1; with model.prediction=eps it covers 0 to 0.99",
        ),
        (
            {"config": {"model.prediction": "score"}},
            r"with model.prediction=score it covers 0.001 to 0.99",
        ),
    ],
    ids=str,
)
def test_a_guide_for_other_images_is_refused(runs, monkeypatch, changes, words):
    guide = _changed_guide(runs, **changes)
    generator = lensjax.load(runs[0])
    monkeypatch.setattr(generation, "load_generator", lambda folder, step, ema: guide)
    with pytest.raises(ConfigError, match=f"sample.guide_workdir: got 'there'; allowed: .*{words}"):
        generator.generate(guide_workdir="there")


@pytest.mark.parametrize("prediction", ["x0", "v"])
def test_a_guide_may_predict_something_else(runs, monkeypatch, prediction):
    guide = _changed_guide(runs, {"model.prediction": prediction})
    generator = lensjax.load(runs[0])
    monkeypatch.setattr(generation, "load_generator", lambda folder, step, ema: guide)
    assert generator.guide(generator.settings(guide_workdir="there")) is guide


def test_a_guide_that_is_no_run_is_refused(generator, tmp_path):
    with pytest.raises(WorkdirError, match=r"config.json does not exist"):
        generator.generate(guide_workdir=str(tmp_path))
    with pytest.raises(ConfigError, match=r"sample.guide_workdir: .*None with sample.guidance=1"):
        generator.generate(guide_workdir=str(tmp_path), guidance=1.0)


def test_a_generator_without_a_workdir_has_no_earlier_checkpoint(runs):
    guide = _changed_guide(runs)
    with pytest.raises(ConfigError, match=r"sample.guide_step: got 6; allowed: None without a"):
        guide.guide(guide.settings(guide_step=6, guidance=2.0))


def test_grids_while_training_are_drawn_without_a_guide(generator, tmp_path):
    """It may be a checkpoint that is not there yet."""

    def grid(**sample):
        config = dataclasses.replace(CONFIG, sample=dataclasses.replace(CONFIG.sample, **sample))
        data = TrainingData(SHARED_SPLIT, None, generator.image_shape, generator.scaling)
        samples = generator_watch.Samples(config, data, all_devices(most=1))
        return samples.draw(generator.params)[0]

    missing = {"guide_workdir": str(tmp_path / "none"), "guidance_rescale": 0.5}
    alone = grid(guidance=1.0)
    assert np.array_equal(grid(**missing), alone)
    assert np.array_equal(grid(guide_step=6), alone)
    assert not np.array_equal(grid(), alone)
