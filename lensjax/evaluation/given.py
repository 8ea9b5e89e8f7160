"""Images of any generator, from a file: `--images=FILE.npy`."""

import pathlib

import numpy as np

from lensjax.config import EvaluateConfig
from lensjax.data.dataset import DatasetInfo
from lensjax.errors import ConfigError, DataError
from lensjax.files.array_file import read_array
from lensjax.files.user_paths import expanded
from lensjax.metrics import image_input


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
    allowed = f"[N, {height}, {width}, {channels}]"
    if channels == 1:
        allowed += " or without the last axis"
        if images.shape[1:] == (height, width):
            images = images[..., None]
    return image_input.check_images(
        images,
        origin,
        shape=info.image_shape,
        min_count=2,
        allowed=f"{allowed}, as in {info.name}",
        error=DataError,
    )


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
    return path / "images.npy" if path.is_dir() else path


def labels_file(path: pathlib.Path, settings: EvaluateConfig) -> pathlib.Path | None:
    """The file of the labels of `--images`; None if there is no such file.

    Args:
      path: the file or folder that `--images` names.
      settings: `labels` says where the labels are.
    """
    if settings.labels is not None:
        return expanded(settings.labels, "evaluate.labels")
    beside = _images_file(path).with_name("labels.npy")
    return beside if beside.is_file() else None


def read_images(
    path: pathlib.Path, settings: EvaluateConfig, info: DatasetInfo
) -> tuple[np.ndarray, np.ndarray]:
    """Reads images and labels of any generator.

    Args:
      path: a `.npy` file, or a folder with `images.npy`.
      settings: `labels` says where the labels are.
      info: the data set that they are compared with.

    Returns:
      Images, float32 `[N, H, W, C]`, and labels, int32 `[N]`: the null label for all where no
      labels are known.

    Raises:
      DataError: for files that do not fit the set.
    """
    file = _images_file(path)
    images = check_images(read_array(file, "--images"), info, f"--images={file}")
    if settings.labels is not None and not info.num_classes:
        raise ConfigError(
            "evaluate.labels", settings.labels, f"allowed: None, {info.name} has no classes"
        )
    source = labels_file(path, settings)
    if source is None or not info.num_classes:
        return images, np.full(len(images), info.num_classes, np.int32)
    name = "labels" if settings.labels is None else "evaluate.labels"
    return images, check_labels(read_array(source, name), len(images), info, str(source))
