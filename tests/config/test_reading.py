"""Every field of the configuration: its type, its limits, and that something reads it."""

import ast
import dataclasses
import importlib
import json
import math
import re
import types
import typing

import pytest
from run_support import ROOT, TINY, nested, run_python, tiny_values

from lensjax import config as configuration
from lensjax.config import Config, check_overrides, default_config, from_config_dict
from lensjax.errors import ConfigError

SECTIONS = {
    field.name: field.default
    for field in dataclasses.fields(Config)
    if dataclasses.is_dataclass(field.default)
}


def _fields() -> dict[str, tuple[typing.Any, typing.Any]]:
    """Returns type and default of each field by its full path."""
    found = {"seed": (int, 0)}
    for section, values in SECTIONS.items():
        for name, kind in typing.get_type_hints(type(values)).items():
            found[f"{section}.{name}"] = (kind, getattr(values, name))
    return found


FIELDS = _fields()
# Values of the right type that must be refused, and the extreme ones that must not.
COUNT = ((0, -1), (1,))
COUNT_OR_ZERO = ((-1,), (0,))
POSITIVE = ((0.0, -1.0, math.inf, math.nan), (1e-30, 1e30))
SHARE = ((-0.01, 1.01, math.nan, math.inf), (0.0, 1.0))
BELOW_ONE = ((-0.01, 1.0, math.nan), (0.0, 0.999999))
SEED = ((-1, 2**31), (0, 2**31 - 1))
INTERVAL = (
    ((), (0.5,), (0.2, 0.5, 0.8), (0.8, 0.2), (0.5, 0.5), (-0.1, 1.0), (0.0, 1.1), (0.0, math.nan)),
    ((0.0, 1.0), (0.2, 0.8)),
)
OTHER_WORD = (("", "nonsense", "DIT"), ())
LIMITS: dict[str, tuple[tuple, tuple]] = {
    "seed": SEED,
    "data.name": (("", "model_ii", "deeplense/model_iv", "deeplense/model_ii_tiny"), ()),
    "data.folder": (("",), ("images",)),
    "data.layout": OTHER_WORD,
    "data.nan_policy": OTHER_WORD,
    "data.on_bad_file": OTHER_WORD,
    "data.test_share": ((0.0, 1.0, math.nan), (0.1,)),
    "data.shift_pixels": COUNT_OR_ZERO,
    "data.placement": OTHER_WORD,
    "data.augmentation": (("", "flip", "rotate_180;flip_x", "all"), ("none", "rotate_180")),
    "data.scaling": OTHER_WORD,
    "data.model_std": POSITIVE,
    "data.exclude_source_disc": (
        (
            *((0.1,), (0.1, 0.1), (0.1, 0.1, 0.1, 0.1), (0.1, 0.1, 0.0), (0.1, 0.1, -0.1)),
            *((math.nan, 0.0, 0.1), (0.0, 0.0, math.inf)),
            *((0.0, 0.0, 0.4951), (0.46, 0.0, 0.1), (0.0, -0.46, 0.1), (0.43, 0.43, 0.1)),
        ),
        ((), (0.1, -0.1, 0.1), (0.0, 0.0, 0.49), (0.44, 0.0, 0.1), (0.42, 0.42, 0.1)),
    ),
    "model.name": OTHER_WORD,
    "model.num_classes": ((-1, 0, 2, 4), (3,)),
    "model.prediction": OTHER_WORD,
    "model.dtype": (("float16", "float64"), ("float32", "bfloat16")),
    "model.patch_size": ((0, -1, 3, 128), (1, 64)),
    "model.width": ((0, -8, 10, 6), (8, 12)),
    "model.depth": COUNT,
    "model.num_heads": ((0, -1, 3, 16), (1, 8)),
    "model.mlp_ratio": COUNT,
    "model.widths": (((), (0,), (8, -1)), ((1,), (8, 8, 8))),
    "model.blocks": COUNT,
    "model.condition_width": COUNT,
    "model.attention_resolutions": (((0,), (-8,), (7,), (16,), (8, 4)), ((), (8,))),
    "model.attention_head_width": COUNT,
    "model.attention": OTHER_WORD,
    "model.preconditioning": OTHER_WORD,
    "model.num_features": COUNT,
    "model.cells": COUNT,
    "model.dropout": BELOW_ONE,
    "model.stem": OTHER_WORD,
    "model.mask_share": ((0.04, 0.96, math.nan), (0.05, 0.95)),
    "model.decoder_width": ((0, -8), (4, 12)),
    "model.decoder_depth": COUNT,
    "model.decoder_heads": ((0, -1, 3, 128), (1, 64)),
    "path.name": OTHER_WORD,
    "path.betas": OTHER_WORD,
    "path.table_steps": ((-1, 1, 20, 100_001), (0, 50, 100_000)),
    "path.beta_min": ((*POSITIVE[0], 20.0), (1e-30, 19.9)),
    "path.beta_max": (POSITIVE[0], (0.2, 1e3)),
    "path.sigma_min": ((*POSITIVE[0], 80.0), (1e-4, 79.0)),
    "path.sigma_max": (POSITIVE[0], (0.003, 1e4)),
    "loss.space": OTHER_WORD,
    "loss.min_sigma": POSITIVE,
    "loss.weight": OTHER_WORD,
    "loss.min_snr_gamma": POSITIVE,
    "loss.time_distribution": OTHER_WORD,
    "loss.time_mean": ((math.nan, math.inf, -math.inf), (-5.0, 5.0)),
    "loss.time_std": POSITIVE,
    "loss.label_drop": SHARE,
    "optim.learning_rate": POSITIVE,
    "optim.warmup_steps": COUNT_OR_ZERO,
    "optim.learning_rate_floor": SHARE,
    "optim.weight_decay": ((-1e-9, math.inf, math.nan), (0.0, 10.0)),
    "optim.clip_norm": POSITIVE,
    "optim.b1": BELOW_ONE,
    "optim.b2": BELOW_ONE,
    "optim.eps": POSITIVE,
    "optim.ema_half_life_images": POSITIVE,
    "optim.ema_more_half_lives_images": (
        ((0.0,), (9.0, -1.0), (math.inf,), (math.nan,), (500.0, 9.0, 500.0), (9.0, 32.0)),
        ((), (500.0,), (1e-30, 1e30, 31.9)),
    ),
    "optim.ema_warmup_share": SHARE,
    "train.batch_size": ((0, -1, 3001), (1, 3000)),
    "train.num_steps": ((0, -1, 2**31), (1, 2**31 - 1)),
    "train.steps_per_dispatch": ((0, -1), (1, 4)),
    "train.accumulate_steps": ((0, -1, 3, 16), (1, 8)),
    "train.log_every": COUNT,
    "train.evaluate_every": COUNT,
    "train.evaluate_images": COUNT,
    "train.sample_every": COUNT,
    "train.checkpoint_every": COUNT,
    "train.keep_last": COUNT,
    "train.keep_every": ((0, -1), (None, 1)),
    "sample.ema": (*OTHER_WORD[:1], ("main", "raw")),
    "sample.sampler": OTHER_WORD,
    "sample.steps": COUNT,
    "sample.time_grid": OTHER_WORD,
    "sample.shift": (POSITIVE[0], (0.1, 10.0)),
    "sample.times": (
        ((1.0,), (1.0, 0.0), (1.0, math.nan, 0.0), (1.0, 0.5, 0.1), (0.0, 0.5, 1.0)),
        ((), (1.0, 0.5, 0.0)),
    ),
    "sample.eta": SHARE,
    "sample.churn": POSITIVE,
    "sample.churn_noise": POSITIVE,
    "sample.churn_interval": INTERVAL,
    "sample.guidance_rescale": SHARE,
    "sample.guidance_interval": INTERVAL,
    "sample.guide_workdir": (("",), (None, "runs/weaker")),
    "sample.guide_step": ((0, -1), (None, 1)),
    "sample.guidance": ((-0.1, math.inf, math.nan), (0.0, 1.0)),
    "sample.num_images": COUNT,
    "sample.batch_size": COUNT,
    "sample.seed": SEED,
    "sample.grid_columns": COUNT,
    "classify.label_smoothing": ((-0.01, 0.51, math.nan), (0.0, 0.5)),
    "classify.class_weights": (
        ("", "nonsense", "1,1", "1,1,1,1", "1,,1", "1,1,0", "1,1,-1", "1,1,nan", "1,1,inf"),
        ("none", "balanced", "1,1,2.5"),
    ),
    "classify.noise_share": SHARE,
    "classify.noise_magnitudes": (
        ((), (20.0,), (20.0, 21.0, 22.0), (23.0, 20.0), (-0.1, 20.0), (20.0, 40.1), (20, math.nan)),
        ((0.0, 40.0), (21.0, 21.0)),
    ),
    "classify.validation_share": ((0.0, 0.0009, 0.51, math.nan), (0.001, 0.5)),
    "classify.label_share": ((0.0, 9e-6, 1.01, math.nan), (1e-5, 1.0)),
    "classify.patience": ((-1,), (0, 1)),
    "classify.start_from": (("",), (None, "runs/mae")),
    "classify.start_step": ((0, -1), (None, 1)),
    "classify.layout": OTHER_WORD,
    "classify.image_scale": OTHER_WORD,
    "classify.batch_size": COUNT,
    "evaluate.num_images": ((1, 0, -1), (2, None)),
    "evaluate.image_scale": OTHER_WORD,
    "evaluate.labels": (("",), (None, "labels.npy")),
    "evaluate.measures": (
        ("", "fid", "shapes,fid", "shapes,shapes", "all,shapes"),
        ("all", "none", "shapes", "shapes, c2st"),
    ),
    "evaluate.require": (("", "fid", "c2st c2st"), ("all", "none", "c2st,inception")),
    "evaluate.classifier": (("",), (None, "runs/classifier")),
    "evaluate.inception_weights": (("",), (None, "weights.pth")),
    "evaluate.train_images": ((1, 0), (2,)),
    "evaluate.cache": (("",), (None, "cache")),
    "evaluate.while_training": ((-1,), (0, 1)),
    "evaluate.seed": SEED,
    "export.source": OTHER_WORD,
    "export.format": OTHER_WORD,
    "export.split": OTHER_WORD,
    "export.folder": (("",), (None, "files")),
    "export.scale": OTHER_WORD,
    "parallel.strategy": OTHER_WORD,
    "parallel.num_devices": ((0, -1), (None, 1)),
    "parallel.mesh": (((0, 1), (1,), (2, 2, 2), (-1, 1)), ((4, 2), (1, 1), ())),
    "parallel.hosts": OTHER_WORD,
    "parallel.coordinator": (
        ("", "node7", ":70", "node7:", "node7:x"),
        (None, "node7:7654", "[::1]:7"),
    ),
    "parallel.num_processes": ((0, -1), (2,)),
    "parallel.process_id": ((-1,), (0,)),
    "parallel.start_timeout_s": POSITIVE,
    "parallel.heartbeat_timeout_s": POSITIVE,
}
WITHOUT_LIMITS = {
    "data.directory",
    "train.deterministic",
    "loss.stratified",
    "model.normalise_patches",
    "model.remat",
    "classify.train_encoder",
    "classify.resize",
    "evaluate.baselines",
    "evaluate.download",
}
WRONG_TYPES: dict[typing.Any, tuple] = {
    int: (1.5, 1.0, "1", True, None, [1]),
    float: ("1", True, None, [1.0], 1j),
    bool: (1, 0, "True", None),
    str: (1, None, ["jit"], b"jit", True),
    tuple[int, ...]: (8, "8", None, (1.5,), (True,), ("8",), {8}),
    tuple[float, ...]: (0.5, "0.5", None, (True, 0.0), ("1.0", 0.0), (None, 1.0), {0.5}),
}


