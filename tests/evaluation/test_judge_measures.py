"""The judge judged, small: each known fault of real images is noticed by a named measure.

`benchmarks/judge.py` does the same with all measures and more images; docs/judge.md is its table.
"""

import dataclasses
import functools
from typing import Any

import numpy as np
import pytest

import lensjax
from lensjax.config import EvaluateConfig
from lensjax.data.catalogue import SIMULATED_SETS
from lensjax.data.dataset import DatasetInfo, LensSplit
from lensjax.data.parameters import PARAMETER_NAMES
from lensjax.data.simulator import CLASS_NAMES
from lensjax.evaluation.checks import check_row
from lensjax.evaluation.measures import measure_rows, missing_measures
from lensjax.evaluation.rows import Row, Setting
from lensjax.metrics.corruptions import CORRUPTIONS, RealImages, corrupt

SET = "deeplense/model_ii"
NUM, NUM_TRAIN = 40, 120  # a class
FEW = 16  # a class, where images are fitted, which takes most of the time
SIMULATED = SIMULATED_SETS[SET]
INFO = DatasetInfo(
    name=SET,
    fingerprint="made for a test",
    class_names=CLASS_NAMES,
    parameter_names=PARAMETER_NAMES,
    split_sizes={"train": 3 * NUM_TRAIN, "test": 3 * NUM},
    image_shape=(64, 64, 1),
    flux_unit="counts/s",
    minimum=0.0,
    maximum=2.0,
    pixel_scale_arcsec=SIMULATED.survey.pixel_scale_arcsec,
    psf_fwhm_arcsec=SIMULATED.survey.psf_fwhm_arcsec,
)
# Which measure notices it, as the goal that is missed begins.
NOTICED_BY = {
    "psf_10": "smooth fit, no_sub: median ratio",
    "psf_30": "shapes, cdm: power spectrum",
    "speckle_white": "smooth fit, no_sub: dark pixels",
    "speckle_smooth": "smooth fit, no_sub: dark pixels",
    "flip": "smooth fit, no_sub: median ratio",
    "shift": "smooth fit, no_sub: median ratio",
    "theta_e": "free fit, no_sub: theta_E bias",
    "flux": "shapes, no_sub: peak",
    "flux_1": "smooth fit, no_sub: brightness",
    "labels_shuffled": "classes, noise-free: accuracy",
    "garbage_half": "smooth fit, no_sub: median ratio",
    "collapse": "twins, no_sub",
    "train_copies": "copies, cdm",
    "class_replaced": "smooth fit, cdm: ratios",
    "class_absent": "classes, noise-free: shares",
    "guidance": "smooth fit, axion: ratios",
}


@functools.cache
def split(num: int, seed: int) -> LensSplit:
    """Returns fresh images of all classes with their parameters."""
    parts = [lensjax.simulate("model_ii", name, num, seed) for name in CLASS_NAMES]
    tables = np.concatenate([table for _, table in parts])
    parameters = np.stack([tables[name] for name in PARAMETER_NAMES], axis=1)
    images = np.concatenate([images for images, _ in parts])
    return LensSplit(images, tables["label"].astype(np.int32), parameters, INFO)


class Splits:
    """Stands for the splits of a set on disk."""

    info = INFO

    def __init__(self, num, num_train):
        self.per_class, self._num_train, self.test = num, num_train, split(num, 1)

    def train(self, num):
        whole = split(self._num_train, 2)
        chosen = np.concatenate([np.flatnonzero(whole.labels == label)[:num] for label in range(3)])
        return LensSplit(whole.images[chosen], whole.labels[chosen], whole.parameters[chosen], INFO)


def setting_of(measures, num, num_train, cache):
    splits: Any = Splits(num, num_train)
    settings = dataclasses.replace(
        EvaluateConfig(), measures=measures, train_images=num_train, num_images=num
    )
    return Setting(INFO, SIMULATED, settings, num, cache, splits)


