"""`--mode=export`: a data set, or generated images, as files that other programs read."""

import dataclasses
import glob
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from absl import logging

from lensjax.cli.export_formats import (
    FILE_FORMATS,
    PACKAGES,
    TABLE_FILE,
    Description,
    check_class_names,
    export_size,
    is_plain_name,
    write_files,
)
from lensjax.cli.export_hdf5 import write_hdf5
from lensjax.cli.sample_mode import written_files
from lensjax.config import Config
from lensjax.data.dataset import DatasetInfo, LensSplit
from lensjax.devices.progress import progress_bar
from lensjax.errors import ConfigError, DataError, UnusableError, WorkdirError
from lensjax.files import disk
from lensjax.files.array_file import read_array
from lensjax.files.atomic import read_together, recover_folder, replacing_folder, write_json
from lensjax.files.json_file import TEXT, Rule, checked, read_object
from lensjax.files.packages import require_packages
from lensjax.files.user_paths import expanded
from lensjax.run import provenance, stored
from lensjax.run import workdir as files

EXPORT_FILE = "export.json"
GENERATED_PART = "generated"
_WRITTEN_BY = "lensjax --mode=export"
# What `EXPORT_FILE` must hold for the files beside it to be replaced.
_EXPORT_FIELDS = {
    "written_by": Rule(lambda value: value == _WRITTEN_BY, _WRITTEN_BY),
    "contents": TEXT.several(),
}


@dataclasses.dataclass(frozen=True)
class Source:
    """The images to export.

    Attributes:
      info: the data set, or the one that the generating network learned.
      readers: by part, such as `train`, a function that reads it; only one is read at a time.
      meta: the content of `generated/meta.json`; None for a data set.
    """

    info: DatasetInfo
    readers: dict[str, Callable[[], LensSplit]]
    meta: dict[str, Any] | None = None

    def description(self, scale: str) -> Description:
        """The facts that hold for all images at a scale, `flux` or `published`."""
        meta = self.meta or {}
        return Description(
            self.info,
            factor=self.info.published_scale if scale == "published" else 1.0,
            seed=meta.get("seed"),
            weights_sha256=meta.get("weights_sha256"),
        )


def _data_source(config: Config) -> Source:
    """The configured data set, built first if it is missing."""
    from lensjax.run import datasets

    prepared = datasets.prepare(config.data)
    info = prepared.info()
    splits = tuple(info.split_sizes) if config.export.split == "all" else (config.export.split,)

    def reader(split: str) -> Callable[[], LensSplit]:
        return lambda: prepared.read(split, masked_values=True)  # the mask is written too

    return Source(info, {split: reader(split) for split in splits})


def _generated_source(folder: pathlib.Path, dataset: Mapping[str, Any]) -> Source:
    """The images that `--mode=sample` left in a folder, of a network that learned a data set."""
    recover_folder(folder, written_files)
    if not (folder / "meta.json").exists():
        raise WorkdirError(f"{folder} holds no images; draw them first (--mode=sample)")
    try:
        with read_together(folder):
            meta = stored.read_stored(folder / "meta.json", stored.GENERATED)
            images = read_array(folder / "images.npy", "images", mmap_mode="r")
            labels = read_array(folder / "labels.npy", "labels")
    except DataError as error:
        raise WorkdirError(f"{error}; draw them again (--mode=sample)") from None
    shape = tuple(dataset["image_shape"])
    expected = (meta.get("num_images"), *shape)
    if images.shape != expected or labels.shape != images.shape[:1]:
        raise WorkdirError(
            f"{folder} holds images {images.shape} and labels {labels.shape}, but its meta.json "
            f"and {files.DATASET_FILE} say {expected}; draw them again (--mode=sample)"
        )
    num_classes = len(dataset["class_names"])  # also the label for no class
    if (images.dtype, labels.dtype.kind) != (np.float32, "i") or not (
        (labels >= 0) & (labels <= num_classes)
    ).all():
        raise WorkdirError(
            f"{folder} holds images of {images.dtype} and labels of {labels.dtype}; allowed: "
            f"float32, and integers from 0 to {num_classes}; draw them again (--mode=sample)"
        )
    field_names = {field.name for field in dataclasses.fields(DatasetInfo)} & dataset.keys()
    info = DatasetInfo(
        **{name: dataset[name] for name in field_names}
        | {
            "class_names": tuple(dataset["class_names"]),
            "parameter_names": (),
            "band_names": tuple(dataset.get("band_names", ())),
            "band_zero_points_mag": tuple(dataset.get("band_zero_points_mag", ())),
            "split_sizes": {GENERATED_PART: len(images)},
            "image_shape": shape,
        }
    )
    split = LensSplit(images, labels, np.zeros((len(images), 0), np.float32), info)
    return Source(info, {GENERATED_PART: lambda: split}, meta)


def _contents(folder: pathlib.Path) -> list[str] | None:
    """Patterns of the files that an export wrote into a folder; None for any other folder."""
    try:
        content = checked(read_object(folder / EXPORT_FILE), _EXPORT_FIELDS)
        return [pattern for pattern in content["contents"] if is_plain_name(pattern)]
    except (FileNotFoundError, UnusableError):
        pass
    return None


