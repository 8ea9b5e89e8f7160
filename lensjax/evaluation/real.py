"""The real images of an evaluation: the test split, and training images where they are needed."""

import functools

import numpy as np

from lensjax.config import Config
from lensjax.config.evaluate import MOST_IMAGES_UNASKED
from lensjax.data.augmentation import central_cut_out
from lensjax.data.dataset import LensSplit, Split
from lensjax.data.prepared import PreparedSet
from lensjax.data.subset import SubsetSplit
from lensjax.errors import ConfigError, DataError

_CHUNK = 1024


def first_places(split: Split, num: int) -> np.ndarray:
    """The places of the first images of each class, at most `num` each, in their order.

    An unlabelled set counts as one class. Reads no further than it has to.
    """
    num_classes = max(1, split.info.num_classes)
    counts = np.zeros(num_classes, int)
    found = []
    for start in range(0, len(split), _CHUNK):
        places = np.arange(start, min(start + _CHUNK, len(split)))
        labels = np.minimum(split.examples(places).labels, num_classes - 1)
        for label in range(num_classes):
            chosen = places[labels == label][: num - counts[label]]
            counts[label] += len(chosen)
            found.append(chosen)
        if counts.min() >= num:
            break
    return np.sort(np.concatenate(found))


class RealImages:
    """The test split, and lazily the training images.

    Args:
      config: the configuration.
      prepared: the data set.

    Raises:
      DataError: for a set with pixels that were not measured.
      ConfigError: for more images than the test split has.
    """

    def __init__(self, config: Config, prepared: PreparedSet) -> None:
        self._prepared = prepared
        self._margin = config.data.shift_pixels
        test = prepared.open_split("test")
        self.info = test.info
        if self.info.masked:
            raise DataError(
                f"{self.info.name} has pixels without a measurement, which no measure takes; "
                "allowed for --mode=evaluate: data.nan_policy=fill"
            )
        asked = config.evaluate.num_images
        part = SubsetSplit(test, first_places(test, asked or MOST_IMAGES_UNASKED)).in_memory()
        num_classes = max(1, self.info.num_classes)
        counts = np.bincount(np.minimum(part.labels, num_classes - 1), minlength=num_classes)
        if asked is not None and counts.min() < asked:
            raise ConfigError(
                "evaluate.num_images",
                asked,
                f"allowed: at most the {counts.min()} images a class in the test split",
            )
        self.per_class = int(counts.min())
        if self.per_class < 2:
            raise DataError(
                f"{self.info.name} has {self.per_class} test images in a class; at least 2 are "
                "needed (data.test_share)"
            )
        self.test = self._cut(SubsetSplit(part, first_places(part, self.per_class)).in_memory())

    def _cut(self, split: LensSplit) -> LensSplit:
        images = central_cut_out(split.images, self._margin)
        return LensSplit(images, split.labels, split.parameters, split.info)

    @functools.lru_cache(maxsize=2)  # noqa: B019 (lives as long as one evaluation)
    def train(self, num: int) -> LensSplit:
        """The first training images of each class, at most `num` each."""
        split = self._prepared.open_split("train")
        return self._cut(SubsetSplit(split, first_places(split, num)).in_memory())
