"""The cache: what is computed when, damaged files, other keys, two writers at once."""

import json
import multiprocessing
import os
import pathlib
import pickle

import numpy as np
import pytest
from absl import logging

from lensjax.evaluation import cache
from lensjax.evaluation.cache import Key, cached_features, cached_json
from lensjax.files.cache_folder import cache_folder

KEY: Key = {"data": "abc", "extractor": "def", "split": "test", "n": 15, "map": None, "exact": True}
OTHERS = [
    {**KEY, name: value}
    for name, value in {
        "data": "x",
        "extractor": "x",
        "split": "train",
        "n": 16,
        "map": "8bit",
    }.items()
]


def some_features(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(15, 4)).astype(np.float32)


class Counted:
    """A result that counts how often it was computed."""

    def __init__(self, result):
        self.result, self.calls = result, 0

    def __call__(self):
        self.calls += 1
        return self.result


def as_plain(result):
    return result.tolist() if isinstance(result, np.ndarray) else result


KINDS = {
    "features": (cached_features, some_features()),
    "json": (cached_json, {"ratio": 1.5, "list": [1, None, "ä"]}),
}
kinds = pytest.mark.parametrize(("cached", "result"), KINDS.values(), ids=KINDS)


def only_file(folder: pathlib.Path) -> pathlib.Path:
    [path] = folder.iterdir()
    return path


@kinds
def test_a_result_is_computed_once_for_a_key_in_any_order(tmp_path, cached, result):
    compute = Counted(result)
    first = cached(KEY, compute, tmp_path)
    second = cached(dict(sorted(KEY.items(), reverse=True)), compute, tmp_path)
    assert compute.calls == 1
    assert as_plain(first) == as_plain(second) == as_plain(result)


@kinds
@pytest.mark.parametrize("other", OTHERS, ids=lambda key: str(sorted(key.items() - KEY.items())))
def test_each_part_of_the_key_makes_another_result(tmp_path, cached, result, other):
    compute = Counted(result)
    cached(KEY, compute, tmp_path)
    cached(other, compute, tmp_path)
    cached({**KEY, "more": 1}, compute, tmp_path)
    assert compute.calls == 3
    cached(KEY, compute, tmp_path)
    assert compute.calls == 3


DAMAGES = {
    "empty": lambda content: b"",
    "cut": lambda content: content[: len(content) // 2],
    "garbage": lambda content: b"\xff\x00garbage" * 20,
    "turned bits": lambda content: content[:60] + bytes(255 - b for b in content[60:140]) + b"x",
    "pickle": lambda content: pickle.dumps({"key": KEY, "result": 1}),
    "other JSON": lambda content: b"[1, 2]",
}


@kinds
@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_file_is_computed_again_and_put_right(tmp_path, cached, result, damage):
    compute = Counted(result)
    cached(KEY, compute, tmp_path)
    path = only_file(tmp_path)
    path.write_bytes(damage(path.read_bytes()))
    assert as_plain(cached(KEY, compute, tmp_path)) == as_plain(result)
    assert compute.calls == 2
    assert as_plain(cached(KEY, compute, tmp_path)) == as_plain(result)
    assert compute.calls == 2
    assert only_file(tmp_path) == path


@pytest.mark.parametrize("seed", range(3))
@kinds
def test_no_damaged_byte_gives_anything_but_the_result(tmp_path, cached, result, seed):
    """A byte within a text may be another letter: then the key differs, or the result is JSON."""
    cached(KEY, lambda: result, tmp_path)
    path = only_file(tmp_path)
    whole, random = path.read_bytes(), np.random.default_rng(seed)
    for place in random.integers(0, len(whole), 60):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0x81]) + whole[place + 1 :])
        found = cached(KEY, lambda: result, tmp_path)
        assert as_plain(found) == as_plain(result)


@kinds
def test_a_file_of_another_key_under_this_name_is_not_believed(tmp_path, cached, result):
    compute = Counted(result)
    cached(KEY, compute, tmp_path)
    path = only_file(tmp_path)
    cached(OTHERS[0], compute, tmp_path)
    [other] = set(tmp_path.iterdir()) - {path}
    os.replace(other, path)
    cached(KEY, compute, tmp_path)
    assert compute.calls == 3


