"""JSON files that are damaged, hostile or no files at all: each is refused with a reason."""

import os

import pytest

from lensjax.errors import UnusableError
from lensjax.files import json_file
from lensjax.files.json_file import NAME, NUMBER, POSITIVE, Rule, checked, read_object, whole

FILES = {
    "empty": (b"", "is empty"),
    "blank": (b" \n", "is empty"),
    "cut": (b'{"a": [1, 2', "is no JSON"),
    "list": (b"[1]", "holds no JSON object"),
    "number": (b"3", "holds no JSON object"),
    "bytes": (b'{"a": "\xff\xfe"}', r"is not in UTF-8 \(byte 7\)"),
    "utf16": ('{"a": 1}'.encode("utf-16"), "is not in UTF-8"),
    "twice": (b'{"a": {"b": 1, "b": 2}}', "has 'b' twice"),
    "deep": (b'{"a": ' + b"[" * 100 + b"]" * 100 + b"}", "is nested too deeply"),
    "deeper": (b'{"a": ' + b"[" * 10**5 + b"]" * 10**5 + b"}", "is nested too deeply"),
    "binary": (bytes(range(256)), "is not in UTF-8"),
}


@pytest.mark.parametrize("name", FILES)
def test_what_is_no_sound_object_is_refused(tmp_path, name):
    content, reason = FILES[name]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UnusableError, match=reason):
        read_object(tmp_path / name)


def test_a_pipe_a_folder_and_a_gigabyte_are_not_read(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    with (tmp_path / "long").open("wb") as stream:
        stream.truncate(2**30)
    for name, reason in {
        "pipe": "is not a file",
        "folder": "is not a file",
        "long": "has 1,073,741,824 bytes; allowed: at most 67,108,864",
    }.items():
        with pytest.raises(UnusableError, match=reason):
            read_object(tmp_path / name)
    with pytest.raises(FileNotFoundError):
        read_object(tmp_path / "nothing")


def test_a_mark_at_the_beginning_and_strange_numbers_are_read(tmp_path):
    (tmp_path / "marked").write_bytes(b'\xef\xbb\xbf{"a": 1}')
    assert read_object(tmp_path / "marked") == {"a": 1}
    (tmp_path / "large").write_text(f'{{"a": 1e400, "b": {"9" * 5000}, "c": NaN}}')
    content = read_object(tmp_path / "large")
    for name in content:  # for the rules, which know the name of the field
        for rule in (NUMBER, POSITIVE, whole(0, 10)):
            with pytest.raises(UnusableError, match=f"in.{name} is (inf|nan); allowed: "):
                checked(content, {name: rule}, "in.")


def test_rules_fill_in_what_is_missing_and_keep_what_they_do_not_know():
    rules = {"a": whole(1, 3), "b": NAME.or_missing("none"), "c": NUMBER.or_null()}
    assert checked({"a": 3, "new": {}}, rules) == {"a": 3, "b": "none", "c": None, "new": {}}
    assert checked({"a": 1, "c": None}, rules)["c"] is None
    wrong: tuple[tuple[dict, str], ...] = (
        ({}, r"a is missing; allowed: an integer from 1 to 3"),
        ({"a": True}, "a is True"),
        ({"a": 2.0}, "a is 2.0"),
        ({"a": 1, "b": None}, "b is None"),
        ({"a": 1, "b": ""}, "b is ''; allowed: text of at most 1,000 letters, not empty"),
        ({"a": 1, "b": "x" * 5000}, r"b is 'x{299}\.\.\. \(5,002 letters\); allowed: text"),
    )
    for content, words in wrong:
        with pytest.raises(UnusableError, match=words):
            checked(content, rules)


def test_rules_of_lists_and_objects():
    pair: Rule = whole(0, 9).several(2)
    assert pair.accepts([1, 2])
    assert not any(map(pair.accepts, ([1], [1, 2, 3], [1, 2.0], (1, 2), "12", None)))
    assert whole(0, 9).several().accepts([])
    assert whole(0, 9).by_name().accepts({"any": 1})
    assert not any(map(whole(0, 9).by_name().accepts, ({"any": -1}, [1], None)))
    assert json_file.POSITIVE.accepts(1e-30)
    assert not any(map(POSITIVE.accepts, (0, 1e-300, -1.0, 1e39, 10**400, True, "1")))
