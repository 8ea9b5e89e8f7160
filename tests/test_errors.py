"""One family of errors: whatever a user can put right, said in one line."""

import inspect
import pickle
import types

import pytest
from hypothesis import given, settings, strategies

from lensjax import errors

FAMILY = [
    one
    for _, one in inspect.getmembers(errors, inspect.isclass)
    if one.__module__ == errors.__name__
]
ARGUMENTS: dict[str, tuple] = {
    "ConfigError": ("train.batch_size", 0, "allowed: 1"),
    "BadFileError": ("a.npy", "cut"),
    "AmbiguousError": ("two planes", ("A", "B"), ("A",)),
    "AmbiguousFileError": ("a.fits", "two planes", ("A", "B"), ("A",)),
}


@pytest.mark.parametrize("one", FAMILY, ids=lambda one: one.__name__)
def test_every_error_is_a_user_error_and_travels_between_processes(one):
    assert issubclass(one, errors.UserError)
    if one is not errors.UserError:
        assert issubclass(one, (ValueError, RuntimeError, OSError))
    error = one(*ARGUMENTS.get(one.__name__, ("what is wrong",)))
    again = pickle.loads(pickle.dumps(error))
    assert (type(again), str(again)) == (one, str(error))


def test_a_config_error_says_field_value_and_what_is_allowed():
    error = errors.ConfigError("train.batch_size", "x", "allowed: an integer")
    assert str(error) == "train.batch_size: got 'x'; allowed: an integer"


def test_a_name_that_is_no_text_can_be_said():
    assert str(errors.BadFileError(b"a\xff.npy".decode(errors="surrogateescape"), "is cut")) == (
        "a\\xff.npy: is cut"
    )


@settings(max_examples=200, deadline=None)
@given(strategies.text(strategies.characters()))
def test_nothing_that_controls_a_terminal_is_printed(text):
    shown = errors.printable(text, keep="")
    assert shown.isprintable()
    assert errors.printable(shown, keep="") == shown
    if text.isprintable():
        assert shown == text


def test_lines_of_a_message_are_kept():
    assert errors.printable("a\n\tb\x1b[2J\x9b\udcff\u202e") == (
        "a\n\tb\\x1b[2J\\x9b\\udcff\\u202e"
    )


@pytest.fixture
def fails_with(monkeypatch, capsys):
    """Runs `main` with a mode that raises an error; returns exit status and what it printed."""
    from lensjax import main
    from lensjax.cli import modes
    from lensjax.config import default_config

    def call(error: Exception) -> tuple[object, str]:
        def run(*arguments):
            raise error

        flags = {"_CONFIG": default_config(), "_WORKDIR": "w", "_MODE": "train"}
        flags |= {"_IMAGES": None, "_OUTPUT": None}
        for name, value in flags.items():
            monkeypatch.setattr(main, name, types.SimpleNamespace(value=value))
        monkeypatch.setattr(main, "_set_up_logging", lambda: None)
        monkeypatch.setattr(modes, "run", run)
        with pytest.raises(SystemExit) as caught:
            main.main(["lensjax"])
        return caught.value.code, capsys.readouterr().err

    return call


@pytest.mark.parametrize("one", FAMILY, ids=lambda one: one.__name__)
def test_every_one_of_them_ends_the_command_line_with_its_text_alone(one, fails_with):
    error = one(*ARGUMENTS.get(one.__name__, ("what is wrong",)))
    assert fails_with(error) == (2, f"lensjax: {error}\n")


def test_a_fault_of_lensjax_itself_is_not_hidden(monkeypatch, fails_with):
    with pytest.raises(ZeroDivisionError):
        fails_with(ZeroDivisionError())
