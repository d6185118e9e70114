"""How the C library treats freed memory: what training frees in one step it needs in the next."""

from __future__ import annotations

import ctypes
import gc
import os

# Of mallopt(3): M_MMAP_MAX, M_TRIM_THRESHOLD and M_TOP_PAD, as MALLOC_MMAP_MAX_ and so on set them.
SETTINGS = {-4: 0, -1: 2**31 - 1, -2: 2**26}


def keep_freed_memory() -> bool:
    """Lets this process keep the memory it frees, and reuse it in the next step.

    Otherwise glibc returns large tensors to the system as soon as they are freed, and the next step
    pays for each of their pages again: up to three fifths of the time on wide networks. The process
    then holds its peak until it ends. Commands and worker processes of the library do this; call it
    in a script of your own before it trains.

    Returns:
        Whether it was done: not where the C library is another than glibc, nor where the
        environment has settings of its own (``MALLOC_…``).
    """
    if any(name.startswith("MALLOC_") for name in os.environ) or not _has_glibc():
        return False
    library = ctypes.CDLL(None)
    return all(library.mallopt(*setting) for setting in SETTINGS.items())


def give_back_freed_memory() -> None:
    """Returns the memory that is free now to the system, where the C library is glibc."""
    gc.collect()
    if _has_glibc():
        ctypes.CDLL(None).malloc_trim(0)


def _has_glibc() -> bool:
    try:
        return str(os.confstr("CS_GNU_LIBC_VERSION")).startswith("glibc")
    except (AttributeError, ValueError):
        return False
