"""`dataset.json` of a run: the ranges of flux of the images that the network sees."""

import dataclasses

import numpy as np
import pytest
from run_support import tiny_config, tiny_split

from lensjax.data.dataset import LensSplit
from lensjax.data.flux_range import outside
from lensjax.run.workdir import read_dataset
from lensjax.training.data import claim_dataset, flux_ranges, scaling_of_images

pytestmark = pytest.mark.usefixtures("quick_compiles")
CONFIG = tiny_config(model={"name": "cnn"})
SPLIT = tiny_split(90)


def with_noise(share: float):
    classify = dataclasses.replace(CONFIG.classify, noise_share=share)
    return dataclasses.replace(CONFIG, classify=classify)


def kinds(share: float) -> list:
    return flux_ranges(SPLIT, SPLIT.info.image_shape, with_noise(share))


def test_there_is_a_range_for_each_kind_of_images_that_is_seen():
    quiet, both, noisy = kinds(0.0), kinds(0.5), kinds(1.0)
    assert [len(ranges) for ranges in (quiet, both, noisy)] == [1, 2, 1]
    assert both == quiet + noisy
    # The sources are of magnitude 20 to 23, up to 16 times fainter.
    assert noisy[0]["peak"][0][0] < 0.2 * quiet[0]["peak"][0][0]


def test_the_ranges_are_of_what_shifts_leave_of_an_image():
    images = SPLIT.images.copy()
    images[:, :2] = 1e3
    split = LensSplit(images, SPLIT.labels, SPLIT.parameters, SPLIT.info)
    (ranges,) = flux_ranges(split, (12, 12, 1), CONFIG)
    assert ranges["peak"][0][1] < 1e3


@pytest.mark.parametrize("resumed", [False, True])
def test_a_run_begins_with_the_ranges_and_keeps_them(tmp_path, resumed):
    def claim():
        return claim_dataset(
            tmp_path,
            SPLIT,
            SPLIT.info.image_shape,
            lambda split: scaling_of_images(split, CONFIG.data),
            CONFIG,
        )

    scaling = claim()
    written = read_dataset(tmp_path)
    if resumed:
        assert claim() == scaling
        assert read_dataset(tmp_path) == written
    assert outside(written["flux_ranges"], tiny_split(60, seed=9).images) == [""] * 60
    assert all(outside(written["flux_ranges"], np.zeros((2, 16, 16, 1), np.float32)))


def test_each_band_has_its_constants_in_the_file(tmp_path):
    images = np.concatenate([SPLIT.images, 100 * SPLIT.images], axis=-1)
    info = dataclasses.replace(SPLIT.info, image_shape=(16, 16, 2))
    split = LensSplit(images, SPLIT.labels, SPLIT.parameters, info)
    scaling = claim_dataset(
        tmp_path, split, info.image_shape, lambda split: scaling_of_images(split, CONFIG.data)
    )
    assert isinstance(scaling.spread, tuple)
    assert scaling.spread[1] == pytest.approx(100 * scaling.spread[0], rel=1e-6)
    assert read_dataset(tmp_path)["scaling"]["spread"] == list(scaling.spread)
