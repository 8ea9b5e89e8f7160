"""Parts of a split: all but a disc of source positions, or the parts to train and validate on.

Every feed reads through the same few indices.
"""

import zlib
from collections.abc import Sequence

import numpy as np
from absl import logging

from lensjax.data.dataset import DatasetInfo, Examples, LensSplit, Split
from lensjax.data.disc import inside
from lensjax.errors import DataError

SOURCE_POSITION = ("source_x_arcsec", "source_y_arcsec")
_READ_BATCH = 1024


class SubsetSplit:
    """The examples of a split at given indices, renumbered 0, 1, 2 ...

    Args:
      split: the whole split.
      indices: places in it, integers `[N]`.
    """

    def __init__(self, split: Split, indices: np.ndarray) -> None:
        self._split = split
        self._indices = indices

    @property
    def info(self) -> DatasetInfo:
        """The description of the whole set; its sizes are those of the whole splits."""
        return self._split.info

    def __len__(self) -> int:
        """The number of images."""
        return len(self._indices)

    def examples(self, indices: np.ndarray) -> Examples:
        """The examples at the given places of the part, integers `[B]`."""
        return self._split.examples(self._indices[indices])

    def parameter_columns(self, names: Sequence[str]) -> np.ndarray:
        """Some parameters of every image of the part, float32 `[N, len(names)]`."""
        return self._split.parameter_columns(names)[self._indices]

    def all_labels(self) -> np.ndarray:
        """The label of every image of the part, int32 `[N]`."""
        return self._split.all_labels()[self._indices]

    def in_memory(self) -> LensSplit:
        """Reads the part, without ever holding the whole split."""
        images = np.empty((len(self), *self.info.image_shape), np.float32)
        labels = np.empty((len(self),), np.int32)
        variance = np.empty_like(images) if self.info.has_variance else None
        for start in range(0, len(self), _READ_BATCH):
            rows = slice(start, start + _READ_BATCH)
            examples = self._split.examples(self._indices[rows])
            images[rows], labels[rows] = examples.images, examples.labels
            if variance is not None and examples.variance is not None:
                variance[rows] = examples.variance
        parameters = self.parameter_columns(self.info.parameter_names)
        return LensSplit(images, labels, parameters, self.info, variance)


def without_disc(split: Split, disc: Sequence[float]) -> Split:
    """The split without the images of all classes whose source lies in a disc.

    Args:
      split: images with the parameters of `SOURCE_POSITION`.
      disc: `(x, y, radius)` in arcsec; `()` returns the split itself.

    Raises:
      DataError: for a set without source positions, or a disc with none or all of its images.
    """
    if not disc:
        return split
    if not set(SOURCE_POSITION) <= set(split.info.parameter_names):
        raise DataError(
            f"data.exclude_source_disc: got {tuple(disc)}; allowed: () for {split.info.name}, "
            "which has no source positions"
        )
    x, y = split.parameter_columns(SOURCE_POSITION).T
    left_out = inside(x, y, disc)
    count = int(left_out.sum())
    if count in (0, len(split)):
        raise DataError(
            f"data.exclude_source_disc: got {tuple(disc)}, which contains the sources of "
            f"{count or 'none'} of the {len(split)} training images of {split.info.name}; allowed: "
            "a disc that contains some of them but not all"
        )
    logging.info(
        "data.exclude_source_disc: %d of the %d training images have their source within %g arcsec "
        "of (%g, %g) and are left out",
        count,
        len(split),
        disc[2],
        disc[0],
        disc[1],
    )
    return SubsetSplit(split, np.flatnonzero(~left_out))


def _first_share(places: np.ndarray, share: float) -> int:
    """The number of places that a share of them amounts to, at least 1."""
    return max(1, round(share * len(places)))


def divide(
    split: Split, seed: int, validation_share: float, label_share: float = 1.0
) -> tuple[Split, Split]:
    """Divides a split by chance, with the same shares of each class in every part.

    The images of a smaller `label_share` are a subset of a larger one's; it never changes the
    validation part.

    Args:
      split: the training split.
      seed: for the order in which examples are taken.
      validation_share: share of each class that goes to the validation part, at least one image.
      label_share: share of the rest that is trained on, at least one image per class.

    Returns:
      The part to train on and the part to validate on.

    Raises:
      DataError: for a class with fewer than two images.
    """
    labels = split.all_labels()
    order = np.random.default_rng([seed, zlib.crc32(b"division")]).permutation(len(split))
    train, validation = [], []
    for label in np.unique(labels):
        places = order[labels[order] == label]
        if len(places) < 2:
            raise DataError(
                f"class {split.info.class_names[label] if split.info.class_names else label} of "
                f"{split.info.name} has {len(places)} training image; needed: at least 2, one to "
                "train on and one to validate on"
            )
        num_validation = min(_first_share(places, validation_share), len(places) - 1)
        rest = places[num_validation:]
        validation.append(places[:num_validation])
        train.append(rest[: _first_share(rest, label_share)])
    train_part, validation_part = (
        SubsetSplit(split, np.sort(np.concatenate(places))) for places in (train, validation)
    )
    return train_part, validation_part
