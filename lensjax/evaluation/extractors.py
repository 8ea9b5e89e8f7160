"""What describes an image by a vector: one protocol for all feature extractors."""

import dataclasses
import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Protocol

import numpy as np

from lensjax.data.catalogue import SIMULATED_SETS
from lensjax.data.surveys import Survey
from lensjax.errors import MeasureError, RequestError
from lensjax.inference import pretrained
from lensjax.inference.classifier import LensClassifier, Prediction
from lensjax.inference.trained import Trained
from lensjax.metrics.frechet import MIN_IMAGES, Moments

BATCH_SIZE = 256
LENS_CLASSIFIER = "lens_classifier"


class Extractor(Protocol):
    """Maps images to feature vectors.

    Attributes:
      name: such as `inception` or `lens`.
      layer: such as `pool 2048`.
      num_features: length of a vector.
      hash: SHA-256 in hexadecimal of the weights and of what the numbers depend on beside them.
    """

    @property
    def name(self) -> str:
        """Such as `inception` or `lens`."""
        ...

    @property
    def layer(self) -> str:
        """Such as `pool 2048`."""
        ...

    @property
    def num_features(self) -> int:
        """Length of a vector."""
        ...

    @property
    def hash(self) -> str:
        """SHA-256 of the weights and of what the numbers depend on beside them."""
        ...

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """Maps flux `[N, H, W, C]` to float32 `[N, num_features]`, for any N."""
        ...


def check_images(images: np.ndarray) -> None:
    """Checks the shape and the numbers of images.

    Args:
      images: flux per pixel, `[N, H, W, C]`.

    Raises:
      MeasureError: for another shape, or pixels that are NaN or infinite.
    """
    if images.ndim != 4 or 0 in images.shape[1:]:
        remedy = "; add the channel's axis, images[..., None]" if images.ndim == 3 else ""
        raise MeasureError(f"images have shape {images.shape}; needed: [N, H, W, C]{remedy}")
    if not np.issubdtype(images.dtype, np.number) or np.iscomplexobj(images):
        raise MeasureError(f"images are of {images.dtype}; needed: real numbers, flux per pixel")
    bad = np.flatnonzero(~np.isfinite(images).all(axis=(1, 2, 3)))
    if len(bad):
        raise MeasureError(
            f"{len(bad)} of {len(images)} images have pixels that are NaN or infinite, the first "
            f"is number {bad[0]}; leave them out or fill them"
        )


class FunctionExtractor:
    """Any function of images as an extractor."""

    def __init__(
        self,
        function: Callable[[np.ndarray], np.ndarray],
        name: str,
        hash: str,  # the protocol's name
        num_features: int | None = None,
        layer: str = "function",
    ) -> None:
        """Makes an extractor.

        Args:
          function: maps flux, float32 `[N, H, W, C]`, to numbers `[N, D]`, each image by itself.
          name: what the features are called in a report.
          hash: what the features depend on: reference statistics are kept under it, so that it must
            change with the function.
          num_features: D; None to learn it from the first call.
          layer: which of the function's results it is, for a report.
        """
        self.name, self.hash, self.layer = name, hash, layer
        self._function, self._num_features = function, num_features

    @property
    def num_features(self) -> int:
        """Length of a vector.

        Raises:
          MeasureError: where it was not given and nothing was computed yet.
        """
        if self._num_features is None:
            raise MeasureError(
                f"the extractor {self.name} does not know its number of features before its first "
                "call; give num_features"
            )
        return self._num_features

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """Maps flux `[N, H, W, C]` to float32 `[N, num_features]`.

        Raises:
          MeasureError: for images that `check_images` refuses, or another result of the function.
        """
        check_images(images)
        features = np.asarray(self._function(images.astype(np.float32, copy=False)))
        fits = features.ndim == 2 and len(features) == len(images)
        if not fits or self._num_features not in (None, features.shape[1]):
            raise MeasureError(
                f"the function of the extractor {self.name} returned {features.shape} for "
                f"{len(images)} images; needed: [{len(images)}, {self._num_features or 'D'}]"
            )
        self._num_features = features.shape[1]
        return features.astype(np.float32)


def predictions(classifier: LensClassifier, images: np.ndarray) -> Prediction:
    """Returns what a classifier says of images that are judged.

    Raises:
      MeasureError: for images that it cannot take.
    """
    try:
        return classifier.predict(images)
    except RequestError as error:
        raise MeasureError(str(error)) from None