def missed_goals(measures, faults, num, num_train, cache):
    """For each fault the names of the goals that it misses; `none` and `none again` have none."""
    setting = setting_of(measures, num, num_train, cache)
    splits = setting.real_images
    base, train = split(num, 3), splits.train(num_train)
    real = RealImages(
        base.images,
        base.labels,
        SIMULATED.survey,
        base.parameters,
        train.images,
        train.labels,
    )
    rows = [Row(name, *corrupt(name, real, 1), setting) for name in faults if name in CORRUPTIONS]
    if "none" in faults:
        rows.append(Row("none", base.images, base.labels, setting))
    if "none again" in faults:
        rows.append(Row("none again", split(num, 4).images, split(num, 4).labels, setting))
    reference = Row("real", splits.test.images, splits.test.labels, setting)
    results = measure_rows(rows, [reference], setting, missing_measures(setting))
    return {
        row.name: [
            check.name
            for check in check_row(results, row.name, "model_ii")
            if check.outcome == "missed"
        ]
        for row in rows
    }


@pytest.fixture(scope="module")
def missed(tmp_path_factory):
    """The goals that each fault misses when all measures are taken."""
    measures = "smooth_fit,free_fit,shapes,classes,twins,copies"
    faults = [*CORRUPTIONS, "none", "none again"]
    return missed_goals(measures, faults, NUM, NUM_TRAIN, tmp_path_factory.mktemp("cache"))


# One fault for each measure.
FOREMOST = {
    "smooth_fit": "psf_10",
    "free_fit": "theta_e",
    "shapes": "flux",
    "classes": "labels_shuffled",
    "twins": "collapse",
    "copies": "train_copies",
}


@pytest.mark.parametrize(("measure", "fault"), FOREMOST.items())
def test_each_measure_notices_a_fault_and_nothing_in_real_images(tmp_path, measure, fault):
    num = FEW if "fit" in measure else NUM
    found = missed_goals(measure, (fault, "none"), num, NUM_TRAIN, tmp_path)
    assert any(goal.startswith(NOTICED_BY[fault]) for goal in found[fault]), found
    assert found["none"] == []


@pytest.mark.parametrize(("num_spoilt", "outcome"), [(0, "met"), (1, "met"), (5, "missed")])
def test_one_image_with_a_speckled_frame_does_not_decide_for_all(tmp_path, num_spoilt, outcome):
    """As one sampler spoils one image in 240: it is counted, and the others are judged."""
    setting = setting_of("smooth_fit", FEW, NUM_TRAIN, tmp_path)
    base, test = split(FEW, 3), setting.real_images.test
    images = base.images.copy()
    spoilt = np.flatnonzero(base.labels == CLASS_NAMES.index("no_sub"))[:num_spoilt]
    noise = np.random.default_rng(0).normal(size=images[spoilt].shape)
    images[spoilt] += (0.009 * images[spoilt].max(axis=(1, 2, 3), keepdims=True) * noise).astype(
        np.float32
    )
    rows = (
        Row("spoilt", images, base.labels, setting),
        Row("real", test.images, test.labels, setting),
    )
    results = measure_rows(rows[:1], rows[1:], setting, missing_measures(setting))
    checks = {check.name: check for check in check_row(results, "spoilt", "model_ii")}
    check = checks["smooth fit, no_sub: dark pixels"]
    assert check.outcome == outcome
    words = {0: "", 1: "; 1 image far beyond it", 5: "; 5 images far beyond it"}[num_spoilt]
    assert check.meaning.endswith(f"twice the real one{words}")


def test_every_fault_has_a_measure_here():
    assert set(NOTICED_BY) == set(CORRUPTIONS)


@pytest.mark.nightly
@pytest.mark.parametrize("name", NOTICED_BY)
def test_a_known_fault_is_noticed_by_its_measure(missed, name):
    assert any(goal.startswith(NOTICED_BY[name]) for goal in missed[name]), missed[name]


@pytest.mark.nightly
@pytest.mark.parametrize("name", ["none", "none again"])
def test_images_without_a_fault_miss_nothing(missed, name):
    assert missed[name] == []
