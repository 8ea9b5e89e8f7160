"""The noise with which networks judge images: none, or the instrument's at two magnitudes."""

import zlib
from collections.abc import Mapping

import numpy as np

from lensjax.data.surveys import Survey
from lensjax.evaluation.rows import Row, Setting
from lensjax.metrics.noise import add_instrument_noise

NOISE_FREE = "noise-free"
AS_THEY_ARE = "as they are"
MAGNITUDES = (20.0, 23.0)
_LEVELS: Mapping[str, float | None] = {
    NOISE_FREE: None,
    **{f"magnitude {magnitude:g}": magnitude for magnitude in MAGNITUDES},
}
# Model I draws an exposure for each image; the middle of its prior stands for all.
_EXPOSURE_S = 10**3.25


def levels(setting: Setting) -> Mapping[str, float | None]:
    """The source magnitude of each level by its name; None adds no noise.

    Images that already have noise, and images without flux, are taken as they are.
    """
    if setting.survey is None or not setting.in_flux:
        return {AS_THEY_ARE: None}
    return _LEVELS


def with_noise(row: Row, magnitude: float | None) -> np.ndarray:
    """A row's images `[N, H, W, C]` with the instrument's noise; each row has its own seed."""
    seed = zlib.crc32(f"{row.name} {row.setting.settings.seed}".encode())
    return behind_noise(row.images, row.setting.survey, magnitude, seed)


def behind_noise(
    images: np.ndarray, survey: Survey | None, magnitude: float | None, seed: int
) -> np.ndarray:
    """Images `[N, H, W, 1]` with the instrument's noise.

    Args:
      images: flux per pixel, without noise.
      survey: the instrument; None adds no noise.
      magnitude: the source's, which is dimmed first; None adds no noise.
      seed: the noise of image i is a function of (seed, i).
    """
    if magnitude is None or survey is None:
        return images
    exposure = _EXPOSURE_S if survey.exposure_time_s is None else None
    noisy = add_instrument_noise(images[..., 0], survey, magnitude, seed, exposure_time_s=exposure)
    return noisy[..., None]
