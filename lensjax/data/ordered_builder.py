"""A TFDS builder that writes its examples in the order in which they come.

TFDS itself puts the records of a split of more than 1 GB into buckets on disk to sort them, for
which it imports TensorFlow; this builder never does.
"""

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import tensorflow_datasets as tfds
from array_record.python import array_record_module
from tensorflow_datasets.core import dataset_metadata

from lensjax.devices.progress import progress_bar

if TYPE_CHECKING:
    import tqdm

_SHARD_BYTES = 512 << 20
_RECORD_OVERHEAD_BYTES = 200


def record_bytes(num_pixels: int, num_parameters: int) -> int:
    """The size of one record before compression."""
    return 4 * (num_pixels + num_parameters) + _RECORD_OVERHEAD_BYTES


def record_features(
    image_shape: tuple[int, int, int],
    class_names: tuple[str, ...],
    num_parameters: int,
    *,
    variance: bool = False,
    mask: bool = False,
) -> tfds.features.FeaturesDict:
    """TFDS's description of a record, which `records.decode_record` reads.

    Args:
      image_shape: `(H, W, C)`.
      class_names: of the labels; empty for an unlabelled set.
      num_parameters: numbers that belong to each image.
      variance: whether a record holds the variance of each pixel.
      mask: whether it holds a mask, 1 where a pixel is not to be used.
    """
    as_bytes = tfds.features.Encoding.BYTES
    label: tfds.features.FeatureConnector = tfds.features.Scalar(np.int64)
    if class_names:
        label = tfds.features.ClassLabel(names=class_names)

    def numbers(shape: tuple[int, ...], dtype: type) -> tfds.features.Tensor:
        return tfds.features.Tensor(shape=shape, dtype=dtype, encoding=as_bytes)

    features: dict[str, tfds.features.FeatureConnector] = {
        "image": numbers(image_shape, np.float32),
        "label": label,
        "parameters": numbers((num_parameters,), np.float32),
    }
    if variance:
        features["variance"] = numbers(image_shape, np.float32)
    if mask:
        features["mask"] = numbers(image_shape, np.uint8)
    return tfds.features.FeaturesDict(features)


class OrderedBuilder(
    tfds.core.GeneratorBasedBuilder,
    skip_registration=True,  # type: ignore[call-arg]
):
    """Writes the splits of a set in order, with a progress bar over all of them."""

    @classmethod
    def get_metadata(cls) -> Any:
        """The description; TFDS would look for it in files beside the module."""
        return dataset_metadata.DatasetMetadata(description=cls.__doc__ or "", citation="", tags=[])

    def num_images(self, split: str) -> int:
        """The number of images of a split."""
        raise NotImplementedError

    def bytes_per_image(self) -> int:
        """The size of one record before compression."""
        raise NotImplementedError

    def _log_download_bytes(self) -> None:
        """Says nothing: TFDS would print that it downloads."""

    def _log_download_done(self) -> None:
        """Says nothing, see above."""

    def _generate_splits(self, dl_manager: Any, download_config: Any) -> list[tfds.core.SplitInfo]:
        """Writes the splits in order instead of sorting them."""
        generators = self._split_generators(dl_manager)
        total = sum(self.num_images(split) for split in generators)
        with progress_bar(total, f"Building {self.name}/{self.builder_config.name}") as bar:
            return [
                self._write_split(split, examples, download_config.num_shards, bar)
                for split, examples in generators.items()
            ]

    def _write_split(
        self, split: str, examples: Iterator[Any], num_shards: int | None, bar: "tqdm.tqdm"
    ) -> tfds.core.SplitInfo:
        count = self.num_images(split)
        size = count * self.bytes_per_image()
        num_shards = min(num_shards or -(-size // _SHARD_BYTES), count)
        ends = [round(count * (shard + 1) / num_shards) for shard in range(num_shards)]
        template = self._get_filename_template(split_name=split)
        num_bytes = start = 0
        for shard, end in enumerate(ends):
            path = template.sharded_filepath(shard_index=shard, num_shards=num_shards)
            # TFDS writes one record a group too; it makes access by index fast.
            writer = array_record_module.ArrayRecordWriter(os.fspath(path), "group_size:1")
            for _ in range(start, end):
                record = self.info.features.serialize_example(next(examples)[1])
                writer.write(record)
                num_bytes += len(record)
                bar.update()
            writer.close()
            start = end
        next(examples, None)  # runs the generator's last lines
        return tfds.core.SplitInfo(
            name=split,
            shard_lengths=np.diff([0, *ends]).tolist(),
            num_bytes=num_bytes,
            filename_template=template,
        )
