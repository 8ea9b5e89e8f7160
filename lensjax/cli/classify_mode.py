"""`--mode=classify`: the class of each image of a file, a stack or a folder, as a table."""

import csv
import itertools
import pathlib
from collections import Counter
from collections.abc import Iterator

import numpy as np
from absl import logging

from lensjax.config import Config
from lensjax.config.data import foreign_rules
from lensjax.errors import ConfigError, DataError, RequestError
from lensjax.files.atomic import replacing
from lensjax.files.file_image import FileImage
from lensjax.files.foreign import read_foreign
from lensjax.inference.classifier import LensClassifier, load_classifier

CSV_FILE = "classified.csv"
_LINES_SHOWN = 20


def _chunks(
    images: Iterator[tuple[str, FileImage]], classifier: LensClassifier, config: Config
) -> Iterator[tuple[list[str], np.ndarray]]:
    """Yields names and pixels `[B, H, W, C]` of images of one shape, in their order."""
    settings = config.classify
    scale = classifier.published_scale if settings.image_scale == "published" else 1.0
    scale *= settings.image_factor
    for _, group in itertools.groupby(images, key=lambda pair: pair[1].pixels.shape):
        while chunk := list(itertools.islice(group, settings.batch_size)):
            names = [name for name, _ in chunk]
            yield names, np.stack([image.pixels for _, image in chunk]) / np.float32(scale)


def _given_images(images: pathlib.Path, config: Config) -> Iterator[tuple[str, FileImage]]:
    rules, fits_rules = foreign_rules(config.data, config.classify.planes)
    return read_foreign(
        images,
        "classify",
        layout=config.classify.layout,
        leave_out=[images / "labels.npy"],
        rules=rules,
        fits_rules=fits_rules,
    )


def _row(name: str, label: str, probabilities: np.ndarray, outside: str) -> list[str]:
    values = [f"{value:.6f}" for value in (probabilities.max(), *probabilities)]
    return [name, label, *values, outside]


def classify_mode(
    config: Config,
    folder: pathlib.Path,
    images: pathlib.Path | None,
    output: pathlib.Path | None = None,
) -> None:
    """Classifies images; prints a table and writes it as a CSV file.

    A row has the image, its class, the probability of this class, that of each class, and by which
    number the image is unlike the training images, if by any.

    Args:
      config: the configuration of the run; `classify.*` says how images are taken.
      folder: the workdir of a trained classifier.
      images: a file, or a folder whose files are all read.
      output: the folder for the CSV file; None for the workdir.

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
    given = _given_images(images, config)
    path, counts = (output or folder) / CSV_FILE, Counter[str]()
    shown: list[list[str]] = []
    num_strange, first_strange = 0, ""
    header = ["image", "class", "probability", *(f"p_{name}" for name in classifier.class_names)]
    header.append("outside")
    with replacing(path) as partial, partial.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        for names, pixels in _chunks(given, classifier, config):
            try:
                classified = classifier.classify(pixels, resize=config.classify.resize, warn=False)
                outside = classifier.outside(pixels, resize=config.classify.resize)
            except RequestError as error:
                raise DataError(f"--images={images}, {names[0]}: {error}") from None
            rows = [
                _row(*cells)
                for cells in zip(
                    names, classified.class_name, classified.probabilities, outside, strict=True
                )
            ]
            writer.writerows(rows)
            counts.update(classified.class_name)
            shown += rows[: _LINES_SHOWN - len(shown)]
            for name, reason in zip(names, outside, strict=True):
                num_strange += bool(reason)
                first_strange = first_strange or (reason and f"{name}: {reason}")
    print(_text(shown, counts, classifier.class_names), flush=True)
    if num_strange:
        print(
            f"{num_strange} of {counts.total()} images are unlike the training images (column "
            f"outside), so their classes mean little; the first is {first_strange}. Are they in "
            f"{classifier.flux_unit}? If not: classify.image_scale, classify.image_factor",
            flush=True,
        )
    logging.info("all %d rows: %s", counts.total(), path)


def _text(rows: list[list[str]], counts: Counter[str], class_names: tuple[str, ...]) -> str:
    """The first rows and the number of images of each class for a screen."""
    width = max((len(row[0]) for row in rows), default=5)
    lines = [f"{'image':<{width}}  class (probability)"]
    lines += [
        f"{name:<{width}}  {label} ({float(value):.3f}){' outside' if reason else ''}"
        for name, label, value, *_, reason in rows
    ]
    if counts.total() > len(rows):
        lines.append(f"... {counts.total() - len(rows)} more")
    total = ", ".join(f"{name} {counts[name]}" for name in class_names)
    return "\n".join([*lines, f"{counts.total()} images: {total}"])
