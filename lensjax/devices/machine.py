"""Memory of the machine and of its devices."""

import os

import jax

from lensjax.errors import ConfigError


def memory_bytes() -> int | None:
    """The machine's memory, None if the system does not say."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError):  # a system that has no such name
        return None


def device_bytes(device: jax.Device) -> int | None:
    """The memory of a device, None if JAX does not say."""
    return (device.memory_stats() or {}).get("bytes_limit") or None


def check_bytes(needed: int, field: str, got: object, what: str) -> None:
    """Checks that an array fits into the memory of the machine, before it is made.

    Args:
      needed: its bytes.
      field: the field of the configuration that makes it so large.
      got: its value.
      what: the array, such as "the images".

    Raises:
      ConfigError: if it does not; the message names the field.
    """
    held = memory_bytes()
    if held is not None and needed > held:
        raise ConfigError(
            field,
            got,
            f"{what} take {needed / 2**30:,.1f} GiB, and this machine has {held / 2**30:,.0f} GiB; "
            "allowed: less",
        )


def describe_memory() -> str:
    """The memory of a device where JAX says it, else that of the machine."""
    limit = device_bytes(jax.local_devices()[0])
    if limit:
        return f"{limit / 2**30:.0f} GiB per device"
    held = memory_bytes()
    return f"{held / 2**30:.0f} GiB per host" if held else "memory unknown"
