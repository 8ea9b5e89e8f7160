"""The measured numbers as JSON types and as tables on a screen and in the report."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from lensjax.evaluation.goals import Check, Results
from lensjax.evaluation.verdict import Verdict


def plain(value: Any) -> Any:
    """A value of dicts, tuples and numpy numbers as JSON types; NaN becomes None."""
    if isinstance(value, Mapping):
        return {str(name): plain(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, np.ndarray):
        return plain(value.tolist())
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def number(value: Any) -> str:
    """A cell of a table as text: three significant digits, nothing for None."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, (float, np.floating)):
        value = float(value)
        return f"{value:.3g}" if abs(value) < 1e4 else f"{value:,.0f}"
    return str(value)


class Table(NamedTuple):
    """A table of the report.

    Attributes:
      title: heading above the table.
      columns: names of the columns.
      rows: `{"kind": class of the row, "cells": values}`.
    """

    title: str
    columns: Sequence[str]
    rows: Sequence[Mapping[str, Any]]


def flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested numbers by their joined names; lists are left out."""
    numbers: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            numbers |= flat(value, f"{prefix}{name} ")
        elif not isinstance(value, (list, tuple, np.ndarray)):
            numbers[prefix + name] = value
    return numbers


def tables_of(rows: Mapping[str, Mapping[str, Any]]) -> list[Table]:
    """One table for each group of a measure, with a line for each row.

    Args:
      rows: results of a measure by row, then by group.
    """
    groups = list(dict.fromkeys(group for results in rows.values() for group in results))
    tables = []
    for group in groups:
        lines = {name: flat(results[group]) for name, results in rows.items() if group in results}
        columns = list(dict.fromkeys(column for line in lines.values() for column in line))
        tables.append(
            Table(
                group,
                ["images", *(column.replace("_", " ") for column in columns)],
                [
                    {
                        "kind": name.partition(" ")[0],
                        "cells": [name, *(line.get(column) for column in columns)],
                    }
                    for name, line in lines.items()
                ],
            )
        )
    return tables


_ROW = "{:8}{:12}{:>10}{:>12}{:>12}{:>12}{:>9}{:>7}{:>14}"
_EXPLAIN = """
Each image is fitted by the exact simulator's lens without sub-structure; the number is
RMS(image - fit) / RMS(image). For no_sub it should be 0, for cdm and axion that of real
images: lower is as wrong as higher. A wrong brightness adds to it; "if free" is the median of
fits that have a free brightness, whose mean stands beside it. KS is the distance of the fitted
source positions from their prior ({ks:.2f} or less in x and y for 99 % of sets of so many
perfect images); dark pixels are those below 0.1 % of the peak."""


def _smooth_lines(rows: Mapping[str, Any], shown: Sequence[str]) -> list[str]:
    lines = [
        f"{'':20}{'residual of best smooth lens':>34}{'brightness':>12}{'source position':>16}"
        f"{'dark pixels':>14}",
        _ROW.format(
            "class", "images", "median", "90 % below", "if free", "", "KS x", "KS y", "RMS / peak"
        ),
        "-" * 96,
    ]
    groups = list(rows[shown[0]])
    for group in reversed(groups):  # no_sub, cdm, axion
        for row in shown:
            score = rows[row].get(group)
            if score is None:
                continue
            cells = [group, row, f"{score['ratio_p50']:.3f}", f"{score['ratio_p90']:.3f}"]
            if "brightness" in score:
                cells += [f"{score['free_ratio_p50']:.3f}", f"{score['brightness']:.3f}"]
            else:
                cells += ["", ""]
            if "ks_x" in score:  # the source position means nothing where the fit is wrong
                cells += [f"{score['ks_x']:.2f}", f"{score['ks_y']:.2f}"]
                cells += [f"{score['faint_rms_percent']:.3f} %"]
            lines.append(_ROW.format(*cells, *[""] * (9 - len(cells))).rstrip())
    return lines


def _check_lines(checks: Sequence[Check]) -> list[str]:
    head = f"{'goal':54}{'value':>10}{'limit':>18}  outcome"
    lines = [head, "-" * 92]
    for check in checks:
        limit = f"{check.bound} {number(check.limit)}" if check.p is not None else ""
        lines.append(f"{check.name[:53]:54}{number(check.value):>10}{limit:>18}  {check.outcome}")
    return lines


def text(results: Results, subject: str, checks: Sequence[Check], verdict: Verdict) -> str:
    """The text printed at the end of an evaluation; the verdict's last sentence ends it.

    Args:
      results: each measure's results by its name.
      subject: the row that is judged.
      checks: the checks of this row.
      verdict: the verdict on this row.
    """
    lines = []
    rows = results.get("smooth_fit", {}).get("rows")
    if rows:
        lines += _smooth_lines(rows, [subject, "real"])
        of_positions = rows[subject].get("no_sub") or rows["real"]["no_sub"]
        lines += [_EXPLAIN.format(ks=of_positions["ks_limit"]), ""]
    lines += [*_check_lines(checks), ""]
    missing: dict[str, list[str]] = {}
    for name, result in results.items():
        if result["status"] != "measured":
            missing.setdefault(result["reason"], []).append(name)
    lines += [f"not measured: {', '.join(names)} ({reason})" for reason, names in missing.items()]
    return "\n".join([*lines, "", *verdict.sentences])
