"""Sets that are built in parts: the same as a single build, whatever happens to the jobs."""

import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import threading
from types import SimpleNamespace

import numpy as np
import pytest
import tensorflow_datasets as tfds
from run_support import HIDE_TENSORFLOW, ROOT, tiny_config

from lensjax.cli import modes
from lensjax.data import catalogue, deeplense, parts, parts_builder, prepared
from lensjax.errors import ConfigError, DataError
from lensjax.run import datasets

# Four chunks in train and two in test, the last of each not full.
_CHUNK = catalogue.CHUNK
COUNTS = {"train": 3 * _CHUNK + 12, "test": _CHUNK + 10}
NAME = "deeplense/model_ii_mini"
REPOSITORY = ROOT
COMMAND = f"--mode=build_data --config.data.name={NAME} --config.data.num_parts=3"


@pytest.fixture(scope="module", autouse=True)
def _small_sets():
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(catalogue.IMAGES_PER_CLASS, "mini", COUNTS)
        yield


@pytest.fixture(scope="module")
def single(tmp_path_factory):
    """A folder with the set of a single build."""
    directory = str(tmp_path_factory.mktemp("single"))
    deeplense.prepare(NAME, directory)
    return directory


@pytest.fixture(scope="module")
def three(tmp_path_factory):
    """A folder with three parts that nobody joined."""
    directory = str(tmp_path_factory.mktemp("three"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parts, "_joined", lambda *arguments: None)
        for part in range(3):
            parts.build_part(NAME, directory, 3, part)
    return directory


@pytest.fixture
def copied(three, tmp_path):
    """A copy of that folder that a test may spoil."""
    shutil.copytree(three, tmp_path / "sets")
    return str(tmp_path / "sets")


@pytest.fixture
def said(monkeypatch):
    """What the log says, with its level in front."""
    lines: list[str] = []
    logging = SimpleNamespace(
        info=lambda text, *rest: lines.append(f"info: {text % rest}"),
        warning=lambda text, *rest: lines.append(f"warning: {text % rest}"),
    )
    for module in (parts, prepared):  # TFDS has the same logger
        monkeypatch.setattr(module, "logging", logging)
    return lines


def folder_of(directory: str, part: int, num_parts: int = 3) -> pathlib.Path:
    return parts.locate_part(NAME, directory, num_parts, part).folder


def shards_of(folder: pathlib.Path, split: str) -> list[pathlib.Path]:
    return sorted(folder.glob(f"*-{split}.array_record*"))


def assert_same(directory: str, single: str) -> None:
    """Checks a finished set, and that nothing else is left."""
    for split, count in COUNTS.items():
        one, other = (deeplense.read(NAME, folder, split) for folder in (directory, single))
        assert len(one) == 3 * count
        np.testing.assert_array_equal(one.images, other.images)
        np.testing.assert_array_equal(one.labels, other.labels)
        np.testing.assert_array_equal(one.parameters, other.parameters)
        assert one.info == other.info
    assert [path.name for path in pathlib.Path(directory, NAME).iterdir()] == ["1.0.0"]


@pytest.mark.parametrize("num_parts", [1, 3, 4])
def test_parts_hold_what_a_single_build_does(single, tmp_path, num_parts):
    """Three and four parts are more than the test split has chunks."""
    order = [*range(1, num_parts), 0]
    found = [parts.build_part(NAME, str(tmp_path), num_parts, part) for part in order]
    assert found[:-1] == [None] * (num_parts - 1)
    assert found[-1] == deeplense.locate(NAME, str(tmp_path))
    assert_same(str(tmp_path), single)
    folder = tmp_path / NAME / "1.0.0"
    written = [json.loads((folder / "metadata.json").read_text())]
    written.append(json.loads(pathlib.Path(single, NAME, "1.0.0/metadata.json").read_text()))
    assert written[0] == written[1]
    assert len(shards_of(folder, "train")) == num_parts
    assert len(shards_of(folder, "test")) == min(num_parts, 2)


def test_tfds_reads_the_joined_set(single, copied):
    parts.join(NAME, copied, 3)
    for split in COUNTS:
        one, other = (
            tfds.builder(NAME, data_dir=folder).as_data_source(split) for folder in (copied, single)
        )
        assert len(one) == len(other)
        for index in (0, 1, 3 * _CHUNK - 1, 3 * _CHUNK, len(one) - 1):
            np.testing.assert_array_equal(one[index]["image"], other[index]["image"])
            assert one[index]["label"] == other[index]["label"]


@pytest.mark.parametrize("name", [NAME, "deeplense/model_i"])
@pytest.mark.parametrize("num_parts", [1, 2, 3, 4])
def test_each_chunk_is_in_one_part_and_no_part_is_without_training_images(name, num_parts):
    configs = [parts._config(name, num_parts, part) for part in range(num_parts)]
    source = deeplense.config_of(name).source
    for split, count in source.images_per_class.items():
        starts = [start for one in configs for start in parts_builder.chunk_starts(one, split)]
        assert starts == list(range(0, count, _CHUNK))
        assert sum(one.num_images(split) for one in configs) == 3 * count
    sizes = [one.num_images("train") for one in configs]
    assert min(sizes) > 0
    assert max(sizes) - min(sizes) <= 3 * 2 * _CHUNK


@pytest.mark.parametrize("part", [None, 0])
@pytest.mark.parametrize(("name", "most"), [(NAME, 4), ("deeplense/model_ii", 235)])
def test_more_parts_than_chunks_are_refused_with_the_most(tmp_path, name, most, part):
    data = tiny_config(data={"name": name, "num_parts": most + 1, "part": part}).data
    message = rf"data\.num_parts: got {most + 1}; allowed: at most {most} for {name},"
    with pytest.raises(DataError, match=message):
        datasets.prepare_in_parts(data)
    assert not list(tmp_path.iterdir())


def test_missing_parts_are_named_with_their_command(copied, said):
    for part in (0, 2):
        shutil.rmtree(folder_of(copied, part))
    with pytest.raises(DataError) as caught:
        parts.join(NAME, copied, 3)
    expected = (
        f"data set {NAME} lacks these of its 3 parts: 0, 2; build each of them "
        f"({COMMAND} --config.data.part=PART)"
    )
    assert str(caught.value) == expected
    assert not (pathlib.Path(copied, NAME) / "1.0.0").exists()
    assert parts.build_part(NAME, copied, 3, 2) is None
    assert said[-1] == f"info: The set is not joined yet: {expected.replace('0, 2;', '0;')}"


def test_a_finished_part_is_left_alone(copied):
    shutil.rmtree(folder_of(copied, 0))
    before = {path: path.stat().st_mtime_ns for path in folder_of(copied, 1).iterdir()}
    assert parts.build_part(NAME, copied, 3, 1) is None
    assert {path: path.stat().st_mtime_ns for path in folder_of(copied, 1).iterdir()} == before


def test_a_stale_part_is_named_and_not_joined(copied):
    file = folder_of(copied, 1) / "metadata.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "fingerprint": "0123abcd"}))
    for refused in (
        lambda: parts.join(NAME, copied, 3),
        lambda: parts.build_part(NAME, copied, 3, 1),
    ):
        with pytest.raises(DataError, match=r"\(part 1 of 3\) in .* is stale: .* 0123abcd,") as e:
            refused()
        assert str(file.parent) in str(e.value)
        assert f"({COMMAND} --config.data.part=1)" in str(e.value)
    assert not (pathlib.Path(copied, NAME) / "1.0.0").exists()


def test_parts_of_another_number_are_named_and_not_joined(single, copied, said):
    assert parts.build_part(NAME, copied, 4, 3) is None
    others = pathlib.Path(copied, NAME, "parts")
    with pytest.raises(DataError) as caught:
        parts.join(NAME, copied, 4)
    message = "{} has stale parts, not of {}, which are not joined: {}; remove"
    assert message.format(others, 4, "0-of-3, 1-of-3, 2-of-3") in str(caught.value)
    parts.join(NAME, copied, 3)
    assert said[-1].startswith(f"warning: {message.format(others, 3, '3-of-4')}")
    assert folder_of(copied, 3, 4).exists()
    shutil.rmtree(others)
    assert_same(copied, single)


@pytest.mark.parametrize("damage", ["missing", "cut", "changed"])
def test_a_damaged_file_of_a_part_is_named(copied, damage):
    (shard,) = shards_of(folder_of(copied, 1), "train")
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 255
    if damage == "missing":
        shard.unlink()
    else:
        shard.write_bytes(content if damage == "changed" else content[: len(content) // 2])
    words = "lacks" if damage == "missing" else "is damaged:"
    with pytest.raises(DataError, match=rf"\(part 1 of 3\) in .* {words} {shard.name}.* remove"):
        parts.join(NAME, copied, 3)
    if damage != "missing":  # else a part is missing, which only the log says
        with pytest.raises(DataError, match=rf"\(part 1 of 3\) in .* {words} {shard.name}"):
            parts.build_part(NAME, copied, 3, 2)
    assert [path.name for path in pathlib.Path(copied, NAME).iterdir()] == ["parts"]


def run_killed(code: str, directory: str) -> None:
    """Runs code without TensorFlow in another process, which has to end by SIGKILL."""
    preamble = f"""
{HIDE_TENSORFLOW}
import os, signal
from lensjax.data import catalogue, parameters, parts
catalogue.IMAGES_PER_CLASS["mini"] = {COUNTS!r}
def dying(function, after):
    left = [after]
    def called(*arguments):
        left[0] -= 1
        if left[0] < 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*arguments)
    return called
"""
    done = subprocess.run(
        [sys.executable, "-c", preamble + code, NAME, directory],
        cwd=REPOSITORY,
        env={**os.environ, "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr


def test_a_killed_part_is_made_again(single, copied, said):
    shutil.rmtree(folder_of(copied, 2))
    code = """
parameters.simulate_chunk = dying(parameters.simulate_chunk, 4)
parts.build_part(sys.argv[1], sys.argv[2], 3, 2)
"""
    run_killed(code, copied)
    (left,) = folder_of(copied, 2).parent.glob("incomplete.*")
    assert shards_of(left, "train")
    with pytest.raises(DataError, match="lacks these of its 3 parts: 2;"):
        parts.join(NAME, copied, 3)
    assert parts.build_part(NAME, copied, 3, 2) is not None
    (warning,) = [line for line in said if line.startswith("warning: ")]
    assert f"An earlier build of {NAME} (part 2 of 3) did not finish; {left} is removed" in warning
    assert_same(copied, single)


def test_a_killed_join_is_repeated(single, copied, said):
    code = """
os.link = dying(os.link, 2)
parts.join(sys.argv[1], sys.argv[2], 3)
"""
    run_killed(code, copied)
    (left,) = pathlib.Path(copied, NAME).glob("incomplete.*")
    assert len(shards_of(left, "train")) == 2
    with pytest.raises(DataError, match="build it first"):
        deeplense.read(NAME, copied, "train")
    parts.join(NAME, copied, 3)
    assert not left.exists()
    assert_same(copied, single)


def test_a_join_that_was_killed_while_it_removed_its_parts_is_finished(single, copied, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(parts, "_remove", lambda found: None)
        parts.join(NAME, copied, 3)
    shutil.rmtree(folder_of(copied, 0))
    assert folder_of(copied, 1).exists()
    parts.join(NAME, copied, 3)
    assert_same(copied, single)


@pytest.mark.parametrize("links", [True, False])
def test_files_are_copied_only_where_there_are_no_links(single, copied, monkeypatch, links):
    def refuse(source, target):
        raise PermissionError(1, "Operation not permitted")

    if not links:
        monkeypatch.setattr(os, "link", refuse)
    (before,) = shards_of(folder_of(copied, 1), "train")
    inode = before.stat().st_ino
    parts.join(NAME, copied, 3)
    after = shards_of(pathlib.Path(copied, NAME, "1.0.0"), "train")[1].stat()
    assert (after.st_ino == inode) == links
    assert after.st_nlink == 1
    assert_same(copied, single)


@pytest.mark.parametrize("part", [None, 0, 2])
def test_a_finished_set_is_said_and_left_alone(copied, said, part):
    wanted = parts.join(NAME, copied, 3)
    before = {path: path.stat().st_mtime_ns for path in wanted.folder.iterdir()}
    said.clear()
    data = tiny_config(data={"name": NAME, "directory": copied, "num_parts": 3, "part": part}).data
    assert datasets.prepare_in_parts(data) == wanted
    assert said == [f"info: {NAME} is in {wanted.folder} already."]
    assert {path: path.stat().st_mtime_ns for path in wanted.folder.iterdir()} == before
    assert [path.name for path in pathlib.Path(copied, NAME).iterdir()] == ["1.0.0"]


def run_together(*functions) -> list:
    """Calls functions in threads; returns what each returned or raised."""
    found: list = [None] * len(functions)

    def call(place):
        try:
            found[place] = functions[place]()
        except BaseException as error:
            found[place] = error

    threads = [threading.Thread(target=call, args=(n,)) for n in range(len(functions))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=120)
    return found


def test_of_two_last_finishers_one_joins(single, copied, monkeypatch):
    for part in (1, 2):
        shutil.rmtree(folder_of(copied, part))
    barrier, joins = threading.Barrier(2, timeout=60), []
    complaint, joined = parts._complaint, parts.JoinedDeeplense

    def both_find_all_parts(*arguments):
        barrier.wait()
        found = complaint(*arguments)
        barrier.wait()
        return found

    def counted(*arguments, **others):
        joins.append(1)
        return joined(*arguments, **others)

    monkeypatch.setattr(parts, "_complaint", both_find_all_parts)
    monkeypatch.setattr(parts, "JoinedDeeplense", counted)
    found = run_together(*(lambda n=n: parts.build_part(NAME, copied, 3, n) for n in (1, 2)))
    assert found == [deeplense.locate(NAME, copied)] * 2
    assert len(joins) == 1
    assert_same(copied, single)


def test_two_jobs_of_one_part_do_not_spoil_each_other(single, copied):
    shutil.rmtree(folder_of(copied, 1))
    found = run_together(*(lambda: parts.build_part(NAME, copied, 3, 1) for _ in range(2)))
    assert found == [deeplense.locate(NAME, copied)] * 2
    assert_same(copied, single)


@pytest.mark.parametrize("step", ["_complaint", "build"])
def test_parts_that_another_job_joined_in_the_meantime_are_not_missed(
    single, copied, monkeypatch, step
):
    """The other job joins, and removes the parts, just before this one looks or builds."""
    complaint, build_once = parts._complaint, prepared.PreparedSet.build_once

    def others_first(function):
        def called(*arguments):
            monkeypatch.setattr(parts, "_complaint", complaint)
            monkeypatch.setattr(prepared.PreparedSet, "build_once", build_once)
            parts.join(NAME, copied, 3)
            return function(*arguments)

        return called

    if step == "build":
        monkeypatch.setattr(prepared.PreparedSet, "build_once", others_first(build_once))
    else:
        monkeypatch.setattr(parts, "_complaint", others_first(complaint))
    assert parts.build_part(NAME, copied, 3, 1) == deeplense.locate(NAME, copied)
    assert_same(copied, single)


def test_a_part_that_fails_after_others_joined_is_no_error(single, copied, monkeypatch):
    shutil.copytree(folder_of(copied, 1), pathlib.Path(copied, "part"))
    shutil.rmtree(folder_of(copied, 1))

    def failing(builder, **arguments):
        shutil.copytree(pathlib.Path(copied, "part"), folder_of(copied, 1))
        parts.join(NAME, copied, 3)
        raise OSError(39, "Directory not empty")

    monkeypatch.setattr(parts.DeeplensePart, "download_and_prepare", failing)
    assert parts.build_part(NAME, copied, 3, 1) == deeplense.locate(NAME, copied)
    assert_same(copied, single)


def test_the_mode_builds_parts_and_shows_the_finished_set(single, tmp_path, capsys):
    data = {"name": NAME, "directory": str(tmp_path), "num_parts": 2}
    for part in (1, 0):
        assert capsys.readouterr().out == ""
        config = tiny_config(data=data | {"part": part})
        modes.run("build_data", config, tmp_path / "run")
    shown = capsys.readouterr().out
    assert f"{NAME}, fingerprint" in shown
    sheet = tmp_path / NAME / "1.0.0" / "contact_sheet.png"
    assert f"contact sheet: {sheet}" in shown
    assert sheet.exists()
    assert_same(str(tmp_path), single)


@pytest.mark.parametrize("mode", ["train", "sample", "evaluate", "classify", "export"])
@pytest.mark.parametrize("part", [None, 1])
def test_other_modes_refuse_parts(tmp_path, mode, part):
    config = tiny_config(data={"num_parts": 2, "part": part})
    with pytest.raises(ConfigError) as caught:
        modes.run(mode, config, tmp_path / "run")
    expected = (
        f"data.num_parts: got 2; allowed: None with --mode={mode}; --mode=build_data builds a data "
        "set in parts"
    )
    assert str(caught.value) == expected
    assert not list(tmp_path.iterdir())
