"""The real images of an evaluation: the test split, and training images where they are needed."""

import dataclasses
import functools

import numpy as np

from lensjax.config import Config
from lensjax.config.evaluate import MOST_IMAGES_UNASKED
from lensjax.data.augmentation import central_cut_out
from lensjax.data.dataset import LensSplit, Split
from lensjax.data.prepared import PreparedSet
from lensjax.data.subset import SubsetSplit
from lensjax.errors import ConfigError, DataError
from lensjax.evaluation.filling import fill_masked

_CHUNK = 1024


def first_places(split: Split, per_class: int) -> np.ndarray:
    """The places of the first images of each class, at most `per_class` each, ascending.

    An unlabelled set counts as one class. Reading stops once every class has enough images.
    """
    num_classes = max(1, split.info.num_classes)
    counts = np.zeros(num_classes, int)
    selected = []
    for start in range(0, len(split), _CHUNK):
        places = np.arange(start, min(start + _CHUNK, len(split)))
        labels = np.minimum(split.examples(places).labels, num_classes - 1)
        for label in range(num_classes):
            chosen = places[labels == label][: per_class - counts[label]]
            counts[label] += len(chosen)
            selected.append(chosen)
        if counts.min() >= per_class:
            break
    return np.sort(np.concatenate(selected))


class RealImages:
    """The test split, and lazily the training images.

    Args:
      config: the configuration.
      prepared: the data set.

    Raises:
      DataError: for a class with fewer than two test images.
      ConfigError: for more images than the test split has.
    """

    def __init__(self, config: Config, prepared: PreparedSet) -> None:
        self._prepared = prepared
        self._margin = config.data.shift_pixels
        self.share_filled = 0.0  # of the pixels, which were not measured
        test = prepared.open_split("test")
        self.info = test.info
        asked = config.evaluate.num_images
        candidates = SubsetSplit(test, first_places(test, asked or MOST_IMAGES_UNASKED)).in_memory()
        num_classes = max(1, self.info.num_classes)
        counts = np.bincount(np.minimum(candidates.labels, num_classes - 1), minlength=num_classes)
        if asked is not None and counts.min() < asked:
            raise ConfigError(
                "evaluate.num_images",
                asked,
                f"allowed: at most the {counts.min()} images per class in the test split",
            )
        self.per_class = int(counts.min())
        if self.per_class < 2:
            raise DataError(
                f"{self.info.name} has {self.per_class} test images in a class; at least 2 are "
                "needed (data.test_share)"
            )
        places = first_places(candidates, self.per_class)
        self.test = self._cut(SubsetSplit(candidates, places).in_memory())

    def _cut(self, split: LensSplit) -> LensSplit:
        images, share = fill_masked(central_cut_out(split.images, self._margin))
        self.share_filled = max(self.share_filled, share)
        return dataclasses.replace(split, images=images)

    @functools.lru_cache(maxsize=2)  # noqa: B019 (lives as long as one evaluation)
    def train(self, per_class: int) -> LensSplit:
        """The first training images of each class, at most `per_class` each."""
        split = self._prepared.open_split("train")
        return self._cut(SubsetSplit(split, first_places(split, per_class)).in_memory())
