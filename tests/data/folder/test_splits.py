"""Names of folders that say which split and class their images belong to."""

import itertools

import pytest
from folder_support import scan, write_flat

from lensjax.data.folder.entries import Listing
from lensjax.data.folder.listing import list_files
from lensjax.data.folder.splits import SPLIT_WORDS, looks_like_split, split_of


def places(listing: Listing) -> set[tuple[str | None, str | None]]:
    return {(file.split, file.class_name) for file in listing.files}


BOTH = set(itertools.product(("train", "test"), ("lenses", "others")))


@pytest.mark.parametrize(
    "pattern",
    ["{split}_{name}", "{name}_{split}", "{name}-{split}", "{split}/{name}", "{name}/{split}"],
)
@pytest.mark.parametrize(
    ("train", "test"), [("train", "test"), ("Training", "VAL"), ("TRAIN", "valid")]
)
def test_a_split_before_or_after_a_class_in_any_case(tmp_path, pattern, train, test):
    for index, (split, name) in enumerate(itertools.product((train, test), ("lenses", "others"))):
        folder = tmp_path / pattern.format(split=split, name=name)
        write_flat(folder, 2, seed=10 * index)
    assert places(list_files(tmp_path)) == BOTH
    found = scan(tmp_path)
    assert found.class_names == ("lenses", "others")
    assert len(found.of_split("train")) == len(found.of_split("test")) == 4


def test_older_names_of_classes_are_known_with_splits_too(tmp_path):
    for index, name in enumerate(("train_vort", "test_vort", "train_no", "test_no")):
        write_flat(tmp_path / name, 2, seed=10 * index)
    assert places(list_files(tmp_path)) == set(
        itertools.product(("train", "test"), ("axion", "no_sub"))
    )


def test_val_and_test_are_both_held_out(tmp_path):
    for index, name in enumerate(("train", "val", "test")):
        write_flat(tmp_path / name / "a", 3, seed=10 * index)
        write_flat(tmp_path / name / "b", 3, seed=100 + 10 * index)
    found = scan(tmp_path)
    assert (len(found.of_split("train")), len(found.of_split("test"))) == (6, 12)


@pytest.mark.parametrize("word", SPLIT_WORDS)
def test_words_alone_and_with_a_class(word):
    split = SPLIT_WORDS[word]
    assert split_of(word.upper()) == (split, "")
    assert split_of(f"{word.title()}_my_class") == (split, "my_class")
    assert split_of(f"my-class-{word}") == (split, "my-class")
    assert split_of(f"{word}lenses") == (None, f"{word}lenses")


@pytest.mark.parametrize(
    ("name", "suspicious"),
    [
        *(
            (name, True)
            for name in ("trainset", "TestSet", "lens_train_2", "holdout", "dev", "eval1")
        ),
        *(
            (name, False)
            for name in ("latest", "contest", "trains-free", "validated", "lens", "a1")
        ),
    ],
)
def test_names_that_look_like_a_split(name, suspicious):
    assert looks_like_split(name) == suspicious
