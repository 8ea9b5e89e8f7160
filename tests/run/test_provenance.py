"""What a run says about the code and the machine that made it."""

import datetime
import json
import os

import jax
import pytest
from run_support import ROOT, signal_at, tiny_config, tiny_split

from lensjax.cli.sample_mode import sample_mode
from lensjax.errors import WorkdirError
from lensjax.inference.describe import describe
from lensjax.inference.generator import load_generator
from lensjax.run import provenance, stored, writers
from lensjax.run import workdir as files
from lensjax.training import generator_watch
from lensjax.training import monitor as monitoring
from lensjax.training.loop import train

pytestmark = pytest.mark.usefixtures("quick_compiles")
ENTRY = {
    "time_utc",
    "step",
    "seed",
    "data_name",
    "data_fingerprint",
    "versions",
    "hardware",
    "git_revision",
}


@pytest.fixture(scope="module")
def resumed(tmp_path_factory):
    """A workdir that was trained for 2 steps, then for the others, then found finished."""
    workdir = tmp_path_factory.mktemp("resumed")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(writers, "_open_tensorboard", lambda folder: None)
        patch.setattr(generator_watch.Samples, "draw", lambda self, params: (self._real[0][0], {}))
        patch.setattr(monitoring, "save_png", lambda path, picture: None)
        for stop in (1, None, None):
            files.claim(workdir, tiny_config())
            with pytest.MonkeyPatch.context() as stopping:
                stopping.setattr(writers.MetricWriters, "scalars", writers.MetricWriters.scalars)
                if stop:
                    signal_at(stop)
                train(tiny_config(), workdir, tiny_split())
    return workdir


def _starts(workdir) -> list[dict]:
    return json.loads((workdir / files.PROVENANCE_FILE).read_text())["starts"]


def test_hardware_is_json_and_names_what_computes():
    found = provenance.hardware()
    assert json.loads(json.dumps(found)) == found
    assert found["devices"] == {"platform": "cpu", "kind": "cpu", "count": jax.device_count()}
    assert found["cpu_model"]
    assert 1 <= found["cpu_usable"] <= found["cpu_count"] == os.cpu_count()
    assert found["memory_bytes"] > 2**28
    assert "Linux" in found["platform"]
    assert os.uname().nodename not in json.dumps(found).split('"')


def test_a_system_that_says_little_is_no_error(monkeypatch):
    def unknown(name):
        raise ValueError("unrecognized configuration name")

    monkeypatch.setattr(os, "sysconf", unknown)
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(
        provenance.pathlib.Path, "read_text", lambda path, **how: "processor\t: 0\n"
    )
    found = provenance.hardware()
    assert found["memory_bytes"] is None
    assert found["cpu_usable"] == os.cpu_count()
    assert found["cpu_model"]


def test_each_start_of_training_has_an_entry(resumed):
    starts = _starts(resumed)
    assert [entry["step"] for entry in starts] == [0, 2]  # the third start had nothing to do
    for entry in starts:
        assert set(entry) == ENTRY
        assert entry["seed"] == 0
        assert entry["data_name"] == tiny_split().info.name
        assert entry["data_fingerprint"] == tiny_split().info.fingerprint
        assert entry["versions"]["jax"] == jax.__version__
        assert entry["hardware"] == provenance.hardware()
    times = [datetime.datetime.fromisoformat(entry["time_utc"]) for entry in starts]
    now = datetime.datetime.now(datetime.UTC)
    assert all(time.utcoffset() == datetime.timedelta(0) for time in times)
    assert now - datetime.timedelta(hours=1) < times[0] <= times[1] <= now


def test_config_json_has_the_hardware_of_the_latest_start(resumed):
    content = json.loads((resumed / files.CONFIG_FILE).read_text())
    assert content["hardware"] == provenance.hardware()
    assert content["versions"] == provenance.versions()
    assert content["git_revision"] == provenance.git_revision()


def test_a_start_from_nothing_begins_the_record_anew(tmp_path):
    config, data = tiny_config(), tiny_split().info
    for step in (0, 5, 0, 3):
        files.record_start(tmp_path, step, config, data)
    assert [entry["step"] for entry in _starts(tmp_path)] == [0, 3]


def test_a_run_that_began_before_there_were_records_goes_on(tmp_path):
    files.record_start(tmp_path, 7, tiny_config(), tiny_split().info)
    assert [entry["step"] for entry in _starts(tmp_path)] == [7]


def test_a_damaged_record_is_named(tmp_path):
    (tmp_path / files.PROVENANCE_FILE).write_text("{")
    with pytest.raises(WorkdirError, match=r"provenance\.json cannot be read"):
        files.record_start(tmp_path, 7, tiny_config(), tiny_split().info)


def test_generated_images_say_which_data_and_machine_they_come_from(resumed):
    sample_mode(tiny_config(), resumed)
    meta = json.loads((resumed / "generated" / "meta.json").read_text())
    assert meta["data_name"] == tiny_split().info.name
    assert meta["data_fingerprint"] == tiny_split().info.fingerprint
    assert meta["hardware"] == provenance.hardware()
    assert meta["psf_fwhm_arcsec"] is None
    assert meta["zero_point_mag"] is None


def test_instrument_numbers_of_the_data_reach_the_generator(resumed):
    path = resumed / files.DATASET_FILE
    before = path.read_text()
    content = json.loads(before)
    try:
        del content["crc32"]
        stored.write_dataset(path, content | {"psf_fwhm_arcsec": 0.16, "zero_point_mag": 24.0})
        generator = load_generator(resumed)
        assert (generator.psf_fwhm_arcsec, generator.zero_point_mag) == (0.16, 24.0)
        del content["psf_fwhm_arcsec"], content["zero_point_mag"]
        path.write_text(json.dumps(content))  # as written before there were these fields
        meta = describe(load_generator(resumed), tiny_config().sample)
        assert (meta["psf_fwhm_arcsec"], meta["zero_point_mag"]) == (None, None)
    finally:
        path.write_text(before)


def test_the_revision_is_that_of_the_checkout():
    revision = provenance.git_revision()
    if (ROOT / ".git").exists():
        assert revision is not None
        assert len(revision.removesuffix("+changes")) == 40
    assert provenance.versions()["lensjax"]


def test_the_hash_of_code_is_that_of_the_files_right_inside(tmp_path):
    contents = {
        "one": {"a.py": "1", "b.py": "2"},
        "same": {"a.py": "1", "b.py": "2", "c.txt": "3", "inside/d.py": "4"},
        "other name": {"a.py": "1", "c.py": "2"},
        "other content": {"a.py": "1", "b.py": "3"},
    }
    found = {}
    for name, files_of in contents.items():
        for path, text in files_of.items():
            (tmp_path / name / path).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name / path).write_text(text)
        found[name] = provenance.code_hash(tmp_path / name)
    assert found["one"] == found["same"]
    assert len(set(found.values())) == 3
    assert provenance.code_hash(tmp_path / "one", tmp_path / "same") not in found.values()
