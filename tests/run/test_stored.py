"""Damage of a run's JSON files: each leaf replaced by nonsense, and the file by something else.

Whatever stands in a file, reading it ends with a `UserError` that names the file, or with values
that a run can have; `LEGITIMATE` lists those.
"""

import copy
import json
import os
import pathlib
import shutil
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from lensjax.errors import UserError, WorkdirError
from lensjax.inference import pretrained
from lensjax.run import stored
from lensjax.run import workdir as files
from lensjax.run.writers import read_metrics

DELETED = object()
NONSENSE: dict[str, Any] = {
    "null": None,
    "NaN": float("nan"),
    "infinity": float("inf"),
    "no text": "",
    "-1": -1,
    "0": 0,
    "1e30": 1e30,
    "1e-300": 1e-300,
    "400 digits": 10**400,
    "list": [],
    "object": {},
    "true": True,
    "deleted": DELETED,
    "long text": "x" * 10_000,
}
# Nonsense that a field of `dataset.json` may hold, since it cannot be told from another run's.
LEGITIMATE = {
    "flux_unit": {"no text"},
    "pixel_scale_arcsec": {"null", "deleted"},
    "psf_fwhm_arcsec": {"null", "deleted", "0", "1e-300"},
    "zero_point_mag": {"null", "deleted", "-1", "0", "1e-300"},
    "minimum": {"deleted", "-1", "0", "1e-300"},
    "maximum": {"deleted", "1e30"},
    "published_scale": {"deleted", "1e30"},
    "num_train_images": {"deleted"},
    "shift": {"-1", "0", "1e-300"},
    "spread": set(),
    "softening": {"deleted"},
    "flux_ranges": {"deleted", "list"},
}


def leaves(value: Any, path: tuple = ()) -> Iterator[tuple]:
    """Yields the path of everything in nested JSON."""
    items = value.items() if isinstance(value, dict) else enumerate(value)
    for key, child in items:
        yield (*path, key)
        if isinstance(child, (dict, list)):
            yield from leaves(child, (*path, key))


def damaged(content: dict, path: tuple, value: Any) -> dict:
    content = copy.deepcopy(content)
    owner: Any = content
    for key in path[:-1]:
        owner = owner[key]
    if value is DELETED:
        del owner[path[-1]]
    else:
        owner[path[-1]] = value
    return content


@pytest.fixture
def folder(tmp_path) -> pathlib.Path:
    """The JSON files of a run of each kind."""
    source = pretrained.WEIGHTS_FOLDER / "lens_classifier"
    for name in ("config.json", "dataset.json", "card.json"):
        shutil.copy(source / name, tmp_path)
    (tmp_path / "generated").mkdir()
    for name, content in {
        "classifier.json": {"step": 12, "loss": 0.5, "accuracy": 0.9, "temperature": 1.1},
        "provenance.json": {"starts": [{"step": 0}]},
        "generated/meta.json": {"num_images": 3, "seed": 0, "weights_sha256": "0a"},
    }.items():
        (tmp_path / name).write_text(json.dumps(content))
    return tmp_path


def _read_run(folder: pathlib.Path) -> None:
    config = files.load_config(folder)
    stored.check_fits(folder / "dataset.json", files.read_dataset(folder), config)


def _reader(name: str, rules: Any) -> Callable[[pathlib.Path], Any]:
    return lambda folder: stored.read_stored(folder / name, rules)


READERS: dict[str, Callable[[pathlib.Path], Any]] = {
    "config.json": _read_run,
    "dataset.json": _read_run,
    "classifier.json": _reader("classifier.json", stored.CLASSIFIER),
    "provenance.json": _reader("provenance.json", stored.PROVENANCE),
    "generated/meta.json": _reader("generated/meta.json", stored.GENERATED),
    "card.json": _reader("card.json", stored.CARD_OF_CLASSIFIER),
}


def refusal(folder: pathlib.Path, name: str, content: dict, path: tuple, nonsense: str) -> str:
    """The error of a damaged file in words; empty if it is read."""
    (folder / name).write_text(json.dumps(damaged(content, path, NONSENSE[nonsense])))
    try:
        READERS[name](folder)
    except UserError as error:
        return str(error)
    return ""