def _written_files(folder: pathlib.Path) -> list[pathlib.Path]:
    """The entries of a folder that an export wrote."""
    patterns = [EXPORT_FILE, *(_contents(folder) or ())]
    return [path for pattern in patterns for path in folder.glob(pattern)]


def _check_target(folder: pathlib.Path) -> None:
    """Raises `ConfigError` for a folder that is not empty and was not written by an export."""
    recover_folder(folder, _written_files)
    empty = not folder.exists() or (folder.is_dir() and not any(folder.iterdir()))
    if empty or _contents(folder) is not None:
        return
    raise ConfigError(
        "export.folder",
        str(folder),
        "it is not empty and was not written by an export; allowed: a new or empty folder, or "
        "the folder of an earlier export, which is replaced",
    )


def _patterns(source: Source, file_format: str) -> list[str]:
    """Patterns of the files that an export writes into its folder besides `export.json`."""
    if file_format not in FILE_FORMATS:
        return [f"{name}.h5" for name in source.readers]
    check_class_names(source.info)
    if source.meta is None:
        return list(source.readers)
    return [
        *map(glob.escape, source.info.class_names),
        f"[0-9][0-9][0-9][0-9][0-9][0-9]*.{file_format}",
        TABLE_FILE,
    ]


def _check_nothing_in_the_way(folder: pathlib.Path, patterns: list[str]) -> None:
    """Raises `ConfigError` for files of the user where an export would write."""
    wanted = {path for pattern in patterns for path in folder.glob(pattern)}
    in_the_way = sorted(path.name for path in wanted.difference(_written_files(folder)))
    if in_the_way:
        raise ConfigError(
            "export.folder",
            str(folder),
            f"{in_the_way[0]} already exists and was not written by an export; move it away",
        )


def _record(config: Config, source: Source, patterns: list[str]) -> dict[str, Any]:
    """The content of `export.json`."""
    return {
        "written_by": _WRITTEN_BY,
        "complete": True,
        "contents": patterns,
        "source": config.export.source,
        "format": config.export.format,
        "scale": config.export.scale,
        **source.description(config.export.scale).facts(),
        "class_names": list(source.info.class_names),
        "image_shape": list(source.info.image_shape),
        "band_names": list(source.info.band_names),
        "variance": source.info.has_variance,
        "mask": source.info.masked and source.meta is None,
        "num_images": {name: source.info.split_sizes[name] for name in source.readers},
        "versions": provenance.versions(),
        "git_revision": provenance.git_revision(),
        "generated": source.meta,
    }


def _write(
    source: Source, folder: pathlib.Path, file_format: str, description: Description
) -> None:
    total = sum(source.info.split_sizes[name] for name in source.readers)
    with progress_bar(total, f"Exporting {source.info.name}") as bar:
        for name, read_split in source.readers.items():
            split = read_split()
            if file_format in FILE_FORMATS:
                target = folder if source.meta is not None else folder / name
                write_files(split, target, description, file_format, bar.update)
            else:
                write_hdf5(split, folder / f"{name}.h5", description, bar.update)


def export_mode(config: Config, workdir: pathlib.Path, output: pathlib.Path | None = None) -> None:
    """Writes the images of a data set, or those in `generated/`, into `export.folder`.

    An earlier export in the folder is replaced once the new one is whole; anything else there is
    refused.

    Args:
      config: the checked configuration.
      workdir: the run's folder; unused if `export.folder` is given and the source is `data`.
      output: where `generated/` is and `export/` goes; None for the workdir.

    Raises:
      ConfigError: if the folder holds files that no export wrote, or, for generated images, the
        workdir belongs to another configuration.
      DataError: if a package is missing, or the data set cannot be built or read.
      lensjax.errors.FileError: if there is no room, or the files cannot be written.
      lensjax.errors.WorkdirError: if the workdir has no generated images.
    """
    settings = config.export
    output = output or workdir
    folder = expanded(settings.folder, "export.folder") if settings.folder else output / "export"
    packages = PACKAGES.get(settings.format, ())
    require_packages(f"export.format={settings.format}", "files", *packages)
    _check_target(folder)  # before a long build
    if settings.source == "generated":
        files.check_same(workdir, config)
        source = _generated_source(output / files.GENERATED, files.read_dataset(workdir))
    else:
        source = _data_source(config)
    patterns = _patterns(source, settings.format)
    record = _record(config, source, patterns)
    _check_nothing_in_the_way(folder, patterns)
    num_images = sum(source.info.split_sizes[name] for name in source.readers)
    num_bytes, num_files = export_size(
        source.info, num_images, settings.format, planes=source.meta is None
    )
    advice = "set export.folder to another folder"
    disk.check_room(folder, num_bytes, advice, num_files=num_files)
    with replacing_folder(folder, _written_files) as new:
        _write(source, new, settings.format, source.description(settings.scale))
        write_json(new / EXPORT_FILE, record)
    logging.info("wrote %s", folder)
