"""HTML pages: one file each, with pictures inside."""

import base64
import pathlib
from typing import Any, NamedTuple

import numpy as np

from lensjax.evaluation.tables import number
from lensjax.files.atomic import write_text
from lensjax.run.figures import png_bytes


class Picture(NamedTuple):
    """A picture of a page.

    Attributes:
      title: above it.
      data: PNG as base64.
      caption: below it.
    """

    title: str
    data: str
    caption: str

    @classmethod
    def of(cls, title: str, pixels: np.ndarray, caption: str) -> "Picture":
        """Makes a picture of uint8 `[height, width, 3]`."""
        return cls(title, base64.b64encode(png_bytes(pixels)).decode(), caption)


def write_page(path: pathlib.Path, template: str, **content: Any) -> None:
    """Writes a page, so that the file is whole or not there.

    Args:
      path: of the HTML file.
      template: name of a file in `templates/`, without `.html.jinja`.
      **content: what the template asks for.
    """
    import jinja2

    folder = pathlib.Path(__file__).parent / "templates"
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(folder), autoescape=True, trim_blocks=True
    )
    environment.filters["number"] = number
    page = environment.get_template(f"{template}.html.jinja").render(**content)
    write_text(path, page)
