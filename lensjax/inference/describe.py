"""The origin of drawn images: weights, checkpoint, sampler, guidance, seed, data and machine."""

import hashlib
from typing import Any

import jax
import numpy as np

from lensjax.config import SampleConfig
from lensjax.inference.generator import LensGenerator
from lensjax.inference.sampling import describe_solver, passes_per_image
from lensjax.run import provenance


def weights_hash(params: Any) -> str:
    """The SHA-256 of all parameters, in the order of their names."""
    digest = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        digest.update(jax.tree_util.keystr(path).encode())
        digest.update(np.ascontiguousarray(leaf).tobytes())
    return digest.hexdigest()


def describe_guide(guide: LensGenerator | None) -> dict[str, Any] | None:
    """The guide's part of `describe`; None without autoguidance."""
    if guide is None:
        return None
    return {
        "weights_sha256": weights_hash(guide.params),
        "checkpoint_step": guide.step,
        "ema": guide.ema,
    }


def describe(generator: LensGenerator, sample: SampleConfig) -> dict[str, Any]:
    """Everything that generated images depend on, as JSON types."""
    return {
        "weights_sha256": weights_hash(generator.params),
        "checkpoint_step": generator.step,
        "ema": generator.ema,
        "ema_half_life_images": generator.config.optim.ema_half_lives.get(generator.ema),
        **describe_solver(generator.config, sample),
        "passes_per_image": passes_per_image(generator.config, sample),
        "guidance": sample.guidance,
        "guidance_rescale": sample.guidance_rescale,
        "guidance_interval": list(sample.guidance_interval),
        "guide": describe_guide(generator.guide(sample)),
        "seed": sample.seed,
        "batch_size": sample.batch_size,
        "num_images": sample.num_images,
        "class_names": list(generator.class_names),
        **({"band_names": list(generator.band_names)} if generator.band_names else {}),
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
