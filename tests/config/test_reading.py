"""Every field of the configuration: its type, its limits, and that something reads it."""

import ast
import dataclasses
import functools
import importlib
import itertools
import json
import math
import types
import typing
from typing import Any

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from run_support import ROOT, TINY, nested, run_python, tiny_values

from lensjax import config as configuration
from lensjax.config import Config, check_overrides, default_config, from_config_dict
from lensjax.config.fields import read_section
from lensjax.data.catalogue import SIMULATED_SETS
from lensjax.errors import ConfigError

SECTIONS = {
    field.name: field.default
    for field in dataclasses.fields(Config)
    if dataclasses.is_dataclass(field.default)
}
# Type and default of each field by its full path.
FIELDS: dict[str, tuple[Any, Any]] = {"seed": (int, 0)} | {
    f"{section}.{name}": (kind, getattr(values, name))
    for section, values in SECTIONS.items()
    for name, kind in typing.get_type_hints(type(values)).items()
}
# The same few values in every run; to shrink them would take minutes.
drawn = settings(
    derandomize=True, max_examples=4, deadline=None, database=None, phases=[Phase.generate]
)


def _kind(path: str) -> tuple[Any, bool]:
    """The type of a field without None, and whether it may be None."""
    kind = FIELDS[path][0]
    if isinstance(kind, types.UnionType):
        return next(part for part in typing.get_args(kind) if part is not type(None)), True
    return kind, False


def _by_name(groups: dict[Any, str]) -> dict[str, Any]:
    return {name: limit for limit, names in groups.items() for name in names.split()}


