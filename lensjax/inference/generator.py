"""From a trained run to images: `lensjax.load(workdir).generate(...)` and `--mode=sample`."""

import dataclasses
import functools
import math
import os
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from jax.sharding import Mesh

from lensjax import prng
from lensjax.arguments import array_of, whole_number
from lensjax.config import Config, SampleConfig, from_config_dict
from lensjax.config.model import GENERATE
from lensjax.data.scaling import Scaling
from lensjax.devices.machine import check_memory
from lensjax.devices.mesh import all_devices
from lensjax.errors import ConfigError, RequestError
from lensjax.files.user_paths import expanded
from lensjax.inference import likelihood
from lensjax.inference.restoring import restore_task
from lensjax.inference.sampling import Drawing, Weights, generate_chunks, make_sample_fn
from lensjax.run.networks import build_path

# Fields of the `sample` section, and the fields that lose their meaning when these change.
_FIELDS_OF = {
    "sampler": ("eta", "eta_interval", "churn", "churn_noise", "churn_interval"),
    "time_grid": ("shift", "t_end"),
}
# Fields of the section that are set elsewhere for `generate`.
_NOT_FOR_GENERATE = {"num_images": "num", "ema": "lensjax.load(..., ema=...)"}
_FIELDS_OF_GUIDANCE = ("guidance_rescale", "guidance_interval", "guide_workdir", "guide_step")


