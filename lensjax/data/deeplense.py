"""Prepares and reads the simulated DeepLense sets, which `deeplense_builder.py` writes."""

import os

import tensorflow_datasets as tfds

from lensjax.data.catalogue import BUILDER_VERSION, SIMULATED_SETS, SPLIT_INDEX
from lensjax.data.dataset import DatasetInfo, LensSplit
from lensjax.data.deeplense_builder import (
    Deeplense,
    DeeplenseConfig,
    bytes_per_image,
)
from lensjax.data.prepared import PreparedSet, root_of
from lensjax.data.records import RecordSplit
from lensjax.errors import DataError


def available_sets() -> tuple[str, ...]:
    """Returns the full names of all simulated sets, such as `deeplense/model_ii_mini`."""
    return tuple(SIMULATED_SETS)


def config_of(name: str) -> DeeplenseConfig:
    """Returns what a set is made of.

    Raises:
      DataError: for an unknown name.
    """
    for full_name, config in zip(available_sets(), Deeplense.BUILDER_CONFIGS, strict=True):
        if name == full_name:
            return config
    raise DataError(
        f"data set {name!r} does not exist; choose one of {', '.join(available_sets())}"
    )


def locate(name: str, directory: str | None = None) -> PreparedSet:
    """Returns the set, built or not.

    Args:
      name: one of `available_sets()`.
      directory: where data sets live; None for `$TFDS_DATA_DIR`, else `~/tensorflow_datasets`.

    Raises:
      DataError: for an unknown name.
    """
    source = config_of(name).source
    folder = root_of(directory) / Deeplense.name / source.name / BUILDER_VERSION
    command = f"--mode=build_data --config.data.name={name}"
    return PreparedSet(name, folder, source.fingerprint, command)


def prepare(
    name: str, directory: str | None = None, *, num_shards: int | None = None
) -> PreparedSet:
    """Builds a simulated set unless it is there already; see `PreparedSet.build_once`.

    Args:
      name: one of `available_sets()`.
      directory: see `locate`.
      num_shards: files a split; None for files of about half a GB. The content does not depend
        on it.

    Raises:
      DataError: for an unknown name, a disk without room, a folder that cannot be written, or a
        finished set that is stale or damaged.
    """
    wanted, config = locate(name, directory), config_of(name)

    def build() -> None:
        builder = Deeplense(
            data_dir=os.fspath(root_of(directory)), config=config.name, file_format="array_record"
        )
        builder.download_and_prepare(
            download_config=tfds.download.DownloadConfig(num_shards=num_shards)
        )

    images = sum(config.num_images(split) for split in SPLIT_INDEX)
    advice = "set data.directory or TFDS_DATA_DIR to a larger disk, or choose the _mini set"
    wanted.build_once(images * bytes_per_image(config), advice, build)
    return wanted


def read_info(name: str, directory: str | None = None) -> DatasetInfo:
    """Returns what is known about a finished set; errors as for `open_split`."""
    return locate(name, directory).info()


def open_split(name: str, directory: str | None, split: str) -> RecordSplit:
    """Opens one split of a finished set without reading its images.

    Args:
      name: one of `available_sets()`.
      directory: see `locate`.
      split: `train` or `test`.

    Raises:
      DataError: for an unknown name or split, or a set that is missing, stale or damaged.
    """
    return locate(name, directory).open_split(split)


def read(name: str, directory: str | None, split: str) -> LensSplit:
    """Reads one split into memory; arguments and errors as for `open_split`."""
    return open_split(name, directory, split).in_memory()
