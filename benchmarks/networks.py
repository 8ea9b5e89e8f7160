"""The configurations that the speed benchmarks measure."""

import argparse
import ast
import dataclasses
import importlib.util
import math
import pathlib
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from lensjax.config import Config, check_overrides, from_config_dict
from lensjax.errors import ConfigError

ROOT = pathlib.Path(__file__).resolve().parent.parent
_IMAGE_BYTES = 2**28


def read_config(name: str, overrides: Sequence[str], fixed: dict[str, Any]) -> Config:
    """The configuration of a file with fields replaced.

    Images are synthetic, of any size, so that its data set is only a name.

    Args:
      name: the file, from the checkout's root or from here.
      overrides: `section.field=value` each.
      fixed: further fields by their full path, already of their types; None leaves one alone.

    Raises:
      ConfigError: for a field or value that is not allowed.
    """
    path = pathlib.Path(name) if pathlib.Path(name).exists() else ROOT / name
    spec = importlib.util.spec_from_file_location("benchmark_config", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    fixed = {field: value for field, value in fixed.items() if value is not None}
    texts = dict(text.partition("=")[::2] for text in overrides)
    for field in texts.keys() & fixed.keys():
        raise ConfigError(f"--set={field}", texts[field], "allowed: fields without a flag here")
    synthetic = {"data.name": "deeplense/folder", "data.folder": "synthetic images"}
    return overridden(from_config_dict(module.get_config()), overrides, synthetic | fixed)


def overridden(
    config: Config, overrides: Sequence[str], fixed: Mapping[str, Any] = MappingProxyType({})
) -> Config:
    """A configuration with fields replaced.

    Args:
      config: the configuration.
      overrides: `section.field=value` each.
      fixed: further fields by their full path, already of their types.

    Raises:
      ConfigError: for a field or value that is not allowed.
    """
    nested = dataclasses.asdict(config)
    texts = dict(text.partition("=")[::2] for text in overrides)
    check_overrides(texts)
    changes = {name: _literal(text) for name, text in texts.items()} | dict(fixed)
    for field, value in changes.items():
        section, _, leaf = field.rpartition(".")
        owner = nested[section] if section else nested
        owner[leaf] = str(value) if isinstance(owner[leaf], str) else value
    return from_config_dict(nested)


def _literal(text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def network_fields(options: argparse.Namespace) -> dict[str, Any]:
    """The fields that the options for the network's size set."""
    return {
        "model.patch_size": options.patch,
        "model.width": options.width,
        "model.depth": options.depth,
        "model.num_heads": options.heads,
        "parallel.num_devices": 1,
    }


def config_for(options: argparse.Namespace, precision: str, fields: dict[str, Any]) -> Config:
    """The checked configuration that both frameworks run in a precision.

    Args:
      options: of `pairs.parser`.
      precision: `float32`, `tf32` or `bfloat16`.
      fields: those of the benchmark by their full path.

    Raises:
      ConfigError: for a field that is not allowed, or what `nanodit_torch.py` does not have.
    """
    dtype = "bfloat16" if precision == "bfloat16" else "float32"
    fixed = network_fields(options) | fields | {"model.dtype": dtype}
    config = read_config(options.config, options.set, fixed)
    check_network(config, options.side)
    return config


def check_network(config: Config, side: int) -> None:
    """Checks that PyTorch's side is the same network and loss.

    Raises:
      ConfigError: for what `nanodit_torch.py` does not have.
    """
    wanted = {
        "model.name": "dit",
        "model.prediction": "velocity",
        "model.preconditioning": "none",
        "path.name": "flow",
        "loss.space": "velocity",
        "loss.weight": "uniform",
        "loss.time_distribution": "uniform",
        "loss.stratified": False,
        "sample.sampler": "euler",
        "sample.guidance_rescale": 0.0,
        "sample.guidance_interval": (0.0, 1.0),
        "optim.ema_more_half_lives_images": (),
        "data.augmentation": "none",
        "data.shift_pixels": 0,
        "model.remat": False,
        "train.accumulate_steps": 1,
    }
    for field, value in wanted.items():
        section, leaf = field.split(".")
        got = getattr(getattr(config, section), leaf)
        if got != value:
            raise ConfigError(field, got, f"allowed: {value}, which the network in PyTorch has")
    if side % config.model.patch_size:
        raise ConfigError(
            "model.patch_size", config.model.patch_size, f"allowed: a divisor of --side={side}"
        )


def num_images(batch: int, image_shape: Sequence[int]) -> int:
    """How many synthetic images to train on: 128 batches within 256 MiB, at least one."""
    fitting = _IMAGE_BYTES // (4 * math.prod(image_shape))
    return max(batch, min(128 * batch, fitting))
