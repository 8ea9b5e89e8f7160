"""Goals of the measures that fit the forward model; see `goals`."""

import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from lensjax.evaluation.goals import Check, Results, goal, kept, probable, too_few
from lensjax.metrics.two_sample import LEVEL

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
    yield kept(
        "smooth fit, no_sub: median ratio",
        score["ratio_p50"],
        SHARE_OF_CDM_SIGNAL * signal,
        "residual of the best lens without sub-structure; the limit is a tenth of the cdm signal",
        num_images,
    )
    yield kept(
        "smooth fit, no_sub: dark pixels",
        score["faint_rms_percent"],
        faint_limit(rows["real"]["no_sub"]["faint_rms_percent"]),
        "RMS of pixels below 0.1 % of the peak, in per cent of the peak; limit: twice the real one"
        + _outliers(score.get("faint_outliers", 0)),
        num_images,
    )
    lowest = float(np.minimum(score["p_x"], score["p_y"]))  # min() would lose a NaN
    yield probable(
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
        return too_few(name, num_images)
    return goal(
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
        return too_few(name, score["num_images"])
    deviation = 100 * abs(score["brightness"] - score["real_brightness"])
    by_chance = 100 * score["brightness_by_chance"]
    p = score["brightness_p"] if math.isfinite(deviation) else 0.0
    return goal(
        name,
        deviation,
        max(BRIGHTNESS_PERCENT, by_chance),
        1.0 if deviation <= BRIGHTNESS_PERCENT else p,
        f"deviation of the mean brightness, {score['brightness']:.4f}, from the real one, "
        f"{score['real_brightness']:.4f}, in per cent",
        has_power=by_chance <= MOST_BY_CHANCE_PERCENT,
    )


def smooth_fit(results: Results, row: str, survey: str | None) -> Iterator[Check]:
    """Goals of the fit without sub-structure: residuals, dark pixels, positions, brightness."""
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


def axion_fit(results: Results, row: str, survey: str | None) -> Iterator[Check]:
    """The goal of the share of axion images that a vortex explains."""
    from scipy.stats import binom

    score = results["axion_fit"]["rows"][row].get("axion")
    if score is not None:
        count, least = score["num_images"], LEAST_POSSIBLE_AXIONS
        share = score["possible_share"]
        possible = round(share * count) if math.isfinite(share) else -1
        yield goal(
            "axion fit: possible images",
            share,
            float(binom.ppf(LEVEL, count, least)) / count,
            float(binom.cdf(possible, count, least)),
            "share of axion images that a vortex of allowed mass fits to 3 %; fewer than the limit "
            f"are rare where the share of all images is {least:g}",
            bound="at least",
            has_power=bool(binom.cdf(count // 2, count, least) < LEVEL),
        )


def potential_fit(results: Results, row: str, survey: str | None) -> Iterator[Check]:
    """Goals of what a free correction of the potential leaves of cdm images."""
    score = results["potential_fit"]["rows"][row].get("cdm")
    if score is not None:
        count = score["num_images"]
        meaning = "the residual ratios after a free correction of the potential"
        yield _distribution("potential fit, cdm", count, score["against_real"], meaning)
        meaning = "the power spectra of the smooth fit's residuals"
        yield _distribution("residual power, cdm", count, score["residual_power"], meaning)


def free_fit(results: Results, row: str, survey: str | None) -> Iterator[Check]:
    """Goals of the fitted Einstein radius."""
    score = results["free_fit"]["rows"][row].get("no_sub")
    if score is not None:
        for quantity in ("bias", "scatter"):
            yield kept(
                f"free fit, no_sub: theta_E {quantity}",
                abs(score["theta_e"][f"{quantity}_percent"]),
                THETA_E_PERCENT,
                f"{quantity} of the fitted Einstein radius in per cent"
                + _outliers(score["theta_e"].get("outliers", 0) if quantity == "scatter" else 0),
                score["num_images"],
            )
