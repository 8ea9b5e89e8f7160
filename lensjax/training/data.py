"""The images and the scaling of a training run, and their description in `dataset.json`."""

import pathlib
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from lensjax import prng
from lensjax.config import Config, DataConfig
from lensjax.data.augmentation import central_cut_out, make_observe_fn
from lensjax.data.catalogue import SIMULATED_SETS, is_same_content
from lensjax.data.dataset import Split
from lensjax.data.flux_range import FluxRange, fit_flux_range
from lensjax.data.scaling import Scaling, fit_scaling, num_reference_images
from lensjax.errors import ConfigError
from lensjax.run import stored
from lensjax.run import workdir as files

_MOST_IN_RANGES = 1024  # images from which the ranges of flux are found


class TrainingData(NamedTuple):
    """The images of a training run.

    Attributes:
      train: the images to train on.
      validation: the images to validate on: the test split for generators, a part of the training
        split for the other tasks; None for no validation.
      image_shape: `(H, W, C)` of the network's input, which shifts make smaller.
      scaling: from flux to the model's range.
    """

    train: Split
    validation: Split | None
    image_shape: tuple[int, int, int]
    scaling: Scaling


def scaling_of_images(split: Split, data: DataConfig) -> Scaling:
    """Fits the scaling to the first training images.

    Images that are left out must not affect the network in any way.
    """
    info = split.info
    count = min(num_reference_images(info.image_shape), len(split))
    reference = split.examples(np.arange(count)).images
    return fit_scaling(
        data.scaling,
        data.model_std,
        reference,
        info.minimum,
        masked=info.masked,
        band_names=info.band_names,
    )


def flux_ranges(split: Split, image_shape: tuple[int, int, int], config: Config) -> list[FluxRange]:
    """Finds the ranges of flux of each kind of training images: without noise, and with it.

    Args:
      split: the images to train on.
      image_shape: `(H, W, C)` of the network's input.
      config: says how many images get noise, and which.
    """
    info, classify = split.info, config.classify
    count = min(_MOST_IN_RANGES, num_reference_images(info.image_shape), len(split))
    images = split.examples(np.arange(count)).images
    images = central_cut_out(images, (info.image_shape[0] - image_shape[0]) // 2)
    kinds = [images] if classify.noise_share < 1 else []
    if classify.noise_share > 0:
        survey = SIMULATED_SETS[config.data.name].survey
        observe = make_observe_fn(survey, 1.0, classify.noise_magnitudes)
        keys = prng.keys(prng.key(0, "flux_range"), jnp.arange(count))
        kinds.append(np.asarray(jax.jit(jax.vmap(observe))(keys, images)))
    return [fit_flux_range(kind) for kind in kinds]


def check_dataset(workdir: pathlib.Path, split: Split) -> None:
    """Checks that a run that goes on has the data that it began with; a missing file says nothing.

    Raises:
      ConfigError: for other data.
    """
    if not (workdir / files.DATASET_FILE).exists():
        return
    begun_with = files.read_dataset(workdir)["fingerprint"]
    if not is_same_content(begun_with, split.info.fingerprint):
        raise ConfigError(
            "data.name",
            f"{split.info.name} with fingerprint {split.info.fingerprint}",
            f"the run in this workdir began with fingerprint {begun_with}; choose another workdir",
        )


def claim_dataset(
    workdir: pathlib.Path,
    split: Split,
    image_shape: tuple[int, int, int],
    make_scaling: Callable[[Split], Scaling],
    config: Config | None = None,
    *,
    begins: bool = False,
) -> Scaling:
    """Writes `dataset.json`, or checks that a resumed run has the data that it began with.

    Args:
      workdir: the run's folder.
      split: the images to train on.
      image_shape: `(H, W, C)` of the network's input.
      make_scaling: makes the scaling of a run that begins.
      config: says which noise the network sees; None for none.
      begins: whether the run begins, so that a file of an earlier run is replaced.

    Returns:
      The scaling of the run.

    Raises:
      ConfigError: for other data than the run began with.
    """
    path = workdir / files.DATASET_FILE
    if path.exists() and not begins:
        check_dataset(workdir, split)
        return Scaling(**files.read_dataset(workdir)["scaling"])
    scaling = make_scaling(split)
    ranges = flux_ranges(split, image_shape, config or Config())
    described = _describe(split, scaling, image_shape)
    stored.write_dataset(path, {**described, "flux_ranges": ranges})
    return scaling


def _describe(split: Split, scaling: Scaling, image_shape: tuple[int, int, int]) -> dict[str, Any]:
    """Collects the facts that sampling needs when the data is not there."""
    info = split.info
    return {
        "name": info.name,
        "fingerprint": info.fingerprint,
        "class_names": list(info.class_names),
        "image_shape": list(image_shape),
        "band_names": list(info.band_names),
        "band_zero_points_mag": list(info.band_zero_points_mag),
        "flux_unit": info.flux_unit,
        "pixel_scale_arcsec": info.pixel_scale_arcsec,
        "psf_fwhm_arcsec": info.psf_fwhm_arcsec,
        "zero_point_mag": info.zero_point_mag,
        "minimum": info.minimum,
        "maximum": info.maximum,
        "published_scale": info.published_scale,
        "num_train_images": len(split),
        "scaling": scaling.to_dict(),
    }
