"""The baseline rows of every table."""

import dataclasses

import numpy as np

from lensjax.errors import BaselineError
from lensjax.evaluation.rows import Row, Setting
from lensjax.metrics import baselines
from lensjax.metrics.corruptions import UNKNOWN_FWHM_PIXELS

CONTROL = "blurred"


def baseline_images(name: str, setting: Setting, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """The images of a baseline, flux `[N, H, W, C]`, and their labels.

    Args:
      name: one of `metrics.baselines.BASELINES`.
      setting: shared by all rows.
      seed: for the choice of images.

    Raises:
      lensjax.errors.BaselineError: if the set does not have this baseline.
    """
    info, simulated = setting.info, setting.simulated
    train = setting.real_images.train(max(setting.per_class, setting.settings.train_images))
    smallest = min(np.bincount(train.labels)[np.unique(train.labels)])
    fwhm = UNKNOWN_FWHM_PIXELS
    if info.psf_fwhm_arcsec and info.pixel_scale_arcsec:
        fwhm = info.psf_fwhm_arcsec / info.pixel_scale_arcsec
    return baselines.make(
        name,
        train.images,
        train.labels,
        min(setting.per_class, int(smallest)),
        seed,
        setting.survey,
        train.parameters if setting.survey else None,
        simulated=dataclasses.replace(simulated, mini=False).name if simulated else None,
        psf_fwhm_pixels=fwhm,
    )


def baseline_rows(setting: Setting) -> list[Row]:
    """The rows of all baselines that the set has; [] if `evaluate.baselines` is off."""
    if not setting.settings.baselines:
        return []
    rows = []
    for name in baselines.BASELINES:
        try:
            images, labels = baseline_images(name, setting, setting.settings.seed)
            rows.append(Row(name, images, labels, setting))
        except BaselineError:
            continue  # the user's own images have no simulator
    return rows
