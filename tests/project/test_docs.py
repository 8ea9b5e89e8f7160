"""The documentation: its links lead somewhere, its tables are the code's, and its tutorials run."""

import os
import pathlib
import re
import subprocess
import sys

import pytest
from run_support import ROOT, environment

DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))]
LINK = re.compile(r"\]\((?!https?:|#|mailto:)([^)#\s]+)")
BLOCK = re.compile(
    r"(?:<!-- test: (?P<flags>.*?) -->\n)?^```(?P<kind>python|sh)\n(?P<code>.*?)^```", re.M | re.S
)
COMMAND = re.compile(r"^(lensjax|python -m lensjax\.main)\b")
EXECUTED = ("first_lenses", "own_images", "survey_fits", "classifier", "judge")


def test_every_link_leads_to_a_file():
    broken = [
        (page.relative_to(ROOT).as_posix(), link)
        for page in PAGES
        for link in LINK.findall(page.read_text())
        if not (page.parent / link).exists()
    ]
    assert broken == []


def test_every_page_is_in_the_navigation():
    navigation = (ROOT / "mkdocs.yml").read_text().partition("nav:")[2]
    named = set(re.findall(r"[\w/]+\.md", navigation))
    there = {page.relative_to(DOCS).as_posix() for page in DOCS.rglob("*.md")}
    assert {"index.md", *there} == named


def test_every_picture_has_a_text():
    bare = [page.name for page in PAGES if re.search(r"!\[\s*\]\(", page.read_text())]
    assert bare == []


def test_the_first_page_is_short():
    assert len((ROOT / "README.md").read_text().splitlines()) <= 150


def test_the_page_of_the_configuration_is_that_of_the_classes(monkeypatch):
    monkeypatch.syspath_prepend(str(DOCS))
    import configuration

    assert configuration.PAGE.read_text() == configuration.page(), (
        "run python docs/configuration.py"
    )


@pytest.mark.nightly
def test_the_site_is_built_without_a_warning_and_asks_no_other_host(tmp_path):
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", tmp_path]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    loaded = re.compile(r"""(?:<link[^>]+href|src)=["']?(https?:)?//|url\(["']?https?:""")
    asking = [
        page.relative_to(tmp_path).as_posix()
        for page in tmp_path.rglob("*.html")
        if loaded.search(page.read_text())
    ]
    assert asking == []
    assert (tmp_path / "tutorials" / "first_lenses.html").is_file()


def _program(page: pathlib.Path) -> str:
    """A tutorial's blocks in order as one Python program; commands of the shell in their places."""
    parts = ["import subprocess"]
    for block in BLOCK.finditer(page.read_text()):
        code, flags = block["code"], block["flags"] or ""
        if block["kind"] == "sh":
            joined = code.replace("\\\n", " ").splitlines()
            lines = [f"{line} {flags}" if COMMAND.match(line) else line for line in joined]
            script = "set -eu\n" + "\n".join(lines)
            code = f"subprocess.run(['bash', '-c', {script!r}], check=True)\n"
        parts.append(code)
    return "\n".join(parts)


@pytest.mark.nightly
@pytest.mark.parametrize("name", EXECUTED)
def test_a_tutorial_runs_as_it_is_written(tmp_path, name):
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    tools = os.path.dirname(sys.executable)
    settings = environment(
        TFDS_DATA_DIR=os.fspath(tmp_path / "sets"),
        PATH=os.pathsep.join([tools, os.environ["PATH"]]),
        MPLBACKEND="agg",
    )
    done = subprocess.run(
        [sys.executable, "-c", _program(DOCS / "tutorials" / f"{name}.md")],
        cwd=tmp_path,
        env=settings,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
    page = (DOCS / "tutorials" / f"{name}.md").read_text()
    shown = [link for link in LINK.findall(page) if link.endswith(".png")]
    assert shown
