"""The sections `optim` and `train`: the optimizer, the averages it feeds, and the loop."""

import dataclasses
from collections.abc import Iterable

from lensjax.config.data import DataConfig
from lensjax.config.diffusion import MAIN_EMA, RAW_PARAMS, SampleConfig
from lensjax.config.fields import (
    LEAST,
    MOST,
    MOST_IMAGES,
    below,
    between,
    choice,
    count,
    make_field,
    plain,
    positive,
)
from lensjax.data.catalogue import SIMULATED_SETS
from lensjax.data.simulator import CLASS_NAMES
from lensjax.errors import ConfigError

COOLDOWN = "cooldown"
SCHEDULES = ("cosine", COOLDOWN)


def ema_half_lives(main: float, more: Iterable[float]) -> dict[str, float]:
    """The half-life of each average by the name that it has everywhere.

    The names are `main` and, for the further averages, the half-life as text: `2000` for 2000.0,
    and its `repr` for a number that is not integral.

    Args:
      main: half-life of the main average, in images.
      more: half-lives of the further averages; each once.
    """
    further = {str(int(x)) if x.is_integer() else repr(x): x for x in map(float, more)}
    return {MAIN_EMA: main, **further}


@dataclasses.dataclass(frozen=True)
class OptimConfig:
    """The optimizer, its schedule, and the averages of the parameters.

    Attributes:
      name: `adamw`, or `muon`, which makes the update of each kernel orthogonal (Liu et al. 2025,
        arXiv:2502.16982): it needs fewer steps, each of which is dearer on a CPU.
      learning_rate: the peak learning rate.
      warmup_steps: steps of the linear warm-up.
      schedule: how the learning rate falls after the warm-up. `cosine`: along a cosine over all
        steps, so that a run with more steps has other rates from the warm-up on. `cooldown`: it
        stays constant and falls as 1 - sqrt over the last steps (Haegele et al. 2024,
        arXiv:2405.18392). The checkpoint before the cooldown is kept, so that a run with more steps
        goes on from there.
      cooldown_share: share of all steps over which the rate falls with `schedule=cooldown`.
      learning_rate_floor: share of `learning_rate` at which the schedule ends.
      weight_decay: decoupled weight decay.
      clip_norm: global norm to which the gradient is clipped.
      b1: decay of the first moment.
      b2: decay of the second moment.
      eps: `adamw`: added to the root of the second moment.
      ema_half_life_images: half-life of the main average, in training images.
      ema_more_half_lives_images: half-lives of further averages, kept beside the main one;
        `sample.ema` can draw with them. Each costs the memory of the parameters. Two averages are
        the same until `ema_warmup_share` of the images seen exceeds the shorter half-life.
      ema_warmup_share: largest half-life as a share of the images seen; 0 for no warm-up.
    """

    name: str = choice("adamw", ("adamw", "muon"), since="0.3.0")
    learning_rate: float = positive(1e-4)
    warmup_steps: int = count(1000, least=0)
    schedule: str = choice("cosine", SCHEDULES, since="0.3.0")
    cooldown_share: float = make_field(
        0.2,
        lambda share: 0 < share <= 1,
        "a number above 0, at most 1",
        since="0.3.0",
        only_for={"optim.schedule": (COOLDOWN,)},
    )
    learning_rate_floor: float = between(0.01, 0.0, 1.0)
    weight_decay: float = between(0.01, 0.0, MOST)
    clip_norm: float = positive(1.0)
    b1: float = below(0.9, 0.0, 1.0)
    b2: float = below(0.999, 0.0, 1.0)
    eps: float = positive(1e-8, only_for={"optim.name": ("adamw",)})
    ema_half_life_images: float = positive(100_000.0)
    ema_more_half_lives_images: tuple[float, ...] = make_field(
        (),
        lambda values: all(LEAST <= x <= MOST for x in values) and len({*values}) == len(values),
        f"different numbers from {LEAST:g} to {MOST:g}, such as (2000, 50000), or ()",
    )
    ema_warmup_share: float = between(0.05, 0.0, 1.0)

    @property
    def ema_half_lives(self) -> dict[str, float]:
        """Half-life in images of each average by its name; see `ema_half_lives`."""
        return ema_half_lives(self.ema_half_life_images, self.ema_more_half_lives_images)


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """The training loop.

    Attributes:
      batch_size: images per step, over all devices.
      num_steps: steps of the whole run.
      steps_per_dispatch: steps that the devices take without returning to the host; must divide
        `num_steps` and every `..._every` of this section. More than 1 pays off if a step takes
        milliseconds.
      accumulate_steps: number of equal parts into which each device's share of the batch is
        divided; their gradients are computed one after another and averaged, for batches that do
        not fit into memory.
      log_every: steps between lines of metrics; a line has the mean loss since the previous one.
      evaluate_every: steps between validations, with curves drawn beside the samples; the last step
        always has one.
      evaluate_images: images of each split that a validation uses.
      sample_every: steps between sample grids; the last step always has one.
      checkpoint_every: steps between checkpoints; the last step always has one.
      keep_last: number of newest checkpoints to keep.
      keep_every: checkpoints at multiples of this many steps are kept for good; None for none.
      deterministic: asks the accelerator's compiler for reproducible kernels.
    """

    batch_size: int = count(160, most=MOST_IMAGES)
    num_steps: int = count(100_000, resumable=True)
    steps_per_dispatch: int = count(1, since="0.1.0")
    # Resumable, so that a batch can be made to fit another device.
    accumulate_steps: int = count(1, resumable=True, since="0.1.0")
    log_every: int = count(50, resumable=True)
    evaluate_every: int = count(2_500, resumable=True)
    evaluate_images: int = count(510, resumable=True)
    sample_every: int = count(5_000, resumable=True)
    checkpoint_every: int = count(2_500, resumable=True)
    keep_last: int = count(2, resumable=True)
    keep_every: int | None = count(None, resumable=True)
    deterministic: bool = plain(False)


def check_ema(optim: OptimConfig, sample: SampleConfig) -> None:
    """Checks that averages have distinct names, and that the one to draw with is kept.

    Raises:
      ConfigError: for the field that is wrong.
    """
    main, more = optim.ema_half_life_images, optim.ema_more_half_lives_images
    if main in more:
        raise ConfigError(
            "optim.ema_more_half_lives_images",
            more,
            f"allowed: half-lives other than optim.ema_half_life_images, {main}",
        )
    choices = (*optim.ema_half_lives, RAW_PARAMS)
    if sample.ema not in choices:
        raise ConfigError("sample.ema", sample.ema, f"allowed: {', '.join(choices)}")


def check_steps(train: TrainConfig, data: DataConfig) -> None:
    """Checks that all events fall between dispatches, and that a batch can be divided.

    Raises:
      ConfigError: for the first field that is wrong.
    """
    fields = ("num_steps", *(f"{event}_every" for event in ("log", "evaluate", "sample")))
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
    simulated = SIMULATED_SETS.get(data.name)
    if simulated is None:  # how many images a folder has is known once it was read
        return
    num_images = simulated.images_per_class["train"] * len(CLASS_NAMES)
    if train.batch_size > num_images:
        raise ConfigError(
            "train.batch_size",
            train.batch_size,
            f"allowed: at most the {num_images} images of {data.name}",
        )
