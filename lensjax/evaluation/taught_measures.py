"""The classification accuracy score: a classifier is trained on images and tested on real ones.

The score of Ravuri & Vinyals 2019 (arXiv:1905.10887), compared with networks that were trained in
the same way on disjoint sets of as many real images. The accuracy of these networks varies from one
training to the next, and only an accuracy below their spread is a fault of the images.
"""

import dataclasses
import math
import pathlib
import tempfile
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

from lensjax.config import Config, from_config_dict, to_dict
from lensjax.data.catalogue import FOLDER_SET
from lensjax.data.dataset import LensSplit
from lensjax.evaluation.cache import cached_json
from lensjax.evaluation.noise_levels import levels, with_noise
from lensjax.evaluation.rows import ALL, Row, Setting
from lensjax.inference.classifier import LensClassifier
from lensjax.inference.trained import Trained
from lensjax.metrics.classification import Scores, score
from lensjax.metrics.intervals import disjoint_sets
from lensjax.metrics.two_sample import LEVEL
from lensjax.prng import MAX_SEED
from lensjax.run import provenance
from lensjax.run import workdir as files
from lensjax.run.state import sampling_params
from lensjax.training.loop import train

LEAST_IMAGES = 20  # a class; fewer teach too little to compare
_MOST_IMAGES = 1_000  # a class; with more, the few steps would see each image too rarely
_SIDE = 8  # of the feature maps, for images of any size


class Lesson(NamedTuple):
    """How each network is trained.

    Attributes:
      num_steps: optimizer steps.
      batch_size: images per step; all images if there are fewer.
      width: channels of the network.
      num_controls: training runs on disjoint sets of real images.
    """

    num_steps: int = 500
    batch_size: int = 48
    width: int = 32
    num_controls: int = 6


LESSON = Lesson()


