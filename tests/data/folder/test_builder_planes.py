"""Variances and masks of a user's files: stored, read back, and weighed in the loss."""

from typing import Any

import numpy as np
import pytest
from folder_support import SIDE, pixels, prepare

import lensjax
from lensjax.config import ConfigError, default_config, from_config_dict
from lensjax.errors import DataError
from lensjax.files.planes import PlaneRules

fits = pytest.importorskip("astropy.io.fits")

NUM = 8
OPTIONS: dict[str, Any] = {"variance_planes": ("ERR",), "mask_planes": ("DQ",)}


def planes_of(index: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Image, standard deviation and flags; the image is NaN and infinite where it is flagged."""
    image = pixels(index).astype("f4")
    flags = np.zeros((SIDE, SIDE), np.int16)
    flags[index, 2:4] = 4
    image[index, 2:4] = np.nan, 1e30
    return image, (0.1 + pixels(50 + index)).astype("f4"), flags


@pytest.fixture
def root(tmp_path):
    (tmp_path / "root").mkdir()
    for index in range(NUM):
        image, sigma, flags = planes_of(index)
        hdus = [fits.ImageHDU(image, name="SCI"), fits.ImageHDU(sigma, name="ERR")]
        hdus += [fits.ImageHDU(flags, name="DQ")]
        fits.HDUList([fits.PrimaryHDU(), *hdus]).writeto(tmp_path / "root" / f"{index}.fits")
    return tmp_path / "root"


def index_of(sigma: np.ndarray) -> int:
    known = [planes_of(index)[1] for index in range(NUM)]
    return int(np.argmin([np.abs(sigma - one).max() for one in known]))


def test_all_three_planes_come_back(root, tmp_path):
    sets, count = str(tmp_path / "sets"), 0
    for split in ("train", "test"):
        images, table, variance, mask = lensjax.load_data(
            "folder", split, sets, str(root), with_planes=True, **OPTIONS
        )
        assert variance is not None
        assert mask is not None
        masked, _ = lensjax.load_data("folder", split, sets, str(root), **OPTIONS)
        assert len(images) == len(table) == len(variance) == len(mask)
        for place in range(len(images)):
            image, sigma, flags = planes_of(index_of(np.sqrt(variance[place, ..., 0])))
            np.testing.assert_array_equal(images[place, ..., 0], image)
            np.testing.assert_allclose(variance[place, ..., 0], sigma**2, 1e-6)
            np.testing.assert_array_equal(mask[place, ..., 0], flags != 0)
            np.testing.assert_array_equal(
                masked[place, ..., 0], np.where(flags != 0, np.nan, image)
            )
            count += 1
    assert count == NUM


def test_without_the_planes_the_same_files_are_another_set(root, tmp_path):
    sets = tmp_path / "sets"
    with pytest.raises(DataError, match="NaN or infinite"):
        prepare(root, sets)  # nobody said that the flagged pixels are not to be used
    flagged = prepare(root, sets, rules=PlaneRules(mask_planes=("DQ",)))
    weighed = prepare(root, sets, rules=PlaneRules((), ("ERR",), ("DQ",)))
    assert flagged.fingerprint != weighed.fingerprint
    assert (flagged.info().masked, flagged.info().has_variance) == (True, False)
    assert (weighed.info().masked, weighed.info().has_variance) == (True, True)
    assert flagged.info().maximum < 1e3  # masked pixels say nothing about the range


def test_of_masked_bits_only_those_that_are_asked_for(root, tmp_path):
    rules = PlaneRules(mask_planes=("DQ",), mask_bits=3)
    with pytest.raises(DataError, match="NaN or infinite"):
        prepare(root, tmp_path / "sets", rules=rules)


def test_an_image_that_is_masked_all_over_is_refused(root, tmp_path):
    with fits.open(root / "3.fits", mode="update") as hdus:
        hdus["DQ"].data[:] = 1
    with pytest.raises(DataError, match=r"3\.fits: has no finite pixel that is not masked"):
        prepare(root, tmp_path / "sets", rules=PlaneRules(mask_planes=("DQ",)))


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"loss.weighting": "inverse_variance"}, "loss.weighting"),
        ({"data.bands": "channels"}, "data.planes"),
        ({"data.planes": ("A",), "data.bands": "channels"}, "data.planes"),
        ({"data.mask_bits": 4}, "data.mask_bits"),
        ({"data.planes": ("A", "B", "C"), "data.mask_planes": ("D", "E")}, "data.mask_planes"),
    ],
)
def test_fields_that_do_not_fit_each_other(changes, field):
    config = default_config()
    config.data.name, config.data.folder = "deeplense/folder", "lenses"
    for path, value in changes.items():
        section, name = path.split(".")
        config[section][name] = value
    with pytest.raises(ConfigError, match=f"{field}: got"):
        from_config_dict(config)
