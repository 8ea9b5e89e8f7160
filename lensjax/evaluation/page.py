"""HTML pages, each one file with its pictures inside."""

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
      title: heading above the picture.
      data: PNG as base64.
      caption: text below the picture.
    """

    title: str
    data: str
    caption: str

    @classmethod
    def of(cls, title: str, pixels: np.ndarray, caption: str) -> "Picture":
        """Makes a picture of uint8 `[height, width, 3]`."""
        return cls(title, base64.b64encode(png_bytes(pixels)).decode(), caption)


def write_page(path: pathlib.Path, template: str, **content: Any) -> None:
    """Writes a page, so that the file is complete or does not exist.

    Args:
      path: path of the HTML file.
      template: name of a file in `templates/`, without `.html.jinja`.
      **content: the variables of the template.
    """
    import jinja2

    folder = pathlib.Path(__file__).parent / "templates"
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(folder), autoescape=True, trim_blocks=True
    )
    environment.filters["number"] = number
    page = environment.get_template(f"{template}.html.jinja").render(**content)
    write_text(path, page)
