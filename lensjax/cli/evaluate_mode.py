"""`--mode=evaluate`: judges drawn or given images beside real ones, or scores a classifier."""

import pathlib

from lensjax.config import Config
from lensjax.config.model import CLASSIFY, PRETRAIN
from lensjax.errors import ConfigError
from lensjax.files.packages import require_packages

PACKAGES = ("jinja2", "scipy", "sklearn")


def evaluate_mode(
    config: Config,
    workdir: pathlib.Path,
    images: pathlib.Path | None,
    output: pathlib.Path | None = None,
) -> None:
    """Evaluates the network of the configuration, or a file of images.

    Args:
      config: the configuration.
      workdir: the run's folder.
      images: a file of images to judge; None for those of the run.
      output: where `evaluation/` goes; None for the workdir.

    Raises:
      UserError: see `evaluate_generator` and `evaluate_classifier`; and for an autoencoder, in
        which there is nothing to score.
    """
    require_packages("--mode=evaluate", "evaluate", *PACKAGES)  # before all the measuring
    if config.task == CLASSIFY and images is None:
        from lensjax.evaluation.evaluate_classifier import evaluate_classifier

        evaluate_classifier(config, workdir, output)
        return
    if config.task == PRETRAIN and images is None:
        raise ConfigError(
            "model.name",
            config.model.name,
            "--mode=evaluate cannot score an autoencoder; allowed: the workdir of a generator or a "
            "classifier, such as a vit with classify.start_from",
        )
    from lensjax.evaluation.evaluate_generator import evaluate_generator

    evaluate_generator(config, workdir, images, output=output)
