"""The `classify` section of a configuration."""

import dataclasses

from lensjax.config.fields import between, choice, count, make_field
from lensjax.files.file_image import LAYOUTS

BALANCED, UNWEIGHTED = "balanced", "none"
_WEIGHTS = "allowed: none, balanced, or a number above 0 for each class, such as 1,1,2.5"


def class_weights(text: str) -> tuple[float, ...]:
    """Returns the numbers of `classify.class_weights`; `()` for `none` and `balanced`.

    Raises:
      ValueError: for what is no number above 0.
    """
    if text in (BALANCED, UNWEIGHTED):
        return ()
    weights = tuple(float(part) for part in text.split(","))
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
      class_weights: factor of each class's loss: `none`, `balanced` (one over its share), or
        numbers with commas between, in the order of the labels.
      noise_share: share of the training images behind the instrument's noise, drawn anew each time;
        for noise-free simulated sets.
      noise_magnitudes: lowest and highest magnitude of the source behind this noise.
      validation_share: part of the training split that is not trained on, with as much of each
        class; the best step and the calibration are chosen by it.
      label_share: part of the rest that is trained on.
      patience: validations without a lower loss after which training ends; 0 for none.
      start_from: workdir of a run with the same encoder, such as a masked autoencoder, whose
        weights it begins with; None for new ones.
      start_step: its checkpoint; None for the newest, of a classifier the best.
      train_encoder: False trains the last layer alone (a linear probe).
      layout: the axes of an array in a file of `--images`; `auto` reads them off its shape.
      image_scale: of the files of `--images`: `flux` in the units of the data set, or `published`,
        which is divided by what published files are multiplied by.
      resize: whether images of another size are resized, keeping their flux.
      batch_size: images looked at at once.
    """

    label_smoothing: float = between(0.0, 0.0, 0.5)
    class_weights: str = make_field(UNWEIGHTED, _gives_weights, _WEIGHTS)
    noise_share: float = between(0.0, 0.0, 1.0)
    noise_magnitudes: tuple[float, ...] = make_field(
        (20.0, 23.0),
        lambda ends: len(ends) == 2 and 0 <= ends[0] <= ends[1] <= 40,
        "allowed: two magnitudes in [0, 40], the brighter one first, such as (20.0, 23.0)",
    )
    validation_share: float = between(0.05, 0.001, 0.5)
    label_share: float = between(1.0, 1e-5, 1.0)
    patience: int = count(0, least=0)
    start_from: str | None = make_field(None, bool, "allowed: None, or the name of a workdir")
    start_step: int | None = count(None)
    train_encoder: bool = True
    layout: str = choice("auto", LAYOUTS)
    image_scale: str = choice("flux", ("flux", "published"))
    resize: bool = False
    batch_size: int = count(128)
