"""The image planes of DeepLense Models I, II and III: pixels, blur, brightness and noise."""

import dataclasses
import math
from collections.abc import Mapping

from lensjax.arguments import instance
from lensjax.errors import DataError


@dataclasses.dataclass(frozen=True)
class Survey:
    """One DeepLense model: the image plane, its multi-plane factor, and its noise.

    Attributes:
      name: `model_i`, `model_ii` or `model_iii`.
      num_pixels: pixels a side.
      pixel_scale_arcsec: side of a pixel.
      psf_fwhm_arcsec: full width at half maximum of the Gaussian point-spread function.
      deflection_factor: beta, by which every deflection is multiplied.
      source_amplitude: surface brightness of the source at its Sersic radius, flux per arcsec^2.
      flux_unit: unit of the images.
      exposure_time_s: total exposure; None if it is drawn for each image (Model I).
      background_rms: standard deviation of sky and read-out noise, flux per pixel.
      published_scale: factor from flux to the values in the published files.
      zero_point: magnitude of one `flux_unit`; None if the unit is arbitrary.
    """

    name: str
    num_pixels: int
    pixel_scale_arcsec: float
    psf_fwhm_arcsec: float
    deflection_factor: float
    source_amplitude: float
    flux_unit: str
    exposure_time_s: float | None
    background_rms: float
    published_scale: float
    zero_point: float | None


def background_rms(
    num_exposures: int,
    exposure_time_s: float,
    zero_point: float,
    sky_magnitude: float,
    read_noise: float,
    pixel_scale_arcsec: float,
) -> float:
    """The background's standard deviation of one pixel in counts per second.

    Args:
      num_exposures: number of read-outs that are added.
      exposure_time_s: total exposure in seconds.
      zero_point: magnitude of one count per second.
      sky_magnitude: sky brightness in magnitudes per arcsec^2.
      read_noise: electrons per read-out.
      pixel_scale_arcsec: side of a pixel.
    """
    sky_counts = (
        10 ** (0.4 * (zero_point - sky_magnitude)) * exposure_time_s * pixel_scale_arcsec**2
    )
    return math.sqrt(num_exposures * read_noise**2 + sky_counts) / exposure_time_s


_FLUX_PER_AMPLITUDE = 0.7476859076  # total flux of the common source with amplitude 1
SOURCE_MAGNITUDE = 20.0
_EUCLID_ZERO_POINT = 24.0
_HST_ZERO_POINT = 25.96


def _amplitude(zero_point: float) -> float:
    return 10 ** (0.4 * (zero_point - SOURCE_MAGNITUDE)) / _FLUX_PER_AMPLITUDE


SURVEYS: Mapping[str, Survey] = {
    "model_i": Survey(
        name="model_i",
        num_pixels=150,
        pixel_scale_arcsec=0.05,
        psf_fwhm_arcsec=0.087,
        deflection_factor=1.0,
        source_amplitude=20.0,
        flux_unit="arbitrary",
        exposure_time_s=None,
        background_rms=0.01,
        published_scale=1.0,
        zero_point=None,
    ),
    "model_ii": Survey(  # Euclid VIS
        name="model_ii",
        num_pixels=64,
        pixel_scale_arcsec=0.101,
        psf_fwhm_arcsec=0.16,
        deflection_factor=0.63431476657394,
        source_amplitude=_amplitude(_EUCLID_ZERO_POINT),
        flux_unit="counts/s",
        exposure_time_s=2260.0,
        background_rms=background_rms(4, 2260.0, _EUCLID_ZERO_POINT, 22.35, 4.2, 0.101),
        published_scale=2.0,
        zero_point=_EUCLID_ZERO_POINT,
    ),
    "model_iii": Survey(  # HST WFC3 F160W
        name="model_iii",
        num_pixels=64,
        pixel_scale_arcsec=0.08,
        psf_fwhm_arcsec=0.08,
        deflection_factor=0.63431476657394,
        source_amplitude=_amplitude(_HST_ZERO_POINT),
        flux_unit="counts/s",
        exposure_time_s=5400.0,
        background_rms=background_rms(1, 5400.0, _HST_ZERO_POINT, 22.3, 4.0, 0.08),
        published_scale=2.0,
        zero_point=_HST_ZERO_POINT,
    ),
}


def check_survey(survey: object) -> None:
    """Checks that an argument is a survey.

    Raises:
      DataError: for anything else, such as the name of one.
    """
    allowed = f"one of lensjax.data.surveys.SURVEYS ({', '.join(SURVEYS)}), or another Survey"
    instance("survey", survey, Survey, allowed, error=DataError)
