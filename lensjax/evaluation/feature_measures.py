"""Measures in the space of a network's features: distances, neighbours, predicted classes."""

import functools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from lensjax.devices.hosts import share_rows
from lensjax.errors import DataError, WeightsError
from lensjax.evaluation.cache import cached_features, cached_json
from lensjax.evaluation.class_network import GivenClassifier, given_classifier
from lensjax.evaluation.extractors import Extractor, LensExtractor
from lensjax.evaluation.noise_levels import AS_THEY_ARE, levels, with_noise
from lensjax.evaluation.rows import Row, Setting
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
    """The features of all images, and of each class if there are several classes."""
    groups = {OVERALL: features}
    if len(row.groups) > 1:
        groups |= {name: features[places] for name, places in row.groups.items()}
    return groups


def _floors(
    extractor: Extractor,
    reference: Mapping[str, np.ndarray],
    magnitude: float | None,
    setting: Setting,
) -> dict[str, dict[str, float]]:
    """The floor of each group, from disjoint sets of training images and the test split."""
    wanted = NUM_FLOOR_SETS * setting.per_class
    train = setting.train(wanted)
    smallest = min(len(places) for places in train.groups.values())
    num_sets = min(NUM_FLOOR_SETS, smallest // setting.per_class)
    if num_sets < 2:
        return {}
    images = with_noise(train, magnitude)
    sets = disjoint_sets(train.labels, setting.per_class, num_sets, setting.settings.seed)
    moments: dict[str, list[Moments]] = {name: [] for name in reference}
    for places in sets:
        features = share_rows(extractor, images[places])
        floor_row = Row("floor", images[places], train.labels[places], setting)
        for name, values in _by_group(features, floor_row).items():
            moments[name].append(Moments.of(values))
    floors = {
        name: frechet_floor(Moments.of(values), moments[name]) for name, values in reference.items()
    }
    return {name: floor._asdict() for name, floor in floors.items()}


def _key(
    result_name: str, extractor: Extractor, level: str, setting: Setting
) -> dict[str, str | int | float]:
    """The cache key of a result of real images: all that it depends on."""
    return {
        "what": result_name,
        "data": setting.info.name,
        "data_fingerprint": setting.info.fingerprint,
        "image_shape": str(setting.info.image_shape),
        "images_per_class": setting.per_class,
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
    extractor: Extractor, real: Row, level: str, magnitude: float | None, setting: Setting
) -> dict[str, Floor]:
    def compute() -> dict[str, dict[str, float]]:
        reference = _real_features(extractor, real, level, magnitude, setting)
        return _floors(extractor, reference, magnitude, setting)

    key = _key("floors of the Frechet distance", extractor, level, setting)
    floors = cached_json(key, compute, setting.cache)
    return {name: Floor(**values) for name, values in floors.items()}


def _score(
    real: np.ndarray, features: np.ndarray, floor: Floor | None, seed: int
) -> dict[str, Any]:
    """All distances of one set of features from real features."""
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
        "floor_mean": floor.mean if floor else None,
        "floor_sd": floor.deviation if floor else None,
        "floor_sets": floor.num_sets if floor else 0,
        "ratio": floor.ratio(distance) if floor else None,
        "z": floor.z(distance) if floor else None,
        "kernel": kernel.value,
        "kernel_error": kernel.error,
        **manifold_scores(real, features)._asdict(),
        "warning": few_images_warning(min(len(real), len(features)), features.shape[1]),
    }


def _scores(
    extractor: Extractor, row: Row, real: Row, chosen: Mapping[str, float | None], setting: Setting
) -> dict[str, Any]:
    if row is real:
        return {}
    scores: dict[str, Any] = {}
    for level, magnitude in chosen.items():
        floors = _cached_floors(extractor, real, level, magnitude, setting)
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
    from scipy.stats import chi2_contingency

    table = np.array([list(row) for row in counts])
    table = table[:, table.sum(axis=0) > 0]
    if table.shape[1] < 2:
        return 1.0
    return float(chi2_contingency(table).pvalue)


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
        counts = [
            np.bincount(labels, minlength=len(names)) for labels in (predicted, real_predicted)
        ]
        score: dict[str, Any] = {"num_images": len(predicted)}
        if row.labels.max() < len(names):
            right, right_real = predicted == row.labels, real_predicted == real.labels
            score |= {
                "accuracy": float(right.mean()),
                "real_accuracy": float(right_real.mean()),
                "auc": float(np.mean(class_areas(row.labels, probabilities))),
                "accuracy_p": _agreement(
                    [(correct.sum(), (~correct).sum()) for correct in (right, right_real)]
                ),
            }
        score["share_p"] = _agreement(counts)
        shares = counts[0] / len(predicted)
        score |= dict(zip([f"share_{name}" for name in names], shares, strict=True))
        if row.labels.max() < len(names):
            score["confusion"] = confusion_counts(row.labels, predicted, len(names)).tolist()
        scores[level] = score
    return scores


def _protocol_of_distances(setting: Setting) -> dict[str, Any]:
    return {
        "real": "test split",
        "images_per_class": setting.per_class,
        "frechet": "float64, symmetric eigenvalues; error of disjoint blocks",
        "floor": f"up to {NUM_FLOOR_SETS} disjoint sets of as many training images each",
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
