"""Reads finished sets from their array_record files, at any place and without TensorFlow."""

import contextlib
import os
import pathlib
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from array_record.python import array_record_data_source
from tensorflow_datasets.proto import tf_example_pb2

from lensjax.data.dataset import DatasetInfo, Examples, LensSplit
from lensjax.errors import DataError

_READ_BATCH = 1024


class Record(NamedTuple):
    """One stored example.

    Attributes:
      image: float32 `[H * W * C]`.
      label: its class.
      parameters: float32 `[P]`.
      variance: float32 `[H * W * C]`; None for a set without variances.
      mask: uint8 `[H * W * C]`, 1 where a pixel is not to be used; None for a set without masks.
    """

    image: np.ndarray
    label: int
    parameters: np.ndarray
    variance: np.ndarray | None
    mask: np.ndarray | None


def decode_record(record: bytes) -> Record:
    """Decodes a serialised example, several times faster than TFDS."""
    feature = tf_example_pb2.Example.FromString(record).features.feature

    def numbers(name: str, dtype: type) -> np.ndarray | None:
        if name not in feature:
            return None
        return np.frombuffer(feature[name].bytes_list.value[0], dtype)

    image, parameters = numbers("image", np.float32), numbers("parameters", np.float32)
    if image is None or parameters is None:
        raise ValueError("a record lacks its image or its parameters")
    label = feature["label"].int64_list.value[0]
    return Record(
        image, label, parameters, numbers("variance", np.float32), numbers("mask", np.uint8)
    )


class _Arrays(NamedTuple):
    """Examples side by side, see `LensSplit`; `mask` is None for a set without masks."""

    images: np.ndarray
    labels: np.ndarray
    parameters: np.ndarray
    variance: np.ndarray | None
    mask: np.ndarray | None

    def rows(self, start: int, stop: int) -> "_Arrays":
        """Views of some examples."""
        rows = slice(start, stop)
        return _Arrays(
            self.images[rows],
            self.labels[rows],
            self.parameters[rows],
            None if self.variance is None else self.variance[rows],
            None if self.mask is None else self.mask[rows],
        )

    def with_nan(self) -> "_Arrays":
        """The same with NaN in the images where the mask says so; the images are changed."""
        if self.mask is not None:
            self.images[self.mask] = np.nan
        return self


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

    def _read(self, indices: np.ndarray, arrays: _Arrays) -> None:
        """Reads examples into arrays whose first axis is that of the indices."""
        images, _, _, variance, mask = arrays
        flat = images.reshape(len(indices), -1)
        with self._naming_damage():
            for place, encoded in enumerate(self._source.__getitems__(indices.tolist())):
                record = decode_record(encoded)
                flat[place] = record.image
                arrays.labels[place] = record.label
                arrays.parameters[place] = record.parameters
                if variance is not None and record.variance is not None:
                    variance[place] = record.variance.reshape(variance.shape[1:])
                if mask is not None and record.mask is not None:
                    mask[place] = record.mask.reshape(mask.shape[1:])

    def _empty(self, count: int) -> _Arrays:
        shape = (count, *self._info.image_shape)
        return _Arrays(
            np.empty(shape, np.float32),
            np.empty((count,), np.int32),
            np.empty((count, len(self._info.parameter_names)), np.float32),
            np.empty(shape, np.float32) if self._info.has_variance else None,
            np.zeros(shape, bool) if self._info.masked else None,
        )

    def examples(self, indices: np.ndarray) -> Examples:
        """The examples at the given places, integers `[B]`.

        Raises:
          DataError: if a file is damaged.
        """
        arrays = self._empty(len(indices))
        self._read(indices, arrays)
        arrays = arrays.with_nan()
        return Examples(arrays.images, arrays.labels, arrays.variance)

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
        for indices, arrays in self._all_examples():
            parameters[indices] = arrays.parameters[:, columns]
        return parameters

    def all_labels(self) -> np.ndarray:
        """Reads the label of every image, int32 `[N]`, without keeping the images.

        Raises:
          DataError: if a file is damaged.
        """
        return np.concatenate([arrays.labels for _, arrays in self._all_examples()])

    def _all_examples(self) -> Iterator[tuple[np.ndarray, _Arrays]]:
        """Yields places, and the examples there, a few at a time."""
        for start in range(0, len(self), _READ_BATCH):
            indices = np.arange(start, min(start + _READ_BATCH, len(self)))
            arrays = self._empty(len(indices))
            self._read(indices, arrays)
            yield indices, arrays

    def in_memory(self, *, masked_values: bool = False) -> LensSplit:
        """Reads the whole split.

        Args:
          masked_values: whether the images keep what the files hold where a mask says that it is
            not to be used; else they have NaN there.

        Raises:
          DataError: if a file is damaged.
        """
        arrays = self._empty(len(self))
        for start in range(0, len(self), _READ_BATCH):
            stop = min(start + _READ_BATCH, len(self))
            self._read(np.arange(start, stop), arrays.rows(start, stop))
        if not masked_values:
            arrays = arrays.with_nan()
        images, labels, parameters, variance, mask = arrays
        return LensSplit(images, labels, parameters, self._info, variance, mask)
