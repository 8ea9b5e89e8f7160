"""Names of folders that say which split, and perhaps which class, their images belong to."""

import re

SPLIT_WORDS = {
    "train": "train",
    "training": "train",
    "test": "test",
    "val": "test",
    "valid": "test",
    "validation": "test",
}
LAYOUTS = (
    "train/CLASS/FILES and test/CLASS/FILES, CLASS/train/FILES and CLASS/test/FILES, or "
    "train_CLASS/FILES and test_CLASS/FILES (or CLASS_train, CLASS_test), with or without classes; "
    f"the words are {', '.join(SPLIT_WORDS)}"
)
_WORDS = "|".join(sorted(SPLIT_WORDS, key=len, reverse=True))
_IN_FRONT = re.compile(f"({_WORDS})[-_]+(.+)", re.IGNORECASE)
_BEHIND = re.compile(f"(.+?)[-_]+({_WORDS})", re.IGNORECASE)
# Words that look like a split; where they are not one of ours, nobody knows what is meant.
_SUSPICIOUS = {
    *SPLIT_WORDS,
    *("trainset", "trainingset", "trn", "tests", "testing", "testset", "tst", "valset"),
    *("validset", "validating", "eval", "evaluation", "dev", "holdout", "heldout"),
}
_PIECES = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")


def split_of(name: str) -> tuple[str | None, str]:
    """The split that a folder's name states, and the rest of the name.

    Args:
      name: such as `train`, `Test_lenses` or `lenses-val`.

    Returns:
      `train`, `test` or None, and the name of the class; empty where the name is a split's alone.
    """
    if name.lower() in SPLIT_WORDS:
        return SPLIT_WORDS[name.lower()], ""
    if match := _IN_FRONT.fullmatch(name):
        return SPLIT_WORDS[match[1].lower()], match[2]
    if match := _BEHIND.fullmatch(name):
        return SPLIT_WORDS[match[2].lower()], match[1]
    return None, name


def looks_like_split(name: str) -> bool:
    """Whether a part of a name is a word for a split, such as `trainset1`."""
    return any(piece.lower() in _SUSPICIOUS for piece in _PIECES.findall(name))
