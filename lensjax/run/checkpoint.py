"""Checkpoints: Orbax keeps the state; a checksum of each array reveals damage that Orbax misses.

Orbax restores a flipped byte without an error and casts another dtype in silence. So shape, dtype
and CRC-32 of each leaf are saved beside the state and compared after it was read.
"""

import json
import pathlib
import shutil
import tempfile
import zlib
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from absl import logging

from lensjax.devices.hosts import all_agree, barrier, check_seen, from_main, is_main
from lensjax.devices.mesh import put, to_host
from lensjax.errors import CheckpointError
from lensjax.run.state import TrainState

# A lost host or a full memory, which have messages of their own elsewhere.
_NOT_OF_THE_DISK = (CheckpointError, MemoryError, jax.errors.JaxRuntimeError)


def _leaves(state: Any) -> dict[str, Any]:
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): leaf
        for path, leaf in jax.tree_util.tree_leaves_with_path(state)
    }


def _describe(state: Any) -> dict[str, dict[str, Any]]:
    """Shape, dtype and checksum of each leaf as JSON types."""
    result = {}
    for name, leaf in _leaves(state).items():
        array = np.ascontiguousarray(to_host(leaf))
        checksum = zlib.crc32(array.tobytes())
        result[name] = {"shape": list(leaf.shape), "dtype": str(leaf.dtype), "crc32": checksum}
    return result


def _checksum_of(description: Mapping[str, Any]) -> int:
    """The checksum of the result of `_describe`: its own file may be damaged as well."""
    return zlib.crc32(json.dumps(description, sort_keys=True).encode())


def _check_fits(saved: dict[str, dict[str, Any]], expected: Any, step: int) -> None:
    """Raises CheckpointError if the configuration needs other arrays than were saved."""
    wanted = {name: (list(leaf.shape), str(leaf.dtype)) for name, leaf in _leaves(expected).items()}
    stored = {name: (leaf["shape"], leaf["dtype"]) for name, leaf in saved.items()}
    for name in sorted(wanted.keys() | stored.keys()):
        if wanted.get(name) != stored.get(name):
            raise CheckpointError(
                f"checkpoint {step} does not fit this configuration: {name} is "
                f"{stored.get(name, 'not there')} and should be {wanted.get(name, 'not there')} "
                "(shape, dtype)"
            )


def _single_process_options() -> dict[str, Any]:
    """Orbax options that let this process read checkpoints without waiting for the others."""
    number = jax.process_index()
    return {
        "primary_host": number,
        "active_processes": {number} if jax.process_count() > 1 else None,
        "barrier_sync_key_prefix": f"reader_{number}",
    }


def _reason(error: Exception) -> str:
    """The first line of an error of Orbax, which may be a page long."""
    return str(error).strip().partition("\n")[0][:200] or type(error).__name__


