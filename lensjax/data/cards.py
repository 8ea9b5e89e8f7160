"""Data cards of the simulated sets: `python -m lensjax.data.cards docs/data` writes them.

Constants come from the surveys, the catalogue and the simulator, so that a card cannot say another
number than the one the set was made with.
"""

import math
import pathlib
import sys

import numpy as np

from lensjax.data import parameters, simulator
from lensjax.data.catalogue import IMAGES_PER_CLASS, SIMULATED_SETS, SimulatedSet
from lensjax.data.raytracing import SIGMA_PER_FWHM
from lensjax.data.surveys import SOURCE_MAGNITUDE, Survey

_INSTRUMENTS = {
    "model_i": "no instrument in particular",
    "model_ii": "Euclid VIS",
    "model_iii": "HST WFC3 F160W",
}
# Largest error of a pixel over the image's peak, medians of the classes from lowest to highest:
# one sample a pixel, blurred after it, against 8x8 samples that are blurred before they are binned.
SAMPLING_ERROR_PERCENT = {"model_i": (2, 6), "model_ii": (5, 7), "model_iii": (11, 15)}


def psf_kernel(survey: Survey) -> tuple[int, float]:
    """Returns radius in pixels and effective FWHM in arcsec of the kernel that blurs the pixels."""
    sigma = survey.psf_fwhm_arcsec * SIGMA_PER_FWHM / survey.pixel_scale_arcsec
    radius = int(4 * sigma + 0.5)
    offsets = np.arange(-radius, radius + 1)
    kernel = np.exp(-0.5 * (offsets / sigma) ** 2)
    variance = float(np.sum(kernel * offsets**2) / kernel.sum())
    return radius, math.sqrt(variance) / SIGMA_PER_FWHM * survey.pixel_scale_arcsec


def _unit(source: SimulatedSet) -> str:
    counts = source.noisy and source.survey.exposure_time_s is None
    return "counts" if counts else source.survey.flux_unit


def _summary(source: SimulatedSet) -> str:
    survey = source.survey
    kind = "with the instrument's noise" if source.noisy else "without noise"
    text = (
        f"Strong-lensing images of DeepLense Model {survey.name.removeprefix('model_').upper()} "
        f"({_INSTRUMENTS[survey.name]}), {kind}, in three classes of dark matter: axion vortex, "
        "CDM sub-haloes, no sub-structure."
    )
    if source.conserved:
        text += (
            " The sub-structure's mass inside the ring is taken from the main halo, so that the "
            "ring's radius does not give the class away."
        )
    return text


def _sizes(source: SimulatedSet) -> str:
    num_classes = len(simulator.CLASS_NAMES)
    rows = ["| set | train | test | pixels in memory |", "|---|--:|--:|--:|"]
    for suffix, sizes in (("", IMAGES_PER_CLASS["full"]), ("_mini", IMAGES_PER_CLASS["mini"])):
        images = sum(sizes.values()) * num_classes
        gigabytes = 4 * images * source.survey.num_pixels**2 / 1e9
        counts = " | ".join(
            f"{sizes[split] * num_classes:,} ({sizes[split]:,} a class)"
            for split in ("train", "test")
        )
        rows.append(f"| `deeplense/{source.name}{suffix}` | {counts} | {gigabytes:.2f} GB |")
    return "\n".join(rows)


