"""Lens images as numpy arrays with a table of what they show: `simulate` and `load_data`."""

import dataclasses
from collections.abc import Iterable
from typing import Any

import jax
import numpy as np

from lensjax import prng
from lensjax.config_fields import is_integer
from lensjax.data import parameters, simulator
from lensjax.data.catalogue import CHUNK, FOLDER_SET, SIMULATED_SETS
from lensjax.data.dataset import SPLITS
from lensjax.data.tables import make_table, parameter_table
from lensjax.errors import DataError

_PREFIX = "deeplense/"


def _full_name(name: str, allowed: Iterable[str]) -> str:
    full = name if name.startswith(_PREFIX) else _PREFIX + name
    if full not in allowed:
        raise DataError(f"data set {name!r} does not exist; choose one of {', '.join(allowed)}")
    return full


def simulate(name: str, class_name: str, num: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Simulates fresh lenses of one class; no data set is read or written.

    Image i is a function of (seed, i), whatever `num` is. No seed gives the lenses of a data set.
    As in the sets, the noisy and the conserved kind of a model show the lenses of the plain one.

    Args:
      name: a simulated set, such as `model_ii_noisy`, with or without `deeplense/`. A set's small
        version draws from the same priors, so that `_mini` at the end changes nothing.
      class_name: `axion`, `cdm` or `no_sub`.
      num: number of images.
      seed: in [0, 2**31 - 1].

    Returns:
      Images, float32 `[num, H, W, 1]`, flux per pixel (counts for `model_i_noisy`), row 0 at the
      lowest y; and the table of labels and parameters, see `lensjax.data.tables.make_table`.

    Raises:
      DataError: for a name, class, number or seed that is not allowed.
    """
    full_name = _full_name(name, SIMULATED_SETS).removesuffix("_mini")
    if class_name not in simulator.CLASS_NAMES:
        raise DataError(
            f"class_name: got {class_name!r}; allowed: {', '.join(simulator.CLASS_NAMES)}"
        )
    if not (is_integer(num) and num >= 1):
        raise DataError(f"num: got {num!r}; allowed: an integer of at least 1")
    if not (is_integer(seed) and 0 <= seed <= prng.MAX_SEED):
        raise DataError(f"seed: got {seed!r}; allowed: an integer in 0 to {prng.MAX_SEED}")
    simulated = SIMULATED_SETS[full_name]
    label = simulator.CLASS_NAMES.index(class_name)
    base = prng.key(int(seed), f"simulate/{simulated.survey.name}", label)
    side = simulated.survey.num_pixels
    images = np.empty((num, side, side, 1), np.float32)
    vectors = np.empty((num, len(parameters.PARAMETER_NAMES)), np.float32)
    for start in range(0, num, CHUNK):
        chunk = jax.device_get(parameters.simulate_chunk(base, start, simulated, class_name))
        part = slice(start, min(start + CHUNK, num))
        images[part, ..., 0], vectors[part] = (each[: num - start] for each in chunk)
    labels = np.full(num, label, np.int32)
    table = make_table(
        full_name, simulator.CLASS_NAMES, labels, parameters.PARAMETER_NAMES, vectors
    )
    return images, table


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
      name: a simulated set, such as `model_ii_mini`, or `folder` for files of your own; with or
        without `deeplense/`.
      split: `train` or `test`.
      directory: where data sets live; None for `$TFDS_DATA_DIR`, else `~/tensorflow_datasets`.
      folder: the folder of your own files.
      layout: how they are read, as are the following; see the fields of `data` of the same names.
      nan_policy: see there.
      on_bad_file: see there.
      test_share: see there.

    Returns:
      Images, float32 `[N, H, W, C]`, flux per pixel (counts for `model_i_noisy`), row 0 at the
      lowest y, in the order of the set; and the table of labels and parameters, see
      `lensjax.data.tables.make_table`.

    Raises:
      lensjax.errors.ConfigError: for a field of `data` that is not allowed.
      DataError: for an unknown name or split, files that cannot be used, or a set that is stale,
        damaged or cannot be built.
    """
    full_name = _full_name(name, (*SIMULATED_SETS, FOLDER_SET))
    if split not in SPLITS:  # before a build that may take minutes
        raise DataError(f"split: got {split!r}; allowed: {', '.join(SPLITS)}")
    if (full_name == FOLDER_SET) != (folder is not None):
        raise DataError(f"folder: got {folder!r}; allowed: a folder with {FOLDER_SET}, else None")
    from lensjax.config import DataConfig
    from lensjax.config_fields import read_section
    from lensjax.data import sets

    fields: dict[str, Any] = {
        "name": full_name,
        "directory": directory,
        "folder": folder,
        "layout": layout,
    }
    fields |= {"nan_policy": nan_policy, "on_bad_file": on_bad_file, "test_share": test_share}
    data = read_section(DataConfig, dataclasses.asdict(DataConfig()) | fields, "data.")
    loaded = sets.prepare(data).read(split)
    return loaded.images, parameter_table(loaded)
