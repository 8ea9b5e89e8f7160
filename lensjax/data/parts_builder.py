"""TFDS builders of a part of a simulated set, and of the set that its parts make together.

A part holds whole chunks of the simulator, so that its pixels are those of a single build bit for
bit: XLA may round otherwise in a program for another number of images.
"""

import dataclasses
import os
import shutil
import zlib
from collections.abc import Sequence
from typing import Any, ClassVar

import tensorflow_datasets as tfds

from lensjax.data import simulator
from lensjax.data.catalogue import BUILDER_VERSION, CHUNK, SPLIT_INDEX
from lensjax.data.deeplense import Deeplense, DeeplenseConfig
from lensjax.errors import DataError

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
                f"{CHUNK} a class at a time"
            )

    def num_images(self, split: str) -> int:
        """Returns the number of images of a split in this part, all classes together."""
        count = self.source.images_per_class[split]
        starts = chunk_starts(self, split)
        return len(simulator.CLASS_NAMES) * sum(min(CHUNK, count - start) for start in starts)


def num_chunks(config: DeeplenseConfig, split: str) -> int:
    """Returns how many chunks a split of the whole set has."""
    return -(-config.source.images_per_class[split] // CHUNK)


def chunk_starts(config: PartConfig, split: str) -> range:
    """Returns the first image of each chunk of a part; empty where other parts have them all."""
    chunks = num_chunks(config, split)
    first, stop = (chunks * part // config.num_parts for part in (config.part, config.part + 1))
    return range(first * CHUNK, stop * CHUNK, CHUNK)


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
    VERSION = tfds.core.Version(BUILDER_VERSION)
    BUILDER_CONFIGS: ClassVar = []
    builder_config: PartConfig

    def title(self) -> str:
        """Returns the name of the set and the number of the part."""
        config = self.builder_config
        return f"deeplense/{config.source.name}, part {config.part} of {config.num_parts}"

    def chunk_starts(self, split: str) -> range:
        """Returns the first image of each chunk of this part, counted within a class."""
        return chunk_starts(self.builder_config, split)

    def _generate_splits(self, dl_manager: Any, download_config: Any) -> list[tfds.core.SplitInfo]:
        """Writes the splits, and what shows later whether a file was damaged."""
        splits = super()._generate_splits(dl_manager, download_config)
        paths = [path for split in splits for path in split.filepaths]
        self.info.metadata["checksums"] = {path.name: checksum(path) for path in paths}
        return splits

    def _split_generators(self, dl_manager: Any) -> dict[str, Any]:
        del dl_manager
        return {
            split: self._generate_examples(split) for split in SPLIT_INDEX if self.num_images(split)
        }


class JoinedDeeplense(Deeplense, skip_registration=True):  # type: ignore[call-arg]
    """The whole set as TFDS `deeplense/NAME`, whose files are those of its parts.

    Args:
      parts: the readers of all parts in order.
      arguments: as for any TFDS builder.
    """

    name = Deeplense.name
    VERSION = tfds.core.Version(BUILDER_VERSION)
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
