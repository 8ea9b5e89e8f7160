"""The baseline rows of every table."""

import dataclasses
import functools

import numpy as np

from lensjax.errors import BaselineError
from lensjax.evaluation.rows import Row, Setting
from lensjax.metrics import baselines
from lensjax.metrics.corruptions import UNKNOWN_FWHM_PIXELS

CONTROL = "blurred"


def baseline_images(
    name: str, setting: Setting, seed: int, per_class: int
) -> tuple[np.ndarray, np.ndarray]:
    """The images of a baseline, flux `[N, H, W, C]`, and their labels.

    Args:
      name: one of `metrics.baselines.BASELINES`.
      setting: shared by all rows.
      seed: for the choice of images.
      per_class: images of each class; fewer where there are fewer training images.

    Raises:
      lensjax.errors.BaselineError: if the set does not have this baseline.
    """
    info, simulated = setting.info, setting.simulated
    train = setting.real_images.train(max(per_class, setting.settings.train_images))
    smallest = min(np.bincount(train.labels)[np.unique(train.labels)])
    fwhm = UNKNOWN_FWHM_PIXELS
    if info.psf_fwhm_arcsec and info.pixel_scale_arcsec:
        fwhm = info.psf_fwhm_arcsec / info.pixel_scale_arcsec
    return baselines.make(
        name,
        train.images,
        train.labels,
        min(per_class, int(smallest)),
        seed,
        setting.survey,
        train.parameters if setting.survey else None,
        simulated=dataclasses.replace(simulated, mini=False).name if simulated else None,
        psf_fwhm_pixels=fwhm,
    )


@functools.lru_cache(maxsize=4)
def control_row(setting: Setting, per_class: int) -> Row:
    """The control: training images with a wider blur, other images than the baseline row's.

    A measure that does not tell the control from real images has no power.

    Args:
      setting: shared by all rows.
      per_class: images of each class; fewer where there are fewer training images.
    """
    images, labels = baseline_images(CONTROL, setting, setting.settings.seed + 1, per_class)
    return Row("control", images, labels, setting)


def baseline_rows(setting: Setting) -> list[Row]:
    """The rows of all baselines that the set has; [] if `evaluate.baselines` is off."""
    if not setting.settings.baselines:
        return []
    rows = []
    for name in baselines.BASELINES:
        try:
            images, labels = baseline_images(
                name, setting, setting.settings.seed, setting.per_class
            )
            rows.append(Row(name, images, labels, setting))
        except BaselineError:
            continue  # the user's own images have no simulator
    return rows
