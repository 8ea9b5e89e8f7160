"""Building, checking and reading the simulated sets; the sets here are small."""

import fcntl
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import threading
import time
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tensorflow_datasets as tfds
from run_support import HIDE_TENSORFLOW, ROOT

from lensjax import prng
from lensjax.data import catalogue, deeplense, parameters, prepared
from lensjax.data.surveys import SURVEYS
from lensjax.errors import DataError

# More than one chunk in train, less than one in test.
COUNTS = {"train": catalogue.CHUNK + 12, "test": 10}
NAME = "deeplense/model_ii_mini"
REPOSITORY = ROOT


@pytest.fixture(scope="module", autouse=True)
def _small_sets():
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(catalogue.IMAGES_PER_CLASS, "mini", COUNTS)
        yield


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """A folder with one set, built in four files a split."""
    directory = str(tmp_path_factory.mktemp("sets"))
    deeplense.prepare(NAME, directory, num_shards=4)
    return directory


@pytest.fixture
def copied(built, tmp_path):
    """A copy of that folder that a test may spoil; and the set's own folder in it."""
    shutil.copytree(built, tmp_path / "sets")
    return str(tmp_path / "sets"), tmp_path / "sets" / NAME / "1.0.0"


PREAMBLE = f"""
{HIDE_TENSORFLOW}
from lensjax.data import catalogue, deeplense
catalogue.IMAGES_PER_CLASS["mini"] = {COUNTS!r}
"""


