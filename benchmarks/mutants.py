"""Do the tests notice faults? Faults are planted, one at a time, and each must fail a test.

    python benchmarks/mutants.py [--only NAME ...] [--check]

first runs the tests of all faults without a fault (`--check`: only that): a later failure is then
due to the fault. Each fault is planted in a copy of the checkout, and the named test files of its
room run until a test fails. Two copies work at the same time. A fault that no test notices needs a
new test; the exit status is then 1. The table of a whole run goes to
`benchmarks/results/mutants.md` and `.json`.
"""

import argparse
import concurrent.futures
import contextlib
import json
import os
import pathlib
import queue
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from lensjax.run import provenance

ROOT = pathlib.Path(__file__).resolve().parent.parent
RESULT = ROOT / "benchmarks" / "results" / "mutants.json"
PROGRAMS = ROOT / ".pytest_cache" / "programs"
COPIED = ("lensjax", "tests", "configs", "benchmarks", "pyproject.toml")
KILLED, SURVIVED, UNCLEAR = "killed", "survived", "unclear"
_COPIES = 2  # mutants at the same time
_MUTANT_LIMIT_S, _CHECK_LIMIT_S = 240, 900
_SHOWN = 3000  # characters of the output of a run that went wrong


class Mutant(NamedTuple):
    """A fault that a programmer could make.

    Attributes:
      name: for the table and `--only`.
      fault: what is wrong.
      file: where, from the root of the checkout.
      old: text that occurs once in the file.
      new: text that takes its place.
      tests: test files that should notice, the most likely first.
    """

    name: str
    fault: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]


class Run(NamedTuple):
    """How a run of tests ended.

    Attributes:
      outcome: `killed`, `survived`, or `unclear` where the tests could not decide.
      test: the first test that failed; empty if there is none.
      seconds: by the clock.
      output: of pytest.
    """

    outcome: str
    test: str
    seconds: float
    output: str


