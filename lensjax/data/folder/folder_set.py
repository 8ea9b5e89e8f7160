"""`deeplense/folder`: a user's folder becomes a set, named by its content.

Folders of different content never share a set, and a folder whose files were neither changed nor
touched is recognised without being read.
"""

import collections
import dataclasses
import hashlib
import math
import os
import pathlib
import re
from typing import Any

from absl import logging

from lensjax.data.catalogue import FOLDER_SET
from lensjax.data.dataset import SPLITS
from lensjax.data.folder.builder import VERSION, DeeplenseFolder, FolderConfig
from lensjax.data.folder.entries import Listing
from lensjax.data.folder.grouping import TABLE
from lensjax.data.folder.listing import list_files
from lensjax.data.folder.reading import Reading
from lensjax.data.folder.scan import READER_VERSION, Scan, scan
from lensjax.data.folder.splitting import objects_of
from lensjax.data.prepared import PreparedSet, root_of
from lensjax.devices.progress import progress_bar
from lensjax.errors import DataError, FileError, UnusableError, printable
from lensjax.files.atomic import write_json
from lensjax.files.json_file import (
    LONG_TEXT,
    NAME,
    NUMBER,
    OBJECT,
    YES_OR_NO,
    Rule,
    checked,
    read_object,
    whole,
)
from lensjax.files.user_paths import expanded

# What `.known/` holds of a folder; the fingerprint is also the name of a folder.
_MEMORY = {
    "listing": NAME,
    "fingerprint": Rule(
        lambda value: isinstance(value, str) and re.fullmatch(r"[\w-]{1,100}", value) is not None,
        "letters and digits",
    ),
    "report": OBJECT,
}
_COUNT = whole(0, 2**53)
# What `report_of` gives; older versions did not give all of it.
_REPORT = {
    **dict.fromkeys(("share_of_zeros", "share_not_finite"), NUMBER),
    **dict.fromkeys(("files", "copies", "copies_across_splits", "left_out"), _COUNT),
    "copies_across_classes": _COUNT,
    "integer": YES_OR_NO,
    "parameters": NAME.several(),
    "other_files": _COUNT.by_name(),
    "left_out_files": LONG_TEXT.several(),
    "warnings": LONG_TEXT.several().or_missing([]),
    "objects": _COUNT.by_name().or_missing({}),
    "folders_are_objects": YES_OR_NO.or_missing(False),
    "planes": _COUNT.by_name().or_missing({}),
    "companion_planes": _COUNT.by_name().or_missing({}),
    "unread_planes": _COUNT.by_name().or_missing({}),
    "share_masked": NUMBER.or_missing(0.0),
}
_LISTED = 1000  # files left out that the report names


def _located(fingerprint: str, root: pathlib.Path, directory: str | None) -> PreparedSet:
    folder = root_of(directory) / DeeplenseFolder.name / fingerprint / VERSION
    command = f"--mode=build_data --config.data.name={FOLDER_SET} --config.data.folder={root}"
    return PreparedSet(FOLDER_SET, folder, fingerprint, command)


def _listing_digest(listing: Listing, reading: Reading) -> str:
    """A digest that changes when a file of the folder is changed, added, removed or renamed."""
    digest = hashlib.sha256(f"({READER_VERSION}, {reading.identity})".encode())
    for file in listing.files:
        where = os.path.relpath(file.path, listing.root)
        digest.update(repr((where, *file.stamps, file.class_name)).encode())
    if reading.has_group_column and (listing.root / TABLE).is_file():
        status = (listing.root / TABLE).stat()
        digest.update(repr((status.st_size, status.st_mtime_ns, status.st_ctime_ns)).encode())
    said = [repr(str(error)) for error in listing.bad]
    digest.update(repr((said, sorted(listing.ignored.items()))).encode())
    return digest.hexdigest()


def _memory_of(listing: Listing, reading: Reading, directory: str | None) -> pathlib.Path:
    """The file that remembers which set a folder became, and the report on it."""
    said = f"({str(listing.root.resolve())!r}, {reading.identity})"
    name = hashlib.sha256(said.encode()).hexdigest()[:16]
    return root_of(directory) / DeeplenseFolder.name / ".known" / f"{name}.json"


def _recall(memory: pathlib.Path, digest: str) -> tuple[str, dict[str, Any]] | None:
    """The fingerprint and report of a folder that has not changed since they were written."""
    try:
        content = checked(read_object(memory), _MEMORY)
        if content["listing"] == digest:
            return content["fingerprint"], checked(content["report"], _REPORT, "report.")
    except (FileNotFoundError, UnusableError):
        pass  # the folder is read again
    return None


def _recall_as_classes(
    root: pathlib.Path, reading: Reading, directory: str | None
) -> tuple[str, dict[str, Any]] | None:
    """The set that version 0.2 made of folders of objects, which it took for classes."""
    try:
        listing = list_files(root, reading._replace(folders="classes"))
    except DataError:
        return None
    return _recall(_memory_of(listing, reading, directory), _listing_digest(listing, reading))


