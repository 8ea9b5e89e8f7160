"""`dataset.json`: which constants and ranges are taken, and which are refused under their name."""

import json
from typing import Any

import pytest

from lensjax.data.flux_range import FEATURES
from lensjax.errors import WorkdirError
from lensjax.run.workdir import DATASET_FILE, read_dataset


def dataset(channels: int, **changes) -> dict:
    scaling = {"kind": "asinh", "shift": 0.5, "spread": 2.0, "softening": 0.1}
    content = {
        "name": "deeplense/folder",
        "fingerprint": "0",
        "class_names": [],
        "image_shape": [16, 16, channels],
        "flux_unit": "counts",
        "scaling": scaling | changes.pop("scaling", {}),
    }
    return content | changes


def read(folder, content):
    (folder / DATASET_FILE).write_text(json.dumps(content))
    return read_dataset(folder)


@pytest.mark.parametrize("channels", [1, 3])
def test_constants_are_numbers_or_one_for_each_channel(tmp_path, channels):
    assert read(tmp_path, dataset(channels))["scaling"]["spread"] == 2.0
    lists = {"shift": [-1.0] * channels, "spread": [2.0] * channels, "softening": [0.1] * channels}
    assert read(tmp_path, dataset(channels, scaling=lists))["scaling"]["spread"] == [2.0] * channels


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("spread", [1.0, 2.0]),
        ("spread", [1.0, 2.0, 0.0]),
        ("softening", [1.0, 2.0, float("inf")]),
        ("shift", [[1.0], 2.0, 3.0]),
        ("shift", []),
        ("softening", -1.0),
        ("spread", True),
    ],
)
def test_other_constants_are_refused_by_name(tmp_path, name, value):
    with pytest.raises(WorkdirError, match=rf"dataset\.json: scaling\.{name} is .*3 of them"):
        read(tmp_path, dataset(3, scaling={name: value}))


def test_ranges_of_flux_may_be_missing_and_must_fit(tmp_path):
    assert read(tmp_path, dataset(1))["flux_ranges"] == []
    bounds = {name: [[0.0, 1.0]] for name in FEATURES}
    assert read(tmp_path, dataset(1, flux_ranges=[bounds]))["flux_ranges"] == [bounds]
    wrongs: tuple[Any, ...] = (
        {},
        [1],
        [bounds | {"peak": [[0.0, 1.0]] * 2}],
        [bounds | {"peak": 1.0}],
    )
    for wrong in wrongs:
        with pytest.raises(WorkdirError, match=r"flux_ranges is .*of 1 channels under mean, peak"):
            read(tmp_path, dataset(1, flux_ranges=wrong))
