"""Measures in the space of a network's features: distances, neighbours, predicted classes."""

import functools
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from lensjax.devices.hosts import share_rows
from lensjax.errors import DataError, WeightsError
from lensjax.evaluation.baselines import control_row
from lensjax.evaluation.cache import cached_features, cached_json
from lensjax.evaluation.class_network import GivenClassifier, given_classifier
from lensjax.evaluation.extractors import Extractor, LensExtractor
from lensjax.evaluation.noise_levels import AS_THEY_ARE, levels, with_noise
from lensjax.evaluation.rows import ALL, Row, Setting
from lensjax.metrics.baselines import BLUR_FACTOR
from lensjax.metrics.classification import class_areas, confusion_counts
from lensjax.metrics.frechet import Moments, few_images_warning, frechet_distance
from lensjax.metrics.inception_features import InceptionExtractor
from lensjax.metrics.intervals import (
    NUM_FLOOR_SETS,
    Floor,
    block_interval,
    disjoint_sets,
    frechet_floor,
)
from lensjax.metrics.kernel import kernel_distance
from lensjax.metrics.neighbours import DENSITY_K, PRECISION_K, manifold_scores
from lensjax.metrics.two_sample import LEVEL
from lensjax.models.inception_weights import load_inception, search_weights

OVERALL = "overall"
_LENS_MODEL = "model_ii"
# Sets of fewer images have no neighbours and no blocks.
_LEAST = 10
_BLOCKS = 4  # disjoint; the spread of their distances is the error


def _needs_flux(setting: Setting) -> str:
    return f"it needs images in flux; evaluate.image_scale is {setting.settings.image_scale}"


def lens_network_missing(setting: Setting) -> str | None:
    """Why the lens network cannot judge these images; None if it can."""
    simulated = setting.simulated
    if simulated is None or simulated.survey.name != _LENS_MODEL:
        return "the network that comes with lensjax knows only images of Model II"
    return None if setting.in_flux else _needs_flux(setting)


def classes_missing(setting: Setting) -> str | None:
    """Why no classifier can judge these images; None if a classifier can.

    Raises:
      ConfigError: for an `evaluate.classifier` that does not fit; see `given_classifier`.
    """
    classifier = given_classifier(setting)
    if not setting.in_flux:
        return _needs_flux(setting)
    reason = None if classifier else lens_network_missing(setting)
    return reason and f"{reason}; set evaluate.classifier to a classifier of these classes"


def inception_missing(setting: Setting) -> str | None:
    """Why Inception cannot be used, with the remedy; None if it can.

    Raises:
      DataError: for a file that was named and is not the Inception weights.
    """
    if setting.info.image_shape[-1] not in (1, 3):
        return f"Inception takes 1 or 3 channels; the images have {setting.info.image_shape[-1]}"
    settings = setting.settings
    try:
        return search_weights(settings.inception_weights, download=settings.download).remedy or None
    except WeightsError as error:
        raise DataError(str(error)) from None


@functools.lru_cache(maxsize=1)
def _lens_extractor() -> LensExtractor:
    return LensExtractor()


def _class_network(setting: Setting) -> LensExtractor | GivenClassifier:
    return given_classifier(setting) or _lens_extractor()


@functools.lru_cache(maxsize=1)
def _inception(path: str | None, flux_limits: tuple[float, ...]) -> InceptionExtractor:
    weights_path = search_weights(path, download=False).path
    assert weights_path is not None  # inception_missing has checked it
    limit = flux_limits[0] if len(flux_limits) == 1 else flux_limits
    return InceptionExtractor(load_inception(weights_path), limit)


def _by_group(features: np.ndarray, row: Row) -> dict[str, np.ndarray]:
    """The features of all images, and of each class of a set with several classes."""
    groups = {OVERALL: features}
    if row.setting.info.num_classes > 1:
        classes = {name: places for name, places in row.groups.items() if name != ALL}
        groups |= {name: features[places] for name, places in classes.items()}
    return groups


def _counts(row: Row) -> dict[str, int]:
    """The number of images of each group of `_by_group`."""
    return {name: len(values) for name, values in _by_group(row.labels, row).items()}