# The least integer of a field, and the largest.
INTEGERS = _by_name(
    {
        (0, 2**31 - 1): """
            seed sample.seed evaluate.seed data.mask_bits data.shift_pixels optim.warmup_steps
            classify.patience parallel.process_id""",
        (0, 10_000): "evaluate.while_training",
        (1, 2**31 - 1): """
            train.steps_per_dispatch train.log_every train.evaluate_every train.evaluate_images
            train.sample_every train.checkpoint_every train.keep_last train.keep_every
            train.num_steps sample.guide_step sample.num_images classify.start_step
            parallel.num_devices parallel.num_processes""",
        (1, 2**20): "sample.batch_size classify.batch_size",
        (1, 2**16): "model.condition_width model.attention_head_width model.num_features",
        (1, 256): "model.depth model.blocks model.decoder_depth",
        (1, 64): "model.mlp_ratio model.patch_size model.decoder_heads",
        (1, 1_000): "sample.grid_columns",
        (1, 1_024): "model.cells",
        (1, 1_000_000): "sample.steps",
        (1, 8): "model.num_heads train.accumulate_steps",
        (1, 3000): "train.batch_size",
        (2, 2**31 - 1): "evaluate.num_images evaluate.train_images",
        (3, 3): "model.num_classes",
    }
)
# Bounds of a number, and whether each belongs to what is allowed.
NUMBERS = _by_name(
    {
        (1e-30, 1e30, "[]"): """
            data.model_std loss.min_sigma loss.min_snr_gamma optim.learning_rate
            optim.clip_norm optim.eps optim.ema_half_life_images path.beta_max path.sigma_max
            sample.shift sample.churn sample.churn_noise""",
        (1e-30, 1e6, "[]"): """
            parallel.start_timeout_s parallel.heartbeat_timeout_s data.file_memory_gib
            data.file_seconds""",
        (1e-30, 100, "[]"): "loss.time_std",
        (0, 1e30, "[]"): "optim.weight_decay",
        (0, 1000, "[]"): "sample.guidance",
        (-100, 100, "[]"): "loss.time_mean",
        (0, 1, "[]"): """
            loss.label_drop loss.uniform_share optim.learning_rate_floor optim.ema_warmup_share
            sample.eta
            sample.guidance_rescale classify.noise_share""",
        (0, 1, "[)"): "model.dropout optim.b1 optim.b2",
        (0.001, 0.9, "[]"): "data.test_share",
        (0, 20, "()"): "path.beta_min",
        (0, 80, "()"): "path.sigma_min",
        (0, 0.5, "[]"): "classify.label_smoothing",
        (0.001, 0.5, "[]"): "classify.validation_share",
        (0.05, 0.95, "[]"): "model.mask_share",
        (1e-5, 1, "[]"): "classify.label_share",
    }
)
# One of a few words; any text that is not empty.
WORDS = _by_name(
    {
        None: """
            data.layout data.nan_policy data.on_bad_file data.placement data.scaling model.name
            model.prediction model.attention model.preconditioning model.stem path.name path.betas
            optim.schedule optim.name
            loss.space loss.weight loss.weighting loss.time_distribution sample.sampler
            sample.time_grid data.folders data.bands
            classify.layout classify.image_scale evaluate.image_scale export.source export.format
            export.split export.scale parallel.strategy parallel.hosts"""
    }
)
TEXTS = _by_name(
    {
        None: """
            data.folder data.files sample.guide_workdir classify.start_from evaluate.labels
            evaluate.classifier evaluate.inception_weights evaluate.cache export.folder"""
    }
)
# Of all others, values of the right type that must be refused, and extreme ones that must not;
# for some of the tables above, those that are not next to a limit.
OTHERS: dict[str, tuple[tuple, tuple]] = {
    "data.name": (("", "model_ii", "deeplense/model_iv", "deeplense/model_ii_tiny"), ()),
    "data.augmentation": (("", "flip", "rotate_180;flip_x", "all"), ("none", "rotate_180")),
    "data.group": (("", "  ", "(a)(b)", "(", "a(?:b)"), (None, "lens", "(.*)_[gri]")),
    "data.planes": ((("",), ("VIS", ""), ("VIS,",)), ((), ("VIS",), ("*_SCI", "1"))),
    "data.variance_planes": ((("",), ("A", "B")), ((), ("auto",))),
    "data.mask_planes": ((("",), ("A", "B")), ((), ("auto",))),
    "data.exclude_source_disc": (
        (
            *((0.1,), (0.1, 0.1), (0.1, 0.1, 0.1, 0.1), (0.1, 0.1, 0.0), (0.1, 0.1, -0.1)),
            *((math.nan, 0.0, 0.1), (0.0, 0.0, math.inf)),
            *((0.0, 0.0, 0.4951), (0.46, 0.0, 0.1), (0.0, -0.46, 0.1), (0.43, 0.43, 0.1)),
        ),
        ((), (0.1, -0.1, 0.1), (0.0, 0.0, 0.49), (0.44, 0.0, 0.1), (0.42, 0.42, 0.1)),
    ),
    "model.num_classes": ((2,), ()),
    "model.dtype": (("float16", "float64"), ("float32", "bfloat16")),
    "model.patch_size": ((65,), (3, 64)),
    "model.width": ((0, -8, 10, 6, 2**16 + 4, 10**12), (8, 12, 2**16)),
    "model.num_heads": ((3, 16), ()),
    "model.widths": (((), (0,), (8, -1), (2**16 + 1,), (8,) * 17), ((1,), (8, 8, 8))),
    "model.attention_resolutions": (((0,), (-8,), (7,), (16,), (8, 4), (2**60,)), ((), (8,))),
    "model.decoder_width": ((0, -8, 2**16 + 4), (4, 12)),
    "model.decoder_heads": ((3,), ()),
    "path.table_steps": ((-1, 1, 20, 100_001), (0, 50, 100_000)),
    "path.beta_max": ((), (0.2, 1e3)),
    "path.sigma_max": ((), (0.003, 1e4)),
    "loss.time_mean": ((-math.inf,), (-5.0, 5.0)),
    "optim.cooldown_share": ((0.0, -0.1, 1.1, math.nan), (1e-9, 1.0)),
    "optim.ema_more_half_lives_images": (
        ((0.0,), (9.0, -1.0), (math.inf,), (math.nan,), (500.0, 9.0, 500.0), (9.0, 32.0)),
        ((), (500.0,), (1e-30, 1e30, 31.9)),
    ),
    "train.steps_per_dispatch": ((), (1, 4)),
    "train.accumulate_steps": ((3, 16), ()),
    "sample.ema": (("", "nonsense", "500"), ("main", "raw")),
    "sample.times": (((1.0,), (1.0, math.nan, 0.0)), ((), (1.0, 0.5, 0.0))),
    "sample.shift": ((), (0.1, 10.0)),
    "sample.t_end": ((-0.1, 1.0, math.nan), (None, 0.0, 0.02, 0.99)),
    "sample.eta_interval": (((0.0, math.nan),), ((0.0, 1.0), (0.2, 0.8))),
    "sample.churn_interval": (((0.0, math.nan),), ((0.0, 1.0), (0.2, 0.8))),
    "sample.guidance_interval": (((0.0, math.nan),), ((0.0, 1.0), (0.2, 0.8))),
    "classify.class_weights": (
        ("", "nonsense", "1,1", "1,1,1,1", "1,,1", "1,1,0", "1,1,-1", "1,1,nan", "1,1,inf"),
        ("none", "balanced", "1,1,2.5"),
    ),
    "classify.noise_magnitudes": (
        ((), (20.0,), (20.0, 21.0, 22.0), (23.0, 20.0), (-0.1, 20.0), (20.0, 40.1), (20, math.nan)),
        ((0.0, 40.0), (21.0, 21.0)),
    ),
    "classify.planes": ((("",),), ((), ("SCI",))),
    "evaluate.planes": ((("",),), ((), ("SCI",))),
    "classify.image_factor": ((0.0, 1e-31, -1e31, math.inf, math.nan), (-1.0, 1e-9, 1e9)),
    "evaluate.image_factor": ((0.0, 1e31, math.inf, math.nan), (None, -1.0, 1e-9, 1e9)),
    "evaluate.measures": (
        ("", "fid", "shapes,fid", "shapes,shapes", "all,shapes"),
        ("all", "none", "shapes", "shapes, c2st"),
    ),
    "evaluate.require": (("", "fid", "c2st c2st"), ("all", "none", "c2st,inception")),
    "parallel.mesh": (((0, 1), (1,), (2, 2, 2), (-1, 1)), ((4, 2), (1, 1), ())),
    "parallel.num_processes": ((), (2,)),
    "parallel.process_id": ((), (0,)),
    "parallel.coordinator": (
        ("", "node7", ":70", "node7:", "node7:x"),
        (None, "node7:7654", "[::1]:7"),
    ),
}
WITHOUT_LIMITS = {"data.directory"} | {path for path, (kind, _) in FIELDS.items() if kind is bool}

