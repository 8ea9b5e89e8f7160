"""`--mode=sample`: draws images into a workdir, and records what they depend on."""

import math
import pathlib

import numpy as np
from absl import logging

from lensjax.config import Config, SampleConfig
from lensjax.devices.hosts import is_main
from lensjax.devices.machine import check_memory
from lensjax.errors import ConfigError
from lensjax.files import disk
from lensjax.files.atomic import replacing_folder, write_array, write_json
from lensjax.inference.describe import describe
from lensjax.inference.generator import LensGenerator, load_generator
from lensjax.inference.sampling import passes_per_image
from lensjax.run import workdir as files
from lensjax.run.figures import lens_grid, save_png

_FILES = ("images.npy", "labels.npy", "grid.png", "meta.json", "parameters.csv")


def written_files(folder: pathlib.Path) -> list[pathlib.Path]:
    """The files of a folder that are replaced as a whole; a user's own files stay."""
    return [folder / name for name in _FILES]


def sample_mode(config: Config, folder: pathlib.Path, output: pathlib.Path | None = None) -> None:
    """Writes `generated/`: images, labels, a picture, and what made them.

    On several hosts all draw and one writes. Earlier images stay until the new ones are whole.

    Args:
      config: the configuration.
      folder: the run's workdir.
      output: where `generated/` goes; None for the workdir.

    Raises:
      lensjax.errors.FileError: if there is no room for the images.
    """
    target = (output or folder) / files.GENERATED
    generator = load_generator(folder, config)
    sample = generator.config.sample
    bytes_each = 4 * math.prod(generator.image_shape)  # float32
    for field, count in (("num_images", sample.num_images), ("batch_size", sample.batch_size)):
        check_memory(f"sample.{field}", count, bytes_each, "image", error=ConfigError)
    logging.info(
        "drawing %d images at step %d (ema %s): %s, %d steps, guidance %g, "
        "%d network passes per image",
        sample.num_images,
        generator.step,
        generator.ema,
        sample.sampler,
        sample.steps,
        sample.guidance,
        passes_per_image(generator.config, sample),
    )
    if is_main():
        num_bytes = sample.num_images * bytes_each
        disk.check_room(target, num_bytes, "set --output to a folder on another disk")
    labels = generator.labels(None, sample.num_images)
    images = generator.generate(labels, sample.num_images, sample.seed)
    if is_main():
        _write(target, images, labels, generator, sample, files.run_id_of(folder))


def _write(
    target: pathlib.Path,
    images: np.ndarray,
    labels: np.ndarray,
    generator: LensGenerator,
    sample: SampleConfig,
    run_id: str | None,
) -> None:
    names = generator.class_names or ("images",)
    rows = [images[index :: len(names)][: sample.grid_columns] for index in range(len(names))]
    picture = lens_grid(rows, names, bands=generator.band_names)
    with replacing_folder(target, written_files) as new:
        write_array(new / "images.npy", images)
        write_array(new / "labels.npy", labels)
        save_png(new / "grid.png", picture)
        write_json(new / "meta.json", {"run_id": run_id, **describe(generator, sample)})
    logging.info("wrote %s", target / "images.npy")
