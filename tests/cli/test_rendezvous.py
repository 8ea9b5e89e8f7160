"""Several processes as one run, for real: two of them with four virtual devices each."""

import contextlib
import json
import os
import pathlib
import signal
import socket
import subprocess
import time
from typing import Any

import numpy as np
import pytest
from run_support import (
    ROOT,
    metrics_of,
    saved_run,
    start_python,
    tiny_config,
    tiny_split,
    wait_for,
)

from lensjax.cli import rendezvous
from lensjax.cli.peers import LOST
from lensjax.cli.rendezvous import Address, find_address
from lensjax.config.parallel import ParallelConfig
from lensjax.devices import hosts
from lensjax.errors import ConfigError, HostError

NIGHTLY = pytest.mark.nightly
CHILD = ROOT / "tests" / "support" / "host_child.py"
STEP = {
    "SLURM_JOB_ID": "70001",
    "SLURM_PROCID": "3",
    "SLURM_STEP_NODELIST": "node[007-010,012]",
    "SLURM_STEP_NUM_TASKS": "5",
}
# 61,440 + 70,001 mod 4,096
SLURM_ADDRESS = Address("node007:61809", 5, 3)


# How processes find each other.


@pytest.mark.parametrize(
    ("fields", "environment", "expected"),
    [
        ({}, {}, None),
        ({}, STEP | {"SLURM_STEP_NUM_TASKS": "1"}, None),
        ({}, {"SLURM_JOB_ID": "1", "SLURM_NTASKS": "8"}, None),  # a batch script, not its step
        ({"hosts": "one"}, STEP, None),
        ({}, STEP, SLURM_ADDRESS),
        ({"hosts": "slurm"}, STEP, SLURM_ADDRESS),
        ({}, STEP | {"SLURM_STEP_NODELIST": "a1,b2"}, Address("a1:61809", 5, 3)),
        ({}, STEP | {"SLURM_STEP_NODELIST": "one-node"}, Address("one-node:61809", 5, 3)),
        ({}, STEP | {"SLURM_STEP_NODELIST": "n[3,9]-x"}, Address("n3:61809", 5, 3)),
        ({}, STEP | {"JAX_COORDINATOR_ADDRESS": "far:12"}, Address("far:12", 5, 3)),
        (
            {},
            STEP | {"SLURM_STEP_TASKS_PER_NODE": "8(x2)", "SLURM_LOCALID": "6"},
            SLURM_ADDRESS._replace(local_devices=(6,)),
        ),
        (
            {},
            STEP | {"SLURM_STEP_TASKS_PER_NODE": "1(x5)", "SLURM_LOCALID": "0"},
            SLURM_ADDRESS,
        ),
        ({"hosts": "tpu"}, {}, Address(None, None, None)),
        (
            {"coordinator": "far:12", "num_processes": 2, "process_id": 1},
            {},
            Address("far:12", 2, 1),
        ),
        (
            {"num_processes": 2, "process_id": 1},
            STEP | {"JAX_COORDINATOR_ADDRESS": "far:12"},
            Address("far:12", 2, 1),
        ),
    ],
)
def test_processes_find_each_other(fields, environment, expected):
    assert find_address(ParallelConfig(**fields), environment) == expected


@pytest.mark.parametrize(
    ("fields", "environment", "message"),
    [
        ({"hosts": "address"}, {}, "parallel.coordinator: got None; allowed: host:port"),
        ({"coordinator": "far:12"}, {}, "parallel.num_processes: got None; allowed: an integer"),
        (
            {"num_processes": 2, "process_id": 0},
            {},
            "parallel.coordinator: got None; allowed: host:port",
        ),
        (
            {"hosts": "slurm"},
            {},
            "parallel.hosts: got 'slurm'; allowed: only within srun, which sets",
        ),
    ],
)
def test_what_is_missing_is_named(fields, environment, message):
    with pytest.raises(ConfigError) as caught:
        find_address(ParallelConfig(**fields), environment)
    assert str(caught.value).startswith(message)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("", 0))
        return probe.getsockname()[1]


@pytest.mark.parametrize("host", ["127.0.0.1", "no-such-host.invalid"])
def test_a_coordinator_that_does_not_answer_is_named_in_time(host):
    coordinator, started = f"{host}:{free_port()}", time.monotonic()
    with pytest.raises(HostError, match=f"nobody answers at {coordinator} after 1 s"):
        rendezvous._probe(coordinator, 1.0)
    assert time.monotonic() - started < 5


@pytest.mark.parametrize("port", ["taken", "70000"])
def test_a_port_that_cannot_be_had_is_named(port):
    with socket.socket() as other:
        other.bind(("", 0))
        other.listen()
        number = other.getsockname()[1] if port == "taken" else port
        with pytest.raises(HostError, match=f"process 0 cannot listen at node7:{number}"):
            rendezvous._check_port(f"node7:{number}")
    rendezvous._check_port(f"node7:{free_port()}")


