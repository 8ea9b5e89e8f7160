"""From a workdir to images: what `load(...).generate(...)` and `--mode=sample` promise."""

import dataclasses
import hashlib
import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from run_support import (
    CLASS_NAMES,
    SHARED_GENERATOR,
    SHARED_SPLIT,
    run_python,
    states_differ,
    tiny_split,
)

import lensjax
from lensjax import prng
from lensjax.cli.sample_mode import sample_mode
from lensjax.config import Config, from_config_dict, to_dict
from lensjax.data.scaling import Scaling
from lensjax.diffusion.time_grids import time_grid, usual_end
from lensjax.errors import CheckpointError, ConfigError, RequestError, WorkdirError
from lensjax.inference.describe import describe, weights_hash
from lensjax.inference.generator import LensGenerator, load_generator
from lensjax.models import build_model
from lensjax.run import networks
from lensjax.run.networks import build_path, make_apply_fn
from lensjax.run.state import sampling_params
from lensjax.training.loop import train

pytestmark = pytest.mark.usefixtures("quick_compiles")
CONFIG = SHARED_GENERATOR


@pytest.fixture(scope="module")
def trained(trained_generator):
    """Workdir and state of a run of 12 steps with checkpoints 6 and 12."""
    return trained_generator


@pytest.fixture(scope="module")
def generator(trained) -> LensGenerator:
    return lensjax.load(trained[0])


def test_images_are_float32_in_the_shape_of_the_set(generator):
    assert generator.generate().shape == (1, 16, 16, 1)
    images = generator.generate(num=7)
    assert images.dtype == np.float32
    assert images.shape == (7, 16, 16, 1)
    assert np.isfinite(images).all()
    assert generator.class_names == CLASS_NAMES
    assert generator.pixel_scale_arcsec == 0.1
    assert generator.flux_unit == "counts"


@pytest.mark.parametrize("num", [1, 2, 5, 6, 7, 13])
def test_image_i_is_the_same_bit_for_bit_whatever_num_is(generator, num):
    """Six images are computed at once, so that the numbers end within, at and after a chunk."""
    assert np.array_equal(
        generator.generate(num=num, seed=3), generator.generate(num=18, seed=3)[:num]
    )


def test_labels_of_other_images_do_not_matter(generator):
    labels = np.array([2, 0, 1, 1, 0, 2, 1])
    images = generator.generate(labels, 7, seed=5)
    changed = labels.copy()
    changed[3:] = 0
    again = generator.generate(changed, 7, seed=5)
    assert np.array_equal(images[:3], again[:3])
    assert not np.array_equal(images[3], again[3])


@pytest.mark.parametrize("batch_size", [1, 12])
def test_another_chunk_shape_agrees_to_a_ten_thousandth_of_the_peak(trained, generator, batch_size):
    sample = dataclasses.replace(CONFIG.sample, batch_size=batch_size)
    other = load_generator(trained[0], dataclasses.replace(CONFIG, sample=sample))
    images, again = (one.generate(num=9, seed=1) for one in (generator, other))
    assert np.abs(images - again).max() <= 1e-4 * np.abs(images).max()


@pytest.mark.parametrize(
    ("label", "same_as"),
    [
        (None, [0, 1, 2, 0, 1]),
        (1, [1] * 5),
        (np.int64(1), [1] * 5),
        ("cdm", [1] * 5),
        ("no_sub", [2] * 5),
        ((2, 1, 0, 1, 2), [2, 1, 0, 1, 2]),
        (np.array([2, 1, 0, 1, 2], np.uint8), [2, 1, 0, 1, 2]),
        (jnp.array([2, 1, 0, 1, 2]), [2, 1, 0, 1, 2]),
        (3, [3] * 5),  # the null label: the unconditional model
    ],
    ids=str,
)
def test_a_label_is_an_index_a_name_an_array_or_none(generator, label, same_as):
    images = generator.generate(label, num=5)
    assert np.array_equal(images, generator.generate(same_as, num=5))
    assert generator.labels(label, 5).tolist() == same_as
    assert generator.labels(label, 5).dtype == np.int32


def test_other_labels_and_seeds_give_other_images(generator):
    images = [
        generator.generate(label, 2, seed) for label in range(4) for seed in (0, 1, 2**31 - 1)
    ]
    images += [images[0][1:]]  # and so do other numbers
    for place, one in enumerate(images):
        for other in images[:place]:
            assert not np.array_equal(one[0], other[0])


def test_the_average_is_taken_unless_asked_otherwise(trained, generator):
    workdir, state = trained
    raw = lensjax.load(workdir, ema=False)
    assert states_differ(generator.params, state.ema["main"]) == []
    assert states_differ(raw.params, state.params) == []
    assert not np.array_equal(generator.generate(), raw.generate())
    assert (generator.ema, raw.ema) == ("main", "raw")


