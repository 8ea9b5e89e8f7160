"""The `evaluate` section: measures, numbers of images, and comparisons."""

import dataclasses

from lensjax.config.fields import choice, count, factor, make_field, optional_path, plain, texts
from lensjax.prng import MAX_SEED

# The measures of `--mode=evaluate`, in the order of the report.
MEASURES = (
    "smooth_fit",
    "axion_fit",
    "potential_fit",
    "free_fit",
    "shapes",
    "classes",
    "taught",
    "c2st",
    "lens_features",
    "inception",
    "twins",
    "copies",
    "residual_neighbours",
    "hole",
)
# Images a class that are judged where the configuration does not say how many.
MOST_IMAGES_UNASKED = 1_000


def measure_names(text: str) -> tuple[str, ...]:
    """The measures that a text names: `all`, `none`, or comma-separated names."""
    if text in ("all", "none"):
        return MEASURES if text == "all" else ()
    return tuple(name.strip() for name in text.split(","))


def _names_measures(text: str) -> bool:
    names = measure_names(text)
    return set(names) <= set(MEASURES) and len(set(names)) == len(names)


def _measures(default: str) -> str:
    """Makes a field for names of measures."""
    allowed = f"all, none, or comma-separated names of {', '.join(MEASURES)}"
    return make_field(default, _names_measures, allowed)


@dataclasses.dataclass(frozen=True)
class EvaluateConfig:
    """How images and classifiers are scored.

    Attributes:
      num_images: images per class to judge, generated and real alike; None for as many as the
        test split has, at most 1,000. Only scores at the same number can be compared; headline
        scores are taken at 5,000.
      image_scale: scale of `--images`: `flux`, in the units of the data set; `max` for images that
        were each divided by their maximum; `minmax` for images that were each mapped to 0..1 or
        another interval.
      image_factor: `--images` are this many times the flux, and are divided by it; below 0 for
        negatives. None is 1, and images that are plainly in other units are refused; 1 judges them
        as they are.
      planes: which planes of a file of `--images` are images, see `data.planes`; () for those of
        the data set.
      labels: file of the labels of `--images`, integers `[N]`; None for `labels.npy` beside it, if
        there is one; without it the images have no labels.
      measures: `all`, `none`, or comma-separated names of `config.evaluate.MEASURES`.
      require: measures without which the evaluation ends with an error; `none`, `all`, or names.
      baselines: whether the simulator, training images, means of two neighbours, PCA with a
        Gaussian, and blurred images are measured beside the generated ones.
      classifier: workdir of the classifier that the measure `classes` uses, with the same classes
        and image size; None for the network that comes with lensjax, which knows only Model II.
      inception_weights: the file `pt_inception-2015-12-05-6726825d.pth`; None for
        `$LENSJAX_INCEPTION_WEIGHTS`, else the cache, else one download.
      download: whether to try that download.
      train_images: training images per class with which generated images are compared to find
        copies.
      cache: folder for results that are computed only once; None for `$LENSJAX_CACHE`, else
        `~/.cache/lensjax`.
      while_training: images per class for a short evaluation beside each sample grid; 0 for none.
      seed: seed of noise, baselines and judging networks; generated images use `sample.seed`.
    """

    num_images: int | None = count(None, least=2)
    image_scale: str = choice("flux", ("flux", "max", "minmax"))
    image_factor: float | None = factor(None, since="0.3.0")
    planes: tuple[str, ...] = texts("names or patterns, such as ('SCI',)")
    labels: str | None = optional_path("file")
    measures: str = _measures("all")
    require: str = _measures("none")
    baselines: bool = plain(True)
    classifier: str | None = optional_path("workdir")
    inception_weights: str | None = optional_path("file")
    download: bool = plain(True)
    train_images: int = count(2_000, least=2)
    cache: str | None = optional_path("folder")
    while_training: int = count(16, least=0, most=10_000)
    seed: int = count(0, least=0, most=MAX_SEED)
