"""Scores of a classifier: how often it is right, and how well it ranks and is calibrated.

Everything is computed in float64 from probabilities, so that a network, a baseline of one number
and an ensemble are scored alike.
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from lensjax.arguments import array_of, finite_number, whole_number
from lensjax.errors import MeasureError, shown

NUM_BINS = 15
MAX_POINTS = 400
TEMPERATURE_LIMITS = (0.05, 20.0)
_SUM_TOLERANCE = 1e-3
_MIN_CLASSES = 2


class Scores(NamedTuple):
    """How good probabilities of K classes are. A class without an image has NaN.

    Attributes:
      class_names: the K names.
      num_images: N.
      accuracy: share of the images whose most probable class is right.
      accuracy_error: its binomial standard error, at (right + 1) / (N + 2) so that it is never 0.
      recall: share of the images of each class that are recognised, float64 `[K]`.
      auc: area under each class's curve against all others, float64 `[K]`.
      macro_auc: unweighted mean of `auc` over the classes that have images.
      confusion: number of images of each class (rows) predicted as each class (columns), int64
        `[K, K]`.
      log_loss: mean -ln of the true class's probability in nats. A probability below 2.2e-16 counts
        as 2.2e-16, so that one image costs at most 36.
      ece: expected calibration error, see `Reliability.ece`, with 15 bins.
    """

    class_names: tuple[str, ...]
    num_images: int
    accuracy: float
    accuracy_error: float
    recall: np.ndarray
    auc: np.ndarray
    macro_auc: float
    confusion: np.ndarray
    log_loss: float
    ece: float

    def to_dict(self) -> dict[str, Any]:
        """The scores in types of JSON: arrays of `[K]` by class name, None for NaN."""

        def by_name(values: np.ndarray) -> dict[str, float | None]:
            numbers = (None if math.isnan(value) else value for value in values.tolist())
            return dict(zip(self.class_names, numbers, strict=True))

        changed = {
            "class_names": list(self.class_names),
            "recall": by_name(self.recall),
            "auc": by_name(self.auc),
            "confusion": self.confusion.tolist(),
        }
        return self._asdict() | changed


class RocCurve(NamedTuple):
    """Receiver operating characteristic of one class against all others.

    Attributes:
      false_positive_rate: rising from 0 to 1, float64 `[P]`; empty for a class without an image.
      true_positive_rate: at the same thresholds, float64 `[P]`.
      auc: area under the full curve, before points were left out; NaN for an empty curve.
    """

    false_positive_rate: np.ndarray
    true_positive_rate: np.ndarray
    auc: float


class Reliability(NamedTuple):
    """Accuracy by the probability of the most probable class, in bins of equal width from 0 to 1.

    Bin i holds the images with a probability above i / B and up to (i + 1) / B. An empty bin has
    NaN.

    Attributes:
      confidence: mean probability of the most probable class, float64 `[B]`.
      accuracy: share of the images where that class is right, float64 `[B]`.
      num_images: in each bin, int64 `[B]`.
    """

    confidence: np.ndarray
    accuracy: np.ndarray
    num_images: np.ndarray

    @property
    def ece(self) -> float:
        """Mean of |accuracy - confidence| over the images (arXiv:1706.04599, equation 3)."""
        filled = self.num_images > 0
        gap = np.abs(self.accuracy[filled] - self.confidence[filled])
        return float(np.average(gap, weights=self.num_images[filled]))


def _check_table(table: np.ndarray, name: str) -> np.ndarray:
    """Checks a table `[N, K]` and converts it to float64."""
    table = array_of(name, table, error=MeasureError)
    if table.ndim != 2 or table.shape[1] < _MIN_CLASSES or not len(table):
        raise MeasureError(
            f"{name} have shape {table.shape}; allowed: [N, K], N at least 1 and K at least 2"
        )
    bad = ~np.isfinite(table).all(axis=1)
    if bad.any():
        raise MeasureError(
            f"{np.sum(bad)} of {len(table)} rows of {name} are not finite, the first is number"
            f" {np.argmax(bad)}; leave these images out and report their number"
        )
    return table.astype(np.float64)


def _check_labels(labels: np.ndarray, num_images: int, num_classes: int) -> np.ndarray:
    labels = array_of("labels", labels, "integers", kinds="iu", error=MeasureError)
    if labels.shape != (num_images,):
        raise MeasureError(
            f"labels have shape {labels.shape} and type {labels.dtype}; allowed: integers"
            f" [{num_images}], one for each image"
        )
    if labels.min() < 0 or labels.max() >= num_classes:
        raise MeasureError(
            f"labels go from {labels.min()} to {labels.max()}; allowed: 0 to"
            f" {num_classes - 1}; leave out images without a class"
        )
    return labels.astype(np.int64)


def _check(labels: np.ndarray, probabilities: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Labels int64 `[N]` and probabilities float64 `[N, K]`.

    Rows are not divided by their sums, since that would break ties between images.
    """
    probabilities = _check_table(probabilities, "probabilities")
    labels = _check_labels(labels, *probabilities.shape)
    total = probabilities.sum(axis=1)
    bad = (np.abs(total - 1) > _SUM_TOLERANCE) | (probabilities.min(axis=1) < 0)
    if bad.any():
        first = int(np.argmax(bad))
        raise MeasureError(
            f"{np.sum(bad)} of {len(bad)} rows of probabilities are negative or do not sum to 1,"
            f" the first is number {first}: {probabilities[first].tolist()}; pass logits through"
            " softmax first"
        )
    return labels, probabilities


