"""TFDS builder of the simulated DeepLense sets; `deeplense.py` prepares and reads them.

`deeplense/model_ii` and its siblings hold noise-free images, `_noisy` adds the instrument's noise
to the same lenses, `_conserved` takes the sub-structure's mass from the main halo, and `_mini` is
the beginning of a set. Example k is image k // 3 of class k % 3.
"""

import dataclasses
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
from lensjax.data.ordered_builder import OrderedBuilder, record_bytes, record_features


@dataclasses.dataclass(kw_only=True)
class DeeplenseConfig(tfds.core.BuilderConfig):
    """One simulated set as TFDS wants it.

    Attributes:
      source: what the set is made of.
    """

    source: SimulatedSet

    def num_images(self, split: str) -> int:
        """Returns the number of images of a split, all classes together."""
        return self.source.images_per_class[split] * len(simulator.CLASS_NAMES)


def simulate_chunks(
    source: SimulatedSet, split: str, starts: range
) -> Iterator[tuple[int, list[Any]]]:
    """Simulates the chunks of a split that begin at the given images of each class.

    Args:
      source: what the set is made of.
      split: `train` or `test`.
      starts: multiples of `CHUNK`, at least one.

    Yields:
      The first image's index within its class and, for each class, float32 images `[CHUNK, H, W]`
      and parameter vectors `[CHUNK, P]`. The last chunk of a split is whole like the others: XLA
      may round otherwise in a program for another number of images.
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
        yield start, [jax.device_get(pair) for pair in ready]


class Deeplense(OrderedBuilder):
    """The simulated sets as TFDS `deeplense/NAME`."""

    VERSION = tfds.core.Version(BUILDER_VERSION)
    BUILDER_CONFIGS: ClassVar = [
        DeeplenseConfig(name=source.name, source=source) for source in SIMULATED_SETS.values()
    ]
    builder_config: DeeplenseConfig

    def num_images(self, split: str) -> int:
        """Returns the number of images of a split, all classes together."""
        return self.builder_config.num_images(split)

    def chunk_starts(self, split: str) -> range:
        """Returns the first image of each chunk of a split, counted within a class."""
        return range(0, self.builder_config.source.images_per_class[split], CHUNK)

    def bytes_per_image(self) -> int:
        """Returns the size of one record before compression."""
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
        """Yields examples in order: classes take turns, so that any beginning is balanced."""
        source = self.builder_config.source
        count = source.images_per_class[split]
        lowest, highest = np.inf, -np.inf
        for start, chunk in simulate_chunks(source, split, self.chunk_starts(split)):
            taken = min(CHUNK, count - start)
            lowest = min(lowest, *(float(images[:taken].min()) for images, _ in chunk))
            highest = max(highest, *(float(images[:taken].max()) for images, _ in chunk))
            for index in range(taken):
                for label, (images, vectors) in enumerate(chunk):
                    yield (
                        len(chunk) * (start + index) + label,
                        {
                            "image": images[index, ..., None],
                            "label": label,
                            "parameters": vectors[index],
                        },
                    )
        if split == "train":
            self.info.metadata.update(minimum=lowest, maximum=highest)


def bytes_per_image(config: DeeplenseConfig) -> int:
    """Returns the size of one record before compression."""
    return record_bytes(config.source.survey.num_pixels**2, len(parameters.PARAMETER_NAMES))
