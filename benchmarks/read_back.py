"""What does reading each checkpoint back cost? Processor time of saves with and without it.

    python benchmarks/read_back.py [--megabytes 20 100 500] [--rounds 5]

A state of so many megabytes is saved into a folder of the disk, alternately with and without being
read back. `waits` is how long the training waits for a save to begin; the rest goes on beside it.
The answer goes to `benchmarks/results/read_back.json`.
"""

import argparse
import json
import pathlib
import tempfile
import time
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import optax

from lensjax.run import provenance
from lensjax.run.checkpoint import Checkpoints
from lensjax.run.state import TrainState, init_state

RESULTS = pathlib.Path(__file__).parent / "results" / "read_back.json"
_NUM_ARRAYS = 40
_COPIES = 4  # parameters, their average, and two moments


def _state(megabytes: int) -> TrainState:
    """A state as a network of 40 equal kernels has it."""
    rng = np.random.default_rng(0)
    size = megabytes * 10**6 // (4 * _COPIES * _NUM_ARRAYS)
    params = {
        f"kernel_{number}": jnp.asarray(rng.normal(size=size), jnp.float32)
        for number in range(_NUM_ARRAYS)
    }
    state = init_state(lambda key: params, optax.adam(1e-3), 0, ("main",))
    return state._replace(step=jnp.ones_like(state.step))


def _timed(state: TrainState, *, reads_back: bool) -> dict[str, float]:
    """Seconds of one save: by the clock until it has begun and ended, and of the processors."""
    with (
        tempfile.TemporaryDirectory() as folder,
        mock.patch.object(
            Checkpoints, "_verify", Checkpoints._verify if reads_back else lambda *arguments: None
        ),
    ):
        checkpoints = Checkpoints(pathlib.Path(folder) / "checkpoints", keep_last=1)
        cpu, clock = time.process_time(), time.monotonic()
        checkpoints.save(1, state)
        waits = time.monotonic() - clock
        checkpoints.close()
        return {
            "waits": waits,
            "whole": time.monotonic() - clock,
            "processors": time.process_time() - cpu,
        }


def main() -> None:
    """Measures each size and writes the numbers."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--megabytes", type=int, nargs="+", default=[20, 100, 500])
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    rows = []
    for megabytes in options.megabytes:
        state = _state(megabytes)
        size = sum(leaf.nbytes for leaf in jax.tree.leaves(state)) / 1e6
        _timed(state, reads_back=True)  # the first save imports and compiles
        found: dict[bool, list[dict[str, float]]] = {True: [], False: []}
        for _ in range(options.rounds):
            for reads_back, times in found.items():
                times.append(_timed(state, reads_back=reads_back))
        medians = {
            words: {name: float(np.median([one[name] for one in times])) for name in times[0]}
            for words, times in (("with", found[True]), ("without", found[False]))
        }
        rows.append({"megabytes": round(size, 1), **medians})
        for words in ("with", "without"):
            numbers = ", ".join(f"{name} {value:.2f} s" for name, value in medians[words].items())
            print(f"{size:.0f} MB, {words} reading back: {numbers}", flush=True)
    content = {
        "rows": rows,
        "rounds": options.rounds,
        "versions": provenance.versions(),
        "git_revision": provenance.git_revision(),
        "hardware": provenance.hardware(),
    }
    RESULTS.write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()
