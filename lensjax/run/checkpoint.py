"""Checkpoints: Orbax keeps the state; a checksum of each array reveals damage that Orbax misses.

Orbax restores a flipped byte without an error and casts another dtype in silence. So shape, dtype
and CRC-32 of each leaf are saved beside the state and compared after it was read. A checkpoint is
read back in the background as soon as it is written, and only then are older ones removed.
"""

import contextlib
import pathlib
import shutil
import sys
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
from absl import logging

from lensjax.devices.hosts import (
    all_agree,
    barrier,
    check_seen,
    from_main,
    gather_texts,
    is_main,
)
from lensjax.devices.mesh import put
from lensjax.errors import CheckpointError
from lensjax.files.disk import short_reason
from lensjax.run import checksums
from lensjax.run.background_save import BackgroundSave
from lensjax.run.checkpoint_folder import CheckpointFolder, steps_in
from lensjax.run.state import TrainState

# A lost host or a full memory, which have messages of their own elsewhere.
_NOT_OF_THE_DISK = (CheckpointError, MemoryError, jax.errors.JaxRuntimeError)


class _NotOursError(ValueError):
    """A checkpoint that is sound, but of another run or another step than its name says."""


def _single_process_options() -> dict[str, Any]:
    """Orbax options that let this process read checkpoints without waiting for the others."""
    number = jax.process_index()
    return {
        "primary_host": number,
        "active_processes": {number} if jax.process_count() > 1 else None,
        "barrier_sync_key_prefix": f"reader_{number}",
    }


def _drop_late_arrays() -> None:
    """Keeps Python from printing tracebacks of TensorStore's threads once a read has failed.

    At the first array that cannot be read Orbax closes its event loop; those that come later find
    it closed. Nobody waits for them.
    """
    report = sys.unraisablehook
    if report.__module__ == __name__:
        return

    def report_others(found: Any) -> None:
        if str(found.exc_value) != "Event loop is closed":
            report(found)

    sys.unraisablehook = report_others


@contextlib.contextmanager
def _errors_explained(folder: CheckpointFolder, step: int) -> Iterator[None]:
    """Turns the errors of a save into one of the disk, whatever Orbax makes of them."""
    try:
        yield
    except _NOT_OF_THE_DISK:
        raise
    except Exception as error:
        folder.check_there(step)
        raise folder.not_written(step, error) from error


