"""The sections of a configuration: one frozen dataclass each, every field with its bounds."""

import dataclasses
import math
from collections.abc import Iterable
from typing import Any

from lensjax.config.classify import ClassifyConfig
from lensjax.config.evaluate import EvaluateConfig
from lensjax.config.fields import below, between, choice, count, make_field, positive
from lensjax.config.model import TASKS, ModelConfig
from lensjax.config.parallel import ParallelConfig
from lensjax.data.augmentation import SYMMETRIES, is_augmentation
from lensjax.data.catalogue import BAD_FILE_POLICIES, FOLDER_SET, NAN_POLICIES, SIMULATED_SETS
from lensjax.data.scaling import SCALINGS
from lensjax.diffusion.losses import LOSS_SPACES, LOSS_WEIGHTS, TIME_DISTRIBUTIONS
from lensjax.diffusion.samplers import SAMPLERS
from lensjax.diffusion.schedules import BETAS
from lensjax.diffusion.time_grids import TIME_GRIDS
from lensjax.files.file_image import LAYOUTS
from lensjax.prng import MAX_SEED

MAIN_EMA = "main"
RAW_PARAMS = "raw"  # stands beside the averages' names for the parameters themselves


def ema_half_lives(main: float, more: Iterable[float]) -> dict[str, float]:
    """Returns the half-life of each average by the name that it has everywhere.

    The names are `main` and, for the others, the half-life as text: `2000` for 2000.0, and what
    `repr` gives for a number that is not integral.

    Args:
      main: half-life of the main average, in images.
      more: those of the others; each once.
    """
    others = {str(int(x)) if x.is_integer() else repr(x): x for x in map(float, more)}
    return {MAIN_EMA: main, **others}


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """What the network learns from.

    Attributes:
      name: data set, such as `deeplense/model_ii`; `_mini` at the end for a small one;
        `deeplense/folder` for the user's own files.
      folder: the folder of these files.
      layout: the axes of an array in a file; `auto` reads them off its shape.
      nan_policy: pixels that are not finite: `refuse`, `mask` (they carry no loss), or `fill`
        (with the median of their image).
      on_bad_file: a file that cannot be used: `refuse`, or `skip` and list it.
      test_share: share of the images that becomes the test split where the folder has none.
      directory: where TFDS keeps sets; None for `$TFDS_DATA_DIR`, else `~/tensorflow_datasets`.
      num_parts: for `--mode=build_data` of a simulated set: how many parts independent jobs build
        it in; None for a single build.
      part: the part that this job builds, from 0; None to join the parts that are there.
      placement: `device` keeps the set on the accelerator, `stream` reads it from disk; `auto`
        chooses.
      augmentation: symmetries that leave the data as they are, names of
        `augmentation.SYMMETRIES` with commas between, or `all`; `rotate_180` is the one of Models I
        to III.
      shift_pixels: largest random shift of the cut-out; the network sees images that are smaller by
        this margin on each side. For the user's own files.
      scaling: map from flux to the model's range; `sqrt` refuses negative pixels.
      model_std: standard deviation of the training images in the model's range.
      exclude_source_disc: `(x, y, radius)` in arcsec: training leaves out every image whose source
        lies there, so that an evaluation can ask whether the network fills the hole; `()` for none.
        For simulated sets.
    """

    name: str = choice("deeplense/model_ii", (*SIMULATED_SETS, FOLDER_SET))
    folder: str | None = make_field(None, bool, "allowed: None, or the name of a folder")
    layout: str = choice("auto", LAYOUTS)
    nan_policy: str = choice("refuse", NAN_POLICIES)
    on_bad_file: str = choice("refuse", BAD_FILE_POLICIES)
    test_share: float = between(0.1, 0.001, 0.9)
    directory: str | None = None
    num_parts: int | None = count(None)
    part: int | None = count(None, least=0)
    placement: str = choice("auto", ("auto", "device", "stream"))
    augmentation: str = make_field(
        "none", is_augmentation, f"allowed: {', '.join(SYMMETRIES)} with commas between, or all"
    )
    shift_pixels: int = count(0, least=0)
    scaling: str = choice("linear", SCALINGS)
    model_std: float = positive(0.5)
    exclude_source_disc: tuple[float, ...] = make_field(
        (),
        lambda disc: len(disc) == 0 or (len(disc) == 3 and disc[2] > 0),
        "allowed: () or (x, y, radius) in arcsec with a radius above 0, such as (0.1, 0.1, 0.1)",
    )


