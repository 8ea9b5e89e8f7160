"""The baseline rows of every table: images that are right, nearly right, or cheap.

A generator is worth something where it scores better than these baselines.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping

import numpy as np

from lensjax.data.simulator import CLASS_NAMES
from lensjax.data.surveys import Survey
from lensjax.errors import BaselineError, CorruptionError
from lensjax.metrics.corruptions import UNKNOWN_FWHM_PIXELS, Images, RealImages, widen_psf
from lensjax.metrics.nearest import nearest_images

BLUR_FACTOR = 1.3
EXPLAINED_VARIANCE = 0.999
# More images cost much more time and add little: the images have few components.
MAX_PCA_IMAGES = 2000


# (training, places of one class, label, number, random) -> float32 [number, H, W, C]
_Function = Callable[[RealImages, np.ndarray, int, int, np.random.Generator], np.ndarray]


def _choose(rows: np.ndarray, num_images: int, random: np.random.Generator) -> np.ndarray:
    if num_images > len(rows):
        raise BaselineError(
            f"num_per_class: got {num_images}; allowed: at most the {len(rows)} training images of "
            "each class"
        )
    return random.choice(rows, num_images, replace=False)


def _simulator(
    training: RealImages,
    rows: np.ndarray,
    label: int,
    num_images: int,
    random: np.random.Generator,
    simulated: str | None = None,
) -> np.ndarray:
    from lensjax.data.arrays import simulate

    if simulated is None:
        raise BaselineError("simulator is not available: these images have no simulator")
    images, _ = simulate(simulated, CLASS_NAMES[label], num_images, int(random.integers(2**31)))
    return images


def _random_training(
    training: RealImages, rows: np.ndarray, label: int, num_images: int, random: np.random.Generator
) -> np.ndarray:
    return training.images[_choose(rows, num_images, random)]


def _neighbour_mean(
    training: RealImages, rows: np.ndarray, label: int, num_images: int, random: np.random.Generator
) -> np.ndarray:
    """The pixel-wise mean of a random training image and its nearest neighbour of the class."""
    if len(rows) < 2:
        raise BaselineError("neighbour_mean is not available: it needs two images of each class")
    places = _choose(np.arange(len(rows)), num_images, random)
    images = training.images[rows]
    nearest = nearest_images(images[places], images, own=places)
    return (images[places] + images[nearest.place[:, 0]]) / 2


def _pca_gaussian(
    training: RealImages, rows: np.ndarray, label: int, num_images: int, random: np.random.Generator
) -> np.ndarray:
    """Normal scores of the principal components that explain 99.9 % of the variance."""
    chosen = random.choice(rows, min(len(rows), MAX_PCA_IMAGES), replace=False)
    flat = training.images[chosen].reshape(len(chosen), -1)
    mean = flat.mean(axis=0, dtype=np.float64)
    centred = (flat - mean[None]).astype(np.float32)
    # The smaller of the two matrices with the same eigenvalues.
    squares, vectors = np.linalg.eigh((centred @ centred.T).astype(np.float64))
    squares, vectors = np.maximum(squares[::-1], 0), vectors[:, ::-1]
    num_components = 1 + int(
        np.searchsorted(np.cumsum(squares), EXPLAINED_VARIANCE * squares.sum())
    )
    # A score is s u with the singular value s; the directions are u^T X / s.
    scores = random.standard_normal((num_images, num_components))
    scores /= np.sqrt(max(len(chosen) - 1, 1))
    drawn = mean[None] + scores @ (vectors[:, :num_components].T @ centred)
    return drawn.reshape(num_images, *training.images.shape[1:])


def _blurred(
    training: RealImages, rows: np.ndarray, label: int, num_images: int, random: np.random.Generator
) -> np.ndarray:
    chosen = _choose(rows, num_images, random)
    real = dataclasses.replace(
        training,
        images=training.images[chosen],
        labels=training.labels[chosen],
        parameters=None if training.parameters is None else training.parameters[chosen],
    )
    return widen_psf(real, 0, BLUR_FACTOR)[0]


_FUNCTIONS: Mapping[str, _Function] = {
    "simulator": _simulator,
    "training": _random_training,
    "neighbour_mean": _neighbour_mean,
    "pca_gaussian": _pca_gaussian,
    "blurred": _blurred,
}
BASELINES = tuple(_FUNCTIONS)


def make(
    name: str,
    train_images: np.ndarray,
    train_labels: np.ndarray,
    num_per_class: int,
    seed: int,
    survey: Survey | None = None,
    parameters: np.ndarray | None = None,
    *,
    simulated: str | None = None,
    psf_fwhm_pixels: float = UNKNOWN_FWHM_PIXELS,
) -> Images:
    """The images of a baseline row.

    Args:
      name: a key of `BASELINES`.
      train_images: flux per pixel, float32 `[N, H, W, C]`.
      train_labels: int32 `[N]`; one value for an unlabelled set.
      num_per_class: images of each class.
      seed: for all choices.
      survey: the DeepLense model of a noise-free simulated set; None blurs `blurred` by a Gaussian.
      parameters: parameters of the images, float32 `[N, P]`, with a survey.
      simulated: the set that `simulator` draws from, such as `model_ii_conserved`; None for the
        set of the survey.
      psf_fwhm_pixels: the blur of images without a survey.

    Returns:
      Images, float32 `[num_per_class x classes, H, W, C]`, class after class, and labels, int32.

    Raises:
      BaselineError: for an unknown name, images that are not finite or do not fit, fewer training
        images than asked for, or `simulator` for images without a simulator.
    """
    if name not in _FUNCTIONS:
        raise BaselineError(f"baseline {name!r} does not exist; allowed: {', '.join(BASELINES)}")
    simulated = simulated or (survey.name if survey else None)
    if num_per_class < 1:
        raise BaselineError(f"num_per_class: got {num_per_class}; allowed: at least 1")
    try:
        training = RealImages(
            train_images, train_labels, survey, parameters, psf_fwhm_pixels=psf_fwhm_pixels
        )
    except CorruptionError as error:
        raise BaselineError(str(error)) from None
    function = _FUNCTIONS[name]
    if name == "simulator":
        function = functools.partial(_simulator, simulated=simulated)
    random = np.random.default_rng(seed)
    classes = np.unique(train_labels)
    class_images = [
        function(training, np.flatnonzero(train_labels == label), int(label), num_per_class, random)
        for label in classes
    ]
    labels = np.repeat(classes, num_per_class).astype(np.int32)
    return np.concatenate(class_images).astype(np.float32), labels
