"""What is made and checked before the first step: data, scaling, first state, the compiled step."""

import pathlib
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from absl import logging

from lensjax.config import Config, DataConfig, check_image_size, check_num_classes
from lensjax.config.classify import BALANCED
from lensjax.config.model import CLASSIFY, GENERATE
from lensjax.data.augmentation import cut_out_shape, make_augment_fn
from lensjax.data.catalogue import is_same_content
from lensjax.data.dataset import DatasetInfo, Split
from lensjax.data.pipeline import Placement, make_batch_fn
from lensjax.data.placement import check_batch_size
from lensjax.data.scaling import Scaling, fit_scaling, num_reference_images
from lensjax.data.subset import divide
from lensjax.devices.mesh import state_shardings
from lensjax.devices.spread import Spread
from lensjax.errors import ConfigError, DataError
from lensjax.files.atomic import write_json
from lensjax.interfaces import Batch
from lensjax.run import workdir as files
from lensjax.run.checkpoint import Checkpoints
from lensjax.run.learning import build_train_step, make_init_state, with_shardings
from lensjax.run.state import TrainState, make_dispatch
from lensjax.training.class_watch import observe_fn
from lensjax.training.transfer import scaling_of, with_encoder


def _describe_dataset(
    split: Split, scaling: Scaling, image_shape: tuple[int, int, int]
) -> dict[str, Any]:
    """Returns the content of `dataset.json`: all that sampling needs without the data."""
    info = split.info
    return {
        "name": info.name,
        "fingerprint": info.fingerprint,
        "class_names": list(info.class_names),
        "image_shape": list(image_shape),
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


def _fit_scaling(split: Split, data: DataConfig) -> Scaling:
    """Finds the scaling from the first images of those that are trained on.

    What is left out must not be known to the network at all.
    """
    info = split.info
    count = min(num_reference_images(info.image_shape), len(split))
    reference = split.examples(np.arange(count)).images
    return fit_scaling(data.scaling, data.model_std, reference, info.minimum, masked=info.masked)


def claim_dataset(workdir: pathlib.Path, split: Split, config: Config) -> Scaling:
    """Writes `dataset.json`, or checks that a resumed run meets the data that it began with."""
    path = workdir / files.DATASET_FILE
    if path.exists():
        known = files.read_dataset(workdir)
        if not is_same_content(known["fingerprint"], split.info.fingerprint):
            raise ConfigError(
                "data.name",
                f"{split.info.name} with fingerprint {split.info.fingerprint}",
                f"this workdir was begun with fingerprint {known['fingerprint']}; take another",
            )
        return Scaling(**known["scaling"])
    shape = cut_out_shape(split.info.image_shape, config.data.shift_pixels)
    if config.classify.start_from is not None:
        scaling = scaling_of(config)
    else:
        scaling = _fit_scaling(split, config.data)
    write_json(path, _describe_dataset(split, scaling, shape))
    return scaling


def _log_parameters(state: TrainState) -> None:
    from clu import parameter_overview

    table = parameter_overview.get_parameter_overview(state.params, include_stats=False)
    logging.info("parameters:\n%s", table)


def compile_step(
    config: Config,
    state: TrainState,
    split: Split,
    scaling: Scaling,
    placement: Placement,
    spread: Spread,
) -> Any:
    """Compiles the step once; a compiled step refuses other shapes instead of compiling again."""
    batch_fn, rows = _batch_fn(config, placement, scaling, split.info), placement.gives_rows
    train_step = build_train_step(config, batch_fn, spread, rows, _class_counts(config, split))
    dispatch = make_dispatch(train_step, config.train.steps_per_dispatch, rows)
    started = time.monotonic()
    # Those of every step are alike; the steps of a dispatch are read when it is due.
    arguments = placement.arguments(int(state.step))
    if rows:
        arguments = (arguments,) * config.train.steps_per_dispatch
    compiled = spread.compile(dispatch, state, arguments, rows)
    logging.info("compiled the train step once, in %.1f s", time.monotonic() - started)
    return compiled


def divided(split: Split, test: Split | None, config: Config) -> tuple[Split, Split | None]:
    """Returns what is trained on, and what is validated on beside it."""
    if config.task == GENERATE:
        return split, test
    settings = config.classify
    return divide(split, config.seed, settings.validation_share, settings.label_share)


def check_images(config: Config, info: DatasetInfo, num_images: int) -> None:
    """Checks what depends on the images and is known only once the data is there."""
    check_batch_size(config.train.batch_size, info, num_images)
    if config.train.batch_size * config.train.steps_per_dispatch > num_images:
        # A dispatch knows the order of this epoch and the next.
        raise ConfigError(
            "train.steps_per_dispatch",
            config.train.steps_per_dispatch,
            f"allowed: at most {num_images // config.train.batch_size}, the batches in the "
            f"{num_images} images of {info.name}",
        )
    if config.task == CLASSIFY and info.num_classes < 2:
        raise DataError(
            f"{info.name} has {info.num_classes or 'no'} class"
            f"{f' ({info.class_names[0]})' if info.num_classes else ', it is unlabelled'}; a "
            "classifier needs at least two: one folder for each class"
        )
    check_num_classes(config.model, info.name, info.class_names)
    data = config.data
    make_augment_fn(data.augmentation, data.shift_pixels, info.image_shape)  # refuses what it must
    height, width, _ = cut_out_shape(info.image_shape, data.shift_pixels)
    check_image_size(config.model, height, width)


def _class_counts(config: Config, split: Split) -> list[int] | None:
    """Returns the training images of each class where the loss asks for them."""
    if config.classify.class_weights != BALANCED:
        return None
    return np.bincount(split.all_labels(), minlength=config.model.num_classes).tolist()


def _batch_fn(
    config: Config,
    placement: Placement,
    scaling: Scaling,
    info: DatasetInfo,
) -> Callable[..., Batch]:
    data = config.data
    augment_fn = make_augment_fn(data.augmentation, data.shift_pixels, info.image_shape)
    observe = observe_fn(config)

    def prepare(key: jax.Array, image: jax.Array) -> jax.Array:
        return observe(jax.random.fold_in(key, 1), augment_fn(key, image))

    return make_batch_fn(placement, scaling, prepare, config.seed, masked=info.masked)


def first_state(
    config: Config, split: Split, mesh: jax.sharding.Mesh, checkpoints: Checkpoints
) -> TrainState:
    """Returns the state of the newest sound checkpoint, or a new one."""
    shape = cut_out_shape(split.info.image_shape, config.data.shift_pixels)
    init = make_init_state(config, shape)
    expected = with_shardings(jax.eval_shape(init), mesh)
    state = checkpoints.restore(expected)
    if state is None:
        state = jax.jit(init, out_shardings=state_shardings(mesh, expected))()
        if config.classify.start_from is not None:
            state = with_encoder(state, config)
        _log_parameters(state)
    return state
