"""The files of a run's folder: their names, reading them, and the provenance of the run."""

import contextlib
import dataclasses
import datetime
import fcntl
import os
import pathlib
import uuid
from collections.abc import Callable, Iterator
from typing import Any

from lensjax.config import (
    Config,
    brought_up_to_date,
    differences,
    from_config_dict,
    missing_fields,
    to_dict,
)
from lensjax.data.dataset import DatasetInfo
from lensjax.errors import ConfigError, WorkdirError, shown
from lensjax.files.atomic import write_json
from lensjax.files.json_file import OBJECT, checked
from lensjax.run import stored
from lensjax.run.checkpoint_folder import steps_in
from lensjax.run.provenance import git_revision, hardware, versions
from lensjax.run.stored import read_json as read_json

CONFIG_FILE = "config.json"
DATASET_FILE = "dataset.json"
METRICS_FILE = "metrics.jsonl"
PARAMETERS_FILE = "parameters.txt"
PROVENANCE_FILE = "provenance.json"
CHECKPOINTS = "checkpoints"
BEST = "best"
CLASSIFIER_FILE = "classifier.json"
SAMPLES = "samples"
GENERATED = "generated"
EVALUATION = "evaluation"


def read_dataset(workdir: pathlib.Path) -> dict[str, Any]:
    """Reads `dataset.json`: the description of a run's data.

    Raises:
      WorkdirError: if it is missing, or a field is missing or not allowed.
    """
    return stored.read_dataset(workdir / DATASET_FILE)


def has_steps(checkpoints: pathlib.Path) -> bool:
    """Whether a folder of checkpoints holds any."""
    return bool(steps_in(checkpoints))


def is_begun(workdir: pathlib.Path) -> bool:
    """Whether a workdir has a checkpoint."""
    return has_steps(workdir / CHECKPOINTS)


def check_free(workdir: pathlib.Path, config: Config) -> None:
    """Checks without writing that a run can begin or go on in a workdir.

    Raises:
      ConfigError: if the workdir belongs to another configuration; every difference is listed.
      WorkdirError: if the folder cannot be made or its `config.json` not be read.
    """
    if is_begun(workdir):
        check_same(workdir, config)
        return
    existing = next(folder for folder in (workdir, *workdir.absolute().parents) if folder.exists())
    if not existing.is_dir():
        raise WorkdirError(f"--workdir={workdir} cannot be created: {existing} is a file")
    if not os.access(existing, os.W_OK | os.X_OK):
        raise WorkdirError(
            f"--workdir={workdir} cannot be created: {existing} cannot be written to"
        )


def claim(workdir: pathlib.Path, config: Config, run_id: str | None = None) -> None:
    """Writes `config.json`, which makes a workdir this run's own.

    Everything that may refuse the run is checked before: a run that is refused leaves the files of
    an earlier one as they are.

    Args:
      workdir: the run's folder; the caller holds `training_lock`.
      config: its configuration.
      run_id: see `id_to_run_with`; None for a run of a version that gave none.
    """
    own_id = {"run_id": run_id} if run_id else {}
    write_json(workdir / CONFIG_FILE, {**own_id, "config": to_dict(config), **_surroundings()})


def saved_num_steps(workdir: pathlib.Path) -> int | None:
    """`train.num_steps` of the run in a workdir; None where no run with checkpoints says it."""
    if not is_begun(workdir):
        return None
    num_steps = _saved_config(workdir).get("train", {}).get("num_steps")
    return num_steps if type(num_steps) is int and num_steps > 0 else None


def run_id_of(workdir: pathlib.Path) -> str | None:
    """The id of a workdir's run; None for a run of a version that gave none.

    Raises:
      WorkdirError: if `config.json` cannot be read, or its id is no text.
    """
    path = workdir / CONFIG_FILE
    run_id = read_json(path).get("run_id")
    if not isinstance(run_id, str | None):
        raise WorkdirError(f"{path}: run_id is {str(run_id)[:80]}; allowed: text")
    return run_id


def id_to_run_with(workdir: pathlib.Path, config: Config) -> str | None:
    """The id of the run that goes on in a workdir, or a new one if none has a checkpoint there.

    Raises:
      ConfigError: if the workdir belongs to another configuration; every difference is listed.
      WorkdirError: if its `config.json` cannot be read.
    """
    if not is_begun(workdir):
        return uuid.uuid4().hex
    check_same(workdir, config)
    return run_id_of(workdir)


