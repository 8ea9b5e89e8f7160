"""Combinations: what is refused and in which words, and that all others train and sample."""

import dataclasses
import functools
import itertools
import re
from collections.abc import Iterable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from allpairspy import AllPairs
from mixture_support import PATHS
from ml_collections import config_flags
from run_support import ROOT, nested

from lensjax.config import Config, from_config_dict
from lensjax.config.diffusion import SampleConfig, check_diffusion, sample_times
from lensjax.diffusion.losses import LOSS_SPACES, LOSS_WEIGHTS, squared_error
from lensjax.diffusion.paths import PREDICTIONS, interpolate
from lensjax.diffusion.preconditioning import PRECONDITIONINGS, precondition
from lensjax.diffusion.samplers import SAMPLERS
from lensjax.diffusion.time_grids import TIME_GRIDS, time_grid
from lensjax.errors import ConfigError
from lensjax.run.learning import loss_settings
from lensjax.run.networks import build_path

VP = {"path.name": "vp"}
COSINE = VP | {"path.betas": "cosine"}
TABLE = VP | {"path.table_steps": 1000, "model.prediction": "eps", "loss.space": "eps"}
EDM = {"path.name": "edm", "model.preconditioning": "input", "model.prediction": "x0"}
UNCONDITIONAL = {
    "data.name": "deeplense/folder",
    "data.folder": "images",
    "model.num_classes": 0,
}
# The field at fault, what the configuration has, and what the message says is allowed.
REFUSED: list[tuple[str, dict[str, Any], str]] = [
    # Paths.
    ("path.betas", {"path.betas": "cosine"}, "linear with path.name=flow; .* path.name=vp"),
    ("path.betas", EDM | {"path.betas": "cosine"}, "linear with path.name=edm"),
    ("path.table_steps", {"path.table_steps": 1000}, "0 with path.name=flow; .* path.name=vp"),
    ("path.beta_min", {"path.beta_min": 0.2}, "0.1 with path.name=flow"),
    ("path.beta_min", COSINE | {"path.beta_min": 0.2}, "0.1 with path.betas=cosine; .*linear"),
    ("path.beta_max", COSINE | {"path.beta_max": 9.0}, "20.0 with path.betas=cosine; .*linear"),
    ("path.sigma_min", VP | {"path.sigma_min": 0.01}, "0.002 with path.name=vp; .*name=edm"),
    ("path.sigma_max", {"path.sigma_max": 9.0}, "80.0 with path.name=flow; .*name=edm"),
    ("path.beta_min", VP | {"path.beta_min": 20.0}, "below 20"),
    ("path.sigma_min", EDM | {"path.sigma_min": 80.0}, "below 80"),
    ("path.table_steps", TABLE | {"path.table_steps": 20}, "0, or above beta_max, 20"),
    ("path.table_steps", VP | {"path.table_steps": 1}, "0, or .* 2 to 100000"),
    # Predictions.
    ("model.preconditioning", {"path.name": "edm"}, "with path.name=edm: input, edm; .* 80$"),
    *(
        ("model.prediction", {"model.preconditioning": "edm", "model.prediction": name}, "edm: x0")
        for name in PREDICTIONS
        if name != "x0"
    ),
    *(
        ("model.prediction", EDM | {"model.prediction": name}, "with path.name=edm: x0, eps, score")
        for name in ("velocity", "v")
    ),
    ("model.prediction", TABLE | {"model.prediction": "velocity"}, "x0, v, eps, score; a table"),
    ("loss.space", TABLE | {"loss.space": "velocity"}, "x0, v, eps, score; a table has no"),
    # Weights and times.
    *(
        ("loss.space", {"loss.weight": weight, "loss.space": space}, f"loss.weight={weight}: x0")
        for weight, space in itertools.product(("min_snr", "edm"), LOSS_SPACES)
        if space != "x0"
    ),
    ("loss.min_snr_gamma", {"loss.min_snr_gamma": 1.0}, "5.0 with loss.weight=uniform; .*min_snr"),
    ("loss.time_mean", {"loss.time_mean": -1.2}, "0.0 with .*=uniform; .*=logit_normal or log_"),
    ("loss.time_std", {"loss.time_std": 1.2}, "1.0 with loss.time_distribution=uniform"),
    ("loss.uniform_share", {"loss.uniform_share": 0.1}, "0.0 with loss.time_distribution=uniform"),
    # Samplers and their times.
    ("sample.shift", {"sample.shift": 2.0}, "3.0 with sample.time_grid=karras; .*=shifted"),
    (
        "sample.t_end",
        {"sample.t_end": 0.1, "sample.time_grid": "uniform"},
        "None with sample.time_grid=uniform; .*=karras",
    ),
    *(
        (field, {field: value, "sample.sampler": sampler}, f"sampler={sampler}; .*={owner}")
        for field, value, owner in [
            ("sample.eta", 0.5, "ddim"),
            ("sample.eta_interval", (0.2, 1.0), "ddim"),
            ("sample.churn", 5.0, "churn"),
            ("sample.churn_noise", 1.01, "churn"),
            ("sample.churn_interval", (0.2, 0.8), "churn"),
        ]
        for sampler in SAMPLERS
        if sampler != owner
    ),
    ("sample.steps", TABLE | {"sample.steps": 1001}, "at most 1000, the usable entries"),
    # One entry of the cosine table has too little signal for a network that predicts noise.
    ("sample.steps", COSINE | TABLE | {"sample.steps": 1000}, "at most 99"),
    (
        "sample.steps",
        {"sample.steps": 100_000, "sample.time_grid": "cosine"},
        "fewer with sample.time_grid=cosine: the times must fall",
    ),
    *(
        ("sample.times", {"sample.times": times, "sample.steps": steps}, words)
        for times, steps, words in [
            ((1.0, 0.5, 0.0), 3, "4 times, .* sample.steps"),
            ((1.0, 0.5, 0.0), 1, "2 times"),
            ((1.0, 0.5, 0.5, 0.0), 3, "the times must fall; number 2 is 0.5, the next one 0.5"),
            ((0.0, 0.5, 1.0), 2, "the times must fall; number 1 is 0"),
            ((0.9, 0.5, 0.0), 2, "the first time must be 1, the last one 0"),
            ((1.0, 0.5, 0.1), 2, "the first time must be 1, the last one 0"),
            ((1.0, 0.5, -0.1), 2, "the last one 0"),
            ((1.0, 1e9, 0.0), 2, "the times must fall"),
        ]
    ),
    ("sample.times", VP | {"sample.times": (1.0, 1e-4, 0.0), "sample.steps": 2}, "least 0.001"),
    (
        "sample.times",
        {"model.prediction": "eps", "sample.times": (1.0, 0.0), "sample.steps": 1},
        "the first time must be 0.99",
    ),
    # Guidance.
    ("sample.guidance", UNCONDITIONAL | {"sample.guidance": 2.0}, "1 for a model without classes"),
    ("sample.guidance", {"loss.label_drop": 0.0, "sample.guidance": 2.0}, "loss.label_drop=0"),
    ("sample.guidance", {"loss.label_drop": 0.0, "sample.guidance": 0.0}, "loss.label_drop=0"),
    (
        "sample.guidance_rescale",
        {"sample.guidance": 1.0, "sample.guidance_rescale": 0.7},
        "0 with sample.guidance=1",
    ),
    ("sample.guide_step", {"sample.guidance": 1.0, "sample.guide_step": 3}, "None with .*=1"),
    ("sample.guide_workdir", {"sample.guidance": 1.0, "sample.guide_workdir": "a"}, "None with"),
    *(
        (field, {field: ends, "sample.sampler": "churn"}, "two times in .*, the lower one first")
        for field in ("sample.guidance_interval", "sample.churn_interval")
        for ends in [(), (0.5,), (0.2, 0.5, 0.8), (0.8, 0.2), (0.5, 0.5), (-0.1, 0.5), (0.5, 1.1)]
    ),
]


