"""From a trained classifier to classes: `lensjax.load(workdir).classify(images)`."""

import functools
import os
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from absl import logging
from jax import Array

from lensjax.arguments import array_of, truth
from lensjax.config import Config
from lensjax.config.model import CLASSIFY
from lensjax.data.flux_range import outside
from lensjax.data.pipeline import to_batch
from lensjax.devices.chunks import map_chunks
from lensjax.errors import RequestError
from lensjax.inference.restoring import restore_task
from lensjax.inference.trained import Trained
from lensjax.metrics.classification import softmax
from lensjax.metrics.image_input import check_images
from lensjax.models.classifiers import ClassifierOutput
from lensjax.run import stored
from lensjax.run import workdir as files
from lensjax.run.networks import make_image_fn


class Prediction(NamedTuple):
    """The output of a classifier for N images.

    Attributes:
      features: the penultimate layer before its nonlinearity, float32 `[N, D]`.
      logits: float32 `[N, K]`, not calibrated.
      probabilities: calibrated, float32 `[N, K]`.
    """

    features: np.ndarray
    logits: np.ndarray
    probabilities: np.ndarray


class Classification(NamedTuple):
    """The most probable class of each image.

    Attributes:
      label: its index, int32 `[N]`.
      class_name: its name, N of them.
      probability: its calibrated probability, float32 `[N]`.
      probabilities: one for each class, float32 `[N, K]`.
    """

    label: np.ndarray
    class_name: tuple[str, ...]
    probability: np.ndarray
    probabilities: np.ndarray


def resize(images: np.ndarray, height: int, width: int) -> np.ndarray:
    """Images `[N, H, W, C]` on another grid of pixels with the same total flux.

    It is the same to 1 % for structures wider than a pixel; single bright pixels differ more.

    Args:
      images: flux per pixel, float32.
      height: rows of the result.
      width: columns of the result.
    """
    count, rows, columns, channels = images.shape
    shape = (count, height, width, channels)
    resized = jax.image.resize(jnp.asarray(images), shape, "linear", antialias=True)
    return np.asarray(resized) * np.float32(rows * columns / (height * width))