def test_a_process_alone_agrees_with_itself():
    assert hosts.is_main()
    assert hosts.gather_texts("text") == ["text"]
    assert hosts.all_agree(True)
    assert not hosts.all_agree(False)
    assert hosts.from_main(lambda: [1, None]) == [1, None]
    assert hosts.main_first(lambda: 3) == 3
    rows = np.arange(4)
    np.testing.assert_array_equal(hosts.share_rows(lambda part: part + 1, rows), rows + 1)


# Real processes.


def free_job() -> int:
    """The number of a SLURM job whose port, 61,440 + number mod 4,096, nobody uses."""
    for job in range(os.getpid(), os.getpid() + 4096):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("", 61_440 + job % 4096))
            return job
    raise AssertionError("no port is free")


class Pair:
    """Two processes of four devices each in one workdir.

    Args:
      folder: for the workdir, logs and reports.
      tasks: what both do.
      changes: of the configuration, by full path; `of_one` for the second process alone.
      signals: `(number, step)` by process.
      damaged: the checkpoint that only one process cannot read, `damaged_for`.
      slurm: whether they find each other by what srun sets.
    """

    def __init__(
        self,
        folder: pathlib.Path,
        tasks: list[str],
        *,
        changes: dict[str, Any] | None = None,
        of_one: dict[str, Any] | None = None,
        signals: dict[int, tuple[int, int]] | None = None,
        damaged: int | None = None,
        damaged_for: int = 1,
        slurm: bool = False,
        num: int = 2,
        devices: int = 4,
    ) -> None:
        folder.mkdir(exist_ok=True)
        self.workdir = folder / "run"
        port, job = free_port(), free_job()
        self.reports = [folder / f"report_{number}.json" for number in range(num)]
        self.logs = [folder / f"log_{number}.txt" for number in range(num)]
        self.processes: list[subprocess.Popen] = []
        for number in range(num):
            address = {
                "parallel.coordinator": f"localhost:{port}",
                "parallel.num_processes": num,
                "parallel.process_id": number,
            }
            environment = {}
            if slurm:
                address = {}
                environment = {
                    "SLURM_JOB_ID": str(job),
                    "SLURM_PROCID": str(number),
                    "SLURM_LOCALID": str(number),
                    "SLURM_STEP_NODELIST": "localhost",
                    "SLURM_STEP_NUM_TASKS": str(num),
                    "SLURM_STEP_TASKS_PER_NODE": str(num),
                }
            more = (of_one or {}) if number else {}
            settings: dict[str, Any] = {
                "changes": (address if num > 1 else {}) | (changes or {}) | more,
                "tasks": tasks,
                "report": os.fspath(self.reports[number]),
            }
            if number == damaged_for and damaged is not None:
                settings["damaged"] = damaged
            if number in (signals or {}):
                settings["signal"] = (signals or {})[number]
            self.processes.append(
                start_python(
                    self.logs[number],
                    CHILD,
                    self.workdir,
                    json.dumps(settings),
                    XLA_FLAGS=f"--xla_force_host_platform_device_count={devices}",
                    JAX_DISABLE_MOST_OPTIMIZATIONS="1",
                    **environment,
                )
            )

    def ended(self, seconds: float = 200) -> list[int]:
        """The exit codes, once both have ended."""
        try:
            return [process.wait(seconds) for process in self.processes]
        finally:
            self.kill()

    def kill(self) -> None:
        """Ends what still runs."""
        for process in self.processes:
            process.kill()
            process.wait()

    def log(self, number: int) -> str:
        return self.logs[number].read_text()

    def report(self, number: int) -> dict[str, Any]:
        return json.loads(self.reports[number].read_text())


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """One process of eight devices that was never stopped."""
    one = Pair(tmp_path_factory.mktemp("alone"), ["train", "sample", "agree"], num=1, devices=8)
    assert one.ended() == [0], one.log(0)
    return one


@pytest.fixture(scope="module")
def lost(tmp_path_factory):
    """Two processes under pmap; the second is killed after step 6. How long the first lived on."""
    folder = tmp_path_factory.mktemp("pair")
    pmap = {"parallel.strategy": "pmap"}
    pair = Pair(folder, ["train"], changes=pmap, signals={1: (signal.SIGKILL, 6)})
    assert pair.processes[1].wait(200) == -signal.SIGKILL
    died = time.monotonic()
    code = pair.processes[0].wait(60)
    return pair, code, time.monotonic() - died


