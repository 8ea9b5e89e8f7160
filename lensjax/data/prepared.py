"""Sets that TFDS keeps on disk: built once, complete or absent, opened for reading."""

import contextlib
import dataclasses
import fcntl
import os
import pathlib
import shutil
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import tensorflow_datasets as tfds
from absl import logging

from lensjax.data.catalogue import is_same_content
from lensjax.data.dataset import DatasetInfo, LensSplit
from lensjax.data.dataset_rules import FACTS, IMAGE_SHAPE, NAMES, facts_of_channels
from lensjax.data.records import RecordSplit
from lensjax.errors import DataError, UnusableError, UserError
from lensjax.files import disk
from lensjax.files.json_file import NUMBER, checked, read_object
from lensjax.files.user_paths import expanded

_DISK_MARGIN = 1.05
# Facts that every set on disk has, whatever other programs leave out.
_OWN_FACTS = {"parameter_names": NAMES, "minimum": NUMBER, "maximum": NUMBER}


def root_of(directory: str | None) -> pathlib.Path:
    """Where data sets live: `directory`, else `$TFDS_DATA_DIR`, else the home folder's."""
    chosen = directory or os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets"
    return expanded(chosen, "data.directory" if directory else "TFDS_DATA_DIR")


@dataclasses.dataclass(frozen=True)
class PreparedSet:
    """A set that is finished on disk, or is to be.

    Attributes:
      name: full name, such as `deeplense/model_ii_mini`.
      folder: where its files are.
      fingerprint: identifies the settings or files that must have made it.
      build_command: the command that builds it, for messages.
      report: on the reading of a user's folder, as JSON types; None for any other set.
    """

    name: str
    folder: pathlib.Path
    fingerprint: str
    build_command: str
    report: Mapping[str, Any] | None = None

    @property
    def _remedy(self) -> str:
        return f"remove that folder and build it again ({self.build_command})"

    def open_finished(self) -> tfds.core.DatasetBuilder | None:
        """The reader of the set, None if it is not there.

        Raises:
          DataError: for a set that is stale or damaged.
        """
        if not self.folder.exists():
            return None
        try:
            for path in self.folder.glob("*.json"):  # TFDS would read anything whole
                read_object(path)
            builder = tfds.builder_from_directory(os.fspath(self.folder))
            fingerprint = builder.info.metadata["fingerprint"]
            paths = [path for split in builder.info.splits.values() for path in split.filepaths]
            self._describe(builder)
        except MemoryError:
            raise
        except UnusableError as error:
            raise DataError(
                f"data set {self.name} in {self.folder} cannot be read: its description {error}; "
                f"{self._remedy}"
            ) from error
        except Exception as error:  # TFDS passes on whatever its readers of JSON and protobuf raise
            raise DataError(
                f"data set {self.name} in {self.folder} cannot be read; {self._remedy}"
            ) from error
        if not is_same_content(fingerprint, self.fingerprint):
            raise DataError(
                f"data set {self.name} in {self.folder} is stale: it has the fingerprint "
                f"{fingerprint}, a new build would have {self.fingerprint}; {self._remedy}"
            )
        missing = [path.name for path in paths if not path.exists()]
        if missing:
            raise DataError(
                f"data set {self.name} in {self.folder} lacks {', '.join(missing)}; {self._remedy}"
            )
        return builder

    def require(self) -> tfds.core.DatasetBuilder:
        """The reader of the set.

        Raises:
          DataError: for a set that is missing, stale or damaged.
        """
        builder = self.open_finished()
        if builder is None:
            raise DataError(
                f"data set {self.name} is not in {self.folder}; build it first "
                f"({self.build_command})"
            )
        return builder

    def info(self) -> DatasetInfo:
        """The description of the set; errors as for `require`."""
        return self._describe(self.require())

    def _describe(self, builder: tfds.core.DatasetBuilder) -> DatasetInfo:
        shape = builder.info.features["image"].shape
        if not IMAGE_SHAPE.accepts(list(shape)):
            raise UnusableError(f"has images {shape}; allowed: {IMAGE_SHAPE.allowed}")
        rules = {**FACTS, **_OWN_FACTS, **facts_of_channels(shape[-1])}
        metadata = checked(builder.info.metadata, rules, "says that ")
        field_names = {field.name for field in dataclasses.fields(DatasetInfo)} - {"name"}
        values = {name: value for name, value in metadata.items() if name in field_names}
        values["fingerprint"] = self.fingerprint
        values["class_names"] = tuple(metadata["class_names"])
        values["parameter_names"] = tuple(metadata["parameter_names"])
        for name in ("band_names", "band_zero_points_mag"):
            values[name] = tuple(metadata[name])
        return DatasetInfo(
            name=self.name,
            split_sizes={key: split.num_examples for key, split in builder.info.splits.items()},
            image_shape=shape,
            **values,
        )

    def open_split(self, split: str) -> RecordSplit:
        """Opens a split, `train` or `test`, without reading its images.

        Raises:
          DataError: for an unknown split, or a set that is missing, stale or damaged.
        """
        builder = self.require()
        info = self._describe(builder)
        if split not in info.split_sizes:
            raise DataError(
                f"data set {self.name} has no split {split!r}; choose one of "
                f"{', '.join(info.split_sizes)}"
            )
        return RecordSplit(info, split, builder.info.splits[split].filepaths, self._remedy)

    def read(self, split: str, *, masked_values: bool = False) -> LensSplit:
        """Reads a split into memory; errors as for `open_split`.

        Args:
          split: `train` or `test`.
          masked_values: see `RecordSplit.in_memory`.
        """
        return self.open_split(split).in_memory(masked_values=masked_values)

    def build_once(self, bytes_needed: float, advice: str, build: Callable[[], None]) -> None:
        """Builds the set unless it is there; a second process waits for the first.

        Files that a killed build left are removed.

        Args:
          bytes_needed: room that the set takes on disk.
          advice: what to do where there is no room.
          build: writes the set.

        Raises:
          DataError: for a full disk, a folder that cannot be written, or a finished set
            that is stale or damaged.
        """
        if self.open_finished() is not None:
            return
        try:
            parent = self.folder.parent
            parent.mkdir(parents=True, exist_ok=True)
            with self._exclusive(parent.with_name(f".{parent.name}.lock")):
                if self.open_finished() is not None:
                    return
                self._remove_leftovers()
                self._check_disk_space(bytes_needed, advice)
                logging.info("Building %s in %s.", self.name, self.folder)
                tfds.display_progress_bar(False)  # lensjax's own bar knows the total
                build()
        except UserError:
            raise
        except Exception as error:  # the writer of records passes on the system's errors in words
            if not disk.is_refusal(error):
                raise
            raise DataError(
                f"data set {self.name} cannot be written to {self.folder}: "
                f"{disk.reason_of(error, self.folder)}; it takes about "
                f"{disk.size_text(bytes_needed)}; set data.directory or TFDS_DATA_DIR to a folder "
                "with room that can be written to"
            ) from error
        finally:
            tfds.display_progress_bar(True)

    @contextlib.contextmanager
    def _exclusive(self, lock_path: pathlib.Path) -> Iterator[None]:
        """Holds a lock that the system releases if the process dies."""
        with lock_path.open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                logging.info("Another process is building %s; waiting for it.", self.name)
                fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _remove_leftovers(self) -> None:
        for leftover in self.folder.parent.glob("incomplete.*"):
            logging.warning(
                "An earlier build of %s did not finish; %s is removed and the build starts over.",
                self.name,
                leftover,
            )
            shutil.rmtree(leftover)

    def _check_disk_space(self, bytes_needed: float, advice: str) -> None:
        needed, free = _DISK_MARGIN * bytes_needed, shutil.disk_usage(self.folder.parent).free
        if needed > free:
            raise DataError(
                f"data set {self.name} needs {disk.size_text(needed)} in {self.folder.parent}, "
                f"where only {disk.size_text(free)} are free; make room, {advice}"
            )
