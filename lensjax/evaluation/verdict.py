"""The verdict on one row in plain words, from its checks."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from lensjax.evaluation.checks import Check, Results, cdm_signal

# Limits for images worth looking at; beyond them, the eye sees a fault.
PICTURE_LIMITS = {
    "ratio_p50": 0.08,
    "ratio_p90": 0.13,
    "ks_x": 0.20,
    "ks_y": 0.20,
    "faint_rms_percent": 0.3,
}


class Verdict(NamedTuple):
    """The verdict on the images of one row.

    Attributes:
      passed: whether the images pass as pictures of lenses, or, if that cannot be measured,
        whether every goal is met.
      sentences: the verdict in words, the most important first.
    """

    passed: bool
    sentences: tuple[str, ...]


def picture_failures(no_sub: Mapping[str, float]) -> list[str]:
    """A line for each limit of `PICTURE_LIMITS` that the `no_sub` scores exceed."""
    return [
        f"{name} is {no_sub[name]:.3f}, the limit is {limit:g}"
        for name, limit in PICTURE_LIMITS.items()
        if not no_sub[name] <= limit
    ]


def _judge_as_pictures(
    no_sub: Mapping[str, float], signal: float, *, trained: bool
) -> tuple[bool, str]:
    failed = picture_failures(no_sub)
    if failed:
        advice = " Train longer or on an accelerator." if trained else ""
        return False, f"FAILED as pictures of lenses: for no_sub {'; '.join(failed)}.{advice}"
    median = no_sub["ratio_p50"]
    if median > signal:
        meaning = f"the median error, {median:.3f}, exceeds the cdm signal, {signal:.3f}"
    else:
        meaning = f"the median error is {median:.3f}, the cdm signal {signal:.3f}"
    return True, f"PASSED as pictures of lenses: {meaning}."


def _goals_in_words(checks: Sequence[Check]) -> str:
    missed = [check.name for check in checks if check.outcome == "missed"]
    unjudged = sum(check.outcome == "no power" for check in checks)
    judged = len(checks) - unjudged
    tail = f" {unjudged} more could not be judged for lack of power." if unjudged else ""
    if not judged:
        return f"No goal could be judged.{tail}"
    if not missed:
        return (
            f"All {judged} goals are met: this many images show no fault compared with real ones."
            f"{tail}"
        )
    return (
        f"{len(missed)} of {judged} goals are missed ({'; '.join(missed[:4])}"
        f"{'; ...' if len(missed) > 4 else ''}): these images are for looking at, not for "
        f"dark-matter work.{tail}"
    )


def judge(
    results: Results,
    row: str,
    checks: Sequence[Check],
    survey: str | None,
    *,
    trained: bool = True,
) -> Verdict:
    """The verdict on a row.

    Args:
      results: each measure's results by its name.
      row: the name of the row.
      checks: the checks of this row.
      survey: the DeepLense model; None for the user's own images.
      trained: whether the images are those of a run here, which could be trained longer.
    """
    sentences = []
    passed = bool(checks) and all(check.outcome != "missed" for check in checks)
    no_sub: Mapping[str, Any] | None = (
        results.get("smooth_fit", {}).get("rows", {}).get(row, {}).get("no_sub")
    )
    if no_sub is not None:
        passed, sentence = _judge_as_pictures(no_sub, cdm_signal(results, survey), trained=trained)
        sentences.append(sentence)
    return Verdict(passed, (*sentences, _goals_in_words(checks)))