def _remember(memory: pathlib.Path, digest: str, fingerprint: str, report: dict[str, Any]) -> None:
    content = {"listing": digest, "fingerprint": fingerprint, "report": report}
    try:
        write_json(memory, content)
    except FileError as error:  # such as a folder that only another user may write to
        logging.info("The folder will be read again next time: %s.", error)


def report_of(folder_scan: Scan) -> dict[str, Any]:
    """The report on the content of a folder, as JSON types."""
    images = folder_scan.images
    copies = collections.Counter(image.digest for image in images)
    splits = {(image.digest, image.split) for image in images}
    classes = {(image.digest, image.class_name) for image in images}
    pixels = len(images) * math.prod(folder_scan.image_shape)
    counts = {
        split: collections.Counter(image.class_name or "unlabelled" for image in chosen)
        for split in SPLITS
        if (chosen := folder_scan.of_split(split))
    }
    objects = dict(zip(objects_of(images), images, strict=True))
    return {
        "files": len(folder_scan.listing.files),
        "objects": dict(sorted(collections.Counter(i.split for i in objects.values()).items())),
        "folders_are_objects": folder_scan.listing.objects,
        "planes": dict(collections.Counter(image.plane for image in images if image.plane)),
        "companion_planes": dict(folder_scan.companions),
        "unread_planes": dict(folder_scan.unread),
        "band_names": list(folder_scan.band_names),
        "has_variance": folder_scan.has_variance,
        "share_masked": sum(image.masked for image in images) / pixels,
        "warnings": list(folder_scan.warnings),
        "images": {split: dict(sorted(number.items())) for split, number in counts.items()},
        "image_shape": list(folder_scan.image_shape),
        "flux_unit": folder_scan.flux_unit,
        "minimum": min(image.minimum for image in images),
        "maximum": max(image.maximum for image in images),
        "share_of_zeros": sum(image.zeros for image in images) / pixels,
        "share_not_finite": sum(image.not_finite for image in images) / pixels,
        "integer": folder_scan.integer,
        "copies": sum(number - 1 for number in copies.values()),
        "copies_across_splits": len(splits) - len(copies),
        "copies_across_classes": len(classes) - len(copies),
        "left_out": len(folder_scan.bad),
        "left_out_files": [printable(str(error), keep="") for error in folder_scan.bad[:_LISTED]],
        "other_files": _not_read(folder_scan),
        "parameters": list(folder_scan.parameter_names),
    }


def _not_read(folder_scan: Scan) -> dict[str, int]:
    """Other files by suffix, without the table that named the objects."""
    others = collections.Counter(folder_scan.listing.ignored)
    if folder_scan.reading.has_group_column:
        others[".csv"] -= 1
    return dict(+others)


def prepare(folder: str, reading: Reading, directory: str | None = None) -> PreparedSet:
    """Reads, checks and stores a user's folder, unless that was done before.

    Every file is read and checked before anything is written.

    Args:
      folder: the folder; see `listing.list_files` for its structure.
      reading: how to read the files.
      directory: where sets live; None for `$TFDS_DATA_DIR`, else `~/tensorflow_datasets`.

    Raises:
      ConfigError: for the home folder of an unknown user.
      DataError: see `list_files` and `scan`; and for a directory that cannot be written to or
        lies in the folder.
    """
    root = expanded(folder, "data.folder")
    listing = list_files(root, reading)
    _check_apart(root, directory)
    digest = _listing_digest(listing, reading)
    memory = _memory_of(listing, reading, directory)
    recalled = _recall(memory, digest)
    if recalled is None and listing.objects and reading.folders == "auto":
        recalled = _recall_as_classes(root, reading, directory)
    if recalled is not None:
        fingerprint, report = recalled
        recalled_set = _located(fingerprint, root, directory)
        if recalled_set.open_finished() is not None:
            return dataclasses.replace(recalled_set, report=report)
    with progress_bar(len(listing.files), f"Checking {root}", unit=" files") as bar:
        folder_scan = scan(listing, reading, bar.update)
    report = report_of(folder_scan)
    wanted = _located(folder_scan.fingerprint, root, directory)
    _build(folder_scan, wanted, directory)
    _remember(memory, digest, folder_scan.fingerprint, report)
    return dataclasses.replace(wanted, report=report)


def _check_apart(root: pathlib.Path, directory: str | None) -> None:
    """Checks that the sets do not become part of the folder that they are made from."""
    sets = root_of(directory)
    if sets.resolve().is_relative_to(root.resolve()):
        raise DataError(
            f"data.folder: {root} contains {sets}, where data sets are written; set data.directory "
            "or TFDS_DATA_DIR to a folder outside it"
        )


def _build(folder_scan: Scan, wanted: PreparedSet, directory: str | None) -> None:
    def build() -> None:
        builder = DeeplenseFolder(
            data_dir=os.fspath(root_of(directory)),
            config=FolderConfig(name=folder_scan.fingerprint, scan=folder_scan),
            file_format="array_record",
        )
        builder.download_and_prepare()

    planes = 1 + folder_scan.has_variance + 0.25 * folder_scan.has_mask
    size = 4 * planes * math.prod(folder_scan.image_shape)
    advice = "set data.directory or TFDS_DATA_DIR to a larger disk"
    wanted.build_once(len(folder_scan.images) * size, advice, build)
