"""The simulated DeepLense sets: their TFDS builder, and how they are prepared and read.

`deeplense/model_ii` and its siblings hold noise-free images, `_noisy` adds the instrument's noise
to the same lenses, `_conserved` takes the sub-structure's mass from the main halo, and `_mini` is
the beginning of a set. Example k is image k // 3 of class k % 3.
"""

import dataclasses
import os
from collections.abc import Iterator
from typing import Any, ClassVar

import jax
import numpy as np
import tensorflow_datasets as tfds
from jax import Array

from lensjax import prng
from lensjax.data import parameters, simulator
from lensjax.data.catalogue import (
    BUILDER_VERSION,
    CHUNK,
    SIMULATED_SETS,
    SPLIT_INDEX,
    SimulatedSet,
)
from lensjax.data.dataset import LensSplit
from lensjax.data.ordered_builder import OrderedBuilder, record_bytes, record_features
from lensjax.data.prepared import PreparedSet, root_of
from lensjax.data.records import RecordSplit
from lensjax.errors import DataError


@dataclasses.dataclass(kw_only=True)
class DeeplenseConfig(tfds.core.BuilderConfig):
    """The TFDS configuration of one simulated set.

    Attributes:
      source: the settings of the set.
    """

    source: SimulatedSet

    def num_images(self, split: str) -> int:
        """The number of images of a split, all classes together."""
        return self.source.images_per_class[split] * len(simulator.CLASS_NAMES)


def chunk_starts(source: SimulatedSet, split: str) -> range:
    """The first image of each chunk of a split, counted within a class."""
    return range(0, source.images_per_class[split], CHUNK)


def simulate_chunks(
    source: SimulatedSet, split: str, starts: range
) -> Iterator[tuple[int, list[Any]]]:
    """Simulates the chunks of a split that begin at the given images of each class.

    Args:
      source: the settings of the set.
      split: `train` or `test`.
      starts: multiples of `CHUNK`, at least one.

    Yields:
      The first image's index within its class and, for each class, float32 images `[N, H, W]` and
      parameter vectors `[N, P]`, N being `CHUNK` or the rest of the split. The last chunk is
      simulated whole like the others: XLA may round differently in a program for another number of
      images.
    """
    survey = source.survey
    # The stream is the model's alone: noisy and conserved sets show the same lenses.
    bases = [
        prng.key(0, f"deeplense/{survey.name}", SPLIT_INDEX[split], label)
        for label in range(len(simulator.CLASS_NAMES))
    ]

    def dispatch(start: int) -> list[tuple[Array, Array]]:
        return [
            parameters.simulate_chunk(base, start, source, class_name)
            for base, class_name in zip(bases, simulator.CLASS_NAMES, strict=True)
        ]

    pending = dispatch(starts[0])
    for start in starts:
        ready = pending
        if start != starts[-1]:
            pending = dispatch(start + CHUNK)  # computed while this chunk is being written
        count = min(CHUNK, source.images_per_class[split] - start)
        chunk = jax.device_get(ready)
        yield start, [(images[:count], vectors[:count]) for images, vectors in chunk]