def _kind(path: str) -> tuple[typing.Any, bool]:
    kind = FIELDS[path][0]
    if isinstance(kind, types.UnionType):
        return next(part for part in typing.get_args(kind) if part is not type(None)), True
    return kind, False


def _wrong_types() -> list[tuple[str, typing.Any]]:
    return [
        (path, value)
        for path in FIELDS
        for value in WRONG_TYPES[_kind(path)[0]]
        if not (value is None and _kind(path)[1])
    ]


# What only a user's own files have.
OF_FOLDERS = {
    f"data.{name}"
    for name in ("folder", "layout", "nan_policy", "on_bad_file", "test_share", "shift_pixels")
}
FOLDER = {"data.name": "deeplense/folder", "data.folder": "images"}
UNET = {"model.name": "unet"}
CNN = {"model.name": "cnn"}
VIT = {"model.name": "vit"}
MAE = {"model.name": "mae"}

EDM = {"model.preconditioning": "input", "model.prediction": "x0"}
OTHER_WORDS = {
    "path.betas": ("cosine",),
    "model.stem": ("imagenet",),
    "classify.image_scale": ("published",),
    "classify.layout": ("NHW",),
}
# What a field, or one of its words, has to stand beside.
NEEDED: dict[str, dict[str, typing.Any]] = {
    "parallel.mesh": {"parallel.num_devices": None},
    "parallel.num_processes": {"parallel.process_id": 1},
    "parallel.process_id": {"parallel.num_processes": 2},
    "model.attention_resolutions": UNET,
    "train.steps_per_dispatch": {"train.log_every": 4},
    "path.betas": {"path.name": "vp"},
    "path.table_steps": {
        "path.name": "vp",
        "model.prediction": "eps",
        "loss.space": "eps",
    },
    "path.beta_min": {"path.name": "vp"},
    "path.beta_max": {"path.name": "vp"},
    "path.sigma_min": EDM | {"path.name": "edm"},
    "path.sigma_max": EDM | {"path.name": "edm"},
    "path.name edm": EDM,
    "model.preconditioning edm": {"model.prediction": "x0"},
    "loss.weight min_snr": {"loss.space": "x0"},
    "loss.weight edm": {"loss.space": "x0"},
    "loss.min_snr_gamma": {"loss.space": "x0", "loss.weight": "min_snr"},
    "loss.time_mean": {"loss.time_distribution": "logit_normal"},
    "loss.time_std": {"loss.time_distribution": "logit_normal"},
    "loss.label_drop": {"sample.guidance": 1.0},
    "sample.shift": {"sample.time_grid": "shifted"},
    "sample.eta": {"sample.sampler": "ddim"},
    "sample.churn": {"sample.sampler": "churn"},
    "sample.churn_noise": {"sample.sampler": "churn"},
    "sample.churn_interval": {"sample.sampler": "churn"},
    "model.num_features": CNN,
    "model.cells": CNN,
    "model.dropout": CNN,
    "model.stem": {"model.name": "resnet18"},
    "model.mask_share": MAE,
    "model.decoder_width": MAE,
    "model.decoder_depth": MAE,
    "model.decoder_heads": MAE,
    "classify.label_smoothing": CNN,
    "classify.class_weights": CNN,
    "classify.noise_share": CNN,
    "classify.noise_magnitudes": CNN,
    "classify.validation_share": CNN,
    "classify.label_share": CNN,
    "classify.patience": CNN,
    "classify.start_from": VIT,
    "classify.start_step": VIT | {"classify.start_from": "runs/mae"},
    "classify.image_scale": CNN,
    "classify.layout": CNN,
    "classify.batch_size": CNN,
}


