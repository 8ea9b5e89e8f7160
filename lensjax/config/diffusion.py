"""Which paths, predictions, losses, samplers and guidance make sense together."""

import numpy as np

from lensjax.config.sections import Config, PathConfig, SampleConfig
from lensjax.diffusion.paths import FlowPath, Path, usable
from lensjax.diffusion.schedules import CosinePath, EDMPath, LinearPath, TablePath, ddpm_betas
from lensjax.diffusion.time_grids import check_times, time_grid
from lensjax.errors import ConfigError, TimeGridError

# The fields that some choices alone read: left at their defaults by all others.
_VP, _LINEAR, _EDM = ("path.name", "vp"), ("path.betas", "linear"), ("path.name", "edm")
_NORMAL = ("loss.time_distribution", "logit_normal", "log_normal_sigma")
_CHURN = ("sample.sampler", "churn")
_FIELDS_OF_CHOICE: dict[str, tuple[tuple[str, ...], ...]] = {
    "path.betas": (_VP,),
    "path.table_steps": (_VP,),
    "path.beta_min": (_VP, _LINEAR),
    "path.beta_max": (_VP, _LINEAR),
    "path.sigma_min": (_EDM,),
    "path.sigma_max": (_EDM,),
    "loss.min_snr_gamma": (("loss.weight", "min_snr"),),
    "loss.time_mean": (_NORMAL,),
    "loss.time_std": (_NORMAL,),
    "sample.shift": (("sample.time_grid", "shifted"),),
    "sample.eta": (("sample.sampler", "ddim"),),
    "sample.churn": (_CHURN,),
    "sample.churn_noise": (_CHURN,),
    "sample.churn_interval": (_CHURN,),
}


def _value(config: Config, path: str) -> object:
    section, field = path.split(".")
    return getattr(getattr(config, section), field)


def _check_unread(config: Config) -> None:
    defaults = Config()
    for path, choices in _FIELDS_OF_CHOICE.items():
        got, default = _value(config, path), _value(defaults, path)
        for owner, *readers in choices:
            if got != default and _value(config, owner) not in readers:
                raise ConfigError(
                    path,
                    got,
                    f"allowed: {default} with {owner}={_value(config, owner)}; it is for "
                    f"{owner}={' or '.join(readers)}",
                )


def _check_path(config: Config) -> None:
    path, model, loss = config.path, config.model, config.loss
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
            f"allowed with path.name=edm: input, edm; its x_t reach {path.sigma_max:g}",
        )
    if path.name == "edm" and model.prediction in ("velocity", "v"):
        raise ConfigError(
            "model.prediction",
            model.prediction,
            f"allowed with path.name=edm: x0, eps, score; the others grow to {path.sigma_max:g} "
            "times the data with its noise",
        )
    if model.preconditioning == "edm" and model.prediction != "x0":
        raise ConfigError(
            "model.prediction",
            model.prediction,
            "allowed with model.preconditioning=edm: x0, which is what it gives",
        )
    if path.table_steps:
        for name, got in (("model.prediction", model.prediction), ("loss.space", loss.space)):
            if got == "velocity":
                raise ConfigError(
                    name,
                    got,
                    "allowed with path.table_steps: x0, v, eps, score; a table has no velocity",
                )
    if loss.weight != "uniform" and loss.space != "x0":
        raise ConfigError(
            "loss.space",
            loss.space,
            f"allowed with loss.weight={loss.weight}: x0, whose error it weights",
        )


def sample_times(config: Config, sample: SampleConfig) -> np.ndarray:
    """Returns the times of a sampler, float32 `[steps + 1]`.

    Args:
      config: path and prediction.
      sample: grid, steps, or times of the user's own.

    Raises:
      ConfigError: for times that no sampler can follow.
    """
    path = build_path(config.path, config.model.prediction)
    if not sample.times:
        try:
            return time_grid(path, sample.steps, sample.time_grid, sample.shift)
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
            f"allowed: one more than the intervals of sample.steps, {sample.steps + 1} times",
        )
    try:
        return check_times(path, sample.times)
    except TimeGridError as error:
        raise ConfigError("sample.times", sample.times, f"allowed: {error}") from None


def _check_sampling(config: Config) -> None:
    sample, path = config.sample, config.path
    first, last = build_path(path, config.model.prediction).interval
    if path.table_steps:
        usable = round((last - first) * path.table_steps) + 1
        if sample.steps > usable:
            raise ConfigError(
                "sample.steps",
                sample.steps,
                f"allowed: at most {usable}, the usable entries of the path's table",
            )
    sample_times(config, sample)


def _check_guidance(config: Config) -> None:
    sample = config.sample
    if sample.guidance == 1:
        for name in ("guidance_rescale", "guidance_interval"):
            got, default = getattr(sample, name), getattr(SampleConfig(), name)
            if got != default:
                raise ConfigError(
                    f"sample.{name}",
                    got,
                    f"allowed: {default} with sample.guidance=1, which guides nowhere",
                )
        if sample.autoguided:
            name = "guide_workdir" if sample.guide_workdir is not None else "guide_step"
            raise ConfigError(
                f"sample.{name}",
                getattr(sample, name),
                "allowed: None with sample.guidance=1, which never asks the guide",
            )
        return
    if sample.autoguided:
        return
    if config.model.num_classes == 0:
        raise ConfigError(
            "sample.guidance",
            sample.guidance,
            "allowed: 1 for a model without classes, which has no label to be guided by (or a "
            "weaker run as sample.guide_workdir or sample.guide_step)",
        )
    if config.loss.label_drop == 0:
        raise ConfigError(
            "sample.guidance",
            sample.guidance,
            "allowed: 1 with loss.label_drop=0, which never trains the unconditional model",
        )


def check_diffusion(config: Config) -> None:
    """Checks what path, prediction, loss, sampler and guidance allow each other.

    Raises:
      ConfigError: for a combination without meaning, or a field that the chosen parts do not read.
    """
    _check_unread(config)
    _check_path(config)
    _check_sampling(config)
    _check_guidance(config)


def build_path(config: PathConfig, prediction: str) -> Path:
    """Returns the path of a configuration, with the times that a prediction can use.

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
