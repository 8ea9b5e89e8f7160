"""Sets that Apache Beam builds: the same as an ordinary build; nothing quick needs Beam itself."""

import json
import sys

import numpy as np
import pytest
from wheel_support import build_wheel, install, run

from lensjax.data import beam, catalogue, deeplense, parameters
from lensjax.data.dataset import SPLITS
from lensjax.errors import DataError

NAME = "deeplense/model_ii_mini"


def test_the_chunks_of_the_workers_hold_each_image_once(monkeypatch):
    def numbered(base, start, source, class_name):
        numbers = np.arange(start, start + catalogue.CHUNK)
        return numbers[:, None, None], numbers[:, None]

    monkeypatch.setattr(parameters, "simulate_chunk", numbered)
    source = deeplense.config_of(NAME).source
    for split, count in source.images_per_class.items():
        starts = deeplense.chunk_starts(source, split)
        examples = [pair for start in starts for pair in beam._simulate(start, source, split)]
        assert [key for key, _ in examples] == list(range(3 * count))
        for key, example in examples:
            assert (example["image"].item(), example["label"]) == divmod(key, 3)
            assert example["parameters"] == [key // 3]


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("model_iv", f"data set 'model_iv' does not exist; choose one of {NAME[:17]}"),
        (NAME, "building with Apache Beam needs apache_beam, which is not installed: pip install"),
    ],
)
def test_what_cannot_be_built_is_refused_in_a_line(monkeypatch, tmp_path, capsys, name, said):
    monkeypatch.setitem(sys.modules, "apache_beam", None)
    with pytest.raises(SystemExit) as caught:
        beam.main([name, f"--directory={tmp_path}", "--runner=FlinkRunner"])
    assert caught.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"lensjax: {said}")
    assert list(tmp_path.iterdir()) == []


def test_the_range_of_the_images_comes_from_what_the_workers_wrote(tmp_path):
    builder = beam.BeamDeeplense(data_dir=tmp_path, config="model_ii_mini")
    builder.data_path.mkdir(parents=True)
    with pytest.raises(DataError, match="every worker sees under the same path"):
        builder._process_pipeline_result(None)
    images = np.arange(12.0, dtype=np.float32).reshape(3, 2, 2) - 1
    ranges = [beam._range_of((key, {"image": image})) for key, image in enumerate(images)]
    joint = beam._joint_range([beam._joint_range(ranges[1:]), ranges[0]])
    beam._write_range(joint, str(builder.data_path / beam._RANGE_FILE))
    builder._process_pipeline_result(None)
    assert (builder.info.metadata["minimum"], builder.info.metadata["maximum"]) == (-1, 10)
    assert list(builder.data_path.iterdir()) == []


ORDINARY = f"from lensjax.data import deeplense; deeplense.prepare({NAME!r}, 'ordinary')"
SEVERAL = f"""
from lensjax.data import beam
options = ["--direct_running_mode=multi_processing", "--direct_num_workers=2"]
beam.prepare({NAME!r}, "several", options, num_shards=3)
"""


@pytest.mark.nightly
@pytest.mark.timeout(1800)
def test_beam_builds_what_an_ordinary_build_does_bit_for_bit(tmp_path):
    """In one process, and with two workers and three files a split; without TensorFlow."""
    python = install(build_wheel(tmp_path), "beam", tmp_path / "environment")
    command = [python, "-m", "lensjax.data.beam", NAME, "--directory=one"]
    for build in ([python, "-c", ORDINARY], command, [python, "-c", SEVERAL]):
        run(build, tmp_path)
    folder = tmp_path / "one" / NAME / "1.0.0"
    written = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    run(command, tmp_path)  # finds the set
    assert {path: path.stat().st_mtime_ns for path in folder.iterdir()} == written
    for directory in ("one", "several"):
        assert [path.name for path in (tmp_path / directory / NAME).iterdir()] == ["1.0.0"]
        metadata, expected = (
            json.loads((tmp_path / place / NAME / "1.0.0/metadata.json").read_text())
            for place in (directory, "ordinary")
        )
        assert metadata == expected
        for split in SPLITS:
            built, ordinary = (
                deeplense.read(NAME, str(tmp_path / place), split)
                for place in (directory, "ordinary")
            )
            for name in ("images", "labels", "parameters"):
                one, other = getattr(built, name), getattr(ordinary, name)
                assert one.dtype == other.dtype
                assert one.tobytes() == other.tobytes(), (directory, split, name)
            assert built.info == ordinary.info
