"""Images as arrays: `lensjax.simulate` and `lensjax.load_data`."""

import inspect
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import lensjax
from lensjax import prng
from lensjax.data import arrays, catalogue, parameters
from lensjax.data.simulator import CLASS_NAMES
from lensjax.data.surveys import SURVEYS
from lensjax.errors import ConfigError, DataError

pytestmark = pytest.mark.usefixtures("quick_compiles")
NUMBERS = (1, 5, 128, 131)


@pytest.mark.parametrize(
    ("name", "class_name"),
    [
        *(("model_ii", class_name) for class_name in CLASS_NAMES),
        ("model_ii_noisy", "cdm"),
        ("model_ii_conserved", "cdm"),
    ],
)
def test_images_and_rows_are_those_of_the_class(name, class_name):
    images, table = lensjax.simulate(name, class_name, 3, seed=4)
    assert images.dtype == np.float32
    assert images.shape == (3, 64, 64, 1)
    assert np.isfinite(images).all()
    assert table.dtype.names == ("data_set", "class_name", "label", *parameters.PARAMETER_NAMES)
    assert set(table["data_set"]) == {f"deeplense/{name}"}
    assert set(table["class_name"]) == {class_name}
    assert set(table["label"]) == {CLASS_NAMES.index(class_name)}
    assert np.isfinite(table["log10_axion_mass"]).all() == (class_name == "axion")
    assert np.isfinite(table["subhalo_00_x_arcsec"]).all() == (class_name == "cdm")
    assert np.isfinite(table["exposure_time_s"]).all() == (name == "model_ii_noisy")


def test_parameters_render_to_the_images():
    for model in ("model_ii", "model_iii"):
        survey = SURVEYS[model]
        images, table = lensjax.simulate(model, "cdm", 2)
        vectors = np.stack([table[name] for name in parameters.PARAMETER_NAMES], axis=-1)
        again = parameters.render_parameters(vectors, table["label"], survey)
        np.testing.assert_allclose(again, images, rtol=0, atol=2e-5 * images.max())


@pytest.mark.parametrize("name", ["model_ii", "model_ii_noisy"])
def test_image_i_is_the_same_bit_for_bit_whatever_num_is(name):
    images, table = lensjax.simulate(name, "cdm", max(NUMBERS), seed=7)
    for num in NUMBERS:
        fewer, rows = lensjax.simulate(name, "cdm", num, seed=7)
        assert np.array_equal(fewer, images[:num])
        assert rows.tobytes() == table[:num].tobytes()
    assert len(np.unique(table["source_x_arcsec"])) == len(table)


def test_seeds_classes_and_models_draw_other_lenses():
    sets = [*(("model_ii", class_name) for class_name in CLASS_NAMES), ("model_iii", "cdm")]
    drawn = [
        lensjax.simulate(model, class_name, 4, seed)[1]["source_x_arcsec"].tolist()
        for model, class_name in sets
        for seed in (0, 1, prng.MAX_SEED)
    ]
    assert len({value for part in drawn for value in part}) == 4 * len(drawn)


def test_noisy_and_conserved_images_show_the_same_lenses():
    plain, table = lensjax.simulate("model_ii", "cdm", 3)
    noisy, rows = lensjax.simulate("model_ii_noisy", "cdm", 3)
    _, conserved = lensjax.simulate("model_ii_conserved", "cdm", 3)
    for other in (rows, conserved):
        found, expected = other["source_x_arcsec"], table["source_x_arcsec"]
        np.testing.assert_allclose(found, expected, rtol=1e-6)  # each is a program of its own
    rms = SURVEYS["model_ii"].background_rms
    assert 0.9 * rms < np.median(np.std((noisy - plain)[..., 0], axis=(1, 2))) < 3 * rms
    assert (conserved["theta_e_arcsec"] < table["theta_e_arcsec"]).all()


def test_a_set_s_prefix_and_small_version_change_nothing():
    images, table = lensjax.simulate("model_ii", "no_sub", 2)
    for name in ("deeplense/model_ii", "model_ii_mini", "deeplense/model_ii_mini"):
        others, rows = lensjax.simulate(name, "no_sub", 2)
        assert np.array_equal(others, images)
        assert rows.tobytes() == table.tobytes()


