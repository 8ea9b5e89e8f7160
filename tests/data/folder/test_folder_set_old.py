"""Folders whose sets and splits must stay those of version 0.2, bit for bit."""

import hashlib
import json
import pathlib
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytest
from folder_support import (
    counts,
    pixels,
    prepare,
    scan,
    write,
    write_classes,
    write_flat,
    write_published,
)

from lensjax.data.folder.reading import Reading
from lensjax.files.planes import PlaneRules

# Written by version 0.2 from the same folders.
STORED = json.loads((pathlib.Path(__file__).parents[1] / "stored/folders_of_0_2.json").read_text())


def flat(root: pathlib.Path) -> None:
    write_flat(root, 40)


def classes(root: pathlib.Path) -> None:
    write_classes(root, num=30)


def published(root: pathlib.Path) -> None:
    write_published(root)


def own_splits(root: pathlib.Path) -> None:
    for number, name in enumerate(("train", "val")):
        write_classes(root / name, num=6, seed=50 * number)


def copies(root: pathlib.Path) -> None:
    write_classes(root, num=20)
    for index in range(20):
        write(root / "cdm" / f"again_{index}.npy", pixels(1000 + index).astype(">f4"))


def stack(root: pathlib.Path) -> None:
    write(root / "stack.npy", pixels(7, (300, 12, 12)))


def labelled(root: pathlib.Path) -> None:
    root.mkdir(parents=True)
    np.savez(
        root / "a.npz",
        images=pixels(3, (60, 12, 12)),
        labels=np.arange(60) % 3,
        parameters=pixels(4, (60, 2)),
        parameter_names=np.array(["a", "b"]),
    )


def channels(root: pathlib.Path) -> None:
    for index in range(30):
        write(root / f"{index}.npy", pixels(index, (12, 12, 3)))


def integers(root: pathlib.Path) -> None:
    for index in range(30):
        write(root / f"{index}.npy", counts(index))


def science(root: pathlib.Path) -> None:
    fits = pytest.importorskip("astropy.io.fits")
    root.mkdir(parents=True)
    for index in range(30):
        header = fits.Header({"BUNIT": "adu", "MAGZERO": 25.0 + index, "PIXSCALE": 0.1})
        hdus = [
            fits.ImageHDU(pixels(index).astype("f4"), header, name="SCI"),
            fits.ImageHDU(pixels(99).astype("f4"), name="ERR"),
        ]
        fits.HDUList([fits.PrimaryHDU(), *hdus]).writeto(root / f"{index}.fits")


def gaps(root: pathlib.Path) -> None:
    for index in range(30):
        image = pixels(index)
        image[index % 12, 3] = np.nan
        write(root / f"{index}.npy", image)


_MAKERS: tuple[Callable[..., None], ...] = (
    *(flat, classes, published, own_splits, copies, stack, labelled, channels),
    *(integers, science, gaps),
)
FOLDERS = {make.__name__: make for make in _MAKERS}
READINGS: dict[str, dict[str, Any]] = {"gaps": {"nan_policy": "mask"}, "stack": {"test_share": 0.3}}


@pytest.mark.parametrize("name", STORED)
def test_fingerprint_and_split_are_those_of_before(tmp_path, name):
    FOLDERS[name](tmp_path / "root")
    found = scan(tmp_path / "root", **READINGS.get(name, {}))
    test = found.of_split("test")
    digest = hashlib.sha256(b"".join(image.digest for image in test)).hexdigest()[:16]
    assert {"fingerprint": found.fingerprint, "test": digest, "num_test": len(test)} == STORED[name]


def test_the_memory_of_a_folder_is_found_under_its_old_name():
    class _Reading(NamedTuple):  # as version 0.2 had it
        layout: str = "auto"
        nan_policy: str = "refuse"
        on_bad_file: str = "refuse"
        test_share: float = 0.1

    for changes in ({}, {"layout": "NHW", "test_share": 0.25}, {"nan_policy": "mask"}):
        old = repr(_Reading(**changes)).replace("_Reading", "Reading")
        assert Reading(**changes).identity == old
    for newer in ({"files": "*"}, {"group": "x"}, {"rules": PlaneRules(("SCI",))}):
        assert Reading(**newer).identity != Reading().identity


def test_a_set_that_was_built_before_is_opened_without_new_questions(tmp_path, monkeypatch):
    """As of files that are asked about now; the images of its runs are in this set."""
    root, sets = tmp_path / "root", tmp_path / "sets"
    write_flat(root, 12)
    built = prepare(root, sets)

    def ask(*arguments):
        raise AssertionError("the folder was read again")

    monkeypatch.setattr("lensjax.data.folder.scan.check_names", ask)
    assert prepare(root, sets).fingerprint == built.fingerprint
