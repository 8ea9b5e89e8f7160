"""Labels and physical parameters of images as a table: a numpy structured array."""

from collections.abc import Sequence

import numpy as np

from lensjax.data.dataset import LensSplit


def make_table(
    data_set: str,
    class_names: Sequence[str],
    labels: np.ndarray,
    parameter_names: Sequence[str],
    parameters: np.ndarray,
) -> np.ndarray:
    """One row per image; `pandas.DataFrame` and `astropy.table.Table` take it as it is.

    Args:
      data_set: full name of the set, such as `deeplense/model_ii`.
      class_names: the names behind the labels; empty for an unlabelled set.
      labels: integers `[N]`; `len(class_names)`, the null label, has the class name `""`.
      parameter_names: names of the columns.
      parameters: float32 `[N, P]`; NaN where a class has no such parameter.

    Returns:
      Structured array `[N]` with the fields `data_set` and `class_name` (text), `label` (int32)
      and one float32 field for each parameter.
    """
    names = np.array([*class_names, ""])
    columns = [(name, np.float32) for name in parameter_names]
    head = [
        ("data_set", f"U{max(len(data_set), 1)}"),
        ("class_name", f"U{max(names.dtype.itemsize // 4, 1)}"),
        ("label", np.int32),
    ]
    table = np.empty(len(labels), np.dtype([*head, *columns]))
    table["data_set"] = data_set
    table["class_name"] = names[labels]
    table["label"] = labels
    for index, name in enumerate(parameter_names):
        table[name] = parameters[:, index]
    return table


def parameter_table(split: LensSplit) -> np.ndarray:
    """The labels and parameters of a split as a table, see `make_table`."""
    info = split.info
    return make_table(
        info.name, info.class_names, split.labels, info.parameter_names, split.parameters
    )