# Faults whose tests take long stand first, so that no copy is left alone with one at the end.
MUTANTS = (
    Mutant(
        "gradient_is_summed",
        "the devices' gradients are summed, not averaged",
        "lensjax/devices/spread.py",
        "return jax.lax.pmean(part_fn(places, *arguments), axes)",
        "return jax.lax.psum(part_fn(places, *arguments), axes)",
        ("tests/devices/test_mesh.py",),
    ),
    Mutant(
        "scaling_of_test_split",
        "the scaling is fitted to the test split",
        "lensjax/training/prepare.py",
        "claim_dataset(workdir, train, image_shape, first, config, begins=new)",
        "claim_dataset(workdir, test or train, image_shape, first, config, begins=new)",
        ("tests/training/test_validation.py",),
    ),
    Mutant(
        "floor_of_test_split",
        "the floor's training images are test images",
        "lensjax/evaluation/real.py",
        'split = self._prepared.open_split("train")',
        'split = self._prepared.open_split("test")',
        ("tests/evaluation/test_rows.py",),
    ),
    Mutant(
        "cache_key_without_seed",
        "kept floors do not depend on the seed",
        "lensjax/evaluation/feature_measures.py",
        '        "seed": setting.settings.seed,\n',
        "",
        ("tests/evaluation/test_rows.py",),
    ),
    Mutant(
        "sampler_a_step_short",
        "the last interval of a sampler is left out",
        "lensjax/diffusion/samplers.py",
        "return num_times - (2 if path.interval[0] > 0 else 1)",
        "return num_times - 2",
        ("tests/diffusion/test_samplers.py",),
    ),
    Mutant(
        "multistep_extrapolates_backwards",
        "DPM-Solver++ corrects with the wrong sign",
        "lensjax/diffusion/samplers.py",
        "data = x0 + correction * (x0 - memory.x0)",
        "data = x0 - correction * (x0 - memory.x0)",
        ("tests/diffusion/test_samplers.py",),
    ),
    Mutant(
        "psf_half_as_wide",
        "the half width of the blur is taken for its full width",
        "lensjax/data/raytracing.py",
        "SIGMA_PER_FWHM = 1 / (2 * math.sqrt(2 * math.log(2)))",
        "SIGMA_PER_FWHM = 1 / (4 * math.sqrt(2 * math.log(2)))",
        ("tests/data/test_lenstronomy.py",),
    ),
    Mutant(
        "image_numbers_of_a_chunk",
        "each chunk of a generator begins with the noise of image 0",
        "lensjax/inference/sampling.py",
        'keys = prng.keys(prng.key(seed, "generate"), numbers)',
        'keys = prng.keys(prng.key(seed, "generate"), numbers - numbers[0])',
        ("tests/inference/test_generator.py",),
    ),
    Mutant(
        "always_the_main_average",
        "sample.ema is ignored",
        "lensjax/inference/trained.py",
        "return config.sample.ema if ema else RAW_PARAMS",
        'return "main" if ema else RAW_PARAMS',
        ("tests/inference/test_generator.py",),
    ),
    Mutant(
        "guidance_one_too_many",
        "guidance g is applied as 1 + g",
        "lensjax/diffusion/guidance.py",
        "without + weight * (with_it - without)",
        "with_it + weight * (with_it - without)",
        ("tests/diffusion/test_guidance.py",),
    ),
    Mutant(
        "attention_scaled_by_tokens",
        "scores are divided by the root of the number of tokens",
        "lensjax/models/attention.py",
        "scale = 1 / math.sqrt(query.shape[-1])",
        "scale = 1 / math.sqrt(query.shape[-2])",
        ("tests/models/test_attention.py",),
    ),
    Mutant(
        "checkpoint_without_average",
        "a checkpoint holds the raw parameters as their averages",
        "lensjax/run/checkpoint.py",
        "        arrays = checksums.describe(state)\n",
        "        state = state._replace(ema=dict.fromkeys(state.ema, state.params))\n"
        "        arrays = checksums.describe(state)\n",
        ("tests/run/test_checkpoint.py",),
    ),
    Mutant(
        "host_reads_first_rows",
        "each host reads the first rows of a batch",
        "lensjax/data/feed.py",
        "places = first + self._own",
        "places = first + np.arange(len(self._own))",
        ("tests/data/test_feed.py",),
    ),
    Mutant(
        "stream_begins_anew",
        "a resumed run streams from the first batch on",
        "lensjax/data/feed.py",
        "iter(self._batches[step:].to_iter_dataset(self._options))",
        "iter(self._batches.to_iter_dataset(self._options))",
        ("tests/data/test_feed.py",),
    ),
    Mutant(
        "v_of_the_wrong_sign",
        "v is alpha eps + sigma x0",
        "lensjax/diffusion/paths.py",
        "return -path.sigma(t), path.alpha(t)",
        "return path.sigma(t), path.alpha(t)",
        ("tests/diffusion/test_paths.py",),
    ),
    Mutant(
        "labels_drop_together",
        "a whole batch loses its labels at once",
        "lensjax/diffusion/losses.py",
        "        t = draw_times(time_keys, settings, path, places)\n",
        "        t = draw_times(time_keys, settings, path, places)\n"
        "        dropped = label[:1] == settings.null_label\n"
        "        label = jnp.where(dropped, settings.null_label, batch.label)\n",
        ("tests/diffusion/test_losses.py",),
    ),
    Mutant(
        "key_used_twice",
        "noise and label drop share a key",
        "lensjax/diffusion/losses.py",
        "jax.random.bernoulli(drop_key, settings.label_drop)",
        "jax.random.bernoulli(noise_key, settings.label_drop)",
        ("tests/diffusion/test_losses.py",),
    ),
    Mutant(
        "mask_is_ignored",
        "pixels without a measurement count in the loss",
        "lensjax/diffusion/losses.py",
        "axis=axes, where=measured)",
        "axis=axes)",
        ("tests/diffusion/test_losses.py",),
    ),
    Mutant(
        "shift_towards_data",
        "the shifted time grid is dense at the wrong end",
        "lensjax/diffusion/time_grids.py",
        "shift * u / (1 + (shift - 1) * u)",
        "u / (shift - (shift - 1) * u)",
        ("tests/diffusion/test_time_grids.py",),
    ),
    Mutant(
        "output_without_data_std",
        "EDM's output is not scaled by the data's deviation",
        "lensjax/diffusion/preconditioning.py",
        "(sigma * data_std / deviation) * output",
        "(sigma / deviation) * output",
        ("tests/diffusion/test_preconditioning.py",),
    ),
    Mutant(
        "average_is_not_updated",
        "the moving averages stay at the first parameters",
        "lensjax/run/state.py",
        "            ema=averages,\n",
        "            ema=state.ema,\n",
        ("tests/run/test_state.py",),
    ),
    Mutant(
        "warm_up_begins_at_zero",
        "the first step of the warm-up has a learning rate of 0",
        "lensjax/run/optim.py",
        "return (step + 1) / max(warmup_steps, 1)",
        "return step / max(warmup_steps, 1)",
        ("tests/run/test_optim.py",),
    ),
    Mutant(
        "parts_overlap",
        "images to validate on are trained on as well",
        "lensjax/data/subset.py",
        "rest = places[num_validation:]",
        "rest = places",
        ("tests/data/test_subset_division.py",),
    ),
    Mutant(
        "flip_of_the_other_axis",
        "a flip of the columns reverses the rows",
        "lensjax/data/augmentation.py",
        "return jnp.where(columns_flipped, image[:, ::-1], image)",
        "return jnp.where(columns_flipped, image[::-1], image)",
        ("tests/data/test_augmentation.py",),
    ),
    Mutant(
        "shot_noise_in_wrong_units",
        "shot noise falls with the exposure and not with its root",
        "lensjax/data/simulator.py",
        "shot = jnp.sqrt(image / exposure)",
        "shot = jnp.sqrt(image) / exposure",
        ("tests/data/test_augmentation_noise.py",),
    ),
    Mutant(
        "positions_transposed",
        "rows and columns are exchanged in the table of positions",
        "lensjax/models/layers.py",
        "for axis in (column, row)",
        "for axis in (row, column)",
        ("tests/models/test_dit.py",),
    ),
    Mutant(
        "frechet_without_means",
        "the Frechet distance compares the covariances alone",
        "lensjax/metrics/frechet.py",
        "return max(float(shift + spread - 2 * shared), 0.0)",
        "return max(float(spread - 2 * shared), 0.0)",
        ("tests/metrics/test_frechet.py",),
    ),
    Mutant(
        "ks_of_one_side",
        "the KS distance sees differences of one sign",
        "lensjax/metrics/two_sample.py",
        "        ks.append(np.max(difference, axis=1,",
        "        signed = np.cumsum(step, axis=1)[:, :-1]\n"
        "        ks.append(np.max(signed, axis=1,",
        ("tests/metrics/test_two_sample.py",),
    ),
    Mutant(
        "fortran_order_read_as_c",
        "a stack in Fortran order keeps its images transposed",
        "lensjax/files/npy.py",
        'yield block.T.reshape(-1, *shape[1:], order="F")',
        "yield block.T.reshape(-1, *shape[1:])",
        ("tests/files/test_image_files.py",),
    ),
    Mutant(
        "limit_is_exclusive",
        "a share of 1 is refused",
        "lensjax/config/fields.py",
        "lambda x: low <= x <= high",
        "lambda x: low <= x < high",
        ("tests/config/test_reading.py",),
    ),
    Mutant(
        "export_in_another_scale",
        "--mode=export writes the published scale where flux is asked for",
        "lensjax/cli/export_mode.py",
        'factor=self.info.published_scale if scale == "published" else 1.0',
        "factor=self.info.published_scale",
        ("tests/cli/test_export_mode.py",),
    ),
)


