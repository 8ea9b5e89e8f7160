"""`--mode=sample`: draws images into a workdir, and records what they depend on."""

import math
import pathlib

import numpy as np
from absl import logging

from lensjax.config import Config, SampleConfig
from lensjax.devices.hosts import is_main
from lensjax.devices.machine import check_bytes
from lensjax.files.atomic import write_array, write_json
from lensjax.inference.describe import describe
from lensjax.inference.generator import LensGenerator, load_generator
from lensjax.inference.sampling import passes_per_image
from lensjax.run import workdir as files
from lensjax.run.figures import lens_grid, save_png


def sample_mode(config: Config, folder: pathlib.Path) -> None:
    """Writes `generated/` in a workdir: images, labels, a picture, and what made them.

    On several hosts all draw and one writes.
    """
    generator = load_generator(folder, config)
    sample = config.sample
    bytes_each = 4 * math.prod(generator.image_shape)  # float32
    check_bytes(
        sample.num_images * bytes_each, "sample.num_images", sample.num_images, "the images"
    )
    check_bytes(
        sample.batch_size * bytes_each,
        "sample.batch_size",
        sample.batch_size,
        "the images of a batch",
    )
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
    labels = generator.labels(None, sample.num_images)
    images = generator.generate(labels, sample.num_images, sample.seed)
    if is_main():
        run_id = files.run_id_of(folder)
        _write(folder / files.GENERATED, images, labels, generator, sample, run_id)


def _write(
    target: pathlib.Path,
    images: np.ndarray,
    labels: np.ndarray,
    generator: LensGenerator,
    sample: SampleConfig,
    run_id: str | None,
) -> None:
    # Removed first and written last: it never lies beside images that it does not describe.
    (target / "meta.json").unlink(missing_ok=True)
    write_array(target / "images.npy", images)
    write_array(target / "labels.npy", labels)
    names = generator.class_names or ("images",)
    rows = [images[index :: len(names)][: sample.grid_columns] for index in range(len(names))]
    save_png(target / "grid.png", lens_grid(rows, names, bands=generator.band_names))
    write_json(target / "meta.json", {"run_id": run_id, **describe(generator, sample)})
    logging.info("wrote %s", target / "images.npy")
