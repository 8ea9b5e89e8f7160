"""Devices: what is refused, and that a run does not depend on their number."""

import json

import jax
import numpy as np
import pytest
from run_support import ROOT, metrics_of, run_python, tiny_config

from lensjax.config import ConfigError
from lensjax.parallel import make_mesh, over_batch, replicated

pytestmark = pytest.mark.usefixtures("quick_compiles")
TWO = "--xla_force_host_platform_device_count=2"


def test_more_devices_than_there_are_are_refused():
    there = jax.device_count()
    config = tiny_config(parallel={"num_devices": there + 1})
    with pytest.raises(ConfigError) as caught:
        make_mesh(config)
    expected = f"parallel.num_devices: got {there + 1}; allowed: at most the {there} devices"
    assert str(caught.value).startswith(expected)


def test_one_device_holds_everything():
    mesh = make_mesh(tiny_config())
    assert mesh.shape == {"data": 1}
    assert replicated(mesh).is_fully_replicated
    assert over_batch(mesh).shard_shape((8, 2)) == (8, 2)


CHECK_MESH = f"""
import dataclasses, sys
sys.path.insert(0, {str(ROOT / "tests")!r})
from run_support import tiny_config
import jax
from lensjax.config import ConfigError
from lensjax.parallel import make_mesh, over_batch, replicated

assert jax.device_count() == 2
for asked, devices in ((None, 2), (1, 1), (2, 2)):
    mesh = make_mesh(tiny_config(parallel={{"num_devices": asked}}))
    assert mesh.shape == {{"data": devices}}
    assert over_batch(mesh).shard_shape((8, 3)) == (8 // devices, 3)
    assert replicated(mesh).shard_shape((8, 3)) == (8, 3)
try:
    make_mesh(tiny_config(parallel={{"num_devices": None}}, train={{"batch_size": 7}}))
except ConfigError as error:
    message = "train.batch_size: got 7; allowed: a multiple of the number of devices, 2"
    assert str(error) == message, error
else:
    raise AssertionError("a batch that the devices do not divide was taken")
"""


def test_a_batch_is_spread_over_two_devices_or_refused():
    done = run_python("-c", CHECK_MESH, XLA_FLAGS=TWO)
    assert done.returncode == 0, done.stderr


TRAIN = f"""
import json, os, pathlib, signal, sys
sys.path.insert(0, {str(ROOT / "tests")!r})
from run_support import hide_tensorboard, signal_at, tiny_config, tiny_split
from lensjax import monitor, train, writers

hide_tensorboard()
monitor.Samples.draw = lambda self, params: (monitor.np.zeros((4, 4, 3), "uint8"), {{}})
write = writers.MetricWriters.scalars
for folder, devices, end_after in json.loads(sys.argv[1]):
    writers.MetricWriters.scalars = write
    if end_after:
        signal_at(end_after)
    config = tiny_config(parallel={{"num_devices": devices}})
    train.train(config, pathlib.Path(folder), tiny_split())
"""


@pytest.fixture(scope="module")
def losses(tmp_path_factory):
    """The losses of twelve steps on one device, on two, and on another number after six steps."""
    folder = tmp_path_factory.mktemp("devices")
    runs = [
        ("1", 1, None),
        ("2", 2, None),
        ("1 then 2", 1, 5),
        ("1 then 2", 2, None),
        ("2 then 1", 2, 5),
        ("2 then 1", 1, None),
    ]
    given = [(str(folder / name), devices, end_after) for name, devices, end_after in runs]
    done = run_python("-c", TRAIN, json.dumps(given), XLA_FLAGS=TWO)
    assert done.returncode == 0, done.stderr
    names = {name for name, _, _ in runs}
    return {name: [line["loss"] for line in metrics_of(folder / name)] for name in names}


@pytest.mark.parametrize("name", ["2", "1 then 2", "2 then 1"])
def test_the_losses_do_not_depend_on_the_number_of_devices(losses, name):
    assert len(losses[name]) == 12
    np.testing.assert_allclose(losses[name], losses["1"], rtol=1e-5)