# What only a user's own files have, with a value beside the default.
OF_FOLDERS = {
    "data.folder": "skip",
    "data.files": "*/data.fits",
    "data.folders": "objects",
    "data.group": "(.*)_[gri]",
    "data.planes": ("VIS",),
    "data.variance_planes": ("auto",),
    "data.mask_planes": ("auto",),
    "data.mask_bits": 3,
    "data.bands": "channels",
    "data.file_memory_gib": 2.0,
    "data.file_seconds": 60.0,
    "data.layout": "HW",
    "data.nan_policy": "fill",
    "data.on_bad_file": "skip",
    "data.test_share": 0.2,
    "data.shift_pixels": 1,
}
FOLDER = {"data.name": "deeplense/folder", "data.folder": "images"}
UNET = {"model.name": "unet"}
CNN = {"model.name": "cnn"}
VIT = {"model.name": "vit"}
MAE = {"model.name": "mae"}
VP = {"path.name": "vp"}
EDM = {"model.preconditioning": "input", "model.prediction": "x0"}
# What a field, or one of its words, has to stand beside.
NEEDED: dict[str, dict[str, Any]] = {
    "optim.cooldown_share": {"optim.schedule": "cooldown"},
    "data.mask_bits": {"data.mask_planes": ("DQ",)},
    "data.bands channels": {"data.planes": ("VIS", "NIR_Y")},
    "loss.weighting inverse_variance": FOLDER | {"data.variance_planes": ("auto",)},
    "parallel.mesh": {"parallel.num_devices": None},
    "parallel.num_processes": {"parallel.process_id": 0},
    "parallel.process_id": {"parallel.num_processes": 2},
    "model.attention_resolutions": UNET,
    "train.steps_per_dispatch": {"train.log_every": 4},
    "path.betas": VP,
    "path.table_steps": VP | {"model.prediction": "eps", "loss.space": "eps"},
    "path.beta_min": VP,
    "path.beta_max": VP,
    "path.sigma_min": EDM | {"path.name": "edm"},
    "path.sigma_max": EDM | {"path.name": "edm"},
    "path.name edm": EDM,
    "model.preconditioning edm": {"model.prediction": "x0"},
    "loss.weight min_snr": {"loss.space": "x0"},
    "loss.weight edm": {"loss.space": "x0"},
    "loss.min_snr_gamma": {"loss.space": "x0", "loss.weight": "min_snr"},
    "loss.time_mean": {"loss.time_distribution": "logit_normal"},
    "loss.time_std": {"loss.time_distribution": "logit_normal"},
    "loss.uniform_share": {"loss.time_distribution": "logit_normal"},
    "loss.label_drop": {"sample.guidance": 1.0},
    "sample.shift": {"sample.time_grid": "shifted"},
    "sample.t_end": {"sample.time_grid": "karras"},
    "sample.eta": {"sample.sampler": "ddim"},
    "sample.eta_interval": {"sample.sampler": "ddim"},
    **{f"sample.churn{name}": {"sample.sampler": "churn"} for name in ("", "_noise", "_interval")},
    **{f"model.{name}": CNN for name in ("num_features", "cells", "dropout")},
    "model.stem": {"model.name": "resnet18"},
    "model.mask_share": MAE,
    **{f"model.decoder_{name}": MAE for name in ("width", "depth", "heads")},
    **{path: CNN for path in FIELDS if path.startswith("classify.")},
    "classify.start_from": VIT,
    "classify.start_step": VIT | {"classify.start_from": "runs/mae"},
    "classify.train_encoder": VIT | {"classify.start_from": "runs/mae"},
}