def test_no_seed_gives_the_keys_of_a_data_set():
    from lensjax.data.deeplense import SPLIT_INDEX

    numbers = jnp.arange(64)

    def words(base):
        return {tuple(row) for row in np.asarray(jax.random.key_data(prng.keys(base, numbers)))}

    of_sets, ours = set(), set()
    for label in range(len(CLASS_NAMES)):
        for split in SPLIT_INDEX.values():
            of_sets |= words(prng.key(0, "deeplense/model_ii", split, label))
        for seed in (0, 1):
            ours |= words(prng.key(seed, "simulate/model_ii", label))
    assert not of_sets & ours
    assert 'f"simulate/{' in inspect.getsource(arrays.simulate)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("model_iv", "cdm", 1), ["data set 'model_iv'", "deeplense/model_ii_noisy,"]),
        (("", "cdm", 1), ["data set ''", "deeplense/model_i,"]),
        (("model_ii", "vortex", 1), ["class_name: got 'vortex'", "axion, cdm, no_sub"]),
        (("model_ii", "cdm", 0), ["num: got 0", "at least 1"]),
        (("model_ii", "cdm", 1.0), ["num: got 1.0", "at least 1"]),
        (("model_ii", "cdm", True), ["num: got True", "at least 1"]),
        (("model_ii", "cdm", 1, -1), ["seed: got -1", "0 to 2147483647"]),
        (("model_ii", "cdm", 1, 2**31), ["seed: got 2147483648", "0 to 2147483647"]),
        (("model_ii", "cdm", 1, 0.5), ["seed: got 0.5", "0 to 2147483647"]),
    ],
)
def test_what_is_not_allowed_is_said(arguments, words):
    with pytest.raises(DataError) as caught:
        lensjax.simulate(*arguments)
    for word in words:
        assert word in str(caught.value)


def test_numpys_integers_are_integers():
    num: Any = np.int64(2)
    seed: Any = np.uint32(3)
    images, _ = lensjax.simulate("model_ii", "no_sub", num, seed)
    assert np.array_equal(images, lensjax.simulate("model_ii", "no_sub", 2, 3)[0])


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("model_iv", "train"), "data set 'model_iv'"),
        (("model_ii_mini", "validation"), "split: got 'validation'; allowed: train, test"),
    ],
)
def test_load_data_builds_nothing_for_what_does_not_exist(tmp_path, arguments, words):
    name, split = arguments
    with pytest.raises(DataError, match=words):
        lensjax.load_data(name, split, str(tmp_path))
    assert not list(tmp_path.iterdir())


def test_load_data_builds_a_missing_set_and_returns_it(tmp_path, monkeypatch):
    from lensjax.data import deeplense

    monkeypatch.setitem(catalogue.IMAGES_PER_CLASS, "mini", {"train": 5, "test": 2})
    images, table = lensjax.load_data("model_ii_mini", "test", str(tmp_path / "sets"))
    split = deeplense.read("deeplense/model_ii_mini", str(tmp_path / "sets"), "test")
    assert np.array_equal(images, split.images)
    assert images.shape == (6, 64, 64, 1)
    assert table["label"].tolist() == [0, 1, 2] * 2
    assert set(table["data_set"]) == {"deeplense/model_ii_mini"}
    np.testing.assert_array_equal(table["source_x_arcsec"], split.parameters[:, 2])
    for row in table[:3]:
        assert lensjax.to_lenstronomy(row)["kwargs_pixel"]["nx"] == 64


def test_a_folder_of_files_is_loaded_as_it_is_read_elsewhere(tmp_path):
    for index in range(6):
        image = np.full((8, 9), index, np.float64)
        image[0, :2] = np.nan, -1
        np.save(tmp_path / f"{index}.npy", image)
    (tmp_path / "words.npy").write_text("words")
    folder, sets = str(tmp_path), str(tmp_path.parent / "sets")
    with pytest.raises(DataError, match=r"0\.npy: has 1 of 72 pixels"):
        lensjax.load_data("folder", "train", sets, folder)
    reading: dict[str, Any] = {"nan_policy": "mask", "on_bad_file": "skip", "test_share": 0.5}
    loaded = [
        lensjax.load_data("folder", part, sets, folder, **reading) for part in ("train", "test")
    ]
    images = np.concatenate([images for images, _ in loaded])
    assert images.shape == (6, 8, 9, 1)
    assert np.isnan(images[:, 0, 0]).all()
    assert sorted(images[:, 1, 1, 0].tolist()) == list(range(6))
    assert all(set(table["class_name"]) == {""} for _, table in loaded)


@pytest.mark.parametrize(
    ("field", "value"),
    [("layout", "XY"), ("nan_policy", "zero"), ("on_bad_file", "drop"), ("test_share", 2.0)],
)
def test_fields_of_the_reading_are_checked(tmp_path, field: str, value: Any):
    with pytest.raises(ConfigError, match=rf"data\.{field}: got {value!r}; allowed"):
        lensjax.load_data("folder", "train", None, str(tmp_path), **{field: value})


@pytest.mark.parametrize(("name", "folder"), [("folder", None), ("model_ii_mini", "somewhere")])
def test_a_folder_goes_with_its_set_alone(name, folder):
    with pytest.raises(DataError, match="folder: got"):
        lensjax.load_data(name, "train", folder=folder)
