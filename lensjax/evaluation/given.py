"""Images of any generator, from files: `--images=FILE`, or a folder of files."""

import contextlib
import pathlib
from collections import Counter

import numpy as np
from absl import logging

from lensjax.config import EvaluateConfig
from lensjax.config.evaluate import MOST_IMAGES_UNASKED
from lensjax.data.dataset import DatasetInfo
from lensjax.data.units import Suspicion, evidence, summarise, suspicion
from lensjax.errors import ConfigError, DataError, printable_name
from lensjax.files.array_file import read_array
from lensjax.files.atomic import read_together
from lensjax.files.foreign import read_foreign
from lensjax.files.planes import PlaneRules
from lensjax.files.user_paths import expanded
from lensjax.metrics import image_input

_THE_ONLY_IMAGE = PlaneRules()


def check_images(images: np.ndarray, info: DatasetInfo, origin: str) -> np.ndarray:
    """Images as float32 `[N, H, W, C]`.

    Args:
      images: `[N, H, W]` or `[N, H, W, C]`, numbers.
      info: the data set that they are compared with.
      origin: their source, for messages.

    Raises:
      DataError: for fewer than two images, another size, or pixels that are not finite.
    """
    height, width, channels = info.image_shape
    if channels == 1 and images.shape[1:] == (height, width):
        images = images[..., None]
    return image_input.check_images(
        images,
        origin,
        shape=info.image_shape,
        min_count=2,
        allowed=_allowed_shape(info),
        error=DataError,
    )


def _allowed_shape(info: DatasetInfo) -> str:
    height, width, channels = info.image_shape
    without = " or without the last axis" if channels == 1 else ""
    return f"[N, {height}, {width}, {channels}]{without}, as in {info.name}"


def check_labels(labels: np.ndarray, num_images: int, info: DatasetInfo, origin: str) -> np.ndarray:
    """Labels as int32 `[num_images]`.

    Args:
      labels: integers `[num_images]`.
      num_images: number of images.
      info: the data set that has their classes.
      origin: their source, for messages.

    Raises:
      DataError: for another number of labels, or classes that the set does not have.
    """
    if labels.shape != (num_images,) or labels.dtype.kind not in "iu":
        raise DataError(
            f"{origin}: the labels are {labels.dtype} {list(labels.shape)}; allowed: integers "
            f"[{num_images}], one for each image"
        )
    if labels.min() < 0 or labels.max() >= info.num_classes:
        names = ", ".join(f"{index} {name}" for index, name in enumerate(info.class_names))
        raise DataError(
            f"{origin}: the labels go from {labels.min()} to {labels.max()}; allowed: {names}"
        )
    return labels.astype(np.int32)


def _images_file(path: pathlib.Path) -> pathlib.Path:
    """The file that a folder of `--mode=sample` stands for; any other path stands for itself."""
    drawn = path / "images.npy"
    return drawn if drawn.is_file() else path


def labels_file(path: pathlib.Path, settings: EvaluateConfig) -> pathlib.Path | None:
    """The file of the labels of `--images`; None if there is no such file.

    Args:
      path: the file or folder that `--images` names.
      settings: `labels` says where the labels are.
    """
    if settings.labels is not None:
        return expanded(settings.labels, "evaluate.labels")
    beside = (path if path.is_dir() else path.parent) / "labels.npy"
    return beside if beside.is_file() else None


def read_images(
    path: pathlib.Path,
    settings: EvaluateConfig,
    info: DatasetInfo,
    real: np.ndarray | None = None,
    rules: PlaneRules = _THE_ONLY_IMAGE,
    fits_rules: PlaneRules = _THE_ONLY_IMAGE,
) -> tuple[np.ndarray, np.ndarray]:
    """Reads images and labels of any generator, as many as an evaluation can use.

    Args:
      path: a file of images, or a folder: its `images.npy`, as `--mode=sample` writes it, or else
        all image files below it, in the order of their names.
      settings: `labels` says where the labels are, `image_scale` and `image_factor` in which unit
        the images are, and `num_images` how many are used.
      info: the data set that they are compared with.
      real: some of its images, flux `[M, H, W, C]`; None checks no units.
      rules: which planes of the files are images.
      fits_rules: the same for FITS files, where `rules` names no plane.

    Returns:
      Images, float32 `[N, H, W, C]` divided by `image_factor`, and labels, int32 `[N]`: the null
      label for all where no labels are known. These are the first images of each class, or the
      first of all.

    Raises:
      DataError: for files that do not fit the set, or images in other units than its flux.
    """
    if settings.labels is not None and not info.num_classes:
        raise ConfigError(
            "evaluate.labels", settings.labels, f"allowed: None, {info.name} has no classes"
        )
    source = labels_file(path, settings)
    labels: np.ndarray | None = None
    images_file = _images_file(path)
    with contextlib.nullcontext() if images_file == path else read_together(path):
        if source is not None and info.num_classes:
            name = "labels" if settings.labels is None else "evaluate.labels"
            labels = read_array(source, name)
        images, places, num_images = _read(
            images_file, source, settings, info, labels, (rules, fits_rules)
        )
    if labels is None:
        labels = np.full(num_images, info.num_classes, np.int32)
    else:
        labels = check_labels(labels, num_images, info, str(source))
    if settings.image_factor is not None:
        images /= np.float32(settings.image_factor)
    if real is not None:
        _check_units(images, settings, info, real, path)
    return images, labels[places]