def _check_present(labels: np.ndarray) -> None:
    present = np.unique(labels)
    if len(present) < _MIN_CLASSES:
        raise MeasureError(
            f"all {len(labels)} images have label {present[0]}; the area under a curve of one"
            " class against the others has no meaning: score images of at least 2 classes"
        )


def _check_names(class_names: Sequence[str], num_classes: int) -> tuple[str, ...]:
    names = tuple(class_names) if isinstance(class_names, (list, tuple)) else ()
    if (
        not all(isinstance(name, str) for name in names)
        or len(names) != num_classes
        or len(set(names)) != num_classes
    ):
        raise MeasureError(
            f"class_names are {shown(class_names)}; allowed: {num_classes} different names, one for"
            " each column of the probabilities"
        )
    return names


def score(labels: np.ndarray, probabilities: np.ndarray, class_names: Sequence[str]) -> Scores:
    """Scores the probabilities that a classifier gives.

    Args:
      labels: the true classes, integers `[N]` in 0 to K - 1.
      probabilities: `[N, K]`, rows that sum to 1 within 1e-3.
      class_names: the K names.

    Raises:
      MeasureError: for shapes, labels, probabilities or names that are not as above, or fewer than
        two classes among the labels.
    """
    from sklearn.metrics import accuracy_score, log_loss

    labels, probabilities = _check(labels, probabilities)
    _check_present(labels)
    count, num_classes = probabilities.shape
    names = _check_names(class_names, num_classes)
    predicted = probabilities.argmax(axis=1)
    confusion = confusion_counts(labels, predicted, num_classes)
    right = float(accuracy_score(labels, predicted, normalize=False))
    smooth = (right + 1) / (count + 2)
    images = confusion.sum(axis=1)
    normalised = probabilities / probabilities.sum(axis=1, keepdims=True)
    auc = class_areas(labels, probabilities)
    return Scores(
        class_names=names,
        num_images=count,
        accuracy=right / count,
        accuracy_error=math.sqrt(smooth * (1 - smooth) / count),
        recall=np.where(images > 0, np.diag(confusion) / np.maximum(images, 1), np.nan),
        auc=auc,
        macro_auc=float(np.nanmean(auc)),
        confusion=confusion,
        log_loss=float(log_loss(labels, normalised, labels=range(num_classes))),
        ece=reliability(labels, probabilities).ece,
    )


def confusion_counts(labels: np.ndarray, taken: np.ndarray, num_classes: int) -> np.ndarray:
    """Counts the images of each class (rows) predicted as each class (columns), int64 `[K, K]`.

    Args:
      labels: the true classes, integers `[N]` in 0 to K - 1.
      taken: the predicted classes, integers `[N]` in 0 to K - 1.
      num_classes: K.
    """
    from sklearn.metrics import confusion_matrix

    return confusion_matrix(labels, taken, labels=range(num_classes)).astype(np.int64)