@dataclasses.dataclass(frozen=True)
class PathConfig:
    """The probability path, `x_t = alpha x0 + sigma eps`.

    Attributes:
      name: `flow`, alpha = 1 - t and sigma = t; `vp`, alpha^2 + sigma^2 = 1 with `betas`; `edm`,
        alpha = 1 and log sigma linear in t.
      betas: VP: `linear` (DDPM) or `cosine` (iDDPM).
      table_steps: VP: steps of a discrete table, such as DDPM's 1,000; 0 for continuous time.
        With `eps` and `score`, tables of a few hundred steps lose some entries at the noise's end.
      beta_min: VP, linear: beta at t = 0; a table of T steps has `beta / T`.
      beta_max: VP, linear: beta at t = 1.
      sigma_min: EDM: the least noise.
      sigma_max: EDM: the most noise.
    """

    name: str = choice("flow", ("flow", "vp", "edm"))
    betas: str = choice("linear", BETAS)
    table_steps: int = make_field(
        0, lambda n: n == 0 or 2 <= n <= 100_000, "allowed: 0, or an integer in 2 to 100000"
    )
    beta_min: float = positive(0.1)
    beta_max: float = positive(20.0)
    sigma_min: float = positive(0.002)
    sigma_max: float = positive(80.0)


@dataclasses.dataclass(frozen=True)
class LossConfig:
    """The training loss.

    Attributes:
      space: what the squared error is taken of.
      min_sigma: floor of sigma where an error is divided by it.
      weight: of the squared error: `uniform`; `min_snr` or `edm`, for `space` `x0`.
      min_snr_gamma: gamma of `min_snr`.
      time_distribution: `uniform`, `logit_normal`, or `log_normal_sigma`.
      time_mean: mean of logit(t) for `logit_normal`, of log(sigma / alpha) for `log_normal_sigma`.
      time_std: standard deviation of the same.
      stratified: whether the times of a batch cover their distribution evenly.
      label_drop: probability that an example loses its label.
    """

    space: str = choice("velocity", LOSS_SPACES)
    min_sigma: float = positive(0.05)
    weight: str = choice("uniform", LOSS_WEIGHTS)
    min_snr_gamma: float = positive(5.0)
    time_distribution: str = choice("uniform", TIME_DISTRIBUTIONS)
    time_mean: float = 0.0
    time_std: float = positive(1.0)
    stratified: bool = False
    label_drop: float = between(0.1, 0.0, 1.0)