def said_of(changes: dict[str, Any]) -> str:
    """What is said against TINY with changes; empty text where nothing is."""
    try:
        from_config_dict(nested(tiny_values(changes)))
    except ConfigError as error:
        return str(error)
    return ""


@functools.cache
def _values_of(section: str) -> dict[str, Any]:
    return nested(TINY)[section]


def with_neighbours(path: str, value: Any) -> dict[str, Any]:
    """Changes that set one field, and others beside which the value has a meaning."""
    of_folder = path in OF_FOLDERS or (path, value) == ("data.name", FOLDER["data.name"])
    needed = NEEDED.get(path, {}) | NEEDED.get(f"{path} {value}", {})
    return (FOLDER if of_folder else {}) | needed | {path: value}


def said_of_field(path: str, value: Any) -> str:
    """What is said against one value, by its section or by the whole."""
    section, _, leaf = path.rpartition(".")
    try:
        if section:
            read_section(
                type(SECTIONS[section]), _values_of(section) | {leaf: value}, f"{section}."
            )
    except ConfigError as error:
        return str(error)
    return said_of(with_neighbours(path, value))


def not_refused(values: list[tuple[str, Any]]) -> list[tuple[str, Any, str]]:
    """Of values of fields, those that are taken, or refused by another path or without a remedy."""
    told = [(path, value, said_of_field(path, value)) for path, value in values]
    return [
        (path, value, text)
        for path, value, text in told
        if not text.startswith(f"{path}: got ") or "; allowed: " not in text or "\n" in text
    ]


def test_each_field_has_limits_or_none():
    assert {*INTEGERS, *NUMBERS, *WORDS, *TEXTS, *OTHERS} | WITHOUT_LIMITS == set(FIELDS)


def _fits(kind: Any, value: Any) -> bool:
    """Whether a value is of a field's type; integers are numbers, lists are tuples."""
    if typing.get_origin(kind) is tuple:
        element = typing.get_args(kind)[0]
        return type(value) in (tuple, list) and all(_fits(element, one) for one in value)
    return type(value) in ((int, float) if kind is float else (kind,))


ELEMENTS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3)
VALUES = ELEMENTS | st.binary(max_size=3) | st.complex_numbers() | st.lists(ELEMENTS, max_size=2)
NEAR_MISSES = (1.0, "1", "0.5", "True", True, 0, None, ("8",), (True, 0.0), (1.5,), {8}, ["jit"])


def _wrong_for(path: str, value: Any) -> bool:
    kind, optional = _kind(path)
    return not _fits(kind, value) and not (value is None and optional)


@drawn
@given(value=VALUES)
def test_a_value_of_a_wrong_type_is_refused_by_its_full_path(value):
    assert not_refused([(path, value) for path in FIELDS if _wrong_for(path, value)]) == []


def test_a_value_of_nearly_the_right_type_is_refused_by_its_full_path():
    near = itertools.product(FIELDS, NEAR_MISSES)
    assert not_refused([one for one in near if _wrong_for(*one)]) == []


@drawn
@given(whole=st.integers(1, 10**12), number=st.floats(1e-3, 1e12), word=st.text(max_size=5))
def test_a_value_beyond_the_limits_is_refused_by_its_full_path(whole, number, word):
    bad: list[tuple[str, Any]] = []
    for path, (least, most) in INTEGERS.items():
        bad += [(path, least - 1), (path, least - whole)]
        bad += [(path, most + 1), (path, most + whole)]
    for path, (low, high, ends) in NUMBERS.items():
        lowest = math.nextafter(low, -math.inf) if ends[0] == "[" else low
        highest = math.nextafter(high, math.inf) if ends[1] == "]" else high
        outside = (lowest, low - number, highest, 1.1 * high + number, math.nan, math.inf)
        bad += [(path, one) for one in outside]
    bad += [(path, f"?{word}") for path in WORDS]
    assert not_refused(bad) == []


def test_what_is_beyond_the_limits_in_another_way_is_refused_by_its_full_path():
    bad = [(path, value) for path, (values, _) in OTHERS.items() for value in values]
    bad += [(path, "") for path in TEXTS] + [(path, "DIT") for path in WORDS]
    assert not_refused(bad) == []