def test_what_makes_no_sense_is_refused_by_its_field():
    for field, changes, words in REFUSED:
        with pytest.raises(ConfigError, match=rf"^{re.escape(field)}: got .*; allowed.*{words}"):
            from_config_dict(nested(changes))


ALLOWED: dict[str, dict[str, Any]] = {
    "cosine table": COSINE | TABLE | {"sample.steps": 980},
    "cosine table, all entries": COSINE
    | TABLE
    | {"model.prediction": "v", "loss.space": "v", "sample.steps": 1000},
    "other betas": VP | {"path.beta_min": 0.2, "path.beta_max": 9.0},
    "short table": TABLE | {"path.table_steps": 21, "sample.steps": 17},
    "edm": {
        "path.name": "edm",
        "path.sigma_min": 0.01,
        "path.sigma_max": 9.0,
        "model.prediction": "x0",
        "model.preconditioning": "edm",
        "loss.space": "x0",
        "loss.weight": "edm",
        "loss.time_distribution": "log_normal_sigma",
        "loss.time_mean": -1.2,
        "loss.time_std": 1.2,
    },
    "gamma": {"loss.space": "x0", "loss.weight": "min_snr", "loss.min_snr_gamma": 1.0},
    "logit": {"loss.time_distribution": "logit_normal", "loss.time_mean": -1.2},
    "own times": {"sample.times": (1.0, 0.3, 0.0), "sample.steps": 2},
    "own times of whole numbers": {"sample.times": [1, 0], "sample.steps": 1},
    "shift": {"sample.time_grid": "shifted", "sample.shift": 1.0},
    "eta": {"sample.sampler": "ddim", "sample.eta": 1.0},
    "churn": {"sample.sampler": "churn", "sample.churn": 5.0, "sample.churn_interval": (0, 1)},
    "no label dropped": {"loss.label_drop": 0.0, "sample.guidance": 1.0},
    "no classes": UNCONDITIONAL | {"sample.guidance": 1.0},
    "no classes, a guide": UNCONDITIONAL | {"sample.guidance": 2.0, "sample.guide_step": 3},
    "no label dropped, a guide": {
        "loss.label_drop": 0.0,
        "sample.guidance": 2.0,
        "sample.guide_workdir": "weaker",
    },
    "rescaled": {
        "sample.guidance": 2.0,
        "sample.guidance_rescale": 1.0,
        "sample.guidance_interval": (0.2, 0.8),
    },
}


