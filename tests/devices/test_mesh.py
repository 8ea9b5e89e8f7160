"""Devices: what is refused, and that a run does not depend on their number or its form."""

import itertools
import json
from typing import Any, NamedTuple

import jax
import numpy as np
import pytest
from run_support import ROOT, metrics_of, run_python, tiny_config

from lensjax.devices.mesh import over_batch, replicated, to_host
from lensjax.errors import ConfigError
from lensjax.run.learning import build_mesh, build_spread

pytestmark = pytest.mark.usefixtures("quick_compiles")
EIGHT = "--xla_force_host_platform_device_count=8"
NUM_STEPS, NUM_IMAGES = 20, 40
# Two steps a dispatch, each in two parts.
AT_ONCE = {"steps_per_dispatch": 2, "accumulate_steps": 2, "log_every": 2}


def test_more_devices_than_there_are_are_refused():
    there = jax.device_count()
    config = tiny_config(parallel={"num_devices": there + 1})
    with pytest.raises(ConfigError) as caught:
        build_mesh(config)
    expected = f"parallel.num_devices: got {there + 1}; allowed: at most the {there} available"
    assert str(caught.value).startswith(expected)


def test_one_device_holds_everything():
    mesh = build_mesh(tiny_config())
    assert mesh.shape == {"data": 1, "shard": 1}
    assert replicated(mesh).is_fully_replicated
    assert over_batch(mesh).shard_shape((8, 2)) == (8, 2)


@pytest.mark.parametrize(
    ("parallel", "message"),
    [
        ({"mesh": (1, 2)}, "1 times 2 is 2; allowed: two integers whose product is "),
        ({"mesh": (2,)}, "allowed: () or two integers of at least 1, such as (8, 1)"),
        ({"mesh": (0, 1)}, "allowed: () or two integers of at least 1, such as (8, 1)"),
        (
            {"mesh": (2, 4), "num_devices": 8, "strategy": "pmap"},
            "allowed: (8, 1) with parallel.strategy=pmap",
        ),
    ],
)
def test_a_mesh_that_does_not_fit_is_refused(parallel, message):
    with pytest.raises(ConfigError, match=r"parallel\.mesh: got \(") as caught:
        build_mesh(tiny_config(parallel=parallel))
    assert message in str(caught.value)


def test_arrays_of_one_host_come_back_as_they_are():
    rows = np.arange(6, dtype=np.float32).reshape(3, 2)
    for array in (rows, jax.numpy.asarray(rows)):
        np.testing.assert_array_equal(to_host(array), rows)


CHECK_MESH = f"""
import sys
sys.path.insert(0, {str(ROOT / "tests" / "support")!r})
from run_support import tiny_config
import jax
import numpy as np
from lensjax.config import ConfigError
from lensjax.run.learning import build_mesh
from lensjax.devices.mesh import all_devices, on_each_device, over_batch, replicated
from lensjax.devices.mesh import state_shardings

assert jax.device_count() == 8
for asked, shape in ((None, ()), (1, ()), (2, ()), (8, (2, 4)), (8, (1, 8)), (None, (4, 2))):
    mesh = build_mesh(tiny_config(parallel={{"num_devices": asked, "mesh": shape}}))
    devices = asked or 8
    assert tuple(mesh.shape.values()) == (shape or (devices, 1))
    assert over_batch(mesh).shard_shape((8, 3)) == (8 // devices, 3)
    assert replicated(mesh).shard_shape((8, 3)) == (8, 3)
    leaves = {{
        "kernel": np.zeros((24, 64)), "tall": np.zeros((64, 24)), "odd": np.zeros((33, 35)),
        "bias": np.zeros(64), "step": np.zeros(()),
    }}
    shards = {{
        name: one.shard_shape(leaves[name].shape)
        for name, one in state_shardings(mesh, leaves).items()
    }}
    part = 64 // mesh.shape["shard"]
    assert shards["kernel"] == (24, part) and shards["tall"] == (part, 24), shards
    assert (shards["odd"], shards["bias"], shards["step"]) == ((33, 35), (64,), ())

for batch_size, shape, message in (
    (7, (), "train.batch_size: got 7; allowed: a multiple of the number of devices, 8"),
    (24, (), "train.batch_size: got 24; allowed: a multiple of the number of devices, 8, times "
        "train.accumulate_steps, 2"),
    (8, (4, 4), "parallel.mesh: got (4, 4); 4 times 4 is 16; allowed: two integers whose "
        "product is 8, the number of devices"),
):
    try:
        build_mesh(tiny_config(
            parallel={{"num_devices": None, "mesh": shape}},
            train={{"batch_size": batch_size, "accumulate_steps": 2 if batch_size == 24 else 1}},
        ))
    except ConfigError as error:
        assert str(error) == message, error
    else:
        raise AssertionError(message)

# Each device runs the same program, so that bits do not depend on their number.
def rows_fn(weights, rows, numbers):
    return jax.numpy.tanh(rows @ weights) * numbers[:, None], numbers
rng = np.random.default_rng(0)
weights = rng.normal(size=(64, 64)).astype(np.float32)
rows, numbers = rng.normal(size=(24, 64)).astype(np.float32), np.arange(24, dtype=np.int32)
found = {{}}
for most in (1, 2, 8):
    mesh = all_devices(most)
    assert mesh.size == most
    step = 3 * most
    parts = [
        on_each_device(rows_fn, mesh)(weights, rows[i : i + step], numbers[i : i + step])
        for i in range(0, 24, step)
    ]
    found[most] = np.concatenate([part for part, _ in parts]).tobytes()
    np.testing.assert_array_equal(np.concatenate([part for _, part in parts]), numbers)
assert found[1] == found[2] == found[8]
"""