class Checkpoints:
    """The checkpoints of one run.

    Args:
      directory: the folder that holds them.
      keep_last: number of newest checkpoints that are kept.
      keep_every: checkpoints at multiples of this are kept for good; None keeps none.
      read_only: for readers while a run trains; nothing is removed or moved.
    """

    def __init__(
        self,
        directory: pathlib.Path,
        *,
        keep_last: int | None = None,
        keep_every: int | None = None,
        read_only: bool = False,
    ) -> None:
        import orbax.checkpoint as ocp

        self._ocp = ocp
        self._directory = directory.resolve()
        self._read_only = read_only
        if read_only and not directory.is_dir():
            raise CheckpointError(f"there are no checkpoints in {directory}; train first")
        if not read_only:
            self._check_place()
        self._keeping = {"max_to_keep": keep_last, "keep_period": keep_every}
        self._manager = self._open(read_only)

    def _open(self, read_only: bool) -> Any:
        """Opens Orbax's manager; a reader belongs to this process alone and waits for no other."""
        hosts = self._ocp.options.MultiprocessingOptions
        options = self._ocp.CheckpointManagerOptions(
            cleanup_tmp_directories=not read_only,
            read_only=read_only,
            save_interval_steps=0 if read_only else 1,
            create=not read_only,
            multiprocessing_options=hosts(**_single_process_options()) if read_only else hosts(),
            **({} if read_only else self._keeping),
        )
        logger = logging.get_absl_logger()
        before = logger.level
        if read_only:  # Orbax would warn that it is read-only
            logger.setLevel("ERROR")
        try:
            manager = self._ocp.CheckpointManager(
                self._directory, options=options, item_names=("state", "leaves")
            )
        except _NOT_OF_THE_DISK:
            raise
        except Exception as error:  # of any kind, depending on the folder's content
            raise CheckpointError(
                f"the checkpoints in {self._directory} cannot be read: {_reason(error)}"
            ) from error
        finally:
            logger.setLevel(before)
        # The loop asks for signals after each step; Orbax would ask for an older step in between,
        # and JAX would forget the newer one.
        manager.reached_preemption = lambda step: False
        return manager

    def _check_place(self) -> None:
        """Makes a file now: Orbax would find out in a thread, after the first steps."""
        try:
            self._directory.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self._directory):
                pass
        except OSError as error:
            raise CheckpointError(
                f"checkpoints cannot be written in {self._directory}: {error.strerror}"
            ) from error

    def save(self, step: int, state: TrainState) -> None:
        """Starts to write the state after `step` updates; returns before it is on disk.

        Raises:
          CheckpointError: if Orbax refuses the step.
        """
        if step in self._manager.all_steps():
            return  # a run that is resumed and stopped immediately has no new state
        args = self._ocp.args
        arrays = _describe(state)
        leaves = {"arrays": arrays, "crc32": _checksum_of(arrays)}
        items = args.Composite(state=args.StandardSave(state), leaves=args.JsonSave(leaves))
        try:
            saved = self._manager.save(step, args=items, force=True)
        except _NOT_OF_THE_DISK:
            raise
        except Exception as error:  # of this save, or of a thread that still wrote the last one
            raise self._not_written(error) from error
        if not saved:
            raise CheckpointError(f"checkpoint {step} could not be written in {self._directory}")

    def _not_written(self, error: Exception) -> CheckpointError:
        return CheckpointError(
            f"the checkpoint could not be written in {self._directory}: {_reason(error)}"
        )

    def drop_after(self, step: int) -> None:
        """Removes the checkpoints of later steps, which a resumed run makes again."""
        for later in [saved_step for saved_step in self._manager.all_steps() if saved_step > step]:
            self._manager.delete(later)

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
        alone = self._read_only or jax.process_count() == 1
        reader = self._manager if alone else self._open(read_only=True)
        try:
            return self._restore(reader, expected, step)
        finally:
            if reader is not self._manager:
                reader.close()

    def _restore(self, reader: Any, expected: TrainState, step: int | None) -> TrainState | None:
        steps = from_main(lambda: sorted(map(int, reader.all_steps()), reverse=True), "checkpoints")
        if step is not None:
            if step not in steps:
                existing = ", ".join(map(str, sorted(steps))) or "none"
                raise CheckpointError(f"there is no checkpoint {step}; existing: {existing}")
            steps = [step]
        damaged: list[int] = []
        for candidate in steps:
            check_seen(self._directory / str(candidate))
            state = None
            try:
                state = self._read_sound(reader, candidate, expected)
            except (*_NOT_OF_THE_DISK, PermissionError):
                raise
            except Exception as error:  # Orbax raises plain Exception for an array cut short
                logging.warning("checkpoint %d is damaged (%s)", candidate, _reason(error))
            if all_agree(state is not None, f"checkpoint {candidate}"):
                self._set_aside(damaged)
                return jax.tree.map(lambda leaf, like: put(leaf, like.sharding), state, expected)
            damaged.append(candidate)
        if steps:
            raise CheckpointError(
                f"no sound checkpoint in {self._directory}; damaged: {', '.join(map(str, steps))}"
            )
        return None

    def _read_sound(self, reader: Any, step: int, expected: TrainState) -> TrainState:
        """Reads a state as numpy arrays; each process reads and checks all of it by itself."""
        args = self._ocp.args
        leaves = reader.restore(step, args=args.Composite(leaves=args.JsonRestore()))
        saved = leaves["leaves"]["arrays"]
        if _checksum_of(saved) != leaves["leaves"]["crc32"]:
            raise ValueError("the checksum of its list of arrays is wrong")
        _check_fits(saved, expected, step)
        like = jax.tree.map(lambda leaf: np.empty(leaf.shape, leaf.dtype), expected)
        state = reader.restore(step, args=args.Composite(state=args.StandardRestore(like)))["state"]
        changed = [name for name, leaf in _describe(state).items() if leaf != saved[name]]
        if changed:
            raise ValueError(f"checksum of {changed[0]} is wrong, {len(changed)} arrays in all")
        return state

    def _set_aside(self, damaged: list[int]) -> None:
        """Moves damaged checkpoints away: Orbax would refuse to save their steps again."""
        if self._read_only or not damaged:
            return
        target = self._directory.parent / "damaged_checkpoints"
        if is_main():
            try:
                target.mkdir(exist_ok=True)
                for step in damaged:
                    shutil.rmtree(target / str(step), ignore_errors=True)
                    shutil.move(self._directory / str(step), target / str(step))
            except OSError as error:
                raise CheckpointError(
                    f"damaged checkpoints cannot be moved to {target}: {error.strerror}"
                ) from error
        barrier("damaged checkpoints are set aside")
        logging.warning("moved to %s: %s", target, ", ".join(map(str, damaged)))
        self._manager.close()
        self._manager = self._open(read_only=False)

    def wait(self) -> None:
        """Waits until all saves are on disk.

        Raises:
          CheckpointError: if it could not be written.
        """
        try:
            self._manager.wait_until_finished()
        except _NOT_OF_THE_DISK:
            raise
        except Exception as error:  # Orbax passes on whatever its threads met, such as a full disk
            raise self._not_written(error) from error

    def close(self) -> None:
        """Waits until everything is on disk.

        Raises:
          CheckpointError: if it could not be written.
        """
        try:
            self.wait()
        finally:
            self._manager.close()
