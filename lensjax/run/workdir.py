"""The files of a run's folder: their names, reading them, and the provenance of the run."""

import contextlib
import dataclasses
import datetime
import fcntl
import os
import pathlib
from collections.abc import Iterator
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
    return any(checkpoints.glob("[0-9]*"))


def is_begun(workdir: pathlib.Path) -> bool:
    """Whether a workdir has a checkpoint."""
    return has_steps(workdir / CHECKPOINTS)


def check_free(workdir: pathlib.Path, config: Config) -> None:
    """Checks without writing that `claim` will succeed.

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


def claim(workdir: pathlib.Path, config: Config) -> None:
    """Makes a workdir this run's own, or checks that it is; without checkpoints it is free.

    Raises:
      ConfigError: if the workdir belongs to another configuration; every difference is listed.
      WorkdirError: if the folder cannot be made or its `config.json` not be read.
    """
    try:
        workdir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise WorkdirError(f"--workdir={workdir} cannot be created: {error.strerror}") from None
    path = workdir / CONFIG_FILE
    if is_begun(workdir):
        check_same(workdir, config)
    elif path.exists():  # a run that never saved anything, such as one without room for its data
        (workdir / DATASET_FILE).unlink(missing_ok=True)
    write_json(path, {"config": to_dict(config), **_surroundings()})


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


@contextlib.contextmanager
def training_lock(workdir: pathlib.Path) -> Iterator[None]:
    """Locks the workdir for one training run; the system releases it if the process dies.

    Raises:
      WorkdirError: if another process trains there.
    """
    folder = os.open(workdir, os.O_RDONLY)
    try:
        try:
            fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise WorkdirError(
                f"another process is training in {workdir}; wait for it or stop it"
            ) from None
        yield
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