def run_python(code: str, *arguments: str) -> subprocess.CompletedProcess:
    """Runs code after the preamble in another process without TensorFlow."""
    return subprocess.run(
        [sys.executable, "-c", PREAMBLE + code, *arguments],
        cwd=REPOSITORY,
        env={**os.environ, "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        timeout=120,
    )


def assert_same(one, other):
    np.testing.assert_array_equal(one.images, other.images)
    np.testing.assert_array_equal(one.labels, other.labels)
    np.testing.assert_array_equal(one.parameters, other.parameters)
    assert one.info == other.info


def test_sets_are_those_of_the_contract():
    names = [f"model_{n}{noise}" for n in ("i", "ii", "iii") for noise in ("", "_noisy")]
    names.append("model_ii_conserved")
    expected = {f"deeplense/{name}{mini}" for name in names for mini in ("", "_mini")}
    assert set(deeplense.available_sets()) == expected
    assert len(deeplense.available_sets()) == len(expected)
    full = catalogue.IMAGES_PER_CLASS["full"]
    assert full == {"train": 30_000, "test": 5_000}


def test_content_does_not_depend_on_the_build_or_the_number_of_files(built, tmp_path):
    deeplense.prepare(NAME, str(tmp_path), num_shards=1)
    for split, count in COUNTS.items():
        one, four = (deeplense.read(NAME, folder, split) for folder in (str(tmp_path), built))
        assert len(one) == 3 * count
        assert_same(one, four)
    shards = pathlib.Path(built, NAME, "1.0.0").glob("deeplense-train.array_record-*")
    assert len(list(shards)) == 4


def test_split_has_the_declared_form(built):
    split = deeplense.read(NAME, built, "train")
    assert split.images.shape == (3 * COUNTS["train"], 64, 64, 1)
    assert split.images.dtype == split.parameters.dtype == np.float32
    assert split.labels.dtype == np.int32
    np.testing.assert_array_equal(split.labels, np.arange(len(split)) % 3)
    info = split.info
    assert info.name == NAME
    assert info.class_names == ("axion", "cdm", "no_sub")
    assert info.num_classes == 3
    assert info.parameter_names == parameters.PARAMETER_NAMES
    assert info.split_sizes == {name: 3 * count for name, count in COUNTS.items()}
    assert info.image_shape == (64, 64, 1)
    assert (info.flux_unit, info.published_scale) == ("counts/s", 2.0)
    assert (info.pixel_scale_arcsec, info.psf_fwhm_arcsec) == (0.101, 0.16)
    assert info.zero_point_mag == 24.0
    assert info.minimum == split.images.min()
    assert info.maximum == split.images.max()
    assert info == deeplense.locate(NAME, built).info()


def test_tfds_reads_the_same(built):
    source = tfds.builder(NAME, data_dir=built).as_data_source("train")
    split = deeplense.read(NAME, built, "train")
    assert len(source) == len(split)
    for index in (0, 1, 2, 150, len(split) - 1):
        np.testing.assert_array_equal(source[index]["image"], split.images[index])
        np.testing.assert_array_equal(source[index]["parameters"], split.parameters[index])
        assert source[index]["label"] == split.labels[index]


def test_splits_and_classes_never_share_a_key_or_an_image(built):
    keys = [
        jax.random.key_data(
            prng.keys(prng.key(0, "deeplense/model_ii", split, label), jnp.arange(5000))
        )
        for split in (0, 1)
        for label in range(3)
    ]
    assert len(np.unique(np.concatenate(keys), axis=0)) == 30_000
    images = [deeplense.read(NAME, built, split).images for split in COUNTS]
    flat = np.concatenate(images).reshape(-1, 64 * 64)
    assert len(np.unique(flat, axis=0)) == len(flat)


def test_parameters_are_nan_where_a_class_has_none(built):
    split = deeplense.read(NAME, built, "test")
    names = np.array(split.info.parameter_names)
    subhaloes = np.char.startswith(names, "subhalo_0") | np.char.startswith(names, "subhalo_1")
    missing = np.isnan(split.parameters)
    axion, cdm, no_sub = (missing[split.labels == label] for label in range(3))
    vortex = np.isin(names, ("log10_axion_mass", "vortex_half_length_arcsec", "vortex_cos_2a"))
    total = np.isin(names, ("subhalo_mass_nominal", "subhalo_mass_effective"))
    assert not axion[:, vortex | total].any()
    assert axion[:, subhaloes].all()
    assert not cdm[:, subhaloes | total].any()
    assert cdm[:, vortex].all()
    assert no_sub[:, vortex | subhaloes | total].all()
    assert missing[:, names == "exposure_time_s"].all()
    assert not missing[:, names == "source_x_arcsec"].any()


def test_masses_are_stored_as_labelled_and_as_they_act(built):
    split = deeplense.read(NAME, built, "test")
    column = {name: split.parameters[:, i] for i, name in enumerate(split.info.parameter_names)}
    nominal, effective = column["subhalo_mass_nominal"], column["subhalo_mass_effective"]
    np.testing.assert_allclose(nominal[split.labels == 0], 3e10, rtol=1e-5)
    np.testing.assert_allclose(effective[split.labels < 2], 0.376 * nominal[split.labels < 2], 2e-3)
    masses = [10 ** column[f"subhalo_{index:02d}_log10_mass"].astype(float) for index in range(25)]
    cdm = split.labels == 1
    np.testing.assert_allclose(np.sum(masses, axis=0)[cdm], nominal[cdm], rtol=1e-5)


@pytest.mark.parametrize("name", ["model_ii_mini", "model_ii_conserved_mini"])
def test_images_are_rendered_again_from_their_parameters(built, name):
    full_name = f"deeplense/{name}"
    deeplense.prepare(full_name, built)
    split = deeplense.read(full_name, built, "test")
    survey = SURVEYS[name.split("_mini")[0].removesuffix("_conserved")]
    again = parameters.render_parameters(split.parameters, split.labels, survey)
    assert again.shape == split.images.shape
    error = np.abs(again - split.images).max(axis=(1, 2, 3)) / split.images.max(axis=(1, 2, 3))
    assert error.max() < 2e-5


def test_rendering_refuses_what_does_not_fit():
    survey = SURVEYS["model_ii"]
    with pytest.raises(ValueError, match=r"shape \(2, 5\); expected \(2, 87\)"):
        parameters.render_parameters(np.zeros((2, 5)), np.zeros(2, int), survey)
    with pytest.raises(ValueError, match="labels go from 0 to 3; expected 0 to 2"):
        parameters.render_parameters(np.zeros((2, 87)), np.array([0, 3]), survey)


def test_noisy_set_shows_the_same_lenses_with_noise(built):
    deeplense.prepare("deeplense/model_ii_noisy_mini", built)
    clean = deeplense.read(NAME, built, "train")
    noisy = deeplense.read("deeplense/model_ii_noisy_mini", built, "train")
    exposure = clean.info.parameter_names.index("exposure_time_s")
    np.testing.assert_array_equal(noisy.parameters[:, exposure], 2260)
    others = np.arange(87) != exposure
    np.testing.assert_allclose(noisy.parameters[:, others], clean.parameters[:, others], rtol=1e-5)
    survey = SURVEYS["model_ii"]
    variance = survey.background_rms**2 + clean.images / 2260
    scores = (noisy.images - clean.images) / np.sqrt(variance)
    assert abs(scores.mean()) < 0.005
    assert abs(scores.std() - 1) < 0.005
    assert noisy.info.minimum < 0 < clean.info.minimum


def test_conserved_set_differs_in_the_main_halo_alone(built):
    name = "deeplense/model_ii_conserved_mini"
    deeplense.prepare(name, built)
    plain, conserved = deeplense.read(NAME, built, "test"), deeplense.read(name, built, "test")
    np.testing.assert_allclose(plain.parameters[:, 1:], conserved.parameters[:, 1:], rtol=1e-5)
    change = plain.parameters[:, 0] - conserved.parameters[:, 0]
    assert np.all(change[plain.labels == 2] == 0)
    assert np.all(change[plain.labels < 2] > 0)


def test_unknown_names_are_refused_with_the_known_ones(built):
    with pytest.raises(DataError, match=r"'deeplense/model_iv' does not exist.*deeplense/model_i,"):
        deeplense.prepare("deeplense/model_iv", built)
    with pytest.raises(DataError, match="has no split 'valid'; choose one of t"):
        deeplense.read(NAME, built, "valid")
    with pytest.raises(DataError, match=r"is not in .*model_i_mini.* build it first"):
        deeplense.read("deeplense/model_i_mini", built, "train")


def test_full_disk_is_said_before_the_build(tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=2**30))
    with pytest.raises(DataError, match=r"needs 1\.\d\d GiB .* 1\.00 GiB are free; ") as e:
        deeplense.prepare("deeplense/model_ii", str(tmp_path))
    assert str(tmp_path) in str(e.value)
    assert not list(tmp_path.glob("deeplense/model_ii/*"))