def _surroundings() -> dict[str, Any]:
    return {"versions": versions(), "hardware": hardware(), "git_revision": git_revision()}


def record_start(workdir: pathlib.Path, step: int, config: Config, data: DatasetInfo) -> None:
    """Adds an entry to `provenance.json`: time, hardware and versions of a start or a resume.

    A start at step 0 begins the file anew: the weights contain no earlier computation.

    Args:
      workdir: the run's folder.
      step: steps that were made before.
      config: the run's configuration.
      data: the set that it trains on.

    Raises:
      WorkdirError: if the file is there and cannot be read.
    """
    path = workdir / PROVENANCE_FILE
    begun = step and path.exists()
    starts = stored.read_stored(path, stored.PROVENANCE)["starts"] if begun else []
    entry = {
        "time_utc": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "step": step,
        "seed": config.seed,
        "data_name": data.name,
        "data_fingerprint": data.fingerprint,
        **_surroundings(),
    }
    write_json(path, {"starts": [*starts, entry]})


def check_same(workdir: pathlib.Path, config: Config) -> None:
    """Checks that a configuration is that of a workdir, except for resumable fields.

    Raises:
      ConfigError: if it differs; every difference is listed.
      WorkdirError: if the workdir has no configuration.
    """
    changed = differences(brought_up_to_date(_saved_config(workdir)), to_dict(config))
    if changed:
        raise ConfigError(
            "--workdir",
            str(workdir),
            "it belongs to another configuration; allowed: another folder, or the same fields. "
            "These differ:\n  " + "\n  ".join(changed),
        )


def checked_same(workdir: pathlib.Path, config: Config) -> Config:
    """A configuration that is that of a workdir, except for resumable fields.

    Without a `sample.t_end` it gets that of the run: runs of older versions end their grids of
    times elsewhere than new ones.

    Raises:
      ConfigError: if it differs; every difference is listed.
      WorkdirError: if the workdir has no configuration.
    """
    check_same(workdir, config)
    sample = config.sample
    if sample.t_end is not None or sample.time_grid != "karras":
        return config
    own = load_config(workdir).sample.t_end
    return dataclasses.replace(config, sample=dataclasses.replace(sample, t_end=own))


@contextlib.contextmanager
def training_lock(workdir: pathlib.Path) -> Iterator[Callable[[], None]]:
    """Locks the workdir for one training run; the system releases it if the process dies.

    Nothing is written in it before: a training that is refused leaves no trace in the other's run.

    Yields:
      A check that the workdir is still there, which raises `WorkdirError` if it is not.

    Raises:
      WorkdirError: if another process trains there, or the folder cannot be made.
    """
    try:
        workdir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise WorkdirError(f"--workdir={workdir} cannot be created: {error.strerror}") from None
    folder = os.open(workdir, os.O_RDONLY)

    def check_there() -> None:
        try:
            there = os.path.samestat(os.stat(workdir), os.fstat(folder))
        except OSError:
            there = False
        if not there:
            raise WorkdirError(
                f"{workdir} was deleted or moved while the run was training; nothing more is "
                "written. Move it back to go on from its newest checkpoint"
            )

    try:
        try:
            fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise WorkdirError(
                f"another process is training in {workdir}; wait for it or stop it"
            ) from None
        yield check_there
    finally:
        os.close(folder)


def load_config(workdir: pathlib.Path) -> Config:
    """The configuration that a workdir was trained with.

    Raises:
      WorkdirError: if there is none.
      ConfigError: if this version of lensjax does not accept it.
    """
    values = brought_up_to_date(_saved_config(workdir))
    missing = missing_fields(values)
    if missing:
        raise WorkdirError(
            f"{workdir / CONFIG_FILE} was written by an older version of lensjax, which had no "
            f"{missing[0]}; load it with that version, or train again"
        )
    try:
        return from_config_dict(values)
    except ConfigError as error:
        raise error.within(workdir / CONFIG_FILE) from None


def _saved_config(workdir: pathlib.Path) -> dict[str, Any]:
    path = workdir / CONFIG_FILE
    config = stored.read_stored(path, stored.CONFIG)["config"]
    sections = {field.name for field in dataclasses.fields(Config)} - {"seed"}
    given = stored.with_name(
        path, lambda: checked(config, {name: OBJECT.or_missing({}) for name in sections}, "config.")
    )
    for field in config.keys() | {field for name in sections for field in given[name]}:
        if "." in field:  # the full path of another field, which would replace it
            raise WorkdirError(f"{path}: config has a field {shown(field)}; there is no such field")
    return config