def _counts_of_a_set(group: str, count: int, setting: Setting) -> dict[int, int]:
    """How many images of each label make a set of real images as large as a group."""
    names = setting.info.class_names
    if group in names:
        return {names.index(group): count}
    num_classes = max(1, setting.info.num_classes)
    return {label: (count + num_classes - 1 - label) // num_classes for label in range(num_classes)}


def _floors(
    extractor: Extractor,
    reference: Mapping[str, np.ndarray],
    magnitude: float | None,
    counts: Mapping[str, int],
    setting: Setting,
) -> dict[str, dict[str, float]]:
    """The floor of each group, and the distance of the control.

    Both are taken at the number of images that is judged: a floor from disjoint sets of so many
    training images, the control from so many with a wider blur.
    """
    wanted = {group: _counts_of_a_set(group, count, setting) for group, count in counts.items()}
    most = max(max(of_label.values()) for of_label in wanted.values())
    train = setting.train(NUM_FLOOR_SETS * most)
    control = control_row(setting, most)
    features, of_control = (
        share_rows(extractor, with_noise(row, magnitude)) for row in (train, control)
    )
    floors = {}
    for group, of_label in wanted.items():
        smallest = min(
            np.sum(train.labels == label) // count for label, count in of_label.items() if count
        )
        num_sets = int(min(NUM_FLOOR_SETS, smallest))
        if num_sets < 2 or counts[group] < _LEAST:
            continue
        moments = Moments.of(reference[group])
        sets = disjoint_sets(train.labels, of_label, num_sets, setting.settings.seed)
        floor = frechet_floor(moments, (Moments.of(features[places]) for places in sets))
        places = np.concatenate(
            [np.flatnonzero(control.labels == label)[:n] for label, n in of_label.items()]
        )
        distance = frechet_distance(moments, Moments.of(of_control[places]))
        floors[group] = {**floor._asdict(), "control": distance}
    return floors


def _key(
    result_name: str, extractor: Extractor, level: str, setting: Setting
) -> dict[str, str | int | float]:
    """The cache key of a result of real images: all that it depends on."""
    return {
        "what": result_name,
        "data": setting.info.name,
        "data_fingerprint": setting.info.fingerprint,
        "image_shape": str(setting.info.image_shape),
        "real_images_per_class": setting.real_images.per_class,
        "image_scale": setting.settings.image_scale,
        "seed": setting.settings.seed,
        "extractor": extractor.hash,
        "level": level,
    }


def _real_features(
    extractor: Extractor, real: Row, level: str, magnitude: float | None, setting: Setting
) -> dict[str, np.ndarray]:
    """The features of the real images by group; cached."""
    key = _key("features of the test split", extractor, level, setting)
    features = cached_features(
        key, lambda: share_rows(extractor, with_noise(real, magnitude)), setting.cache
    )
    return _by_group(features, real)


def _cached_floors(
    extractor: Extractor,
    real: Row,
    level: str,
    magnitude: float | None,
    counts: Mapping[str, int],
    setting: Setting,
) -> dict[str, Any]:
    def compute() -> dict[str, dict[str, float]]:
        reference = _real_features(extractor, real, level, magnitude, setting)
        return _floors(extractor, reference, magnitude, counts, setting)

    key = _key("floors of the Frechet distance", extractor, level, setting)
    return cached_json(key | {"counts": json.dumps(counts)}, compute, setting.cache)


def _score(
    real: np.ndarray, features: np.ndarray, measured: Mapping[str, Any] | None, seed: int
) -> dict[str, Any]:
    """All distances of one set of features from real features.

    Args:
      real: features `[N, D]`.
      features: those of the images that are judged.
      measured: the result of `_floors` for this group; None if there are too few real images.
      seed: for blocks.
    """
    if min(len(real), len(features)) < _LEAST:
        return {"num_images": len(features)}
    moments = Moments.of(real)
    frechet = block_interval(
        lambda places: frechet_distance(moments, Moments.of(features[places])),
        len(features),
        num_blocks=_BLOCKS,
        seed=seed,
    )
    distance = frechet.value
    kernel = kernel_distance(real, features, seed=seed)
    return {
        "num_images": len(features),
        "frechet": distance,
        "frechet_error": frechet.error,
        **(_beside_floor(distance, measured) if measured else {}),
        "kernel": kernel.value,
        "kernel_error": kernel.error,
        **manifold_scores(real, features)._asdict(),
        "warning": few_images_warning(min(len(real), len(features)), features.shape[1]),
    }


def _beside_floor(distance: float, measured: Mapping[str, Any]) -> dict[str, Any]:
    floor = Floor(**{name: measured[name] for name in Floor._fields})
    limit = floor.limit(LEVEL)
    return {
        "floor_mean": floor.mean,
        "floor_sd": floor.deviation,
        "floor_sets": floor.num_sets,
        "ratio": floor.ratio(distance),
        "z": floor.z(distance),
        "z_limit": limit,
        "p": floor.p(distance),
        "control_z": floor.z(measured["control"]),
        "has_power": floor.p(measured["control"]) < LEVEL,
    }


def _scores(
    extractor: Extractor, row: Row, real: Row, chosen: Mapping[str, float | None], setting: Setting
) -> dict[str, Any]:
    if row is real:
        return {}
    scores: dict[str, Any] = {}
    for level, magnitude in chosen.items():
        floors = _cached_floors(extractor, real, level, magnitude, _counts(row), setting)
        theirs = _real_features(extractor, real, level, magnitude, setting)
        ours = _by_group(share_rows(extractor, with_noise(row, magnitude)), row)
        scores[level] = {
            name: _score(theirs[name], values, floors.get(name), setting.settings.seed)
            for name, values in ours.items()
            if name in theirs
        }
    return scores


def lens_features(row: Row, real: Row, setting: Setting) -> dict[str, Any]:
    """Distances in the features of the lens network, by noise level and group."""
    return _scores(_lens_extractor(), row, real, levels(setting), setting)


def inception(row: Row, real: Row, setting: Setting) -> dict[str, Any]:
    """Distances in the features of Inception, by group."""
    extractor = _inception(setting.settings.inception_weights, setting.flux_limits)
    return _scores(extractor, row, real, {AS_THEY_ARE: None}, setting)


def _agreement(counts: Sequence[Iterable[int]]) -> float:
    """The probability of two rows of counts if they came from the same distribution."""
    from scipy.stats import chi2_contingency, fisher_exact

    table = np.array([list(row) for row in counts])
    table = table[:, table.sum(axis=0) > 0]
    if table.shape[1] < 2:
        return 1.0
    # Exact for two columns; chi-squared is wrong where few images are misjudged.
    test = fisher_exact if table.shape[1] == 2 else chi2_contingency
    return float(test(table).pvalue)


def _share_scores(predicted: np.ndarray, real: np.ndarray, names: Sequence[str]) -> dict[str, Any]:
    """Compares the numbers of predicted classes; power is shown by a class that is never drawn."""
    counts, real_counts = (
        np.bincount(labels, minlength=len(names)) for labels in (predicted, real)
    )
    collapsed = np.round(len(predicted) * real_counts / len(real)).astype(int)
    collapsed[[0, -1]] = 0, collapsed[-1] + collapsed[0]
    shares = counts / len(predicted)
    return {
        "share_p": _agreement([counts, real_counts]),
        "share_has_power": _agreement([collapsed, real_counts]) < LEVEL,
        **dict(zip([f"share_{name}" for name in names], shares, strict=True)),
    }


def _accuracy_scores(right: np.ndarray, right_real: np.ndarray, num_classes: int) -> dict[str, Any]:
    """Compares the numbers of right predictions; power is shown by labels without meaning."""
    ours, theirs = ((int(x.sum()), int((~x).sum())) for x in (right, right_real))
    guessed = round(len(right) / num_classes)
    return {
        "accuracy": float(right.mean()),
        "real_accuracy": float(right_real.mean()),
        "accuracy_p": _agreement([ours, theirs]),
        "accuracy_has_power": _agreement([(guessed, len(right) - guessed), theirs]) < LEVEL,
    }


def classes(row: Row, real: Row, setting: Setting) -> dict[str, Any]:
    """The classes that a classifier trained on real images predicts, by noise level."""
    network, names = _class_network(setting), setting.info.class_names
    scores: dict[str, Any] = {}
    for level, magnitude in levels(setting).items():
        probabilities, real_probabilities = (
            share_rows(network.predict_probabilities, with_noise(compared, magnitude))
            for compared in (row, real)
        )
        predicted, real_predicted = probabilities.argmax(axis=1), real_probabilities.argmax(axis=1)
        score: dict[str, Any] = {"num_images": len(predicted)}
        if row.labels.max() < len(names):
            right, right_real = predicted == row.labels, real_predicted == real.labels
            score |= _accuracy_scores(right, right_real, len(names))
            score["auc"] = float(np.mean(class_areas(row.labels, probabilities)))
            score["confusion"] = confusion_counts(row.labels, predicted, len(names)).tolist()
        scores[level] = score | _share_scores(predicted, real_predicted, names)
    return scores


def _protocol_of_distances(setting: Setting) -> dict[str, Any]:
    return {
        "real": "test split",
        "images_per_class": setting.per_class,
        "frechet": "float64, symmetric eigenvalues; error of disjoint blocks",
        "floor": f"up to {NUM_FLOOR_SETS} disjoint sets of as many training images as are judged",
        "p": "probability that one more such set is as far away (Student's t of the logarithms)",
        "control": f"as many training images, point-spread function x {BLUR_FACTOR:g}",
        "kernel": "cubic polynomial, unbiased, all pairs; error of disjoint blocks",
        "precision_recall_k": PRECISION_K,
        "density_coverage_k": DENSITY_K,
    }


def protocol_of_lens_features(setting: Setting) -> dict[str, Any]:
    """The settings that the numbers of `lens_features` depend on."""
    network = _lens_extractor()
    return {
        "extractor": network.name,
        "layer": network.layer,
        "sha256": network.hash,
        "levels": list(levels(setting)),
        **_protocol_of_distances(setting),
    }


def protocol_of_classes(setting: Setting) -> dict[str, Any]:
    """The settings that the numbers of `classes` depend on."""
    network = _class_network(setting)
    protocol = {"network": network.name, "sha256": network.hash, "levels": list(levels(setting))}
    return protocol | (network.describe() if isinstance(network, GivenClassifier) else {})


def protocol_of_inception(setting: Setting) -> dict[str, Any]:
    """The settings that the numbers of `inception` depend on."""
    network = _inception(setting.settings.inception_weights, setting.flux_limits)
    limits = " and ".join(f"{limit:g}" for limit in setting.flux_limits)
    several = setting.info.image_shape[-1] > 1
    channels = "the bands as red, green and blue" if several else "grey repeated to three channels"
    return {
        "extractor": network.name,
        "layer": network.layer,
        "sha256": network.hash,
        "map": f"0 to {limits} {setting.info.flux_unit} to 0..255, rounded; {channels}",
        "resize": "299x299 as TensorFlow 1",
        **_protocol_of_distances(setting),
    }
