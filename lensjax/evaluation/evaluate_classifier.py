"""`--mode=evaluate` of a classifier: test scores with and without noise, beside a baseline."""

import dataclasses
import functools
import json
import pathlib
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from absl import logging

from lensjax.config import Config, DataConfig
from lensjax.data.augmentation import central_cut_out
from lensjax.data.catalogue import SIMULATED_SETS
from lensjax.data.dataset import LensSplit, Split
from lensjax.data.subset import SubsetSplit
from lensjax.devices.hosts import is_main, share_rows
from lensjax.evaluation import classifier_pictures as pictures
from lensjax.evaluation.cache import cached_json
from lensjax.evaluation.filling import fill_masked
from lensjax.evaluation.noise_levels import AS_THEY_ARE, MAGNITUDES, behind_noise
from lensjax.evaluation.page import Picture, write_page
from lensjax.evaluation.real import first_places
from lensjax.evaluation.results import new_results, results_folder
from lensjax.evaluation.tables import Table, plain
from lensjax.files.atomic import write_json
from lensjax.files.cache_folder import cache_folder
from lensjax.inference.classifier import LensClassifier, load_classifier
from lensjax.inference.describe import weights_hash
from lensjax.metrics.classification import RocCurve, Scores, reliability, roc_curves, score
from lensjax.metrics.ring_radius import RadiusClassifier, fit_ring_radius
from lensjax.run import datasets, provenance
from lensjax.run.figures import save_png
from lensjax.run.writers import show

CONSERVED_SET = "deeplense/model_ii_conserved"
_BASELINE = "the ring's radius alone"
# Images a class for the baseline; fitting a radius takes longer than running a network.
_BASELINE_IMAGES = 1_000
_NOT_FOR = (
    "images of an instrument, lens population or scaling other than those it was trained on",
    "claims about dark matter from the plain sets: the radius of their ring gives the class away",
)


class Level(NamedTuple):
    """Images that a classifier is scored on.

    Attributes:
      data: the name of their data set.
      split: the test images that are used.
      magnitude: the source's, dimmed before the instrument's noise is added; None adds no noise.
    """

    data: str
    split: LensSplit
    magnitude: float | None

    @property
    def name(self) -> str:
        """The name of the level in tables."""
        noise = AS_THEY_ARE if self.magnitude is None else f"magnitude {self.magnitude:g}"
        return f"{self.data.removeprefix('deeplense/')}, {noise}"

    def images(self, seed: int) -> np.ndarray:
        """Flux `[N, H, W, C]`, with the noise of the level."""
        simulated = SIMULATED_SETS.get(self.data)
        survey = simulated.survey if simulated else None
        return behind_noise(self.split.images, survey, self.magnitude, seed)


class LevelResult(NamedTuple):
    """The scores at one level.

    Attributes:
      level: the images that were scored.
      scores: the classifier's scores.
      probabilities: the classifier's, float32 `[N, K]`.
      baseline: scores of the ring's radius as `Scores.to_dict` gives them, with `curves`; None
        where no lens can be fitted.
    """

    level: Level
    scores: Scores
    probabilities: np.ndarray
    baseline: Mapping[str, Any] | None


def _first_images(split: Split, per_class: int | None, margin: int) -> LensSplit:
    """The first images of each class, all images for None, cropped as for the network."""
    chosen = split if per_class is None else SubsetSplit(split, first_places(split, per_class))
    loaded = chosen.in_memory()
    images, _ = fill_masked(central_cut_out(loaded.images, margin))
    return dataclasses.replace(loaded, images=images)


def _levels(config: Config) -> list[Level]:
    """The test split as it is and, where possible, with noise and of the conserved set."""
    name, per_class = config.data.name, config.evaluate.num_images
    test = datasets.prepare(config.data).open_split("test")
    own = _first_images(test, per_class, config.data.shift_pixels)
    levels = [Level(name, own, None)]
    simulated = SIMULATED_SETS.get(name)
    if simulated is None or not simulated.takes_noise:
        return levels
    levels += [Level(name, own, magnitude) for magnitude in MAGNITUDES]
    if simulated.survey.name == "model_ii" and not simulated.conserved:
        conserved = CONSERVED_SET + ("_mini" if simulated.mini else "")
        data = DataConfig(name=conserved, directory=config.data.directory)
        conserved_test = _first_images(datasets.prepare(data).open_split("test"), per_class, 0)
        levels.append(Level(conserved, conserved_test, MAGNITUDES[0]))
    return levels