def _tiny_with(path: str, value: typing.Any) -> dict[str, typing.Any]:
    """Returns a tiny configuration with one other value, beside which that value has a meaning."""
    of_folder = path in OF_FOLDERS or value == FOLDER["data.name"]
    needed = NEEDED.get(path, {}) | NEEDED.get(f"{path} {value}", {})
    return nested(tiny_values((FOLDER if of_folder else {}) | needed | {path: value}))


def _refused(path: str, value: typing.Any) -> str:
    with pytest.raises(ConfigError) as caught:
        from_config_dict(_tiny_with(path, value))
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_each_field_is_in_the_table_of_limits():
    assert set(LIMITS) | WITHOUT_LIMITS == set(FIELDS)


@pytest.mark.parametrize(("path", "value"), _wrong_types(), ids=str)
def test_a_wrong_type_is_refused_by_its_full_path(path, value):
    message = _refused(path, value)
    assert message.startswith(f"{path}: got {value!r}; allowed: ")


@pytest.mark.parametrize(
    ("path", "value"), [(path, bad) for path, (bads, _) in LIMITS.items() for bad in bads], ids=str
)
def test_a_value_beyond_the_limits_is_refused_by_its_full_path(path, value):
    message = _refused(path, value)
    assert message.startswith(f"{path}: got ")
    assert "allowed: " in message


