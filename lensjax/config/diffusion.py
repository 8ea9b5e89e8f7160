"""The sections `path`, `loss` and `sample`, and checks that they fit each other and the network."""

import dataclasses
from typing import Any, Unpack

import numpy as np

from lensjax.config.fields import (
    MOST_IMAGES,
    Facts,
    between,
    choice,
    count,
    make_field,
    optional_path,
    plain,
    positive,
)
from lensjax.config.model import ModelConfig
from lensjax.diffusion.losses import (
    LOSS_SPACES,
    LOSS_WEIGHTS,
    PIXEL_WEIGHTS,
    TIME_DISTRIBUTIONS,
)
from lensjax.diffusion.paths import FlowPath, Path, usable
from lensjax.diffusion.samplers import SAMPLERS
from lensjax.diffusion.schedules import (
    BETAS,
    CosinePath,
    EDMPath,
    LinearPath,
    TablePath,
    ddpm_betas,
)
from lensjax.diffusion.time_grids import TIME_GRIDS, check_times, time_grid, usual_end
from lensjax.errors import ConfigError, TimeGridError
from lensjax.prng import MAX_SEED

MAIN_EMA = "main"
RAW_PARAMS = "raw"  # the parameters themselves, not an average
MAX_STEPS = 1_000_000  # of a sampler

_VP = {"path.name": ("vp",)}
_LINEAR = {"path.name": ("vp",), "path.betas": ("linear",)}
_EDM = {"path.name": ("edm",)}
_NORMAL_TIMES = {"loss.time_distribution": ("logit_normal", "log_normal_sigma")}
_CHURN = {"sample.sampler": ("churn",)}
_DDIM = {"sample.sampler": ("ddim",)}


@dataclasses.dataclass(frozen=True)
class PathConfig:
    """The probability path, `x_t = alpha x0 + sigma eps`.

    Attributes:
      name: `flow`, alpha = 1 - t and sigma = t; `vp`, alpha^2 + sigma^2 = 1 with `betas`; `edm`,
        alpha = 1 and log sigma linear in t.
      betas: VP: `linear` (DDPM) or `cosine` (iDDPM).
      table_steps: VP: steps of a discrete table, such as DDPM's 1,000; 0 for continuous time.
        With `eps` and `score`, tables of a few hundred steps lose some entries at the noise end.
      beta_min: VP, linear: beta at t = 0; a table of T steps has `beta / T`.
      beta_max: VP, linear: beta at t = 1.
      sigma_min: EDM: the lowest sigma.
      sigma_max: EDM: the highest sigma.
    """

    name: str = choice("flow", ("flow", "vp", "edm"))
    betas: str = choice("linear", BETAS, only_for=_VP)
    table_steps: int = make_field(
        0,
        lambda n: n == 0 or 2 <= n <= 100_000,
        "0, or an integer from 2 to 100000",
        only_for=_VP,
    )
    beta_min: float = positive(0.1, only_for=_LINEAR)
    beta_max: float = positive(20.0, only_for=_LINEAR)
    sigma_min: float = positive(0.002, only_for=_EDM)
    sigma_max: float = positive(80.0, only_for=_EDM)


@dataclasses.dataclass(frozen=True)
class LossConfig:
    """The training loss.

    Attributes:
      space: the quantity whose squared error is taken.
      min_sigma: lower bound of sigma where an error is divided by sigma.
      weight: weight of that error: `uniform`; `min_snr` or `edm`, for `space` `x0`.
      min_snr_gamma: gamma of `min_snr`.
      weighting: weight of each pixel: `uniform`, or `inverse_variance`, the median variance of its
        image and band over its own, at most 10; for sets with `data.variance_planes`.
      time_distribution: `uniform`, `logit_normal`, or `log_normal_sigma`.
      time_mean: mean of logit(t) for `logit_normal`, of log(sigma / alpha) for `log_normal_sigma`.
      time_std: standard deviation of the same quantity.
      uniform_share: share of the times that are drawn from the uniform distribution instead.
      stratified: whether the times of a batch cover their distribution evenly.
      label_drop: probability that an example loses its label.
    """

    space: str = choice("velocity", LOSS_SPACES)
    min_sigma: float = positive(0.05)
    weight: str = choice("uniform", LOSS_WEIGHTS)
    min_snr_gamma: float = positive(5.0, only_for={"loss.weight": ("min_snr",)})
    weighting: str = choice("uniform", PIXEL_WEIGHTS, since="0.3.0")
    time_distribution: str = choice("uniform", TIME_DISTRIBUTIONS)
    time_mean: float = between(0.0, -100.0, 100.0, only_for=_NORMAL_TIMES)
    time_std: float = positive(1.0, most=100.0, only_for=_NORMAL_TIMES)
    uniform_share: float = between(0.0, 0.0, 1.0, only_for=_NORMAL_TIMES, since="0.3.0")
    stratified: bool = plain(False)
    label_drop: float = between(0.1, 0.0, 1.0)


