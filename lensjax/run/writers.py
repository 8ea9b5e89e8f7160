"""Metrics: one JSON object a line for programs, TensorBoard for people.

The only module that imports TensorFlow (through CLU), inside a function, and hides the accelerator
from it. Without TensorFlow everything else goes on.
"""

import contextlib
import json
import math
import os
import pathlib
import socket
import time
from collections.abc import Iterator, Mapping
from typing import Any, Protocol

import numpy as np
from absl import logging
from absl.logging import converter

from lensjax.errors import FileError, UnusableError, WorkdirError
from lensjax.files.atomic import write_text
from lensjax.files.disk import short_reason
from lensjax.files.json_file import parse
from lensjax.run.stored import metrics_line

_LONGEST_LINE = 2**20  # of `metrics.jsonl`, in bytes


@contextlib.contextmanager
def only_warnings() -> Iterator[None]:
    """Suppresses log lines below warnings while it is open."""
    logger = logging.get_absl_logger()
    before = logger.level
    logger.setLevel(max(before, converter.STANDARD_WARNING))
    try:
        yield
    finally:
        logger.setLevel(before)


def _tensorflow() -> Any:
    """TensorFlow, or None if it is not installed."""
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")  # both silence TensorFlow's first lines
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    try:
        import tensorflow
    except ImportError:
        return None
    return tensorflow


_EVENTS = "events.out.tfevents."


def _begin_session(folder: pathlib.Path, step: int) -> None:
    """Has TensorBoard drop what a killed run wrote at a step and later.

    An event file of its own says so. TensorBoard reads event files in the order of their names,
    which begin with the second; TensorFlow's next file comes after this one.
    """
    names = [name for name in os.listdir(folder) if name.startswith(_EVENTS)]
    tf = _tensorflow() if names else None
    if tf is None:
        return
    if any(name.startswith(f"{_EVENTS}{int(time.time()):010d}.") for name in names):
        time.sleep(1.0)  # for the order of the names
    now = time.time()
    name = f"{_EVENTS}{int(now):010d}.{socket.gethostname()}.{os.getpid()}.-start"
    start = tf.compat.v1.SessionLog(status=tf.compat.v1.SessionLog.START)
    with tf.io.TFRecordWriter(os.fspath(folder / name)) as file:
        session = {"step": step, "session_log": start}
        # Twice: TensorBoard takes the first one of a folder for the beginning, and drops nothing.
        for content in ({"file_version": "brain.Event:2"}, session, session):
            event = tf.compat.v1.Event(wall_time=now, **content)
            file.write(event.SerializeToString())


def _open_tensorboard(folder: pathlib.Path) -> Any:
    """A CLU writer, or None if TensorFlow is not installed."""
    tf = _tensorflow()
    if tf is None:
        logging.info(
            "TensorFlow is not installed: metrics go only to metrics.jsonl and the log "
            "(pip install 'lensjax[tensorboard]' adds TensorBoard)"
        )
        return None
    from clu import metric_writers

    tf.config.set_visible_devices([], "GPU")
    return metric_writers.AsyncWriter(metric_writers.SummaryWriter(os.fspath(folder)))


def read_metrics(path: pathlib.Path) -> list[dict[str, Any]]:
    """The lines of a `metrics.jsonl`, without a last line that a kill cut short.

    Any other line that is damaged is left out with a warning.

    Raises:
      WorkdirError: if it is no file.
    """
    lines, damaged = [], []
    if not path.is_file():  # reading a pipe would wait for ever
        raise WorkdirError(f"{path} is not a file; move it away")
    with path.open("rb") as stream:
        for number, line in enumerate(iter(lambda: stream.readline(_LONGEST_LINE), b""), 1):
            try:
                lines.append(metrics_line(parse(line)))
            except UnusableError as error:
                if line.endswith(b"\n"):
                    damaged.append(f"line {number} {error}")
    if damaged:
        logging.warning(
            "%s: %d lines are left out because they are damaged; %s", path, len(damaged), damaged[0]
        )
    return lines