def _plane(source: SimulatedSet) -> str:
    survey = source.survey
    side, pixel = survey.num_pixels, survey.pixel_scale_arcsec
    radius, effective = psf_kernel(survey)
    zero = "none, the unit is arbitrary"
    if survey.zero_point is not None:
        one = survey.flux_unit.replace("counts", "count")
        zero = f"{survey.zero_point:g} (magnitude of one {one})"
    facts = {
        "image": f"{side} x {side} x 1, float32, row 0 at the lowest y",
        "pixel": f"{pixel:g} arcsec; the image is {side * pixel:.4g} arcsec wide",
        "unit of a pixel": _unit(source),
        "zero point": zero,
        "PSF": (
            f"Gaussian, FWHM {survey.psf_fwhm_arcsec:g} arcsec, sampled at whole pixels and cut "
            f"at 4 sigma (radius {radius} pixels); the sampled kernel has an effective FWHM of "
            f"{effective:.3f} arcsec; beyond the edge the edge's value goes on"
        ),
        "factor of published files": f"{survey.published_scale:g} (`published_scale`)",
    }
    rows = [f"| {name} | {text} |" for name, text in facts.items()]
    return "\n".join(["| what | value |", "|---|---|", *rows])


def _noise(source: SimulatedSet) -> str:
    survey = source.survey
    if not source.noisy:
        return "None: a pixel is the flux that the model gives, to float32."
    background = f"{survey.background_rms:.4g}"
    if survey.exposure_time_s is None:
        low, high = simulator.LOG10_EXPOSURE_RANGE
        return (
            f"Whole counts, `Poisson(max(0, t (I + sqrt(I / t) N1 + {background} N2)))`, with I "
            "the noise-free flux, N1 and N2 normal, and an exposure t drawn for each image, log10 "
            f"t uniform in {low:g} to {high:g} seconds; t is stored, and the image over t is flux."
        )
    return (
        f"Shot noise `sqrt(I / t)` of the source with t = {survey.exposure_time_s:g} s, and a "
        f"background (sky and read-out) of {background} {survey.flux_unit} a pixel; both normal "
        "and independent from pixel to pixel, the sky's mean is subtracted."
    )


def _lens(source: SimulatedSet) -> str:
    survey = source.survey
    theta_e = simulator.ARCSEC_PER_SQRT_MASS * math.sqrt(simulator.HALO_MASS)
    beta = survey.deflection_factor
    but = " but for the Einstein radius" if source.conserved else ""
    text = (
        f"An isothermal ellipsoid at the centre (Einstein radius {theta_e:.4f} arcsec, e1 = "
        f"{simulator.LENS_E1:g}, e2 = {simulator.LENS_E2:g}) with shear "
        f"({simulator.SHEAR_GAMMA1:g}, {simulator.SHEAR_GAMMA2:g}), the same in every image{but}; "
        "lens at redshift 0.5, source at 1."
    )
    if beta != 1:
        text += (
            f" Every deflection is multiplied by {beta:.4f}, as published (angles reduced for a "
            f"source at redshift 2.5): the ring's radius is {beta * theta_e:.4f} arcsec."
        )
    if source.conserved:
        text += (
            " From the halo's Einstein radius, the sum of theta_i^2 over the points inside the "
            "ring, divided by the ring's radius, is taken away; the radius that is left is stored."
        )
    return text


def _source(survey: Survey) -> str:
    amplitude = f"surface brightness {survey.source_amplitude:.4g} {survey.flux_unit} per arcsec^2"
    if survey.zero_point is not None:
        amplitude = f"magnitude {SOURCE_MAGNITUDE:g} ({amplitude} at the Sersic radius)"
    else:
        amplitude = amplitude.replace("arbitrary", "(arbitrary unit)") + " at the Sersic radius"
    limit = simulator.SOURCE_POSITION_LIMIT
    return (
        f"An elliptical Sersic profile, index {simulator.SOURCE_INDEX:g}, radius "
        f"{simulator.SOURCE_RADIUS:g} arcsec, e1 = {simulator.SOURCE_E1:g}, e2 = "
        f"{simulator.SOURCE_E2:g}, {amplitude}. Its position is all that varies: x and y uniform "
        f"in -{limit:g} to {limit:g} arcsec. There is no light of the lens."
    )


