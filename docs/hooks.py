"""What mkdocs does beside its own: README is the front page, and links into the tree work.

Every page is written for the repository, where a link may lead to a result file or a config. The
site has a copy of each file that a page links to, below `repository/`.
"""

import pathlib
import posixpath
import re
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = pathlib.Path(__file__).resolve().parent.parent
_LINK = re.compile(r"(?<=\]\()(?!https?:|#|mailto:)([^)#\s]+)")


def _place(link: str, source: str) -> str:
    """The path in the site's source of what a page links to, relative to `docs/`."""
    path = posixpath.normpath(posixpath.join("docs", posixpath.dirname(source), link))
    if source == "index.md":
        path = posixpath.normpath(link)
    if path == "README.md":
        return "index.md"
    return path.removeprefix("docs/") if path.startswith("docs/") else f"repository/{path}"


def _files_below(path: pathlib.Path) -> list[pathlib.Path]:
    return sorted(p for p in path.rglob("*.md")) if path.is_dir() else [path]


def on_files(files: Files, config: Any) -> Files:
    """Adds the front page and the files that pages link to."""
    files.append(File.generated(config, "index.md", abs_src_path=str(ROOT / "README.md")))
    waiting = [file.src_uri for file in files.documentation_pages()]
    while waiting:
        source = waiting.pop()
        file = files.get_file_from_path(source)
        assert file
        for link in _LINK.findall(file.content_string):
            place = _place(link, source)
            path = ROOT / place.removeprefix("repository/")
            new = place.startswith("repository/") and not files.get_file_from_path(place)
            if new and path.is_file():
                files.append(File.generated(config, place, abs_src_path=str(path)))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:
    """Turns links into the tree into links to the site's copies."""
    source = page.file.src_uri
    if source.startswith("repository/"):
        return _LINK.sub("#", markdown)  # a copy links nowhere

    def moved(match: re.Match) -> str:
        return posixpath.relpath(_place(match[1], source), posixpath.dirname(source) or ".")

    return _LINK.sub(moved, markdown)