GOOD = [(path, good) for path, (_, goods) in LIMITS.items() for good in goods]


@pytest.mark.parametrize(("path", "value"), GOOD, ids=str)
def test_the_limits_themselves_are_allowed(path, value):
    *sections, leaf = path.split(".")
    values = _tiny_with(path, value)
    if path != "model.num_heads":
        values["model"]["num_heads"] = 1
    owner = from_config_dict(values)
    for section in sections:
        owner = getattr(owner, section)
    assert getattr(owner, leaf) == value


def test_what_a_field_needs_is_needed():
    """Else the table would hold more than what is checked."""
    for place, needed in NEEDED.items():
        path, _, word = place.partition(" ")
        others = [good for good in LIMITS[path][1] if good != FIELDS[path][1]]
        value = word or (*others, *OTHER_WORDS.get(path, ()))[0]
        for name in needed:
            left = {one: other for one, other in needed.items() if one != name}
            with pytest.raises(ConfigError):
                from_config_dict(nested(tiny_values(left | {path: value})))


@pytest.mark.parametrize("path", [path for path, limits in LIMITS.items() if limits is OTHER_WORD])
def test_a_refused_word_is_answered_by_all_allowed_ones(path):
    default = FIELDS[path][1]
    message = _refused(path, "nonsense")
    words = message.partition("allowed: ")[2].partition(" (did you mean")[0].split(", ")
    assert default in words
    for word in words:
        from_config_dict(_tiny_with(path, word))