def _time_interval(default: tuple[float, float], **facts: Unpack[Facts]) -> Any:
    """Makes a field for two times, the lower one first."""
    return make_field(
        default,
        lambda ends: len(ends) == 2 and 0 <= ends[0] < ends[1] <= 1,
        "two times in [0, 1], the lower one first, such as (0.2, 0.8)",
        **facts,
    )


@dataclasses.dataclass(frozen=True)
class SampleConfig:
    """Generation; the defaults take 20 network passes per image (`benchmarks/samplers.py`).

    Attributes:
      ema: parameters to draw with, also during training: `main`, the main average; one of
        `optim.ema_more_half_lives_images` as text, such as `2000`; or `raw`, no average.
      sampler: the solver: `euler` (which is `ddim` without noise), `heun`, `midpoint`, `dpmpp_2m`;
        `ddim`, `ddpm` and `churn` draw noise.
      steps: number of time intervals; `heun`, `midpoint` and `churn` call the network twice in
        each, but once in the last if the path stops short of t = 0.
      time_grid: how the times are spaced: `uniform`, `cosine`, `karras` or `shifted`.
      shift: `shifted`: a value above 1 moves the times towards the noise.
      t_end: `karras`: the last time before 0; None for 0.02 on the path `flow` and the same noise
        on `vp`, or for that of an older run. Nearer to 0 a network was hardly trained. Tables and
        `edm` have ends of their own.
      times: your own `steps + 1` times, decreasing from noise to 0; () uses `time_grid`.
      eta: `ddim`: share of the noise that is redrawn.
      eta_interval: `ddim`: times between which it is redrawn.
      churn: `churn`: relative growth of the noise level by adding noise, summed over all steps; at
        most 0.41 in one step.
      churn_noise: `churn`: factor by which the standard deviation of that noise is multiplied.
      churn_interval: `churn`: times between which noise is added.
      guidance: g of `uncond + g (cond - uncond)`; 1 is no guidance.
      guidance_rescale: how far guided images are brought back to the contrast of unguided ones, 0
        to 1.
      guidance_interval: times between which guidance acts; elsewhere it costs nothing.
      guide_workdir: workdir of a weaker run that replaces the unconditional model (autoguidance);
        None for no such run, or for this run if `guide_step` is given.
      guide_step: checkpoint of the guide; None for its newest. A guide from this run uses the same
        average of the parameters; a guide from another run uses that run's `sample.ema`.
      num_images: images that `--mode=sample` draws; labels cycle through the classes.
      batch_size: images computed together.
      seed: image i depends only on (seed, i).
      grid_columns: images per class in the sample grids.
    """

    ema: str = plain(MAIN_EMA)
    sampler: str = choice("dpmpp_2m", SAMPLERS)
    steps: int = count(20, most=MAX_STEPS)
    time_grid: str = choice("karras", TIME_GRIDS)
    shift: float = positive(3.0, only_for={"sample.time_grid": ("shifted",)})
    t_end: float | None = make_field(
        None,
        lambda t: 0 <= t < 1,
        "None, or a number in [0, 1)",
        only_for={"sample.time_grid": ("karras",)},
        since="0.3.0",
        before=0.0,
    )
    times: tuple[float, ...] = plain(())
    eta: float = between(0.0, 0.0, 1.0, only_for=_DDIM)
    eta_interval: tuple[float, ...] = _time_interval((0.0, 1.0), only_for=_DDIM)
    churn: float = positive(10.0, only_for=_CHURN)
    churn_noise: float = positive(1.0, only_for=_CHURN)
    churn_interval: tuple[float, ...] = _time_interval((0.05, 0.95), only_for=_CHURN)
    guidance: float = between(1.0, 0.0, 1000.0)
    guidance_rescale: float = between(0.0, 0.0, 1.0)
    guidance_interval: tuple[float, ...] = _time_interval((0.0, 1.0))
    guide_workdir: str | None = optional_path("workdir")
    guide_step: int | None = count(None)
    num_images: int = count(48)
    batch_size: int = count(48, most=MOST_IMAGES)
    seed: int = count(0, least=0, most=MAX_SEED)
    grid_columns: int = count(8, most=1000)

    @property
    def autoguided(self) -> bool:
        """Whether a weaker run is the guide, not the network without a label."""
        return self.guide_workdir is not None or self.guide_step is not None