def missing(setting: Setting, lesson: Lesson = LESSON) -> str | None:
    """Why no classifier can be trained, with the remedy; None if one can."""
    info = setting.info
    if info.num_classes < 2:
        return f"{info.name} has fewer than two classes to tell apart"
    if not setting.labelled:
        return "the images have no labels; give evaluate.labels, or labels.npy beside them"
    if jax.process_count() > 1:
        return "its classifiers are trained on one host; run --mode=evaluate on a single host"
    num_train = _smallest_class(setting.train(lesson.num_controls * LEAST_IMAGES))
    if min(num_train // lesson.num_controls, setting.per_class) < LEAST_IMAGES:
        return (
            f"it needs {LEAST_IMAGES} images per class to judge and {lesson.num_controls} times as "
            f"many real training images; there are {setting.per_class} and {num_train}"
        )
    return None


def _smallest_class(row: Row) -> int:
    return min(len(places) for places in row.groups.values())


def _images_per_class(row: Row, real: Row, setting: Setting, lesson: Lesson) -> int:
    """The number of training images per class, the same for the row and for each control."""
    judged = setting.per_class if row is real else _smallest_class(row)
    most = min(judged, _MOST_IMAGES)
    num_train = _smallest_class(setting.train(lesson.num_controls * most))
    return min(most, num_train // lesson.num_controls)


def _config(setting: Setting, num_images: int, seed: int, lesson: Lesson) -> Config:
    """The configuration of one training run, whose images are arrays, not files."""
    values = to_dict(Config())
    values["seed"] = seed % (MAX_SEED + 1)
    values["data"] |= {
        "name": FOLDER_SET,
        "folder": "arrays",
        "scaling": "asinh",
        "augmentation": "none" if setting.simulated is None else "rotate_180",
    }
    values["model"] |= {
        "name": "rescnn",
        "num_classes": setting.info.num_classes,
        "patch_size": max(1, round(min(setting.info.image_shape[:2]) / _SIDE)),
        "widths": (lesson.width,),
        "blocks": 1,
        "num_features": 64,
    }
    values["optim"] |= {
        "learning_rate": 3e-3,
        "warmup_steps": min(50, lesson.num_steps),
        "weight_decay": 1e-4,
        "ema_half_life_images": 2_000.0,
    }
    every = ("log_every", "evaluate_every", "sample_every", "checkpoint_every")
    values["train"] |= dict.fromkeys(every, lesson.num_steps) | {
        "num_steps": lesson.num_steps,
        # One image a class goes to the validation that every training ends with.
        "batch_size": min(lesson.batch_size, num_images - setting.info.num_classes),
    }
    values["classify"] |= {"validation_share": 0.001}
    values["parallel"] |= {"num_devices": 1}
    return from_config_dict(values)


def _train(row: Row, seed: int, setting: Setting, lesson: Lesson) -> LensClassifier:
    """Trains on a row's images at every noise level, in equal shares."""
    images = np.concatenate([with_noise(row, level) for level in levels(setting).values()])
    labels = np.resize(row.labels, len(images))
    info = dataclasses.replace(setting.info, parameter_names=(), name=f"{row.name} images")
    split = LensSplit(images, labels, np.empty((len(images), 0), np.float32), info)
    config = _config(setting, len(images), seed, lesson)
    with tempfile.TemporaryDirectory() as folder:
        workdir = pathlib.Path(folder)
        state = train(config, workdir, split, quiet=True)
        dataset = files.read_dataset(workdir)
    ema = config.sample.ema
    params = sampling_params(state, ema)
    return LensClassifier(Trained(config, dataset, params, int(state.step), ema, None), 1.0)


def _scores(row: Row, real: Row, seed: int, setting: Setting, lesson: Lesson) -> dict[str, Scores]:
    """Scores on the test split, by noise level, of a network trained on a row."""
    names = setting.info.class_names
    even = np.full((len(real.labels), len(names)), 1 / len(names), np.float32)
    # From images without any contrast nothing can be learned.
    network = _train(row, seed, setting, lesson) if np.ptp(row.images) > 0 else None
    scores = {}
    for level, magnitude in levels(setting).items():
        images = with_noise(real, magnitude)
        probabilities = network.predict(images, warn=False).probabilities if network else even
        scores[level] = score(real.labels, probabilities, names)
    return scores


def _controls(real: Row, setting: Setting, per_class: int, lesson: Lesson) -> dict[str, Any]:
    """Scores of networks trained on disjoint sets of real images, by noise level; cached."""
    seed = setting.settings.seed

    def compute() -> dict[str, Any]:
        train_row = setting.train(lesson.num_controls * per_class)
        sets = disjoint_sets(train_row.labels, per_class, lesson.num_controls, seed)
        controls: dict[str, Any] = {level: [] for level in levels(setting)}
        for number, places in enumerate(sets):
            row = Row(f"real {number}", train_row.images[places], train_row.labels[places], setting)
            for level, scores in _scores(row, real, seed + number, setting, lesson).items():
                controls[level].append(
                    {
                        "accuracy": scores.accuracy,
                        "accuracy_error": scores.accuracy_error,
                        "auc": scores.macro_auc,
                        "recall": scores.to_dict()["recall"],
                    }
                )
        return controls

    key: dict[str, str | int] = {
        "what": "trainings on real images",
        "data": setting.info.name,
        "data_fingerprint": setting.info.fingerprint,
        "image_shape": str(setting.info.image_shape),
        "test_images_per_class": setting.real_images.per_class,
        "train_images_per_class": per_class,
        "image_scale": setting.settings.image_scale,
        "seed": seed,
        "lesson": str(lesson),
        "code": _code(),
    }
    return cached_json(key, compute, setting.cache)


def _summary(controls: list[Mapping[str, Any]]) -> dict[str, Any]:
    """Mean and spread of the training runs on real images at one level."""
    accuracies, areas = ([control[name] for control in controls] for name in ("accuracy", "auc"))
    error = float(np.mean([control["accuracy_error"] for control in controls]))
    return {
        "accuracy": float(np.mean(accuracies)),
        "accuracy_error": error,
        "accuracy_deviation": float(np.std(accuracies, ddof=1)),
        "auc": float(np.mean(areas)),
        "auc_deviation": float(np.std(areas, ddof=1)),
        "recall": {
            name: float(np.mean([control["recall"][name] for control in controls]))
            for name in controls[0]["recall"]
        },
    }


def probability_of_so_low(
    accuracy: float, summary: Mapping[str, float], num_controls: int
) -> float:
    """The probability of so low an accuracy if the images teach as well as real ones.

    A run on other real images is one more draw besides the `num_controls` controls: Student's
    t with their spread. The spread counts as at least the binomial error, because a few runs may
    agree by chance or all reach 100 %.

    Args:
      accuracy: accuracy of the judged network.
      summary: `accuracy`, `accuracy_deviation` and `accuracy_error` of the runs on real
        images.
      num_controls: number of runs on real images, at least 2.
    """
    from scipy.stats import t

    deviation = max(summary["accuracy_deviation"], summary["accuracy_error"])
    below = (summary["accuracy"] - accuracy) / (deviation * math.sqrt(1 + 1 / num_controls))
    return float(t.sf(below, num_controls - 1))


def taught(row: Row, real: Row, setting: Setting, lesson: Lesson = LESSON) -> dict[str, Any]:
    """How well a network trained on a row recognises real images, by noise level.

    Args:
      row: the images to train on; for `real` itself, as many training images are used.
      real: the test split.
      setting: shared by all rows.
      lesson: how each network is trained.

    Returns:
      Numbers by noise level: of a row with too few images of a class only their number; {} for a
      row without labels.
    """
    if ALL in row.groups:
        return {}
    per_class = _images_per_class(row, real, setting, lesson)
    if per_class < LEAST_IMAGES:
        return {level: {"num_images": len(row.labels)} for level in levels(setting)}
    controls = _controls(real, setting, per_class, lesson)
    summaries = {level: _summary(scores) for level, scores in controls.items()}
    count = {"num_images": per_class * setting.info.num_classes}
    if row is real:
        return {level: count | numbers for level, numbers in summaries.items()}
    places = np.concatenate([places[:per_class] for places in row.groups.values()])
    balanced = Row(row.name, row.images[places], row.labels[places], setting)
    count["num_images"] = len(places)
    results, names = {}, setting.info.class_names
    for level, scores in _scores(balanced, real, setting.settings.seed, setting, lesson).items():
        summary = summaries[level]
        results[level] = {
            **count,
            "accuracy": scores.accuracy,
            "accuracy_error": scores.accuracy_error,
            "auc": scores.macro_auc,
            "p": probability_of_so_low(scores.accuracy, summary, lesson.num_controls),
            "has_power": probability_of_so_low(1 / len(names), summary, lesson.num_controls)
            < LEVEL,
            "recall": scores.to_dict()["recall"],
            **{f"real_{name}": value for name, value in summary.items()},
        }
    return results


def _code() -> str:
    """A hash of the code that trains."""
    rooms = ("", "devices", "diffusion", "data", "models", "config", "run", "inference", "training")
    return provenance.code_hash(*(provenance.PACKAGE / room for room in rooms))


def protocol(setting: Setting) -> dict[str, Any]:
    """The settings that the numbers of `taught` depend on."""
    return {
        "network": f"rescnn, {LESSON.width} channels on about {_SIDE}x{_SIDE} patches",
        "num_steps": LESSON.num_steps,
        "batch_size": LESSON.batch_size,
        "most_images_per_class": _MOST_IMAGES,
        "trained_on": "the images at every noise level, in equal shares",
        "scored_on": "test split",
        "beside": f"{LESSON.num_controls} trainings on disjoint sets of as many real images",
        "p": "probability that one more training on real images is as low (Student's t)",
        "levels": list(levels(setting)),
        "training_code": _code(),
    }