@pytest.mark.parametrize("path", sorted(OF_FOLDERS))
def test_what_is_for_folders_is_refused_for_simulated_sets(path):
    value = {int: 1, float: 0.2, str: "skip"}[_kind(path)[0]]
    value = {"data.layout": "HW", "data.nan_policy": "fill"}.get(path, value)
    message = re.escape(
        f"{path}: got {value!r}; allowed: {FIELDS[path][1]} with data.name={TINY['data.name']};"
    )
    with pytest.raises(ConfigError, match=message):
        from_config_dict(nested(TINY | {path: value}))


def test_a_folder_set_needs_a_folder():
    with pytest.raises(ConfigError, match=r"data\.folder: got None; allowed: a folder of images"):
        from_config_dict(nested(TINY | {"data.name": "deeplense/folder"}))


@pytest.mark.parametrize("names", ["rotate_90", "flip_x", "all", "rotate_180,flip_x"])
def test_simulated_sets_have_one_symmetry_and_folders_may_have_any(names):
    changes = {"data.augmentation": names}
    message = r"data\.augmentation: got .*; allowed: none, rotate_180 for deeplense/model_ii_mini"
    with pytest.raises(ConfigError, match=message):
        from_config_dict(nested(TINY | changes))
    from_config_dict(nested(TINY | FOLDER | changes))


def test_an_integer_is_a_number():
    changes = {"optim.learning_rate": 1, "optim.ema_more_half_lives_images": [9, 8.5]}
    config = from_config_dict(nested(TINY | changes))
    assert type(config.optim.learning_rate) is float
    assert config.optim.ema_more_half_lives_images == (9.0, 8.5)
    assert {type(value) for value in config.optim.ema_more_half_lives_images} == {float}


@pytest.mark.parametrize("more", [(), (500.0,), (2_000.0, 0.5)])
@pytest.mark.parametrize("name", ["main", "raw", "500", "500.0", "5e2", "2000", "0.5", "32", " "])
def test_only_an_average_that_is_kept_can_be_drawn_with(more, name):
    values = nested(TINY | {"optim.ema_more_half_lives_images": more, "sample.ema": name})
    choices = ["main", *(f"{half_life:g}" for half_life in more), "raw"]
    if name in choices:
        config = from_config_dict(values)
        assert [*config.optim.ema_half_lives, "raw"] == choices
        return
    with pytest.raises(ConfigError) as caught:
        from_config_dict(values)
    assert str(caught.value) == f"sample.ema: got {name!r}; allowed: {', '.join(choices)}"


def test_the_main_half_life_is_not_among_the_others():
    with pytest.raises(ConfigError) as caught:
        from_config_dict(nested(TINY | {"optim.ema_more_half_lives_images": (9.0, 32.0)}))
    expected = (
        "optim.ema_more_half_lives_images: got (9.0, 32.0); allowed: half-lives other "
        "than optim.ema_half_life_images, 32.0"
    )
    assert str(caught.value) == expected


def test_a_data_set_that_does_not_exist_is_answered_by_those_that_do():
    from lensjax.data.catalogue import SIMULATED_SETS

    message = _refused("data.name", "deeplense/model_ii_noise")
    assert all(name in message for name in SIMULATED_SETS)
    assert "did you mean deeplense/model_ii_noisy?" in message


@pytest.mark.parametrize("name", ["dit", "unet"])
def test_the_limits_of_the_transformer_do_not_bind_the_unet(name):
    values = nested(TINY | {"model.name": name, "model.patch_size": 3, "model.num_heads": 3})
    if name == "unet":
        assert from_config_dict(values).model.patch_size == 3
        return
    with pytest.raises(ConfigError, match=r"model\.num_heads: got 3; .*model.width, 8"):
        from_config_dict(values)


