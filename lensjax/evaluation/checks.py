"""Goals that the measured numbers meet or miss.

A check compares one number of one row with a limit. Fresh images of the simulator keep every limit,
and at least one known fault of `metrics/corruptions.py` breaks it.
"""

import math
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from lensjax.config.evaluate import MEASURES

# A perfect generator misses a check of this kind once in a thousand.
LEAST_P = 1e-3
# A Wasserstein distance may lie this many standard deviations above its floor. The distribution has
# a long tail; `benchmarks/judge.py` counts how often fresh images miss.
MOST_Z = 6.0
# The residual ratio that a perfect image may have, as a share of the cdm signal.
SHARE_OF_CDM_SIGNAL = 0.1
# The median ratio of real cdm images of Model II; for other sets it is measured.
CDM_SIGNAL_MODEL_II = 0.076
LEAST_POSSIBLE_AXIONS = 0.95
THETA_E_PERCENT = 0.2
MOST_FRECHET_Z = 3.0
# Accuracy of a network that tells generated from real, by source magnitude.
C2ST_GOALS = {"magnitude 23": 0.55, "magnitude 20": 0.60}
Results = Mapping[str, Mapping[str, Any]]


class Check(NamedTuple):
    """One goal and its outcome.

    Attributes:
      name: measure, group and quantity.
      value: the number.
      limit: the bound that the number should keep.
      outcome: `met`, `missed` or `no power`.
      meaning: the number and the limit in words.
      bound: whether the number should be `at most` or `at least` the limit.
    """

    name: str
    value: float
    limit: float
    outcome: str
    meaning: str
    bound: str = "at most"


def _at_most(name: str, value: float, limit: float, meaning: str) -> Check:
    return Check(name, value, limit, "met" if value <= limit else "missed", meaning)


def _at_least(name: str, value: float, limit: float, meaning: str) -> Check:
    return Check(name, value, limit, "met" if value >= limit else "missed", meaning, "at least")


def cdm_signal(results: Results, survey: str | None) -> float:
    """The median ratio of real cdm images to the lens without sub-structure."""
    if survey == "model_ii":
        return CDM_SIGNAL_MODEL_II
    rows = results["smooth_fit"].get("rows", {})
    return rows.get("real", {}).get("cdm", {}).get("ratio_p50", math.nan)


def _no_sub(rows: Results, row: str, signal: float) -> Iterator[Check]:
    score = rows[row].get("no_sub")
    if score is None:
        return
    yield _at_most(
        "smooth fit, no_sub: median ratio",
        score["ratio_p50"],
        SHARE_OF_CDM_SIGNAL * signal,
        "residual of the best lens without sub-structure; the limit is a tenth of the cdm signal",
    )
    yield _at_most(
        "smooth fit, no_sub: dark pixels",
        score["faint_rms_percent"],
        max(2 * rows["real"]["no_sub"]["faint_rms_percent"], 0.02),
        "RMS of pixels below 0.1 % of the peak, in per cent of the peak; limit: twice the real one",
    )
    yield _at_least(
        "smooth fit, no_sub: source positions",
        float(np.minimum(score["p_x"], score["p_y"])),  # min() would lose a NaN
        LEAST_P,
        "probability of such positions if they were uniform, as in the simulator (KS)",
    )


def _distribution(name: str, compared: Mapping[str, Any] | None, meaning: str) -> Iterator[Check]:
    """Checks the distance of a distribution from that of real images."""
    if compared:
        yield _at_most(
            name,
            compared["z"],
            MOST_Z,
            f"distance from the real distribution of {meaning}, in s.d. above its floor",
        )


def _smooth_fit(results: Results, row: str, survey: str | None) -> Iterator[Check]:
    rows = results["smooth_fit"]["rows"]
    yield from _no_sub(rows, row, cdm_signal(results, survey))
    for group, score in rows[row].items():
        if group != "no_sub":
            yield from _distribution(
                f"smooth fit, {group}: ratios",
                score.get("against_real"),
                "the residual ratios of the smooth fit",
            )


def _axion_fit(results: Results, row: str, survey: str | None) -> Iterator[Check]:
    score = results["axion_fit"]["rows"][row].get("axion")
    if score is not None:
        least = LEAST_POSSIBLE_AXIONS
        spread = 3 * math.sqrt(least * (1 - least) / score["num_images"])
        yield _at_least(
            "axion fit: possible images",
            score["possible_share"],
            least - spread,
            "share of axion images that a vortex of allowed mass fits to 3 %",
        )


def _potential_fit(results: Results, row: str, survey: str | None) -> Iterator[Check]:
    score = results["potential_fit"]["rows"][row].get("cdm")
    if score is not None:
        meaning = "the residual ratios after a free correction of the potential"
        yield from _distribution("potential fit, cdm", score["against_real"], meaning)
        yield from _distribution(
            "residual power, cdm",
            score["residual_power"],
            "the power spectra of the smooth fit's residuals",
        )


def _free_fit(results: Results, row: str, survey: str | None) -> Iterator[Check]:
    score = results["free_fit"]["rows"][row].get("no_sub")
    if score is not None:
        for quantity in ("bias", "scatter"):
            yield _at_most(
                f"free fit, no_sub: theta_E {quantity}",
                abs(score["theta_e"][f"{quantity}_percent"]),
                THETA_E_PERCENT,
                f"{quantity} of the fitted Einstein radius in per cent",
            )