def examples_of(start: int, chunk: list[Any]) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yields the examples of a chunk by their index within the split.

    Classes take turns, so that any beginning of a split is balanced.

    Args:
      start: the first image's index within its class.
      chunk: images and parameter vectors of each class, see `simulate_chunks`.
    """
    for index in range(len(chunk[0][0])):
        for label, (images, vectors) in enumerate(chunk):
            yield (
                len(chunk) * (start + index) + label,
                {"image": images[index, ..., None], "label": label, "parameters": vectors[index]},
            )


class Deeplense(OrderedBuilder):
    """The simulated sets as TFDS `deeplense/NAME`."""

    VERSION = tfds.core.Version(BUILDER_VERSION)
    BUILDER_CONFIGS: ClassVar = [
        DeeplenseConfig(name=source.name, source=source) for source in SIMULATED_SETS.values()
    ]
    builder_config: DeeplenseConfig

    def num_images(self, split: str) -> int:
        """The number of images of a split, all classes together."""
        return self.builder_config.num_images(split)

    def bytes_per_image(self) -> int:
        """The size of one record before compression."""
        return bytes_per_image(self.builder_config)

    def _info(self) -> tfds.core.DatasetInfo:
        survey = self.builder_config.source.survey
        side = survey.num_pixels
        counts = survey.exposure_time_s is None and self.builder_config.source.noisy
        return tfds.core.DatasetInfo(
            builder=self,
            description=__doc__,
            features=record_features(
                (side, side, 1), simulator.CLASS_NAMES, len(parameters.PARAMETER_NAMES)
            ),
            metadata=tfds.core.MetadataDict(
                fingerprint=self.builder_config.source.fingerprint,
                class_names=list(simulator.CLASS_NAMES),
                parameter_names=list(parameters.PARAMETER_NAMES),
                pixel_scale_arcsec=survey.pixel_scale_arcsec,
                psf_fwhm_arcsec=survey.psf_fwhm_arcsec,
                flux_unit="counts" if counts else survey.flux_unit,
                published_scale=survey.published_scale,
                zero_point_mag=survey.zero_point,
            ),
            disable_shuffling=True,
        )

    def _split_generators(self, dl_manager: Any) -> dict[str, Any]:
        del dl_manager
        return {split: self._generate_examples(split) for split in SPLIT_INDEX}

    def _generate_examples(self, split: str) -> Iterator[tuple[int, dict[str, Any]]]:
        """Yields examples in order."""
        source = self.builder_config.source
        lowest, highest = np.inf, -np.inf
        for start, chunk in simulate_chunks(source, split, chunk_starts(source, split)):
            lowest = min(lowest, *(float(images.min()) for images, _ in chunk))
            highest = max(highest, *(float(images.max()) for images, _ in chunk))
            yield from examples_of(start, chunk)
        if split == "train":
            self.info.metadata.update(minimum=lowest, maximum=highest)


def bytes_per_image(config: DeeplenseConfig) -> int:
    """The size of one record before compression."""
    return record_bytes(config.source.survey.num_pixels**2, len(parameters.PARAMETER_NAMES))


def available_sets() -> tuple[str, ...]:
    """The full names of all simulated sets, such as `deeplense/model_ii_mini`."""
    return tuple(SIMULATED_SETS)


def config_of(name: str) -> DeeplenseConfig:
    """The TFDS configuration of a set.

    Raises:
      DataError: for an unknown name.
    """
    configs = dict(zip(available_sets(), Deeplense.BUILDER_CONFIGS, strict=True))
    if name in configs:
        return configs[name]
    raise DataError(
        f"data set {name!r} does not exist; choose one of {', '.join(available_sets())}"
    )


def locate(name: str, directory: str | None = None) -> PreparedSet:
    """The set, built or not.

    Args:
      name: one of `available_sets()`.
      directory: where data sets live; None for `$TFDS_DATA_DIR`, else `~/tensorflow_datasets`.

    Raises:
      DataError: for an unknown name.
    """
    source = config_of(name).source
    folder = root_of(directory) / Deeplense.name / source.name / BUILDER_VERSION
    command = f"--mode=build_data --config.data.name={name}"
    return PreparedSet(name, folder, source.fingerprint, command)


def prepare(
    name: str, directory: str | None = None, *, num_shards: int | None = None
) -> PreparedSet:
    """Builds a simulated set unless it is there already; see `PreparedSet.build_once`.

    Args:
      name: one of `available_sets()`.
      directory: see `locate`.
      num_shards: files per split; None for files of about half a GB. The content does not depend
        on it.

    Raises:
      DataError: for an unknown name, a full disk, a folder that cannot be written, or a
        finished set that is stale or damaged.
    """
    return prepare_with(
        Deeplense, name, directory, tfds.download.DownloadConfig(num_shards=num_shards)
    )


def prepare_with(
    builder_class: type[Deeplense],
    name: str,
    directory: str | None,
    download_config: tfds.download.DownloadConfig,
) -> PreparedSet:
    """Builds a simulated set as `prepare` does, with a TFDS builder of choice.

    Args:
      builder_class: writes the set.
      name: one of `available_sets()`.
      directory: see `locate`.
      download_config: TFDS's options for the build.

    Raises:
      DataError: see `prepare`.
    """
    wanted, config = locate(name, directory), config_of(name)

    def build() -> None:
        builder_class(
            data_dir=os.fspath(root_of(directory)), config=config.name, file_format="array_record"
        ).download_and_prepare(download_config=download_config)

    images = sum(config.num_images(split) for split in SPLIT_INDEX)
    advice = "set data.directory or TFDS_DATA_DIR to a larger disk, or choose the _mini set"
    wanted.build_once(images * bytes_per_image(config), advice, build)
    return wanted


def open_split(name: str, directory: str | None, split: str) -> RecordSplit:
    """Opens one split of a finished set without reading its images.

    Args:
      name: one of `available_sets()`.
      directory: see `locate`.
      split: `train` or `test`.

    Raises:
      DataError: for an unknown name or split, or a set that is missing, stale or damaged.
    """
    return locate(name, directory).open_split(split)


def read(name: str, directory: str | None, split: str) -> LensSplit:
    """Reads one split into memory; arguments and errors as for `open_split`."""
    return open_split(name, directory, split).in_memory()