@pytest.mark.parametrize(("patch_size", "fits"), [(2, True), (25, True), (4, False), (64, False)])
def test_the_patch_is_compared_with_the_side_of_the_set_itself(patch_size, fits):
    values = nested(TINY | {"data.name": "deeplense/model_i", "model.patch_size": patch_size})
    if fits:
        from_config_dict(values)
    else:
        with pytest.raises(ConfigError, match="150x150 pixels"):
            from_config_dict(values)


@pytest.mark.parametrize(
    ("set_name", "patch_size", "num_levels", "rows"),
    [
        ("deeplense/model_i", 2, 4, (80, 40, 20, 10)),  # 150 pixels, padded to 160
        ("deeplense/model_i", 8, 2, (20, 10)),
        ("deeplense/model_ii", 8, 2, (8, 4)),
        ("deeplense/model_ii", 3, 1, (22,)),
    ],
)
def test_attention_is_compared_with_the_feature_maps_of_the_set(
    set_name, patch_size, num_levels, rows
):
    own = {"data.name": set_name, "model.patch_size": patch_size, "model.widths": (8,) * num_levels}
    for chosen in ((), rows[-1:], rows, rows[::-1]):
        values = nested(TINY | UNET | own | {"model.attention_resolutions": chosen})
        assert from_config_dict(values).model.attention_resolutions == chosen
    for chosen in ((rows[-1] + 1,), (*rows, rows[0] * 2)):
        with pytest.raises(ConfigError) as caught:
            from_config_dict(nested(TINY | UNET | own | {"model.attention_resolutions": chosen}))
        assert str(caught.value).startswith(f"model.attention_resolutions: got {chosen}; allowed: ")
        assert f" {', '.join(map(str, rows))} for images of " in str(caught.value)


@pytest.mark.parametrize("other", [{}, FOLDER], ids=["simulated", "folder"])
def test_attention_resolutions_are_refused_for_the_transformer(other):
    values = nested(TINY | other | {"model.attention_resolutions": (8,)})
    with pytest.raises(ConfigError, match=r"^model\.attention_resolutions: got \(8,\); .*=dit;"):
        from_config_dict(values)


@pytest.mark.parametrize(
    ("widths", "head_width", "fits"),
    [
        ((7, 80), 24, False),  # three heads
        ((7, 80), 16, True),
        ((7, 80), 27, True),  # two heads of 40
        ((7, 80), 81, True),  # one head
        ((80, 8), 24, True),  # the level without attention has no heads
    ],
)
def test_the_heads_divide_the_channels_of_the_levels_with_attention(widths, head_width, fits):
    own = {"model.widths": widths, "model.attention_head_width": head_width}
    values = nested(TINY | UNET | own | {"model.attention_resolutions": (4,)})
    if fits:
        assert from_config_dict(values).model.attention_head_width == head_width
        return
    message = rf"^model\.attention_head_width: got {head_width}; allowed: a divisor of 80,"
    with pytest.raises(ConfigError, match=message):
        from_config_dict(values)


NETWORKS = ("dit", "unet", "cnn", "rescnn", "resnet18", "vit", "mae")
# A value beside the default, and the networks that read the field.
READERS: dict[str, tuple[typing.Any, tuple[str, ...]]] = {
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
    "classify.layout": ("NHW", ("cnn", "rescnn", "resnet18", "vit")),
    "classify.resize": (True, ("cnn", "rescnn", "resnet18", "vit")),
    "classify.batch_size": (7, ("cnn", "rescnn", "resnet18", "vit")),
}


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("path", READERS)
def test_a_field_is_refused_where_the_network_or_its_task_does_not_read_it(path, network):
    value, readers = READERS[path]
    values = nested(tiny_values({"model.name": network, path: value}))
    section, _, leaf = path.partition(".")
    if network in readers:
        config = from_config_dict(values)
        assert getattr(getattr(config, section), leaf) == value
        return
    with pytest.raises(ConfigError) as caught:
        from_config_dict(values)
    usual = FIELDS[path][1]
    expected = f"{path}: got {value!r}; allowed: {usual} with model.name={network}"
    assert str(caught.value).startswith(expected)


