"""Memory of the machine and of its devices."""

import os

import jax


def memory_bytes() -> int | None:
    """The machine's memory, None if the system does not say."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError):  # a system that has no such name
        return None


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