@dataclasses.dataclass(frozen=True)
class OptimConfig:
    """AdamW, its schedule, and the averages of the parameters.

    Attributes:
      learning_rate: the highest value.
      warmup_steps: steps of the linear rise.
      learning_rate_floor: least share of `learning_rate` that the cosine falls to.
      weight_decay: decoupled weight decay.
      clip_norm: largest global norm of the gradient.
      b1: decay of the first moment.
      b2: decay of the second moment.
      eps: added to the root of the second moment.
      ema_half_life_images: half-life of the main average, in training images.
      ema_more_half_lives_images: half-lives of further averages, kept beside the main one and
        drawn with by `sample.ema`; each costs the memory of the parameters. Two averages are the
        same until `ema_warmup_share` of the images seen exceeds the shorter half-life.
      ema_warmup_share: largest half-life as a share of the images seen; 0 for no warm-up.
    """

    learning_rate: float = positive(1e-4)
    warmup_steps: int = count(1000, least=0)
    learning_rate_floor: float = between(0.01, 0.0, 1.0)
    weight_decay: float = below(0.01, 0.0, math.inf)
    clip_norm: float = positive(1.0)
    b1: float = below(0.9, 0.0, 1.0)
    b2: float = below(0.999, 0.0, 1.0)
    eps: float = positive(1e-8)
    ema_half_life_images: float = positive(100_000.0)
    ema_more_half_lives_images: tuple[float, ...] = make_field(
        (),
        lambda values: all(0 < x < math.inf for x in values) and len({*values}) == len(values),
        "allowed: finite numbers above 0, each once, such as (2000, 50000), or ()",
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
      batch_size: images a step, over all devices.
      num_steps: steps of the whole run.
      steps_per_dispatch: steps that are made without the host; divides `num_steps` and every
        `..._every` of this section. More than 1 is worth it where a step takes milliseconds.
      accumulate_steps: equal parts of each device's share of the batch whose gradients are computed
        one after the other and averaged, for batches that do not fit into memory at once.
      log_every: steps between lines of metrics; a line holds the mean loss since the last one.
      evaluate_every: steps between validations, with curves drawn beside the samples; the last step
        always has one.
      evaluate_images: images of each split that a validation uses.
      sample_every: steps between sample grids; the last step always has one.
      checkpoint_every: steps between checkpoints; the last step always has one.
      keep_last: newest checkpoints that are kept.
      keep_every: checkpoints at multiples of this stay for good; None keeps none.
      deterministic: asks the accelerator's compiler for reproducible kernels.
    """

    batch_size: int = count(160)
    num_steps: int = count(100_000, most=2**31 - 1)
    steps_per_dispatch: int = count(1)
    accumulate_steps: int = count(1)
    log_every: int = count(50)
    evaluate_every: int = count(2_500)
    evaluate_images: int = count(510)
    sample_every: int = count(5_000)
    checkpoint_every: int = count(2_500)
    keep_last: int = count(2)
    keep_every: int | None = count(None)
    deterministic: bool = False


def _time_interval(default: tuple[float, float]) -> Any:
    """Returns a field for two times, the lower one first."""
    return make_field(
        default,
        lambda ends: len(ends) == 2 and 0 <= ends[0] < ends[1] <= 1,
        "allowed: two times in [0, 1], the lower one first, such as (0.2, 0.8)",
    )


@dataclasses.dataclass(frozen=True)
class SampleConfig:
    """Generation; the defaults take 20 network passes an image (`benchmarks/samplers.py`).

    Attributes:
      ema: parameters to draw with, in training as well: `main`, the main average; one of
        `optim.ema_more_half_lives_images` as text, such as `2000`; or `raw`, without average.
      sampler: the solver: `euler` (which is `ddim` without noise), `heun`, `midpoint`, `dpmpp_2m`;
        `ddim`, `ddpm` and `churn` draw noise.
      steps: intervals of time; `heun`, `midpoint` and `churn` pass the network twice in each but
        the last one of a path that ends before the data.
      time_grid: where the times lie: `uniform`, `cosine`, `karras` or `shifted`.
      shift: of the `shifted` grid; above 1 towards the noise.
      times: times of your own that fall from noise to 0, `steps + 1` of them; () for the grid.
      eta: `ddim`: share of the noise that is drawn anew.
      churn: `churn`: noise added, as a share of its level summed over all steps; at most 0.41 in
        one step.
      churn_noise: `churn`: factor of that noise's standard deviation.
      churn_interval: `churn`: times between which noise is added.
      guidance: g of `uncond + g (cond - uncond)`; 1 is no guidance.
      guidance_rescale: share in which guided images get back the contrast of unguided ones.
      guidance_interval: times between which guidance acts; outside, it costs no pass.
      guide_workdir: workdir of a weaker run that takes the place of the unconditional model
        (autoguidance); None for none, or for this run where `guide_step` is given.
      guide_step: checkpoint of the guide; None for its newest. An earlier checkpoint of this run
        has the same average of the parameters, another run the one that its `sample.ema` names.
      num_images: images of `--mode=sample`; labels cycle through the classes.
      batch_size: images computed at once.
      seed: image i is a function of (seed, i).
      grid_columns: images a class in the sample grids.
    """

    ema: str = "main"
    sampler: str = choice("dpmpp_2m", SAMPLERS)
    steps: int = count(20, most=1_000_000)
    time_grid: str = choice("karras", TIME_GRIDS)
    shift: float = positive(3.0)
    times: tuple[float, ...] = ()
    eta: float = between(0.0, 0.0, 1.0)
    churn: float = positive(10.0)
    churn_noise: float = positive(1.0)
    churn_interval: tuple[float, ...] = _time_interval((0.05, 0.95))
    guidance: float = between(1.0, 0.0, 1000.0)
    guidance_rescale: float = between(0.0, 0.0, 1.0)
    guidance_interval: tuple[float, ...] = _time_interval((0.0, 1.0))
    guide_workdir: str | None = make_field(None, bool, "allowed: None, or the name of a workdir")
    guide_step: int | None = count(None)
    num_images: int = count(48, most=2**31 - 1)
    batch_size: int = count(48)
    seed: int = count(0, least=0, most=MAX_SEED)

    grid_columns: int = count(8)

    @property
    def autoguided(self) -> bool:
        """Whether a weaker run is the guide, and not the network without label."""
        return self.guide_workdir is not None or self.guide_step is not None


@dataclasses.dataclass(frozen=True)
class ExportConfig:
    """Images as files for other programs.

    Attributes:
      source: `data`, the data set; or `generated`, what `--mode=sample` left in the workdir.
      format: `npy` and `fits` write a file an image, `hdf5` a file a split.
      split: of the data set.
      folder: where the files go; None for `export` in the workdir.
      scale: `flux`, or `published`, which multiplies by what published files are multiplied by.
    """

    source: str = choice("data", ("data", "generated"))
    format: str = choice("npy", ("npy", "hdf5", "fits"))
    split: str = choice("all", ("train", "test", "all"))
    folder: str | None = make_field(None, bool, "allowed: None, or the name of a folder")
    scale: str = choice("flux", ("flux", "published"))


@dataclasses.dataclass(frozen=True)
class Config:
    """A checked configuration; see the classes of its sections."""

    data: DataConfig = DataConfig()
    model: ModelConfig = ModelConfig()
    path: PathConfig = PathConfig()
    loss: LossConfig = LossConfig()
    optim: OptimConfig = OptimConfig()
    train: TrainConfig = TrainConfig()
    sample: SampleConfig = SampleConfig()
    classify: ClassifyConfig = ClassifyConfig()
    evaluate: EvaluateConfig = EvaluateConfig()
    export: ExportConfig = ExportConfig()
    parallel: ParallelConfig = ParallelConfig()
    seed: int = count(0, least=0, most=MAX_SEED)

    @property
    def task(self) -> str:
        """What the network is for: `generate`, `classify` or `pretrain`."""
        return TASKS[self.model.name]
