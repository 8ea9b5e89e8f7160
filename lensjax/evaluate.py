"""`--mode=evaluate`: generated images beside real ones, judged by the exact forward model."""

import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from absl import logging

from lensjax import workdir as files
from lensjax.config import Config, ConfigError
from lensjax.data.catalogue import SIMULATED_SETS, SimulatedSet
from lensjax.data.dataset import LensSplit, first_of_each_class
from lensjax.data.simulator import CLASS_NAMES
from lensjax.figures import lens_grid, save_png
from lensjax.generate import load_with_config
from lensjax.metrics.lensing import smooth_scores
from lensjax.sample_mode import describe

# Above this median ratio an error exceeds what cdm sub-structure does to a Model II image. For the
# other models the real images of the run say it.
CDM_SIGNAL_MODEL_II = 0.076
# What images must reach to be worth looking at; an image that fails shows it to the eye.
PASS_LIMITS = {
    "ratio_p50": 0.08,
    "ratio_p90": 0.13,
    "ks_x": 0.20,
    "ks_y": 0.20,
    "faint_rms_percent": 0.3,
}
Scores = Mapping[str, Mapping[str, Mapping[str, float]]]


def failures(no_sub: Mapping[str, float]) -> list[str]:
    """Returns a line for each limit of `PASS_LIMITS` that the `no_sub` scores exceed."""
    return [
        f"{name} is {no_sub[name]:.3f}, the limit is {limit:g}"
        for name, limit in PASS_LIMITS.items()
        if not no_sub[name] <= limit
    ]


def _table(scores: Scores) -> str:
    row = "{:8}{:11}{:>12}{:>12}{:>10}{:>8}{:>14}"
    lines = [
        f"{'':19}{'left by the best smooth lens':>28}{'source position':>18}{'dark pixels':>14}",
        row.format("class", "images", "median", "90 % below", "KS x", "KS y", "RMS / peak"),
        "-" * 79,
    ]
    for class_name, kinds in scores.items():
        for kind, score in kinds.items():
            cells = [class_name, kind, f"{score['ratio_p50']:.3f}", f"{score['ratio_p90']:.3f}"]
            if class_name == "no_sub":  # the source position means nothing where the fit is wrong
                cells += [f"{score['ks_x']:.2f}", f"{score['ks_y']:.2f}"]
                cells += [f"{score['faint_rms_percent']:.3f} %"]
            lines.append(row.format(*cells, *[""] * (7 - len(cells))).rstrip())
    return "\n".join(lines)


def _verdict(failed: list[str], median: float, cdm_signal: float) -> str:
    if failed:
        return "FAILED: for no_sub " + "; ".join(failed) + ". Train longer or on an accelerator."
    if median > cdm_signal:
        meaning = f"above {cdm_signal:.3f} the error exceeds the cdm signal"
    else:
        meaning = f"the median error is {median:.3f}, the cdm signal {cdm_signal:.3f}"
    return (
        f"PASSED as pictures of lenses: {meaning}: these are for looking, not for dark-matter "
        "work; train longer or on an accelerator."
    )


def _explain(num_images: int) -> str:
    return f"""
Each of {num_images} images a class is fitted by the exact simulator's lens without sub-structure;
the number is RMS(image - fit) / RMS(image). For no_sub it should be 0, for cdm and axion
that of real images: lower is as wrong as higher. KS is the distance of the fitted source
positions from their prior (0.17 or less for 95 % of sets of 64 perfect images); dark pixels
are those below 0.1 % of the peak.
"""


def _scores(generated: list[np.ndarray], real: list[np.ndarray], simulated: SimulatedSet) -> Scores:
    smooth_first = reversed(list(enumerate(CLASS_NAMES)))  # no_sub, cdm, axion
    return {
        name: {
            kind: smooth_scores(images[label][..., 0], simulated.survey)
            for kind, images in (("generated", generated), ("real", real))
        }
        for label, name in smooth_first
    }


def evaluate_mode(config: Config, folder: pathlib.Path) -> None:
    """Draws images, scores them beside the test split, prints the table and writes the numbers.

    Raises:
      ConfigError: for a set with noise or conserved mass or of files, which the smooth fit does not
        describe, or for more images than the test split has.
    """
    from lensjax.data import deeplense

    simulated = SIMULATED_SETS.get(config.data.name)
    if simulated is None or simulated.noisy or simulated.conserved:
        raise ConfigError(
            "data.name",
            config.data.name,
            "allowed for --mode=evaluate: the noise-free sets of Models I, II and III",
        )
    available = simulated.images_per_class["test"]
    if config.evaluate.num_images > available:
        raise ConfigError(
            "evaluate.num_images",
            config.evaluate.num_images,
            f"allowed: at most the {available} images a class in the test split",
        )
    generator = load_with_config(folder, config)
    split: LensSplit = deeplense.read(config.data.name, config.data.directory, "test")
    count = config.evaluate.num_images
    real = first_of_each_class(split, count)
    num_classes = split.info.num_classes
    logging.info("drawing %d images a class at step %d", count, generator.step)
    images = generator.generate(None, num_classes * count, config.sample.seed)
    generated = [images[label::num_classes] for label in range(num_classes)]
    scores = _scores(generated, real, simulated)

    failed = failures(scores["no_sub"]["generated"])
    model_ii = simulated.survey.name == "model_ii"
    cdm_signal = CDM_SIGNAL_MODEL_II if model_ii else scores["cdm"]["real"]["ratio_p50"]
    verdict = _verdict(failed, scores["no_sub"]["generated"]["ratio_p50"], cdm_signal)
    print(_table(scores) + _explain(count) + "\n" + verdict, flush=True)
    target = folder / files.EVALUATION
    protocol: dict[str, Any] = describe(generator, config.sample)
    protocol |= {"num_images": num_classes * count, "split": "test", "data": split.info.name}
    content = {"lensing": scores, "verdict": verdict, "failed": failed, "protocol": protocol}
    files.write_json(target / "metrics.json", content)
    columns = config.sample.grid_columns
    picture = lens_grid(
        [rows[:columns] for rows in generated],
        split.info.class_names,
        [rows[:columns] for rows in real],
    )
    save_png(target / "grid.png", picture)
    logging.info("numbers: %s; picture: %s", target / "metrics.json", target / "grid.png")
