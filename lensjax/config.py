"""The configuration of a run: one frozen dataclass a section, and every check of it.

This module is the only reader of the `ConfigDict`; the rest of lensjax sees checked dataclasses.
A config file starts from `default_config()` and changes what differs, so that a misspelt field
raises where it is written.
"""

import dataclasses
import math
import typing
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from lensjax.config_fields import (
    ConfigError,
    below,
    between,
    check_texts,
    choice,
    count,
    field_types,
    make_field,
    optional_of,
    positive,
    read_section,
)
from lensjax.data.catalogue import SIMULATED_SETS
from lensjax.data.simulator import CLASS_NAMES
from lensjax.losses import LOSS_SPACES, TIME_DISTRIBUTIONS
from lensjax.paths import PREDICTIONS
from lensjax.prng import MAX_SEED
from lensjax.samplers import STEPS

if TYPE_CHECKING:
    from ml_collections import ConfigDict


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """What the network learns from.

    Attributes:
      name: data set, such as `deeplense/model_ii`; `_mini` at the end for a small one.
      folder: folder of the user's own files; reserved, no data set reads it yet.
      directory: where TFDS keeps sets; None for `$TFDS_DATA_DIR`, else `~/tensorflow_datasets`.
      placement: `device` keeps the set on the accelerator; `auto` chooses.
      augmentation: `none`, or `rotate_180`, the one symmetry of Models I to III.
      scaling: map from flux to the model's range; `sqrt` refuses negative pixels.
      model_std: standard deviation of the training images in the model's range.
    """

    name: str = choice("deeplense/model_ii", SIMULATED_SETS)
    folder: str | None = make_field(
        None, lambda x: x is None, "allowed: None; data sets from files are not there yet"
    )
    directory: str | None = None
    placement: str = choice("auto", ("auto", "device"))
    augmentation: str = choice("none", ("none", "rotate_180"))
    scaling: str = choice("linear", ("linear", "sqrt", "asinh"))
    model_std: float = positive(0.5)


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """The denoiser.

    Attributes:
      name: `dit` or `unet`.
      num_classes: classes of the data set, without the null label.
      prediction: what the network predicts.
      dtype: of the computation; parameters are float32.
      patch_size: side of a patch in pixels.
      width: DiT: size of a token.
      depth: DiT: number of blocks.
      num_heads: DiT: attention heads; divides `width`.
      mlp_ratio: DiT: width of a block's perceptron over `width`.
      widths: UNet: channels of each resolution, finest first.
      blocks: UNet: residual blocks at each resolution.
      condition_width: UNet: length of the vector of time and label.
    """

    name: str = choice("dit", ("dit", "unet"))
    num_classes: int = count(3, least=0)
    prediction: str = choice("velocity", PREDICTIONS)
    dtype: str = choice("float32", ("float32", "bfloat16"))
    patch_size: int = count(2)
    width: int = count(512)
    depth: int = count(6)
    num_heads: int = count(8)
    mlp_ratio: int = count(4)
    widths: tuple[int, ...] = make_field(
        (48, 96, 144),
        lambda widths: len(widths) > 0 and all(width >= 1 for width in widths),
        "allowed: one or more integers of at least 1, such as (48, 96)",
    )
    blocks: int = count(2)
    condition_width: int = count(256)


@dataclasses.dataclass(frozen=True)
class PathConfig:
    """The probability path.

    Attributes:
      name: `flow`, alpha = 1 - t and sigma = t.
    """

    name: str = choice("flow", ("flow",))


@dataclasses.dataclass(frozen=True)
class LossConfig:
    """The training loss.

    Attributes:
      space: what the squared error is taken of.
      min_sigma: floor of sigma where an x0 error is turned into a velocity error.
      time_distribution: `uniform` or `logit_normal`.
      logit_mean: mean of logit(t) for `logit_normal`.
      logit_std: standard deviation of logit(t) for `logit_normal`.
      label_drop: probability that an example loses its label.
    """

    space: str = choice("velocity", LOSS_SPACES)
    min_sigma: float = positive(0.05)
    time_distribution: str = choice("uniform", TIME_DISTRIBUTIONS)
    logit_mean: float = 0.0
    logit_std: float = positive(1.0)
    label_drop: float = between(0.1, 0.0, 1.0)


