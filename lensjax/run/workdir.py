"""The files of a run's folder: their names, reading them, and the provenance of the run."""

import contextlib
import dataclasses
import datetime
import fcntl
import json
import math
import os
import pathlib
import uuid
from collections.abc import Callable, Iterator, Mapping
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
from lensjax.data.flux_range import FEATURES, is_flux_range
from lensjax.data.scaling import SCALINGS, Scaling
from lensjax.errors import ConfigError, WorkdirError
from lensjax.files.atomic import write_json
from lensjax.run.checkpoint_folder import steps_in
from lensjax.run.provenance import git_revision, hardware, versions

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


def read_json(path: pathlib.Path) -> dict[str, Any]:
    """Reads a JSON file of a workdir.

    Raises:
      WorkdirError: if the file is not there or holds no JSON object.
    """
    try:
        content = json.loads(path.read_text())
    except FileNotFoundError:
        raise WorkdirError(
            f"{path} does not exist; is {path.parent} the workdir of a run?"
        ) from None
    except (OSError, ValueError, RecursionError) as error:
        raise WorkdirError(f"{path} cannot be read: {error}") from None
    if not isinstance(content, dict):
        raise WorkdirError(f"{path} holds no JSON object; it was not written by lensjax")
    return content


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value)


def _is_scaling(value: Any) -> bool:
    fields = dataclasses.fields(Scaling)
    needed = {field.name for field in fields if field.default is dataclasses.MISSING}
    return (
        isinstance(value, dict)
        and needed <= value.keys() <= {field.name for field in fields}
        and value["kind"] in SCALINGS
    )


def _is_constant(value: Any, channels: int, *, positive: bool) -> bool:
    """Whether a value is a number, or a list with one for each channel."""
    numbers = value if isinstance(value, list) else [value] * channels
    return len(numbers) == channels and all(
        _is_number(number) and (number > 0 or not positive) for number in numbers
    )


def _check_scaling(path: pathlib.Path, scaling: Mapping[str, Any], channels: int) -> None:
    """Raises `WorkdirError` for a constant that does not fit images of so many channels."""
    for name in sorted(scaling.keys() - {"kind"}):
        positive = name != "shift"
        if not _is_constant(scaling[name], channels, positive=positive):
            words = "a finite number" + (" above 0" if positive else "")
            if channels > 1:
                words += f", or {channels} of them, one for each channel of image_shape"
            raise WorkdirError(
                f"{path}: scaling.{name} is {str(scaling[name])[:80]}; allowed: {words}. It was "
                "not written by lensjax, or is damaged"
            )


# The fields that `dataset.json` must hold: a check of each, and its description.
_DATASET_FIELDS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "name": (_is_text, "text"),
    "fingerprint": (_is_text, "text"),
    "flux_unit": (_is_text, "text"),
    "class_names": (lambda v: isinstance(v, list) and all(map(_is_text, v)), "a list of texts"),
    "image_shape": (
        lambda v: isinstance(v, list) and len(v) == 3 and all(type(n) is int and n > 0 for n in v),
        "three positive integers",
    ),
    "scaling": (_is_scaling, f"kind (one of {', '.join(SCALINGS)}), shift, spread, softening"),
}


def _check_flux_ranges(path: pathlib.Path, ranges: Any, channels: int) -> None:
    """Raises `WorkdirError` for ranges of flux that do not fit images of so many channels."""
    if not isinstance(ranges, list) or not all(is_flux_range(one, channels) for one in ranges):
        raise WorkdirError(
            f"{path}: flux_ranges is {str(ranges)[:80]}; allowed: a list of ranges, each with "
            f"lowest and highest values of {channels} channels under {', '.join(FEATURES)}. It was "
            "not written by lensjax, or is damaged"
        )


# Defaults of the fields that it may lack, as in files of other programs.
_DATASET_DEFAULTS: dict[str, float | None] = {
    "pixel_scale_arcsec": None,
    "psf_fwhm_arcsec": None,
    "zero_point_mag": None,
    "published_scale": 1.0,
}


def read_dataset(workdir: pathlib.Path) -> dict[str, Any]:
    """Reads `dataset.json`: the description of a run's data.

    Raises:
      WorkdirError: if it is missing, or lacks a field that is needed.
    """
    path = workdir / DATASET_FILE
    content = read_json(path)
    for name, (is_right, words) in _DATASET_FIELDS.items():
        if not is_right(content.get(name)):
            raise WorkdirError(
                f"{path}: {name} is {str(content.get(name))[:80]}; allowed: {words}. It was not "
                "written by lensjax, or is damaged"
            )
    channels = content["image_shape"][2]
    _check_scaling(path, content["scaling"], channels)
    # Older runs and other programs do not write them; an empty list says nothing.
    _check_flux_ranges(path, content.setdefault("flux_ranges", []), channels)
    for name, default in _DATASET_DEFAULTS.items():
        value = content.setdefault(name, default)
        if not (_is_number(value) or (value is None and default is None)):
            raise WorkdirError(f"{path}: {name} is {str(content[name])[:80]}; allowed: a number")
    return content


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
    starts = read_json(path).get("starts") if step and path.exists() else []
    if not isinstance(starts, list):
        raise WorkdirError(f"{path} holds no list of starts; move it away to continue")
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
    return from_config_dict(values)


def _saved_config(workdir: pathlib.Path) -> dict[str, Any]:
    path = workdir / CONFIG_FILE
    config = read_json(path).get("config")
    sections = {field.name for field in dataclasses.fields(Config)} - {"seed"}
    if not isinstance(config, dict) or not all(
        isinstance(config.get(name, {}), dict) for name in sections
    ):
        raise WorkdirError(f"{path} holds no configuration; it was not written by lensjax")
    return config
