"""CITATION.cff: what version 1.2.0 of the format requires, and that it is of this package."""

import re
import tomllib

import yaml
from run_support import ROOT

import lensjax

CONTENT = yaml.safe_load((ROOT / "CITATION.cff").read_text())


def test_it_cites_the_package_as_it_is_declared():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert CONTENT["cff-version"] == "1.2.0"
    assert CONTENT["message"]
    assert CONTENT["authors"]
    assert CONTENT["title"] == project["name"]
    assert CONTENT["version"] == lensjax.__version__
    assert CONTENT["license"] == project["license"]


def test_each_reference_is_complete():
    for reference in CONTENT["references"]:
        assert {"type", "title", "authors"} <= set(reference)
        assert all(set(one) == {"family-names", "given-names"} for one in reference["authors"])
        if reference["type"] == "article":
            assert re.fullmatch(r"10\.\d{4,9}/[-._;()/:a-z0-9]+", reference["doi"])
            assert {"journal", "year", "volume", "start"} <= set(reference)
            assert isinstance(reference["year"], int)
            assert isinstance(reference["start"], str)
        for identifier in reference.get("identifiers", []):
            assert identifier["type"] == "other"
            assert re.fullmatch(r"arXiv:\d{4}\.\d{5}", identifier["value"])
