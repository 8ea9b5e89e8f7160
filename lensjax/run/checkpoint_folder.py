"""The folder of checkpoints on disk: its path for Orbax, its room, and what is removed from it."""

import errno
import os
import pathlib
import shutil
import tempfile

from lensjax.errors import CheckpointError
from lensjax.files import disk

_GLOB_CHARACTERS = frozenset("*?[]")
_DESCRIPTORS = pathlib.Path("/proc/self/fd")
# In the names of folders that Orbax is writing.
_UNFINISHED = ".orbax-checkpoint-tmp"


def steps_in(directory: pathlib.Path) -> list[int]:
    """The steps of the checkpoints in a folder, in their order."""
    if not directory.is_dir():
        return []
    names = (name for name in os.listdir(directory) if _is_step(name))
    return sorted(int(name) for name in names if (directory / name).is_dir())


def _is_step(name: str) -> bool:
    return name.isascii() and name.isdigit() and str(int(name)) == name


def _size_of(folder: pathlib.Path) -> int:
    """Bytes on disk of all files below a folder."""
    return sum(
        os.stat(os.path.join(place, name)).st_blocks * 512
        for place, _, names in os.walk(folder)
        for name in names
    )


class CheckpointFolder:
    """A folder of checkpoints, which is watched while it is open.

    Args:
      path: the folder.
      writable: makes the folder if it is missing, and checks that files can be made in it.

    Attributes:
      path: the folder.
      for_orbax: the same folder by a path that Orbax can take.

    Raises:
      CheckpointError: if it cannot be made or written in.
    """

    def __init__(self, path: pathlib.Path, *, writable: bool) -> None:
        self.path = path.resolve()
        if writable:
            try:
                self.path.mkdir(parents=True, exist_ok=True)
                self._try_writing()
            except OSError as error:
                raise CheckpointError(
                    f"checkpoints cannot be written in {self.path}: {error.strerror}"
                ) from error
        self._descriptor = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY)
        self.for_orbax = self._path_without_glob_characters()
        self._needed, self._state_bytes = 0, 0
        if writable and (steps := steps_in(self.path)):
            self.note_size(steps[-1])

    def _path_without_glob_characters(self) -> pathlib.Path:
        # Orbax looks for files by patterns that begin with the folder's own path, and would find
        # nothing below a folder such as `w=[64,128]`.
        if not _GLOB_CHARACTERS.intersection(os.fspath(self.path)):
            return self.path
        if not _DESCRIPTORS.is_dir():
            os.close(self._descriptor)
            raise CheckpointError(
                f"checkpoints cannot be kept in {self.path} on this system: its path holds one of "
                "* ? [ ]; allowed: a --workdir without them"
            )
        return _DESCRIPTORS / str(self._descriptor)

    def _try_writing(self) -> None:
        with tempfile.TemporaryFile(dir=self.path):
            pass

    def note_size(self, step: int) -> None:
        """Notes what a checkpoint takes on disk, as the room that the next one needs."""
        self._needed = _size_of(self.path / str(step))

    def room(self) -> str:
        """What is free on the disk, and what a checkpoint needs, for messages."""
        try:
            free = disk.size_text(shutil.disk_usage(self.path).free)
        except OSError:
            return "the folder is not there any more"
        if self._needed:
            return f"{free} free, {disk.size_text(self._needed)} needed, as the last one took"
        return f"{free} free, about {disk.size_text(self._state_bytes)} needed"

    def check_there(self, step: int) -> None:
        """Raises CheckpointError if the folder was deleted or moved; Orbax would make it again."""
        try:
            there = os.path.samestat(os.stat(self.path), os.fstat(self._descriptor))
        except OSError:
            there = False
        if not there:
            raise CheckpointError(
                f"checkpoint {step} was not kept: {self.path} was deleted or moved while the run "
                "was training"
            )

    def check_ready(self, step: int, state_bytes: int) -> None:
        """Checks before a save that the folder is there, writable, and on a disk with enough room.

        Args:
          step: the checkpoint.
          state_bytes: bytes of the state in memory.

        Raises:
          CheckpointError: if it is not; nothing was written.
        """
        self._state_bytes = state_bytes
        self.check_there(step)
        try:
            self._try_writing()
            has_room = shutil.disk_usage(self.path).free >= self._needed
        except OSError as error:
            raise self.not_written(step, error) from error
        if not has_room:
            raise self.not_written(step, OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)))

    def not_written(self, step: int, error: BaseException) -> CheckpointError:
        """The error of a save that failed."""
        older = [kept for kept in steps_in(self.path) if kept != step]
        advice = "there is no older one"
        if older:
            advice = f"to go on from checkpoint {older[-1]}, run the same command again"
        return CheckpointError(
            f"checkpoint {step} was not written in {self.path}: {disk.short_reason(error)} "
            f"({self.room()}); {advice}"
        )

    def keep(
        self,
        newest: int,
        keep_last: int | None,
        keep_every: int | None,
        keep_step: int | None = None,
    ) -> None:
        """Removes old checkpoints.

        Args:
          newest: the newest one; later ones are left alone.
          keep_last: number of newest checkpoints that are kept; None for all.
          keep_every: checkpoints at multiples of this are kept; None for none of them.
          keep_step: one that is kept for good; None for none.
        """
        steps = [step for step in steps_in(self.path) if step <= newest]
        for step in steps[: -keep_last if keep_last else 0]:
            if step != keep_step and (not keep_every or step % keep_every):
                # Under another name first: if the process is killed now, no half is left.
                leaving = self.path / f"{step}{_UNFINISHED}"
                os.replace(self.path / str(step), leaving)
                shutil.rmtree(leaving)

    def remove_unfinished(self) -> None:
        """Removes what killed trainings left of checkpoints; no other may write meanwhile."""
        for path in self.path.iterdir():
            if _UNFINISHED in path.name:
                shutil.rmtree(path, ignore_errors=True)

    def close(self) -> None:
        """Ends the watch; `for_orbax` may not be used any more."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
