"""Builds and reads every data set, simulated or a user's own folder, by its configuration."""

import dataclasses
from typing import Literal, TypedDict, Unpack, overload

import numpy as np

from lensjax.arguments import choice, path_text, truth
from lensjax.config import DataConfig
from lensjax.config.data import check_data
from lensjax.config.fields import read_section
from lensjax.data import deeplense
from lensjax.data.catalogue import FOLDER_SET, SIMULATED_SETS, full_name
from lensjax.data.dataset import SPLITS
from lensjax.data.prepared import PreparedSet
from lensjax.data.tables import parameter_table
from lensjax.errors import DataError
from lensjax.files.limits import Limits
from lensjax.files.planes import PlaneRules


def prepare(data: DataConfig) -> PreparedSet:
    """Builds a set unless it is there, and returns it.

    Args:
      data: the `data` section of a configuration.

    Raises:
      DataError: for a set that cannot be made, or is stale or damaged.
    """
    if data.name == FOLDER_SET:
        from lensjax.data.folder import folder_set
        from lensjax.data.folder.reading import Reading

        reading = Reading(
            data.layout,
            data.nan_policy,
            data.on_bad_file,
            data.test_share,
            data.files,
            data.folders,
            data.group,
            PlaneRules(
                data.planes, data.variance_planes, data.mask_planes, data.mask_bits, data.bands
            ),
            Limits(data.file_memory_gib, data.file_seconds),
        )
        return folder_set.prepare(data.folder or "", reading, data.directory)
    return deeplense.prepare(data.name, data.directory)


class ReadingOptions(TypedDict, total=False):
    """How the files of a folder are read: fields of `data`, see `DataConfig`."""

    layout: str
    nan_policy: str
    on_bad_file: str
    test_share: float
    files: str | None
    folders: str
    group: str | None
    planes: tuple[str, ...]
    variance_planes: tuple[str, ...]
    mask_planes: tuple[str, ...]
    mask_bits: int
    bands: str
    file_memory_gib: float
    file_seconds: float


@overload
def load_data(
    name: str,
    split: str,
    directory: str | None = None,
    folder: str | None = None,
    *,
    with_planes: Literal[False] = False,
    **options: Unpack[ReadingOptions],
) -> tuple[np.ndarray, np.ndarray]: ...


@overload
def load_data(
    name: str,
    split: str,
    directory: str | None = None,
    folder: str | None = None,
    *,
    with_planes: Literal[True],
    **options: Unpack[ReadingOptions],
) -> tuple[np.ndarray, np.ndarray, np.ndarray | None, np.ndarray | None]: ...


def load_data(
    name: str,
    split: str,
    directory: str | None = None,
    folder: str | None = None,
    *,
    with_planes: bool = False,
    **options: Unpack[ReadingOptions],
) -> tuple[np.ndarray | None, ...]:
    """Reads one split of a set, which is built first where it is missing.

    Args:
      name: a simulated set, such as `model_ii_mini`, or `folder` for your own files; with or
        without `deeplense/`.
      split: `train` or `test`.
      directory: where data sets live; None for `$TFDS_DATA_DIR`, else `~/tensorflow_datasets`.
      folder: the folder of your own files.
      with_planes: whether variances and masks are returned too.
      **options: how your own files are read: fields of `data`, such as
        `planes=("VIS", "NIR_Y"), bands="channels"`; see `ReadingOptions`.

    Returns:
      Images, float32 `[N, H, W, C]`, flux per pixel (counts for `model_i_noisy`), row 0 at the
      lowest y, in the order of the set; and the table of labels and parameters, see
      `lensjax.data.tables.make_table`. Pixels that a mask marks as bad are NaN. With `with_planes`
      the images have there what the files hold, and two more arrays follow: the variance, float32
      `[N, H, W, C]`, flux squared (of weights their inverse), infinite where nothing was
      measured, None for a set without variances; and the mask, bool `[N, H, W, C]`, True for bad
      pixels, None where there are none.

    Raises:
      lensjax.errors.ConfigError: for a field of `data` that is not allowed.
      DataError: for an unknown name or split, an argument of another type, files that cannot be
        used, or a set that is stale, damaged or cannot be built.
    """
    full = full_name(name, (*SIMULATED_SETS, FOLDER_SET))
    split = choice("split", split, SPLITS, error=DataError)  # before a build that takes minutes
    with_planes = truth("with_planes", with_planes, error=DataError)
    if directory is not None:
        directory = path_text("directory", directory, error=DataError)
    if folder is not None:
        folder = path_text("folder", folder, error=DataError)
    if (full == FOLDER_SET) != (folder is not None):
        raise DataError(f"folder: got {folder!r}; allowed: a folder for {FOLDER_SET}, else None")
    fields = {"name": full, "directory": directory, "folder": folder, **options}
    data = read_section(DataConfig, dataclasses.asdict(DataConfig()) | fields, "data.")
    check_data(data)
    loaded = prepare(data).read(split, masked_values=with_planes)
    table = parameter_table(loaded)
    if with_planes:
        return loaded.images, table, loaded.variance, loaded.mask
    return loaded.images, table
