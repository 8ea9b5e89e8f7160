"""`--mode=classify`: the class of each image of a file, a stack or a folder, as a table."""

import csv
import itertools
import os
import pathlib
from collections import Counter
from collections.abc import Iterator

import numpy as np
from absl import logging

from lensjax.config import Config
from lensjax.errors import ConfigError, DataError, RequestError, printable_name
from lensjax.files.atomic import replacing
from lensjax.files.image_files import SUFFIXES, FileImage, is_image_file, read_images
from lensjax.inference.classifier import LensClassifier, load_classifier

CSV_FILE = "classified.csv"
_LINES_SHOWN = 20


def _files(path: pathlib.Path) -> list[pathlib.Path]:
    """A file, or all image files below a folder, by name."""
    if not path.exists():
        raise DataError(f"--images={path} does not exist; allowed: a file or a folder of images")
    if not path.is_dir():
        return [path]
    files = sorted(
        pathlib.Path(folder) / name
        for folder, _, names in os.walk(path)
        for name in names
        if is_image_file(name) and not name.startswith(".")
    )
    if not files:
        raise DataError(
            f"--images={path} holds no images; allowed: files with one of the suffixes "
            f"{', '.join(SUFFIXES)}, in this folder or below it"
        )
    return files


def _images(path: pathlib.Path, layout: str) -> Iterator[tuple[str, FileImage]]:
    """Yields the images of all files and where each lies."""
    for file in _files(path):
        name = printable_name(file.relative_to(path) if path.is_dir() else file.name)
        try:
            for image in read_images(file, layout):
                yield f"{name}{image.place and ' '}{image.place}", image
        except DataError as error:  # the reader names the field of data sets
            raise DataError(str(error).replace("data.layout", "classify.layout")) from None


def _chunks(
    images: Iterator[tuple[str, FileImage]], classifier: LensClassifier, config: Config
) -> Iterator[tuple[list[str], np.ndarray]]:
    """Yields names and pixels `[B, H, W, C]` of images of one shape, in their order."""
    settings = config.classify
    scale = classifier.published_scale if settings.image_scale == "published" else 1.0
    for _, group in itertools.groupby(images, key=lambda pair: pair[1].pixels.shape):
        while chunk := list(itertools.islice(group, settings.batch_size)):
            names = [name for name, _ in chunk]
            yield names, np.stack([image.pixels for _, image in chunk]) / np.float32(scale)


def _row(name: str, label: str, probabilities: np.ndarray) -> list[str]:
    values = [f"{value:.6f}" for value in (probabilities.max(), *probabilities)]
    return [name, label, *values]


def classify_mode(config: Config, folder: pathlib.Path, images: pathlib.Path | None) -> None:
    """Classifies images; prints a table and writes it as a CSV file in the workdir.

    A row has the image, its class, the probability of this class, and that of each class.

    Args:
      config: the configuration of the run; `classify.*` says how images are taken.
      folder: the workdir of a trained classifier.
      images: a file, or a folder whose files are all read.

    Raises:
      DataError: for files that are not there or cannot be used, or images that do not fit.
      ConfigError: without images, or for the workdir of a run without a classifier.
      lensjax.errors.WorkdirError: if the folder is not a run's.
      lensjax.errors.CheckpointError: if there is no sound checkpoint.
    """
    if images is None:
        raise ConfigError(
            "--images", None, "allowed: a file or a folder of images for --mode=classify"
        )
    classifier = load_classifier(folder, config)
    path, counts = folder / CSV_FILE, Counter[str]()
    shown: list[list[str]] = []
    header = ["image", "class", "probability", *(f"p_{name}" for name in classifier.class_names)]
    with replacing(path) as partial, partial.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        for names, pixels in _chunks(_images(images, config.classify.layout), classifier, config):
            try:
                classified = classifier.classify(pixels, resize=config.classify.resize)
            except RequestError as error:
                raise DataError(f"--images={images}, {names[0]}: {error}") from None
            rows = [
                _row(*cells)
                for cells in zip(
                    names, classified.class_name, classified.probabilities, strict=True
                )
            ]
            writer.writerows(rows)
            counts.update(classified.class_name)
            shown += rows[: _LINES_SHOWN - len(shown)]
    print(_text(shown, counts, classifier.class_names), flush=True)
    logging.info("all %d rows: %s", counts.total(), path)


def _text(rows: list[list[str]], counts: Counter[str], class_names: tuple[str, ...]) -> str:
    """The first rows and the number of images of each class for a screen."""
    width = max((len(row[0]) for row in rows), default=5)
    lines = [f"{'image':<{width}}  class (probability)"]
    lines += [f"{name:<{width}}  {label} ({float(value):.3f})" for name, label, value, *_ in rows]
    if counts.total() > len(rows):
        lines.append(f"... {counts.total() - len(rows)} more")
    total = ", ".join(f"{name} {counts[name]}" for name in class_names)
    return "\n".join([*lines, f"{counts.total()} images: {total}"])
