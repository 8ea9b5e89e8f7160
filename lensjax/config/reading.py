"""From a `ConfigDict` or the command line to checked dataclasses, and back to JSON types.

This module is the only reader of the `ConfigDict`; the rest of lensjax sees checked dataclasses.
A config file starts from `default_config()` and changes what differs, so that a misspelt field
raises where it is written.
"""

import dataclasses
import typing
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from lensjax.config.fields import check_texts, field_types, optional_of, read_section
from lensjax.config.whole import RETIRED_FIELDS, Config, check
from lensjax.errors import ConfigError

if TYPE_CHECKING:
    from ml_collections import ConfigDict


def default_config() -> "ConfigDict":
    """Gives the defaults of every field as a locked `ConfigDict`, for config files to change."""
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
    """Checks a configuration and makes frozen dataclasses of it.

    Args:
      config_dict: a `ConfigDict` from a config file, or nested dicts, with every field.

    Raises:
      ConfigError: for an unknown or missing field, a wrong type, a value or a combination that is
        not allowed; the message has the field's full path.
    """
    if not (isinstance(config_dict, Mapping) or hasattr(config_dict, "to_dict")):
        raise ConfigError(
            "config_dict", config_dict, "allowed: a ConfigDict, such as default_config(), or a dict"
        )
    try:
        values = config_dict.to_dict() if hasattr(config_dict, "to_dict") else dict(config_dict)
    except TypeError as error:  # ml_collections sorts the names
        raise ConfigError("--config", str(error), "allowed: fields whose names are text") from None
    config = read_section(Config, values, "")
    check(config)
    return config


def check_overrides(overrides: Mapping[str, str]) -> None:
    """Checks command-line overrides, such as `{"train.batch_size": "32"}`, before they are applied.

    Raises:
      ConfigError: for a path that does not exist or a text that is not of the field's type.
    """
    for path, instead in RETIRED_FIELDS.items():
        if path in overrides:
            raise ConfigError(path, overrides[path], f"this field no longer exists; {instead}")
    check_texts(Config, overrides)


def to_dict(config: Config) -> dict[str, Any]:
    """Turns a configuration into nested dicts of JSON types (tuples become lists).

    Raises:
      ConfigError: for anything but a configuration.
    """
    if not isinstance(config, Config):
        raise ConfigError("config", config, "allowed: a Config, from from_config_dict")

    def plain(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: plain(element) for name, element in value.items()}
        return list(value) if isinstance(value, tuple) else value

    return plain(dataclasses.asdict(config))