def class_areas(labels: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """Computes the area under each class's curve against all others, float64 `[K]`.

    NaN for a class without an image, and for a class that has all images.

    Args:
      labels: integers `[N]` in 0 to K - 1.
      probabilities: `[N, K]`.
    """
    from sklearn.metrics import roc_auc_score

    areas = np.full(probabilities.shape[1], np.nan)
    present = np.unique(labels)
    for label in present if len(present) > 1 else ():
        areas[label] = roc_auc_score(labels == label, probabilities[:, label])
    return areas


def roc_curves(labels: np.ndarray, probabilities: np.ndarray) -> list[RocCurve]:
    """The curve of each class against all others, at most 400 points each.

    These points lie evenly along the curve, so that a steep beginning keeps its shape.

    Args:
      labels: integers `[N]` in 0 to K - 1.
      probabilities: `[N, K]`, rows that sum to 1 within 1e-3.

    Raises:
      MeasureError: as `score`.
    """
    labels, probabilities = _check(labels, probabilities)
    _check_present(labels)
    areas = class_areas(labels, probabilities)
    return [
        _curve(labels == label, probabilities[:, label], float(area))
        for label, area in enumerate(areas)
    ]


def _curve(of_class: np.ndarray, probability: np.ndarray, area: float) -> RocCurve:
    from sklearn.metrics import roc_curve

    if not of_class.any():
        return RocCurve(np.empty(0), np.empty(0), math.nan)
    false_positive_rate, true_positive_rate, _ = roc_curve(of_class, probability)
    along = false_positive_rate + true_positive_rate  # from 0 to 2
    points = np.unique(np.searchsorted(along, np.linspace(0, along[-1], MAX_POINTS)))
    return RocCurve(false_positive_rate[points], true_positive_rate[points], area)


def reliability(
    labels: np.ndarray, probabilities: np.ndarray, num_bins: int = NUM_BINS
) -> Reliability:
    """Compares how sure a classifier is with how often it is right.

    Args:
      labels: integers `[N]` in 0 to K - 1.
      probabilities: `[N, K]`, rows that sum to 1 within 1e-3.
      num_bins: number of bins B, at least 1.

    Raises:
      MeasureError: for shapes, labels, probabilities or a number of bins that are not as above.
    """
    labels, probabilities = _check(labels, probabilities)
    num_bins = whole_number("num_bins", num_bins, 1, error=MeasureError)
    confidence = probabilities.max(axis=1)
    right = probabilities.argmax(axis=1) == labels
    place = np.clip(np.ceil(confidence * num_bins).astype(int) - 1, 0, num_bins - 1)
    count = np.bincount(place, minlength=num_bins)

    def means(values: np.ndarray) -> np.ndarray:
        sums = np.bincount(place, values, minlength=num_bins)
        return np.where(count > 0, sums / np.maximum(count, 1), np.nan)

    return Reliability(means(confidence), means(right), count)


def softmax(logits: np.ndarray, temperature: float = 1.0) -> np.ndarray:
    """The probabilities of logits, computed in float64, as float32 `[N, K]`.

    Args:
      logits: `[N, K]`.
      temperature: divisor of the logits, above 0.

    Raises:
      MeasureError: for another shape, logits that are not finite, or a temperature that is not
        finite and above 0.
    """
    from scipy.special import softmax as scipy_softmax

    words = "a finite number above 0"
    temperature = finite_number("temperature", temperature, words, above=0, error=MeasureError)
    return scipy_softmax(_check_table(logits, "logits") / temperature, axis=1).astype(np.float32)


def fit_temperature(logits: np.ndarray, labels: np.ndarray) -> float:
    """The temperature whose softmax(logits / T) has the least log loss.

    Temperature scaling (Guo et al. 2017, arXiv:1706.04599, section 4.2). Use images by which
    neither the network nor its stopping point was chosen. The loss has one minimum in T, searched
    between 0.05 and 20. Where every image is recognised the loss falls with T, and the result is
    the lower end.

    Args:
      logits: `[N, K]`.
      labels: integers `[N]` in 0 to K - 1.

    Raises:
      MeasureError: for other shapes, logits that are not finite, or labels out of range.
    """
    from scipy.optimize import minimize_scalar
    from scipy.special import logsumexp

    logits = _check_table(logits, "logits")
    labels = _check_labels(labels, *logits.shape)
    # Logits minus the logit of the true class: the loss is the mean of ln sum exp(above / T).
    above = logits - logits[np.arange(len(labels)), labels][:, None]

    def loss(log_temperature: float) -> float:
        return float(np.mean(logsumexp(above / math.exp(log_temperature), axis=1)))

    low, high = (math.log(limit) for limit in TEMPERATURE_LIMITS)
    minimum = minimize_scalar(loss, bounds=(low, high), method="bounded", options={"xatol": 1e-5})
    return float(np.clip(math.exp(minimum.x), *TEMPERATURE_LIMITS))