class Checkpoints:
    """The checkpoints of one run.

    Args:
      directory: the folder that holds them.
      keep_last: number of newest checkpoints that are kept.
      keep_every: checkpoints at multiples of this are kept for good; None keeps none.
      keep_step: one checkpoint that is kept for good; None for none.
      read_only: for readers while a run trains; nothing is removed or moved.
      run_id: the run that they belong to; None for a run that has no id, which takes all.
    """

    def __init__(
        self,
        directory: pathlib.Path,
        *,
        keep_last: int | None = None,
        keep_every: int | None = None,
        keep_step: int | None = None,
        read_only: bool = False,
        run_id: str | None = None,
    ) -> None:
        import orbax.checkpoint as ocp

        self._ocp = ocp
        self._read_only, self._run_id = read_only, run_id
        if read_only and not directory.is_dir():
            raise CheckpointError(f"there are no checkpoints in {directory}; train first")
        self._folder = CheckpointFolder(directory, writable=not read_only)
        self._directory = self._folder.path
        if not read_only and is_main():
            self._folder.remove_unfinished()
        self._keeping = keep_last, keep_every, keep_step
        self._manager = self._open(read_only)
        self._pending: BackgroundSave | None = None

    def _open(self, read_only: bool) -> Any:
        """Opens Orbax's manager; a reader belongs to this process alone and waits for no other."""
        hosts = self._ocp.options.MultiprocessingOptions
        options = self._ocp.CheckpointManagerOptions(
            cleanup_tmp_directories=False,  # in a thread that outlives the manager
            read_only=read_only,
            save_interval_steps=0 if read_only else 1,
            create=not read_only,
            multiprocessing_options=hosts(**_single_process_options()) if read_only else hosts(),
            max_to_keep=None,  # older ones are removed here, after the new one was read back
        )
        logger = logging.get_absl_logger()
        before = logger.level
        if read_only:  # Orbax would warn that it is read-only
            logger.setLevel("ERROR")
        try:
            manager = self._ocp.CheckpointManager(
                self._folder.for_orbax, options=options, item_names=("state", "leaves")
            )
        except _NOT_OF_THE_DISK:
            raise
        except Exception as error:  # of any kind, depending on the folder's content
            raise CheckpointError(
                f"the checkpoints in {self._directory} cannot be read: {short_reason(error)}"
            ) from error
        finally:
            logger.setLevel(before)
        # The loop asks for signals after each step; Orbax would ask for an older step in between,
        # and JAX would forget the newer one.
        manager.reached_preemption = lambda step: False
        return manager

    def save(self, step: int, state: TrainState) -> None:
        """Starts to write the state after `step` updates; returns before it is on disk.

        A thread goes on with it: it waits for Orbax, reads the checkpoint back, compares it with
        the state, and then removes older ones. It does not call the other processes.

        Raises:
          CheckpointError: if Orbax refuses the step, the disk has no room for it, or the save
            before it failed.
        """
        self._settle()
        if step in self._manager.all_steps():
            return  # a run that is resumed and stopped immediately has no new state
        size = sum(leaf.nbytes for leaf in jax.tree.leaves(state))
        problem = from_main(lambda: self._problem(step, size), f"the disk before save {step}")
        if problem:
            raise CheckpointError(problem)
        args = self._ocp.args
        arrays = checksums.describe(state)
        leaves = {"arrays": arrays, "crc32": checksums.checksum_of(arrays), "run_id": self._run_id}
        items = args.Composite(state=args.StandardSave(state), leaves=args.JsonSave(leaves))
        like = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), state)

        def begin() -> None:
            with _errors_explained(self._folder, step):
                if not self._manager.save(step, args=items, force=True):
                    raise CheckpointError(
                        f"checkpoint {step} could not be written in {self._directory}"
                    )

        def end() -> None:
            with _errors_explained(self._folder, step):
                self._manager.wait_until_finished()
            if is_main():
                self._verify(step, like, arrays)
                with _errors_explained(self._folder, step):
                    self._folder.note_size(step)
                    self._folder.keep(step, *self._keeping)

        self._pending = BackgroundSave(begin, end)
        self._pending.start_and_begin()

    def _problem(self, step: int, state_bytes: int) -> str | None:
        """Why a save would fail; None if nothing is known against it."""
        try:
            self._folder.check_ready(step, state_bytes)
        except CheckpointError as error:
            return str(error)
        return None

    def _verify(self, step: int, like: TrainState, arrays: dict[str, dict[str, Any]]) -> None:
        """Reads a checkpoint that was just written; raises CheckpointError if it is not right."""
        alone = jax.process_count() == 1
        try:
            reader = self._manager if alone else self._open(read_only=True)
            try:
                saved, _ = self._read_sound(reader, step, like)
            finally:
                if not alone:
                    reader.close()
            if saved != arrays:
                raise ValueError("it lists other arrays than were saved")
        except MemoryError:
            raise
        except Exception as error:
            self._folder.check_there(step)
            raise CheckpointError(
                f"checkpoint {step} in {self._directory} cannot be read back "
                f"({short_reason(error)}): its files were changed or removed, or the disk loses "
                "data. Older checkpoints are kept; to go on from them, run the same command again"
            ) from error

    def _settle(self) -> None:
        """Waits for the save in the background; its error is raised on all processes."""
        pending, self._pending = self._pending, None
        error = pending.error() if pending else None
        several = jax.process_count() > 1
        if error is not None and not (several and isinstance(error, CheckpointError)):
            raise error
        if pending and several:
            errors = gather_texts("" if error is None else str(error), "the end of a save")
            for text in filter(None, errors):
                raise CheckpointError(text) from error

    def check(self) -> None:
        """Raises the error of a save in the background that has failed already.

        On several hosts this waits for the next `save` or `wait`, which all of them call.
        """
        if jax.process_count() == 1 and self._pending is not None and self._pending.has_failed:
            self._settle()

    def drop_after(self, step: int) -> None:
        """Removes the checkpoints of later steps, which a resumed run makes again."""
        for later in [saved_step for saved_step in self._manager.all_steps() if saved_step > step]:
            self._manager.delete(later)

    def steps(self) -> list[int]:
        """The steps of all checkpoints, in order."""
        return from_main(lambda: steps_in(self._directory), "checkpoints")

    def set_later_aside(self, step: int, folder: str) -> None:
        """Moves the checkpoints of later steps into a folder beside their own, by its name."""
        self._set_aside([later for later in self.steps() if later > step], folder)

    def restore(self, expected: TrainState, step: int | None = None) -> TrainState | None:
        """Restores the newest sound checkpoint, or a given one.

        A damaged checkpoint is named, set aside (unless this is a reader) and the one before it is
        taken.

        Args:
          expected: shapes, dtypes and shardings of the state, such as `jax.eval_shape` gives.
          step: the checkpoint to read; None for the newest sound one.

        Returns:
          The state, or None if there is no checkpoint at all.

        Raises:
          CheckpointError: if none is sound, the given one is missing or damaged, or the
            configuration needs other shapes or dtypes.
        """
        steps = from_main(lambda: steps_in(self._directory)[::-1], "checkpoints")
        if step is not None:
            if step not in steps:
                existing = ", ".join(map(str, sorted(steps))) or "none"
                raise CheckpointError(f"there is no checkpoint {step}; existing: {existing}")
            steps = [step]
        state, unsound = self._newest_sound(expected, steps)
        if state is not None:
            self._set_aside(unsound)
            return jax.tree.map(lambda leaf, like: put(leaf, like.sharding), state, expected)
        if steps:
            raise CheckpointError(
                f"no sound checkpoint in {self._directory}; damaged: {', '.join(map(str, steps))}"
            )
        return None

    def set_unsound_aside(self, expected: TrainState) -> None:
        """Sets aside the checkpoints that `restore` would not take, even if none is left.

        Args:
          expected: as for `restore`.
        """
        steps = from_main(lambda: steps_in(self._directory)[::-1], "checkpoints")
        self._set_aside(self._newest_sound(expected, steps)[1])

    def _newest_sound(
        self, expected: TrainState, steps: list[int]
    ) -> tuple[TrainState | None, list[int]]:
        """The first sound one of some checkpoints, and those before it, which are not."""
        alone = self._read_only or jax.process_count() == 1
        reader = self._manager if alone else self._open(read_only=True)
        unsound: list[int] = []
        _drop_late_arrays()
        try:
            for step in steps:
                check_seen(self._directory / str(step))
                state = self._read_or_warn(reader, step, expected)
                if all_agree(state is not None, f"checkpoint {step}"):
                    return state, unsound
                unsound.append(step)
        finally:
            if reader is not self._manager:
                reader.close()
        return None, unsound

    def _read_or_warn(self, reader: Any, step: int, expected: TrainState) -> TrainState | None:
        try:
            return self._read_sound(reader, step, expected)[1]
        except (*_NOT_OF_THE_DISK, PermissionError):
            raise
        except _NotOursError as error:
            logging.warning("checkpoint %d is left out: %s", step, error)
        except Exception as error:  # Orbax raises plain Exception for an array cut short
            logging.warning("checkpoint %d is damaged (%s)", step, short_reason(error))
        return None

    def _read_sound(
        self, reader: Any, step: int, expected: TrainState
    ) -> tuple[dict[str, dict[str, Any]], TrainState]:
        """Reads a state as numpy arrays; each process reads and checks all of it by itself.

        Returns:
          The list of its arrays, and the state.
        """
        args = self._ocp.args
        leaves = reader.restore(step, args=args.Composite(leaves=args.JsonRestore()))["leaves"]
        saved = leaves["arrays"]
        if checksums.checksum_of(saved) != leaves["crc32"]:
            raise ValueError("the checksum of its list of arrays is wrong")
        run_id = leaves.get("run_id")
        if self._run_id is not None and run_id != self._run_id:
            raise _NotOursError(f"it belongs to another run, {run_id}; this run is {self._run_id}")
        checksums.check_fits(saved, expected, step)
        like = jax.tree.map(lambda leaf: np.empty(leaf.shape, leaf.dtype), expected)
        state = reader.restore(step, args=args.Composite(state=args.StandardRestore(like)))["state"]
        checksums.check_state(state, saved)
        if int(state.step) != step:
            raise _NotOursError(f"it holds step {int(state.step)}")
        return saved, state

    def _set_aside(self, unsound: list[int], folder: str = "damaged_checkpoints") -> None:
        """Moves checkpoints away: Orbax would refuse to save their steps again."""
        if self._read_only or not unsound:
            return
        target = self._directory.parent / folder
        if is_main():
            try:
                target.mkdir(exist_ok=True)
                for step in unsound:
                    place, number = target / str(step), 2
                    while place.exists():
                        place, number = target / f"{step}_{number}", number + 1
                    shutil.move(self._directory / str(step), place)
            except OSError as error:
                raise CheckpointError(
                    f"{folder.replace('_', ' ')} cannot be moved to {target}: {error.strerror}"
                ) from error
        barrier("checkpoints are set aside")
        logging.warning("moved to %s: %s", target, ", ".join(map(str, unsound)))
        self._manager.close()
        self._manager = self._open(read_only=False)

    def wait(self) -> None:
        """Waits until the last save is on disk, was read back, and older ones are removed.

        Raises:
          CheckpointError: if it could not be written, or not be read back.
        """
        self._settle()

    def close(self) -> None:
        """Waits for the last save, without the other processes: one may have failed.

        Raises:
          CheckpointError: as `wait` does.
        """
        pending, self._pending = self._pending, None
        error = pending.error() if pending else None
        with contextlib.suppress(Exception):  # of a save, which was raised before or is now
            self._manager.close()
        self._folder.close()
        if error is not None:
            raise error