class LensExtractor:
    """The penultimate layer of the classifier that comes with lensjax, trained on Model II.

    It sees flux: an image of another brightness has other features. Images are noise-free, or have
    the noise of Model II and a source magnitude of 20 to 23.
    """

    name = "lens"

    def __init__(self, survey: Survey | None = None) -> None:
        """Loads the network.

        Args:
          survey: the image plane of the images to come; None for that of Model II.

        Raises:
          MeasureError: for another image plane than the network was trained on.
          lensjax.errors.RequestError: for weights that are not those of their card.
        """
        trained, card = pretrained.load_trained(LENS_CLASSIFIER)
        plane = SIMULATED_SETS[trained.dataset["name"]].survey
        if survey is not None and survey != plane:
            raise MeasureError(
                f"the lens classifier was trained on {_plane(plane)}; got {_plane(survey)}. Use "
                "another extractor for these images"
            )
        self.classifier = LensClassifier(trained, card["temperature"])
        self.num_features = trained.config.model.num_features
        self.layer = f"penultimate {self.num_features}"
        self.hash = _hash_of(trained, card)

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """Maps flux `[N, 64, 64, 1]` to float32 `[N, D]`; see `LensClassifier.predict`."""
        check_images(images)
        return predictions(self.classifier, images).features

    def predict_probabilities(self, images: np.ndarray) -> np.ndarray:
        """Maps flux `[N, 64, 64, 1]` to calibrated class probabilities, float32 `[N, 3]`."""
        check_images(images)
        return predictions(self.classifier, images).probabilities


def _plane(survey: Survey) -> str:
    return (
        f"{survey.name} ({survey.num_pixels} pixels of {survey.pixel_scale_arcsec} arcsec, "
        f"{survey.flux_unit}, zero point {survey.zero_point})"
    )


def _hash_of(trained: Trained, card: Mapping[str, Any]) -> str:
    """Returns the SHA-256 of the weights and of what the numbers depend on beside them."""
    parts = {
        "weights": card["sha256"],
        "model": dataclasses.asdict(trained.config.model),
        "scaling": trained.dataset["scaling"],
        "layer": "features before their nonlinearity",
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def extract(
    extractor: Extractor, images: np.ndarray, batch_size: int = BATCH_SIZE
) -> Iterator[np.ndarray]:
    """Returns the features of images batch by batch.

    Args:
      extractor: maps a batch to features.
      images: flux per pixel, `[N, H, W, C]`; read a batch at a time, so that it may be a file
        mapped into memory.
      batch_size: images of a batch; the last may be smaller.

    Returns:
      An iterator of float32 `[B, D]`.

    Raises:
      MeasureError: at once for another shape or fewer than 2 images, and at the batch for NaN in
        pixels or features, or features that do not fit the extractor.
    """
    check_images(images[:0])
    if len(images) < MIN_IMAGES:
        raise MeasureError(f"got {len(images)} image(s); scores need at least {MIN_IMAGES}")
    if batch_size < 1:
        raise MeasureError(f"batch_size: got {batch_size}; allowed: at least 1")
    return _batches(extractor, images, batch_size)


def _batches(extractor: Extractor, images: np.ndarray, size: int) -> Iterator[np.ndarray]:
    for start in range(0, len(images), size):
        batch = np.asarray(images[start : start + size])
        try:
            check_images(batch)
        except ValueError as error:
            raise MeasureError(f"images {start} to {start + len(batch) - 1}: {error}") from None
        features = np.asarray(extractor(batch), np.float32)
        expected = (len(batch), extractor.num_features)
        if features.shape != expected:
            raise MeasureError(
                f"the extractor {extractor.name} returned features {features.shape} for images "
                f"{batch.shape}; needed: {expected}"
            )
        if not np.isfinite(features).all():
            raise MeasureError(
                f"the extractor {extractor.name} returned NaN or infinity for images {start} to "
                f"{start + len(batch) - 1}, whose largest value is {np.abs(batch).max():.3g}"
            )
        yield features


def moments_of(extractor: Extractor, images: np.ndarray, batch_size: int = BATCH_SIZE) -> Moments:
    """Returns the moments of the features of images; see `extract`."""
    moments = Moments()
    for features in extract(extractor, images, batch_size):
        moments.update(features)
    return moments


def features_of(
    extractor: Extractor, images: np.ndarray, batch_size: int = BATCH_SIZE
) -> np.ndarray:
    """Returns the features of all images, float32 `[N, D]`; see `extract`."""
    return np.concatenate(list(extract(extractor, images, batch_size)))