NOISE = {"classify.noise_share": 0.5}
REFUSED: dict[str, tuple[dict[str, typing.Any], str]] = {
    "heads": (
        VIT | {"model.num_heads": 3},
        r"model\.num_heads: got 3; allowed: a divisor of model\.width, 8",
    ),
    "positions": (
        VIT | {"model.width": 6, "model.num_heads": 1},
        r"model\.width: got 6; allowed: a multiple of 4",
    ),
    "patch": (
        MAE | {"model.patch_size": 5},
        r"model\.patch_size: got 5; .* sides of the images, 64x64 pixels",
    ),
    "one patch": (
        MAE | {"model.patch_size": 64},
        r"model\.patch_size: got 64; .*, so that there is something to find",
    ),
    "decoder's heads": (
        MAE | {"model.decoder_width": 8, "model.decoder_heads": 3},
        r"model\.decoder_heads: got 3; allowed: a divisor of model\.decoder_width, 8",
    ),
    "decoder's positions": (
        MAE | {"model.decoder_width": 6, "model.decoder_heads": 2},
        r"model\.decoder_width: got 6; allowed: a multiple of 4",
    ),
    "no class": (
        CNN | FOLDER | {"model.num_classes": 0},
        r"model\.num_classes: got 0; .* least 2 ",
    ),
    "one class": (
        VIT | FOLDER | {"model.num_classes": 1},
        r"model\.num_classes: got 1; .* least 2 ",
    ),
    "too few weights": (
        CNN | {"classify.class_weights": "1,2"},
        r"classify\.class_weights: got '1,2'; allowed: none, balanced, or 3 numbers",
    ),
    "too many weights": (
        CNN | FOLDER | {"model.num_classes": 2, "classify.class_weights": "1,2,3"},
        r"classify\.class_weights: got '1,2,3'; allowed: none, balanced, or 2 numbers",
    ),
    "noise on noise": (
        CNN | NOISE | {"data.name": "deeplense/model_ii_noisy_mini"},
        r"classify\.noise_share: got 0\.5; allowed: 0 for deeplense/model_ii_noisy_mini;",
    ),
    "noise of no instrument": (
        CNN | NOISE | {"data.name": "deeplense/model_i_mini", "model.patch_size": 2},
        r"classify\.noise_share: got 0\.5; allowed: 0 for deeplense/model_i_mini;",
    ),
    "noise on files": (
        CNN | NOISE | FOLDER,
        r"classify\.noise_share: got 0\.5; allowed: 0 for a user's files;",
    ),
    "roots of noise": (
        CNN | NOISE | {"data.scaling": "sqrt"},
        r"data\.scaling: got 'sqrt'; allowed: linear, asinh with classify\.noise_share above 0",
    ),
    "start of another network": (
        CNN | {"classify.start_from": "runs/mae"},
        r"classify\.start_from: got 'runs/mae'; allowed: None with model\.name=cnn;",
    ),
    "a step of nothing": (
        VIT | {"classify.start_step": 3},
        r"classify\.start_step: got 3; allowed: None without classify\.start_from",
    ),
    "a probe of nothing": (
        VIT | {"classify.train_encoder": False},
        r"classify\.train_encoder: got False; allowed: True without classify\.start_from",
    ),
    "a step and a probe for pre-training": (
        MAE | {"classify.train_encoder": False},
        r"classify\.train_encoder: got False; allowed: True with model\.name=mae",
    ),
}


@pytest.mark.parametrize("rule", REFUSED)
def test_combinations_that_cannot_be_trained_are_refused(rule):
    changes, message = REFUSED[rule]
    with pytest.raises(ConfigError, match=f"^{message}"):
        from_config_dict(nested(tiny_values(changes)))


@pytest.mark.parametrize(
    "changes",
    [
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
    ],
    ids=str,
)
def test_combinations_beside_the_refused_ones_are_allowed(changes):
    config = from_config_dict(nested(tiny_values(changes)))
    assert config.task == ("pretrain" if changes["model.name"] == "mae" else "classify")


@pytest.mark.parametrize("section", ["", *SECTIONS])
def test_an_unknown_field_is_named_with_its_section(section):
    values = nested(TINY)
    owner = values[section] if section else values
    first = next(iter(owner))
    owner[first + "x"] = 7
    path = f"{section}.{first}x" if section else f"{first}x"
    with pytest.raises(ConfigError) as caught:
        from_config_dict(values)
    expected = f"{path}: got 7; there is no such field; did you mean {first}? allowed: "
    assert str(caught.value).startswith(expected)