def _shapes(results: Results, row: str, survey: str | None) -> Iterator[Check]:
    for group, quantities in results["shapes"]["rows"][row].items():
        distances = {
            name: shape["z"]
            for name, shape in quantities.items()
            if shape and shape["z"] is not None
        }
        if distances:
            # A NaN counts as largest.
            largest = list(distances)[int(np.argmax(list(distances.values())))]
            yield _at_most(
                f"shapes, {group}: {largest.replace('_', ' ')}",
                distances[largest],
                MOST_Z,
                f"the largest of {len(distances)} distances from real distributions, in s.d. above "
                "its floor",
            )


def _classes(results: Results, row: str, survey: str | None) -> Iterator[Check]:
    for level, score in results["classes"]["rows"][row].items():
        yield _at_least(
            f"classes, {level}: shares",
            score["share_p"],
            LEAST_P,
            "probability of these shares of predicted classes if the images were real",
        )
        if score.get("accuracy_p") is not None:
            yield _at_least(
                f"classes, {level}: accuracy",
                score["accuracy_p"],
                LEAST_P,
                f"probability of this accuracy, {score['accuracy']:.3f}, if the images were real "
                f"({score['real_accuracy']:.3f}); a higher one is a fault too",
            )


def _taught(results: Results, row: str, survey: str | None) -> Iterator[Check]:
    for level, score in results["taught"]["rows"][row].items():
        yield _at_least(
            f"taught, {level}: accuracy",
            score["p"],
            LEAST_P,
            f"probability of an accuracy on real images as low as {score['accuracy']:.3f} if the "
            f"images trained on were real ({score['real_accuracy']:.3f} +- "
            f"{score['real_accuracy_deviation']:.3f} between training runs)",
        )


def _c2st(results: Results, row: str, survey: str | None) -> Iterator[Check]:
    for level, score in results["c2st"]["rows"][row].items():
        goal = C2ST_GOALS.get(level)
        if goal is None:
            continue
        meaning = (
            f"accuracy of a network that tells generated from real; on the control it reaches "
            f"{score['control_accuracy']:.2f}"
        )
        # Two standard errors allow for chance.
        limit = goal + 2 * score["error"]
        check = _at_most(f"two-sample network, {level}", score["accuracy"], limit, meaning)
        # An accuracy above its goal counts with or without a control.
        if check.outcome == "met" and not score["has_power"]:
            check = check._replace(outcome="no power")
        yield check


def _features(results: Results, row: str, measure: str) -> Iterator[Check]:
    for level, groups in results[measure]["rows"][row].items():
        for group, score in groups.items():
            if score.get("z") is None:
                continue
            yield _at_most(
                f"{measure.replace('_', ' ')}, {level}, {group}: Frechet distance",
                score["z"],
                MOST_FRECHET_Z,
                f"distance {score['frechet']:.3g}, of real images {score['floor_mean']:.3g} +- "
                f"{score['floor_sd']:.2g}; the number is (distance - floor) / its s.d.",
            )


def _twins(results: Results, row: str, survey: str | None) -> Iterator[Check]:
    for group, score in results["twins"]["rows"][row].items():
        yield _at_least(
            f"twins, {group}",
            score["p_value"],
            LEAST_P,
            f"probability of {score['num_twins']} images with a twin if they were real",
        )


def _copies(results: Results, row: str, measure: str) -> Iterator[Check]:
    for group, score in results[measure]["rows"][row].items():
        subject = "images" if measure == "copies" else "residuals"
        check = _at_least(
            f"{measure.replace('_', ' ')}, {group}",
            score["p"],
            LEAST_P,
            f"probability of so many {subject} so near to training ones if none was memorised",
        )
        blind = check.outcome == "met" and score.get("verdict") == "no power"
        yield check._replace(outcome="no power") if blind else check


def _hole(results: Results, row: str, survey: str | None) -> Iterator[Check]:
    for group, score in results["hole"]["rows"][row].items():
        yield _at_least(
            f"hole, {group}: density",
            score["density_high"],
            1.0,
            "upper bound of the density of sources where training had none; 1 in the simulator",
        )


def check_row(results: Results, row: str, survey: str | None) -> list[Check]:
    """The checks of one row, in the order of the measures.

    Args:
      results: each measure's results by its name.
      row: the name of the row.
      survey: the DeepLense model; None for the user's own images.
    """
    checks: list[Check] = []
    for measure in MEASURES:
        if row in results.get(measure, {}).get("rows", {}):
            checks.extend(_CHECKS[measure](results, row, survey))
    return checks


_CHECKS = {
    "smooth_fit": _smooth_fit,
    "axion_fit": _axion_fit,
    "potential_fit": _potential_fit,
    "free_fit": _free_fit,
    "shapes": _shapes,
    "classes": _classes,
    "taught": _taught,
    "c2st": _c2st,
    "lens_features": lambda results, row, survey: _features(results, row, "lens_features"),
    "inception": lambda results, row, survey: _features(results, row, "inception"),
    "twins": _twins,
    "copies": lambda results, row, survey: _copies(results, row, "copies"),
    "residual_neighbours": lambda results, row, survey: _copies(
        results, row, "residual_neighbours"
    ),
    "hole": _hole,
}
