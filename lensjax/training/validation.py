"""Denoising losses of both splits: does the network learn the lenses or remember them?

As many test images as training images get the same times and noise. Without memory, the loss is the
same on both splits; a training loss below the test loss is memory.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.sharding import Mesh

from lensjax import prng
from lensjax.config import Config
from lensjax.data.augmentation import central_cut_out
from lensjax.data.dataset import Examples, Split, first_of_each_class
from lensjax.data.pipeline import to_batch
from lensjax.data.scaling import Scaling
from lensjax.devices.chunks import map_chunks
from lensjax.devices.mesh import on_each_device, put, replicated, rows_of_a_turn
from lensjax.diffusion.losses import make_error_fn
from lensjax.run.learning import loss_settings
from lensjax.run.networks import build_network
from lensjax.training.data import TrainingData

NUM_BINS = 10
# The alarm: a gap of this many standard errors that is also this share of the training loss.
ALARM_ERRORS = 3.0
ALARM_SHARE = 0.1
_MAX_BATCH = 64


class Report(NamedTuple):
    """The denoising loss of one set of parameters on both splits.

    Attributes:
      test: loss in each of the `NUM_BINS` bins of t, float64 `[NUM_BINS]`.
      train: the same on training images.
      gap: mean of test minus train.
      gap_error: its standard error over the images.
    """

    test: np.ndarray
    train: np.ndarray
    gap: float
    gap_error: float

    @property
    def alarm(self) -> bool:
        """Whether the gap says that training images are remembered."""
        share = ALARM_SHARE * float(np.mean(self.train))
        return self.gap > max(ALARM_ERRORS * self.gap_error, share)

    def scalars(self) -> Mapping[str, float]:
        """Gives the scalars for the metrics."""
        result = {
            "validation/test_loss": float(np.mean(self.test)),
            "validation/train_loss": float(np.mean(self.train)),
            "validation/gap": self.gap,
            "validation/gap_error": self.gap_error,
        }
        for kind, losses in (("test", self.test), ("train", self.train)):
            for place, loss in enumerate(losses):
                result[f"validation/{kind}_loss_bin_{place}"] = float(loss)
        return result


def _make_losses_fn(config: Config, scaling: Scaling) -> Callable[..., Array]:
    """Makes `((params, bin []), flux [B], labels [B], numbers [B]) -> losses [B]`."""
    network = build_network(config)
    path, settings = network.path, loss_settings(config)
    error_fn = make_error_fn(network.apply_fn, path, settings)

    def draw(key: Array, shape: tuple[int, ...], t_bin: Array) -> tuple[Array, Array]:
        time_key, noise_key = jax.random.split(key)
        unit = (t_bin + jax.random.uniform(time_key, (), jnp.float32)) / NUM_BINS
        return path.time_of_share(unit), jax.random.normal(noise_key, shape, jnp.float32)

    def losses_fn(shared: tuple[Any, Array], flux: Array, label: Array, numbers: Array) -> Array:
        params, t_bin = shared
        batch = to_batch(scaling, flux, label)
        keys = prng.keys(prng.key(config.seed, "validation", t_bin), numbers)
        t, eps = jax.vmap(lambda key: draw(key, flux.shape[1:], t_bin))(keys)
        return error_fn(params, batch, t, eps, label)

    return losses_fn


def _equal_examples(
    train: Split, test: Split, num_images: int, margin: int
) -> tuple[Examples, Examples]:
    """Takes as many images of each class from either split, at most `num_images` in all."""
    num_classes = max(1, test.info.num_classes)
    per_class = max(1, num_images // num_classes)
    of_train, of_test = (first_of_each_class(split, per_class) for split in (train, test))
    counts = [min(map(len, pair)) for pair in zip(of_train, of_test, strict=True)]
    labels = np.repeat(np.arange(num_classes, dtype=np.int32), counts)

    def equal(by_class: list[np.ndarray]) -> Examples:
        images = [images[:count] for images, count in zip(by_class, counts, strict=True)]
        return Examples(central_cut_out(np.concatenate(images), margin), labels)

    return equal(of_train), equal(of_test)


class Validation:
    """Compares the splits again and again with the same images, times and noise.

    Args:
      config: the configuration.
      data: the training images, and the test images as `validation`.
      mesh: the devices.
    """

    def __init__(self, config: Config, data: TrainingData, mesh: Mesh) -> None:
        assert data.validation is not None
        self._train, self._test = _equal_examples(
            data.train, data.validation, config.train.evaluate_images, config.data.shift_pixels
        )
        self._mesh = mesh
        self._losses_fn = on_each_device(_make_losses_fn(config, data.scaling), mesh)
        most = min(config.train.batch_size, _MAX_BATCH)
        self._turn = rows_of_a_turn(mesh, len(self._test.labels), most)

    def __len__(self) -> int:
        """Counts the images of either split."""
        return len(self._test.labels)

    def _losses(self, params: Any, examples: Examples) -> np.ndarray:
        """Measures the losses of each image in each bin, float64 `[N, NUM_BINS]`."""
        numbers = np.arange(len(examples.labels), dtype=np.int32)

        def losses_in_bins(*rows: np.ndarray) -> np.ndarray:
            bins = [self._losses_fn((params, np.int32(t_bin)), *rows) for t_bin in range(NUM_BINS)]
            return np.stack(bins, axis=1)

        losses = map_chunks(losses_in_bins, self._turn, examples.images, examples.labels, numbers)
        return losses.astype(np.float64)

    def run(self, params: Any) -> Report:
        """Measures the losses with the given parameters."""
        params = put(params, replicated(self._mesh))  # gathered once, if they are divided
        train, test = self._losses(params, self._train), self._losses(params, self._test)
        per_image = np.mean(test - train, axis=1)
        error = np.std(per_image, ddof=1) / np.sqrt(len(self)) if len(self) > 1 else np.inf
        return Report(test.mean(axis=0), train.mean(axis=0), float(per_image.mean()), float(error))