@pytest.fixture(scope="module")
def resumed(lost):
    """The same workdir again, under jit and with the state divided over both processes."""
    folder = lost[0].workdir.parent
    pair = Pair(folder, ["train", "sample", "agree"], changes={"parallel.mesh": (1, 8)})
    assert pair.ended() == [0, 0], pair.log(0) + pair.log(1)
    return pair


def check_named(pair: Pair, number: int) -> None:
    """Checks what the other process says when one is lost: which host it was, and how to go on."""
    text = pair.log(1 - number)
    assert f"process {number} of 2 (host {socket.gethostname()}) was lost" in text
    assert "from the newest checkpoint, run the same command again on every host" in text


@pytest.mark.nightly
def test_a_training_that_loses_a_process_ends_with_a_message(lost):
    pair, code, seconds = lost
    assert code == LOST
    assert seconds < 15
    check_named(pair, 1)


@pytest.mark.parametrize(
    ("number", "ending", "seconds"),
    [
        (0, signal.SIGKILL, 15),
        # Nobody trains, so that nobody would ask for it.
        *(pytest.param(number, signal.SIGTERM, 15, marks=NIGHTLY) for number in (0, 1)),
        pytest.param(1, signal.SIGKILL, 15, marks=NIGHTLY),
        pytest.param(1, signal.SIGSTOP, 2 + 15, marks=NIGHTLY),
        pytest.param(0, signal.SIGSTOP, 2 + 15, marks=NIGHTLY),
    ],
)
def test_whoever_is_lost_is_named(tmp_path, number, ending, seconds):
    pair = Pair(tmp_path, ["wait"], changes={"parallel.heartbeat_timeout_s": 2.0})
    for process in (0, 1):
        wait_for(pair.workdir / f"joined_{process}", pair.processes[process])
    started = time.monotonic()
    pair.processes[number].send_signal(ending)
    assert pair.processes[1 - number].wait(30) == LOST
    assert time.monotonic() - started < seconds
    pair.kill()
    check_named(pair, number)


@pytest.mark.nightly
def test_a_workdir_that_a_host_does_not_see_is_refused(tmp_path):
    pair = Pair(tmp_path, ["apart"])
    assert pair.ended() == [0, 0], pair.log(0) + pair.log(1)
    for number in (0, 1):
        told = pair.report(number)
        assert f"--workdir={pair.workdir / f'disk_{number}' / 'run'}" in told["run"]
        assert all(f"process 1 ({socket.gethostname()})" in text for text in told.values())
        assert set(told) == {"run", "8"}


@pytest.mark.nightly
@pytest.mark.parametrize("number", [0, 1])
def test_an_error_of_one_host_is_told_on_the_other(tmp_path, number):
    pair = Pair(tmp_path, [f"fail_{number}"])
    assert pair.ended(60) == [1, 1]
    assert "error: the disk of this host is full" in pair.log(number)
    assert f"process {number} of 2" in pair.log(1 - number)
    told = f"stopped: the disk of this host is full. process {1 - number} of 2"
    assert told in pair.log(1 - number)
    assert "Terminating process" not in pair.log(0) + pair.log(1)  # JAX's abort


@pytest.mark.nightly
def test_a_checkpoint_that_cannot_be_read_back_ends_the_training_of_all(tmp_path):
    pair = Pair(tmp_path / "w=[1,2]", ["train"], damaged=8, damaged_for=0)
    assert pair.ended() == [1, 1]
    for number in (0, 1):
        assert "checkpoint 8 in" in pair.log(number)  # by itself, or told by the other
        assert "cannot be read back (the disk of this host is bad)" in pair.log(number)
    assert {path.name for path in (pair.workdir / "checkpoints").iterdir()} >= {"4", "8"}