def check_all(folder: pathlib.Path, name: str, every: int) -> None:
    content = json.loads((folder / name).read_text())
    cases = [(path, nonsense) for path in leaves(content) for nonsense in NONSENSE]
    assert len(cases) >= 14
    taken = []
    for path, nonsense in cases[::every]:
        words = refusal(folder, name, content, path, nonsense)
        if not words:
            taken.append((path, nonsense))
            continue
        fields = [key for key in path if isinstance(key, str) and key != "config"] or ["config"]
        assert name.rpartition("/")[2] in words, (path, nonsense, words)
        assert fields[0] in words or fields[-1] in words, (path, nonsense, words)
        assert len(words) < 2500, (path, nonsense)
    if name != "dataset.json":
        return
    for path, nonsense in taken:
        if path[0] != "flux_ranges" or len(path) == 1:  # any end of a range may be right
            assert nonsense in LEGITIMATE[path[-1]], (path, nonsense)


@pytest.mark.parametrize("name", READERS)
def test_some_nonsense_in_each_file_is_refused_by_name(folder, name):
    check_all(folder, name, {"config.json": 307, "dataset.json": 67, "card.json": 97}.get(name, 1))


@pytest.mark.nightly
@pytest.mark.parametrize("name", ["config.json", "dataset.json"])
def test_all_nonsense_in_each_file_is_refused_by_name(folder, name):
    check_all(folder, name, 1)


@pytest.mark.parametrize("name", READERS)
def test_something_else_in_the_place_of_a_file_is_refused(folder, name):
    path = folder / name
    contents = (b"", b"[]", b"null", b"\xff", b'{"a": 1, "a": 2}', b"{}" * 2, b"[" * 10**5)
    for content in (*contents, b"{}") if name != "config.json" else contents:
        path.write_bytes(content)
        with pytest.raises(UserError, match=path.name):
            READERS[name](folder)
    path.unlink()
    for make in (path.mkdir, lambda: os.mkfifo(path)):
        make()
        with pytest.raises(WorkdirError, match=rf"{path.name} cannot be read: it is not a file"):
            READERS[name](folder)
        path.rmdir() if path.is_dir() else path.unlink()
    with path.open("wb") as stream:
        stream.truncate(2**30)
    with pytest.raises(WorkdirError, match="has 1,073,741,824 bytes"):
        READERS[name](folder)


def test_fields_of_a_newer_version_are_ignored_but_in_the_configuration(folder):
    for name in READERS:
        content = json.loads((folder / name).read_text())
        (folder / name).write_text(json.dumps(content | {"of_the_future": {"a": [1]}}))
        READERS[name](folder)
    content = json.loads((folder / "config.json").read_text())
    content["config"]["train"]["of_the_future"] = 1
    (folder / "config.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match=r"config\.json: train\.of_the_future: .*no such field"):
        _read_run(folder)


@pytest.mark.parametrize("name", ["seed.x", "data.name"])
def test_the_path_of_a_field_is_no_name_of_one(folder, name):
    content = json.loads((folder / "config.json").read_text())
    content["config"][name] = 1
    (folder / "config.json").write_text(json.dumps(content))
    with pytest.raises(WorkdirError, match=rf"config has a field '{name}'"):
        _read_run(folder)


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("class_names", ["axion", "cdm"], "class_names names 2 classes; allowed: 3"),
        ("class_names", ["cdm", "axion", "no_sub"], r"class_names is .*allowed: \['axion', 'cdm'"),
        ("class_names", ["axion", "cdm", "cdm"], "class_names is"),
        ("image_shape", [32, 64, 1], r"image_shape is \[32, 64, 1\]; allowed: \[64, 64, 1\]"),
        ("image_shape", [10**6, 10**6, 1], "image_shape is"),
        ("image_shape", [2**14, 2**14, 3], "image_shape is"),
        ("band_names", ["a", "b"], "band_names is .*allowed: a list of 0 or 1 entries"),
        ("band_zero_points_mag", [float("nan")], "band_zero_points_mag is"),
        ("minimum", 10.0, "minimum is 10.0, above maximum"),
    ],
)
def test_what_does_not_go_together_is_refused(folder, field, value, words):
    content = json.loads((folder / "dataset.json").read_text())
    (folder / "dataset.json").write_text(json.dumps(content | {field: value}))
    with pytest.raises(WorkdirError, match=rf"dataset\.json:? .*{words}"):
        _read_run(folder)


