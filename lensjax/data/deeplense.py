"""Prepares and reads the simulated DeepLense sets, which `deeplense_builder.py` writes."""

import contextlib
import fcntl
import os
import pathlib
import shutil
from collections.abc import Iterator

import tensorflow_datasets as tfds
from absl import logging

from lensjax.data.catalogue import SIMULATED_SETS
from lensjax.data.dataset import DataError, DatasetInfo, LensSplit
from lensjax.data.deeplense_builder import (
    SPLIT_INDEX,
    VERSION,
    Deeplense,
    DeeplenseConfig,
    bytes_per_image,
    fingerprint,
)
from lensjax.data.records import RecordSplit

_DISK_MARGIN = 1.05


def available_sets() -> tuple[str, ...]:
    """Returns the full names of all simulated sets, such as `deeplense/model_ii_mini`."""
    return tuple(SIMULATED_SETS)


def _config_of(name: str) -> DeeplenseConfig:
    for full_name, config in zip(available_sets(), Deeplense.BUILDER_CONFIGS, strict=True):
        if name == full_name:
            return config
    raise DataError(
        f"data set {name!r} does not exist; choose one of {', '.join(available_sets())}"
    )


def _root_of(directory: str | None) -> pathlib.Path:
    chosen = directory or os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets"
    return pathlib.Path(chosen).expanduser()


def _folder_of(name: str, directory: str | None) -> pathlib.Path:
    return _root_of(directory) / Deeplense.name / _config_of(name).name / VERSION


def _remedy(name: str) -> str:
    return f"remove that folder and build it again (--mode=build_data --config.data.name={name})"


def _open_finished(name: str, folder: pathlib.Path) -> tfds.core.DatasetBuilder | None:
    """Returns the builder of a finished set that is up to date, None where there is none."""
    if not folder.exists():
        return None
    remedy = _remedy(name)
    try:
        builder = tfds.builder_from_directory(os.fspath(folder))
        found = builder.info.metadata["fingerprint"]
        paths = [path for split in builder.info.splits.values() for path in split.filepaths]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"data set {name} in {folder} cannot be read; {remedy}") from error
    if found != fingerprint():
        raise DataError(
            f"data set {name} in {folder} is stale: it was made by code or constants with the "
            f"fingerprint {found}, those installed have {fingerprint()}; {remedy}"
        )
    missing = [path.name for path in paths if not path.exists()]
    if missing:
        raise DataError(f"data set {name} in {folder} lacks {', '.join(missing)}; {remedy}")
    return builder


@contextlib.contextmanager
def _exclusive(lock_path: pathlib.Path, name: str) -> Iterator[None]:
    """Holds a lock that the system gives back if the process dies."""
    with lock_path.open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            logging.info("Another process is building %s; waiting for it.", name)
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _remove_leftovers(name: str, folder: pathlib.Path) -> None:
    for leftover in folder.parent.glob("incomplete.*"):
        logging.warning(
            "An earlier build of %s did not finish; %s is removed and the build starts over.",
            name,
            leftover,
        )
        shutil.rmtree(leftover)


def _check_disk_space(name: str, root: pathlib.Path) -> None:
    config = _config_of(name)
    images = sum(config.num_images(split) for split in SPLIT_INDEX)
    needed = _DISK_MARGIN * images * bytes_per_image(config)
    free = shutil.disk_usage(root).free
    if needed > free:
        raise DataError(
            f"data set {name} needs {needed / 2**30:.2f} GiB in {root}, where "
            f"{free / 2**30:.2f} GiB are free; make room, set data.directory or TFDS_DATA_DIR to a "
            f"larger disk, or choose the _mini set"
        )