@dataclasses.dataclass(frozen=True)
class OptimConfig:
    """AdamW, its schedule, and the average of the parameters.

    Attributes:
      learning_rate: the highest value.
      warmup_steps: steps of the linear rise.
      learning_rate_floor: least share of `learning_rate` that the cosine falls to.
      weight_decay: decoupled weight decay.
      clip_norm: largest global norm of the gradient.
      b1: decay of the first moment.
      b2: decay of the second moment.
      eps: added to the root of the second moment.
      ema_half_life_images: half-life of the average, in training images.
      ema_warmup_share: largest half-life as a share of the images seen; 0 for no warm-up.
    """

    learning_rate: float = positive(1e-4)
    warmup_steps: int = count(1000, least=0)
    learning_rate_floor: float = between(0.01, 0.0, 1.0)
    weight_decay: float = below(0.01, 0.0, math.inf)
    clip_norm: float = positive(1.0)
    b1: float = below(0.9, 0.0, 1.0)
    b2: float = below(0.999, 0.0, 1.0)
    eps: float = positive(1e-8)
    ema_half_life_images: float = positive(100_000.0)
    ema_warmup_share: float = between(0.05, 0.0, 1.0)


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """The training loop.

    Attributes:
      batch_size: images a step, over all devices.
      num_steps: steps of the whole run.
      log_every: steps between lines of metrics; a line holds the mean loss since the last one.
      sample_every: steps between sample grids; the last step always has one.
      checkpoint_every: steps between checkpoints; the last step always has one.
      keep_last: newest checkpoints that are kept.
      keep_every: checkpoints at multiples of this stay for good; None keeps none.
      deterministic: asks the accelerator's compiler for reproducible kernels.
    """

    batch_size: int = count(160)
    num_steps: int = count(100_000, most=2**31 - 1)
    log_every: int = count(50)
    sample_every: int = count(5_000)
    checkpoint_every: int = count(2_500)
    keep_last: int = count(2)
    keep_every: int | None = count(None)
    deterministic: bool = False


@dataclasses.dataclass(frozen=True)
class SampleConfig:
    """Generation.

    Attributes:
      sampler: the solver.
      steps: intervals of time; `heun` passes the network twice in each.
      guidance: g of `uncond + g (cond - uncond)`; 1 is no guidance.
      num_images: images of `--mode=sample`; labels cycle through the classes.
      batch_size: images computed at once.
      seed: image i is a function of (seed, i).
      grid_columns: images a class in the sample grids.
    """

    sampler: str = choice("euler", STEPS)
    steps: int = count(50)
    guidance: float = between(5.0, 0.0, 1000.0)
    num_images: int = count(48)
    batch_size: int = count(48)
    seed: int = count(0, least=0, most=MAX_SEED)
    grid_columns: int = count(8)


@dataclasses.dataclass(frozen=True)
class EvaluateConfig:
    """Scores.

    Attributes:
      num_images: images a class that are scored, generated and real alike.
    """

    num_images: int = count(64, least=2)


@dataclasses.dataclass(frozen=True)
class ExportConfig:
    """Images as files for other programs.

    Attributes:
      source: `data`, the data set; or `generated`, what `--mode=sample` left in the workdir.
      format: `npy` and `fits` write a file an image, `hdf5` a file a split.
      split: of the data set.
      folder: where the files go; None for `export` in the workdir.
      scale: `flux`, or `published`, which multiplies by what published files are multiplied by.
    """

    source: str = choice("data", ("data", "generated"))
    format: str = choice("npy", ("npy", "hdf5", "fits"))
    split: str = choice("all", ("train", "test", "all"))
    folder: str | None = make_field(None, bool, "allowed: None, or the name of a folder")
    scale: str = choice("flux", ("flux", "published"))


@dataclasses.dataclass(frozen=True)
class ParallelConfig:
    """How the work is spread.

    Attributes:
      strategy: `jit` over a mesh of all devices.
      num_devices: devices to use; None for all.
    """

    strategy: str = choice("jit", ("jit",))
    num_devices: int | None = count(None)


@dataclasses.dataclass(frozen=True)
class Config:
    """A checked configuration; see the classes of its sections."""

    data: DataConfig = DataConfig()
    model: ModelConfig = ModelConfig()
    path: PathConfig = PathConfig()
    loss: LossConfig = LossConfig()
    optim: OptimConfig = OptimConfig()
    train: TrainConfig = TrainConfig()
    sample: SampleConfig = SampleConfig()
    evaluate: EvaluateConfig = EvaluateConfig()
    export: ExportConfig = ExportConfig()
    parallel: ParallelConfig = ParallelConfig()
    seed: int = count(0, least=0, most=MAX_SEED)


# What may differ when a run resumes; everything else changes what the run means.
RESUMABLE_FIELDS = (
    "train.num_steps",
    "train.log_every",
    "train.sample_every",
    "train.checkpoint_every",
    "train.keep_last",
    "train.keep_every",
    "data.directory",
    "data.placement",
    "parallel.",
    "sample.",
    "evaluate.",
    "export.",
)


