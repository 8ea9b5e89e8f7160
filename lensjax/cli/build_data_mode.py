"""`--mode=build_data`: builds a data set and says what is in it, with a sheet of some images."""

import pathlib
from collections.abc import Mapping
from typing import Any

from lensjax.config import Config
from lensjax.data.dataset import DatasetInfo, first_of_each_class
from lensjax.data.prepared import PreparedSet
from lensjax.errors import DataError, FileError
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
        parts = [f"{name} {number:,}" for name, number in classes.get(split, {}).items()]
        if not parts:
            share = size // max(1, info.num_classes)
            parts = [f"{name} {share:,}" for name in info.class_names]
        lines.append(f"  {split:6}{size:>9,} images: {', '.join(parts) or 'unlabelled'}")
    return lines


def _per_cent(share: float) -> str:
    """A share so that one pixel of many does not look like none."""
    return f"{100 * share:.2f} %" if share == 0 or share >= 5e-5 else f"{100 * share:.1g} %"


def _findings(report: Mapping[str, Any]) -> list[str]:
    """What only the reading of a user's files can say."""
    lines = [
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
        others = ", ".join(f"{number} {kind}" for kind, number in report["other_files"].items())
        lines.append(f"  not image files: {others}")
    named = [f"    {error}" for error in report["left_out_files"][:_SHOWN]]
    if report["left_out"] > len(named):
        named.append(f"    and {report['left_out'] - len(named):,} more")
    return lines + named


def describe(info: DatasetInfo, report: Mapping[str, Any] | None) -> str:
    """What a set holds, for people.

    Args:
      info: what is known of the set.
      report: what the reading of a user's files found; None for a simulated set.
    """
    height, width, channels = info.image_shape
    known = [
        f"pixel {info.pixel_scale_arcsec:g} arcsec" if info.pixel_scale_arcsec else "",
        f"PSF {info.psf_fwhm_arcsec:g} arcsec" if info.psf_fwhm_arcsec else "",
        f"zero point {info.zero_point_mag:g}" if info.zero_point_mag is not None else "",
    ]
    lines = [
        f"{info.name}, fingerprint {info.fingerprint}",
        *_counts(info, report),
        f"  {height}x{width} pixels, {channels} channel{'s' if channels > 1 else ''}"
        + "".join(f", {one}" for one in known if one),
        f"  values {info.minimum:.6g} to {info.maximum:.6g} in the training images, flux unit "
        f"{info.flux_unit}",
        *(_findings(report) if report else []),
    ]
    return "\n".join(lines)


def show(prepared: PreparedSet) -> tuple[str, pathlib.Path]:
    """Draws the contact sheet of a finished set beside its files.

    Returns:
      What the set holds, and where the sheet is.

    Raises:
      DataError: for a set that is missing, stale or damaged, or a place that cannot be written.
    """
    split = prepared.open_split("train")
    names = (split.info.class_names or ("unlabelled",))[:_ROWS]
    path = prepared.folder / CONTACT_SHEET
    picture = contact_sheet(first_of_each_class(split, _COLUMNS)[:_ROWS], names)
    try:
        save_png(path, picture)
    except FileError as error:
        if not path.exists():  # a place for sets that others fill has it already
            raise DataError(f"{error}; the set itself is finished") from error
    return describe(split.info, prepared.report), path


def build_data_mode(config: Config) -> None:
    """Builds the configured data set and prints what is in it.

    Raises:
      DataError: for a set that cannot be made, or is stale or damaged.
    """
    text, sheet = show(datasets.prepare(config.data))
    print(f"{text}\ncontact sheet: {sheet}", flush=True)
