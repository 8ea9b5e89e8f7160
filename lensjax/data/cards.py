"""Data cards of the simulated sets: `python -m lensjax.data.cards docs/data` writes them.

All of them share the text of `card.md` beside this file. Constants come from the surveys, the
catalogue and the simulator, so that a card always states the numbers that its set was made with.
"""

import math
import pathlib
import sys
from typing import Any

import numpy as np

from lensjax.data import parameters, simulator
from lensjax.data.catalogue import IMAGES_PER_CLASS, SIMULATED_SETS, SimulatedSet
from lensjax.data.raytracing import SIGMA_PER_FWHM
from lensjax.data.surveys import SOURCE_MAGNITUDE, Survey
from lensjax.files.atomic import write_text

_TEMPLATE = pathlib.Path(__file__).parent / "card.md"
_INSTRUMENTS = {
    "model_i": "no instrument in particular",
    "model_ii": "Euclid VIS",
    "model_iii": "HST WFC3 F160W",
}
# Largest error of a pixel over the image's peak, medians of the classes from lowest to highest:
# one sample a pixel, blurred after it, against 8x8 samples that are blurred before they are binned.
SAMPLING_ERROR_PERCENT = {"model_i": (2, 6), "model_ii": (5, 7), "model_iii": (11, 15)}


def psf_kernel(survey: Survey) -> tuple[int, float]:
    """Radius in pixels and effective FWHM in arcsec of the kernel that blurs the pixels."""
    sigma = survey.psf_fwhm_arcsec * SIGMA_PER_FWHM / survey.pixel_scale_arcsec
    radius = int(4 * sigma + 0.5)
    offsets = np.arange(-radius, radius + 1)
    kernel = np.exp(-0.5 * (offsets / sigma) ** 2)
    variance = float(np.sum(kernel * offsets**2) / kernel.sum())
    return radius, math.sqrt(variance) / SIGMA_PER_FWHM * survey.pixel_scale_arcsec


# Sentences of only some cards, by the template's field: the sentence, and its replacement in all
# other cards; `_holds` decides. The sentences contain fields of the template too.
_SENTENCES = {
    "kind": ("with the instrument's noise", "without noise"),
    "taken_away": (
        " The sub-structure's mass inside the ring is taken from the main halo, so the ring's "
        "radius does not give the class away.",
        "",
    ),
    "zero_point": (
        "{survey.zero_point:g} (magnitude of one count/s)",
        "none, the unit is arbitrary",
    ),
    "noise": (
        "{noise_model}",
        "None: a pixel is the flux that the model gives, to float32.",
    ),
    "noise_model": (
        "Shot noise `sqrt(I / t)` of the source with t = {survey.exposure_time_s:g} s, and a "
        "background (sky and read-out) of {survey.background_rms:.4g} {survey.flux_unit} a pixel; "
        "both normal and independent from pixel to pixel, the sky's mean is subtracted.",
        "Whole counts, `Poisson(max(0, t (I + sqrt(I / t) N1 + {survey.background_rms:.4g} N2)))`, "
        "with I the noise-free flux, N1 and N2 normal, and an exposure t drawn for each image, "
        "log10 t uniform in {simulator.LOG10_EXPOSURE_RANGE[0]:g} to "
        "{simulator.LOG10_EXPOSURE_RANGE[1]:g} seconds; t is stored, and the image over t is flux.",
    ),
    "but": (" except for the Einstein radius", ""),
    "multiplied": (
        " Every deflection is multiplied by {survey.deflection_factor:.4f}, as published (angles "
        "reduced for a source at redshift 2.5): the ring's radius is {ring:.4f} arcsec.",
        "",
    ),
    "left": (
        " From the halo's Einstein radius, the sum of theta_i^2 over the points inside the ring, "
        "divided by the ring's radius, is taken away; the radius that is left is stored.",
        "",
    ),
    "amplitude": (
        "magnitude {magnitude:g} (surface brightness {survey.source_amplitude:.4g} "
        "{survey.flux_unit} per arcsec^2 at the Sersic radius)",
        "surface brightness {survey.source_amplitude:.4g} (arbitrary unit) per arcsec^2 at the "
        "Sersic radius",
    ),
    "less_help": (" Here the ring's radius helps a classifier less.", ""),
    "hidden": ("\n- Looking for errors that noise would hide.", ""),
    "class_leak": (
        "**The ring's radius as a classifier.** On the plain Model II one fitted number, the "
        "ring's radius, tells the classes apart to 89 % (macro AUC 0.96); here it still reaches "
        "70 % (0.84) behind Euclid's noise, and more without any, where guessing gives 33 %.",
        "**Accuracy of a classifier as evidence that it sees sub-structure.** The sub-structure's "
        "mass comes on top of the halo's and widens the ring, so that one fitted number, the "
        "ring's radius, tells the classes apart to 89 %{elsewhere}. `deeplense/model_ii_conserved` "
        "has much less of this leak.",
    ),
    "elsewhere": (" (measured on Model II without noise; the cause is the same here)", ""),
    "reduced": (" and deflections are reduced as described above", ""),
    "detectors": (
        "**Real detectors.** The noise is white: no cosmic rays, no correlated pixels, no other "
        "objects, no light of the lens.",
        "**Anything that noise decides.** No instrument gives such images; faint structure that "
        "can be seen here would be lost.",
    ),
    "under_sampled": (
        "\n- **Statements about its PSF.** The kernel is under-sampled: {survey.psf_fwhm_arcsec:g} "
        "arcsec are nominal, it blurs as one of {psf_fwhm:.3f} arcsec does.",
        "",
    ),
    "inferred": (
        " Model III's instrument was inferred from the public files, since the published code does "
        "not make it: public `no_sub` and `axion` files are reproduced to rounding, the public "
        "`cdm` file was not (1.2 % of the peak are left).",
        "",
    ),
    "own_kind": (
        " The conserved kind is lensjax's own; there are no published files of it.",
        "",
    ),
    "published_noisy": (
        " Published files of Model I hold noisy counts: see `deeplense/model_i_noisy`.",
        "",
    ),
    "own_noise": (
        " Published files of this model have no noise: the noise is lensjax's own addition.",
        "",
    ),
}


