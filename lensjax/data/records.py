"""Reads finished sets from their array_record files, at any place and without TensorFlow."""

import contextlib
import os
import pathlib
from collections.abc import Iterator, Sequence

import numpy as np
from array_record.python import array_record_data_source
from tensorflow_datasets.proto import tf_example_pb2

from lensjax.data.dataset import DatasetInfo, Examples, LensSplit
from lensjax.errors import DataError

_READ_BATCH = 1024


def decode_record(record: bytes) -> tuple[np.ndarray, int, np.ndarray]:
    """Decodes one record, several times faster than TFDS.

    Args:
      record: a serialised example.

    Returns:
      The image, float32 `[H * W * C]`; the label; the parameters, float32 `[P]`.
    """
    feature = tf_example_pb2.Example.FromString(record).features.feature
    image = np.frombuffer(feature["image"].bytes_list.value[0], np.float32)
    vector = np.frombuffer(feature["parameters"].bytes_list.value[0], np.float32)
    return image, feature["label"].int64_list.value[0], vector


class RecordSplit:
    """One split on disk, in the order in which it was written; threads may share it.

    Args:
      info: the description of the whole set.
      split: the split's name.
      paths: its files, in order.
      remedy: what to do about a damaged set, for messages.

    Raises:
      DataError: for files that are damaged or hold another number of images.
    """

    def __init__(
        self, info: DatasetInfo, split: str, paths: Sequence[os.PathLike[str]], remedy: str
    ) -> None:
        self._info = info
        self._folder = pathlib.Path(paths[0]).parent
        self._remedy = remedy
        with self._naming_damage():
            self._source = array_record_data_source.ArrayRecordDataSource(
                [os.fspath(path) for path in paths]
            )
        expected = info.split_sizes[split]
        if len(self) != expected:
            raise DataError(
                f"data set {info.name} in {self._folder} has {len(self)} images in {split}, not "
                f"{expected}; {remedy}"
            )

    @contextlib.contextmanager
    def _naming_damage(self) -> Iterator[None]:
        """Names the damaged set where array_record meets a file that was cut or changed."""
        try:
            yield
        except (IndexError, RuntimeError, ValueError) as error:
            reason = str(error).partition("\n")[0][:200]
            raise DataError(
                f"data set {self._info.name} in {self._folder} is damaged ({reason}); "
                f"{self._remedy}"
            ) from error

    @property
    def info(self) -> DatasetInfo:
        """The description of the whole set."""
        return self._info

    def __len__(self) -> int:
        """The number of images."""
        return len(self._source)

    def _read(
        self, indices: np.ndarray, images: np.ndarray, labels: np.ndarray, vectors: np.ndarray
    ) -> None:
        """Reads examples into arrays whose first axis is that of the indices."""
        flat = images.reshape(len(indices), -1)
        with self._naming_damage():
            for place, record in enumerate(self._source.__getitems__(indices.tolist())):
                flat[place], labels[place], vectors[place] = decode_record(record)

    def _empty(self, count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        return (
            np.empty((count, *self._info.image_shape), np.float32),
            np.empty((count,), np.int32),
            np.empty((count, len(self._info.parameter_names)), np.float32),
        )

    def examples(self, indices: np.ndarray) -> Examples:
        """The examples at the given places, integers `[B]`.

        Raises:
          DataError: if a file is damaged.
        """
        images, labels, vectors = self._empty(len(indices))
        self._read(indices, images, labels, vectors)
        return Examples(images, labels)

    def parameter_columns(self, names: Sequence[str]) -> np.ndarray:
        """Reads some parameters of every image, without keeping the images.

        Args:
          names: some of `info.parameter_names`.

        Returns:
          float32 `[N, len(names)]`, in that order.

        Raises:
          DataError: if a file is damaged.
        """
        columns = [self._info.parameter_names.index(name) for name in names]
        parameters = np.empty((len(self), len(columns)), np.float32)
        for indices, (_, _, vectors) in self._all_examples():
            parameters[indices] = vectors[:, columns]
        return parameters

    def all_labels(self) -> np.ndarray:
        """Reads the label of every image, int32 `[N]`, without keeping the images.

        Raises:
          DataError: if a file is damaged.
        """
        return np.concatenate([labels for _, (_, labels, _) in self._all_examples()])

    def _all_examples(self) -> Iterator[tuple[np.ndarray, tuple[np.ndarray, ...]]]:
        """Yields places, and images, labels and parameters there, a few at a time."""
        for start in range(0, len(self), _READ_BATCH):
            indices = np.arange(start, min(start + _READ_BATCH, len(self)))
            arrays = self._empty(len(indices))
            self._read(indices, *arrays)
            yield indices, arrays

    def in_memory(self) -> LensSplit:
        """Reads the whole split.

        Raises:
          DataError: if a file is damaged.
        """
        arrays = self._empty(len(self))
        for start in range(0, len(self), _READ_BATCH):
            rows = slice(start, min(start + _READ_BATCH, len(self)))
            self._read(np.arange(rows.start, rows.stop), *(array[rows] for array in arrays))
        return LensSplit(*arrays, self._info)
