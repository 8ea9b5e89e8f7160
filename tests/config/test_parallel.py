"""The `parallel` section: what goes together and what does not."""

import itertools
from typing import Any

import pytest
from run_support import tiny_config

from lensjax.errors import ConfigError

WITH_ADDRESS: dict[str, Any] = {"coordinator": "node7:7654", "num_processes": 2, "process_id": 1}


# Fields, the one at fault, and what it may be.
REFUSED: tuple[tuple[dict[str, Any], str, str], ...] = (
    ({"num_devices": 8, "mesh": (4, 4)}, "mesh: got (4, 4)", "4 times 4 is 16"),
    ({"num_devices": None, "strategy": "pmap", "mesh": (2, 4)}, "mesh: got (2, 4)", "(8, 1) with"),
    ({"num_processes": 2}, "process_id: got None", "an integer"),
    ({"process_id": 0}, "num_processes: got None", "an integer"),
    ({"num_processes": 2, "process_id": 2}, "process_id: got 2", "from 0 to 1"),
    *(
        (
            {"hosts": hosts, name: value},
            f"{name}: got {value!r}",
            f"None with parallel.hosts={hosts}",
        )
        for hosts, (name, value) in itertools.product(("one", "slurm", "tpu"), WITH_ADDRESS.items())
    ),
)


def test_what_does_not_go_together_is_refused():
    for fields, at_fault, allowed in REFUSED:
        with pytest.raises(ConfigError) as caught:
            tiny_config(parallel=fields)
        assert str(caught.value).startswith(f"parallel.{at_fault}; ")
        assert allowed in str(caught.value)


def test_what_goes_together_is_taken():
    for fields in (
        *({"hosts": hosts, **WITH_ADDRESS} for hosts in ("auto", "address")),
        *({"num_devices": 8, "mesh": mesh} for mesh in ((8, 1), (4, 2), (1, 8), ())),
        {"num_devices": 8, "mesh": (8, 1), "strategy": "pmap"},
    ):
        parallel = tiny_config(parallel=fields).parallel
        assert all(getattr(parallel, name) == value for name, value in fields.items())
