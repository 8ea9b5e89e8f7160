"""The whole configuration: its sections, which tasks read them, and all checks in order."""

import dataclasses
from typing import Any

from lensjax.config.classify import ClassifyConfig, check_classify
from lensjax.config.data import DataConfig, check_data
from lensjax.config.diffusion import LossConfig, PathConfig, SampleConfig, check_diffusion
from lensjax.config.evaluate import EvaluateConfig
from lensjax.config.export import ExportConfig
from lensjax.config.fields import Facts, count, section
from lensjax.config.model import CLASSIFIERS, DENOISERS, GENERATE, TASKS, ModelConfig, check_model
from lensjax.config.parallel import ParallelConfig, check_parallel
from lensjax.config.training import OptimConfig, TrainConfig, check_ema, check_steps
from lensjax.errors import ConfigError
from lensjax.prng import MAX_SEED

_BEAM = "to build a set too large for one machine, use `python -m lensjax.data.beam`"
# Fields that no longer exist, and their replacements; saved configurations load without them.
RETIRED_FIELDS = {"data.num_parts": _BEAM, "data.part": _BEAM}
# Choices that no longer exist, and the choice that a saved configuration gets in their place.
RETIRED_CHOICES = {("model.attention", "pallas"): "auto"}

_GENERATORS = {"model.name": DENOISERS}


@dataclasses.dataclass(frozen=True)
class Config:
    """A checked configuration; see the classes of its sections.

    Attributes:
      data: the images.
      model: the network.
      path: the path from data to noise.
      loss: what a generator minimises.
      optim: the optimizer and the averages of the parameters.
      train: the training loop.
      sample: how images are drawn.
      classify: classifiers and pre-training.
      evaluate: how images are judged.
      export: files for other programs.
      parallel: devices and hosts.
      seed: seed of the initial parameters, the order of the images and the noise of training.
    """

    data: DataConfig = section(DataConfig)
    model: ModelConfig = section(ModelConfig)
    path: PathConfig = section(PathConfig, only_for=_GENERATORS)
    loss: LossConfig = section(LossConfig, only_for=_GENERATORS)
    optim: OptimConfig = section(OptimConfig)
    train: TrainConfig = section(TrainConfig)
    sample: SampleConfig = section(SampleConfig, only_for=_GENERATORS, resumable=True)
    classify: ClassifyConfig = section(
        ClassifyConfig, only_for={"model.name": (*CLASSIFIERS, "mae")}, since="0.1.0"
    )
    evaluate: EvaluateConfig = section(EvaluateConfig, resumable=True)
    export: ExportConfig = section(ExportConfig, resumable=True)
    parallel: ParallelConfig = section(ParallelConfig, resumable=True)
    seed: int = count(0, least=0, most=MAX_SEED)

    @property
    def task(self) -> str:
        """The task of the network: `generate`, `classify` or `pretrain`."""
        return TASKS[self.model.name]


def check(config: Config) -> None:
    """Checks that the fields fit together.

    Raises:
      ConfigError: for a field that the chosen parts do not read, or a meaningless combination.
    """
    _check_unread(config)
    check_data(config.data)
    check_model(config.model, config.data)
    check_ema(config.optim, config.sample)
    check_steps(config.train, config.data)
    check_parallel(config.parallel)
    check_classify(config.classify, config.model, config.data)
    if config.task == GENERATE:
        check_diffusion(config.path, config.loss, config.sample, config.model)
        if config.loss.weighting == "inverse_variance" and not config.data.variance_planes:
            raise ConfigError(
                "loss.weighting",
                config.loss.weighting,
                "allowed: uniform without data.variance_planes",
            )


def facts_of_fields() -> dict[str, Facts]:
    """Collects the facts of each field by its full path: its own and those of its section."""
    facts: dict[str, Facts] = {}
    for outer in dataclasses.fields(Config):
        if not dataclasses.is_dataclass(outer.default):
            facts[outer.name] = Facts(**outer.metadata)
            continue
        for field in dataclasses.fields(outer.default):
            only_for = {**outer.metadata.get("only_for", {}), **field.metadata.get("only_for", {})}
            own = {**outer.metadata, **field.metadata, "only_for": only_for}
            facts[f"{outer.name}.{field.name}"] = Facts(**own)
    return facts


def value_of(config: Config, path: str) -> Any:
    """Looks a field up by its full path."""
    section_name, _, field = path.rpartition(".")
    return getattr(getattr(config, section_name) if section_name else config, field)


def _check_unread(config: Config) -> None:
    """Refuses a value that no chosen part reads, since a user would rely on it."""
    defaults = Config()
    for path, facts in facts_of_fields().items():
        value, default = value_of(config, path), value_of(defaults, path)
        if value == default:
            continue
        for choice, readers in facts.get("only_for", {}).items():
            chosen = value_of(config, choice)
            if chosen not in readers:
                raise ConfigError(
                    path,
                    value,
                    f"allowed: {default} with {choice}={chosen}; other values only with "
                    f"{choice}={' or '.join(readers)}",
                )