NAMES = ("main", "12.5", "2000", "raw")


def _drawn_with(name: str) -> Config:
    return dataclasses.replace(CONFIG, sample=dataclasses.replace(CONFIG.sample, ema=name))


@pytest.mark.parametrize("name", NAMES)
def test_the_parameters_of_each_name_are_those_of_the_state(trained, name):
    workdir, state = trained
    expected = state.params if name == "raw" else state.ema[name]
    others = [state.ema[other] for other in NAMES[:-1] if other != name]
    by_name = lensjax.load(workdir, ema=name)
    by_config = load_generator(workdir, _drawn_with(name))
    for found in (by_name, by_config):
        assert states_differ(found.params, expected) == []
        assert found.ema == name
        assert all(states_differ(found.params, other) for other in others)
    assert np.array_equal(by_name.generate(num=2), by_config.generate(num=2))
    # What is asked for by name goes before what the configuration says.
    assert load_generator(workdir, _drawn_with(name), ema="main").ema == "main"
    assert load_generator(workdir, _drawn_with(name), ema=False).ema == "raw"


@pytest.mark.parametrize("ema", ["2000.0", "32", "", "Main", 2000, 1, None, ["main"], np.ones(2)])
def test_an_average_that_is_not_kept_is_answered_by_those_that_are(trained, ema):
    with pytest.raises(RequestError) as caught:
        lensjax.load(trained[0], ema=ema)
    expected = f"ema: got {ema!r}; allowed: True, False, 'main', '12.5', '2000', 'raw'"
    assert str(caught.value) == expected


def test_step_chooses_the_checkpoint(trained, generator):
    workdir, _ = trained
    older = lensjax.load(workdir, step=6)
    assert (older.step, generator.step, lensjax.load(workdir, step=12).step) == (6, 12, 12)
    assert not np.array_equal(older.generate(), generator.generate())
    with pytest.raises(CheckpointError, match=r"there is no checkpoint 7; .*: 6, 12"):
        lensjax.load(workdir, step=7)


def _by_hand(workdir, labels, seed: int, steps: int, guidance: float) -> np.ndarray:
    """Integrates the velocity from noise to data by Euler's method in plain steps."""
    params = lensjax.load(workdir).params
    apply_fn = make_apply_fn(build_model(CONFIG.model))
    keys = prng.keys(prng.key(seed, "generate"), jnp.arange(len(labels)))
    x = jax.vmap(lambda key: jax.random.normal(key, (16, 16, 1)))(keys)
    null = jnp.full(len(labels), 3)
    for interval in range(steps):
        t = jnp.full(len(labels), 1 - interval / steps)
        outputs = [
            apply_fn(params, x, t, {"label": label}) for label in (jnp.asarray(labels), null)
        ]
        x = x - (outputs[1] + guidance * (outputs[0] - outputs[1])) / steps
    scaling = json.loads((workdir / "dataset.json").read_text())["scaling"]
    return np.asarray(Scaling(**scaling).to_flux(x))


@pytest.mark.parametrize(("steps", "guidance"), [(1, 1.0), (3, 2.0)])
def test_steps_are_intervals_and_guidance_is_the_formula(trained, generator, steps, guidance):
    labels = [2, 0]
    images = generator.generate(labels, 2, 4, steps, guidance, "euler")
    expected = _by_hand(trained[0], labels, 4, steps, guidance)
    assert np.abs(images - expected).max() <= 1e-5 * np.abs(expected).max()


@pytest.mark.parametrize(("guidance", "seen"), [(1, 6), (0.0, 12)])
def test_guidance_one_is_a_single_pass(trained, monkeypatch, guidance, seen):
    sizes = []
    make = networks.make_apply_fn

    def make_counted(model):
        apply_fn = make(model)

        def counted(params, x, t, condition):
            sizes.append(len(x))
            return apply_fn(params, x, t, condition)

        return counted

    monkeypatch.setattr(networks, "make_apply_fn", make_counted)
    lensjax.load(trained[0]).generate(num=2, guidance=guidance)
    assert set(sizes) == {seen}


def test_none_stands_for_the_value_of_the_configuration(generator):
    images = generator.generate(num=3)
    assert np.array_equal(images, generator.generate(None, 3, 0, 2, 2.0, "euler"))
    for other in ({"steps": 3}, {"guidance": 1.0}, {"sampler": "heun"}):
        assert not np.array_equal(images, generator.generate(num=3, **other))


