"""`evaluation/report.html`: one file that opens without an internet connection."""

import json
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from lensjax.evaluation import pictures
from lensjax.evaluation.goals import MET, NO_POWER, Check
from lensjax.evaluation.measures import MEASURES
from lensjax.evaluation.page import Picture, write_page
from lensjax.evaluation.rows import ALL, Row, Setting
from lensjax.evaluation.shape_measures import by_band, colours_of, real_of
from lensjax.evaluation.tables import Table, plain, tables_of
from lensjax.metrics.shapes import measure_shapes
from lensjax.metrics.spectra import power_spectra, radial_profiles
from lensjax.run.composites import composite_bands
from lensjax.run.figures import lens_grid

_WORST = 8
_GRID_COLUMNS = 8
_CHECKS_NOTE = (
    "Of perfect images, one number in a hundred is beyond its limit, and in one report of twenty "
    "at most a goal is missed; known faults miss it (docs/judge.md lists them). p: probability of "
    "so bad a number if the images were perfect. 'unclear': beyond the limit, but one of so many "
    "goals may be by chance. 'no power': so few images, or a measure that does not detect its "
    "control, cannot show a fault."
)
_NOT_FOR = (
    "claims about dark matter: the class labels of a generator are its own",
    "comparisons with Frechet distances of another protocol: distances are comparable only with "
    "the same extractor, number of images, split and map to 8 bits, given beside each number",
    "real observations, for which there are no tests by the forward model",
)


def grid(subject: Row, real: Row) -> np.ndarray:
    """The picture of real images above generated ones for each group."""
    names = list(subject.groups)
    shown = [real.images[:_GRID_COLUMNS] if n == ALL else _first(real, n) for n in names]
    bands = subject.setting.info.bands
    return lens_grid([_first(subject, name) for name in names], names, shown, bands)


def _first(row: Row, group: str) -> np.ndarray:
    places = row.groups.get(group, np.empty(0, int))
    return row.images[places[:_GRID_COLUMNS]]


def _pairs_of_bands(
    subject: Row, real: Row, group: str, setting: Setting
) -> Iterator[tuple[str, tuple[np.ndarray, np.ndarray]]]:
    """Yields the end of the names of each band, and its real and generated images `[n, H, W]`."""
    sets = (by_band(images, setting) for images in (real_of(real, group), subject.of(group)))
    for (end, originals), (_, images) in zip(*sets, strict=True):
        yield end, (originals, images)


def _histograms(subject: Row, real: Row, group: str, setting: Setting) -> Iterator[Picture]:
    """Yields the distributions of shapes of each band, and those of colours."""
    scale = setting.info.pixel_scale_arcsec or 1.0
    caption = "Grey: real; red: generated. The tables below give the distances and their floors."
    for end, sets in _pairs_of_bands(subject, real, group, setting):
        real_shapes, shapes = (measure_shapes(images, scale) for images in sets)
        panels = {name.replace("_", " "): (real_shapes[name], shapes[name]) for name in real_shapes}
        logarithmic: list[str] = []
        if setting.survey is not None and group in real.groups:
            ratios = (real.smooth(group).ratio, subject.smooth(group).ratio)
            panels["ratio of the smooth fit"] = ratios
            logarithmic.append("ratio of the smooth fit")
        picture = pictures.histograms(panels, logarithmic)
        yield Picture.of(f"Distributions: {group}{end}", picture, caption)
    originals = real_of(real, group)
    theirs, ours = (
        colours_of(images, originals, setting) for images in (originals, subject.of(group))
    )
    if ours:
        picture = pictures.histograms({name: (theirs[name], ours[name]) for name in ours})
        yield Picture.of(f"Colours: {group}", picture, caption)


def _curves(title: str, sets: tuple[np.ndarray, np.ndarray], setting: Setting) -> Picture:
    """Draws profiles and spectra of real and generated images `[n, H, W]`."""
    scale = setting.info.pixel_scale_arcsec or 1.0
    (radii, real_profiles), (_, profiles) = (radial_profiles(images, scale) for images in sets)
    real_spectra, spectra = (power_spectra(images) for images in sets)
    unit = "arcsec" if setting.info.pixel_scale_arcsec else "pixels"
    cycles = np.arange(spectra.shape[1]) / min(sets[0].shape[1:])
    panels = [
        pictures.Curves(
            "radial profile, fraction of the peak", radii, unit, 10**real_profiles, 10**profiles
        ),
        pictures.Curves(
            "power spectrum", cycles[1:], "cycles a pixel", real_spectra[:, 1:], spectra[:, 1:]
        ),
    ]
    caption = "Median and range of 68 % of the images. Grey: real; red: generated."
    return Picture.of(title, pictures.curves(panels), caption)


def _worst(subject: Row, group: str) -> Picture:
    fit = subject.smooth(group)
    picture = pictures.worst_fits(subject.planes(group), fit.image, fit.ratio, _WORST)
    return Picture.of(
        f"The worst residuals: {group}",
        picture,
        "The images that a lens without sub-structure fits worst, each with its "
        "RMS(image - fit) / RMS(image). For cdm and axion a residual is expected.",
    )