def test_rows_and_states_are_spread_over_eight_devices_or_refused():
    done = run_python("-c", CHECK_MESH, XLA_FLAGS=EIGHT)
    assert done.returncode == 0, done.stderr


# The forms by name: fields of the `parallel` section.
FORMS = {
    "one": {"num_devices": 1},
    "jit": {"num_devices": 8},
    "pmap": {"num_devices": 8, "strategy": "pmap"},
    "sharded": {"num_devices": 8, "mesh": (2, 4)},
    "wholly sharded": {"num_devices": 8, "mesh": (1, 8)},
}
TRAIN = f"""
import json, pathlib, sys
sys.path.insert(0, {str(ROOT / "tests" / "support")!r})
from run_support import hide_tensorboard, signal_at, tiny_config, tiny_split
import jax
import numpy as np
from lensjax.training import generator_watch, loop
from lensjax.run import writers

hide_tensorboard()
blank = np.zeros((4, 4, 3), "uint8")
generator_watch.Samples.draw = lambda self, params: (blank, {{}})
write, pmap = writers.MetricWriters.scalars, jax.pmap
mapped = []
for folder, parallel, placement, end_after, changes in json.loads(sys.argv[1]):
    writers.MetricWriters.scalars = write
    jax.pmap = lambda *args, **more: mapped.append(pmap(*args, **more)) or mapped[-1]
    if end_after:
        signal_at(end_after)
    config = tiny_config(
        parallel=parallel,
        data={{"placement": placement}},
        loss={{"stratified": True}},
        model={{"width": 32}},
        train={{"num_steps": {NUM_STEPS}, "batch_size": 16, "checkpoint_every": 100}} | changes,
    )
    state = loop.train(config, pathlib.Path(folder), tiny_split({NUM_IMAGES}))
    assert len(mapped) == (parallel.get("strategy") == "pmap"), (parallel, mapped)
    mapped.clear()
    kernels = [leaf for leaf in jax.tree.leaves(state.opt_state) if leaf.size >= 2**10]
    parts = {{leaf.size // leaf.addressable_shards[0].data.size for leaf in kernels}}
    assert parts == {{parallel.get("mesh", (1, 1))[1]}}, parts
"""


class Runs(NamedTuple):
    """Trainings of twenty steps, and one that goes on in another form every few steps.

    Attributes:
      plain: form and placement of each.
      at_once: form and placement of those with `AT_ONCE`.
      chain: forms of the run that changes its form; steps are divided evenly.
    """

    plain: tuple[tuple[str, str], ...]
    at_once: tuple[tuple[str, str], ...]
    chain: tuple[str, ...]


PAIRS = Runs(
    (("one", "device"), ("jit", "device"), ("pmap", "stream")),
    (("pmap", "device"),),
    ("jit", "pmap", "one", "sharded"),
)
WHOLE = Runs(
    tuple(itertools.product(FORMS, ("device", "stream"))),
    (("jit", "stream"), ("pmap", "stream"), ("pmap", "device"), ("sharded", "device")),
    ("one", "jit", "pmap", "jit", "one", "pmap", "one", "sharded", "wholly sharded", "one"),
)


@pytest.fixture(
    scope="module",
    params=[PAIRS, pytest.param(WHOLE, marks=pytest.mark.nightly)],
    ids=["pairs", "whole"],
)
def losses(request, tmp_path_factory):
    """The runs, and the losses of each by its name."""
    folder = tmp_path_factory.mktemp("devices")
    runs: Runs = request.param
    trainings: list[tuple[Any, ...]] = [
        (str(folder / f"{name}{form}-{placement}"), FORMS[form], placement, None, changes)
        for name, forms, changes in (("", runs.plain, {}), ("at once ", runs.at_once, AT_ONCE))
        for form, placement in forms
    ]
    steps = NUM_STEPS // len(runs.chain)
    for number, form in enumerate(runs.chain, 1):
        # A signal while a step is written down ends the run after the next one.
        end_after = number * steps - 1 if number < len(runs.chain) else None
        trainings.append((str(folder / "chain"), FORMS[form], "device", end_after, {}))
    done = run_python("-c", TRAIN, json.dumps(trainings), XLA_FLAGS=EIGHT)
    assert done.returncode == 0, done.stderr[-3000:]
    return runs, {
        path.name: np.asarray([line["loss"] for line in metrics_of(path)])
        for path in folder.iterdir()
    }


def test_neither_form_nor_placement_nor_devices_change_the_losses(losses):
    runs, losses_of = losses
    for form, placement in runs.plain:
        values = losses_of[f"{form}-{placement}"]
        assert len(values) == NUM_STEPS
        if form == "one":
            np.testing.assert_allclose(values, losses_of["jit-device"], rtol=1e-5)
        elif form == "jit":
            np.testing.assert_array_equal(values, losses_of["jit-device"])
        else:
            np.testing.assert_allclose(values, losses_of["jit-device"], rtol=1e-7)


def test_steps_at_once_and_gradients_in_parts_are_the_same_in_each_form(losses):
    runs, losses_of = losses
    expected = losses_of["one-device"].reshape(-1, 2).mean(axis=1)
    for form, placement in runs.at_once:
        np.testing.assert_allclose(losses_of[f"at once {form}-{placement}"], expected, rtol=1e-5)


def test_a_checkpoint_goes_on_in_another_form(losses):
    _, losses_of = losses
    np.testing.assert_allclose(losses_of["chain"], losses_of["one-device"], rtol=1e-5)


def test_a_spread_is_chosen_by_the_strategy():
    names = {
        strategy: type(build_spread(tiny_config(parallel={"strategy": strategy}))).__name__
        for strategy in ("jit", "pmap")
    }
    assert names == {"jit": "JitSpread", "pmap": "PmapSpread"}
