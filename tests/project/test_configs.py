"""The config files keep what their texts promise, and every file that a text names is there."""

import importlib
import json
import math
import pathlib
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from folder_support import write
from run_support import ROOT

from lensjax.config import Config, SampleConfig, from_config_dict
from lensjax.config.diffusion import build_path
from lensjax.diffusion.schedules import ddpm_betas
from lensjax.inference.generator import load_generator
from lensjax.inference.sampling import Weights, make_sample_fn, passes_per_image
from lensjax.run import datasets
from lensjax.run.learning import abstract_state
from lensjax.training.data import scaling_of_images
from lensjax.training.loop import train

TEXTS = [
    ROOT / "README.md",
    ROOT / "ARCHITECTURE.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "CHANGELOG.md",
    *sorted((ROOT / "configs").glob("*.py")),
    *sorted((ROOT / "benchmarks").rglob("*.md")),
    *sorted((ROOT / "benchmarks").glob("*.py")),
]
# Files of the tree as texts name them.
NAMED = re.compile(r"(?:configs|benchmarks|docs|launch|examples|tests|lensjax)/[\w./-]*\w\.\w+")


def read_config(name: str, **changes: object) -> Config:
    """The configuration of a file, with fields replaced by their full path (dots as `__`)."""
    values = importlib.import_module(name).get_config()
    values.update_from_flattened_dict({key.replace("__", "."): x for key, x in changes.items()})
    return from_config_dict(values)


def test_every_file_that_a_text_names_is_there():
    missing = [
        (path.name, name)
        for path in TEXTS
        for name in sorted(set(NAMED.findall(path.read_text())))
        if not (ROOT / name).exists()
    ]
    assert missing == []


@pytest.mark.parametrize(
    ("name", "shape", "parameters"),
    [
        ("dit_flow", (64, 64, 1), 29_283_844),
        ("dit_ddpm", (64, 64, 1), 29_283_844),
        ("unet_flow", (64, 64, 1), 10_806_788),
        ("unet_ddpm", (150, 150, 1), 14_730_945),
        ("quickstart", (64, 64, 1), 1_438_720),
        ("cpu_fast", (64, 64, 1), 4_800_960),
        ("dit_fast", (64, 64, 1), 29_296_144),
        ("unet_fast", (64, 64, 1), 9_213_552),
    ],
)
def test_networks_have_the_size_that_is_stated(name, shape, parameters):
    params = abstract_state(read_config(name), shape).params
    assert sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(params)) == parameters


@pytest.mark.parametrize("name", ["unet_ddpm", "dit_ddpm"])
def test_ddpm_is_that_of_the_paper(name):
    config = read_config(name)
    path = build_path(config.path, config.model.prediction)
    betas = np.linspace(1e-4, 0.02, 1000)
    alpha_bar = np.cumprod(1 - betas)
    t = np.arange(1, 1001, dtype=np.float32) / 1000
    assert path.interval == (0.001, 1.0)
    found = np.square(np.asarray(path.alpha(jnp.asarray(t)), np.float64))
    np.testing.assert_allclose(found, alpha_bar, rtol=2e-5)
    np.testing.assert_allclose(ddpm_betas("linear", 1000, 0.1, 20.0), betas)
    assert (config.model.prediction, config.loss.space, config.loss.weight) == (
        "eps",
        "eps",
        "uniform",
    )
    decay = 0.5 ** (config.train.batch_size / config.optim.ema_half_life_images)
    assert decay == pytest.approx(0.9999, abs=1e-8)
    assert (config.sample.sampler, passes_per_image(config, config.sample)) == ("ddpm", 1000)


@pytest.mark.parametrize("name", ["quickstart", "unet_flow", "own_images"])
def test_what_is_recommended_takes_at_most_20_passes(name):
    config = read_config(name)
    assert passes_per_image(config, config.sample) <= 20
    for field in ("steps", "time_grid", "guidance"):
        assert getattr(config.sample, field) == getattr(SampleConfig(), field)
    # With all of DDPM's noise, images of the quickstart miss fewer goals.
    sampler = {"quickstart": "ddim"}.get(name, SampleConfig().sampler)
    assert config.sample.sampler == sampler


def test_the_recommended_sampler_is_the_default_and_as_good_as_200_passes():
    content = json.loads((ROOT / "benchmarks" / "results" / "samplers.json").read_text())
    default = SampleConfig()
    rows = [
        row
        for row in content["rows"]
        if (row["sampler"], row["time_grid"]) == (default.sampler, default.time_grid)
    ]
    (row,) = (row for row in rows if row["steps"] == default.steps)
    best = max(rows, key=lambda row: row["passes"])
    assert row["passes"] <= 20 < 198 <= best["passes"]
    for name in ("distance", "residual"):
        assert abs(row[name] - best[name]) <= best[f"{name}_error"]


def ddpm_of_a_flat_folder(folder: pathlib.Path) -> Config:
    """The configuration of the config's text, for a few images and with a small network."""
    for number, image in enumerate(np.random.default_rng(0).random((20, 30, 30))):
        write(folder / "images" / f"{number}.npy", image)
    return read_config(
        "unet_ddpm",
        data__name="deeplense/folder",
        data__folder=str(folder / "images"),
        data__directory=str(folder / "sets"),
        model__num_classes=0,
        model__patch_size=5,
        model__widths=(8, 16),
        model__blocks=1,
        model__attention_resolutions=(3,),
        model__condition_width=16,
        train__batch_size=4,
        train__num_steps=2,
        train__evaluate_images=2,
        sample__steps=3,
        sample__batch_size=2,
        sample__grid_columns=2,
    )


def test_ddpm_takes_a_flat_folder_without_labels(tmp_path):
    config = ddpm_of_a_flat_folder(tmp_path)
    split = datasets.prepare(config.data).read("train")
    info, scaling = split.info, scaling_of_images(split, config.data)
    assert (info.image_shape, info.num_classes) == ((30, 30, 1), 0)
    sample_fn = make_sample_fn(config, scaling, info.image_shape, config.sample)
    params = abstract_state(config, info.image_shape).params
    numbers = jnp.arange(2, dtype=jnp.int32)
    images = jax.eval_shape(sample_fn, Weights(params, None), 0, numbers, numbers)
    assert images.shape == (2, 30, 30, 1)


@pytest.mark.nightly
def test_ddpm_learns_and_draws_unlabelled_images_of_a_flat_folder(tmp_path):
    config = ddpm_of_a_flat_folder(tmp_path)
    prepared = datasets.prepare(config.data)
    train(config, tmp_path / "run", prepared.read("train"), prepared.read("test"))
    images = load_generator(tmp_path / "run").generate(num=3)
    assert images.shape == (3, 30, 30, 1)
    assert np.isfinite(images).all()
    assert len({image.tobytes() for image in images}) == 3
