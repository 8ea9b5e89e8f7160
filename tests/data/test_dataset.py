"""What splits have in common."""

import numpy as np
import pytest
from pipeline_support import split_of

from lensjax.data import dataset
from lensjax.data.dataset import first_of_each_class


@pytest.mark.parametrize("num_classes", [3, 0])
@pytest.mark.parametrize("chunk", [1, 5, 1024])
@pytest.mark.parametrize("num", [0, 1, 3, 100])
def test_first_of_each_class(monkeypatch, num_classes, chunk, num):
    monkeypatch.setattr(dataset, "_SEARCH_CHUNK", chunk)
    split = split_of(12, num_classes=num_classes)
    found = first_of_each_class(split, num)
    assert len(found) == max(num_classes, 1)
    for label, images in enumerate(found):
        of_class = [i for i in range(12) if split.labels[i] == label][:num]
        np.testing.assert_array_equal(images, split.images[of_class])


def test_the_search_reads_no_further_than_it_must(monkeypatch):
    monkeypatch.setattr(dataset, "_SEARCH_CHUNK", 2)
    split = split_of(12, num_classes=0)
    read = []

    class Watched:
        info = split.info

        def __len__(self):
            return len(split)

        def examples(self, indices):
            read.extend(indices.tolist())
            return split.examples(indices)

        def parameter_columns(self, names):
            raise AssertionError("nobody needs the parameters")

        def all_labels(self):
            raise AssertionError("nobody needs all labels")

        def in_memory(self):
            raise AssertionError("nobody needs the whole split")

    first_of_each_class(Watched(), 3)
    assert read == [0, 1, 2, 3]


def test_a_split_in_memory_gives_its_examples():
    split = split_of(6)
    images, labels, variance = split.examples(np.array([4, 0, 4]))
    assert variance is None
    np.testing.assert_array_equal(images, split.images[[4, 0, 4]])
    np.testing.assert_array_equal(labels, split.labels[[4, 0, 4]])
    assert split.in_memory() is split