def prepare(name: str, directory: str | None = None, *, num_shards: int | None = None) -> None:
    """Builds a simulated set unless it is there already.

    A second process that asks for the same set waits for the first. Whatever a killed build left
    is removed.

    Args:
      name: one of `available_sets()`.
      directory: where data sets live; None for `$TFDS_DATA_DIR`, else `~/tensorflow_datasets`.
      num_shards: files a split; None for files of about half a GB. The content does not depend
        on it.

    Raises:
      DataError: for an unknown name, a disk without room, a folder that cannot be written, or a
        finished set that is stale or damaged.
    """
    folder = _folder_of(name, directory)
    if _open_finished(name, folder) is not None:
        return
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with _exclusive(folder.parent.with_name(f".{folder.parent.name}.lock"), name):
            if _open_finished(name, folder) is not None:
                return
            _remove_leftovers(name, folder)
            _check_disk_space(name, _root_of(directory))
            _build(name, directory, num_shards)
    except OSError as error:
        if error.errno is None:  # not the file system's
            raise
        raise DataError(
            f"data set {name} cannot be written to {folder}: {error}; set data.directory or "
            f"TFDS_DATA_DIR to a folder that can"
        ) from error


def _build(name: str, directory: str | None, num_shards: int | None) -> None:
    logging.info("Building %s in %s.", name, _root_of(directory))
    builder = Deeplense(
        data_dir=os.fspath(_root_of(directory)),
        config=_config_of(name).name,
        file_format="array_record",
    )
    tfds.display_progress_bar(False)  # ours has a total
    try:
        builder.download_and_prepare(
            download_config=tfds.download.DownloadConfig(num_shards=num_shards)
        )
    finally:
        tfds.display_progress_bar(True)


def read_info(name: str, directory: str | None = None) -> DatasetInfo:
    """Returns what is known about a finished set without reading its images.

    Args:
      name: one of `available_sets()`.
      directory: see `prepare`.

    Raises:
      DataError: for an unknown name, or a set that is missing, stale or damaged.
    """
    return _describe(name, _require(name, directory))


def _require(name: str, directory: str | None) -> tfds.core.DatasetBuilder:
    folder = _folder_of(name, directory)
    builder = _open_finished(name, folder)
    if builder is None:
        raise DataError(
            f"data set {name} is not in {folder}; build it first "
            f"(--mode=build_data --config.data.name={name})"
        )
    return builder


def _describe(name: str, builder: tfds.core.DatasetBuilder) -> DatasetInfo:
    metadata = builder.info.metadata
    return DatasetInfo(
        name=name,
        fingerprint=metadata["fingerprint"],
        class_names=tuple(metadata["class_names"]),
        parameter_names=tuple(metadata["parameter_names"]),
        split_sizes={key: split.num_examples for key, split in builder.info.splits.items()},
        image_shape=builder.info.features["image"].shape,
        flux_unit=metadata["flux_unit"],
        minimum=metadata["minimum"],
        maximum=metadata["maximum"],
        published_scale=metadata["published_scale"],
        pixel_scale_arcsec=metadata["pixel_scale_arcsec"],
        psf_fwhm_arcsec=metadata["psf_fwhm_arcsec"],
        zero_point_mag=metadata["zero_point_mag"],
    )


def open_split(name: str, directory: str | None, split: str) -> RecordSplit:
    """Opens one split of a finished set without reading its images.

    Args:
      name: one of `available_sets()`.
      directory: see `prepare`.
      split: `train` or `test`.

    Raises:
      DataError: for an unknown name or split, or a set that is missing, stale or damaged.
    """
    builder = _require(name, directory)
    info = _describe(name, builder)
    if split not in info.split_sizes:
        raise DataError(
            f"data set {name} has no split {split!r}; choose one of {', '.join(info.split_sizes)}"
        )
    return RecordSplit(info, split, builder.info.splits[split].filepaths, _remedy(name))


def read(name: str, directory: str | None, split: str) -> LensSplit:
    """Reads one split into memory; arguments and errors as for `open_split`."""
    return open_split(name, directory, split).in_memory()