def test_log_prob_is_that_of_the_loaded_weights_at_flux(trained, generator):
    """`test_likelihood.py` has the numbers; here the method of a trained run."""
    images = tiny_split().images[:7]
    found = generator.log_prob(images, steps=2, num_probes=2)
    assert found.log_prob.shape == (7,)
    assert np.isfinite(found.log_prob).all()
    assert found.note == ""
    null = generator.log_prob(images, 3, steps=2, num_probes=2)
    assert np.array_equal(found.log_prob, null.log_prob)
    raw = lensjax.load(trained[0], ema=False).log_prob(images, steps=2, num_probes=2)
    assert not np.array_equal(found.log_prob, raw.log_prob)


@pytest.mark.parametrize(
    ("request_", "error", "words"),
    [
        ({"label": "halo"}, RequestError, "label: got 'halo'; allowed: axion, cdm, no_sub"),
        ({"label": 4}, RequestError, r"label: got 4 to 4; allowed: 0 to 3 \(axion, cdm, no_sub"),
        ({"label": -1}, RequestError, "label: got -1 to -1"),
        ({"label": 1.0}, RequestError, "label: got 1.0; allowed: integers or a class name"),
        ({"label": True}, RequestError, "label: got True"),
        ({"label": ["cdm", "axion"], "num": 2}, RequestError, r"label: got \['cdm', 'axion'\]"),
        ({"label": [0, 1], "num": 3}, RequestError, r"label: got shape \(2,\); allowed: \(3,\)"),
        ({"label": [[0]], "num": 1}, RequestError, r"label: got shape \(1, 1\); allowed"),
        ({"num": 0}, RequestError, "num: got 0; allowed: an integer of at least 1"),
        ({"num": -3}, RequestError, "num: got -3"),
        ({"num": 2.5}, RequestError, "num: got 2.5"),
        ({"num": "2"}, RequestError, "num: got '2'"),
        ({"num": True}, RequestError, "num: got True"),
        ({"seed": -1}, RequestError, "seed: got -1; allowed: .* 0 to 2147483647"),
        ({"seed": 2**31}, RequestError, "seed: got 2147483648"),
        ({"seed": 0.5}, RequestError, "seed: got 0.5"),
        ({"steps": 0}, ConfigError, "sample.steps: got 0; allowed: an integer from 1 to"),
        ({"steps": 1.5}, ConfigError, "sample.steps: got 1.5"),
        ({"guidance": -1.0}, ConfigError, "sample.guidance: got -1.0; allowed: a number in"),
        ({"guidance": float("nan")}, ConfigError, "sample.guidance: got nan"),
        ({"sampler": "dpm"}, ConfigError, "sample.sampler: got 'dpm'; allowed: euler, heun"),
    ],
    ids=str,
)
def test_what_a_run_cannot_serve_is_refused(generator, request_, error, words):
    with pytest.raises(error, match=words):
        generator.generate(**request_)


def test_a_folder_that_is_no_run_or_has_no_checkpoint_is_refused(trained, tmp_path):
    with pytest.raises(WorkdirError, match=r"config.json does not exist; .* the workdir of a run"):
        lensjax.load(tmp_path)
    shutil.copytree(trained[0], tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "checkpoints")
    with pytest.raises(CheckpointError, match="train first"):
        lensjax.load(tmp_path / "run")
    (tmp_path / "run" / "checkpoints").mkdir()
    with pytest.raises(WorkdirError, match="no checkpoint yet"):
        lensjax.load(tmp_path / "run")
    (tmp_path / "run" / "config.json").write_text("{")
    with pytest.raises(WorkdirError, match=r"config.json cannot be read"):
        lensjax.load(tmp_path / "run")


def test_a_configuration_of_another_run_is_refused_though_its_arrays_would_fit(trained):
    loss = dataclasses.replace(CONFIG.model, prediction="x0")
    with pytest.raises(ConfigError, match=r"model\.prediction: the workdir has 'velocity'"):
        load_generator(trained[0], dataclasses.replace(CONFIG, model=loss))


def test_loading_needs_neither_the_data_set_nor_tensorflow_and_writes_nothing(
    trained, generator, tmp_path
):
    workdir = tmp_path / "run"
    shutil.copytree(trained[0], workdir)
    for name in ("metrics.jsonl", "samples"):
        path = workdir / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    before = sorted(workdir.rglob("*"))
    code = f"""
import hashlib, sys
import lensjax
images = lensjax.load({str(workdir)!r}).generate("cdm", num=3, seed=2)
unwanted = {{"tensorflow", "tensorflow_datasets", "clu", "grain"}} & set(sys.modules)
print(hashlib.sha256(images.tobytes()).hexdigest(), sorted(unwanted))
"""
    done = run_python("-c", code, TFDS_DATA_DIR=str(tmp_path / "none"))
    assert done.returncode == 0, done.stderr
    images = generator.generate("cdm", num=3, seed=2)
    assert done.stdout.split() == [hashlib.sha256(images.tobytes()).hexdigest(), "[]"]
    assert sorted(workdir.rglob("*")) == before
    assert not (tmp_path / "none").exists()


