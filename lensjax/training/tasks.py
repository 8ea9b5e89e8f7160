"""The task of a run, chosen once: to generate lenses, to classify them, or to pre-train.

The loop is the same for every task; the differences are methods of the run's `Task`.
"""

import dataclasses
import pathlib

import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.sharding import Mesh

from lensjax.config import Config
from lensjax.config.classify import BALANCED, UNWEIGHTED, class_weights
from lensjax.config.model import CLASSIFY, GENERATE, PRETRAIN
from lensjax.data.dataset import DatasetInfo, Split
from lensjax.data.scaling import Scaling
from lensjax.data.subset import divide
from lensjax.diffusion.losses import make_loss_fn
from lensjax.errors import DataError
from lensjax.interfaces import LossFn
from lensjax.run.learning import loss_settings
from lensjax.run.networks import build_network, make_image_fn
from lensjax.run.selection import Selection
from lensjax.run.state import TrainState
from lensjax.run.task_losses import make_classifier_loss_fn, make_masked_loss_fn
from lensjax.training.class_watch import ClassifierWatch, PretrainingWatch
from lensjax.training.data import TrainingData, scaling_of_images
from lensjax.training.generator_watch import GeneratorWatch
from lensjax.training.monitor import Watch
from lensjax.training.transfer import check_start, scaling_of, with_encoder


@dataclasses.dataclass(frozen=True)
class Task:
    """The parts of training that depend on its purpose; see the subclasses.

    Attributes:
      config: the configuration.
    """

    config: Config

    def check(self, info: DatasetInfo) -> None:
        """Checks that the data fits the task; raises `DataError` if it does not."""

    def divide(self, split: Split, test: Split | None) -> tuple[Split, Split | None]:
        """Chooses the images to train and to validate on, by default two parts of `split`."""
        del test
        settings = self.config.classify
        return divide(split, self.config.seed, settings.validation_share, settings.label_share)

    def check_start(self, image_shape: tuple[int, int, int], band_names: tuple[str, ...]) -> None:
        """Checks the other run whose weights this run begins with, if there is one."""

    def first_scaling(self, train: Split) -> Scaling:
        """Makes the scaling that a new run begins with."""
        return scaling_of_images(train, self.config.data)

    def first_state(self, state: TrainState) -> TrainState:
        """Completes a newly made state before its first step."""
        return state

    def loss_fn(self, train: Split) -> LossFn:
        """Builds the loss, `(params, batch, keys [B], places) -> float32 []`."""
        raise NotImplementedError

    def watch(self, data: TrainingData, mesh: Mesh) -> Watch:
        """Makes the object that validates and draws; on several hosts all call it."""
        raise NotImplementedError

    def selection(
        self, workdir: pathlib.Path, state: TrainState, run_id: str | None
    ) -> Selection | None:
        """Opens the selection of the best state; None if the newest state is wanted."""
        del workdir, state, run_id
        return None


class Generate(Task):
    """A denoiser that generates images, validated on the test split."""

    def divide(self, split: Split, test: Split | None) -> tuple[Split, Split | None]:
        """Trains on all of the training split."""
        return split, test

    def loss_fn(self, train: Split) -> LossFn:
        """Builds the weighted error of the network's prediction."""
        del train
        network = build_network(self.config)
        return make_loss_fn(network.apply_fn, network.path, loss_settings(self.config))

    def watch(self, data: TrainingData, mesh: Mesh) -> Watch:
        """Draws images beside real ones, and compares the losses of both splits."""
        return GeneratorWatch(self.config, data, mesh)


class Classify(Task):
    """A classifier; its best state has the lowest loss on a part of the training split."""

    def check(self, info: DatasetInfo) -> None:
        """Checks that there are classes to tell apart."""
        if info.num_classes < 2:
            raise DataError(
                f"{info.name} has {info.num_classes or 'no'} class"
                f"{f' ({info.class_names[0]})' if info.num_classes else ' (it is unlabelled)'}; a "
                "classifier needs at least two: one folder for each class"
            )

    def loss_fn(self, train: Split) -> LossFn:
        """Builds the cross-entropy, weighted by class."""
        return make_classifier_loss_fn(
            make_image_fn(self.config),
            self.config.classify.label_smoothing,
            self._class_weights(train),
            self.config.classify.train_encoder,
        )

    def _class_weights(self, train: Split) -> Array:
        num_classes, text = self.config.model.num_classes, self.config.classify.class_weights
        if text == UNWEIGHTED:
            return jnp.ones(num_classes)
        if text != BALANCED:
            return jnp.asarray(class_weights(text), jnp.float32)
        counts = jnp.asarray(np.bincount(train.all_labels(), minlength=num_classes), jnp.float32)
        return jnp.mean(counts) / counts

    def watch(self, data: TrainingData, mesh: Mesh) -> Watch:
        """Validates loss, accuracy and calibration."""
        return ClassifierWatch(self.config, data, mesh)

    def selection(self, workdir: pathlib.Path, state: TrainState, run_id: str | None) -> Selection:
        """Opens the selection of the state with the lowest validation loss."""
        return Selection(workdir, state, self.config.classify.patience, run_id)


class ClassifyWithEncoder(Classify):
    """A classifier that begins with the encoder of another run, `classify.start_from`."""

    def check_start(self, image_shape: tuple[int, int, int], band_names: tuple[str, ...]) -> None:
        """Checks that the other run has this encoder and was trained on such images."""
        check_start(self.config, image_shape, band_names)

    def first_scaling(self, train: Split) -> Scaling:
        """Takes the scaling that the encoder was trained with."""
        del train
        return scaling_of(self.config)

    def first_state(self, state: TrainState) -> TrainState:
        """Puts the encoder into parameters and averages."""
        return with_encoder(state, self.config)


class Pretrain(Task):
    """A masked autoencoder, which trains an encoder without labels."""

    def loss_fn(self, train: Split) -> LossFn:
        """Builds the error of the masked patches."""
        del train
        model = self.config.model
        return make_masked_loss_fn(
            make_image_fn(self.config), model.patch_size, model.normalise_patches
        )

    def watch(self, data: TrainingData, mesh: Mesh) -> Watch:
        """Validates the error, and draws the reconstruction of masked patches."""
        return PretrainingWatch(self.config, data, mesh)


_TASKS = {GENERATE: Generate, CLASSIFY: Classify, PRETRAIN: Pretrain}


def task_of(config: Config) -> Task:
    """Chooses the task of a configuration."""
    if config.classify.start_from is not None:
        return ClassifyWithEncoder(config)
    return _TASKS[config.task](config)
