"""The `parallel` section: what goes together and what does not."""

import itertools

import pytest
from run_support import tiny_config

from lensjax.errors import ConfigError

WITH_ADDRESS = {"coordinator": "node7:7654", "num_processes": 2, "process_id": 1}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"num_devices": 8, "mesh": (4, 4)}, "parallel.mesh: got (4, 4); 4 times 4 is 16; allowed"),
        (
            {"num_devices": None, "strategy": "pmap", "mesh": (2, 4)},
            "parallel.mesh: got (2, 4); allowed: (8, 1) with parallel.strategy=pmap",
        ),
        ({"num_processes": 2}, "parallel.process_id: got None; allowed: an integer"),
        ({"process_id": 0}, "parallel.num_processes: got None; allowed: an integer"),
        (
            {"num_processes": 2, "process_id": 2},
            "parallel.process_id: got 2; allowed: an integer from 0 to 1",
        ),
    ],
)
def test_what_does_not_go_together_is_refused(fields, message):
    with pytest.raises(ConfigError) as caught:
        tiny_config(parallel=fields)
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize(
    ("hosts", "name"), list(itertools.product(("one", "slurm", "tpu"), WITH_ADDRESS))
)
def test_an_address_is_for_those_who_read_it(hosts, name):
    with pytest.raises(ConfigError) as caught:
        tiny_config(parallel={"hosts": hosts, name: WITH_ADDRESS[name]})
    expected = f"parallel.{name}: got {WITH_ADDRESS[name]!r}; allowed: None with parallel.hosts="
    assert str(caught.value) == expected + hosts


@pytest.mark.parametrize(
    "fields",
    [
        *({"hosts": hosts, **WITH_ADDRESS} for hosts in ("auto", "address")),
        *({"num_devices": 8, "mesh": mesh} for mesh in ((8, 1), (4, 2), (1, 8), ())),
        {"num_devices": 8, "mesh": (8, 1), "strategy": "pmap"},
    ],
)
def test_what_goes_together_is_taken(fields):
    parallel = tiny_config(parallel=fields).parallel
    assert all(getattr(parallel, name) == value for name, value in fields.items())