def _baseline(level: Level, config: Config) -> Mapping[str, Any] | None:
    """The scores of the ring's radius on the first images of a level; cached."""
    simulated = SIMULATED_SETS.get(level.data)
    if simulated is None or not config.evaluate.baselines or simulated.survey.zero_point is None:
        return None
    survey, info, seed = simulated.survey, level.split.info, config.evaluate.seed
    per_class = min(_BASELINE_IMAGES, int(np.bincount(level.split.labels).min()))

    def radii(images: np.ndarray, seed: int) -> np.ndarray:
        observed = behind_noise(images, survey, level.magnitude, seed)
        fit = functools.partial(fit_ring_radius, survey=survey, free_amplitude=True)
        return share_rows(fit, observed[..., 0])

    def compute() -> dict[str, Any]:
        data = DataConfig(name=level.data, directory=config.data.directory)
        train = _first_images(datasets.prepare(data).open_split("train"), _BASELINE_IMAGES, 0)
        test = SubsetSplit(level.split, first_places(level.split, per_class)).in_memory()
        classifier = RadiusClassifier.fit(
            radii(train.images, seed + 1), train.labels, info.num_classes
        )
        probabilities = classifier.predict_probabilities(radii(test.images, seed))
        curves = roc_curves(test.labels, probabilities)
        scores = score(test.labels, probabilities, info.class_names).to_dict()
        return plain({**scores, "curves": [curve._asdict() for curve in curves]})

    key = {
        "what": "classes by the ring's radius",
        "data": level.data,
        "data_fingerprint": info.fingerprint,
        "magnitude": level.magnitude,
        "images_per_class": per_class,
        "train_images_per_class": _BASELINE_IMAGES,
        "seed": seed,
        "code": provenance.code_that_measures(),
    }
    return cached_json(key, compute, cache_folder(config.evaluate.cache))


def _result(level: Level, classifier: LensClassifier, config: Config) -> LevelResult:
    logging.info("scoring %d images of %s", len(level.split), level.name)
    images = level.images(config.evaluate.seed)
    probabilities = share_rows(lambda batch: classifier.predict(batch).probabilities, images)
    scores = score(level.split.labels, probabilities, classifier.class_names)
    return LevelResult(level, scores, probabilities, _baseline(level, config))


def _table(results: list[LevelResult]) -> Table:
    columns = ("images", "number", "accuracy", "error", "macro AUC", "ECE", "log loss")
    baseline_columns = (f"{_BASELINE}: accuracy", "macro AUC")
    rows = []
    for result in results:
        scores, baseline = result.scores, result.baseline or {}
        cells = [
            result.level.name,
            scores.num_images,
            scores.accuracy,
            scores.accuracy_error,
            scores.macro_auc,
            scores.ece,
            scores.log_loss,
            baseline.get("accuracy"),
            baseline.get("macro_auc"),
        ]
        rows.append({"kind": "", "cells": cells})
    return Table("", (*columns, *baseline_columns), rows)


def _class_table(results: list[LevelResult]) -> Table:
    names = results[0].scores.class_names
    columns = ["images", *(f"{name}: {metric}" for name in names for metric in ("recall", "AUC"))]
    rows = []
    for result in results:
        pairs = zip(result.scores.recall, result.scores.auc, strict=True)
        cells = [result.level.name, *(float(value) for pair in pairs for value in pair)]
        rows.append({"kind": "", "cells": cells})
    return Table("by class, one against the rest", columns, rows)


def _pictures(result: LevelResult) -> dict[str, np.ndarray]:
    """The pictures of a level by their names."""
    names, labels = result.scores.class_names, result.level.split.labels
    curves = dict(zip(names, roc_curves(labels, result.probabilities), strict=True))
    baseline = None
    if result.baseline is not None:
        theirs = [
            RocCurve(
                np.asarray(curve["false_positive_rate"]),
                np.asarray(curve["true_positive_rate"]),
                curve["auc"],
            )
            for curve in result.baseline["curves"]
        ]
        baseline = (_BASELINE, dict(zip(names, theirs, strict=True)))
    return {
        "roc": pictures.roc_picture(curves, baseline),
        "confusion": pictures.confusion_picture(result.scores.confusion, names),
        "calibration": pictures.reliability_picture(reliability(labels, result.probabilities)),
    }


_CAPTIONS = {
    "roc": "Each class against all others; dashed: the ring's radius alone.",
    "confusion": "Rows are the true classes.",
    "calibration": "How often the classifier is right, against the probability that it gives.",
}


