"""Divides a training split: a part to validate on, and a part of the rest whose labels are used."""

import zlib

import numpy as np

from lensjax.data.dataset import Split
from lensjax.data.subset import SubsetSplit
from lensjax.errors import DataError


def _first_share(places: np.ndarray, share: float) -> int:
    """Returns how many of some places a share is; at least one where it is not 0."""
    return max(1, round(share * len(places)))


def divide(
    split: Split, seed: int, validation_share: float, label_share: float = 1.0
) -> tuple[Split, Split]:
    """Divides a split by chance, with the same shares of each class in every part.

    A smaller `label_share` takes a part of what a larger one takes, and never touches the
    validation part.

    Args:
      split: the training split.
      seed: of the order in which examples are taken.
      validation_share: share of each class that goes to the validation part, at least one image.
      label_share: share of the rest that is trained on, at least one image a class.

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
        num = min(_first_share(places, validation_share), len(places) - 1)
        rest = places[num:]
        validation.append(places[:num])
        train.append(rest[: _first_share(rest, label_share)])
    parts = (np.sort(np.concatenate(part)) for part in (train, validation))
    chosen, kept_back = (SubsetSplit(split, part) for part in parts)
    return chosen, kept_back
