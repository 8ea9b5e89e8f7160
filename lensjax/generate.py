"""From a trained run to images: `lensjax.load(workdir).generate(...)` and `--mode=sample`."""

import dataclasses
import functools
import hashlib
import os
import pathlib
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import logging
from jax import Array

from lensjax import optim, prng, provenance, samplers
from lensjax import workdir as files
from lensjax.assemble import abstract_state, build_path, make_denoiser_fn
from lensjax.checkpoint import Checkpoints
from lensjax.config import Config, SampleConfig, from_config_dict
from lensjax.config_fields import is_integer
from lensjax.data.scaling import Scaling
from lensjax.figures import lens_grid, save_png
from lensjax.guidance import passes_per_call
from lensjax.state import TrainState, sampling_params

if TYPE_CHECKING:
    from lensjax.likelihood import LogProb

# (params, seed [], image numbers [B], labels [B]) -> flux [B, H, W, C].
SampleFn = Callable[[Any, Array, Array, Array], Array]


class GenerateError(ValueError):
    """A request that a run cannot serve."""


def make_sample_fn(
    config: Config,
    scaling: Scaling,
    image_shape: tuple[int, int, int],
    sample: SampleConfig,
) -> SampleFn:
    """Returns the pure function that draws one chunk of images.

    Image i starts from noise that is a function of (seed, i) alone.

    Args:
      config: network, path and prediction.
      scaling: from the model's range back to flux.
      image_shape: `(H, W, C)`.
      sample: sampler, steps and guidance.
    """
    path = build_path(config)
    denoiser_fn = make_denoiser_fn(config, sample.guidance)
    times = samplers.time_grid(path, sample.steps)

    def sample_fn(params: Any, seed: Array, numbers: Array, labels: Array) -> Array:
        keys = prng.keys(prng.key(seed, "generate"), numbers)
        noise = jax.vmap(lambda key: jax.random.normal(key, image_shape, jnp.float32))(keys)
        denoise = denoiser_fn(params, labels)
        step = samplers.STEPS[sample.sampler]
        return scaling.to_flux(samplers.sample(path, denoise, noise, jnp.asarray(times), step))

    return sample_fn


def passes_per_image(sample: SampleConfig) -> int:
    """Returns how often the network sees one image, guidance included."""
    per_step = samplers.PASSES_PER_STEP[sample.sampler]
    return sample.steps * per_step * passes_per_call(sample.guidance)


def generate_chunks(
    sample_fn: SampleFn, params: Any, labels: np.ndarray, *, seed: int, batch_size: int
) -> np.ndarray:
    """Draws images in chunks of one shape, the last one padded.

    Args:
      sample_fn: jitted, from `make_sample_fn`.
      params: the network's parameters.
      labels: int32 `[N]`; image i gets label i.
      seed: in [0, 2**31 - 1].
      batch_size: images computed at once.

    Returns:
      float32 `[N, H, W, C]`, flux.
    """
    chunks = []
    for start in range(0, len(labels), batch_size):
        numbers = np.arange(start, start + batch_size, dtype=np.int32)
        chunk_labels = labels[np.minimum(numbers, len(labels) - 1)]
        images = sample_fn(params, jnp.int32(seed), jnp.asarray(numbers), jnp.asarray(chunk_labels))
        chunks.append(np.asarray(images)[: len(labels) - start])
    return np.concatenate(chunks)


def weights_hash(params: Any) -> str:
    """Returns the SHA-256 of all parameters, in the order of their names."""
    digest = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        digest.update(jax.tree_util.keystr(path).encode())
        digest.update(np.ascontiguousarray(leaf).tobytes())
    return digest.hexdigest()