@pytest.mark.parametrize(
    "features",
    [np.full((15, 4), np.nan), np.array([[print, 1]], dtype=object)],
    ids=["NaN", "object"],
)
def test_features_that_are_not_numbers_are_computed_again_and_not_unpickled(tmp_path, features):
    compute = Counted(some_features())
    cached_features(KEY, compute, tmp_path)
    path = only_file(tmp_path)
    with np.load(path) as file:
        arrays = dict(file)
    np.savez(path, **{**arrays, "features": features}, allow_pickle=True)
    assert as_plain(cached_features(KEY, compute, tmp_path)) == as_plain(some_features())
    assert compute.calls == 2


def test_json_comes_back_the_same_the_first_and_the_second_time(tmp_path):
    first = cached_json(KEY, lambda: {"pair": (1, 2)}, tmp_path)
    assert first == {"pair": [1, 2]} == cached_json(KEY, lambda: None, tmp_path)


def test_none_is_a_result(tmp_path):
    compute = Counted(None)
    assert cached_json(KEY, compute, tmp_path) is None
    assert cached_json(KEY, compute, tmp_path) is None
    assert compute.calls == 1


@kinds
def test_key_stands_readable_in_the_file(tmp_path, cached, result):
    cached(KEY, lambda: result, tmp_path)
    path = only_file(tmp_path)
    if path.suffix == ".json":
        assert json.loads(path.read_text())["key"] == KEY
    else:
        with np.load(path) as file:
            assert json.loads(str(file["key"])) == KEY


@pytest.mark.parametrize("bad", [{}, {"n": [1]}, {"n": np.float32(1)}, {1: "n"}, {"n": np.nan}])
@kinds
def test_keys_that_cannot_be_compared_are_refused(tmp_path, cached, result, bad):
    with pytest.raises(ValueError, match=r"key|JSON"):
        cached(bad, lambda: result, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_results_that_are_not_json_are_refused(tmp_path):
    with pytest.raises(ValueError, match="JSON"):
        cached_json(KEY, lambda: float("nan"), tmp_path)
    with pytest.raises(TypeError, match="JSON"):
        cached_json(KEY, object, tmp_path)
    assert list(tmp_path.iterdir()) == []


@kinds
def test_an_error_leaves_nothing_behind(tmp_path, cached, result):
    def fail():
        raise RuntimeError("no")

    with pytest.raises(RuntimeError, match="no"):
        cached(KEY, fail, tmp_path)
    assert list(tmp_path.iterdir()) == []


@kinds
def test_a_folder_that_cannot_be_made_costs_a_warning_alone(tmp_path, monkeypatch, cached, result):
    warnings = []
    monkeypatch.setattr(logging, "warning", lambda text, *values: warnings.append(text % values))
    (tmp_path / "file").write_text("")
    found = cached(KEY, lambda: result, tmp_path / "file" / "folder")
    assert as_plain(found) == as_plain(result)
    assert any("not kept" in line for line in warnings)


def _write_often(folder: str, seed: int) -> None:
    path = cache._path(cache._canonical(KEY), "features", ".npz", folder)
    for _ in range(20):
        path.unlink(missing_ok=True)
        assert cached_features(KEY, some_features, folder).shape == (15, 4)


def test_processes_that_write_at_once_never_see_half_a_file(tmp_path):
    context = multiprocessing.get_context("spawn")
    processes = [
        context.Process(target=_write_often, args=(os.fspath(tmp_path), seed)) for seed in (0, 1)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0]
    assert {path.suffix for path in tmp_path.iterdir()} <= {".npz"}


def test_folder_is_the_argument_or_the_variable_or_the_home_folders(tmp_path, monkeypatch):
    monkeypatch.setenv("LENSJAX_CACHE", "/somewhere")
    assert cache_folder(tmp_path) == tmp_path
    assert cache_folder() == pathlib.Path("/somewhere")
    monkeypatch.delenv("LENSJAX_CACHE")
    monkeypatch.setenv("HOME", os.fspath(tmp_path))
    assert cache_folder() == tmp_path / ".cache" / "lensjax"
