"""TFDS builders of a part of a simulated set, and of the set that its parts make together.

A part holds whole chunks of the simulator, so that its pixels are those of a single build bit for
bit: XLA may round otherwise in a program for another number of images.
"""

import dataclasses
import functools
import hashlib
import os
import shutil
import zlib
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

import jax
import numpy as np
import tensorflow_datasets as tfds

from lensjax import prng
from lensjax.data import simulator
from lensjax.data.dataset import DataError
from lensjax.data.deeplense_builder import (
    _CHUNK,
    SPLIT_INDEX,
    VERSION,
    Deeplense,
    DeeplenseConfig,
    _code_of,
    _simulate_chunk,
    fingerprint,
)

_READ_BYTES = 1 << 20


@dataclasses.dataclass(kw_only=True)
class PartConfig(DeeplenseConfig):
    """A part of a set as TFDS wants it.

    Attributes:
      part: which, from 0.
      num_parts: how many the set has.

    Raises:
      DataError: for more parts than the training images have chunks.
    """

    part: int
    num_parts: int

    def __post_init__(self) -> None:
        most = num_chunks(self, "train")
        if self.num_parts > most:
            raise DataError(
                f"data.num_parts: got {self.num_parts}; allowed: at most {most} for "
                f"deeplense/{self.source.name}, whose training images are simulated "
                f"{_CHUNK} a class at a time"
            )

    def num_images(self, split: str) -> int:
        """Returns the number of images of a split in this part, all classes together."""
        count = self.source.images_per_class[split]
        starts = chunk_starts(self, split)
        return len(simulator.CLASS_NAMES) * sum(min(_CHUNK, count - start) for start in starts)


def num_chunks(config: DeeplenseConfig, split: str) -> int:
    """Returns how many chunks a split of the whole set has."""
    return -(-config.source.images_per_class[split] // _CHUNK)


def chunk_starts(config: PartConfig, split: str) -> range:
    """Returns the first image of each chunk of a part; empty where other parts have them all."""
    chunks = num_chunks(config, split)
    first, stop = (chunks * part // config.num_parts for part in (config.part, config.part + 1))
    return range(first * _CHUNK, stop * _CHUNK, _CHUNK)


def _chunks_at(config: PartConfig, split: str) -> Iterator[tuple[int, list[Any]]]:
    """Yields the first image's index and, for each class, images and parameter vectors.

    This repeats `deeplense_builder._chunks`, which cannot begin elsewhere than at 0: a set's
    fingerprint hashes its source, so that any change would make the sets on all disks stale.
    """
    source = config.source
    bases = [
        prng.key(0, f"deeplense/{source.survey.name}", SPLIT_INDEX[split], label)
        for label in range(len(simulator.CLASS_NAMES))
    ]

    def dispatch(start: int) -> list[Any]:
        return [
            _simulate_chunk(base, start, source.survey, name, source.noisy, source.conserved)
            for base, name in zip(bases, simulator.CLASS_NAMES, strict=True)
        ]

    starts = chunk_starts(config, split)
    pending = dispatch(starts[0])
    for start in starts:
        ready = pending
        if start != starts[-1]:
            pending = dispatch(start + _CHUNK)  # computed while this chunk is being written
        yield start, [jax.device_get(pair) for pair in ready]


def checksum(path: os.PathLike[str]) -> int:
    """Returns the CRC-32 of a file."""
    value = 0
    with open(path, "rb") as file:
        while block := file.read(_READ_BYTES):
            value = zlib.crc32(block, value)
    return value


class DeeplensePart(Deeplense, skip_registration=True):  # type: ignore[call-arg]
    """One part as TFDS `parts/PART-of-NUM_PARTS`; a split without an image is left out."""

    name = "parts"
    VERSION = tfds.core.Version(VERSION)
    BUILDER_CONFIGS: ClassVar = []
    builder_config: PartConfig

    def title(self) -> str:
        """Returns the name of the set and the number of the part."""
        config = self.builder_config
        return f"deeplense/{config.source.name}, part {config.part} of {config.num_parts}"

    def _info(self) -> tfds.core.DatasetInfo:
        info = super()._info()
        info.metadata["fingerprint"] = part_fingerprint()
        return info

    def _generate_splits(self, dl_manager: Any, download_config: Any) -> list[tfds.core.SplitInfo]:
        """Writes the splits, and what shows later whether a file was damaged."""
        splits = super()._generate_splits(dl_manager, download_config)
        paths = [path for split in splits for path in split.filepaths]
        self.info.metadata["checksums"] = {path.name: checksum(path) for path in paths}
        return splits

    def _split_generators(self, dl_manager: Any) -> dict[str, Any]:
        del dl_manager
        return {
            split: self._generate_part(split) for split in SPLIT_INDEX if self.num_images(split)
        }

    def _generate_part(self, split: str) -> Iterator[tuple[int, dict[str, Any]]]:
        """Yields the examples of the part as `_generate_examples` does those of the set."""
        count = self.builder_config.source.images_per_class[split]
        lowest, highest = np.inf, -np.inf
        for start, chunk in _chunks_at(self.builder_config, split):
            taken = min(_CHUNK, count - start)
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


class JoinedDeeplense(Deeplense, skip_registration=True):  # type: ignore[call-arg]
    """The whole set as TFDS `deeplense/NAME`, whose files are those of its parts.

    Args:
      parts: the readers of all parts in order.
      arguments: as for any TFDS builder.
    """

    name = Deeplense.name
    VERSION = tfds.core.Version(VERSION)
    BUILDER_CONFIGS = Deeplense.BUILDER_CONFIGS

    def __init__(self, parts: Sequence[tfds.core.DatasetBuilder], **arguments: Any) -> None:
        super().__init__(**arguments)
        self._parts = parts

    def _generate_splits(self, dl_manager: Any, download_config: Any) -> list[tfds.core.SplitInfo]:
        """Takes over the files of the parts instead of writing any."""
        of_parts = [part.info.metadata for part in self._parts]
        self.info.metadata.update(
            minimum=min(found["minimum"] for found in of_parts),
            maximum=max(found["maximum"] for found in of_parts),
        )
        return [self._take_split(split) for split in SPLIT_INDEX]

    def _take_split(self, split: str) -> tfds.core.SplitInfo:
        all_splits = [part.info.splits for part in self._parts]
        found = [splits[split] for splits in all_splits if split in splits]
        paths = [path for one in found for path in one.filepaths]
        template = self._get_filename_template(split_name=split)
        for shard, path in enumerate(paths):
            _link(path, template.sharded_filepath(shard_index=shard, num_shards=len(paths)))
        return tfds.core.SplitInfo(
            name=split,
            shard_lengths=[length for one in found for length in one.shard_lengths],
            num_bytes=sum(one.num_bytes for one in found),
            filename_template=template,
        )


def _link(source: os.PathLike[str], target: os.PathLike[str]) -> None:
    """Gives a file a second name, so that a join that is killed leaves its part as it was."""
    try:
        os.link(source, target)
    except OSError:  # a file system without links; where the file is missing, the copy says so
        shutil.copyfile(source, target)


@functools.cache
def _code_of_the_loop() -> str:
    return "".join(
        _code_of(part)
        for part in (num_chunks, chunk_starts, _chunks_at, DeeplensePart._generate_part)
    )


def part_fingerprint() -> str:
    """Returns what identifies the code and constants that decide what each part holds.

    Beside those of the set this is the loop over the chunks, so that parts by different rules are
    never joined.
    """
    return hashlib.sha256((fingerprint() + _code_of_the_loop()).encode()).hexdigest()[:16]