def mutated(text: str, mutant: Mutant) -> str:
    """The text of a file with the fault.

    Raises:
      SystemExit: where the fault's old text does not occur exactly once.
    """
    count = text.count(mutant.old)
    if count != 1:
        raise SystemExit(
            f"{mutant.name} no longer fits {mutant.file}: {mutant.old!r} occurs {count} times, "
            "needed: once; change the mutant in benchmarks/mutants.py"
        )
    return text.replace(mutant.old, mutant.new)


def existing_tests(mutant: Mutant, root: pathlib.Path) -> list[str]:
    """The mutant's test files that exist in a checkout."""
    return [test for test in mutant.tests if (root / test).is_file()]


def _missing_tests(mutants: Sequence[Mutant]) -> Iterator[str]:
    """Says which test files do not exist."""
    for mutant in mutants:
        for test in sorted(set(mutant.tests) - set(existing_tests(mutant, ROOT))):
            yield f"{mutant.name}: {test} does not exist and is left out"


def failed_test(output: str) -> str:
    """The first test in pytest's summary that failed or met an error; empty without one."""
    found = re.search(r"^(?:FAILED|ERROR) (\S+?(?:\[.*?\])?)(?: - .*)?$", output, re.MULTILINE)
    return found.group(1) if found else ""


def outcome_of(status: int | None, output: str) -> str:
    """What a run of tests says about a fault.

    Args:
      status: exit status of pytest; None where it ran out of time.
      output: of pytest.
    """
    if status == 0:
        return SURVIVED
    # Status 1 is a failed test, 2 an interruption, as by a file that cannot be imported.
    return KILLED if status in (1, 2) and failed_test(output) else UNCLEAR