def test_folder_that_cannot_be_written_is_said(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match=r"cannot be written .* set data.directory"):
        deeplense.prepare(NAME, str(tmp_path / "file"))


def test_stale_set_is_refused_by_name(copied):
    directory, folder = copied
    metadata = json.loads((folder / "metadata.json").read_text())
    (folder / "metadata.json").write_text(json.dumps({**metadata, "fingerprint": "0123abcd"}))
    for refused in (
        lambda: deeplense.prepare(NAME, directory),
        lambda: deeplense.read(NAME, directory, "train"),
    ):
        with pytest.raises(DataError, match=r"model_ii_mini in .* is stale.*0123abcd.*remove") as e:
            refused()
        assert str(folder) in str(e.value)


@pytest.mark.parametrize("missing", ["dataset_info.json", "metadata.json", "features.json"])
def test_damaged_set_is_refused(copied, missing):
    directory, folder = copied
    (folder / missing).unlink()
    with pytest.raises(DataError, match=r"model_ii_mini in .* cannot be read; remove"):
        deeplense.read(NAME, directory, "train")


def test_set_without_one_of_its_files_is_refused(copied):
    directory, folder = copied
    (folder / "deeplense-train.array_record-00002-of-00004").unlink()
    with pytest.raises(DataError, match=r"lacks deeplense-train\.array_record-00002-of-00004"):
        deeplense.read(NAME, directory, "train")


