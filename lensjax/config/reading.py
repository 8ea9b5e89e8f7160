"""The configuration of a run: one frozen dataclass a section, and every check of it.

This module is the only reader of the `ConfigDict`; the rest of lensjax sees checked dataclasses.
A config file starts from `default_config()` and changes what differs, so that a misspelt field
raises where it is written.
"""

import dataclasses
import typing
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from lensjax.config.diffusion import check_diffusion
from lensjax.config.fields import check_texts, field_types, optional_of, read_section
from lensjax.config.model import ModelConfig
from lensjax.config.parallel import check_parallel
from lensjax.config.sections import (
    Config,
    DataConfig,
)
from lensjax.config.task import GENERATE, TRANSFORMERS, check_task
from lensjax.config.training import check_ema, check_steps
from lensjax.data.augmentation import EXACT_FOR_SIMULATED
from lensjax.data.catalogue import FOLDER_SET, SIMULATED_SETS, SimulatedSet
from lensjax.data.disc import covers, overlaps
from lensjax.data.simulator import CLASS_NAMES, SOURCE_POSITION_LIMIT
from lensjax.errors import ConfigError

if TYPE_CHECKING:
    from ml_collections import ConfigDict

# What may differ when a run resumes; everything else changes what the run means.
RESUMABLE_FIELDS = (
    "train.num_steps",
    "train.log_every",
    "train.evaluate_every",
    "train.evaluate_images",
    "train.sample_every",
    "train.checkpoint_every",
    "train.keep_last",
    "train.keep_every",
    "train.accumulate_steps",  # by which a batch fits another device
    "data.folder",  # a set of files is known by its content
    "data.directory",
    "data.num_parts",
    "data.part",
    "data.placement",
    "model.attention",
    "model.remat",
    "parallel.",
    "sample.",
    "classify.layout",
    "classify.image_scale",
    "classify.resize",
    "classify.batch_size",
    "evaluate.",
    "export.",
)

# Fields that an older version did not have, whose default is what it did.
ADDED_FIELDS = (
    "data.exclude_source_disc",
    "classify.",
    "model.num_features",
    "model.cells",
    "model.dropout",
    "model.stem",
    "model.mask_share",
    "model.decoder_",
    "model.normalise_patches",
    "model.attention",
    "model.remat",
    "train.steps_per_dispatch",
    "train.accumulate_steps",
)


def is_among(path: str, names: tuple[str, ...]) -> bool:
    """Returns whether a field's path is one of `names`, or begins like one that ends in . or _."""
    return path in names or path.startswith(tuple(name for name in names if name[-1] in "._"))


def default_config() -> "ConfigDict":
    """Returns the defaults of every field as a locked `ConfigDict`, for config files to change."""
    from ml_collections import ConfigDict, config_dict

    def as_dict(owner: type) -> ConfigDict:
        result = ConfigDict()
        for field in dataclasses.fields(owner):
            kind, optional = optional_of(field_types(owner)[field.name])
            if dataclasses.is_dataclass(kind):
                result[field.name] = as_dict(typing.cast(type, kind))
            elif optional:
                result[field.name] = config_dict.placeholder(kind)
            else:
                result[field.name] = field.default
        return result

    return as_dict(Config).lock()


def from_config_dict(config_dict: Mapping[str, Any]) -> Config:
    """Checks a configuration and returns it as frozen dataclasses.

    Args:
      config_dict: a `ConfigDict` from a config file, or nested dicts, with every field.

    Raises:
      ConfigError: for an unknown or missing field, a wrong type, a value or a combination that is
        not allowed; the message has the field's full path.
    """
    try:
        values = config_dict.to_dict() if hasattr(config_dict, "to_dict") else dict(config_dict)
    except TypeError as error:  # ml_collections sorts the names
        raise ConfigError("--config", str(error), "allowed: fields whose names are text") from None
    config = read_section(Config, values, "")
    _check_combinations(config)
    return config


def _check_parts(data: DataConfig) -> None:
    if data.num_parts is None and data.part is not None:
        raise ConfigError(
            "data.part", data.part, "allowed: None without data.num_parts, the number of all parts"
        )
    if data.num_parts is None:
        return
    if data.name == FOLDER_SET:
        raise ConfigError(
            "data.num_parts",
            data.num_parts,
            f"allowed: None for {FOLDER_SET}; only simulated sets are built in parts",
        )
    if data.part is not None and data.part >= data.num_parts:
        raise ConfigError(
            "data.part",
            data.part,
            f"allowed: 0 to {data.num_parts - 1} with data.num_parts={data.num_parts}",
        )


def _check_combinations(config: Config) -> None:
    check_ema(config)
    check_steps(config.train)
    check_parallel(config.parallel)
    _check_parts(config.data)
    model = config.model
    if config.data.name == FOLDER_SET:
        if not config.data.folder:
            raise ConfigError(
                "data.folder", config.data.folder, f"allowed: a folder of images for {FOLDER_SET}"
            )
        if config.data.exclude_source_disc:
            raise ConfigError(
                "data.exclude_source_disc",
                config.data.exclude_source_disc,
                f"allowed: () for {FOLDER_SET}; only simulated sets know where their sources are",
            )
    else:
        _check_simulated(config, SIMULATED_SETS[config.data.name])
    check_task(config)
    if config.task == GENERATE:
        check_diffusion(config)
    if model.name == "dit" and model.attention_resolutions:
        raise ConfigError(
            "model.attention_resolutions",
            model.attention_resolutions,
            "allowed: () for model.name=dit, whose blocks all have attention",
        )