def run_tests(copy: pathlib.Path, tests: Sequence[str], limit_s: float, *options: str) -> Run:
    """Runs test files in a copy of the checkout.

    Args:
      copy: the root of the copy, whose modules the tests import.
      tests: files from the root.
      limit_s: seconds after which the run is ended.
      *options: for pytest.
    """
    environment = os.environ | {
        "PYTHONPATH": os.fspath(copy),
        "JAX_COMPILATION_CACHE_DIR": os.fspath(PROGRAMS),
    }
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--tb=short"]
    command += [f"--basetemp={copy.with_name(copy.name + '_temporary')}", *options, *tests]
    begun = time.perf_counter()
    process = subprocess.Popen(
        command,
        cwd=copy,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,  # so that its children end with it
    )
    status: int | None
    try:
        output, _ = process.communicate(timeout=limit_s)
        status = process.returncode
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        output, _ = process.communicate()
        output, status = f"{output}\nended after {limit_s:g} s", None
    seconds = round(time.perf_counter() - begun, 1)
    return Run(outcome_of(status, output), failed_test(output), seconds, output)


@contextlib.contextmanager
def planted(copy: pathlib.Path, mutant: Mutant) -> Iterator[None]:
    """Plants a fault in a copy, and takes it out again."""
    path = copy / mutant.file
    text = path.read_text(encoding="utf-8")
    path.write_text(mutated(text, mutant), encoding="utf-8")
    try:
        yield
    finally:
        path.write_text(text, encoding="utf-8")


def try_mutant(copy: pathlib.Path, mutant: Mutant) -> Run:
    """Runs the tests of a mutant in a copy in which it is planted."""
    tests = existing_tests(mutant, copy)
    if not tests:
        return Run(UNCLEAR, "", 0.0, "none of its test files exists")
    with planted(copy, mutant):
        return run_tests(copy, tests, _MUTANT_LIMIT_S, "-x")


def check_without_faults(copy: pathlib.Path, mutants: Sequence[Mutant]) -> float:
    """Runs the test files of the mutants without a fault and returns the seconds.

    Raises:
      SystemExit: where a test fails.
    """
    tests = list(dict.fromkeys(test for one in mutants for test in existing_tests(one, copy)))
    if not tests:
        return 0.0
    parallel = ("-n", str(_COPIES), "--dist", "loadfile")
    run = run_tests(copy, tests, _CHECK_LIMIT_S, *parallel)
    if run.outcome != SURVIVED:  # as a mutant without a fault should
        raise SystemExit(f"{run.output[-_SHOWN:]}\nthe tests must pass without a fault first")
    return run.seconds


@contextlib.contextmanager
def copies(number: int) -> Iterator[list[pathlib.Path]]:
    """Copies of what the tests need, uncommitted changes included."""
    with tempfile.TemporaryDirectory(prefix="lensjax_mutants_") as folder:
        roots = [pathlib.Path(folder) / f"copy_{index}" for index in range(number)]
        for root in roots:
            root.mkdir()
            for name in COPIED:
                source = ROOT / name
                if source.is_dir():
                    ignored = shutil.ignore_patterns("__pycache__")
                    shutil.copytree(source, root / name, ignore=ignored)
                else:
                    shutil.copy2(source, root / name)
        yield roots


