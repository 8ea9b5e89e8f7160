"""`--mode=build_data`: builds a data set, reports its content, and draws some of its images."""

import pathlib
from collections.abc import Mapping
from typing import Any

from lensjax.config import Config
from lensjax.data.dataset import SPLITS, DatasetInfo, first_of_each_class
from lensjax.data.prepared import PreparedSet
from lensjax.errors import DataError, FileError, printable
from lensjax.run import datasets
from lensjax.run.figures import contact_sheet, save_png

CONTACT_SHEET = "contact_sheet.png"
_COLUMNS = 10
_ROWS = 20  # classes that the sheet shows
_SHOWN = 10  # files left out that are named


def _counts(info: DatasetInfo, report: Mapping[str, Any] | None) -> list[str]:
    """A line for each split."""
    classes = (report or {}).get("images", {})
    lines = []
    for split, size in info.split_sizes.items():
        counts = [f"{name} {number:,}" for name, number in classes.get(split, {}).items()]
        if not counts:
            share = size // max(1, info.num_classes)
            counts = [f"{name} {share:,}" for name in info.class_names]
        lines.append(f"  {split:6}{size:>9,} images: {', '.join(counts) or 'unlabelled'}")
    return lines


def _per_cent(share: float) -> str:
    """A share in per cent, with digits enough that one pixel of many is not 0."""
    return f"{100 * share:.2f} %" if share == 0 or share >= 5e-5 else f"{100 * share:.1g} %"


def _taken(report: Mapping[str, Any]) -> list[str]:
    """The lines about planes, bands and objects; older reports have none of these."""
    lines = []
    objects = report.get("objects", {})
    if objects:
        number = ", ".join(f"{split} {objects[split]:,}" for split in SPLITS if split in objects)
        lines.append(f"  objects: {number}; all images of an object are in one split")
    if report.get("folders_are_objects"):
        lines.append("  each folder is an object (data.folders)")
    if report.get("planes"):
        planes = ", ".join(f"{name} {number:,}" for name, number in report["planes"].items())
        lines.append(f"  images by plane: {planes}")
    if report.get("unread_planes"):
        unread = list(report["unread_planes"].items())
        shown = ", ".join(f"{name} in {number:,} files" for name, number in unread[:_SHOWN])
        more = f" and {len(unread) - _SHOWN} more" if len(unread) > _SHOWN else ""
        lines.append(f"  planes not read: {shown}{more}")
    if report.get("companion_planes"):
        planes = ", ".join(report["companion_planes"])
        lines.append(f"  errors and masks from: {planes}")
    if report.get("share_masked"):
        lines.append(f"  {_per_cent(report['share_masked'])} of the pixels are masked")
    return lines


def _findings(report: Mapping[str, Any]) -> list[str]:
    """The lines about a user's files that only their report has."""
    lines = _taken(report)
    lines += [
        f"  {_per_cent(report['share_of_zeros'])} of the pixels are exactly 0, "
        f"{_per_cent(report['share_not_finite'])} were not finite",
        f"  {report['copies']:,} images are copies of others; {report['copies_across_splits']:,} "
        f"across the splits, {report['copies_across_classes']:,} across classes",
        f"  {report['files']:,} image files; {report['left_out']:,} files or images left out",
    ]
    if report["integer"]:
        lines.append("  the images are integers: log_prob adds uniform noise in [0, 1) to them")
    if report["parameters"]:
        lines.append(f"  parameters: {', '.join(report['parameters'])}")
    if report["other_files"]:
        other_files = ", ".join(
            f"{number} {kind}" for kind, number in report["other_files"].items()
        )
        lines.append(f"  not read: {other_files}")
    named = [f"    {error}" for error in report["left_out_files"][:_SHOWN]]
    if report["left_out"] > len(named):
        named.append(f"    and {report['left_out'] - len(named):,} more")
    warnings = [f"  look at this: {warning}" for warning in report.get("warnings", ())]
    return lines + named + warnings


def _channels(info: DatasetInfo) -> str:
    """The number of channels and the names of bands."""
    channels = info.image_shape[2]
    names = f" ({', '.join(info.band_names)})" if info.band_names else ""
    return f"{channels} channel{'s' if channels > 1 else ''}{names}"


def describe(info: DatasetInfo, report: Mapping[str, Any] | None) -> str:
    """Describes the content of a set for people.

    Args:
      info: the description of the set.
      report: on the reading of a user's files; None for a simulated set.
    """
    height, width, _ = info.image_shape
    calibration = [
        f"pixel {info.pixel_scale_arcsec:g} arcsec" if info.pixel_scale_arcsec else "",
        f"PSF {info.psf_fwhm_arcsec:g} arcsec" if info.psf_fwhm_arcsec else "",
        f"zero point {info.zero_point_mag:g}" if info.zero_point_mag is not None else "",
    ]
    lines = [
        f"{info.name}, fingerprint {info.fingerprint}",
        *_counts(info, report),
        f"  {height}x{width} pixels, {_channels(info)}"
        + "".join(f", {fact}" for fact in calibration if fact),
        f"  values {info.minimum:.6g} to {info.maximum:.6g} in the training images, flux unit "
        f"{info.flux_unit}",
        *(_findings(report) if report else []),
    ]
    return "\n".join(lines)


def show(prepared: PreparedSet) -> tuple[str, pathlib.Path]:
    """Draws the contact sheet of a finished set beside its files.

    Returns:
      The description of the set, and the path of the sheet.

    Raises:
      DataError: for a set that is missing, stale or damaged, or a place that cannot be written.
    """
    split = prepared.open_split("train")
    names = (split.info.class_names or ("unlabelled",))[:_ROWS]
    path = prepared.folder / CONTACT_SHEET
    images = first_of_each_class(split, _COLUMNS)[:_ROWS]
    picture = contact_sheet(images, names, split.info.bands)
    try:
        save_png(path, picture)
    except FileError as error:
        if not path.exists():  # a folder that only another user may write to has it already
            raise DataError(f"{error}; the set itself is finished") from error
    return describe(split.info, prepared.report), path


def build_data_mode(config: Config) -> None:
    """Builds the configured data set and prints its content.

    Raises:
      DataError: for a set that cannot be made, or is stale or damaged.
    """
    text, sheet = show(datasets.prepare(config.data))
    print(printable(f"{text}\ncontact sheet: {sheet}"), flush=True)