class LensClassifier:
    """A trained network that tells classes of lenses apart.

    Args:
      trained: the run.
      temperature: divides the logits before the softmax, so that probabilities are calibrated.
    """

    def __init__(self, trained: Trained, temperature: float) -> None:
        dataset = trained.dataset
        self.config = trained.config
        self.folder = trained.folder
        self.params = trained.params
        self.step = trained.step
        self.ema = trained.ema
        self.temperature = temperature
        self.scaling = trained.scaling
        self.class_names: tuple[str, ...] = tuple(dataset["class_names"])
        self.image_shape: tuple[int, int, int] = tuple(dataset["image_shape"])
        self.band_names: tuple[str, ...] = tuple(dataset.get("band_names", ()))
        self.flux_unit: str = dataset["flux_unit"]
        self.published_scale: float = dataset["published_scale"]
        self.pixel_scale_arcsec: float | None = dataset["pixel_scale_arcsec"]
        self.data_name: str = dataset["name"]
        self.data_fingerprint: str = dataset["fingerprint"]
        self._flux_ranges = dataset.get("flux_ranges", [])
        self._said_unchecked = False

    @functools.cached_property
    def _apply(self) -> Any:
        classify, scaling = make_image_fn(self.config), self.scaling

        def apply(params: Any, flux: Array) -> ClassifierOutput:
            images = to_batch(scaling, flux, jnp.zeros(len(flux), jnp.int32)).image
            return classify(params, images, None)

        return jax.jit(apply)

    def _checked(self, images: np.ndarray, resized: bool) -> np.ndarray:
        """Images as float32 `[N, H, W, C]` of the network's size."""
        resized = truth("resize", resized)
        images = array_of("images", images, "real numbers, flux per pixel")
        height, width, channels = self.image_shape
        if channels == 1 and images.ndim in (2, 3) and images.shape[-1] != 1:
            images = images[..., None]
        if images.ndim == 3 and images.shape[-1] == channels:
            images = images[None]
        size = f"[N, {height}, {width}, {channels}]"
        images = check_images(
            images,
            shape=(None, None, channels),
            min_side=1,
            min_count=0,
            allowed=f"{size} or without the last axis" if channels == 1 else size,
            error=RequestError,
        )
        if self.scaling.kind == "sqrt" and images.min(initial=0.0) < 0:
            raise RequestError(
                f"images: got a pixel of {images.min():g}; allowed with data.scaling=sqrt: pixels "
                "of 0 or more"
            )
        if images.shape[1:3] == (height, width):
            return images
        if not resized:
            raise RequestError(
                f"images: got {images.shape[1]}x{images.shape[2]} pixels; allowed: {height}x{width}"
                ", the size that the network was trained on. classify(images, resize=True), or "
                "--config.classify.resize=True, resizes them and keeps their flux; use it only if "
                "they cover the same field of view"
            )
        return resize(images, height, width)

    def outside(self, images: np.ndarray, *, resize: bool = False) -> list[str]:
        """Says of each image by which number it is unlike the training images.

        Compared are mean, brightest and faintest pixel, standard deviation and noise. They tell
        images in another unit or scale, and many of another telescope; not a galaxy that is no
        lens.

        Args:
          images: see `predict`.
          resize: see `predict`.

        Returns:
          A text for each image, empty for one like the training images; all are empty for a run of
          an older lensjax, which does not say what its images were like.

        Raises:
          RequestError: see `predict`.
        """
        return self._outside(self._checked(images, resize))

    def _outside(self, images: np.ndarray) -> list[str]:
        if self._flux_ranges:
            return outside(self._flux_ranges, images)
        if not self._said_unchecked:
            logging.info(
                "%s was trained by an older lensjax and does not say what its images were like; "
                "whether these images are like them is not checked",
                self.folder or "this classifier",
            )
            self._said_unchecked = True
        return [""] * len(images)

    def _warn(self, images: np.ndarray) -> None:
        reasons = self._outside(images)
        strange = [index for index, reason in enumerate(reasons) if reason]
        if strange:
            logging.warning(
                "%d of %d images are unlike the training images in %s, so their classes mean "
                "little; the first is number %d: its %s",
                len(strange),
                len(reasons),
                self.flux_unit,
                strange[0],
                reasons[strange[0]],
            )

    def predict(self, images: np.ndarray, *, resize: bool = False, warn: bool = True) -> Prediction:
        """Features, logits and probabilities.

        Images are computed in chunks of `classify.batch_size`, the last chunk padded; the output
        for an image depends on that image alone.

        Args:
          images: flux per pixel in `flux_unit`, `[N, H, W, C]`, `[N, H, W]` or one image.
          resize: whether images of another size are resized.
          warn: whether to log a warning for images unlike the training images; see `outside`.

        Raises:
          RequestError: for images of another shape or with pixels that are not finite.
        """
        images = self._checked(images, resize)
        if warn:
            self._warn(images)
        size = self.config.classify.batch_size
        asked = images if len(images) else np.zeros((1, *self.image_shape), np.float32)
        # For the same features on every device: accelerators would round products to fewer bits.
        with jax.default_matmul_precision("highest"):
            output = map_chunks(functools.partial(self._apply, self.params), size, asked)
        features, logits = (rows[: len(images)] for rows in output)
        strange = np.flatnonzero(~np.isfinite(logits).all(axis=1))
        if len(strange):
            raise RequestError(
                f"image {strange[0]} gives logits that are not finite; allowed: fluxes like those "
                f"of the training images, in {self.flux_unit}"
            )
        if not len(images):
            return Prediction(features, logits, logits)
        return Prediction(features, logits, softmax(logits, self.temperature))

    def classify(
        self, images: np.ndarray, *, resize: bool = False, warn: bool = True
    ) -> Classification:
        """The most probable class of each image.

        Args:
          images: flux per pixel in `flux_unit`, `[N, H, W, C]`, `[N, H, W]` or one image.
          resize: whether images of another size are resized, keeping their flux.
          warn: whether to log a warning for images unlike the training images; see `outside`.

        Raises:
          RequestError: for images of another shape or with pixels that are not finite.
        """
        probabilities = self.predict(images, resize=resize, warn=warn).probabilities
        label = probabilities.argmax(axis=1).astype(np.int32)
        names = tuple(self.class_names[index] for index in label)
        return Classification(label, names, probabilities.max(axis=1), probabilities)


def load_classifier(
    workdir: str | os.PathLike,
    config: Config | None = None,
    step: int | None = None,
    ema: bool | str = True,
) -> LensClassifier:
    """Loads a trained classifier; needs neither the data set nor TensorFlow.

    Args:
      workdir: the run's folder.
      config: the run's configuration, with other values for its use; None for the run's own.
      step: the checkpoint; None for the lowest validation loss.
      ema: see `lensjax.load`.

    Raises:
      ConfigError: for a run whose network is not a classifier.
      RequestError: for an average that the run does not keep.
      lensjax.errors.WorkdirError: if the folder is not a run's.
      lensjax.errors.CheckpointError: if the checkpoint is missing or damaged.
    """
    trained = restore_task(CLASSIFY, workdir, config, step, ema)
    return LensClassifier(trained, _temperature(trained))


def _temperature(trained: Trained) -> float:
    """The temperature that a validation fitted for these parameters; 1 without a validation."""
    if trained.folder is None:  # a network that comes with lensjax
        return 1.0 if trained.temperature is None else trained.temperature
    path = trained.folder / files.CLASSIFIER_FILE
    if not path.exists():
        return 1.0
    validation = stored.read_stored(path, stored.CLASSIFIER)
    if validation["step"] != trained.step or trained.ema != trained.config.sample.ema:
        return 1.0
    return float(validation["temperature"])
