"""Paths as users write them."""

import dataclasses
import os
import pathlib
from collections.abc import Callable

import pytest
from run_support import tiny_config

from lensjax.cli.export_mode import export_mode
from lensjax.cli.places import check_paths
from lensjax.config import Config, DataConfig, differences, to_dict
from lensjax.config.fields import field_types
from lensjax.config.whole import facts_of_fields
from lensjax.data.prepared import root_of
from lensjax.errors import ConfigError, UserError
from lensjax.evaluation.class_network import _load
from lensjax.evaluation.given import labels_file
from lensjax.files.cache_folder import CACHE_VARIABLE, cache_folder
from lensjax.files.user_paths import expanded, is_same_path
from lensjax.inference.generator import LensGenerator
from lensjax.inference.loading import load
from lensjax.models.inception_weights import VARIABLE, search_weights
from lensjax.run import datasets
from lensjax.training.transfer import scaling_of


@pytest.fixture
def home(tmp_path, monkeypatch) -> pathlib.Path:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("SCRATCH", str(tmp_path / "scratch"))
    monkeypatch.setenv("SHORT", "~/short")
    monkeypatch.setenv("EMPTY", "")
    monkeypatch.delenv("UNSET", raising=False)
    return tmp_path / "home"


def test_home_folders_and_variables_are_replaced(home, tmp_path):
    scratch = tmp_path / "scratch"
    for text, path in {
        "~": home,
        "~/a b": home / "a b",
        "$SCRATCH/x": scratch / "x",
        "${SCRATCH}x": pathlib.Path(f"{scratch}x"),
        "$SHORT/x": home / "short" / "x",
        "runs/w=[64,128]": pathlib.Path("runs/w=[64,128]"),
        "runs/5$": pathlib.Path("runs/5$"),
        "a~b": pathlib.Path("a~b"),
        "$1/x": pathlib.Path("$1/x"),
    }.items():
        assert expanded(text, "--workdir") == path
        assert expanded(pathlib.Path(text), "--workdir") == path


@pytest.mark.parametrize("text", ["$UNSET/x", "${UNSET}", "a/$EMPTY", "$SCRATCH/$UNSET"])
def test_a_variable_that_is_not_set_is_named(home, text):
    with pytest.raises(
        ConfigError, match=r"^data\.folder: got .*variable (UNSET is not set|EMPTY is empty)"
    ):
        expanded(text, "data.folder")


def test_a_path_that_exists_is_taken_as_it_is_written(home, tmp_path):
    (tmp_path / "$UNSET").mkdir()
    (home / "$SCRATCH").mkdir(parents=True)
    assert expanded(tmp_path / "$UNSET", "x") == tmp_path / "$UNSET"
    assert expanded("~/$SCRATCH", "x") == home / "$SCRATCH"
    with pytest.raises(ConfigError):
        expanded(tmp_path / "$UNSET" / "new", "x")


def test_the_same_folder_in_other_words(home):
    assert is_same_path("~/x", str(home / "x"))
    assert is_same_path("$HOME/./x", "~/x/")
    assert not is_same_path("~/x", "~/y")
    assert not is_same_path("$UNSET/x", "~/x")
    assert not is_same_path(None, "~/x")
    for path, facts in facts_of_fields().items():
        if facts.get("path") and not facts.get("resumable"):
            section, _, field = path.rpartition(".")
            old, new = to_dict(Config()), to_dict(Config())
            old[section][field], new[section][field] = "~/x", str(home / "x")
            assert differences(old, new) == []
            new[section][field] = str(home / "y")
            assert len(differences(old, new)) == 1


def _resolve_export(text: str) -> None:
    export_mode(tiny_config(export={"folder": text}), pathlib.Path("."))


def _resolve_guide(text: str) -> None:
    LensGenerator._load_guide(None, text, None)  # type: ignore[arg-type]


def _resolve_start(text: str) -> None:
    config = Config()
    classify = dataclasses.replace(config.classify, start_from=text)
    scaling_of(dataclasses.replace(config, classify=classify))


def _resolve_folder(text: str) -> None:
    datasets.prepare(DataConfig(name="deeplense/folder", folder=text))


# What reads each field that holds a path; it ends with an error that has the path.
READERS: dict[str, Callable[[str], object]] = {
    "data.folder": _resolve_folder,
    "data.directory": lambda text: datasets.prepare(DataConfig(directory=text)),
    "classify.start_from": _resolve_start,
    "sample.guide_workdir": _resolve_guide,
    "evaluate.labels": lambda text: labels_file(
        pathlib.Path("x"), dataclasses.replace(Config().evaluate, labels=text)
    ),
    "evaluate.classifier": _load,
    "evaluate.inception_weights": search_weights,
    "evaluate.cache": cache_folder,
    "export.folder": _resolve_export,
}


@pytest.mark.parametrize("field", READERS)
def test_what_reads_a_path_expands_it(home, field):
    for text in ("$UNSET/x", "~nobody_of_this_name/x"):
        with pytest.raises(ConfigError, match=rf"^{field.replace('.', '[.]')}: got"):
            READERS[field](text)


def test_every_field_that_holds_a_path_is_known_to():
    """A new field of text that may be None is a path, or stands here."""
    facts = facts_of_fields()
    paths = {path for path in facts if facts[path].get("path")}
    assert paths == set(READERS)
    texts = {
        f"{section.name}.{name}"
        for section in dataclasses.fields(Config)
        if dataclasses.is_dataclass(section.default)
        for name, kind in field_types(type(section.default)).items()
        if kind == (str | None)
    }
    assert texts - paths == {"data.files", "data.group", "parallel.coordinator"}


@pytest.mark.parametrize("field", READERS)
def test_a_command_refuses_a_path_before_any_work(home, field):
    section, _, name = field.partition(".")
    config = Config()
    changed = dataclasses.replace(getattr(config, section), **{name: "$UNSET/x"})
    config = dataclasses.replace(config, **{section: changed})
    with pytest.raises(ConfigError, match=rf"^{field.replace('.', '[.]')}: got .*UNSET is not set"):
        check_paths("evaluate", config)
    if section == "data":
        check_paths("sample", config)  # which reads no data set


def test_variables_of_the_environment_and_calls_from_python(home, tmp_path, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", "$SCRATCH/sets")
    assert root_of(None) == tmp_path / "scratch" / "sets"
    monkeypatch.setenv(CACHE_VARIABLE, "${SCRATCH}/cache")
    assert cache_folder() == tmp_path / "scratch" / "cache"
    readers: dict[str, Callable[[], object]] = {
        "TFDS_DATA_DIR": lambda: root_of(None),
        CACHE_VARIABLE: cache_folder,
        VARIABLE: search_weights,
    }
    for variable, call in readers.items():
        monkeypatch.setenv(variable, "$UNSET/x")
        with pytest.raises(ConfigError, match=rf"{variable}: got .*UNSET is not set"):
            call()
    for call in (
        lambda: load("$UNSET/run"),
        lambda: datasets.load_data("model_ii_mini", "test", directory="$UNSET/x"),
        lambda: datasets.load_data("folder", "test", folder="$UNSET/x"),
    ):
        with pytest.raises(UserError, match="UNSET is not set"):
            call()
    assert not os.path.exists("$UNSET")