class LensGenerator:
    """A trained network that draws lens images.

    Args:
      config: the run's configuration.
      dataset: the content of its `dataset.json`.
      params: parameters to sample from.
      step: the checkpoint that they come from.
      ema: which they are: the name of an average, or `raw`.
    """

    def __init__(
        self, config: Config, dataset: dict[str, Any], params: Any, step: int, ema: str
    ) -> None:
        self.config = config
        self.params = params
        self.step = step
        self.ema = ema
        self.class_names: tuple[str, ...] = tuple(dataset["class_names"])
        self.image_shape: tuple[int, int, int] = tuple(dataset["image_shape"])
        self.flux_unit: str = dataset["flux_unit"]
        self.pixel_scale_arcsec: float | None = dataset["pixel_scale_arcsec"]
        # Runs of the first version have neither of these two.
        self.psf_fwhm_arcsec: float | None = dataset.get("psf_fwhm_arcsec")
        self.zero_point_mag: float | None = dataset.get("zero_point_mag")
        self.data_name: str = dataset["name"]
        self.data_fingerprint: str = dataset["fingerprint"]
        self._scaling = Scaling(**dataset["scaling"])
        self._jitted = functools.lru_cache(maxsize=16)(self._jit)

    def _jit(self, sample: SampleConfig) -> SampleFn:
        return jax.jit(make_sample_fn(self.config, self._scaling, self.image_shape, sample))

    def labels(self, label: int | str | Sequence[int] | np.ndarray | None, num: int) -> np.ndarray:
        """Returns labels int32 `[num]` for an index, a class name, an array, or None.

        None cycles through the classes; in an unlabelled set every label is the null label.

        Raises:
          GenerateError: for a class that does not exist or an array of another length.
        """
        num_classes = len(self.class_names)
        if label is None:
            labels = np.arange(num) % max(num_classes, 1)
        elif isinstance(label, str):
            if label not in self.class_names:
                known = ", ".join(self.class_names) or "none, the set is unlabelled"
                raise GenerateError(f"label: got {label!r}; allowed: {known}")
            labels = np.full(num, self.class_names.index(label))
        else:
            labels = np.asarray(label)
            if labels.dtype.kind not in "iu":
                raise GenerateError(f"label: got {label!r}; allowed: integers or a class name")
            if labels.ndim == 0:
                labels = np.full(num, labels)
            if labels.shape != (num,):
                raise GenerateError(f"label: got shape {labels.shape}; allowed: ({num},)")
        # The null label, num_classes, draws from the unconditional model.
        if num and not (labels.min() >= 0 and labels.max() <= num_classes):
            raise GenerateError(
                f"label: got {labels.min()} to {labels.max()}; allowed: 0 to {num_classes} "
                f"({', '.join((*self.class_names, 'none'))})"
            )
        return labels.astype(np.int32)

    def settings(
        self, steps: int | None = None, guidance: float | None = None, sampler: str | None = None
    ) -> SampleConfig:
        """Returns the run's `sample` section with what is not None replaced, checked again."""
        wanted = {  # numpy's numbers are as good as Python's
            "steps": steps.item() if isinstance(steps, np.generic) else steps,
            "guidance": guidance.item() if isinstance(guidance, np.generic) else guidance,
            "sampler": sampler,
        }
        changed = {name: value for name, value in wanted.items() if value is not None}
        values = dataclasses.asdict(self.config)
        values["sample"] |= changed
        return from_config_dict(values).sample

    def generate(
        self,
        label: int | str | Sequence[int] | np.ndarray | None = None,
        num: int = 1,
        seed: int = 0,
        steps: int | None = None,
        guidance: float | None = None,
        sampler: str | None = None,
    ) -> np.ndarray:
        """Draws images.

        Image i is a function of (seed, i) and its label. Images are computed in chunks of
        `sample.batch_size`, the last one padded, so that they agree bit for bit whatever `num` is.

        Args:
          label: a class index or name for all images, an array `[num]`, or None for labels that
            cycle through the classes.
          num: number of images.
          seed: in [0, 2**31 - 1].
          steps: intervals of time; None for the run's value.
          guidance: g of `uncond + g (cond - uncond)`; None for the run's value.
          sampler: name of the solver; None for the run's value.

        Returns:
          float32 `[num, H, W, C]` in flux units (`flux_unit`).

        Raises:
          GenerateError: for a label, number or seed that is not allowed.
          lensjax.config.ConfigError: for sampler settings that are not allowed.
        """
        if not (is_integer(num) and num >= 1):
            raise GenerateError(f"num: got {num!r}; allowed: an integer of at least 1")
        if not (is_integer(seed) and 0 <= seed <= prng.MAX_SEED):
            raise GenerateError(f"seed: got {seed!r}; allowed: an integer in 0 to {prng.MAX_SEED}")
        return generate_chunks(
            self._jitted(self.settings(steps, guidance, sampler)),
            self.params,
            self.labels(label, num),
            seed=seed,
            batch_size=self.config.sample.batch_size,
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
        t_min: float = 1e-3,
        space: str = "flux",
    ) -> "LogProb":
        """Returns log densities of images under the model without guidance.

        They are those of data smoothed a little: see `lensjax.likelihood`. Image i does not depend
        on the others; integer images get noise first, which the result's `note` says.

        Args:
          images: flux units (`flux_unit`), integer or float `[N, H, W, C]`.
          label: as for `generate`, but None is the unconditional model: the null label for all.
          seed: in [0, 2**31 - 1]; probes and noise of image i are functions of (seed, i).
          steps: intervals of time, with two network passes in each.
          trace: `hutchinson` estimates the divergence of the velocity by random probes; `exact`
            pushes every pixel through the network in each step, for small images.
          num_probes: probes an image; two or more give a standard error. `exact` has none.
          t_min: in [0, 1); the data are smoothed by noise of `sigma / alpha` at this time, in the
            model's range. 0 smoothes nothing, and takes a network that predicts the velocity.
          space: `flux` for the density per flux unit of each pixel; `model` for that in the range
            in which the network works, where `sqrt` scaling can take pixels of 0.

        Raises:
          GenerateError: for images or settings that are not allowed.
        """
        # Not at the top, since it raises errors of this module.
        from lensjax import likelihood

        images = likelihood.check_images(images, self.image_shape)
        integration = likelihood.Integration(steps, trace, num_probes, t_min)
        likelihood.check_integration(self.config, integration)
        if label is None and self.class_names and not self.config.loss.label_drop:
            raise GenerateError(
                "label: got None; allowed: a class, since with loss.label_drop=0 the unconditional "
                "model was never trained"
            )
        labels = self.labels(len(self.class_names) if label is None else label, len(images))
        return likelihood.log_prob(
            self.config,
            self._scaling,
            self.params,
            images,
            labels,
            integration,
            seed=seed,
            space=space,
        )


