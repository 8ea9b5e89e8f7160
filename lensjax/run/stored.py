"""What the JSON files of a run may hold: reading them, and the rules of their fields.

Nothing in a file of a run is trusted: a value that no run can have would draw wrong images in
silence. Fields that this version does not know are ignored, except in `config.json`, where an
unknown field may change what the run means.
"""

import dataclasses
import math
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np

from lensjax.config import Config
from lensjax.config.model import check_image_size
from lensjax.data.catalogue import SIMULATED_SETS, is_same_content
from lensjax.data.dataset_rules import FACTS, IMAGE_SHAPE, facts_of_channels
from lensjax.data.flux_range import FEATURES, is_flux_range
from lensjax.data.scaling import SCALINGS, Scaling
from lensjax.data.simulator import CLASS_NAMES
from lensjax.errors import ConfigError, UnusableError, WorkdirError, shown
from lensjax.files.atomic import write_json
from lensjax.files.json_file import (
    NAME,
    NUMBER,
    OBJECT,
    POSITIVE,
    TEXT,
    Rule,
    checked,
    read_object,
    whole,
)
from lensjax.run.checksums import checksum_of

MAX_STEP = 2**53
# In units of the model's range, whose standard deviation is about 1.
_LEAST_RANGE, _FURTHEST = 1e-3, 1e3
_DAMAGED = "It was not written by lensjax, or is damaged"


def read_json(path: pathlib.Path) -> dict[str, Any]:
    """Reads a JSON file of a workdir.

    Raises:
      WorkdirError: if the file is not there or holds no sound JSON object.
    """
    try:
        return read_object(path)
    except FileNotFoundError:
        raise WorkdirError(
            f"{path} does not exist; is {path.parent} the workdir of a run?"
        ) from None
    except UnusableError as error:
        raise WorkdirError(f"{path} cannot be read: it {error}. {_DAMAGED}") from None


def read_stored(path: pathlib.Path, rules: Mapping[str, Rule]) -> dict[str, Any]:
    """Reads a JSON file of a workdir and checks its fields.

    Raises:
      WorkdirError: as `read_json`, and for a field that is missing or not allowed, by its name.
    """
    return with_name(path, lambda: checked(read_json(path), rules))


