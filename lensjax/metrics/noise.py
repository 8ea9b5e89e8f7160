"""The instrument's noise on images that have none, at a chosen brightness of the source.

A network tells noise-free images apart by one high-pass number. An observer could see only the
differences that remain once real and generated images have the same noise.
"""

import numpy as np

from lensjax.data.surveys import SOURCE_MAGNITUDE, Survey
from lensjax.errors import MeasureError
from lensjax.metrics.image_input import check_images


def _total_exposure(survey: Survey, exposure_time_s: float | None) -> float:
    if survey.exposure_time_s is not None:
        if exposure_time_s is not None:
            raise MeasureError(
                f"exposure_time_s is {exposure_time_s:g}, but {survey.name} has its own,"
                f" {survey.exposure_time_s:g} s; leave exposure_time_s out"
            )
        return survey.exposure_time_s
    if exposure_time_s is None:
        raise MeasureError(
            f"{survey.name} draws an exposure time for each image and has no fixed one; pass"
            " exposure_time_s (published: 1000 to 3162 s), or score noise-free images"
        )
    if not (np.isfinite(exposure_time_s) and exposure_time_s > 0):
        raise MeasureError(f"exposure_time_s is {exposure_time_s!r}; it must be finite and above 0")
    return exposure_time_s


def add_instrument_noise(
    images: np.ndarray,
    survey: Survey,
    magnitude: float,
    seed: int,
    *,
    exposure_time_s: float | None = None,
) -> np.ndarray:
    """Dims the sources to a magnitude, then adds sky, read-out and shot noise.

    `f I + rms N1 + sqrt(max(f I, 0) / t) N2` with `f = 10^(0.4 (20 - magnitude))` and t the total
    exposure. The noise of image i is a function of (seed, i) alone: give the two sides of a
    comparison different seeds.

    Args:
      images: noise-free flux per pixel for sources of magnitude 20, `[N, H, W]`.
      survey: the DeepLense model of the images.
      magnitude: the source's before lensing.
      seed: 0 or above.
      exposure_time_s: for a survey without a fixed exposure (`model_i`, whose flux has arbitrary
        units: a magnitude of 20 is then the published brightness) and only there.

    Returns:
      float32 `[N, H, W]`, counts per second.

    Raises:
      MeasureError: for images that are not finite or of another shape, a magnitude that is not
        finite, a negative seed, an exposure time that is missing, or that the survey has itself.
    """
    exposure = _total_exposure(survey, exposure_time_s)
    check_images(images, min_side=1, min_count=0)
    if not np.isfinite(magnitude):
        raise MeasureError(f"magnitude is {magnitude!r}; it must be finite, such as 20 or 23")
    if seed < 0:
        raise MeasureError(f"seed is {seed}; it must be 0 or above")
    noisy = images * np.float64(10 ** (0.4 * (SOURCE_MAGNITUDE - magnitude)))
    for index, image in enumerate(noisy):
        background, shot = np.random.default_rng([seed, index]).standard_normal((2, *image.shape))
        noisy[index] += (
            survey.background_rms * background + np.sqrt(np.maximum(image, 0) / exposure) * shot
        )
    return noisy.astype(np.float32)