def test_sample_mode_writes_images_labels_and_what_made_them(trained, generator, tmp_path):
    workdir = tmp_path / "run"
    shutil.copytree(trained[0], workdir)
    config = dataclasses.replace(
        CONFIG, sample=dataclasses.replace(CONFIG.sample, num_images=8, seed=9, sampler="heun")
    )
    for _ in range(2):  # the second time over the first
        sample_mode(config, workdir)
    target = workdir / "generated"
    names = {"images.npy", "labels.npy", "meta.json"}
    assert {path.name for path in target.iterdir()} - {"grid.png"} == names
    images, labels = np.load(target / "images.npy"), np.load(target / "labels.npy")
    assert images.dtype == np.float32
    assert labels.tolist() == [0, 1, 2, 0, 1, 2, 0, 1]
    assert np.array_equal(images, generator.generate(None, 8, 9, sampler="heun"))
    meta = json.loads((target / "meta.json").read_text())
    expected = {
        "checkpoint_step": 12,
        "ema": "main",
        "ema_half_life_images": 32.0,
        "sampler": "heun",
        "steps": 2,
        "time_grid": "uniform",
        "shift": None,
        "eta": None,
        "churn": None,
        "passes_per_image": 8,
        "guidance": 2.0,
        "guidance_rescale": 0.0,
        "guidance_interval": [0.0, 1.0],
        "guide": None,
        "seed": 9,
        "num_images": 8,
        "class_names": list(CLASS_NAMES),
    }
    assert {name: meta[name] for name in expected} == expected
    assert meta["weights_sha256"] == weights_hash(trained[1].ema["main"])
    assert meta["weights_sha256"] != weights_hash(trained[1].params)


@pytest.mark.parametrize("name", NAMES)
def test_what_made_the_images_names_the_average(trained, name):
    found = load_generator(trained[0], _drawn_with(name))
    meta = describe(found, _drawn_with(name).sample)
    half_life = {"main": 32.0, "12.5": 12.5, "2000": 2_000.0, "raw": None}[name]
    assert (meta["ema"], meta["ema_half_life_images"]) == (name, half_life)
    assert meta["weights_sha256"] == weights_hash(sampling_params(trained[1], name))


def test_the_hash_of_the_weights_sees_names_values_and_bits():
    params = {"a": jnp.zeros(2), "b": jnp.ones(2)}
    others = [
        {"a": jnp.ones(2), "b": jnp.zeros(2)},
        {"a": jnp.zeros(2), "c": jnp.ones(2)},
        {"a": -jnp.zeros(2), "b": jnp.ones(2)},
    ]
    hashes = {weights_hash(tree) for tree in (params, *others)}
    assert len(hashes) == 4
    assert weights_hash(dict(reversed(params.items()))) in hashes


def test_a_run_of_an_older_version_keeps_its_grid_unless_another_is_asked_for(tmp_path, trained):
    """The end of Karras times was that of the grid itself; a resumed run keeps it, too."""
    folder = tmp_path / "run"
    shutil.copytree(trained[0], folder)
    values = to_dict(CONFIG)
    values["sample"]["time_grid"] = "karras"
    new = from_config_dict(values)
    del values["sample"]["t_end"]
    path = folder / "config.json"

    def end_of(config=None, **settings):
        loaded = load_generator(folder, config)
        return describe(loaded, loaded.settings(**settings))["t_end"]

    path.write_text(json.dumps({"config": values}))
    old_end = float(time_grid(build_path(CONFIG), CONFIG.sample.steps, "karras")[-2])
    own_end = usual_end(build_path(CONFIG))
    assert own_end > 1.2 * old_end
    assert end_of() == end_of(new) == pytest.approx(old_end, rel=1e-4)
    assert end_of(t_end=0.25) == 0.25
    asked = dataclasses.replace(new, sample=dataclasses.replace(new.sample, t_end=0.125))
    assert end_of(asked) == 0.125
    train(new, folder, SHARED_SPLIT)  # has nothing to do but writes the configuration
    assert json.loads(path.read_text())["config"]["sample"]["t_end"] == 0.0
    path.write_text(json.dumps({"config": to_dict(new)}))
    assert end_of() == end_of(new) == pytest.approx(own_end, rel=1e-4)