@pytest.mark.nightly
@pytest.mark.parametrize("place", ["on disk", "for one host"])
def test_a_damaged_checkpoint_is_set_aside_by_all(tmp_path, place):
    split = tiny_split()
    workdir = tmp_path / "run"
    for step in (3, 5):
        saved_run(workdir, tiny_config(model={"width": 32}), split, step)
    if place == "on disk":
        files = [path for path in (workdir / "checkpoints" / "5").rglob("*") if path.is_file()]
        largest = max(files, key=lambda path: path.stat().st_size)
        largest.write_bytes(largest.read_bytes()[: largest.stat().st_size // 2])
    damaged = 5 if place == "for one host" else None
    pair = Pair(tmp_path, ["restore"], changes={"parallel.mesh": (1, 8)}, damaged=damaged)
    assert pair.ended() == [0, 0], pair.log(0) + pair.log(1)
    assert [pair.report(number)["step"] for number in (0, 1)] == [3, 3]
    assert (workdir / "damaged_checkpoints" / "5").is_dir()
    assert not (workdir / "checkpoints" / "5").exists()
    assert "checkpoint 5 is damaged" in pair.log(1)


def test_other_code_is_refused_by_its_hash(monkeypatch):
    config = tiny_config()
    other = json.loads(json.dumps(rendezvous._description(config)))
    assert other["train.batch_size"] == "8"
    assert not any("process_id" in name for name in other)
    other |= {"the code of lensjax": "0123", "host": "node2"}
    monkeypatch.setattr(rendezvous, "gather_texts", lambda text: [text, json.dumps(other)])
    with pytest.raises(HostError, match=r"the code of lensjax: 0123 on process 1 \(node2\), "):
        rendezvous._check_alike(config)


@pytest.mark.nightly
def test_they_go_on_from_the_checkpoint_and_agree_with_one_process(alone, lost, resumed):
    assert "resumed at step 4" in resumed.log(0)
    one, two = (metrics_of(run.workdir) for run in (alone, resumed))
    assert [line["step"] for line in two] == list(range(1, 13))
    for name in ("loss", "gradient_norm"):
        np.testing.assert_allclose(
            [line[name] for line in two], [line[name] for line in one], rtol=1e-5
        )
    last = {name for name in one[-1] if name.startswith("validation/")}
    assert last
    assert all(two[-1][name] == pytest.approx(one[-1][name], rel=1e-4) for name in last)


@pytest.mark.nightly
def test_they_draw_what_one_process_draws(alone, resumed):
    one, two = (np.load(run.workdir / "generated" / "images.npy") for run in (alone, resumed))
    assert len(two) == 6
    np.testing.assert_allclose(two, one, atol=1e-4 * float(np.abs(one).max()))
    assert (resumed.workdir / "samples" / "step_00000012.png").exists()


@pytest.mark.nightly
def test_one_writes_and_both_compute(alone, resumed):
    assert alone.report(0) == {"step": 12, "signal": None, "rows": [5], "main": True}
    assert [resumed.report(number)["main"] for number in (0, 1)] == [True, False]
    assert [resumed.report(number)["rows"] for number in (0, 1)] == [[3], [2]]
    assert "step 12 of 12" in resumed.log(0)


@pytest.mark.nightly
def test_a_preemption_of_one_saves_the_same_step_on_both(tmp_path, alone):
    folder = tmp_path / "w=[1,2]"  # a pattern to Orbax
    stream = {"data.placement": "stream"}
    signals = {1: (int(signal.SIGTERM), 2)}
    pair = Pair(folder, ["train"], changes=stream, signals=signals, slurm=True)
    assert pair.ended() == [75, 75], pair.log(0) + pair.log(1)
    steps = [pair.report(number)["step"] for number in (0, 1)]
    assert steps[0] == steps[1]
    assert 2 <= steps[0] < 12
    assert [pair.report(number)["signal"] for number in (0, 1)] == ["SIGTERM", "SIGTERM"]
    saved = {path.name for path in (pair.workdir / "checkpoints").iterdir() if path.is_dir()}
    assert str(steps[0]) in saved
    # One process of eight goes on where two of four were.
    one = Pair(folder, ["train"], num=1, devices=8)
    assert one.ended() == [0], one.log(0)
    losses = [[line["loss"] for line in metrics_of(run.workdir)] for run in (one, alone)]
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-5)


@pytest.mark.nightly
def test_processes_that_differ_are_refused(tmp_path):
    pair = Pair(tmp_path, ["train"], of_one={"train.batch_size": 8})
    assert pair.ended() == [1, 1]
    host = socket.gethostname()
    expected = f"train.batch_size: 8 on process 1 ({host}), 16 on process 0 ({host})"
    for number in (0, 1):
        assert "the processes of this run differ" in pair.log(number)
        assert expected in pair.log(number)
    assert not (pair.workdir / "config.json").exists()


@pytest.mark.nightly
@pytest.mark.parametrize("number", [0, 1])
def test_a_process_whose_peers_do_not_come_says_so(tmp_path, number):
    port = free_port()
    settings = {
        "tasks": ["train"],
        "report": os.fspath(tmp_path / "report.json"),
        "changes": {
            "parallel.coordinator": f"localhost:{port}",
            "parallel.num_processes": 2,
            "parallel.process_id": number,
            "parallel.start_timeout_s": 3.0,
        },
    }
    started = time.monotonic()
    process = start_python(tmp_path / "log.txt", CHILD, tmp_path / "run", json.dumps(settings))
    assert process.wait(60) == 1
    assert time.monotonic() - started < 40
    text = (tmp_path / "log.txt").read_text()
    if number:
        assert f"nobody answers at localhost:{port} after 3 s" in text
    else:
        assert f"after 3 s, not all 2 processes have joined localhost:{port}" in text
    assert "parallel.start_timeout_s" in text
