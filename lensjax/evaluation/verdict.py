"""The verdict on one row in plain words, from its checks."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from lensjax.evaluation.goals import (
    LEAST_FOR_MEDIAN,
    MET,
    MISSED,
    NO_POWER,
    UNCLEAR,
    Check,
    Results,
)
from lensjax.evaluation.physics_goals import cdm_signal

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
        whether no goal is missed; None if too few images were judged to tell.
      sentences: the verdict in words, the most important first.
    """

    passed: bool | None
    sentences: tuple[str, ...]


def _picture_limit(name: str, no_sub: Mapping[str, float]) -> float:
    """The limit at this number of images: few positions are never spread evenly."""
    limit = PICTURE_LIMITS[name]
    return max(limit, no_sub["ks_limit"]) if name in ("ks_x", "ks_y") else limit


def picture_failures(no_sub: Mapping[str, float]) -> list[str]:
    """A line for each limit of `PICTURE_LIMITS` that the `no_sub` scores exceed."""
    limits = {name: _picture_limit(name, no_sub) for name in PICTURE_LIMITS}
    return [
        f"{name} is {no_sub[name]:.3f}, the limit is {limit:.3g}"
        for name, limit in limits.items()
        if not no_sub[name] <= limit
    ]


def _judge_as_pictures(
    no_sub: Mapping[str, float], signal: float, *, trained: bool
) -> tuple[bool | None, str]:
    failed = picture_failures(no_sub)
    if failed:
        advice = " Train longer or on an accelerator." if trained else ""
        return False, f"FAILED as pictures of lenses: for no_sub {'; '.join(failed)}.{advice}"
    if no_sub["num_images"] < LEAST_FOR_MEDIAN:
        return None, (
            f"NOT JUDGED as pictures of lenses: {no_sub['num_images']} images of no_sub show no "
            f"fault, but at least {LEAST_FOR_MEDIAN} are needed."
        )
    median = no_sub["ratio_p50"]
    if median > signal:
        meaning = f"the median error, {median:.3f}, exceeds the cdm signal, {signal:.3f}"
    else:
        meaning = f"the median error is {median:.3f}, the cdm signal {signal:.3f}"
    return True, f"PASSED as pictures of lenses: {meaning}."


def _some_of(names: Sequence[str]) -> str:
    return f"{'; '.join(names[:4])}{'; ...' if len(names) > 4 else ''}"


def _goals_in_words(checks: Sequence[Check]) -> str:
    names = {
        outcome: [check.name for check in checks if check.outcome == outcome]
        for outcome in (MET, UNCLEAR, MISSED, NO_POWER)
    }
    missed, unclear, unjudged = names[MISSED], names[UNCLEAR], len(names[NO_POWER])
    judged = len(checks) - unjudged
    tail = ""
    if unclear:
        tail += (
            f" {len(unclear)} {'is' if len(unclear) == 1 else 'are'} unclear "
            f"({_some_of(unclear)}): beyond the limit, but one of {judged} may be so by chance; "
            "judge more images to decide."
        )
    if unjudged:
        tail += f" {unjudged} more could not be judged for lack of power."
    if not judged:
        return f"No goal could be judged.{tail}"
    if missed:
        return (
            f"{len(missed)} of {judged} goals are missed ({_some_of(missed)}): these images are "
            f"for looking at, not for dark-matter work.{tail}"
        )
    if unclear:
        return f"No goal is missed, {len(names[MET])} of {judged} are met.{tail}"
    return (
        f"All {judged} goals are met: this many images show no fault compared with real ones.{tail}"
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
    outcomes = {check.outcome for check in checks}
    passed: bool | None = MISSED not in outcomes if outcomes - {NO_POWER} else None
    no_sub: Mapping[str, Any] | None = (
        results.get("smooth_fit", {}).get("rows", {}).get(row, {}).get("no_sub")
    )
    if no_sub is not None:
        passed, sentence = _judge_as_pictures(no_sub, cdm_signal(results, survey), trained=trained)
        sentences.append(sentence)
    return Verdict(passed, (*sentences, _goals_in_words(checks)))
