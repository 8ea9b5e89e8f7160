"""Goals that the measured numbers meet or miss.

A check compares one number of one row with a limit, which depends on how many images are judged:
fresh images of the simulator are beyond the limit of a goal in at most 1 % of all cases, and miss
any goal of a report in at most 5 % (Holm 1979). At least one known fault of
`metrics/corruptions.py` breaks it.
"""

import math
from collections.abc import Callable, Iterator, Mapping

from lensjax.config.evaluate import MEASURES
from lensjax.evaluation import physics_goals
from lensjax.evaluation.goals import NO_POWER, Check, Results, decided, goal, probable, too_few
from lensjax.metrics.two_sample import LEVEL, MIN_COUNT

# Accuracy of a network that tells generated from real, by source magnitude.
C2ST_GOALS = {"magnitude 23": 0.55, "magnitude 20": 0.60}


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
        yield goal(
            f"shapes, {group}: {largest['name'].replace('_', ' ')}",
            largest["z"],
            largest["limit"],
            largest["p"],
            f"the largest of {len(quantities) - 1} distances from real distributions, in s.d. of "
            "permutations of all these images; the limit is that of the largest in permutations",
        )


def _classes(results: Results, row: str, survey: str | None) -> Iterator[Check]:
    for level, score in results["classes"]["rows"][row].items():
        yield probable(
            f"classes, {level}: shares",
            score["share_p"],
            "probability of these shares of predicted classes if the images were real",
            has_power=score["share_has_power"],
        )
        if score.get("accuracy_p") is not None:
            yield probable(
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
            yield too_few(name, score["num_images"])
            continue
        yield probable(
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
        allowed = C2ST_GOALS.get(level)
        if allowed is None:
            continue
        name = f"two-sample network, {level}"
        if "accuracy" not in score:
            yield too_few(name, score["num_images"])
            continue
        yield goal(
            name,
            score["accuracy"],
            allowed + norm.isf(LEVEL) * score["error"],
            float(norm.sf((score["accuracy"] - allowed) / score["error"])),
            f"accuracy of a network that tells generated from real, {allowed:g} and its error; on "
            f"the control it reaches {score['control_accuracy']:.2f}",
            has_power=score["has_power"],  # an accuracy above its goal counts without it
        )


def _features(results: Results, row: str, measure: str) -> Iterator[Check]:
    for level, groups in results[measure]["rows"][row].items():
        for group, score in groups.items():
            name = f"{measure.replace('_', ' ')}, {level}, {group}: Frechet distance"
            if "z" not in score:
                yield too_few(name, score["num_images"])
                continue
            yield goal(
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
            yield too_few(f"twins, {group}", score["num_images"])
            continue
        yield probable(
            f"twins, {group}",
            score["p_value"],
            f"probability of {score['num_twins']} images with a twin if they were real",
            has_power=score["has_power"],
        )


def _copies(results: Results, row: str, measure: str) -> Iterator[Check]:
    for group, score in results[measure]["rows"][row].items():
        subject = "images" if measure == "copies" else "residuals"
        yield probable(
            f"{measure.replace('_', ' ')}, {group}",
            score["p"],
            f"probability of so many {subject} so near to training ones if none was memorised",
            has_power=score["verdict"] != NO_POWER,
        )


def _hole(results: Results, row: str, survey: str | None) -> Iterator[Check]:
    for group, score in results["hole"]["rows"][row].items():
        yield probable(
            f"hole, {group}: density",
            score["p_value"],
            f"probability of so few sources where training had none; their density is "
            f"{score['density']:.2f}, 1 in the simulator",
            has_power=score["verdict"] != NO_POWER,
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
    return decided(checks)


_CHECKS: Mapping[str, Callable[[Results, str, str | None], Iterator[Check]]] = {
    "smooth_fit": physics_goals.smooth_fit,
    "axion_fit": physics_goals.axion_fit,
    "potential_fit": physics_goals.potential_fit,
    "free_fit": physics_goals.free_fit,
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
