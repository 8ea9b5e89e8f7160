"""The configuration of a run: sections as frozen dataclasses, and every check of them."""

from lensjax.config.classify import ClassifyConfig
from lensjax.config.data import DataConfig
from lensjax.config.diffusion import LossConfig, PathConfig, SampleConfig
from lensjax.config.evaluate import EvaluateConfig
from lensjax.config.export import ExportConfig
from lensjax.config.model import ModelConfig, check_image_size, check_num_classes
from lensjax.config.parallel import ParallelConfig
from lensjax.config.reading import check_overrides, default_config, from_config_dict, to_dict
from lensjax.config.saved import brought_up_to_date, differences, flat, missing_fields
from lensjax.config.training import OptimConfig, TrainConfig
from lensjax.config.whole import Config
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
    "brought_up_to_date",
    "check_image_size",
    "check_num_classes",
    "check_overrides",
    "default_config",
    "differences",
    "flat",
    "from_config_dict",
    "missing_fields",
    "to_dict",
]