def test_the_neighbours_of_what_is_refused_are_allowed():
    for changes in ALLOWED.values():
        from_config_dict(nested(changes))


@pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning")  # of ml_collections
@pytest.mark.parametrize(
    ("flag", "expected"),
    [
        ("times=(1.0, 0.5, 0.0)", (1.0, 0.5, 0.0)),
        ("times=1.0,0.5,0.0", (1.0, 0.5, 0.0)),
        ("times=1,.5,0", (1.0, 0.5, 0.0)),
        ("times=()", ()),
        ("guidance_interval=0.2,0.8", (0.2, 0.8)),
        ("guidance_interval=(0.2, 1)", (0.2, 1.0)),
    ],
)
def test_the_command_line_sets_tuples_of_numbers(flag, expected, monkeypatch):
    """ml_collections reads the texts; `test_reading.py` has what is refused before that."""
    from absl import flags

    name, _, text = flag.partition("=")
    steps = max(len(expected) - 1, 1) if name == "times" else 5
    arguments = [
        "main",
        f"--config={ROOT / 'configs' / 'smoke.py'}",
        f"--config.sample.{name}={text}",
        f"--config.sample.steps={steps}",
    ]
    monkeypatch.setattr("sys.argv", arguments)  # which overrides there are is read off here
    values = flags.FlagValues()
    config_flags.DEFINE_config_file("config", lock_config=True, flag_values=values)
    values(arguments)
    config: Any = values["config"].value
    got = getattr(from_config_dict(config).sample, name)
    assert got == expected
    assert all(type(number) is float for number in got)


# Every path, prediction, preconditioning, space and weight.

OF_PATH: dict[str, dict[str, Any]] = {
    "flow": {"name": "flow"},
    "linear": {"name": "vp"},
    "cosine": {"name": "vp", "betas": "cosine"},
    "linear table": {"name": "vp", "table_steps": 1000},
    "cosine table": {"name": "vp", "betas": "cosine", "table_steps": 1000},
    "edm": {"name": "edm"},
}


@functools.cache
def _config(
    path: str, prediction: str, preconditioning: str, space: str, weight: str
) -> Config | None:
    """Returns a configuration that passes the checks; None for one that is refused."""
    plain = Config()
    config = dataclasses.replace(
        plain,
        path=dataclasses.replace(plain.path, **OF_PATH[path]),
        model=dataclasses.replace(
            plain.model, prediction=prediction, preconditioning=preconditioning
        ),
        loss=dataclasses.replace(plain.loss, space=space, weight=weight),
    )
    try:
        check_diffusion(config.path, config.loss, config.sample, config.model)
    except ConfigError:
        return None
    return config


