"""The `classify` section: how classifiers are pre-trained, trained and used."""

import dataclasses

from lensjax.config.data import DataConfig
from lensjax.config.fields import (
    MOST_IMAGES,
    between,
    choice,
    count,
    factor,
    make_field,
    optional_path,
    plain,
    texts,
)
from lensjax.config.model import CLASSIFIERS, CLASSIFY, TASKS, ModelConfig
from lensjax.data.catalogue import FOLDER_SET, SIMULATED_SETS
from lensjax.errors import ConfigError
from lensjax.files.file_image import LAYOUTS

_CLASSIFIERS = {"model.name": CLASSIFIERS}
BALANCED, UNWEIGHTED = "balanced", "none"
_WEIGHTS = "none, balanced, or a number above 0 for each class, such as 1,1,2.5"


def class_weights(text: str) -> tuple[float, ...]:
    """The numbers of `classify.class_weights`; `()` for `none` and `balanced`.

    Raises:
      ValueError: for a text that is not a number above 0.
    """
    if text in (BALANCED, UNWEIGHTED):
        return ()
    weights = tuple(float(number) for number in text.split(","))
    if not all(0 < weight < float("inf") for weight in weights):
        raise ValueError(_WEIGHTS)
    return weights


def _gives_weights(text: str) -> bool:
    try:
        class_weights(text)
    except ValueError:
        return False
    return True


@dataclasses.dataclass(frozen=True)
class ClassifyConfig:
    """Training and use of classifiers.

    Attributes:
      label_smoothing: share of each target that is spread over all classes.
      class_weights: weight of each class in the loss: `none`, `balanced` (one over the class's
        share of the images), or comma-separated numbers in the order of the labels.
      noise_share: share of the training images that get the instrument's noise, redrawn each
        time; for noise-free simulated sets.
      noise_magnitudes: lowest and highest magnitude of the source in a noisy image.
      validation_share: share of each class of the training split that is held out; the best step
        and the calibration are chosen on it.
      label_share: share of the remaining images that is trained on.
      patience: training stops after this many validations without a lower loss; 0 for never.
      start_from: workdir of a run with the same encoder, such as a masked autoencoder, whose
        weights training starts from; None for random weights.
      start_step: checkpoint of that run; None for the newest, or for the best of a classifier.
      train_encoder: whether the encoder is trained; False trains only the last layer (a linear
        probe).
      planes: which planes of a file of `--images` are images, see `data.planes`; () for those of
        the data set.
      layout: the axes of an array in a file of `--images`; `auto` infers them from its shape.
      image_scale: scale of `--images`: `flux`, in the units of the data set, or `published`, that
        of published files, whose factor is divided out.
      image_factor: `--images` are this many times that, and are divided by it; below 0 for
        negatives.
      resize: whether images of another size are resized, keeping their flux.
      batch_size: images that are classified together.
    """

    label_smoothing: float = between(0.0, 0.0, 0.5, only_for=_CLASSIFIERS)
    class_weights: str = make_field(UNWEIGHTED, _gives_weights, _WEIGHTS, only_for=_CLASSIFIERS)
    noise_share: float = between(0.0, 0.0, 1.0)
    noise_magnitudes: tuple[float, ...] = make_field(
        (20.0, 23.0),
        lambda ends: len(ends) == 2 and 0 <= ends[0] <= ends[1] <= 40,
        "two magnitudes in [0, 40], the brighter one first, such as (20.0, 23.0)",
    )
    validation_share: float = between(0.05, 0.001, 0.5)
    label_share: float = between(1.0, 1e-5, 1.0, only_for=_CLASSIFIERS)
    patience: int = count(0, least=0, only_for=_CLASSIFIERS)
    start_from: str | None = optional_path("workdir", only_for={"model.name": ("vit",)})
    start_step: int | None = count(None, only_for=_CLASSIFIERS)
    train_encoder: bool = plain(True, only_for=_CLASSIFIERS)
    planes: tuple[str, ...] = texts(
        "names or patterns, such as ('SCI',)", only_for=_CLASSIFIERS, resumable=True
    )
    layout: str = choice("auto", LAYOUTS, only_for=_CLASSIFIERS, resumable=True)
    image_scale: str = choice("flux", ("flux", "published"), only_for=_CLASSIFIERS, resumable=True)
    image_factor: float = factor(1.0, only_for=_CLASSIFIERS, resumable=True, since="0.3.0")
    resize: bool = plain(False, only_for=_CLASSIFIERS, resumable=True)
    batch_size: int = count(128, most=MOST_IMAGES, only_for=_CLASSIFIERS, resumable=True)


def check_classify(classify: ClassifyConfig, model: ModelConfig, data: DataConfig) -> None:
    """Checks classes, their weights, noise and the encoder that a classifier begins with.

    Raises:
      ConfigError: for the first field that is wrong.
    """
    _check_noise(classify, data)
    if TASKS[model.name] == CLASSIFY:
        _check_classes(classify, model)
        if data.fresh and classify.label_share < 1:
            raise ConfigError(
                "classify.label_share",
                classify.label_share,
                "allowed: 1.0 with data.fresh, which trains on more images than the set has",
            )


def _check_classes(classify: ClassifyConfig, model: ModelConfig) -> None:
    num_classes, weights = model.num_classes, classify.class_weights
    if num_classes < 2:
        raise ConfigError(
            "model.num_classes",
            num_classes,
            f"allowed: at least 2 with model.name={model.name}, which tells classes apart",
        )
    if weights not in (BALANCED, UNWEIGHTED) and len(class_weights(weights)) != num_classes:
        raise ConfigError(
            "classify.class_weights",
            weights,
            f"allowed: none, balanced, or {num_classes} numbers, one for each class",
        )
    if classify.start_from is not None:
        return
    for name in ("train_encoder", "start_step"):
        value, default = getattr(classify, name), getattr(ClassifyConfig(), name)
        if value != default:
            raise ConfigError(
                f"classify.{name}", value, f"allowed: {default} without classify.start_from"
            )


def _check_noise(classify: ClassifyConfig, data: DataConfig) -> None:
    if not classify.noise_share:
        return
    simulated = SIMULATED_SETS.get(data.name)
    if simulated is None or not simulated.takes_noise:
        data_set = "your own files" if data.name == FOLDER_SET else data.name
        raise ConfigError(
            "classify.noise_share",
            classify.noise_share,
            f"allowed: 0 for {data_set}; noise is only for noise-free sets of Models II and III",
        )
    if data.scaling == "sqrt":
        raise ConfigError(
            "data.scaling",
            data.scaling,
            "allowed: linear, asinh with classify.noise_share above 0, since noise makes pixels "
            "negative",
        )
