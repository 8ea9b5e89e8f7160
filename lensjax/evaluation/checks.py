"""Goals that the measured numbers meet or miss.

A check compares one number of one row with a limit, which depends on how many images are judged:
fresh images of the simulator are beyond the limit of a goal in at most 1 % of all cases, and miss
any goal of a report in at most 5 % (Holm 1979). At least one known fault of
`metrics/corruptions.py` breaks it.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from lensjax.config.evaluate import MEASURES
from lensjax.metrics.two_sample import LEVEL, MIN_COUNT

MET, UNCLEAR, MISSED, NO_POWER = "met", "unclear", "missed", "no power"
# All goals of a report together.
REPORT_LEVEL = 0.05
# The median of fewer images says nothing: if half of all images were bad, so few would all be good
# in more than 1 % of the cases.
LEAST_FOR_MEDIAN = math.ceil(math.log2(1 / LEVEL))
# The residual ratio that a perfect image may have, as a share of the cdm signal.
SHARE_OF_CDM_SIGNAL = 0.1
# The median ratio of real cdm images of Model II; for other sets it is measured.
CDM_SIGNAL_MODEL_II = 0.076
LEAST_POSSIBLE_AXIONS = 0.95
THETA_E_PERCENT = 0.2
# Deviation of the mean brightness from the real one; where so few images leave more than this to
# chance, the test has no power.
BRIGHTNESS_PERCENT, MOST_BY_CHANCE_PERCENT = 0.3, 2.0
# A test of positions has power if it finds sources in one half of the square alone.
HALF_OF_THE_SQUARE = 0.5
# Accuracy of a network that tells generated from real, by source magnitude.
C2ST_GOALS = {"magnitude 23": 0.55, "magnitude 20": 0.60}
Results = Mapping[str, Mapping[str, Any]]


class Check(NamedTuple):
    """One goal and its outcome.

    Attributes:
      name: measure, group and quantity.
      value: the number.
      limit: the bound that the number should keep, at this number of images.
      outcome: `met`; `missed`; `unclear`, beyond the limit as one goal of so many may be by chance;
        or `no power`, where too few images, or a measure that does not see its control, cannot
        show a fault.
      meaning: the number and the limit in words.
      bound: whether the number should be `at most` or `at least` the limit.
      p: probability of a number at least as bad if the images were perfect; None where it was not
        measured. 0 or 1 where perfect images always keep the limit.
    """

    name: str
    value: float
    limit: float
    outcome: str
    meaning: str
    bound: str = "at most"
    p: float | None = None


def _goal(
    name: str,
    value: float,
    limit: float,
    p: float,
    meaning: str,
    *,
    bound: str = "at most",
    has_power: bool = True,
) -> Check:
    """A goal that may have been met or missed; `check_row` decides between the two."""
    blind = p >= LEVEL and not has_power
    return Check(name, value, limit, NO_POWER if blind else "", meaning, bound, p)


def _kept(name: str, value: float, limit: float, meaning: str, num_images: int) -> Check:
    """A limit that perfect images always keep."""
    p = 1.0 if value <= limit else 0.0
    return _goal(name, value, limit, p, meaning, has_power=num_images >= LEAST_FOR_MEDIAN)


def _probable(name: str, p: float, meaning: str, *, has_power: bool = True) -> Check:
    """A goal whose number is a probability."""
    return _goal(name, p, LEVEL, p, meaning, bound="at least", has_power=has_power)


def _too_few(name: str, num_images: int) -> Check:
    return Check(name, math.nan, math.nan, NO_POWER, f"{num_images} images are too few to tell")


def cdm_signal(results: Results, survey: str | None) -> float:
    """The median ratio of real cdm images to the lens without sub-structure."""
    if survey == "model_ii":
        return CDM_SIGNAL_MODEL_II
    rows = results["smooth_fit"].get("rows", {})
    return rows.get("real", {}).get("cdm", {}).get("ratio_p50", math.nan)


def faint_limit(real_percent: float) -> float:
    """The highest RMS of dark pixels, in per cent of the peak, beside that of real images."""
    return max(2 * real_percent, 0.02)


def _outliers(count: int) -> str:
    return f"; {count} image{'s' * (count != 1)} far beyond it" if count else ""


def _no_sub(rows: Results, row: str, signal: float) -> Iterator[Check]:
    score = rows[row].get("no_sub")
    if score is None:
        return
    num_images = score["num_images"]
    yield _kept(
        "smooth fit, no_sub: median ratio",
        score["ratio_p50"],
        SHARE_OF_CDM_SIGNAL * signal,
        "residual of the best lens without sub-structure; the limit is a tenth of the cdm signal",
        num_images,
    )
    yield _kept(
        "smooth fit, no_sub: dark pixels",
        score["faint_rms_percent"],
        faint_limit(rows["real"]["no_sub"]["faint_rms_percent"]),
        "RMS of pixels below 0.1 % of the peak, in per cent of the peak; limit: twice the real one"
        + _outliers(score.get("faint_outliers", 0)),
        num_images,
    )
    lowest = float(np.minimum(score["p_x"], score["p_y"]))  # min() would lose a NaN
    yield _probable(
        "smooth fit, no_sub: source positions",
        float(np.minimum(1, 2 * lowest)),
        "probability of such positions if they were uniform, as in the simulator (KS of x and y)",
        has_power=score["ks_limit"] <= HALF_OF_THE_SQUARE,
    )


def _distribution(
    name: str, num_images: int, compared: Mapping[str, Any] | None, meaning: str
) -> Check:
    """Checks the distance of a distribution from that of real images."""
    if compared is None:
        return _too_few(name, num_images)
    return _goal(
        name,
        compared["z"],
        compared["wasserstein_limit"],
        compared["wasserstein_p"],
        f"distance from the real distribution of {meaning}, in s.d. above its floor; the limit is "
        "that of permutations of all these images",
    )


def _brightness(group: str, score: Mapping[str, Any]) -> Check:
    name = f"smooth fit, {group}: brightness"
    if "brightness_p" not in score:
        return _too_few(name, score["num_images"])
    deviation = 100 * abs(score["brightness"] - score["real_brightness"])
    by_chance = 100 * score["brightness_by_chance"]
    p = score["brightness_p"] if math.isfinite(deviation) else 0.0
    return _goal(
        name,
        deviation,
        max(BRIGHTNESS_PERCENT, by_chance),
        1.0 if deviation <= BRIGHTNESS_PERCENT else p,
        f"deviation of the mean brightness, {score['brightness']:.4f}, from the real one, "
        f"{score['real_brightness']:.4f}, in per cent",
        has_power=by_chance <= MOST_BY_CHANCE_PERCENT,
    )


def _smooth_fit(results: Results, row: str, survey: str | None) -> Iterator[Check]:
    rows = results["smooth_fit"]["rows"]
    yield from _no_sub(rows, row, cdm_signal(results, survey))
    for group, score in rows[row].items():
        if "real_brightness" in score:
            yield _brightness(group, score)
        if "against_real" in score:
            yield _distribution(
                f"smooth fit, {group}: ratios",
                score["num_images"],
                score["against_real"],
                "the residual ratios of the smooth fit",
            )


def _axion_fit(results: Results, row: str, survey: str | None) -> Iterator[Check]:
    from scipy.stats import binom

    score = results["axion_fit"]["rows"][row].get("axion")
    if score is not None:
        count, least = score["num_images"], LEAST_POSSIBLE_AXIONS
        share = score["possible_share"]
        possible = round(share * count) if math.isfinite(share) else -1
        yield _goal(
            "axion fit: possible images",
            share,
            float(binom.ppf(LEVEL, count, least)) / count,
            float(binom.cdf(possible, count, least)),
            "share of axion images that a vortex of allowed mass fits to 3 %; fewer than the limit "
            f"are rare where the share of all images is {least:g}",
            bound="at least",
            has_power=bool(binom.cdf(count // 2, count, least) < LEVEL),
        )


def _potential_fit(results: Results, row: str, survey: str | None) -> Iterator[Check]:
    score = results["potential_fit"]["rows"][row].get("cdm")
    if score is not None:
        count = score["num_images"]
        meaning = "the residual ratios after a free correction of the potential"
        yield _distribution("potential fit, cdm", count, score["against_real"], meaning)
        meaning = "the power spectra of the smooth fit's residuals"
        yield _distribution("residual power, cdm", count, score["residual_power"], meaning)


def _free_fit(results: Results, row: str, survey: str | None) -> Iterator[Check]:
    score = results["free_fit"]["rows"][row].get("no_sub")
    if score is not None:
        for quantity in ("bias", "scatter"):
            yield _kept(
                f"free fit, no_sub: theta_E {quantity}",
                abs(score["theta_e"][f"{quantity}_percent"]),
                THETA_E_PERCENT,
                f"{quantity} of the fitted Einstein radius in per cent"
                + _outliers(score["theta_e"].get("outliers", 0) if quantity == "scatter" else 0),
                score["num_images"],
            )


def _shapes(results: Results, row: str, survey: str | None) -> Iterator[Check]:
    for group, quantities in results["shapes"]["rows"][row].items():
        if not quantities:
            yield Check(
                f"shapes, {group}",
                math.nan,
                math.nan,
                NO_POWER,
                f"fewer than {MIN_COUNT} images are too few to tell",
            )
            continue
        largest = quantities["largest"]
        yield _goal(
            f"shapes, {group}: {largest['name'].replace('_', ' ')}",
            largest["z"],
            largest["limit"],
            largest["p"],
            f"the largest of {len(quantities) - 1} distances from real distributions, in s.d. of "
            "permutations of all these images; the limit is that of the largest in permutations",
        )


def _classes(results: Results, row: str, survey: str | None) -> Iterator[Check]:
    for level, score in results["classes"]["rows"][row].items():
        yield _probable(
            f"classes, {level}: shares",
            score["share_p"],
            "probability of these shares of predicted classes if the images were real",
            has_power=score["share_has_power"],
        )
        if score.get("accuracy_p") is not None:
            yield _probable(
                f"classes, {level}: accuracy",
                score["accuracy_p"],
                f"probability of this accuracy, {score['accuracy']:.3f}, if the images were real "
                f"({score['real_accuracy']:.3f}); a higher one is a fault too",
                has_power=score["accuracy_has_power"],
            )


def _taught(results: Results, row: str, survey: str | None) -> Iterator[Check]:
    for level, score in results["taught"]["rows"][row].items():
        name = f"taught, {level}: accuracy"
        if "p" not in score:
            yield _too_few(name, score["num_images"])
            continue
        yield _probable(
            name,
            score["p"],
            f"probability of an accuracy on real images as low as {score['accuracy']:.3f} if the "
            f"images trained on were real ({score['real_accuracy']:.3f} +- "
            f"{score['real_accuracy_deviation']:.3f} between training runs)",
            has_power=score["has_power"],
        )


def _c2st(results: Results, row: str, survey: str | None) -> Iterator[Check]:
    from scipy.stats import norm

    for level, score in results["c2st"]["rows"][row].items():
        goal = C2ST_GOALS.get(level)
        if goal is None:
            continue
        name = f"two-sample network, {level}"
        if "accuracy" not in score:
            yield _too_few(name, score["num_images"])
            continue
        yield _goal(
            name,
            score["accuracy"],
            goal + norm.isf(LEVEL) * score["error"],
            float(norm.sf((score["accuracy"] - goal) / score["error"])),
            f"accuracy of a network that tells generated from real, {goal:g} and its error; on the "
            f"control it reaches {score['control_accuracy']:.2f}",
            has_power=score["has_power"],  # an accuracy above its goal counts without it
        )


def _features(results: Results, row: str, measure: str) -> Iterator[Check]:
    for level, groups in results[measure]["rows"][row].items():
        for group, score in groups.items():
            name = f"{measure.replace('_', ' ')}, {level}, {group}: Frechet distance"
            if "z" not in score:
                yield _too_few(name, score["num_images"])
                continue
            yield _goal(
                name,
                score["z"],
                score["z_limit"],
                score["p"],
                f"distance {score['frechet']:.3g}, of real images {score['floor_mean']:.3g} +- "
                f"{score['floor_sd']:.2g}; the number is (distance - floor) / its s.d.",
                has_power=score["has_power"],
            )


def _twins(results: Results, row: str, survey: str | None) -> Iterator[Check]:
    for group, score in results["twins"]["rows"][row].items():
        if "p_value" not in score:
            yield _too_few(f"twins, {group}", score["num_images"])
            continue
        yield _probable(
            f"twins, {group}",
            score["p_value"],
            f"probability of {score['num_twins']} images with a twin if they were real",
            has_power=score["has_power"],
        )


def _copies(results: Results, row: str, measure: str) -> Iterator[Check]:
    for group, score in results[measure]["rows"][row].items():
        subject = "images" if measure == "copies" else "residuals"
        yield _probable(
            f"{measure.replace('_', ' ')}, {group}",
            score["p"],
            f"probability of so many {subject} so near to training ones if none was memorised",
            has_power=score["verdict"] != NO_POWER,
        )


def _hole(results: Results, row: str, survey: str | None) -> Iterator[Check]:
    for group, score in results["hole"]["rows"][row].items():
        yield _probable(
            f"hole, {group}: density",
            score["p_value"],
            f"probability of so few sources where training had none; their density is "
            f"{score['density']:.2f}, 1 in the simulator",
            has_power=score["verdict"] != NO_POWER,
        )


def _decided(checks: Sequence[Check]) -> list[Check]:
    """Says of each goal whether it is met or missed, all goals together (Holm 1979)."""
    values = [check.p if check.p is not None and check.p >= 0 else 0.0 for check in checks]
    tested = [place for place, check in enumerate(checks) if check.p is not None]
    missed: set[int] = set()
    for rank, place in enumerate(sorted(tested, key=lambda place: values[place])):
        if values[place] >= LEVEL or values[place] > REPORT_LEVEL / (len(tested) - rank):
            break
        missed.add(place)

    def outcome(place: int, check: Check) -> str:
        if place in missed:
            return MISSED
        return check.outcome or (MET if values[place] >= LEVEL else UNCLEAR)

    return [check._replace(outcome=outcome(place, check)) for place, check in enumerate(checks)]


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
    return _decided(checks)


_CHECKS: Mapping[str, Callable[[Results, str, str | None], Iterator[Check]]] = {
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
