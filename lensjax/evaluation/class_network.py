"""The classifier that `evaluate.classifier` names, as the judge of the measure `classes`."""

import functools
from typing import Any

import numpy as np

from lensjax.config import Config
from lensjax.config.model import CLASSIFY
from lensjax.errors import ConfigError, RequestError
from lensjax.evaluation.extractors import predictions
from lensjax.evaluation.rows import Setting
from lensjax.files.user_paths import expanded
from lensjax.inference.classifier import LensClassifier
from lensjax.inference.describe import weights_hash
from lensjax.inference.loading import load
from lensjax.run import workdir as files

_FIELD = "evaluate.classifier"


class GivenClassifier:
    """A trained classifier as a judge.

    Args:
      classifier: the network.
    """

    def __init__(self, classifier: LensClassifier) -> None:
        self._classifier = classifier
        self.name = classifier.config.model.name
        self.hash = weights_hash(classifier.params)

    def predict_probabilities(self, images: np.ndarray) -> np.ndarray:
        """Maps flux `[N, H, W, C]` to class probabilities, float32 `[N, K]`."""
        return predictions(self._classifier, images).probabilities

    def describe(self) -> dict[str, Any]:
        """The settings, besides the weights, that its numbers depend on, as JSON types."""
        classifier = self._classifier
        return {
            "trained_on": classifier.data_name,
            "trained_on_fingerprint": classifier.data_fingerprint,
            "checkpoint_step": classifier.step,
            "ema": classifier.ema,
            "temperature": classifier.temperature,
            "scaling": classifier.scaling.to_dict(),
        }


def _check_task(folder: str, config: Config) -> None:
    if config.task != CLASSIFY:
        raise ConfigError(
            _FIELD,
            folder,
            f"its network (model.name={config.model.name}) is not a classifier; allowed: the "
            "workdir of a classifier, such as one of configs/classifier_rescnn.py",
        )


def _load(folder: str) -> LensClassifier:
    path = expanded(folder, _FIELD)
    if path.exists():  # checked before the weights are read, which may not exist yet
        _check_task(folder, files.load_config(path))
    try:
        network = load(folder)
    except RequestError as error:  # no weights of this name come with lensjax
        raise ConfigError(_FIELD, folder, str(error)) from None
    _check_task(folder, network.config)
    return network


@functools.lru_cache(maxsize=1)
def given_classifier(setting: Setting) -> GivenClassifier | None:
    """Loads the classifier that `evaluate.classifier` names; None if the field is None.

    Raises:
      ConfigError: for a network that is not a classifier, or for other classes or image sizes.
      lensjax.errors.WorkdirError: if the folder is not a run's.
      lensjax.errors.CheckpointError: if there is no sound checkpoint.
    """
    folder, info = setting.settings.classifier, setting.info
    if folder is None:
        return None
    classifier = _load(folder)
    if classifier.class_names != info.class_names:
        raise ConfigError(
            _FIELD,
            folder,
            f"it tells {', '.join(classifier.class_names)} apart; allowed: the classes of "
            f"{info.name} in their order, {', '.join(info.class_names) or 'none (unlabelled)'}",
        )
    if classifier.image_shape != info.image_shape:
        theirs, ours = (
            "x".join(map(str, shape)) for shape in (classifier.image_shape, info.image_shape)
        )
        raise ConfigError(
            _FIELD, folder, f"it takes images of {theirs}; allowed: {ours}, those of {info.name}"
        )
    if classifier.band_names and info.band_names and classifier.band_names != info.band_names:
        raise ConfigError(
            _FIELD,
            folder,
            f"it takes the bands {', '.join(classifier.band_names)}; allowed: those of {info.name} "
            f"in their order, {', '.join(info.band_names)}",
        )
    return GivenClassifier(classifier)
