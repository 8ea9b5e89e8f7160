"""What `benchmarks/accelerator.sh` runs, by a Python that only records how it was called."""

import subprocess

import pytest
from run_support import ROOT

SCRIPT = ROOT / "benchmarks" / "accelerator.sh"
EVALUATE = ["--mode=evaluate", "--config.evaluate.num_images=200"]


@pytest.fixture
def called(tmp_path):
    """Runs the script; returns its end and the arguments of each call of Python."""

    def call(*arguments, code=0):
        python, log = tmp_path / "a python", tmp_path / "calls"
        python.write_text(f"#!/usr/bin/env bash\necho \"$*\" >> '{log}'\nexit {code}\n")
        python.chmod(0o755)
        environment = {"PATH": "/usr/bin:/bin", "PYTHON": str(python), "TORCH_PYTHON": "torch"}
        done = subprocess.run(
            [SCRIPT, *arguments], env=environment, capture_output=True, text=True, cwd=tmp_path
        )
        lines = log.read_text().splitlines() if log.exists() else []
        return done, [line.split() for line in lines]

    return call


@pytest.mark.parametrize("part", ["unet_fast", "dit_fast", "dit_flow"])
def test_a_training_is_judged_after_it(called, part):
    done, calls = called(part, "folder")
    run = ["-m", "lensjax.main", f"--config=configs/{part}.py", f"--workdir=folder/{part}"]
    assert (ROOT / "configs" / f"{part}.py").exists()
    assert (done.returncode, calls) == (0, [run, [*run, *EVALUATE]])


def test_a_training_that_did_not_end_is_not_judged(called):
    done, calls = called("unet_fast", code=124)
    assert (done.returncode, len(calls)) == (124, 1)


def test_speed_is_measured_beside_pytorch(called):
    done, calls = called("speed")
    program, torch = "benchmarks/sample.py", "--torch-python=torch"
    results = "benchmarks/results/guidance_5"  # those without guidance stay
    assert calls == [
        ["benchmarks/train.py", torch],
        [program, torch],
        [program, torch, "--guidance=5", f"--results={results}"],
    ]
    assert done.returncode == 0


def test_another_part_is_refused_with_those_there_are(called):
    done, calls = called("unet_quick")
    assert (done.returncode, calls) == (2, [])
    assert "unet_fast" in done.stderr
    assert "unet_quick" in done.stderr
