"""Which sections and fields each task reads: generators, classifiers, and pre-training."""

import dataclasses
from typing import Any

from lensjax.config.classify import BALANCED, UNWEIGHTED, ClassifyConfig, class_weights
from lensjax.config.model import ModelConfig
from lensjax.config.sections import Config, LossConfig, PathConfig, SampleConfig
from lensjax.data.catalogue import FOLDER_SET, SIMULATED_SETS
from lensjax.errors import ConfigError

GENERATE, CLASSIFY, PRETRAIN = "generate", "classify", "pretrain"
TRANSFORMERS = ("dit", "vit", "mae")
# Fields of the model that some networks alone read; the others leave them at their defaults.
_FIELDS_OF_MODEL = {
    "num_features": ("cnn", "rescnn"),
    "cells": ("cnn", "rescnn"),
    "dropout": ("cnn", "rescnn", "resnet18", "vit"),
    "stem": ("resnet18",),
    "mask_share": ("mae",),
    "decoder_width": ("mae",),
    "decoder_depth": ("mae",),
    "decoder_heads": ("mae",),
    "normalise_patches": ("mae",),
    "prediction": ("dit", "unet"),
    "preconditioning": ("dit", "unet"),
    "attention": ("dit", "unet", "vit", "mae"),
    "remat": ("dit", "unet"),
    "attention_resolutions": ("unet", "dit"),  # a DiT has its own words for them
}
# Fields of `classify` that pre-training reads as well.
_FIELDS_OF_PRETRAINING = ("validation_share", "noise_share", "noise_magnitudes")


def _refuse_changes(section: str, got: Any, default: Any, reason: str, reads: Any = ()) -> None:
    for field in dataclasses.fields(got):
        value, usual = getattr(got, field.name), getattr(default, field.name)
        if value != usual and field.name not in reads:
            raise ConfigError(f"{section}.{field.name}", value, f"allowed: {usual} {reason}")


def _check_model(model: ModelConfig) -> None:
    defaults = ModelConfig()
    for name, readers in _FIELDS_OF_MODEL.items():
        value, usual = getattr(model, name), getattr(defaults, name)
        if value != usual and model.name not in readers:
            raise ConfigError(
                f"model.{name}",
                value,
                f"allowed: {usual} with model.name={model.name}; it is for {', '.join(readers)}",
            )
    if model.name in TRANSFORMERS:
        if model.width % model.num_heads:
            raise ConfigError(
                "model.num_heads",
                model.num_heads,
                f"allowed: a divisor of model.width, {model.width}",
            )
        if model.width % 4:
            raise ConfigError("model.width", model.width, "allowed: a multiple of 4")
    if model.name == "mae":
        if model.decoder_width % model.decoder_heads:
            raise ConfigError(
                "model.decoder_heads",
                model.decoder_heads,
                f"allowed: a divisor of model.decoder_width, {model.decoder_width}",
            )
        if model.decoder_width % 4:
            raise ConfigError(
                "model.decoder_width", model.decoder_width, "allowed: a multiple of 4"
            )


def _check_classes(config: Config) -> None:
    num_classes, weights = config.model.num_classes, config.classify.class_weights
    if num_classes < 2:
        raise ConfigError(
            "model.num_classes",
            num_classes,
            f"allowed: at least 2 with model.name={config.model.name}, which tells classes apart",
        )
    if weights not in (BALANCED, UNWEIGHTED) and len(class_weights(weights)) != num_classes:
        raise ConfigError(
            "classify.class_weights",
            weights,
            f"allowed: none, balanced, or {num_classes} numbers, one for each class",
        )
    start = config.classify
    if start.start_from is None and not (start.train_encoder and start.start_step is None):
        field = "train_encoder" if not start.train_encoder else "start_step"
        raise ConfigError(
            f"classify.{field}",
            getattr(start, field),
            f"allowed: {getattr(ClassifyConfig(), field)} without classify.start_from",
        )
    if start.start_from is not None and config.model.name != "vit":
        raise ConfigError(
            "classify.start_from",
            start.start_from,
            f"allowed: None with model.name={config.model.name}; masked autoencoders train the "
            "encoder of a vit",
        )


def _check_noise(config: Config) -> None:
    settings, name = config.classify, config.data.name
    if not settings.noise_share:
        return
    simulated = SIMULATED_SETS.get(name)
    if simulated is None or not simulated.takes_noise:
        what = "a user's files" if name == FOLDER_SET else name
        raise ConfigError(
            "classify.noise_share",
            settings.noise_share,
            f"allowed: 0 for {what}; it is for noise-free sets of Models II and III",
        )
    if config.data.scaling == "sqrt":
        raise ConfigError(
            "data.scaling",
            config.data.scaling,
            "allowed: linear, asinh with classify.noise_share above 0, since noise makes pixels "
            "negative",
        )


def check_task(config: Config) -> None:
    """Checks that a configuration sets nothing that its task does not read.

    Raises:
      ConfigError: for the first field that is wrong.
    """
    _check_model(config.model)
    if config.task == GENERATE:
        reason = f"with model.name={config.model.name}; it is for classifiers and pre-training"
        _refuse_changes("classify", config.classify, ClassifyConfig(), reason)
        return
    reason = f"with model.name={config.model.name}; it is for generators"
    _refuse_changes("path", config.path, PathConfig(), reason)
    _refuse_changes("loss", config.loss, LossConfig(), reason)
    _refuse_changes("sample", config.sample, SampleConfig(), reason)
    _check_noise(config)
    if config.task == PRETRAIN:
        reason = "with model.name=mae; it is for classifiers"
        _refuse_changes(
            "classify", config.classify, ClassifyConfig(), reason, _FIELDS_OF_PRETRAINING
        )
        return
    _check_classes(config)
