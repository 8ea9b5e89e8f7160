"""Advice on the settings to lower where memory runs out."""

import contextlib
from collections.abc import Iterator

import jax

from lensjax.config import Config
from lensjax.devices.machine import describe_memory
from lensjax.errors import OutOfMemoryError

_WORDS = ("RESOURCE_EXHAUSTED", "Out of memory", "out of memory")


def _advice(mode: str, config: Config) -> str:
    if mode == "train":
        fields = [f"train.batch_size ({config.train.batch_size})"]
        if config.data.placement != "stream":
            fields.append("or set data.placement=stream")
        if jax.device_count() > 1 and config.parallel.strategy == "jit":
            fields.append("or divide the state by parallel.mesh, such as (1, devices)")
        if config.model.dtype != "bfloat16":
            fields.append("or set model.dtype=bfloat16")
        return ", ".join(fields)
    if mode == "classify":
        return f"classify.batch_size ({config.classify.batch_size})"
    return f"sample.batch_size ({config.sample.batch_size})"


@contextlib.contextmanager
def advising(mode: str, config: Config) -> Iterator[None]:
    """Names the settings to lower where memory runs out while it is open.

    Args:
      mode: mode of the command line.
      config: the configuration.

    Raises:
      OutOfMemoryError: instead of JAX's own error.
    """
    try:
        yield
    except (jax.errors.JaxRuntimeError, MemoryError) as error:
        reason = str(error).strip().partition("\n")[0][:200]
        if not isinstance(error, MemoryError) and not any(word in reason for word in _WORDS):
            raise
        raise OutOfMemoryError(
            f"out of memory ({describe_memory()}): lower {_advice(mode, config)}. {reason}"
        ) from error
