"""Memory of the machine and of its devices."""

import os

import jax

from lensjax.arguments import refuse
from lensjax.errors import RequestError, UserError


def memory_bytes() -> int | None:
    """The machine's memory, None if the system does not say."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError):  # a system that has no such name
        return None


def check_memory(
    name: str, number: int, bytes_each: int, what: str, *, error: type[UserError] = RequestError
) -> None:
    """Checks that an array that a caller asked for fits into the machine's memory.

    Args:
      name: of the argument that says how many.
      number: its value.
      bytes_each: bytes of each.
      what: each of them is, such as `image`.
      error: the class of the error.

    Raises:
      RequestError: or the class `error`, with what would fit.
    """
    held = memory_bytes()
    if held is not None and number * bytes_each > held:
        raise refuse(
            name,
            number,
            f"at most {held // bytes_each:,} on this machine, which has {held / 2**30:.3g} GiB of "
            f"memory, since each {what} takes {bytes_each:,} bytes",
            error,
        )


def device_bytes(device: jax.Device) -> int | None:
    """The memory of a device, None if JAX does not say."""
    return (device.memory_stats() or {}).get("bytes_limit") or None


def describe_memory() -> str:
    """The memory of a device where JAX says it, else that of the machine."""
    limit = device_bytes(jax.local_devices()[0])
    if limit:
        return f"{limit / 2**30:.0f} GiB per device"
    held = memory_bytes()
    return f"{held / 2**30:.0f} GiB per host" if held else "memory unknown"
