"""The test split: by content, or by the user's own folders."""

import itertools
import pathlib
import re

import numpy as np
import pytest
from folder_support import (
    CLASSES,
    SIDE,
    pixels,
    scan,
    write,
    write_classes,
)

from lensjax.data.folder.image import digest_of
from lensjax.errors import DataError


def sides(found) -> dict[bytes, str]:
    return {image.digest: image.split for image in found.images}


def test_the_split_is_stable_when_files_are_renamed_and_others_added(tmp_path):
    root = write_classes(tmp_path / "a", num=60)
    before = sides(scan(root))
    for number, path in enumerate(sorted(root.glob("*/*.npy"))):
        path.rename(path.with_name(f"{(number * 37) % 1000}_renamed.npy"))
    assert sides(scan(root)) == before
    write_classes(root, num=90, seed=100_000)
    after = sides(scan(root))
    assert len(after) == 3 * 150
    assert {digest: after[digest] for digest in before} == before


@pytest.mark.parametrize("share", [0.001, 0.05, 0.1, 0.5, 0.9])
def test_the_share_is_near_what_is_asked_and_neither_side_is_empty(tmp_path, share):
    stack = pixels(0, (2000, 8, 8))
    write(tmp_path / "stack.npy", stack)
    found = scan(tmp_path, test_share=share)
    num = len(found.of_split("test"))
    assert num + len(found.of_split("train")) == 2000
    assert abs(num - 2000 * share) <= 4.5 * np.sqrt(2000 * share * (1 - share)) + 1
    assert num >= 1


@pytest.mark.parametrize("num", [2, 3, 5])
@pytest.mark.parametrize("share", [0.001, 0.1, 0.9])
def test_small_classes_have_both_splits(tmp_path, num, share):
    for seed in range(15):
        root = write_classes(tmp_path / str(seed), num=num, seed=100 * seed)
        found = scan(root, test_share=share)
        have = {(image.class_name, image.split) for image in found.images}
        assert have == set(itertools.product(CLASSES, ("train", "test")))


def test_copies_are_on_one_side(tmp_path):
    write_classes(tmp_path, num=30)
    for index in range(30):
        write(tmp_path / "cdm" / f"copy_{index}.npy", pixels(1000 + index).astype(">f4"))
        write(tmp_path / "cdm" / f"another_{index}.npy", pixels(1000 + index)[None])
    found = scan(tmp_path, test_share=0.4)
    assert len(found.images) == 150
    assert len({(one.digest, one.split) for one in found.images}) == 90


# Own folders for the splits --------------------------------------------------------------------


def write_splits(root: pathlib.Path) -> pathlib.Path:
    for number, name in enumerate(("train", "test")):
        write_classes(root / name, seed=50 * number)
    return root


def test_own_splits_are_respected(tmp_path):
    write_splits(tmp_path)
    found = scan(tmp_path, test_share=0.9)
    for image in found.images:
        assert image.split == found.listing.files[image.file].split
    assert len(found.of_split("train")) == len(found.of_split("test")) == 12


@pytest.mark.parametrize("across", ["cdm", "no_sub"])
def test_of_an_image_in_both_splits_the_training_copy_is_left_out(tmp_path, across):
    write_splits(tmp_path)
    leak = pixels(1001)  # the second of cdm in train
    write(tmp_path / "test" / across / "leak.npy", leak.astype("f4"))
    found = scan(tmp_path)
    words = r"train/cdm/001\.npy: has an image of the test split, .*leak\.npy; "
    assert re.search(words, str(found.bad[0]))
    assert [str(error.path) for error in found.bad] == [str(tmp_path / "train/cdm/001.npy")]
    digest = digest_of(leak.astype("f4")[..., None])
    assert [one.split for one in found.images if one.digest == digest] == ["test"]
    assert len(found.images) == 24


def test_of_a_stack_the_leaked_image_alone_is_left_out(tmp_path):
    train, test = pixels(0, (20, SIDE, SIDE)), pixels(1, (5, SIDE, SIDE))
    test[3] = train[13]
    write(tmp_path / "train" / "stack.npy", train)
    write(tmp_path / "test" / "stack.npy", test)
    found = scan(tmp_path)
    assert re.search(r"train/stack\.npy: has in \[13\] an image of the test", str(found.bad[0]))
    assert [image.number for image in found.of_split("train")] == [*range(13), *range(14, 20)]
    assert len(found.of_split("test")) == 5


def test_a_class_that_is_all_leaks_is_an_error(tmp_path):
    write_splits(tmp_path)
    for path in (tmp_path / "train" / "cdm").iterdir():
        write(tmp_path / "test" / "cdm" / f"x{path.name}", np.load(path))
    with pytest.raises(DataError, match=r"class cdm has no image in the train split .*4 bad files"):
        scan(tmp_path, on_bad_file="skip")