def _check_path(path: PathConfig, model: ModelConfig, loss: LossConfig) -> None:
    if path.beta_min >= path.beta_max:
        raise ConfigError("path.beta_min", path.beta_min, f"allowed: below {path.beta_max:g}")
    if path.betas == "linear" and 0 < path.table_steps <= path.beta_max:
        raise ConfigError(
            "path.table_steps",
            path.table_steps,
            f"allowed: 0, or above beta_max, {path.beta_max:g}",
        )
    if path.sigma_min >= path.sigma_max:
        raise ConfigError("path.sigma_min", path.sigma_min, f"allowed: below {path.sigma_max:g}")
    if path.name == "edm" and model.preconditioning == "none":
        raise ConfigError(
            "model.preconditioning",
            model.preconditioning,
            f"allowed with path.name=edm: input, edm; its x_t reaches {path.sigma_max:g}",
        )
    if path.name == "edm" and model.prediction in ("velocity", "v"):
        raise ConfigError(
            "model.prediction",
            model.prediction,
            "allowed with path.name=edm: x0, eps, score; the others grow with "
            f"the noise, to {path.sigma_max:g} times the data",
        )
    if model.preconditioning == "edm" and model.prediction != "x0":
        raise ConfigError(
            "model.prediction",
            model.prediction,
            "allowed with model.preconditioning=edm: x0, which is its output",
        )
    if path.table_steps:
        for name, value in (("model.prediction", model.prediction), ("loss.space", loss.space)):
            if value == "velocity":
                raise ConfigError(
                    name,
                    value,
                    "allowed with path.table_steps: x0, v, eps, score; a table has no velocity",
                )
    if loss.weight != "uniform" and loss.space != "x0":
        raise ConfigError(
            "loss.space",
            loss.space,
            f"allowed with loss.weight={loss.weight}: x0, whose error it weights",
        )


def sample_times(path: Path, sample: SampleConfig) -> np.ndarray:
    """The times at which a sampler calls the network, float32 `[steps + 1]`.

    Args:
      path: the path, from `build_path`.
      sample: grid and steps, or the user's times.

    Raises:
      ConfigError: for times that no sampler can follow.
    """
    if not sample.times:
        try:
            t_end = usual_end(path) if sample.t_end is None else sample.t_end
            return time_grid(path, sample.steps, sample.time_grid, sample.shift, t_end)
        except TimeGridError as error:
            raise ConfigError(
                "sample.steps",
                sample.steps,
                f"allowed: fewer with sample.time_grid={sample.time_grid}: {error}",
            ) from None
    if len(sample.times) != sample.steps + 1:
        raise ConfigError(
            "sample.times",
            sample.times,
            f"allowed: {sample.steps + 1} times, one more than sample.steps",
        )
    try:
        return check_times(path, sample.times)
    except TimeGridError as error:
        raise ConfigError("sample.times", sample.times, f"allowed: {error}") from None


def _check_sampling(path: PathConfig, prediction: str, sample: SampleConfig) -> None:
    usable_path = build_path(path, prediction)
    t_min, t_max = usable_path.interval
    num_usable = round((t_max - t_min) * path.table_steps) + 1
    if path.table_steps and sample.steps > num_usable:
        raise ConfigError(
            "sample.steps",
            sample.steps,
            f"allowed: at most {num_usable}, the usable entries of the path's table",
        )
    sample_times(usable_path, sample)


def _check_guidance(sample: SampleConfig, num_classes: int, label_drop: float) -> None:
    if sample.guidance == 1:
        for name in ("guidance_rescale", "guidance_interval"):
            value, default = getattr(sample, name), getattr(SampleConfig(), name)
            if value != default:
                raise ConfigError(
                    f"sample.{name}",
                    value,
                    f"allowed: {default} with sample.guidance=1, which is no guidance",
                )
        if sample.autoguided:
            name = "guide_workdir" if sample.guide_workdir is not None else "guide_step"
            raise ConfigError(
                f"sample.{name}",
                getattr(sample, name),
                "allowed: None with sample.guidance=1, which never uses the guide",
            )
        return
    if sample.autoguided:
        return
    if num_classes == 0:
        raise ConfigError(
            "sample.guidance",
            sample.guidance,
            "allowed: 1 for a model without classes, which has no labels for guidance (or guide it "
            "by a weaker run: sample.guide_workdir or sample.guide_step)",
        )
    if label_drop == 0:
        raise ConfigError(
            "sample.guidance",
            sample.guidance,
            "allowed: 1 with loss.label_drop=0, which never trains the unconditional model",
        )


def check_diffusion(
    path: PathConfig, loss: LossConfig, sample: SampleConfig, model: ModelConfig
) -> None:
    """Checks that path, prediction, loss, sampler and guidance fit together.

    Raises:
      ConfigError: for a meaningless combination.
    """
    _check_path(path, model, loss)
    _check_sampling(path, model.prediction, sample)
    _check_guidance(sample, model.num_classes, loss.label_drop)


def build_path(config: PathConfig, prediction: str) -> Path:
    """The path of a configuration, limited to times that a prediction can use.

    Args:
      config: the section `path`.
      prediction: one of `paths.PREDICTIONS`.
    """
    return usable(_whole_path(config), prediction)


def _whole_path(config: PathConfig) -> Path:
    if config.name == "flow":
        return FlowPath()
    if config.name == "edm":
        return EDMPath(config.sigma_min, config.sigma_max)
    if config.table_steps:
        return TablePath.from_betas(
            ddpm_betas(config.betas, config.table_steps, config.beta_min, config.beta_max)
        )
    if config.betas == "linear":
        return LinearPath(config.beta_min, config.beta_max)
    return CosinePath()
