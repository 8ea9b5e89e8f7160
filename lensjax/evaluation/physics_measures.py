"""Measures by fits of the exact forward model: their residuals and their parameters."""

import functools
import math
import warnings
from typing import Any

import numpy as np

from lensjax.data.simulator import LOG10_AXION_MASS_RANGE, SOURCE_POSITION_LIMIT
from lensjax.devices.hosts import share_rows
from lensjax.evaluation.physics_goals import THETA_E_PERCENT, faint_limit
from lensjax.evaluation.rows import ALL, Row, Setting
from lensjax.evaluation.shape_measures import beside_real, log_spectra, vectors_beside_real
from lensjax.metrics.axion_fit import fit_axion
from lensjax.metrics.free_fit import TRUTH, FreeFit, fit_free
from lensjax.metrics.lensing import SmoothFit, faint_pixel_rms, uniform_ks_distance
from lensjax.metrics.two_sample import LEVEL, NUM_PERMUTATIONS

POSSIBLE_RATIO = 0.03
# An RMS is taken without the images that are beyond so many times its limit, if there are no more
# of them than this share of all images gives: one image must not decide for all.
OUTLIER_FACTOR, OUTLIER_SHARE = 10.0, 0.01


def _percentiles(ratio: np.ndarray) -> dict[str, float]:
    low, middle, high = np.percentile(ratio, (10, 50, 90))
    return {"ratio_p10": float(low), "ratio_p50": float(middle), "ratio_p90": float(high)}


def _uniform_p(values: np.ndarray, distance: float) -> float:
    """The probability of a KS distance from the prior's uniform distribution."""
    from scipy.stats import kstwo

    return float(kstwo.sf(distance, len(values)))


def largest_ks_of_two(count: int) -> float:
    """The KS distance that the larger of two, of x and of y, exceeds in 1 % of perfect sets."""
    from scipy.stats import kstwo

    return float(kstwo.isf(LEVEL / 2, count))


def _without_few(outliers: np.ndarray) -> np.ndarray:
    """Which images an RMS is taken of, bool `[N]`: all but the outliers, if these are few."""
    from scipy.stats import binom

    count = int(outliers.sum())
    are_few = binom.sf(count - 1, len(outliers), OUTLIER_SHARE) >= LEVEL
    return ~outliers if are_few else np.ones_like(outliers)


def _dark_pixels(row: Row, real: Row) -> dict[str, Any]:
    """The RMS of the dark pixels of no_sub images, and how many images are outliers."""
    images, fitted = row.planes("no_sub"), row.smooth("no_sub").image
    each = np.array(
        [faint_pixel_rms(images[[i]], fitted[[i]]) for i in range(len(images))], np.float64
    )
    theirs = 0.0
    if "no_sub" in real.groups:
        theirs = faint_pixel_rms(real.planes("no_sub"), real.smooth("no_sub").image)
    outliers = each > OUTLIER_FACTOR * faint_limit(theirs)
    kept = _without_few(outliers)
    return {
        "faint_rms_percent": faint_pixel_rms(images[kept], fitted[kept]),
        "faint_outliers": int(outliers.sum()),
    }


def _brightness(row: Row, real: Row, group: str) -> dict[str, Any]:
    """The amplitudes of fits whose brightness is free, and what these fits leave."""
    from scipy.stats import ttest_ind

    fit = row.smooth(group, free_amplitude=True)
    ours = fit.amplitude.astype(np.float64)
    score: dict[str, Any] = {
        f"free_{name}": value for name, value in _percentiles(fit.ratio).items()
    }
    score |= {"brightness": float(ours.mean()), "brightness_sd": float(ours.std())}
    if group not in real.groups:
        return score
    theirs = real.smooth(group, free_amplitude=True).amplitude.astype(np.float64)
    score["real_brightness"] = float(theirs.mean())
    if min(len(ours), len(theirs)) < 2:
        return score
    with warnings.catch_warnings(action="ignore", category=RuntimeWarning):  # no_sub: no spread
        test = ttest_ind(ours, theirs, equal_var=False)  # generated ones may scatter more
        low, high = test.confidence_interval(1 - LEVEL)
    p, by_chance = float(test.pvalue), float(high - low) / 2
    score["brightness_p"] = p if math.isfinite(p) else 1.0
    score["brightness_by_chance"] = by_chance if math.isfinite(by_chance) else 0.0
    return score