@pytest.mark.parametrize("path", [*FIELDS, *SECTIONS])
def test_a_missing_field_is_named(path):
    values = nested(TINY)
    *sections, leaf = path.split(".")
    del (values[sections[0]] if sections else values)[leaf]
    with pytest.raises(ConfigError, match=rf"^{path}: got 'nothing'; the field is missing"):
        from_config_dict(values)


@pytest.mark.parametrize("section", SECTIONS)
def test_a_section_without_fields_is_refused(section):
    with pytest.raises(ConfigError, match=rf"^{section}: got 3; allowed: a section"):
        from_config_dict(nested(TINY) | {section: 3})


def test_the_dataclasses_are_frozen():
    config = Config()
    for owner in (config, *SECTIONS.values()):
        name = dataclasses.fields(owner)[0].name
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(owner, name, None)


def test_the_defaults_go_round():
    assert from_config_dict(default_config()) == Config()


@pytest.mark.parametrize("changes", [{}, TINY], ids=["defaults", "tiny"])
def test_a_configuration_goes_through_json_and_back(changes):
    config = from_config_dict(nested(changes))
    again = json.loads(json.dumps(configuration.to_dict(config)))
    assert from_config_dict(again) == config


@pytest.mark.parametrize("path", FIELDS)
def test_default_config_takes_a_value_of_each_field_and_no_other_field(path):
    config_dict = default_config()
    *sections, leaf = path.split(".")
    owner = config_dict[sections[0]] if sections else config_dict
    kind, optional = _kind(path)
    default = FIELDS[path][1]
    value = {int: 1, str: "text"}[kind] if optional else default
    setattr(owner, leaf, value)
    assert getattr(owner, leaf) == value
    with pytest.raises((AttributeError, KeyError)):
        setattr(owner, leaf + "x", value)


# Text that is of a field's type, and text that is not.
TEXTS: dict[typing.Any, tuple[tuple[str, ...], tuple[str, ...]]] = {
    int: (("3", "-3"), ("", "x", "1.5", "None", "True")),
    float: (("3", "1e-3", "inf"), ("", "x", "1,5")),
    bool: (("True", "false", "1", "0"), ("", "maybe", "2")),
    str: (("", "anything"), ()),
    tuple[int, ...]: (
        ("8", "8,16", "8,", "(8,)", "(8, 16)", "()"),
        ("", " ", ",", "8,x", "8.5", "8,,8", "(8", "None"),
    ),
    tuple[float, ...]: (
        ("0.5", "0.2,0.8", "(1.0, 0.5, 0.0)", "(1,)", "()", "( )", "1e-3, 0"),
        ("", " ", ",", "a,b", "0.2;0.8", "0.2,,0.8", "0.2 0.8", "0.8)", "None", "[0.2, 0.8]"),
    ),
}


@pytest.mark.parametrize("path", FIELDS)
def test_text_of_the_command_line_is_checked_by_the_type_of_its_field(path):
    good, bad = TEXTS[_kind(path)[0]]
    for text in good:
        check_overrides({path: text})
    for text in bad:
        with pytest.raises(ConfigError) as caught:
            check_overrides({path: text})
        assert str(caught.value).startswith(f"{path}: got {text!r}; allowed: ")


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("train.bach_size", "there is no such field; did you mean batch_size?"),
        ("trian.batch_size", "there is no such field; did you mean train?"),
        ("train.train", "there is no such field"),
        ("train", "this is a section; set one of its fields: batch_size, "),
        ("seed.x", "seed is a field and has no fields of its own"),
        ("train.batch_size.x", "batch_size is a field and has no fields of its own"),
        ("", "there is no such field"),
    ],
)
def test_a_path_of_the_command_line_that_does_not_exist(path, words):
    with pytest.raises(ConfigError) as caught:
        check_overrides({path: "3"})
    assert words in str(caught.value)


def _other_value(path: str) -> typing.Any:
    kind, _ = _kind(path)
    default = FIELDS[path][1]
    if kind is bool:
        return not default
    if typing.get_origin(kind) is tuple:
        return (*default, typing.get_args(kind)[0](3))
    return "other" if kind is str else (default or 0) + 1


def _attributes_read() -> set[str]:
    """Returns the names that occur as `.name` in lensjax outside config.py."""
    return {
        node.attr
        for path in (ROOT / "lensjax").rglob("*.py")
        if path.name != "config.py"
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load)
    }


def test_each_field_is_read_by_something():
    read = _attributes_read()
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