class LensGenerator:
    """A trained network that draws lens images.

    Args:
      config: the run's configuration.
      dataset: the content of its `dataset.json`.
      params: parameters to sample from.
      step: the checkpoint that they come from.
      ema: the name of their average, or `raw`.
      folder: the run's workdir, for a guide that is an earlier checkpoint; None without a workdir.
    """

    def __init__(
        self,
        config: Config,
        dataset: dict[str, Any],
        params: Any,
        step: int,
        ema: str,
        folder: pathlib.Path | None = None,
    ) -> None:
        self.config = config
        self.folder = folder
        self.params = params
        self.step = step
        self.ema = ema
        self.class_names: tuple[str, ...] = tuple(dataset["class_names"])
        self.image_shape: tuple[int, int, int] = tuple(dataset["image_shape"])
        self.flux_unit: str = dataset["flux_unit"]
        self.pixel_scale_arcsec: float | None = dataset["pixel_scale_arcsec"]
        # Not every program that writes a `dataset.json` writes these three.
        self.psf_fwhm_arcsec: float | None = dataset.get("psf_fwhm_arcsec")
        self.zero_point_mag: float | None = dataset.get("zero_point_mag")
        self.band_names: tuple[str, ...] = tuple(dataset.get("band_names", ()))
        self.data_name: str = dataset["name"]
        self.data_fingerprint: str = dataset["fingerprint"]
        self.scaling = Scaling(**dataset["scaling"])
        self._drawings = functools.lru_cache(maxsize=16)(self._make_drawing)
        self._placed = functools.lru_cache(maxsize=2)(self._place)
        self._guides = functools.lru_cache(maxsize=2)(self._load_guide)

    def _make_drawing(self, sample: SampleConfig, mesh: Mesh) -> Drawing:
        guide = self.guide(sample)
        weaker = guide.config if guide else None
        sample_fn = make_sample_fn(self.config, self.scaling, self.image_shape, sample, weaker)
        return Drawing(sample_fn, mesh)

    def guide(self, sample: SampleConfig) -> "LensGenerator | None":
        """The weaker run of autoguidance, None if the settings name none.

        Raises:
          ConfigError: for a run that cannot guide this one.
          lensjax.errors.WorkdirError: if the folder is not a run's.
          lensjax.errors.CheckpointError: if the checkpoint is missing or damaged.
        """
        if not sample.autoguided:
            return None
        return self._guides(sample.guide_workdir, sample.guide_step)

    def _load_guide(self, workdir: str | None, step: int | None) -> "LensGenerator":
        folder = workdir if workdir is not None else self.folder
        if folder is None:
            raise ConfigError("sample.guide_step", step, "allowed: None without a workdir")
        # An earlier checkpoint serves with the same average of its parameters.
        ema: bool | str = True if workdir is not None else self.ema
        guide = load_generator(expanded(folder, "sample.guide_workdir"), step=step, ema=ema)
        _check_guide(self, guide, str(folder))
        return guide

    def _place(self, drawing: Drawing, guide: "LensGenerator | None") -> Weights:
        return drawing.placed(Weights(self.params, guide.params if guide else None))

    def _ready(self, sample: SampleConfig, num_chunks: int) -> tuple[Drawing, Weights]:
        """The drawing of a sample section, and its weights on the devices."""
        # One device for one chunk, else all: each number of devices needs its own compilation.
        most = 1 if num_chunks == 1 else self.config.parallel.num_devices
        drawing = self._drawings(sample, all_devices(most=most))
        return drawing, self._placed(drawing, self.guide(sample))

    def labels(self, label: int | str | Sequence[int] | np.ndarray | None, num: int) -> np.ndarray:
        """Labels int32 `[num]` for an index, a class name, an array, or None.

        None cycles through the classes; in an unlabelled set every label is the null label.

        Raises:
          RequestError: for a class that does not exist, an array of another length, or more labels
            than images fit into the memory.
        """
        num = self._checked_number(num, at_least=0)
        num_classes = len(self.class_names)
        if label is None:
            labels = np.arange(num) % max(num_classes, 1)
        elif isinstance(label, str):
            if label not in self.class_names:
                allowed = ", ".join(self.class_names) or "none, the set is unlabelled"
                raise RequestError(f"label: got {label!r}; allowed: {allowed}")
            labels = np.full(num, self.class_names.index(label))
        else:
            labels = array_of("label", label, "integers or a class name", kinds="iu")
            if labels.ndim == 0:
                labels = np.full(num, labels)
            if labels.shape != (num,):
                raise RequestError(f"label: got shape {labels.shape}; allowed: ({num},)")
        # The null label, num_classes, draws from the unconditional model, where one was trained.
        names = self.class_names
        if self.config.loss.label_drop or not names:
            names = (*names, "none")
        if num and not (labels.min() >= 0 and labels.max() < len(names)):
            raise RequestError(
                f"label: got {labels.min()} to {labels.max()}; allowed: 0 to {len(names) - 1} "
                f"({', '.join(names)})"
            )
        return labels.astype(np.int32)

    def _checked_number(self, num: Any, at_least: int = 1) -> int:
        """A number of images that exist and fit into the memory."""
        num = whole_number("num", num, at_least)
        check_memory("num", num, 4 * math.prod(self.image_shape), "image")
        return num

    def settings(
        self,
        steps: int | None = None,
        guidance: float | None = None,
        sampler: str | None = None,
        **others: Any,
    ) -> SampleConfig:
        """The run's `sample` section with these fields, checked again; None keeps the run's value.

        Fields of another sampler, grid or guide than the wanted one fall back to their defaults.

        Raises:
          ConfigError: for settings that are not allowed.
        """
        wanted = {"steps": steps, "guidance": guidance, "sampler": sampler, **others}
        changed = {  # the numbers of numpy and JAX are as good as Python's
            name: value.tolist() if hasattr(value, "tolist") else value
            for name, value in wanted.items()
            if value is not None
        }
        values = dataclasses.asdict(self.config)
        defaults = dataclasses.asdict(SampleConfig())
        reset = {
            name: defaults[name]
            for owner, names in _FIELDS_OF.items()
            if changed.get(owner, values["sample"][owner]) != values["sample"][owner]
            for name in names
        }
        if "steps" in changed or "time_grid" in changed:
            reset["times"] = ()
        if changed.get("guidance") == 1:
            reset |= {name: defaults[name] for name in _FIELDS_OF_GUIDANCE}
        values["sample"] |= reset | changed
        return from_config_dict(values).sample

    def generate(
        self,
        label: int | str | Sequence[int] | np.ndarray | None = None,
        num: int = 1,
        seed: int = 0,
        steps: int | None = None,
        guidance: float | None = None,
        sampler: str | None = None,
        **others: Any,
    ) -> np.ndarray:
        """Draws images.

        Image i is a function of (seed, i) and its label. Images are computed in chunks of
        `sample.batch_size`, the last chunk padded, so that they agree bit for bit for any `num` and
        any number of devices; each device computes chunks of its own. On several hosts, every host
        calls this with the same arguments and gets all images.

        Args:
          label: a class index or name for all images, an array `[num]`, or None for labels that
            cycle through the classes.
          num: number of images.
          seed: in [0, 2**31 - 1].
          steps: intervals of time; None for the run's value.
          guidance: g of `uncond + g (cond - uncond)`; None for the run's value.
          sampler: name of the solver; None for the run's value.
          **others: further fields of the `sample` section, such as `time_grid="karras"`.

        Returns:
          float32 `[num, H, W, C]` in flux units (`flux_unit`).

        Raises:
          RequestError: for a label, number or seed that is not allowed, or more images than fit
            into the machine's memory.
          lensjax.errors.ConfigError: for sampler settings that are not allowed.
        """
        num = self._checked_number(num)
        seed = whole_number("seed", seed, 0, prng.MAX_SEED)
        for name, instead in _NOT_FOR_GENERATE.items():
            if name in others:
                raise RequestError(f"{name}: got {others[name]!r}; not allowed here; use {instead}")
        sample = self.settings(steps, guidance, sampler, **others)
        drawing, weights = self._ready(sample, -(-num // sample.batch_size))
        return generate_chunks(
            drawing,
            weights,
            np.arange(num, dtype=np.int32),
            self.labels(label, num),
            seed=seed,
            batch_size=sample.batch_size,
            progress=True,
        )

    def generate_numbers(self, numbers: np.ndarray, sample: SampleConfig) -> np.ndarray:
        """Draws the images of `generate(None, ..., sample.seed)` with the given numbers.

        Args:
          numbers: numbers of the images, int32 `[N]`; a chunk of them is computed together.
          sample: the settings.

        Returns:
          float32 `[N, H, W, C]`, flux.
        """
        drawing, weights = self._ready(sample, -(-len(numbers) // sample.batch_size))
        labels = self.labels(numbers % max(len(self.class_names), 1), len(numbers))
        return generate_chunks(
            drawing, weights, numbers, labels, seed=sample.seed, batch_size=sample.batch_size
        )

    def log_prob(
        self,
        images: np.ndarray,
        label: int | str | Sequence[int] | np.ndarray | None = None,
        *,
        seed: int = 0,
        steps: int = 100,
        trace: str = "hutchinson",
        num_probes: int = 1,
        t_min: float | None = None,
        space: str = "flux",
    ) -> likelihood.LogProb:
        """Log densities of images under the model without guidance.

        The data are smoothed a little: see `lensjax.inference.likelihood`. The density of an image
        does not depend on other images; integer images get noise, which the result's `note` says.

        Args:
          images: flux units (`flux_unit`), integer or float `[N, H, W, C]`.
          label: as for `generate`, but None is the unconditional model: the null label for all.
          seed: in [0, 2**31 - 1]; probes and noise of image i are functions of (seed, i).
          steps: intervals of time, with two network passes in each.
          trace: `hutchinson` estimates the divergence of the velocity by random probes; `exact`
            pushes every pixel through the network in each step, for small images.
          num_probes: probes an image; two or more give a standard error. `exact` has none.
          t_min: a usable time; the data are smoothed by noise of `sigma / alpha` at this time, in
            the model's range. None for 1e-3, or the first usable time if that is later; 0 smoothes
            nothing, where path and prediction allow it.
          space: `flux` for the density per flux unit of each pixel; `model` for that in the range
            in which the network works, where `sqrt` scaling can take pixels of 0.

        Raises:
          RequestError: for images or settings that are not allowed.
        """
        images = likelihood.check_images(images, self.image_shape)
        integration = likelihood.Integration(steps, trace, num_probes, t_min)
        likelihood.check_integration(self.config, integration)
        if label is None and self.class_names and not self.config.loss.label_drop:
            raise RequestError(
                "label: got None; allowed: a class, since with loss.label_drop=0 the unconditional "
                "model was never trained"
            )
        labels = self.labels(len(self.class_names) if label is None else label, len(images))
        return likelihood.log_prob(
            self.config,
            self.scaling,
            self.params,
            images,
            labels,
            integration,
            seed=seed,
            space=space,
        )


def _check_guide(generator: LensGenerator, guide: LensGenerator, folder: str) -> None:
    """Checks that another run can guide this one."""
    pairs: dict[str, tuple[Any, Any]] = {
        "images": (guide.image_shape, generator.image_shape),
        "classes": (guide.class_names, generator.class_names),
        "scaling": (guide.scaling, generator.scaling),
        "path": (guide.config.path, generator.config.path),
    }
    if guide.band_names and generator.band_names:  # else nothing is known about them
        pairs["bands"] = guide.band_names, generator.band_names
    for name, (its, own) in pairs.items():
        if its != own:
            raise ConfigError(
                "sample.guide_workdir",
                folder,
                f"allowed: a run with the same {name}; it has {its}, this one {own}",
            )
    its_first, its_last = build_path(guide.config).interval
    first, last = build_path(generator.config).interval
    if its_first > first or its_last < last:
        raise ConfigError(
            "sample.guide_workdir",
            folder,
            f"allowed: a run that covers all times of this one, {first:g} to {last:g}; with "
            f"model.prediction={guide.config.model.prediction} it covers {its_first:g} to "
            f"{its_last:g}",
        )


def load_generator(
    workdir: str | os.PathLike,
    config: Config | None = None,
    step: int | None = None,
    ema: bool | str = True,
) -> LensGenerator:
    """Loads a trained generator; needs neither the data set nor TensorFlow.

    Args:
      workdir: the run's folder.
      config: the run's configuration, with other `sample.*` fields; None for the run's own.
      step: the checkpoint; None for the newest sound one.
      ema: the parameters to draw with: an average by its name (`main`, or a half-life of
        `optim.ema_more_half_lives_images` as text, such as `2000`), the raw ones (False or `raw`),
        or those of the run's `sample.ema` (True).

    Raises:
      ConfigError: for a run whose network is not a generator.
      RequestError: for an average that the run does not keep.
      lensjax.errors.WorkdirError: if the folder is not a run's.
      lensjax.errors.CheckpointError: if the checkpoint is missing or damaged.
    """
    trained = restore_task(GENERATE, workdir, config, step, ema)
    return LensGenerator(
        trained.config,
        trained.dataset,
        trained.params,
        trained.step,
        trained.ema,
        trained.folder,
    )