def default_config() -> "ConfigDict":
    """Returns the defaults of every field as a locked `ConfigDict`, for config files to change."""
    from ml_collections import ConfigDict, config_dict

    def as_dict(owner: type) -> ConfigDict:
        result = ConfigDict()
        for field in dataclasses.fields(owner):
            kind, optional = optional_of(field_types(owner)[field.name])
            if dataclasses.is_dataclass(kind):
                result[field.name] = as_dict(typing.cast(type, kind))
            elif optional:
                result[field.name] = config_dict.placeholder(kind)
            else:
                result[field.name] = field.default
        return result

    return as_dict(Config).lock()


def from_config_dict(config_dict: Mapping[str, Any]) -> Config:
    """Checks a configuration and returns it as frozen dataclasses.

    Args:
      config_dict: a `ConfigDict` from a config file, or nested dicts, with every field.

    Raises:
      ConfigError: for an unknown or missing field, a wrong type, a value or a combination that is
        not allowed; the message has the field's full path.
    """
    values = config_dict.to_dict() if hasattr(config_dict, "to_dict") else dict(config_dict)
    config = read_section(Config, values, "")
    _check_combinations(config)
    return config


def _check_combinations(config: Config) -> None:
    model = config.model
    simulated = SIMULATED_SETS[config.data.name]
    num_pixels = simulated.survey.num_pixels
    if model.name == "dit":
        if num_pixels % model.patch_size:
            raise ConfigError(
                "model.patch_size",
                model.patch_size,
                f"allowed: a divisor of the image's side, {num_pixels} pixels",
            )
        if model.width % model.num_heads:
            raise ConfigError(
                "model.num_heads",
                model.num_heads,
                f"allowed: a divisor of model.width, {model.width}",
            )
        if model.width % 4:
            raise ConfigError("model.width", model.width, "allowed: a multiple of 4")
    if model.num_classes != len(CLASS_NAMES):
        raise ConfigError(
            "model.num_classes",
            model.num_classes,
            f"allowed: {len(CLASS_NAMES)}, the classes of {config.data.name}",
        )
    num_images = simulated.images_per_class["train"] * len(CLASS_NAMES)
    if config.train.batch_size > num_images:
        raise ConfigError(
            "train.batch_size",
            config.train.batch_size,
            f"allowed: at most the {num_images} images of {config.data.name}",
        )


def check_overrides(overrides: Mapping[str, str]) -> None:
    """Checks command-line overrides, such as `{"train.batch_size": "32"}`, before they are applied.

    Raises:
      ConfigError: for a path that does not exist or a text that is not of the field's type.
    """
    check_texts(Config, overrides)


def to_dict(config: Config) -> dict[str, Any]:
    """Returns the configuration as nested dicts of JSON types (tuples become lists)."""

    def plain(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: plain(element) for name, element in value.items()}
        return list(value) if isinstance(value, tuple) else value

    return plain(dataclasses.asdict(config))


def add_missing(saved: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a saved configuration with defaults for fields that an older version did not have.

    Only fields that may differ on a resume are added: without another one, nobody knows what the
    run means.

    Args:
      saved: `to_dict` of a configuration, perhaps by an older version.
    """
    result = dict(saved)
    for section, defaults in to_dict(Config()).items():
        known = result.get(section, {})
        if isinstance(defaults, dict) and isinstance(known, Mapping):
            names = [f"{section}.{name}" for name in defaults if name not in known]
            added = [name for name in names if name.startswith(RESUMABLE_FIELDS)]
            if added:
                values = {
                    name.partition(".")[2]: defaults[name.partition(".")[2]] for name in added
                }
                result[section] = {**known, **values}
    return result


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """Returns a line for each field that differs and may not differ when a run resumes.

    Args:
      old: `to_dict` of the configuration in the workdir.
      new: `to_dict` of the configuration of this run.
    """

    def flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
        result: dict[str, Any] = {}
        for name, value in values.items():
            if isinstance(value, Mapping):
                result |= flat(value, f"{prefix}{name}.")
            else:
                result[prefix + name] = value
        return result

    before, now = flat(old), flat(new)
    pairs = {
        name: (before.get(name, "nothing"), now.get(name, "nothing"))
        for name in sorted(before.keys() | now.keys())
    }
    return [
        f"{name}: the workdir has {was!r}, this run {is_now!r}"
        for name, (was, is_now) in pairs.items()
        if was != is_now and not name.startswith(RESUMABLE_FIELDS)
    ]