def _grid_caption(bands: Sequence[str]) -> str:
    if len(bands) == 1:
        return "Square root of flux; the brightest real pixel sets the scale of all images."
    caption = "Square root of flux; the brightest real pixel of a band sets the scale of that band."
    chosen = composite_bands(len(bands))
    if chosen is None:
        return caption
    red, green, blue = (bands[band] for band in chosen)
    return f"{caption} Colour: {red} is red, {green} green and {blue} blue (Lupton et al. 2004)."


def _pictures(subject: Row, real: Row, setting: Setting) -> list[Picture]:
    report_pictures = [
        Picture.of(
            "Real above generated",
            grid(subject, real),
            _grid_caption(setting.info.bands),
        )
    ]
    for group in subject.groups:
        if setting.survey is not None:
            report_pictures.append(_worst(subject, group))
        report_pictures.extend(_histograms(subject, real, group, setting))
        for end, sets in _pairs_of_bands(subject, real, group, setting):
            report_pictures.append(_curves(f"Profile and spectrum: {group}{end}", sets, setting))
    return report_pictures


def _shape_tables(rows: Mapping[str, Mapping[str, Any]], bands: Sequence[str]) -> list[Table]:
    """One number for each quantity: its Wasserstein distance in s.d. above the floor.

    Each band has a table of its own; what belongs to no band, such as a colour, is in the group's.
    """
    ends = [f" ({band})" for band in bands] if len(bands) > 1 else []
    short: dict[str, dict[str, dict[str, float | None]]] = {row: {} for row in rows}
    for row, groups in rows.items():
        for group, quantities in groups.items():
            for name, shape in quantities.items():
                end = next((end for end in ends if name.endswith(end)), "")
                table = short[row].setdefault(f"{group}{end}", {})
                table[name.removesuffix(end)] = shape["z"] if shape else None
    return tables_of(short)


def _sections(results: Mapping[str, Any], bands: Sequence[str]) -> list[dict[str, Any]]:
    sections = []
    for measure in MEASURES:
        result = results[measure.name]
        rows = result.get("rows")
        tables: Sequence[Table] = ()
        if rows:
            is_shapes = measure.name == "shapes"
            tables = _shape_tables(rows, bands) if is_shapes else tables_of(rows)
        protocol = result.get("protocol")
        sections.append(
            {
                "title": measure.title,
                "text": measure.text,
                "missing": result.get("reason"),
                "tables": tables,
                "protocol": json.dumps(plain(protocol), indent=2) if protocol else None,
            }
        )
    return sections


def _number_of_images(subject: Row) -> str:
    counts = [len(places) for places in subject.groups.values()]
    if ALL in subject.groups:
        return f"{sum(counts)} images"
    few, many = min(counts), max(counts)
    return f"{few}{f' to {many}' if many > few else ''} images per class"


def _domain(content: Mapping[str, Any], subject: Row, setting: Setting) -> list[str]:
    protocol = content["protocol"]
    comparable = "the number of headline scores"
    if not protocol["comparable_with_the_headline"]:
        comparable = "not comparable with headline scores, which are taken at 5,000"
    lines = [
        f"images like those of {setting.info.name} (fingerprint {setting.info.fingerprint})",
        f"{_number_of_images(subject)}: {comparable}",
        f"image scale {setting.settings.image_scale}"
        + ("" if setting.in_flux else ": flux is not tested"),
    ]
    if setting.settings.image_factor is not None:
        lines.append(f"images divided by {setting.settings.image_factor:g} first")
    if setting.real_images.share_filled:
        lines.append(
            f"{100 * setting.real_images.share_filled:.2g} % of the real pixels were not measured "
            "and have the mean of those around them"
        )
    if len(setting.info.bands) > 1:
        lines.append(f"{len(setting.info.bands)} bands: {', '.join(setting.info.bands)}")
    if setting.survey is None:
        lines.append("no exact forward model: only the tests that need no ground truth are run")
    return lines


def _grade(passed: bool | None, checks: Sequence[Check]) -> str:
    """The class of the verdict's frame; green only where everything that was judged is met."""
    if passed is False:
        return "failed"
    met = passed and all(check.outcome in (MET, NO_POWER) for check in checks)
    return "passed" if met else "partly"


def write(
    path: pathlib.Path,
    content: Mapping[str, Any],
    subject: Row,
    real: Row,
    setting: Setting,
    checks: Sequence[Check],
) -> None:
    """Writes the report.

    Args:
      path: path of the HTML file.
      content: the content of `metrics.json`.
      subject: the images that are judged.
      real: the real images.
      setting: shared by all rows.
      checks: the checks of the subject.
    """
    generated = content["protocol"]["generated"]
    step = generated.get("checkpoint_step")
    origin = f"step {step}" if step is not None else generated.get("images", "")
    write_page(
        path,
        "report",
        title=f"{setting.info.name}: evaluation of generated images",
        subtitle=f"{origin}; {_number_of_images(subject)}",
        verdict={"grade": _grade(content["passed"], checks), "sentences": content["verdict"]},
        checks=checks,
        checks_note=_CHECKS_NOTE,
        pictures=_pictures(subject, real, setting),
        sections=_sections(content["measures"], setting.info.bands),
        domain=_domain(content, subject, setting),
        not_for=_NOT_FOR,
        protocol=json.dumps(plain(content["protocol"]), indent=2),
    )
