"""Simulated sets that independent jobs build in numbered parts; the last job joins them.

Part 3 of 8 lies in `parts/3-of-8` beside the finished set, and no longer once that is there. Each
part is a set of its own for `PreparedSet`, which keeps two jobs that build the same one apart and
removes what a killed one left.
"""

import contextlib
import os
import pathlib
import shutil
from collections.abc import Callable

import tensorflow_datasets as tfds
from absl import logging

from lensjax.data.catalogue import BUILDER_VERSION, SPLIT_INDEX
from lensjax.data.deeplense import bytes_per_image, config_of, locate
from lensjax.data.parts_builder import (
    DeeplensePart,
    JoinedDeeplense,
    PartConfig,
    checksum,
)
from lensjax.data.prepared import PreparedSet, root_of
from lensjax.errors import DataError

_ADVICE = "set data.directory or TFDS_DATA_DIR to a larger disk"


def _config(name: str, num_parts: int, part: int) -> PartConfig:
    return PartConfig(
        name=f"{part}-of-{num_parts}", source=config_of(name).source, part=part, num_parts=num_parts
    )


def _command(name: str, num_parts: int, part: int | str) -> str:
    return (
        f"--mode=build_data --config.data.name={name} --config.data.num_parts={num_parts} "
        f"--config.data.part={part}"
    )


def locate_part(name: str, directory: str | None, num_parts: int, part: int) -> PreparedSet:
    """Returns one part of a set, built or not.

    Args:
      name: one of `deeplense.available_sets()`.
      directory: see `deeplense.locate`.
      num_parts: how many parts the set has.
      part: which, from 0.

    Raises:
      DataError: for an unknown name, or more parts than the set can have.
    """
    config = _config(name, num_parts, part)
    folder = _folder_of_parts(locate(name, directory)) / config.name / BUILDER_VERSION
    described = f"{name} (part {part} of {num_parts})"
    return PreparedSet(
        described, folder, config.source.fingerprint, _command(name, num_parts, part)
    )


def build_part(name: str, directory: str | None, num_parts: int, part: int) -> PreparedSet | None:
    """Builds one part of a set unless it is there, and joins the parts where it was the last.

    Jobs on different machines may build parts at the same time if they share the disk and its locks
    (flock).

    Args:
      name: one of `deeplense.available_sets()`.
      directory: see `deeplense.locate`.
      num_parts: how many parts the set has.
      part: which, from 0.

    Returns:
      The finished set; None where parts are missing yet, which the log names.

    Raises:
      DataError: for an unknown name, more parts than the set can have, a disk without room, a
        folder that cannot be written, or a part that is stale or damaged.
    """
    wanted, parts = _located(name, directory, num_parts)
    if _is_finished(wanted, parts):
        return wanted
    config, mine = _config(name, num_parts, part), parts[part]

    def build() -> None:
        DeeplensePart(
            data_dir=os.fspath(wanted.folder.parent), config=config, file_format="array_record"
        ).download_and_prepare(download_dir=os.fspath(root_of(directory) / "downloads"))

    images = sum(config.num_images(split) for split in SPLIT_INDEX)
    try:
        mine.build_once(images * bytes_per_image(config), _ADVICE, build)
    except DataError:
        if wanted.open_finished() is None:  # else others were faster, and removed the parts
            raise
    return _joined(name, directory, num_parts, _say_on_the_log)


def join(name: str, directory: str | None, num_parts: int) -> PreparedSet:
    """Joins the parts of a set unless that is done; a second process waits for the first.

    The files of the parts become those of the set without being copied where the disk has hard
    links. A join that was killed is repeated.

    Args:
      name: one of `deeplense.available_sets()`.
      directory: see `deeplense.locate`.
      num_parts: how many parts the set has.

    Raises:
      DataError: for an unknown name, more parts than the set can have, and with the name of each
        part that is missing, stale or damaged.
    """
    wanted, parts = _located(name, directory, num_parts)
    if not _is_finished(wanted, parts):
        _joined(name, directory, num_parts, _refuse)
    return wanted