def _classes() -> str:
    low, high = (math.log10(mass) for mass in simulator.SUBHALO_MASS_RANGE)
    near, far = simulator.SUBHALO_RADIUS_RANGE
    light, heavy = simulator.LOG10_AXION_MASS_RANGE
    longest = simulator.VORTEX_HALF_LENGTH * 10 ** (-22 - light)
    slope = simulator.SUBHALO_MASS_EXPONENT - 1
    return "\n".join(
        [
            "| label | class | sub-structure |",
            "|--:|---|---|",
            f"| 0 | `axion` | a vortex: {simulator.NUM_VORTEX_POINTS} point masses of "
            f"{simulator.VORTEX_POINT_MASS / 1e8:g} x 10^8 solar masses evenly on a line through "
            f"the centre at a uniform angle; log10 of the axion's mass in eV uniform in {light:g} "
            f"to {heavy:g}; the half-length falls as 1 / mass, {longest:g} to "
            f"{simulator.VORTEX_HALF_LENGTH:g} arcsec |",
            f"| 1 | `cdm` | {simulator.NUM_SUBHALOES} point masses, their number density falling "
            f"as m^{slope:g} between 10^{low:g} and 10^{high:g} solar masses; distance from the "
            f"centre uniform in {near:g} to {far:g} arcsec, angle uniform |",
            "| 2 | `no_sub` | none |",
        ]
    )


def _good_for(source: SimulatedSet) -> list[str]:
    lines = [
        "Testing generative models: an image can be fitted through the exact forward model, and "
        "what is left is the model's error.",
        "Comparing classifiers and regressions with each other: the parameters of every image are "
        "stored beside it.",
    ]
    if source.conserved:
        lines[1] += " Here the ring's radius helps a classifier less."
    elif not source.noisy:
        lines.append("Looking for errors that noise would hide.")
    return lines


def _class_leak(source: SimulatedSet) -> str:
    if source.conserved:
        return (
            "**The ring's radius as a classifier.** On the plain Model II one fitted number, the "
            "ring's radius, tells the classes apart to 89 % (macro AUC 0.96); here it still "
            "reaches 70 % (0.84) behind Euclid's noise, and more without any, where guessing gives "
            "33 %."
        )
    elsewhere = " (measured on Model II without noise; the cause is the same here)"
    return (
        "**Accuracy of a classifier as evidence that it sees sub-structure.** The sub-structure's "
        "mass comes on top of the halo's and widens the ring, so that one fitted number, the "
        "ring's radius, tells the classes apart to 89 %"
        f"{'' if source.name == 'model_ii' else elsewhere}. `deeplense/model_ii_conserved` has "
        "much less of this leak."
    )


def _not_for(source: SimulatedSet) -> list[str]:
    survey = source.survey
    low, high = SAMPLING_ERROR_PERCENT[survey.name]
    factor = parameters.EFFECTIVE_MASS_FACTOR * survey.deflection_factor
    mass_cause = "luminosity distances" + (
        " and deflections are reduced as said above" if survey.deflection_factor != 1 else ""
    )
    noise = (
        "**Real detectors.** The noise is white: no cosmic rays, no correlated pixels, no other "
        "objects, no light of the lens."
        if source.noisy
        else "**Anything that noise decides.** No instrument gives such images; faint structure "
        "that can be seen here would be lost."
    )
    return [
        _class_leak(source),
        f"**Masses.** They are nominal: published Einstein radii use {mass_cause}, so that a point "
        f"mass labelled m acts as {factor:.3f} m. Both sums are stored "
        "(`subhalo_mass_nominal`, `subhalo_mass_effective`).",
        "**Augmentation by flips or turns by 90 degrees.** Lens axis, shear and the source's angle "
        "are fixed: only the rotation by 180 degrees leaves the set as it is.",
        f"**Photometry of pixels.** One sample a pixel, as published, is {low} to {high} % of the "
        "peak off the integral over the pixel (median over the images of a class, for the worst "
        "pixel).",
        "**Variety.** Beside the sub-structure only the source's position varies; "
        "`no_sub` has two free numbers, `axion` four. Above an axion mass of 10^-22.5 eV the "
        "vortex is nearly a point, and mass and angle cannot be recovered.",
        noise,
        "**Claims of speed.** Direct simulation takes less than a millisecond an image on two CPU "
        "cores (`benchmarks/simulator.py`); no network has to replace it here.",
    ]