def _extreme_values() -> list[tuple[str, Any]]:
    """The limits themselves, or values near those that do not belong to what is allowed."""
    good = [(path, value) for path, (_, values) in OTHERS.items() for value in values]
    good += [(path, text) for path in TEXTS for text in ("images", *([None] * _kind(path)[1]))]
    good.remove(("data.folder", None))
    named = {path for path, (_, values) in OTHERS.items() if values}
    for path in INTEGERS.keys() - named:
        least, most = INTEGERS[path]
        good += [(path, least), (path, most)]
        good += [(path, None)] * _kind(path)[1]
    for path in NUMBERS.keys() - named:
        low, high, ends = NUMBERS[path]
        near = max(low, -1e30) + 1e-3 * (high - low if high < math.inf else 1e-27)
        far = 1e30 if high == math.inf else high - 1e-3 * (high - low)
        good += [(path, low if ends[0] == "[" else near), (path, high if ends[1] == "]" else far)]
    return good


def test_the_limits_themselves_are_allowed():
    faults: list[tuple[str, Any, Any]] = []
    for path, value in _extreme_values():
        try:
            config = from_config_dict(nested(tiny_values(with_neighbours(path, value))))
        except ConfigError as error:
            faults.append((path, value, error))
        else:
            kept = functools.reduce(getattr, path.split("."), config)
            faults += [] if kept == value else [(path, value, kept)]
    assert faults == []


def test_a_refused_word_is_answered_by_all_allowed_ones():
    faults = []
    for path in WORDS:
        text = said_of_field(path, "nonsense").partition("allowed: ")[2]
        words = text.partition(" (did you mean")[0].split(", ")
        faults += [] if FIELDS[path][1] in words else [(path, text)]
        faults += [(path, word) for word in words if said_of(with_neighbours(path, word))]
    assert faults == []


def test_what_is_for_folders_is_refused_for_simulated_sets():
    for path, value in OF_FOLDERS.items():
        only = f"allowed: {FIELDS[path][1]} with data.name={TINY['data.name']};"
        assert said_of({path: value}).startswith(f"{path}: got {value!r}; {only}")


def test_a_folder_set_needs_a_folder():
    text = said_of({"data.name": "deeplense/folder"})
    assert text.startswith("data.folder: got None; allowed: ")


def test_simulated_sets_have_one_symmetry_and_folders_may_have_any():
    for names in ("rotate_90", "flip_x", "all", "rotate_180,flip_x"):
        text = said_of({"data.augmentation": names})
        assert text.startswith("data.augmentation: got ")
        assert "none, rotate_180 for deeplense/model_ii_mini" in text
        assert not said_of(FOLDER | {"data.augmentation": names})


def test_an_integer_is_a_number():
    changes = {"optim.learning_rate": 1, "optim.ema_more_half_lives_images": [9, 8.5]}
    config = from_config_dict(nested(TINY | changes))
    assert type(config.optim.learning_rate) is float
    assert config.optim.ema_more_half_lives_images == (9.0, 8.5)
    assert {type(value) for value in config.optim.ema_more_half_lives_images} == {float}


def test_only_an_average_that_is_kept_can_be_drawn_with():
    for more in ((), (500.0,), (2_000.0, 0.5)):
        choices = ["main", *(f"{half_life:g}" for half_life in more), "raw"]
        for name in ("main", "raw", "500", "500.0", "5e2", "2000", "0.5", "32", " "):
            text = said_of({"optim.ema_more_half_lives_images": more, "sample.ema": name})
            refusal = f"sample.ema: got {name!r}; allowed: {', '.join(choices)}"
            assert text == ("" if name in choices else refusal)


def test_a_data_set_that_does_not_exist_is_answered_by_those_that_do():
    text = said_of({"data.name": "deeplense/model_ii_noise"})
    assert all(name in text for name in SIMULATED_SETS)
    assert "did you mean deeplense/model_ii_noisy?" in text


def test_the_limits_of_the_transformer_do_not_bind_the_unet():
    changes = {"model.patch_size": 3, "model.num_heads": 3}
    assert not said_of(UNET | changes)
    assert said_of(changes).startswith("model.num_heads: got 3; ")


def test_the_patch_is_compared_with_the_side_of_the_set_itself():
    for patch_size, fits in ((2, True), (25, True), (64, True), (150, True), (151, False)):
        text = said_of({"data.name": "deeplense/model_i", "model.patch_size": patch_size})
        assert not text if fits else "150x150" in text


