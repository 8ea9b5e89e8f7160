"""The configuration of a run: sections as frozen dataclasses, and every check of them."""

from lensjax.config.classify import ClassifyConfig
from lensjax.config.evaluate import EvaluateConfig
from lensjax.config.model import ModelConfig
from lensjax.config.parallel import ParallelConfig
from lensjax.config.reading import (
    add_missing,
    check_attention,
    check_mask,
    check_overrides,
    default_config,
    differences,
    flat,
    from_config_dict,
    missing_fields,
    to_dict,
)
from lensjax.config.sections import (
    Config,
    DataConfig,
    ExportConfig,
    LossConfig,
    OptimConfig,
    PathConfig,
    SampleConfig,
    TrainConfig,
)
from lensjax.errors import ConfigError

__all__ = [
    "ClassifyConfig",
    "Config",
    "ConfigError",
    "DataConfig",
    "EvaluateConfig",
    "ExportConfig",
    "LossConfig",
    "ModelConfig",
    "OptimConfig",
    "ParallelConfig",
    "PathConfig",
    "SampleConfig",
    "TrainConfig",
    "add_missing",
    "check_attention",
    "check_mask",
    "check_overrides",
    "default_config",
    "differences",
    "flat",
    "from_config_dict",
    "missing_fields",
    "to_dict",
]