def _read(
    path: pathlib.Path,
    labels_at: pathlib.Path | None,
    settings: EvaluateConfig,
    info: DatasetInfo,
    labels: np.ndarray | None,
    rules: tuple[PlaneRules, PlaneRules],
) -> tuple[np.ndarray, np.ndarray, int]:
    """Reads all images and keeps those that an evaluation can use.

    Returns:
      Images, float32 `[K, H, W, C]`; their places among all, `[K]`; how many there are.
    """
    most = settings.num_images or MOST_IMAGES_UNASKED
    if labels is None:  # one group with as many images as the classes together
        most *= max(1, info.num_classes)
    # Labels that are too few or no integers are refused once all images are counted.
    countable = labels is not None and labels.ndim == 1 and labels.dtype.kind in "iu"
    groups = labels if labels is not None and countable else np.empty(0, np.int32)
    counts = Counter[int]()
    kept: list[np.ndarray] = []
    places: list[int] = []
    index = -1
    leave_out = [path / "labels.npy", *([labels_at] if labels_at else [])]
    images = read_foreign(
        path,
        "evaluate",
        image_shape=info.image_shape,
        leave_out=leave_out,
        rules=rules[0],
        fits_rules=rules[1],
    )
    for index, (name, image) in enumerate(images):
        _check_image(image.pixels, info, name)
        label = int(groups[index]) if index < len(groups) else 0
        if counts[label] < most:
            counts[label] += 1
            kept.append(image.pixels)
            places.append(index)
    origin = f"--images={printable_name(path)}"
    stacked = np.stack(kept) if kept else np.empty((0, *info.image_shape), np.float32)
    return check_images(stacked, info, origin), np.asarray(places, int), index + 1


def _check_image(pixels: np.ndarray, info: DatasetInfo, name: str) -> None:
    if pixels.shape != info.image_shape:
        raise DataError(
            f"--images, {name}: got an image of shape {pixels.shape}; allowed: "
            f"{_allowed_shape(info)}"
        )
    if not np.isfinite(pixels).all():
        raise DataError(
            f"--images, {name}: pixels are NaN or infinite; allowed: finite numbers (leave out or "
            "fill such images)"
        )


def _check_units(
    images: np.ndarray,
    settings: EvaluateConfig,
    info: DatasetInfo,
    real: np.ndarray,
    path: pathlib.Path,
) -> None:
    """Refuses images that are plainly not in the unit that they are said to have.

    A factor that the user gave is taken; images that still look wrong are judged with a warning.
    """
    given, usual = summarise(images), summarise(real)
    asked = settings.image_factor is None
    found = suspicion(given, usual)
    if found is None or not _matters(found, settings):
        return
    message = (
        f"--images={printable_name(path)}: the images look {found.words}, not like "
        f"evaluate.image_scale={settings.image_scale}: {evidence(given, usual, info.flux_unit)}"
    )
    if not (found.certain and asked):
        logging.warning("%s. If they are, set evaluate.%s", message, found.remedy)
        return
    raise DataError(
        f"{message}. Judged so, every number would be about the unit. Set evaluate.{found.remedy}, "
        f"{_REMEDIES[found.remedy.partition('=')[0]]}; evaluate.image_factor=1 judges them as they "
        "are"
    )


_REMEDIES = {
    "image_scale": "after which fluxes are not tested, or evaluate.image_factor=FACTOR if you know "
    "how many times the flux they are",
    "image_factor": "or to the exact factor, by which they are then divided",
}


def _matters(found: Suspicion, settings: EvaluateConfig) -> bool:
    """Whether a suspicion speaks against the scale that the images are said to have."""
    if settings.image_scale == "flux":
        return True
    return settings.image_scale == "max" and found.remedy == "image_scale=minmax"