@pytest.mark.parametrize(
    ("set_name", "patch_size", "rows"),
    [
        ("deeplense/model_i", 2, (80, 40, 20, 10)),  # 150 pixels, padded to 160
        ("deeplense/model_i", 8, (20, 10)),
        ("deeplense/model_ii", 8, (8, 4)),
        ("deeplense/model_ii", 3, (22,)),
    ],
)
def test_attention_is_compared_with_the_feature_maps_of_the_set(set_name, patch_size, rows):
    own = {"data.name": set_name, "model.patch_size": patch_size, "model.widths": (8,) * len(rows)}
    for chosen in ((), rows[-1:], rows, rows[::-1]):
        assert not said_of(UNET | own | {"model.attention_resolutions": chosen})
    for chosen in ((rows[-1] + 1,), (*rows, rows[0] * 2)):
        text = said_of(UNET | own | {"model.attention_resolutions": chosen})
        assert text.startswith(f"model.attention_resolutions: got {chosen}; allowed: ")
        assert f" {', '.join(map(str, rows))} " in text


def test_attention_resolutions_are_refused_for_the_transformer():
    for data_set in ({}, FOLDER):
        text = said_of(data_set | {"model.attention_resolutions": (8,)})
        assert text.startswith("model.attention_resolutions: got (8,); ")
        assert "=dit;" in text


def test_the_heads_divide_the_channels_of_the_levels_with_attention():
    for widths, head_width, fits in (
        ((7, 80), 24, False),  # three heads
        ((7, 80), 16, True),
        ((7, 80), 27, True),  # two heads of 40
        ((7, 80), 81, True),  # one head
        ((80, 8), 24, True),  # the level without attention has no heads
    ):
        own = {"model.widths": widths, "model.attention_head_width": head_width}
        text = said_of(UNET | own | {"model.attention_resolutions": (4,)})
        refusal = f"model.attention_head_width: got {head_width}; allowed: a divisor of 80"
        assert not text if fits else text.startswith(refusal)


NETWORKS = ("dit", "unet", "cnn", "rescnn", "resnet18", "vit", "mae")
# A value beside the default, and the networks that read the field.
READERS: dict[str, tuple[Any, tuple[str, ...]]] = {
    "model.num_features": (7, ("cnn", "rescnn")),
    "model.cells": (3, ("cnn", "rescnn")),
    "model.dropout": (0.1, ("cnn", "rescnn", "resnet18", "vit")),
    "model.stem": ("imagenet", ("resnet18",)),
    "model.mask_share": (0.5, ("mae",)),
    "model.decoder_width": (8, ("mae",)),
    "model.decoder_depth": (1, ("mae",)),
    "model.decoder_heads": (2, ("mae",)),
    "model.normalise_patches": (False, ("mae",)),
    "model.prediction": ("x0", ("dit", "unet")),
    "model.preconditioning": ("input", ("dit", "unet")),
    "model.attention_resolutions": ((8,), ("unet",)),
    "model.attention": ("xla", ("dit", "unet", "vit", "mae")),
    "model.remat": (True, ("dit", "unet")),
    "path.name": ("vp", ("dit", "unet")),
    "loss.label_drop": (0.2, ("dit", "unet")),
    "loss.stratified": (True, ("dit", "unet")),
    "sample.steps": (3, ("dit", "unet")),
    "sample.ema": ("raw", ("dit", "unet")),
    "classify.label_smoothing": (0.1, ("cnn", "rescnn", "resnet18", "vit")),
    "classify.class_weights": ("balanced", ("cnn", "rescnn", "resnet18", "vit")),
    "classify.noise_share": (0.1, ("cnn", "rescnn", "resnet18", "vit", "mae")),
    "classify.noise_magnitudes": ((20.0, 21.0), ("cnn", "rescnn", "resnet18", "vit", "mae")),
    "classify.validation_share": (0.1, ("cnn", "rescnn", "resnet18", "vit", "mae")),
    "classify.label_share": (0.1, ("cnn", "rescnn", "resnet18", "vit")),
    "classify.patience": (2, ("cnn", "rescnn", "resnet18", "vit")),
    "classify.start_from": ("runs/mae", ("vit",)),
    "classify.image_scale": ("published", ("cnn", "rescnn", "resnet18", "vit")),
    "classify.image_factor": (2.0, ("cnn", "rescnn", "resnet18", "vit")),
    "classify.layout": ("NHW", ("cnn", "rescnn", "resnet18", "vit")),
    "classify.resize": (True, ("cnn", "rescnn", "resnet18", "vit")),
    "classify.batch_size": (7, ("cnn", "rescnn", "resnet18", "vit")),
}


def test_a_field_is_refused_where_the_network_or_its_task_does_not_read_it():
    faults = []
    for (path, (value, readers)), network in itertools.product(READERS.items(), NETWORKS):
        text = said_of({"model.name": network, path: value})
        usual = f"allowed: {FIELDS[path][1]} with model.name={network}"
        refusal = f"{path}: got {value!r}; {usual}"
        if text if network in readers else not text.startswith(refusal):
            faults.append((path, network, text))
    assert faults == []


