"""A training split in parts: disjoint, with the same shares of each class, and always the same."""

import dataclasses
import itertools

import numpy as np
import pytest
from pipeline_support import split_of

from lensjax.data.dataset import LensSplit
from lensjax.data.subset import divide
from lensjax.errors import DataError


def labelled(*counts: int) -> LensSplit:
    """A split with so many images of each class, in an order by chance."""
    split = split_of(sum(counts), (2, 1, 1), len(counts))
    labels = np.repeat(np.arange(len(counts), dtype=np.int32), counts)
    labels = np.random.default_rng(7).permutation(labels)
    return dataclasses.replace(split, labels=labels)


def places(part) -> list[int]:
    """Returns the places of a part's images in the whole split, read off their pixels."""
    return (part.examples(np.arange(len(part))).images[:, 0, 0, 0] / 2).astype(int).tolist()


def counts_of(part) -> list[int]:
    return np.bincount(part.all_labels(), minlength=3).tolist()


def test_the_parts_are_disjoint_and_together_the_whole():
    split = labelled(40, 20, 100)
    train, validation = divide(split, 0, 0.2)
    found = places(train) + places(validation)
    assert sorted(found) == list(range(160))
    for part in (train, validation):
        assert places(part) == sorted(places(part))  # disks read forwards
        images, labels, _ = part.examples(np.arange(len(part)))
        np.testing.assert_array_equal(images, split.images[places(part)])
        np.testing.assert_array_equal(labels, split.labels[places(part)])
        np.testing.assert_array_equal(part.all_labels(), labels)
        assert part.info is split.info


@pytest.mark.parametrize(
    ("validation_share", "label_share", "train", "validation"),
    [
        (0.2, 1.0, [32, 16, 80], [8, 4, 20]),
        (0.5, 1.0, [20, 10, 50], [20, 10, 50]),
        (0.2, 0.5, [16, 8, 40], [8, 4, 20]),
        (0.2, 0.1, [3, 2, 8], [8, 4, 20]),
        (0.001, 1e-5, [1, 1, 1], [1, 1, 1]),
    ],
)
def test_every_class_gives_the_same_share(validation_share, label_share, train, validation):
    parts = divide(labelled(40, 20, 100), 0, validation_share, label_share)
    assert [counts_of(part) for part in parts] == [train, validation]


def test_fewer_labels_are_some_of_the_more_and_leave_the_validation_part_alone():
    split = labelled(40, 20, 100)
    found = [divide(split, 3, 0.25, share) for share in (1.0, 0.5, 0.2, 0.1, 0.01)]
    for (more, validation), (fewer, other) in itertools.pairwise(found):
        assert set(places(fewer)) < set(places(more))
        assert places(other) == places(validation)


def test_the_seed_alone_decides():
    split = labelled(40, 20, 100)
    first, again, other = (places(divide(split, seed, 0.25)[1]) for seed in (0, 0, 1))
    assert first == again
    assert first != other
    # By chance, and not the first of each class.
    assert 60 < np.mean(first) < 100


@pytest.mark.parametrize("counts", [(2, 2), (2, 1000), (3, 2)])
def test_two_images_of_a_class_are_enough(counts):
    for share in (0.001, 0.5):
        train, validation = divide(labelled(*counts), 0, share)
        assert min(counts_of(train)[:2]) >= 1
        assert min(counts_of(validation)[:2]) >= 1


def test_one_image_of_a_class_is_too_few():
    message = r"^class b of test/set has 1 training image; needed: at least 2, one to train on and"
    with pytest.raises(DataError, match=message):
        divide(labelled(5, 1), 0, 0.2)


def test_an_unlabelled_set_is_divided_as_one_class():
    split = split_of(20, num_classes=0)
    train, validation = divide(split, 0, 0.25)
    assert (len(train), len(validation)) == (15, 5)
    with pytest.raises(DataError, match="class 0 of test/set has 1 training image"):
        divide(split_of(1, num_classes=0), 0, 0.25)