def test_killed_build_leaves_nothing_that_looks_finished(built, tmp_path, monkeypatch):
    code = """
import os, signal
original = deeplense.simulate_chunks
def dying(source, split, starts):
    for number, chunk in enumerate(original(source, split, starts)):
        if number:
            os.kill(os.getpid(), signal.SIGKILL)
        yield chunk
deeplense.simulate_chunks = dying
deeplense.prepare(sys.argv[1], sys.argv[2])
"""
    killed = run_python(code, NAME, str(tmp_path))
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert len(list(tmp_path.glob("deeplense/model_ii_mini/incomplete.*"))) == 1
    with pytest.raises(DataError, match="build it first"):
        deeplense.read(NAME, str(tmp_path), "train")
    said = []
    monkeypatch.setattr(prepared.logging, "warning", lambda text, *rest: said.append(text % rest))
    deeplense.prepare(NAME, str(tmp_path))
    assert len(said) == 1
    assert "did not finish" in said[0]
    assert "starts over" in said[0]
    assert not list(tmp_path.glob("deeplense/model_ii_mini/incomplete.*"))
    assert_same(deeplense.read(NAME, str(tmp_path), "train"), deeplense.read(NAME, built, "train"))


def test_neither_building_nor_reading_imports_tensorflow(built, tmp_path):
    # TFDS's own writer needs TensorFlow as soon as a split exceeds this buffer.
    code = """
from tensorflow_datasets.core import shuffle
shuffle.MAX_MEM_BUFFER_SIZE = 1000
deeplense.prepare(sys.argv[1], sys.argv[2])
print(len(deeplense.read(sys.argv[1], sys.argv[2], "train")), "tensorflow" in sys.modules)
"""
    done = run_python(code, NAME, str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [str(3 * COUNTS["train"]), "False"]
    # Another process, but the same machine: bit for bit.
    assert_same(deeplense.read(NAME, str(tmp_path), "test"), deeplense.read(NAME, built, "test"))


def test_second_process_waits_for_the_first(tmp_path, monkeypatch):
    said = []
    monkeypatch.setattr(prepared.logging, "info", lambda text, *rest: said.append(text % rest))
    (tmp_path / "deeplense").mkdir()
    thread = threading.Thread(target=deeplense.prepare, args=(NAME, str(tmp_path)))
    with (tmp_path / "deeplense" / ".model_ii_mini.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        thread.start()
        deadline = time.monotonic() + 30
        while not said and time.monotonic() < deadline:
            time.sleep(0.02)
        assert said == [f"Another process is building {NAME}; waiting for it."]
        assert not (tmp_path / NAME / "1.0.0").exists()
    thread.join()
    assert deeplense.locate(NAME, str(tmp_path)).info().split_sizes["test"] == 3 * COUNTS["test"]


def test_directory_comes_from_the_environment(built, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", built)
    deeplense.prepare(NAME)
    assert len(deeplense.read(NAME, None, "test")) == 3 * COUNTS["test"]


@pytest.mark.parametrize("damage", ["cut", "changed"])
def test_damaged_shard_is_refused_by_name(copied, damage):
    directory, folder = copied
    shard = min(folder.glob("*train*array_record*"))
    content = bytearray(shard.read_bytes())
    if damage == "cut":
        content = content[: len(content) // 2]
    else:
        content[len(content) // 2] ^= 255
    shard.write_bytes(content)
    with pytest.raises(DataError, match=f"{NAME} in .* is damaged .* remove that folder"):
        deeplense.read(NAME, directory, "train")
