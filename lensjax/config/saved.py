"""Configurations that runs have saved, perhaps by an older lensjax: completed and compared.

Whether a field may differ on a resume, and since when it exists, are facts of the field itself, see
`fields.Facts`; removed fields are listed in `whole`.
"""

import functools
from collections.abc import Mapping
from typing import Any

from absl import logging

from lensjax.config.reading import to_dict
from lensjax.config.whole import RETIRED_CHOICES, RETIRED_FIELDS, Config, facts_of_fields
from lensjax.files.user_paths import is_same_path


def flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Lists the fields of nested values by their full paths.

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


def _nested(values: Mapping[str, Any]) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for path, value in values.items():
        section, _, name = path.rpartition(".")
        (result.setdefault(section, {}) if section else result)[name] = value
    return result


def brought_up_to_date(saved: Mapping[str, Any]) -> dict[str, Any]:
    """Translates a saved configuration into the fields of this version.

    Missing fields are added if they may differ on a resume, or if their default is how older
    versions worked; without any other field the meaning of a run is unknown. Retired fields are
    dropped, and retired choices replaced, with one line in the log.

    Args:
      saved: `to_dict` of a configuration, perhaps by an older version; it is not changed.
    """
    values, facts = flat(saved), facts_of_fields()
    gone = [path for path in RETIRED_FIELDS if path in values]
    for path in gone:
        del values[path]
    for (path, choice), instead in RETIRED_CHOICES.items():
        if values.get(path) == choice:
            values[path] = instead
            gone.append(f"{path}={choice} (now {instead})")
    if gone:
        _log_once(", ".join(gone))
    for path, default in flat(to_dict(Config())).items():
        field_facts = facts[path]
        if path not in values and (field_facts.get("resumable") or "since" in field_facts):
            read = all(
                values.get(owner) in choices
                for owner, choices in field_facts.get("only_for", {}).items()
            )
            values[path] = field_facts.get("before", default) if read else default
    return _nested(values)


@functools.cache
def _log_once(gone: str) -> None:
    """Logs what was dropped, once in a process, which may read a configuration several times."""
    logging.info("saved settings that no longer exist are ignored or replaced: %s", gone)


def missing_fields(saved: Mapping[str, Any]) -> list[str]:
    """Lists the full paths of the fields that a saved configuration lacks.

    Args:
      saved: `to_dict` of a configuration, perhaps by an older version.
    """
    return [path for path in facts_of_fields() if path not in flat(saved)]


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """Writes a line for each field that differs and may not differ when a run resumes.

    Args:
      old: `to_dict` of the configuration in the workdir.
      new: `to_dict` of the configuration of this run.
    """
    before, now, facts = flat(old), flat(new), facts_of_fields()
    pairs = {
        path: (before.get(path, "nothing"), now.get(path, "nothing"))
        for path in sorted(before.keys() | now.keys())
    }

    def is_same(path: str, was: Any, is_now: Any) -> bool:
        holds_path = "path" in facts.get(path, {})
        return was == is_now or (holds_path and is_same_path(was, is_now))

    return [
        f"{path}: the workdir has {was!r}, this run {is_now!r}"
        for path, (was, is_now) in pairs.items()
        if not (is_same(path, was, is_now) or facts.get(path, {}).get("resumable"))
    ]
