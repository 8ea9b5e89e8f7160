"""Compiled programs on disk, so that a command that runs again need not compile again.

JAX does the work. It takes a lock to write an entry only where the folder's size is bounded;
without the lock, a process can read an entry that another has half written.
"""

import os
import pathlib
import warnings

import filelock
import jax
from absl import logging

from lensjax.errors import ConfigError
from lensjax.files.cache_folder import cache_folder
from lensjax.files.user_paths import expanded

FOLDER = "programs"
_SETTINGS = {
    "jax_compilation_cache_max_size": 2**30,  # bytes; the least recently used programs go first
    # Seconds. A training begins with two dozen programs; those below take 0.2 s together.
    "jax_persistent_cache_min_compile_time_secs": 0.02,
}
_LOCK_SECONDS = 10.0  # as long as JAX waits


def keep_programs() -> None:
    """Makes JAX keep compiled programs below `cache_folder()`.

    The user's choice of a folder (`JAX_COMPILATION_CACHE_DIR`) or of no cache
    (`JAX_ENABLE_COMPILATION_CACHE=false`) stays, as does each setting that the environment names. A
    folder that cannot be written to is logged as a warning; a disk that fills up later is ignored.
    JAX's key of a program has JAX's version, the devices and, on CPU, the processor's features.
    """
    chosen = jax.config.values["jax_compilation_cache_dir"]
    if chosen is not None:
        if chosen and "://" not in chosen:  # JAX takes addresses too
            folder = os.fspath(expanded(chosen, "JAX_COMPILATION_CACHE_DIR"))
            jax.config.update("jax_compilation_cache_dir", folder)
        return
    if not jax.config.values["jax_enable_compilation_cache"]:
        return
    try:
        own = cache_folder() / FOLDER
        remove_cut_entries(own, bounded="JAX_COMPILATION_CACHE_MAX_SIZE" not in os.environ)
    # ConfigError: no home folder; RuntimeError: no locks on this disk.
    except (OSError, RuntimeError, ConfigError) as error:
        logging.warning("compiled programs are not kept for the next run: %s", error)
        return
    jax.config.update("jax_compilation_cache_dir", os.fspath(own))
    for name, value in _SETTINGS.items():
        if name.upper() not in os.environ:
            jax.config.update(name, value)
    warnings.filterwarnings("ignore", "Error (reading|writing) persistent compilation cache")


def remove_cut_entries(folder: pathlib.Path, bounded: bool) -> None:
    """Makes the cache folder, and removes entries that a kill or a full disk has cut short.

    JAX writes the file with an entry's access time last, so an entry without one was cut. JAX up to
    0.10 would keep it and compile its program in every process. A cut entry that was read in the
    meantime has an access time and looks like a complete one; it stays. Only a cache of bounded
    size has these files.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with filelock.FileLock(folder / ".lockfile", timeout=_LOCK_SECONDS):  # JAX's own name
        for entry in folder.glob("*-cache") if bounded else ():
            if not entry.with_name(entry.name.removesuffix("cache") + "atime").exists():
                entry.unlink()
        (folder / ".writable").write_bytes(b"1")