II = "deeplense/model_ii"
MODEL_I = {"data.name": "deeplense/model_i_mini", "model.patch_size": 2}
NOISE = {"classify.noise_share": 0.5}
TWO = FOLDER | {"model.num_classes": 2}
DECODER = {"model.decoder_width": 8, "model.decoder_heads": 2}
# Changes, the field at fault, and of what it may be.
REFUSED: tuple[tuple[dict[str, Any], str, str], ...] = (
    (VIT | {"model.num_heads": 3}, "model.num_heads", "model.width, 8"),
    (VIT | {"model.width": 6, "model.num_heads": 1}, "model.width", "multiple of 4"),
    (MAE | {"model.patch_size": 65}, "model.patch_size", "64x64"),
    (MAE | {"model.patch_size": 64}, "model.patch_size", "something to find"),
    (MAE | DECODER | {"model.decoder_heads": 3}, "model.decoder_heads", "model.decoder_width, 8"),
    (MAE | DECODER | {"model.decoder_width": 6}, "model.decoder_width", "multiple of 4"),
    (CNN | FOLDER | {"model.num_classes": 0}, "model.num_classes", "least 2 "),
    (VIT | FOLDER | {"model.num_classes": 1}, "model.num_classes", "least 2 "),
    (CNN | {"classify.class_weights": "1,2"}, "classify.class_weights", "3 numbers"),
    (CNN | TWO | {"classify.class_weights": "1,2,3"}, "classify.class_weights", "2 numbers"),
    (CNN | NOISE | {"data.name": f"{II}_noisy_mini"}, "classify.noise_share", f"{II}_noisy_mini;"),
    (CNN | NOISE | MODEL_I, "classify.noise_share", "0 for deeplense/model_i_mini;"),
    (CNN | NOISE | FOLDER, "classify.noise_share", "0 for your own files;"),
    (CNN | NOISE | {"data.scaling": "sqrt"}, "data.scaling", "linear, asinh with "),
    (CNN | {"classify.start_from": "runs/mae"}, "classify.start_from", "None with model.name=cnn;"),
    (VIT | {"classify.start_step": 3}, "classify.start_step", "None without "),
    (MAE | {"classify.start_step": 3}, "classify.start_step", "None with model.name=mae"),
    (VIT | {"classify.train_encoder": False}, "classify.train_encoder", "True without "),
    (MAE | {"classify.train_encoder": False}, "classify.train_encoder", "True with model.name=mae"),
)


def test_combinations_that_cannot_be_trained_are_refused():
    faults = [
        (field, text)
        for changes, field, allowed in REFUSED
        if not (text := said_of(changes)).startswith(f"{field}: got {changes[field]!r}; allowed: ")
        or allowed not in text
    ]
    assert faults == []


def test_combinations_beside_the_refused_ones_are_allowed():
    allowed: tuple[dict[str, Any], ...] = (
        CNN | NOISE,
        MAE | NOISE,
        CNN | NOISE | {"data.name": "deeplense/model_ii_conserved_mini"},
        CNN | NOISE | {"data.name": "deeplense/model_iii", "data.scaling": "asinh"},
        CNN | {"data.scaling": "sqrt"},
        CNN | FOLDER | {"model.num_classes": 2, "classify.class_weights": "1,2"},
        MAE | FOLDER | {"model.num_classes": 0},
        MAE | FOLDER | {"model.num_classes": 1},
        VIT | {"classify.start_from": "runs/mae", "classify.start_step": 3},
        VIT | {"classify.start_from": "runs/mae", "classify.train_encoder": False},
    )
    for changes in allowed:
        config = from_config_dict(nested(tiny_values(changes)))
        assert config.task == ("pretrain" if changes["model.name"] == "mae" else "classify")


def test_an_unknown_field_is_named_with_its_section():
    for section in ("", *SECTIONS):
        values = nested(TINY)
        owner = values[section] if section else values
        first = next(iter(owner))
        owner[first + "x"] = 7
        path = f"{section}.{first}x" if section else f"{first}x"
        with pytest.raises(ConfigError) as caught:
            from_config_dict(values)
        assert str(caught.value).startswith(f"{path}: got 7; ")
        assert f"did you mean {first}? allowed: " in str(caught.value)


def test_a_missing_field_or_section_is_named():
    for path in (*FIELDS, *SECTIONS):
        values = nested(TINY)
        *sections, leaf = path.split(".")
        del (values[sections[0]] if sections else values)[leaf]
        with pytest.raises(ConfigError, match=rf"^{path}: got 'nothing'; "):
            from_config_dict(values)
    for section in SECTIONS:
        with pytest.raises(ConfigError, match=rf"^{section}: got 3; allowed: "):
            from_config_dict(nested(TINY) | {section: 3})