def _psf_fact(survey: Survey) -> list[str]:
    _, effective = psf_kernel(survey)
    if effective > 0.95 * survey.psf_fwhm_arcsec:
        return []
    return [
        f"**Statements about its PSF.** The kernel is under-sampled: {survey.psf_fwhm_arcsec:g} "
        f"arcsec are nominal, it blurs as one of {effective:.3f} arcsec does."
    ]


def _origin(source: SimulatedSet) -> str:
    survey = source.survey
    text = (
        "Made by `lensjax.data.simulator`, an independent implementation in JAX of the priors and "
        "image planes of DeepLenseSim (github.com/mwt5345/DeepLenseSim). Its images agree with "
        "lenstronomy 1.14.2 to 1e-5 of the peak."
    )
    if survey.name == "model_iii":
        text += (
            " Model III's instrument was inferred from the public files, since the published code "
            "does not make it: public `no_sub` and `axion` files are reproduced to rounding, the "
            "public `cdm` file was not (1.2 % of the peak are left)."
        )
    if source.conserved:
        text += " The conserved kind is lensjax's own; there are no published files of it."
    elif survey.name == "model_i" and not source.noisy:
        text += " Published files of Model I hold noisy counts: see `deeplense/model_i_noisy`."
    elif survey.name != "model_i" and source.noisy:
        text += " Published files of this model have no noise: the noise is lensjax's own addition."
    return text


_CITATION = """Cite the data as: S. Alexander, S. Gleyzer, E. McDonough, M. W. Toomey and E. Usai,
"Deep Learning the Morphology of Dark Matter Substructure", The Astrophysical Journal 893:15 (2020),
arXiv:1909.07346; and lensjax by `CITATION.cff`."""


def render_card(source: SimulatedSet) -> str:
    """Returns the card of a set and its small version as Markdown."""

    def listed(lines: list[str]) -> str:
        return "\n".join(f"- {line}" for line in lines)

    sections = [
        f"# deeplense/{source.name}",
        "Written by `python -m lensjax.data.cards docs/data`; changes belong there.",
        _summary(source),
        "## Sizes",
        _sizes(source),
        "Examples take turns by class: example k is image k // 3 of class k % 3. `_mini` is the "
        "beginning of the full set. Training and test images are drawn from independent random "
        "streams. The noisy and conserved kinds of a model show the lenses of the plain one.",
        "## Image plane",
        _plane(source),
        "## Noise",
        _noise(source),
        "## Lens and source",
        _lens(source),
        _source(source.survey),
        "## Classes",
        _classes(),
        f"Beside each image stand {len(parameters.PARAMETER_NAMES)} parameters, NaN where a class "
        "has none (`lensjax/data/parameters.py`).",
        "## Good for",
        listed(_good_for(source)),
        "## Not for",
        listed(_not_for(source) + _psf_fact(source.survey)),
        "## Origin and citation",
        _origin(source),
        _CITATION,
    ]
    return "\n\n".join(sections) + "\n"


def render_cards() -> dict[str, str]:
    """Returns the text of each card by its file's name."""
    return {
        f"{source.name}.md": render_card(source)
        for source in SIMULATED_SETS.values()
        if not source.mini
    }


def main(arguments: list[str]) -> None:
    """Writes all cards into the folder that is named."""
    if len(arguments) != 1:
        sys.exit("usage: python -m lensjax.data.cards FOLDER")
    folder = pathlib.Path(arguments[0])
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in render_cards().items():
        (folder / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