def _located(
    name: str, directory: str | None, num_parts: int
) -> tuple[PreparedSet, list[PreparedSet]]:
    """Returns the whole set and its parts, built or not."""
    locate_part(name, directory, num_parts, 0)  # refuses too many before they are counted
    parts = [locate_part(name, directory, num_parts, part) for part in range(num_parts)]
    return locate(name, directory), parts


def _is_finished(wanted: PreparedSet, parts: list[PreparedSet]) -> bool:
    if wanted.open_finished() is None:
        return False
    logging.info("%s is in %s already.", wanted.name, wanted.folder)
    _remove(parts)  # a job that joined them was killed before it could
    return True


def _refuse(complaint: str) -> None:
    raise DataError(complaint)


def _say_on_the_log(complaint: str) -> None:
    logging.info("The set is not joined yet: %s", complaint)


def _joined(
    name: str, directory: str | None, num_parts: int, complain: Callable[[str], None]
) -> PreparedSet | None:
    """Returns the set, which is joined unless a part is missing."""
    wanted, parts = _located(name, directory, num_parts)
    complaint = _complaint(name, parts)
    # The parts of a set that another job joined in the meantime are gone.
    if complaint and wanted.open_finished() is None:
        complain("\n".join([*complaint, *_parts_of_another_number(wanted, num_parts)]))
        return None

    def build() -> None:
        JoinedDeeplense(
            [_undamaged(part) for part in parts],
            data_dir=os.fspath(root_of(directory)),
            config=config_of(name).name,
            file_format="array_record",
        ).download_and_prepare()

    wanted.build_once(0, _ADVICE, build)
    _remove(parts)
    for other in _parts_of_another_number(wanted, num_parts):
        logging.warning("%s", other)
    return wanted


def _complaint(name: str, parts: list[PreparedSet]) -> list[str]:
    """Returns lines about the parts that are missing, stale, or lack a file."""
    missing, lines = [], []
    for number, part in enumerate(parts):
        try:
            if part.open_finished() is None:
                missing.append(str(number))
        except DataError as error:
            lines.append(str(error))
    if missing:
        command = _command(name, len(parts), "PART")
        lines.insert(
            0,
            f"data set {name} lacks these of its {len(parts)} parts: {', '.join(missing)}; build "
            f"each of them ({command})",
        )
    return lines


def _folder_of_parts(wanted: PreparedSet) -> pathlib.Path:
    return wanted.folder.parent / DeeplensePart.name


def _parts_of_another_number(wanted: PreparedSet, num_parts: int) -> list[str]:
    """Returns a line about the parts of a set that was to have more or fewer of them."""
    folder = _folder_of_parts(wanted)
    found = [path.parent.name for path in folder.glob(f"*-of-*/{BUILDER_VERSION}")]
    others = sorted(name for name in found if not name.endswith(f"-of-{num_parts}"))
    if not others:
        return []
    return [
        f"{folder} has stale parts, not of {num_parts}, which are not joined: {', '.join(others)}; "
        "remove them"
    ]


def _undamaged(part: PreparedSet) -> tfds.core.DatasetBuilder:
    """Returns the reader of a part; raises `DataError` where a file is not as it was written."""
    builder = part.require()
    for name, expected in builder.info.metadata["checksums"].items():
        if checksum(part.folder / name) != expected:
            raise DataError(
                f"data set {part.name} in {part.folder} is damaged: {name} changed since it was "
                f"written; remove that folder and build it again ({part.build_command})"
            )
    return builder


def _remove(parts: list[PreparedSet]) -> None:
    """Removes finished parts of a set that is there; not what a job may be writing."""
    for part in parts:
        folder = part.folder.parent
        shutil.rmtree(part.folder, ignore_errors=True)
        with contextlib.suppress(OSError):  # gone, or another job is in it
            folder.with_name(f".{folder.name}.lock").unlink()
            folder.rmdir()
            folder.parent.rmdir()