def test_the_dataclasses_are_frozen():
    config = Config()
    for owner in (config, *SECTIONS.values()):
        name = dataclasses.fields(owner)[0].name
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(owner, name, None)


def test_the_defaults_go_round():
    assert from_config_dict(default_config()) == Config()


def test_a_configuration_goes_through_json_and_back():
    for changes in (dict[str, Any](), TINY):
        config = from_config_dict(nested(changes))
        again = json.loads(json.dumps(configuration.to_dict(config)))
        assert from_config_dict(again) == config


def test_default_config_takes_a_value_of_each_field_and_no_other_field():
    for path, (_, default) in FIELDS.items():
        owner = default_config()
        *sections, leaf = path.split(".")
        owner = owner[sections[0]] if sections else owner
        kind, optional = _kind(path)
        value = {int: 1, float: 1.5, str: "text"}[kind] if optional else default
        setattr(owner, leaf, value)
        assert getattr(owner, leaf) == value
        with pytest.raises((AttributeError, KeyError)):
            setattr(owner, leaf + "x", value)


# Text that is of a field's type, and text that is not.
OF_TYPES: dict[Any, tuple[tuple[str, ...], tuple[str, ...]]] = {
    int: (("3", "-3"), ("", "x", "1.5", "None", "True")),
    float: (("3", "1e-3", "inf"), ("", "x", "1,5")),
    bool: (("True", "false", "1", "0"), ("", "maybe", "2")),
    str: (("", "anything"), ()),
    tuple[str, ...]: (
        ("VIS", "VIS,NIR_Y", "('VIS', 'NIR_Y')", "()", "('a b',)", "*_SCI"),
        ("", " ", ",", "VIS,,H", "VIS H", "(VIS"),
    ),
    tuple[int, ...]: (
        ("8", "8,16", "8,", "(8,)", "(8, 16)", "()"),
        ("", " ", ",", "8,x", "8.5", "8,,8", "(8", "None"),
    ),
    tuple[float, ...]: (
        ("0.5", "0.2,0.8", "(1.0, 0.5, 0.0)", "(1,)", "()", "( )", "1e-3, 0"),
        ("", " ", ",", "a,b", "0.2;0.8", "0.2,,0.8", "0.2 0.8", "0.8)", "None", "[0.2, 0.8]"),
    ),
}


def test_text_of_the_command_line_is_checked_by_the_type_of_its_field():
    for path in FIELDS:
        good, bad = OF_TYPES[_kind(path)[0]]
        for text in good:
            check_overrides({path: text})
        for text in bad:
            with pytest.raises(ConfigError) as caught:
                check_overrides({path: text})
            assert str(caught.value).startswith(f"{path}: got {text!r}; allowed: ")


def test_a_path_of_the_command_line_that_does_not_exist():
    for path, hint in (
        ("train.bach_size", "did you mean batch_size?"),
        ("trian.batch_size", "did you mean train?"),
        ("train.train", "no such field"),
        ("train", "section; set one of its fields: batch_size, "),
        ("seed.x", "seed is a field"),
        ("train.batch_size.x", "batch_size is a field"),
        ("", "no such field"),
    ):
        with pytest.raises(ConfigError) as caught:
            check_overrides({path: "3"})
        assert hint in str(caught.value)


def test_each_field_is_read_by_something():
    read = {
        node.attr
        for path in (ROOT / "lensjax").rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load)
    }
    assert {path for path in FIELDS if path.rpartition(".")[2] not in read} == set()


@pytest.mark.parametrize("path", sorted((ROOT / "configs").glob("*.py")), ids=lambda p: p.name)
def test_each_config_file_passes_the_checks_and_says_its_command(path):
    module = importlib.import_module(path.stem)
    config_dict = module.get_config()
    assert config_dict.is_locked
    assert isinstance(from_config_dict(config_dict), Config)
    commands = (f"python -m lensjax.main --config=configs/{path.name} --workdir=", "./launch/")
    lines = [line.strip() for line in (module.__doc__ or "").splitlines()]
    assert any(line.startswith(commands) for line in lines)


def test_checking_a_configuration_does_not_start_jax():
    """Flags of its compiler and the other hosts are settled later."""
    program = """
from jax._src import xla_bridge
from lensjax.config import default_config, from_config_dict
for path in ({"name": "flow"}, {"name": "vp"}, {"name": "vp", "table_steps": 100}):
    config = default_config()
    config.path.update(path)
    config.model.prediction = config.loss.space = "eps"
    for grid in ("uniform", "karras"):
        config.sample.time_grid = grid
        from_config_dict(config)
print("started:", list(xla_bridge._backends))
"""
    assert "started: []" in run_python("-c", program).stdout