def _holds(source: SimulatedSet) -> dict[str, bool]:
    """For each field of `_SENTENCES`, whether the card of a set has the first sentence."""
    survey = source.survey
    conserved, noisy, calibrated = source.conserved, source.noisy, survey.zero_point is not None
    reduced = survey.deflection_factor != 1
    return {
        **dict.fromkeys(("taken_away", "but", "left", "class_leak"), conserved),
        **dict.fromkeys(("less_help", "own_kind"), conserved),
        **dict.fromkeys(("kind", "noise", "detectors"), noisy),
        **dict.fromkeys(("zero_point", "amplitude"), calibrated),
        **dict.fromkeys(("multiplied", "reduced"), reduced),
        "noise_model": survey.exposure_time_s is not None,
        "hidden": not noisy and not conserved,
        "elsewhere": source.name != "model_ii",
        "under_sampled": psf_kernel(survey)[1] <= 0.95 * survey.psf_fwhm_arcsec,
        "inferred": survey.name == "model_iii",
        "published_noisy": survey.name == "model_i" and not noisy,
        "own_noise": survey.name != "model_i" and noisy,
    }


def _sizes(source: SimulatedSet) -> str:
    num_classes = len(simulator.CLASS_NAMES)
    rows = []
    for suffix, sizes in (("", IMAGES_PER_CLASS["full"]), ("_mini", IMAGES_PER_CLASS["mini"])):
        gigabytes = 4 * sum(sizes.values()) * num_classes * source.survey.num_pixels**2 / 1e9
        counts = " | ".join(
            f"{sizes[split] * num_classes:,} ({sizes[split]:,} a class)"
            for split in ("train", "test")
        )
        rows.append(f"| `deeplense/{source.name}{suffix}` | {counts} | {gigabytes:.2f} GB |")
    return "\n".join(rows)


def _constants(source: SimulatedSet) -> dict[str, Any]:
    """The template's other fields."""
    survey = source.survey
    theta_e = simulator.HALO_THETA_E
    radius, effective = psf_kernel(survey)
    lightest, heaviest = map(math.log10, simulator.SUBHALO_MASS_RANGE)
    return {
        "source": source,
        "survey": survey,
        "simulator": simulator,
        "sizes": _sizes(source),
        "roman": survey.name.removeprefix("model_").upper(),
        "instrument": _INSTRUMENTS[survey.name],
        "unit": "counts" if source.noisy and not survey.exposure_time_s else survey.flux_unit,
        "width": survey.num_pixels * survey.pixel_scale_arcsec,
        "psf_radius": radius,
        "psf_fwhm": effective,
        "theta_e": theta_e,
        "ring": survey.deflection_factor * theta_e,
        "magnitude": SOURCE_MAGNITUDE,
        "vortex_mass": simulator.VORTEX_POINT_MASS / 1e8,
        "longest": simulator.VORTEX_HALF_LENGTH * 10 ** (-22 - simulator.LOG10_AXION_MASS_RANGE[0]),
        "slope": simulator.SUBHALO_MASS_EXPONENT - 1,
        "lightest": lightest,
        "heaviest": heaviest,
        "num_parameters": len(parameters.PARAMETER_NAMES),
        "mass_factor": parameters.EFFECTIVE_MASS_FACTOR * survey.deflection_factor,
        "sampling": SAMPLING_ERROR_PERCENT[survey.name],
    }


def render_card(source: SimulatedSet) -> str:
    """The card of a set and its small version as Markdown."""
    text = _TEMPLATE.read_text(encoding="utf-8")
    sentences = {field: _SENTENCES[field][not holds] for field, holds in _holds(source).items()}
    for _ in range(3):  # a sentence may contain a sentence that contains fields
        text = text.format_map(_constants(source) | sentences)
    return text


def render_cards() -> dict[str, str]:
    """The text of each card by its file's name."""
    return {
        f"{source.name}.md": render_card(source)
        for source in SIMULATED_SETS.values()
        if not source.mini
    }


def main(arguments: list[str]) -> None:
    """Writes all cards into the folder that the command line names."""
    if len(arguments) != 1:
        sys.exit("usage: python -m lensjax.data.cards FOLDER")
    folder = pathlib.Path(arguments[0])
    for name, text in render_cards().items():
        write_text(folder / name, text)


if __name__ == "__main__":
    main(sys.argv[1:])