def smooth_fit(row: Row, real: Row, setting: Setting) -> dict[str, Any]:
    """The residuals of the best lens without sub-structure, by group."""
    scores: dict[str, Any] = {}
    for group in row.groups:
        fit, images = row.smooth(group), row.planes(group)
        score: dict[str, Any] = {"num_images": len(images), **_percentiles(fit.ratio)}
        if group == "no_sub":
            score |= {
                "ks_x": uniform_ks_distance(fit.source_x),
                "ks_y": uniform_ks_distance(fit.source_y),
                **_dark_pixels(row, real),
            }
            score["p_x"] = _uniform_p(fit.source_x, score["ks_x"])
            score["p_y"] = _uniform_p(fit.source_y, score["ks_y"])
            score["ks_limit"] = largest_ks_of_two(len(images))
        if setting.in_flux:
            score |= _brightness(row, real, group)
        if group != "no_sub" and group in real.groups:
            theirs, seed = real.smooth(group).ratio, setting.settings.seed
            score["against_real"] = beside_real(theirs, fit.ratio, seed)
        scores[group] = score
    return scores


def axion_fit(row: Row, real: Row, setting: Setting) -> dict[str, Any]:
    """The share of axion images that a vortex of allowed mass explains."""
    images, survey = row.planes("axion"), setting.survey
    assert survey is not None
    if not len(images):
        return {}
    conserved = setting.simulated is not None and setting.simulated.conserved
    free = not setting.in_flux
    fit_fn = functools.partial(fit_axion, survey=survey, conserved=conserved, free_amplitude=free)
    fit = share_rows(fit_fn, images)
    low, high = LOG10_AXION_MASS_RANGE
    allowed = (fit.log10_axion_mass >= low) & (fit.log10_axion_mass <= high)
    possible = allowed & (fit.ratio < POSSIBLE_RATIO)
    return {
        "axion": {
            "num_images": len(images),
            **_percentiles(fit.ratio),
            "possible_share": float(possible.mean()),
            "in_mass_range_share": float(allowed.mean()),
            "log10_axion_mass_p50": float(np.median(fit.log10_axion_mass)),
        }
    }


def potential_fit(row: Row, real: Row, setting: Setting) -> dict[str, Any]:
    """The residuals of cdm images after a free correction of the potential."""
    if "cdm" not in row.groups or "cdm" not in real.groups:
        return {}
    ratio, real_ratio = row.potential_ratio("cdm"), real.potential_ratio("cdm")
    real_powers, powers = (log_spectra(fitted.residuals("cdm")) for fitted in (real, row))
    seed = setting.settings.seed
    return {
        "cdm": {
            "num_images": len(row.planes("cdm")),
            **_percentiles(ratio),
            "against_real": beside_real(real_ratio, ratio, seed),
            "residual_power": vectors_beside_real(real_powers, powers, seed, NUM_PERMUTATIONS),
        }
    }


def free_fit(row: Row, real: Row, setting: Setting) -> dict[str, Any]:
    """The lens of each group's images, fitted with only the source's shape known."""
    survey = setting.survey
    assert survey is not None

    def fit_fn(images: np.ndarray, smooth: SmoothFit) -> FreeFit:
        return fit_free(images, survey, smooth, free_amplitude=not setting.in_flux)

    scores: dict[str, Any] = {}
    for group in row.groups:
        fit = share_rows(fit_fn, row.planes(group), row.smooth(group))
        score: dict[str, Any] = {"num_images": len(fit.ratio), **_percentiles(fit.ratio)}
        for name, truth in TRUTH.items():
            values = getattr(fit, name)
            bias = float(np.median(values) - truth)
            score[name] = {"bias": bias, "scatter": float(np.std(values))}
            if name == "theta_e":
                far = np.abs(values - truth - bias) > OUTLIER_FACTOR * THETA_E_PERCENT / 100 * truth
                scatter = float(np.std(values[_without_few(far)]))
                score[name] |= {"scatter": scatter, "outliers": int(far.sum())}
                score[name]["bias_percent"] = 100 * bias / truth
                score[name]["scatter_percent"] = 100 * scatter / truth
        scores[group] = score
    return scores


def protocol(setting: Setting) -> dict[str, Any]:
    """The settings that the numbers of every fit depend on."""
    survey = setting.survey
    return {
        "ratio": "RMS(image - fit) / RMS(image)",
        "amplitude": "fixed" if setting.in_flux else "free: flux is not tested",
        "forward_model": survey.name if survey else None,
        "prior_of_the_source": f"uniform(-{SOURCE_POSITION_LIMIT}, {SOURCE_POSITION_LIMIT}) arcsec",
        "groups": f"classes; '{ALL}' for images without labels",
    }
