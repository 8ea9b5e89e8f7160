"""Writes `docs/reference/configuration.md`: every field of a configuration, from the dataclasses.

python docs/configuration.py
"""

import dataclasses
import inspect
import pathlib
import re
from typing import Any

from lensjax.config import Config

PAGE = pathlib.Path(__file__).parent / "reference" / "configuration.md"
_BEGINNING = """# Every field of a configuration

A run is described by a configuration: sections of fields. Files in `configs/` set some of them, and
each can be set on the command line:

    python -m lensjax.main --config=configs/quickstart.py --config.train.num_steps=1000 ...

A value that is not allowed is refused before any work, and the message names the field and the
allowed values. *May change* marks the fields that may differ when a run resumes; any other change
makes another run, which needs a new workdir. *Only for* names the choices that read a field; with
any other choice it stays at its default.

`python docs/configuration.py` writes this page from `lensjax/config`.
"""


def meanings(kind: type) -> dict[str, str]:
    """The sentences of a dataclass's docstring on each of its attributes."""
    _, _, text = inspect.cleandoc(kind.__doc__ or "").partition("Attributes:\n")
    entries = re.findall(r"^  (\w+): (.*(?:\n    .*)*)", text, re.MULTILINE)
    return {name: " ".join(words.split()) for name, words in entries}


def _row(field: dataclasses.Field, meaning: str, facts: dict[str, Any]) -> str:
    facts = facts | dict(field.metadata)
    parts = [meaning]
    if check := facts.get("check"):
        parts.append(f"*Allowed*: {check.allowed.removeprefix('allowed: ')}.")
    if only_for := facts.get("only_for"):
        choices = (f"{path} = {', '.join(values)}" for path, values in only_for.items())
        parts.append(f"*Only for* {'; '.join(choices)}.")
    if facts.get("resumable"):
        parts.append("*May change.*")
    cells = [f"`{field.name}`", f"`{field.default!r}`", " ".join(parts)]
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def _table(kind: type, facts: dict[str, Any]) -> list[str]:
    known = meanings(kind)
    rows = [_row(field, known[field.name], facts) for field in dataclasses.fields(kind)]
    return ["| field | default | meaning |", "|---|---|---|", *rows, ""]


def page() -> str:
    """The page's text."""
    lines = [_BEGINNING]
    for field in dataclasses.fields(Config):
        kind = type(field.default)
        if dataclasses.is_dataclass(kind):
            first = inspect.cleandoc(kind.__doc__ or "").split("\n\n")[0]
            lines += [f"## {field.name}", "", " ".join(first.split()), ""]
            lines += _table(kind, dict(field.metadata))
        else:
            meaning = meanings(Config)[field.name]
            lines += [f"## {field.name}", "", f"`{field.default!r}`; {meaning}", ""]
    return "\n".join(lines)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