def try_all(
    roots: Sequence[pathlib.Path], mutants: Sequence[Mutant], report: Callable[[Mutant, Run], None]
) -> list[Run]:
    """Tries mutants, as many at a time as there are copies; reports each as it ends."""
    free: queue.Queue[pathlib.Path] = queue.Queue()
    for root in roots:
        free.put(root)

    def attempt(mutant: Mutant) -> Run:
        root = free.get()
        try:
            run = try_mutant(root, mutant)
        finally:
            free.put(root)
        report(mutant, run)
        return run

    with concurrent.futures.ThreadPoolExecutor(len(roots)) as pool:
        return list(pool.map(attempt, mutants))


def table(result: dict[str, Any]) -> str:
    """The results as Markdown."""
    rows = result["mutants"]
    killed = sum(row["outcome"] == KILLED for row in rows)
    lines = [
        "# Do the tests notice faults?",
        "",
        f"`{result['command']}`: {killed} of {len(rows)} planted faults fail a test of their room; "
        f"{result['seconds']:.0f} s in all, {result['check_seconds']:.0f} s of them for the tests "
        "without a fault.",
        "",
        "| mutant | fault | file | tests run | killed by | seconds |",
        "| --- | --- | --- | --- | --- | ---: |",
    ]
    for row in rows:
        killer = row["killed_by"] if row["outcome"] == KILLED else f"**{row['outcome']}**"
        cells = [row["name"], row["fault"], row["file"].removeprefix("lensjax/")]
        cells += [", ".join(test.removeprefix("tests/") for test in row["tests"])]
        cells += [killer.split("/")[-1].replace("|", "\\|"), f"{row['seconds']:.0f}"]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _report(mutant: Mutant, run: Run) -> None:
    print(f"{mutant.name:34} {run.outcome:9} {run.seconds:6.1f} s  {run.test}", flush=True)
    if run.outcome == UNCLEAR:
        print(run.output[-_SHOWN:], flush=True)


def _chosen(names: Sequence[str]) -> tuple[Mutant, ...]:
    by_name = {mutant.name: mutant for mutant in MUTANTS}
    unknown = [name for name in names if name not in by_name]
    if unknown:
        raise SystemExit(f"--only: got {unknown[0]}; allowed: {', '.join(by_name)}")
    return tuple(by_name[name] for name in names) or MUTANTS


def main() -> None:
    """Tries the mutants; writes the table unless only some were tried."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", default=(), metavar="NAME", help="writes no table")
    parser.add_argument("--check", action="store_true", help="runs the tests without faults alone")
    options = parser.parse_args()
    chosen = _chosen(options.only)
    for mutant in chosen:  # before minutes are spent
        mutated((ROOT / mutant.file).read_text(encoding="utf-8"), mutant)
    for line in _missing_tests(chosen):
        print(line, flush=True)
    begun = time.perf_counter()
    with copies(min(_COPIES, len(chosen))) as roots:
        check_seconds = check_without_faults(roots[0], chosen)
        print(f"without a fault the tests pass, in {check_seconds:.0f} s", flush=True)
        if options.check:
            return
        runs = try_all(roots, chosen, _report)
    if not options.only:
        result = {
            "command": "python benchmarks/mutants.py",
            "versions": provenance.versions(),
            "hardware": provenance.hardware(),
            "git_revision": provenance.git_revision(),
            "seconds": round(time.perf_counter() - begun, 1),
            "check_seconds": check_seconds,
            "mutants": [
                {
                    **{name: getattr(mutant, name) for name in ("name", "fault", "file", "tests")},
                    "outcome": run.outcome,
                    "killed_by": run.test,
                    "seconds": run.seconds,
                }
                for mutant, run in zip(chosen, runs, strict=True)
            ],
        }
        RESULT.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
        RESULT.with_suffix(".md").write_text(table(result), encoding="utf-8")
    kept = [mutant.name for mutant, run in zip(chosen, runs, strict=True) if run.outcome != KILLED]
    if kept:
        raise SystemExit(f"not killed: {', '.join(kept)}")


if __name__ == "__main__":
    main()
