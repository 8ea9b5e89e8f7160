"""CITATION.cff: the keys that version 1.2.0 of the format requires, and the works cited."""

import re
import tomllib

import pytest
import yaml
from run_support import ROOT

import lensjax

CONTENT = yaml.safe_load((ROOT / "CITATION.cff").read_text())
# Of the format's schema: the keys that occur here, and those that must.
TOP = {
    "cff-version",
    "message",
    "type",
    "title",
    "abstract",
    "version",
    "license",
    "authors",
    "keywords",
    "references",
}
REFERENCE = {
    "type",
    "title",
    "notes",
    "authors",
    "journal",
    "year",
    "volume",
    "issue",
    "start",
    "end",
    "doi",
    "identifiers",
    "repository-code",
}
DOIS = {"10.3847/1538-4357/ab7925", "10.1016/j.dark.2018.11.002", "10.21105/joss.03283"}


def test_the_file_has_the_required_keys_and_no_others():
    assert set(CONTENT) == TOP
    assert CONTENT["cff-version"] == "1.2.0"
    assert CONTENT["type"] == "software"
    assert CONTENT["message"]
    assert CONTENT["authors"] == [{"name": "lensjax contributors"}]


def test_it_cites_the_package_as_it_is_declared():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert CONTENT["title"] == project["name"]
    assert CONTENT["version"] == lensjax.__version__
    assert CONTENT["license"] == project["license"]


@pytest.mark.parametrize("reference", CONTENT["references"], ids=lambda one: one["title"])
def test_each_reference_is_complete(reference):
    assert {"type", "title", "authors"} <= set(reference) <= REFERENCE
    assert all(set(one) == {"family-names", "given-names"} for one in reference["authors"])
    if reference["type"] == "article":
        assert re.fullmatch(r"10\.\d{4,9}/[-._;()/:a-z0-9]+", reference["doi"])
        assert {"journal", "year", "volume", "start"} <= set(reference)
        assert isinstance(reference["year"], int)
        assert isinstance(reference["start"], str)
    else:
        assert reference["type"] == "software"
        assert reference["repository-code"] == "https://github.com/mwt5345/DeepLenseSim"
    for identifier in reference.get("identifiers", []):
        assert identifier["type"] == "other"
        assert re.fullmatch(r"arXiv:\d{4}\.\d{5}", identifier["value"])


def test_the_works_are_those_that_the_data_go_back_to():
    references = CONTENT["references"]
    assert {one["doi"] for one in references if "doi" in one} == DOIS
    values = {part["value"] for one in references for part in one.get("identifiers", [])}
    assert values == {"arXiv:1909.07346", "arXiv:1803.09746"}