def with_name(path: pathlib.Path, check: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What a check returns; its errors as `WorkdirError` with the name of the file."""
    try:
        return check()
    except UnusableError as error:
        raise WorkdirError(f"{path}: {error}. {_DAMAGED}") from None


_CHECKSUM = "crc32"  # files of other programs and older versions have none
# The rules of `dataset.json` that do not depend on the number of channels.
_DATASET: Mapping[str, Rule] = {
    "image_shape": IMAGE_SHAPE,
    "name": NAME,
    "scaling": OBJECT,
    "num_train_images": whole(1, MAX_STEP).or_missing(),
    **FACTS,
}


def _of_channels(channels: int) -> dict[str, Rule]:
    """The rules of `dataset.json` for images of so many channels."""
    return facts_of_channels(channels) | {
        "flux_ranges": Rule(
            lambda value: (
                isinstance(value, list) and all(is_flux_range(one, channels) for one in value)
            ),
            f"a list of ranges, each with lowest and highest values of {channels} channels under "
            f"{', '.join(FEATURES)}",
        ).or_missing([]),
    }


def _of_scaling(channels: int) -> dict[str, Rule]:
    """The rules of the constants that map flux to the model's range."""

    def constant(rule: Rule) -> Rule:
        each = rule.several(channels)
        more = f", or {channels} of them, one for each channel of image_shape"
        return Rule(
            lambda value: rule.accepts(value) or each.accepts(value),
            rule.allowed + (more if channels > 1 else ""),
        )

    return {
        "kind": Rule(lambda value: value in SCALINGS, ", ".join(SCALINGS)),
        "shift": constant(NUMBER),
        "spread": constant(POSITIVE),
        "softening": constant(POSITIVE).or_missing(1.0),
    }


def _check_range(content: Mapping[str, Any], scaling: Scaling) -> None:
    """Checks that a map takes the pixels of the set to numbers that a network can work with.

    The map may come from another set, whose fluxes are alike.
    """
    low, high = content["minimum"], content["maximum"]
    if low is None or high is None:
        return
    if low > high:
        raise UnusableError(f"minimum is {low}, above maximum, {high}; allowed: at most maximum")
    if scaling.kind == "sqrt" and low < 0:
        raise UnusableError(f"minimum is {low}; allowed with scaling.kind=sqrt: at least 0")
    channels = len(scaling.spread) if isinstance(scaling.spread, tuple) else 1
    flux = np.broadcast_to(np.array([[low], [high]], np.float32), (2, channels))
    bottom, top = np.asarray(scaling.to_model(jnp.asarray(flux)))
    away = np.maximum(np.maximum(bottom, -top), 0)
    if not (np.all(top - bottom >= _LEAST_RANGE) and np.all(away <= _FURTHEST)):
        raise UnusableError(
            f"scaling is {shown(scaling.to_dict())}, which maps the set's pixels, {low:g} to "
            f"{high:g}, to {bottom.min():g} to {top.max():g}; allowed: constants that map them to "
            f"a range of at least {_LEAST_RANGE:g} around or near 0"
        )


def write_dataset(path: pathlib.Path, content: Mapping[str, Any]) -> None:
    """Writes a `dataset.json` with its checksum: a number that is another one can look right."""
    write_json(path, {**content, _CHECKSUM: checksum_of(content)})


def read_dataset(path: pathlib.Path) -> dict[str, Any]:
    """Reads a `dataset.json`, the description of a run's data, with defaults of what it lacks.

    Raises:
      WorkdirError: if it is missing, a field is missing or not allowed, or the checksum is wrong.
    """
    whole_file = read_json(path)
    checksum = whole_file.pop(_CHECKSUM, None)
    content = with_name(path, lambda: checked(whole_file, _DATASET))
    channels = content["image_shape"][2]

    def check() -> dict[str, Any]:
        constants = {field.name for field in dataclasses.fields(Scaling)}
        if unknown := sorted(content["scaling"].keys() - constants):
            raise UnusableError(f"scaling has {shown(unknown[0])}; allowed: {', '.join(constants)}")
        scaling = checked(content["scaling"], _of_scaling(channels), "scaling.")
        _check_range(content, Scaling(**scaling))
        if checksum not in (None, checksum_of(whole_file)):
            raise UnusableError(f"its content does not fit its {_CHECKSUM}, {shown(checksum)}")
        return checked(content, _of_channels(channels)) | {"scaling": scaling}

    return with_name(path, check)


def check_fits(path: pathlib.Path, dataset: Mapping[str, Any], config: Config) -> None:
    """Checks that a run's `dataset.json` and its configuration belong together.

    Args:
      path: the `dataset.json`, for messages.
      dataset: its content, from `read_dataset`.
      config: the run's configuration.

    Raises:
      WorkdirError: for other classes or images than the configuration says.
    """
    names, shape = dataset["class_names"], dataset["image_shape"]
    if len(names) != config.model.num_classes:
        raise WorkdirError(
            f"{path}: class_names names {len(names)} classes; allowed: "
            f"{config.model.num_classes}, as in config.json"
        )
    simulated = SIMULATED_SETS.get(dataset["name"])
    if simulated and is_same_content(dataset["fingerprint"], simulated.fingerprint):
        side = simulated.survey.num_pixels
        for field, wanted in {
            "image_shape": [side, side, 1],
            "class_names": list(CLASS_NAMES),
        }.items():
            if dataset[field] != wanted:
                raise WorkdirError(
                    f"{path}: {field} is {shown(dataset[field])}; allowed: {shown(wanted)}, as "
                    f"{dataset['name']} has"
                )
    try:
        check_image_size(config.model, shape[0], shape[1])
    except ConfigError as error:
        raise WorkdirError(f"{path}: image_shape is {shape}, but {error}") from None


# `classifier.json`: the validation of the best state.
CLASSIFIER: Mapping[str, Rule] = {
    "step": whole(0, MAX_STEP),
    "temperature": POSITIVE,
}
# `generated/meta.json`: what `--mode=export` reads of it.
GENERATED: Mapping[str, Rule] = {
    "num_images": whole(0, MAX_STEP),
    "seed": whole(0, 2**31 - 1).or_null(),
    "weights_sha256": TEXT.or_null(),
}
PROVENANCE: Mapping[str, Rule] = {"starts": OBJECT.several()}
CONFIG: Mapping[str, Rule] = {"config": OBJECT}
# `card.json` of a network that comes with lensjax.
CARD: Mapping[str, Rule] = {
    "sha256": NAME,
    "checkpoint_step": whole(0, MAX_STEP),
    "ema": NAME,
}
CARD_OF_CLASSIFIER: Mapping[str, Rule] = {**CARD, "temperature": POSITIVE}


_NUMBER_OR_NULL = Rule(
    lambda value: value is None or (type(value) in (int, float) and math.isfinite(value)),
    "a number or null",
)


def metrics_line(content: Mapping[str, Any]) -> dict[str, Any]:
    """A line of `metrics.jsonl`: `step`, and numbers or null under every other name.

    Raises:
      UnusableError: for anything else.
    """
    numbers = dict.fromkeys(content, _NUMBER_OR_NULL) | {"step": whole(0, MAX_STEP)}
    return checked(content, numbers)
