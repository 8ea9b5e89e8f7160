"""Images of other programs, from a file or a folder that a user names with `--images`."""

import itertools
import os
import pathlib
import re
from collections.abc import Collection, Iterator

from lensjax.errors import BadFileError, DataError, printable_name
from lensjax.files.file_image import LAYOUTS, FileImage
from lensjax.files.image_files import SUFFIXES, is_fits, is_image_file, read_images
from lensjax.files.planes import PlaneRules

# What the reader of data sets says of the fields that settle a doubtful shape or choose planes.
_SHAPE = "has the shape"
_ADVICE = re.compile(r"; (if it is one, )?set data\.layout.*")
_BANDS = ", and data.bands=channels if they are bands of one image"
_THE_ONLY_IMAGE = PlaneRules()


def _files(path: pathlib.Path, leave_out: Collection[pathlib.Path]) -> list[pathlib.Path]:
    """A file, or all image files below a folder, by name."""
    if not path.exists():
        raise DataError(
            f"--images={printable_name(path)} does not exist; allowed: a file or a folder of images"
        )
    if not path.is_dir():
        return [path]
    below = sorted(
        pathlib.Path(folder) / name
        for folder, _, names in os.walk(path)
        for name in names
        if is_image_file(name) and not name.startswith(".")
    )
    files = [file for file in below if file not in leave_out]
    if not files:
        raise DataError(
            f"--images={printable_name(path)} holds no images; allowed: files with one of the "
            f"suffixes {', '.join(SUFFIXES)}, in this folder or below it"
        )
    return files


def read_foreign(
    path: pathlib.Path,
    section: str,
    *,
    layout: str | None = None,
    image_shape: tuple[int, int, int] | None = None,
    leave_out: Collection[pathlib.Path] = (),
    rules: PlaneRules = _THE_ONLY_IMAGE,
    fits_rules: PlaneRules = _THE_ONLY_IMAGE,
) -> Iterator[tuple[str, FileImage]]:
    """Reads the images of a file, or of all files below a folder in the order of their names.

    Args:
      path: the file or folder.
      section: of the configuration that says how they are read, `evaluate` or `classify`.
      layout: its field `layout`, one of `LAYOUTS`; None for a section without one.
      image_shape: `(H, W, C)` that is expected; settles which axis is which where `auto` cannot.
      leave_out: files of the folder that hold no images.
      rules: which planes of a file are images.
      fits_rules: the same for FITS files, where `rules` names no plane.

    Yields:
      The name of an image in messages, such as `b/deep.npz [3]`, and the image.

    Raises:
      DataError: for a path that does not exist, a folder without images, or a file that cannot be
        used.
    """
    for file in _files(path, leave_out):
        name = printable_name(file.relative_to(path) if path.is_dir() else file.name)
        try:
            own = fits_rules if not rules.planes and is_fits(file) else rules
            for image in _images(file, layout or "auto", image_shape, own):
                yield f"{name}{image.place and ' '}{image.place}", image
        except DataError as error:
            message = str(error) if layout is not None else _ADVICE.sub("", str(error))
            for field in ("layout", "planes"):
                message = message.replace(f"data.{field}", f"{section}.{field}")
            raise DataError(message.replace(_BANDS, "")) from None


def _images(
    file: pathlib.Path,
    layout: str,
    image_shape: tuple[int, int, int] | None,
    rules: PlaneRules,
) -> Iterator[FileImage]:
    """The images of one file, with the axes that give them the expected shape, if any do."""
    if image_shape is None or layout != "auto":
        return read_images(file, layout, rules)
    errors = []
    fallback: Iterator[FileImage] | None = None
    for candidate in LAYOUTS:  # `auto` is the first
        images = read_images(file, candidate, rules)
        try:
            first = next(images, None)
        except BadFileError as error:
            errors.append(error)
            continue
        if first is None or first.pixels.shape == image_shape:
            return itertools.chain([first] if first else [], images)
        if candidate == "auto":
            fallback = itertools.chain([first], images)
    if fallback is not None:  # the caller says which shape it wants
        return fallback
    # The axes are no news where something else is wrong too.
    raise next((error for error in errors if _SHAPE not in error.reason), errors[0])
