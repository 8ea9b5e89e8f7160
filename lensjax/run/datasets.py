"""Builds and reads every data set, simulated or a user's own folder, by its configuration."""

import dataclasses
from typing import Any

import numpy as np

from lensjax.config import DataConfig
from lensjax.config.fields import read_section
from lensjax.data import deeplense
from lensjax.data.catalogue import FOLDER_SET, SIMULATED_SETS, full_name
from lensjax.data.dataset import SPLITS
from lensjax.data.prepared import PreparedSet
from lensjax.data.tables import parameter_table
from lensjax.errors import DataError


def prepare(data: DataConfig) -> PreparedSet:
    """Builds a set unless it is there, and returns it.

    Args:
      data: the `data` section of a configuration.

    Raises:
      DataError: for a set that cannot be made, or is stale or damaged.
    """
    if data.name == FOLDER_SET:
        from lensjax.data.folder import folder_set
        from lensjax.data.folder.scan import Reading

        reading = Reading(data.layout, data.nan_policy, data.on_bad_file, data.test_share)
        return folder_set.prepare(data.folder or "", reading, data.directory)
    return deeplense.prepare(data.name, data.directory)


def load_data(
    name: str,
    split: str,
    directory: str | None = None,
    folder: str | None = None,
    *,
    layout: str = "auto",
    nan_policy: str = "refuse",
    on_bad_file: str = "refuse",
    test_share: float = 0.1,
) -> tuple[np.ndarray, np.ndarray]:
    """Reads one split of a set, which is built first where it is missing.

    Args:
      name: a simulated set, such as `model_ii_mini`, or `folder` for your own files; with or
        without `deeplense/`.
      split: `train` or `test`.
      directory: where data sets live; None for `$TFDS_DATA_DIR`, else `~/tensorflow_datasets`.
      folder: the folder of your own files.
      layout: the axes of an array in these files, see `data.layout`.
      nan_policy: see `data.nan_policy`.
      on_bad_file: see `data.on_bad_file`.
      test_share: see `data.test_share`.

    Returns:
      Images, float32 `[N, H, W, C]`, flux per pixel (counts for `model_i_noisy`), row 0 at the
      lowest y, in the order of the set; and the table of labels and parameters, see
      `lensjax.data.tables.make_table`.

    Raises:
      lensjax.errors.ConfigError: for a field of `data` that is not allowed.
      DataError: for an unknown name or split, files that cannot be used, or a set that is stale,
        damaged or cannot be built.
    """
    full = full_name(name, (*SIMULATED_SETS, FOLDER_SET))
    if split not in SPLITS:  # before a build that may take minutes
        raise DataError(f"split: got {split!r}; allowed: {', '.join(SPLITS)}")
    if (full == FOLDER_SET) != (folder is not None):
        raise DataError(f"folder: got {folder!r}; allowed: a folder for {FOLDER_SET}, else None")
    fields: dict[str, Any] = {
        "name": full,
        "directory": directory,
        "folder": folder,
        "layout": layout,
    }
    fields |= {"nan_policy": nan_policy, "on_bad_file": on_bad_file, "test_share": test_share}
    data = read_section(DataConfig, dataclasses.asdict(DataConfig()) | fields, "data.")
    loaded = prepare(data).read(split)
    return loaded.images, parameter_table(loaded)
