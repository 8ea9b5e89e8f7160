"""Checks of the sections `optim` and `train`."""

from lensjax.config.sections import RAW_PARAMS, Config, TrainConfig
from lensjax.errors import ConfigError


def check_ema(config: Config) -> None:
    """Checks that averages have names of their own, and that the one to draw with is kept.

    Raises:
      ConfigError: for the field that is wrong.
    """
    main, more = config.optim.ema_half_life_images, config.optim.ema_more_half_lives_images
    if main in more:
        raise ConfigError(
            "optim.ema_more_half_lives_images",
            more,
            f"allowed: half-lives other than optim.ema_half_life_images, {main}",
        )
    choices = (*config.optim.ema_half_lives, RAW_PARAMS)
    if config.sample.ema not in choices:
        raise ConfigError("sample.ema", config.sample.ema, f"allowed: {', '.join(choices)}")


def check_steps(train: TrainConfig) -> None:
    """Checks that nothing happens within a dispatch, and that a batch has equal parts.

    Raises:
      ConfigError: for the first field that is wrong.
    """
    fields = ("num_steps", *(f"{what}_every" for what in ("log", "evaluate", "sample")))
    for name in (*fields, "checkpoint_every", "keep_every"):
        steps = getattr(train, name)
        if steps is not None and steps % train.steps_per_dispatch:
            raise ConfigError(
                f"train.{name}",
                steps,
                f"allowed: a multiple of train.steps_per_dispatch, {train.steps_per_dispatch}",
            )
    if train.batch_size % train.accumulate_steps:
        raise ConfigError(
            "train.accumulate_steps",
            train.accumulate_steps,
            f"allowed: a divisor of train.batch_size, {train.batch_size}",
        )