def _meaningless(path: str, prediction: str, preconditioning: str, space: str, weight: str) -> bool:
    """The same in one line for each rule."""
    return (
        ("table" in path and "velocity" in (prediction, space))
        or (path == "edm" and (preconditioning == "none" or prediction in ("velocity", "v")))
        or (preconditioning == "edm" and prediction != "x0")
        or (weight != "uniform" and space != "x0")
    )


def test_paths_of_the_product_are_those_of_all_tests():
    assert set(OF_PATH) == set(PATHS)


OPTIONS = (tuple(OF_PATH), PREDICTIONS, PRECONDITIONINGS, LOSS_SPACES, LOSS_WEIGHTS)


def test_what_is_refused_is_what_makes_no_sense():
    for combination in itertools.product(*OPTIONS):
        assert (_config(*combination) is None) == _meaningless(*combination), combination


def _check_losses(combinations: Iterable[Sequence[str]]) -> None:
    """Losses and gradients from the first usable time to the last, for one parameter."""
    random = np.random.default_rng(0)
    x0, eps = (jnp.asarray(random.normal(size=(8, 2, 2, 1)), jnp.float32) for _ in range(2))

    def network(scale, x, t, condition):
        return scale * x

    for combination in combinations:
        config = _config(*combination)
        assert config is not None
        path = build_path(config)
        t = path.time_of_share(jnp.linspace(0, 1, 8))
        np.testing.assert_allclose(t[np.array([0, -1])], path.interval, rtol=1e-6)
        scaled = precondition(network, path, config.model.preconditioning, config.data.model_std)
        x_t, settings = interpolate(path, x0, eps, t), loss_settings(config)

        def error(scale, path=path, scaled=scaled, settings=settings, x_t=x_t, t=t):
            return squared_error(path, settings, scaled(scale, x_t, t, {}), x0, eps, t)

        value, slope = jax.jvp(error, (0.5,), (1.0,))
        assert np.all(np.isfinite(value) & (value >= 0)), combination
        assert np.all(np.isfinite(slope)), combination
        assert np.any(slope != 0), combination


def test_each_pair_of_options_has_a_finite_loss_and_gradient():
    def allowed(row):
        return len(row) < len(OPTIONS) or not _meaningless(*row)

    _check_losses(AllPairs(OPTIONS, filter_func=allowed))


@pytest.mark.nightly
def test_each_combination_has_a_finite_loss_and_gradient():
    _check_losses(each for each in itertools.product(*OPTIONS) if not _meaningless(*each))


def test_each_allowed_path_has_times_on_each_grid():
    for path_name, prediction in itertools.product(OF_PATH, PREDICTIONS):
        config = _config(path_name, prediction, "input", "x0", "uniform")
        if config is None:
            continue
        path = build_path(config)
        first, last = path.interval
        for grid in TIME_GRIDS:
            times = sample_times(path, SampleConfig(steps=10, time_grid=grid))
            assert times.shape == (11,)
            assert times[0] == pytest.approx(last)
            assert times[-1] == 0
            assert np.all(np.diff(times) < 0)
            assert times[-2] >= first - 1e-6


@pytest.mark.parametrize(
    ("path", "end"),
    [({}, 0.02), (VP | {"model.prediction": "x0"}, None), (EDM, 0.0), (TABLE, 0.0)],
)
def test_a_karras_grid_ends_at_the_same_noise_on_each_path_but_those_with_ends_of_their_own(
    path, end
):
    changes = path | {"sample.time_grid": "karras", "sample.steps": 12}
    config = from_config_dict(nested(changes))
    usable_path = build_path(config)
    times = sample_times(usable_path, config.sample)
    if end is None:
        last = jnp.float32(times[-2])
        assert usable_path.sigma(last) / usable_path.alpha(last) == pytest.approx(2 / 98, rel=1e-3)
        end = float(last)
    assert times[-2] == pytest.approx(max(end, time_grid(usable_path, 12, "karras")[-2]), rel=1e-4)
    assert sample_times(usable_path, dataclasses.replace(config.sample, t_end=0.3))[-2] == (
        pytest.approx(0.3, rel=1e-4) if path != TABLE else times[-2]
    )