def _keep_up_to(path: pathlib.Path, step: int) -> None:
    """Drops lines of later steps, and a last line that a kill cut short."""
    if not path.exists():
        return
    lines = [values for values in read_metrics(path) if values["step"] <= step]
    write_text(path, "".join(json.dumps(values) + "\n" for values in lines))


def show(
    folder: pathlib.Path,
    step: int,
    values: Mapping[str, float],
    pictures: Mapping[str, np.ndarray] | None = None,
) -> None:
    """Shows scalars and pictures of one step in TensorBoard, as a run of its own in `folder`.

    Args:
      folder: holds the event files.
      step: the step.
      values: scalars by name.
      pictures: uint8 `[H, W, 3]` by name.
    """
    tensorboard = _open_tensorboard(folder)
    if tensorboard:
        tensorboard.write_scalars(step, dict(values))
        if pictures:
            tensorboard.write_images(
                step, {name: picture[None] for name, picture in pictures.items()}
            )
        tensorboard.close()


class Writers(Protocol):
    """Where the metrics of a run go."""

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Writes the numbers of a step."""
        ...

    def image(self, step: int, name: str, picture: np.ndarray) -> None:
        """Shows a picture, uint8 `[H, W, 3]`."""
        ...

    def flush(self) -> None:
        """Brings everything so far to the disk."""
        ...

    def close(self) -> None:
        """Waits until everything is written."""
        ...


class NoWriters:
    """For the processes of a run that write nothing."""

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Does nothing."""

    def image(self, step: int, name: str, picture: np.ndarray) -> None:
        """Does nothing."""

    def flush(self) -> None:
        """Does nothing."""

    def close(self) -> None:
        """Does nothing."""


class MetricWriters:
    """Writes the metrics of a run, each step once, also after a resume.

    Args:
      metrics_file: the file of JSON lines.
      resumed_at: steps that were made before; lines of later steps are dropped.
      tensorboard: whether TensorBoard shows them too.
    """

    def __init__(
        self, metrics_file: pathlib.Path, resumed_at: int, *, tensorboard: bool = True
    ) -> None:
        _keep_up_to(metrics_file, resumed_at)
        self._file = metrics_file.open("a", encoding="utf-8")
        self._folder, self._first_step = metrics_file.parent, resumed_at + 1
        self._is_unopened = tensorboard
        self._tensorboard: Any = None

    def _opened(self) -> Any:
        """The writer for TensorBoard; TensorFlow is imported for the first line."""
        if self._is_unopened:
            self._is_unopened = False
            _begin_session(self._folder, self._first_step)
            self._tensorboard = _open_tensorboard(self._folder)
        return self._tensorboard

    @contextlib.contextmanager
    def _tensorboard_errors(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # CLU and TensorFlow have their own for each kind
            raise FileError(
                f"the TensorBoard files in {self._folder} cannot be written: {short_reason(error)}"
            ) from error

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Writes one line for a step."""
        # JSON has no NaN and no infinity; both become null.
        plain = {name: value if math.isfinite(value) else None for name, value in values.items()}
        try:
            self._file.write(json.dumps({"step": step, **plain}, allow_nan=False) + "\n")
            self._file.flush()
        except OSError as error:
            raise FileError(f"{self._file.name} cannot be written: {error.strerror}") from error
        with self._tensorboard_errors():
            tensorboard = self._opened()
            if tensorboard:
                tensorboard.write_scalars(step, dict(values))

    def image(self, step: int, name: str, picture: np.ndarray) -> None:
        """Shows a picture, uint8 `[H, W, 3]`, in TensorBoard."""
        with self._tensorboard_errors():
            tensorboard = self._opened()
            if tensorboard:
                tensorboard.write_images(step, {name: picture[None]})

    def flush(self) -> None:
        """Brings the numbers up to a checkpoint to the disk: a resumed run does not repeat them."""
        if self._tensorboard:
            with self._tensorboard_errors():
                self._tensorboard.flush()

    def close(self) -> None:
        """Waits until everything is written; an error is logged, as another may be on its way."""
        with contextlib.suppress(OSError):  # a full disk was reported when the line was written
            self._file.close()
        if self._tensorboard:
            try:
                with self._tensorboard_errors():
                    self._tensorboard.close()
            except FileError as error:
                logging.warning("%s", error)
