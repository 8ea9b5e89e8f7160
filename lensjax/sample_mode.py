"""`--mode=sample`: draws images into a workdir, and says what they depend on."""

import hashlib
import pathlib
from typing import Any

import jax
import numpy as np
from absl import logging

from lensjax import provenance
from lensjax import workdir as files
from lensjax.config import Config, SampleConfig
from lensjax.figures import lens_grid, save_png
from lensjax.generate import LensGenerator, load_generator
from lensjax.hosts import is_main
from lensjax.sampling import describe_solver, passes_per_image


def weights_hash(params: Any) -> str:
    """Returns the SHA-256 of all parameters, in the order of their names."""
    digest = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        digest.update(jax.tree_util.keystr(path).encode())
        digest.update(np.ascontiguousarray(leaf).tobytes())
    return digest.hexdigest()


def describe_guide(guide: LensGenerator | None) -> dict[str, Any] | None:
    """Returns what autoguidance depends on, None without it."""
    if guide is None:
        return None
    return {
        "weights_sha256": weights_hash(guide.params),
        "checkpoint_step": guide.step,
        "ema": guide.ema,
    }


def describe(generator: LensGenerator, sample: SampleConfig) -> dict[str, Any]:
    """Returns all that generated images depend on, as JSON types."""
    return {
        "weights_sha256": weights_hash(generator.params),
        "checkpoint_step": generator.step,
        "ema": generator.ema,
        "ema_half_life_images": generator.config.optim.ema_half_lives.get(generator.ema),
        **describe_solver(sample),
        "passes_per_image": passes_per_image(generator.config, sample),
        "guidance": sample.guidance,
        "guidance_rescale": sample.guidance_rescale,
        "guidance_interval": list(sample.guidance_interval),
        "guide": describe_guide(generator.guide(sample)),
        "seed": sample.seed,
        "batch_size": sample.batch_size,
        "num_images": sample.num_images,
        "class_names": list(generator.class_names),
        "flux_unit": generator.flux_unit,
        "pixel_scale_arcsec": generator.pixel_scale_arcsec,
        "psf_fwhm_arcsec": generator.psf_fwhm_arcsec,
        "zero_point_mag": generator.zero_point_mag,
        "data_name": generator.data_name,
        "data_fingerprint": generator.data_fingerprint,
        "versions": provenance.versions(),
        "git_revision": provenance.git_revision(),
        "hardware": provenance.hardware(),
    }


def sample_mode(config: Config, folder: pathlib.Path) -> None:
    """Writes `generated/` in a workdir: images, labels, a picture, and what made them.

    On several hosts all draw and one writes.
    """
    generator = load_generator(folder, config)
    sample = config.sample
    logging.info(
        "drawing %d images at step %d (ema %s): %s, %d steps, guidance %g, "
        "%d network passes an image",
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
        _write(folder / files.GENERATED, images, labels, generator, sample)


def _write(
    target: pathlib.Path,
    images: np.ndarray,
    labels: np.ndarray,
    generator: LensGenerator,
    sample: SampleConfig,
) -> None:
    target.mkdir(exist_ok=True)
    # Away first and back last: it never stands beside images that it does not describe.
    (target / "meta.json").unlink(missing_ok=True)
    np.save(target / "images.npy", images)
    np.save(target / "labels.npy", labels)
    names = generator.class_names or ("images",)
    rows = [images[index :: len(names)][: sample.grid_columns] for index in range(len(names))]
    save_png(target / "grid.png", lens_grid(rows, names))
    files.write_json(target / "meta.json", describe(generator, sample))
    logging.info("wrote %s", target / "images.npy")