def _protocol(config: Config, classifier: LensClassifier) -> dict[str, Any]:
    return {
        "weights_sha256": weights_hash(classifier.params),
        "checkpoint_step": classifier.step,
        "ema": classifier.ema,
        "temperature": classifier.temperature,
        "trained_on": classifier.data_name,
        "data_fingerprint": classifier.data_fingerprint,
        "split": "test",
        "noise": "the instrument's, after the source was dimmed; seed of evaluate.seed",
        "auc": "one class against the rest; macro: unweighted mean",
        "ece_bins": "15 of equal width of the most probable class",
        "baseline": "Einstein radius of the smooth lens with free source position and amplitude; "
        f"neighbours among {_BASELINE_IMAGES} training images per class",
        "seed": config.evaluate.seed,
        "versions": provenance.versions(),
        "git_revision": provenance.git_revision(),
        "hardware": provenance.hardware(),
    }


def _text(results: list[LevelResult]) -> str:
    """The table that is printed."""
    lines = [f"{'images':<38}{'number':>7}{'accuracy':>17}{'AUC':>8}{'ECE':>8}   ring's radius"]
    for result in results:
        scores, baseline = result.scores, result.baseline
        radius = f"{baseline['accuracy']:.3f} / {baseline['macro_auc']:.3f}" if baseline else "-"
        lines.append(
            f"{result.level.name:<38}{scores.num_images:>7}"
            f"{scores.accuracy:>9.4f} +-{scores.accuracy_error:.4f}"
            f"{scores.macro_auc:>8.4f}{scores.ece:>8.4f}   {radius}"
        )
    return "\n".join(lines)


def evaluate_classifier(
    config: Config, folder: pathlib.Path, output: pathlib.Path | None = None
) -> None:
    """Scores a classifier on the test split; prints a table, writes numbers, pictures and a report.

    Args:
      config: the configuration; `evaluate.num_images` None takes the whole split.
      folder: the run's workdir.
      output: where `evaluation/` goes; None for the workdir.

    Raises:
      DataError: for a set with pixels that were not measured.
      ConfigError: for the workdir of a network that is not a classifier.
      lensjax.errors.WorkdirError: if the folder is not a run's.
      lensjax.errors.CheckpointError: if there is no sound checkpoint.
    """
    classifier = load_classifier(folder, config)
    target = results_folder(output or folder)
    results = [_result(level, classifier, config) for level in _levels(config)]
    if is_main():
        _write(config, classifier, results, target)


def _write(
    config: Config, classifier: LensClassifier, results: list[LevelResult], target: pathlib.Path
) -> None:
    """Prints the table, and writes numbers, pictures and report into a folder."""
    protocol = _protocol(config, classifier)
    content = {
        "scores": {result.level.name: result.scores.to_dict() for result in results},
        "baseline": {result.level.name: result.baseline for result in results},
        "protocol": protocol,
    }
    print(_text(results), flush=True)
    drawn = _pictures(results[0])
    with new_results(target) as new:
        write_json(new / "metrics.json", plain(content))
        for name, picture in drawn.items():
            save_png(new / f"{name}.png", picture)
        _write_report(new / "report.html", config, classifier, results, drawn, protocol)
    scalars = {
        f"test/{result.level.name}/{name}": float(getattr(result.scores, name))
        for result in results
        for name in ("accuracy", "macro_auc", "ece", "log_loss")
    }
    show(target, classifier.step, scalars, drawn)
    logging.info("numbers: %s; report: %s", target / "metrics.json", target / "report.html")


def _write_report(
    path: pathlib.Path,
    config: Config,
    classifier: LensClassifier,
    results: list[LevelResult],
    drawn: Mapping[str, np.ndarray],
    protocol: Mapping[str, Any],
) -> None:
    write_page(
        path,
        "classifier",
        title=f"{config.model.name} on {classifier.data_name}",
        subtitle=f"step {classifier.step}, {results[0].scores.num_images} images of the test split",
        sections=[
            {
                "title": "How often it is right",
                "text": "Compare each score with that of the ring's radius alone, which grows with "
                "the mass of the sub-structure; in the conserved set that mass is taken from the "
                "main halo.",
                "tables": [_table(results), _class_table(results)],
            }
        ],
        pictures=[
            Picture.of(f"{results[0].level.name}: {name}", picture, _CAPTIONS[name])
            for name, picture in drawn.items()
        ],
        not_for=_NOT_FOR,
        protocol=json.dumps(plain(protocol), indent=2),
    )
