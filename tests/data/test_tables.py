"""The table of a split: one row an image."""

import dataclasses

import numpy as np
import pytest
from run_support import tiny_split

from lensjax.data.tables import make_table, parameter_table


def _split(class_names=("axion", "cdm", "no_sub")):
    split = tiny_split(6, class_names=class_names)
    parameters = np.random.default_rng(0).normal(size=(6, 2)).astype(np.float32)
    parameters[1, 1] = np.nan
    info = dataclasses.replace(split.info, parameter_names=("mass", "radius"))
    return dataclasses.replace(split, parameters=parameters, info=info)


def test_each_row_is_an_image_and_each_parameter_a_column():
    split = _split()
    table = parameter_table(split)
    assert table.dtype.names == ("data_set", "class_name", "label", "mass", "radius")
    assert table.shape == (6,)
    assert set(table["data_set"]) == {split.info.name}
    assert table["class_name"].tolist() == ["axion", "cdm", "no_sub"] * 2
    assert table["label"].dtype == np.int32
    np.testing.assert_array_equal(table["label"], split.labels)
    for index, name in enumerate(("mass", "radius")):
        assert table[name].dtype == np.float32
        assert table[name].tobytes() == split.parameters[:, index].tobytes()


def test_an_unlabelled_set_has_empty_class_names():
    table = parameter_table(_split(class_names=()))
    assert table["class_name"].tolist() == [""] * 6
    assert table["label"].tolist() == [0] * 6


def test_the_null_label_has_no_class_name():
    empty = np.zeros((2, 0), np.float32)
    table = make_table("set", ("a", "bc"), np.array([2, 1]), (), empty)
    assert table["class_name"].tolist() == ["", "bc"]


def test_no_image_is_no_row():
    table = make_table("", (), np.zeros(0, np.int32), ("mass",), np.zeros((0, 1), np.float32))
    assert table.shape == (0,)


@pytest.mark.parametrize(("module", "kind"), [("pandas", "DataFrame"), ("astropy.table", "Table")])
def test_pandas_and_astropy_take_it(module, kind):
    make = getattr(pytest.importorskip(module), kind)
    split = _split()
    made = make(parameter_table(split))
    assert len(made) == 6
    assert list(made["class_name"]) == ["axion", "cdm", "no_sub"] * 2
    np.testing.assert_array_equal(np.asarray(made["radius"]), split.parameters[:, 1])