def check_attention(model: ModelConfig, height: int) -> None:
    """Checks that the UNet's attention fits images of so many rows of pixels.

    Raises:
      ConfigError: for rows that no level has, or channels that their heads do not divide.
    """
    if model.name == "unet":
        from lensjax.models.unet import attention_heads  # flax takes a while

        attention_heads(
            height,
            patch_size=model.patch_size,
            widths=model.widths,
            resolutions=model.attention_resolutions,
            head_width=model.attention_head_width,
        )


def check_mask(model: ModelConfig, height: int, width: int) -> None:
    """Checks that a masked autoencoder has a patch to see and one to find.

    Raises:
      ConfigError: for images of a single patch.
    """
    if model.name == "mae" and model.patch_size >= max(height, width):
        raise ConfigError(
            "model.patch_size",
            model.patch_size,
            f"allowed: less than a side of the images, {height}x{width} pixels, so that there is "
            "something to find",
        )


def _check_simulated(config: Config, simulated: SimulatedSet) -> None:
    """Checks what a simulated set allows; a user's folder is checked once it was read."""
    data, model, num_pixels = config.data, config.model, simulated.survey.num_pixels
    if model.name in TRANSFORMERS and num_pixels % model.patch_size:
        raise ConfigError(
            "model.patch_size",
            model.patch_size,
            f"allowed: a divisor of the image's side, {num_pixels} pixels",
        )
    check_mask(model, num_pixels, num_pixels)
    check_attention(model, num_pixels)
    if model.num_classes != len(CLASS_NAMES):
        raise ConfigError(
            "model.num_classes",
            model.num_classes,
            f"allowed: {len(CLASS_NAMES)}, the classes of {data.name}",
        )
    num_images = simulated.images_per_class["train"] * len(CLASS_NAMES)
    if config.train.batch_size > num_images:
        raise ConfigError(
            "train.batch_size",
            config.train.batch_size,
            f"allowed: at most the {num_images} images of {data.name}",
        )
    if data.augmentation not in EXACT_FOR_SIMULATED:
        raise ConfigError(
            "data.augmentation",
            data.augmentation,
            f"allowed: {', '.join(EXACT_FOR_SIMULATED)} for {data.name}; any other symmetry moves "
            "its images further than sub-structure does",
        )
    defaults = DataConfig()
    for name in ("folder", "layout", "nan_policy", "on_bad_file", "test_share", "shift_pixels"):
        if getattr(data, name) != getattr(defaults, name):
            raise ConfigError(
                f"data.{name}",
                getattr(data, name),
                f"allowed: {getattr(defaults, name)} for {data.name}; it is for {FOLDER_SET}",
            )
    disc, limit = data.exclude_source_disc, SOURCE_POSITION_LIMIT
    if disc and (covers(disc, limit) or not overlaps(disc, limit)):
        raise ConfigError(
            "data.exclude_source_disc",
            disc,
            f"allowed: a disc with a part, not all, of the sources, whose x and y lie in "
            f"[-{limit}, {limit}] arcsec",
        )


def check_overrides(overrides: Mapping[str, str]) -> None:
    """Checks command-line overrides, such as `{"train.batch_size": "32"}`, before they are applied.

    Raises:
      ConfigError: for a path that does not exist or a text that is not of the field's type.
    """
    check_texts(Config, overrides)


def to_dict(config: Config) -> dict[str, Any]:
    """Returns the configuration as nested dicts of JSON types (tuples become lists)."""

    def plain(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: plain(element) for name, element in value.items()}
        return list(value) if isinstance(value, tuple) else value

    return plain(dataclasses.asdict(config))


def add_missing(saved: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a saved configuration with defaults for fields that an older version did not have.

    Only fields that may differ on a resume, and those whose default is what older versions did, are
    added: without another one, nobody knows what the run means.

    Args:
      saved: `to_dict` of a configuration, perhaps by an older version.
    """
    result = dict(saved)
    for section, defaults in to_dict(Config()).items():
        known = result.get(section, {})
        if isinstance(defaults, dict) and isinstance(known, Mapping):
            names = [f"{section}.{name}" for name in defaults if name not in known]
            added = [name for name in names if is_among(name, RESUMABLE_FIELDS + ADDED_FIELDS)]
            if added:
                values = {
                    name.partition(".")[2]: defaults[name.partition(".")[2]] for name in added
                }
                result[section] = {**known, **values}
    return result


def missing_fields(saved: Mapping[str, Any]) -> list[str]:
    """Returns the full paths of the fields that a saved configuration does not have.

    Args:
      saved: `to_dict` of a configuration, perhaps by an older version.
    """
    return [
        f"{section}.{name}"
        for section, defaults in to_dict(Config()).items()
        if isinstance(defaults, dict)
        for name in defaults
        if name not in saved.get(section, {})
    ]


def flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Returns the fields of nested values by their full paths.

    Args:
      values: `to_dict` of a configuration.
      prefix: stands before each path.
    """
    result: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            result |= flat(value, f"{prefix}{name}.")
        else:
            result[prefix + name] = value
    return result


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """Returns a line for each field that differs and may not differ when a run resumes.

    Args:
      old: `to_dict` of the configuration in the workdir.
      new: `to_dict` of the configuration of this run.
    """
    before, now = flat(old), flat(new)
    pairs = {
        name: (before.get(name, "nothing"), now.get(name, "nothing"))
        for name in sorted(before.keys() | now.keys())
    }
    return [
        f"{name}: the workdir has {was!r}, this run {is_now!r}"
        for name, (was, is_now) in pairs.items()
        if was != is_now and not is_among(name, RESUMABLE_FIELDS)
    ]