def test_a_number_that_could_be_right_is_refused_if_another_was_written(folder):
    path = folder / "dataset.json"
    content, without_checksum = json.loads(path.read_text()), stored.read_dataset(path)
    stored.write_dataset(path, content)
    written = json.loads(path.read_text())
    assert stored.read_dataset(path) == without_checksum
    changes: tuple[dict[str, Any], ...] = (
        {"scaling": content["scaling"] | {"shift": content["scaling"]["shift"] + 1e-15}},
        {"published_scale": 3.0},
        {"zero_point_mag": None},
        {"flux_unit": "counts"},
        {"flux_ranges": []},
        {"of_the_future": 1},
        {"crc32": written["crc32"] + 1},
        {"crc32": "none"},
    )
    for change in changes:
        path.write_text(json.dumps(written | change))
        with pytest.raises(WorkdirError, match=r"dataset\.json: .* does not fit its crc32"):
            stored.read_dataset(path)


def test_constants_that_take_the_pixels_out_of_the_range_are_refused(folder):
    content = json.loads((folder / "dataset.json").read_text())
    for name, value in {"spread": 1e6, "shift": -1e5, "softening": 1e9}.items():
        scaling = content["scaling"] | {name: value}
        (folder / "dataset.json").write_text(json.dumps(content | {"scaling": scaling}))
        with pytest.raises(WorkdirError, match=r"scaling is .*which maps the set's pixels"):
            _read_run(folder)


def test_damaged_lines_of_metrics_are_left_out_with_a_warning(tmp_path, caplog):
    path = tmp_path / "metrics.jsonl"
    lines = [b'{"step": 1, "loss": 2.0, "of_the_future": null}']
    path.write_bytes(lines[0] + b'\n{"step": 2, "lo')
    assert read_metrics(path) == [{"step": 1, "loss": 2.0, "of_the_future": None}]
    assert not caplog.records  # the end that a kill left
    wrong = [b"[" * 10**5, b'{"step": 2, "loss": "x"}', b'{"step": true}', b'{"step": -1}', b"\xff"]
    wrong += [b'{"loss": 1.0}', b'{"step": 3, "loss": NaN}', b'{"step": 1e400}', b"{}", b""]
    path.write_bytes(b"\n".join([lines[0], *wrong, lines[0], b""]))
    assert len(read_metrics(path)) == 2
    assert "10 lines are left out because they are damaged; line 2 is nested" in caplog.text
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(WorkdirError, match="is not a file"):
        read_metrics(path)


def header(fields: dict, data: int = 8) -> bytes:
    text = json.dumps(fields).encode()
    return len(text).to_bytes(8, "little") + text + bytes(data)


def tensor(dtype: str = "F32", shape: Any = (2,), offsets: Any = (0, 8)) -> dict:
    return {"a": {"dtype": dtype, "shape": shape, "data_offsets": offsets}}


SAFETENSORS = {
    "empty": b"",
    "short": b"\x01",
    "8 EB of header": (2**63 - 1).to_bytes(8, "little") + b"{}",
    "no JSON": (4).to_bytes(8, "little") + b"{{{{",
    "list": (2).to_bytes(8, "little") + b"[]",
    "other dtype": header(tensor("I32")),
    "double": header(tensor("F64", (1,))),
    "unknown dtype": header(tensor("F31")),
    "other shape": header(tensor(shape=(1, 2))),
    "8 EB of shape": header(tensor(shape=(2**61,))),
    "overflow": header(tensor(shape=(2**63, 2**63))),
    "negative": header(tensor(shape=(-2,))),
    "offsets beyond": header(tensor(offsets=(0, 80))),
    "offsets back": header(tensor(offsets=(8, 0))),
    "too much data": header(tensor(), data=16),
    "no tensor": header({}, data=0),
    "other name": header({"b": tensor()["a"]}),
    "infinite": header(tensor())[:-4] + np.float32(np.inf).tobytes(),
}


@pytest.mark.parametrize("name", SAFETENSORS)
def test_safetensors_that_are_not_the_expected_arrays_are_refused(name):
    with pytest.raises(UserError, match=r"is no sound safetensors|allowed: |not finite"):
        pretrained.parameters_of(SAFETENSORS[name], {"a": (2,)})


def test_sound_safetensors_are_read():
    found = pretrained.parameters_of(header(tensor()), {"a": (2,)})
    np.testing.assert_array_equal(found["a"], [0.0, 0.0])