def load(
    workdir: str | os.PathLike, step: int | None = None, ema: bool | str = True
) -> LensGenerator:
    """Loads a trained run for sampling; needs neither the data set nor TensorFlow.

    Args:
      workdir: the run's folder.
      step: the checkpoint; None for the newest sound one.
      ema: the parameters to draw with: an average by its name (`main`, or a half-life of
        `optim.ema_more_half_lives_images` as text, such as `2000`), the raw ones (False or `raw`),
        or what `sample.ema` of the run says (True).

    Raises:
      GenerateError: for an average that the run does not keep.
      lensjax.workdir.WorkdirError: where the folder is not that of a run.
      lensjax.checkpoint.CheckpointError: where there is no such, or no sound, checkpoint.
    """
    folder = pathlib.Path(workdir).expanduser()
    return load_with_config(folder, files.load_config(folder), step, ema)


def load_with_config(
    folder: pathlib.Path, config: Config, step: int | None = None, ema: bool | str = True
) -> LensGenerator:
    """Loads a trained run with `sample.*` fields other than those it was trained with.

    Args, Returns and Raises as for `load`; and ConfigError where another field differs.
    """
    files.check_same(folder, config)
    name = _params_name(config, ema)
    dataset = files.read_json(folder / files.DATASET_FILE)
    checkpoints = Checkpoints(folder / files.CHECKPOINTS, read_only=True)
    expected = abstract_state(config, tuple(dataset["image_shape"]))
    state: TrainState | None = checkpoints.restore(expected, step)
    checkpoints.close()
    if state is None:
        raise files.WorkdirError(f"{folder} has no checkpoint yet; train first")
    return LensGenerator(config, dataset, sampling_params(state, name), int(state.step), name)


def _params_name(config: Config, ema: bool | str) -> str:
    """Returns the name of the parameters that the argument `ema` of `load` asks for."""
    if isinstance(ema, bool):
        return config.sample.ema if ema else optim.RAW_PARAMS
    choices = (*config.optim.ema_half_lives, optim.RAW_PARAMS)
    if not (isinstance(ema, str) and ema in choices):
        raise GenerateError(
            f"ema: got {ema!r}; allowed: True, False, {', '.join(map(repr, choices))}"
        )
    return ema


def sample_mode(config: Config, folder: pathlib.Path) -> None:
    """Writes `generated/` in a workdir: images, labels, a picture, and what made them."""
    generator = load_with_config(folder, config)
    sample = config.sample
    logging.info(
        "drawing %d images at step %d (ema %s): %s, %d steps, guidance %g, "
        "%d network passes an image",
        sample.num_images,
        generator.step,
        generator.ema,
        sample.sampler,
        sample.steps,
        sample.guidance,
        passes_per_image(sample),
    )
    labels = generator.labels(None, sample.num_images)
    images = generator.generate(labels, sample.num_images, sample.seed)
    target = folder / files.GENERATED
    target.mkdir(exist_ok=True)
    # Away first and back last: it never stands beside images that it does not describe.
    (target / "meta.json").unlink(missing_ok=True)
    np.save(target / "images.npy", images)
    np.save(target / "labels.npy", labels)
    names = generator.class_names or ("images",)
    rows = [images[index :: len(names)][: sample.grid_columns] for index in range(len(names))]
    save_png(target / "grid.png", lens_grid(rows, names))
    files.write_json(target / "meta.json", describe(generator, sample))
    logging.info("wrote %s", target / "images.npy")


def describe(generator: LensGenerator, sample: SampleConfig) -> dict[str, Any]:
    """Returns all that generated images depend on, as JSON types."""
    return {
        "weights_sha256": weights_hash(generator.params),
        "checkpoint_step": generator.step,
        "ema": generator.ema,
        "ema_half_life_images": generator.config.optim.ema_half_lives.get(generator.ema),
        "sampler": sample.sampler,
        "steps": sample.steps,
        "passes_per_image": passes_per_image(sample),
        "guidance": sample.guidance,
        "seed": sample.seed,
        "batch_size": sample.batch_size,
        "num_images": sample.num_images,
        "class_names": list(generator.class_names),
        "flux_unit": generator.flux_unit,
        "pixel_scale_arcsec": generator.pixel_scale_arcsec,
        "psf_fwhm_arcsec": generator.psf_fwhm_arcsec,
        "zero_point_mag": generator.zero_point_mag,
        "data_name": generator.data_name,
        "data_fingerprint": generator.data_fingerprint,
        "versions": provenance.versions(),
        "git_revision": provenance.git_revision(),
        "hardware": provenance.hardware(),
    }
