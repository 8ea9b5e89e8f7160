"""The protocol of all feature extractors, and the extractor that comes with lensjax."""

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np

from lensjax.errors import MeasureError, RequestError
from lensjax.inference import pretrained
from lensjax.inference.classifier import LensClassifier, Prediction
from lensjax.inference.trained import Trained

LENS_CLASSIFIER = "lens_classifier"


class Extractor(Protocol):
    """Maps images to feature vectors.

    Attributes:
      name: such as `inception` or `lens`.
      layer: such as `pool 2048`.
      num_features: length of a vector.
      hash: SHA-256 in hexadecimal of the weights and of all else that the features depend on.
    """

    name: str
    layer: str
    num_features: int
    hash: str

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """Maps flux `[N, H, W, C]` to float32 `[N, num_features]`, for any N."""
        ...


def predictions(classifier: LensClassifier, images: np.ndarray) -> Prediction:
    """The predictions of a classifier for images that are judged.

    Raises:
      MeasureError: for images that it cannot take.
    """
    try:
        return classifier.predict(images, warn=False)  # being unlike is what is measured
    except RequestError as error:
        raise MeasureError(str(error)) from None


class LensExtractor:
    """The penultimate layer of the classifier that comes with lensjax, trained on Model II.

    The network takes flux: an image of another brightness has other features. Images are
    noise-free, or have the noise of Model II and a source magnitude of 20 to 23.

    Raises:
      lensjax.errors.RequestError: for weights that do not match their model card.
    """

    name = "lens"

    def __init__(self) -> None:
        trained, card = pretrained.load_trained(LENS_CLASSIFIER)
        self.classifier = LensClassifier(trained, card["temperature"])
        self.num_features = trained.config.model.num_features
        self.layer = f"penultimate {self.num_features}"
        self.hash = _hash_of(trained, card)

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """Maps flux `[N, 64, 64, 1]` to float32 `[N, D]`; see `LensClassifier.predict`."""
        return predictions(self.classifier, images).features

    def predict_probabilities(self, images: np.ndarray) -> np.ndarray:
        """Maps flux `[N, 64, 64, 1]` to calibrated class probabilities, float32 `[N, 3]`."""
        return predictions(self.classifier, images).probabilities


def _hash_of(trained: Trained, card: Mapping[str, Any]) -> str:
    """The SHA-256 of the weights and of all else that the features depend on."""
    hash_inputs = {
        "weights": card["sha256"],
        "model": dataclasses.asdict(trained.config.model),
        "scaling": trained.dataset["scaling"],
        "layer": "features before their nonlinearity",
    }
    return hashlib.sha256(json.dumps(hash_inputs, sort_keys=True).encode()).hexdigest()
