"""Settings of the memory allocator of the C library."""

import ctypes
import os

# Parameters of mallopt, see malloc.h of glibc.
_TRIM_THRESHOLD = -1
_TOP_PAD = -2
_MMAP_MAX = -4
_ARENA_MAX = -8
_SETTINGS = {
    _ARENA_MAX: 1,  # Other arenas than the first would use mmap for large blocks.
    _MMAP_MAX: 0,
    _TRIM_THRESHOLD: -1,  # Freed memory is never returned to the kernel.
    _TOP_PAD: 64 << 20,
}


def keep_freed_memory() -> None:
    """Make glibc reuse freed memory instead of returning it to the kernel.

    Every step on a CPU allocates the same blocks of up to 100 MiB.  By default, glibc
    maps and unmaps them, and the kernel clears every page again, which takes a sixth of
    the step (docs/performance.md).  Settings of ``malloc`` by the user are kept.
    """
    is_set = any(name.startswith("MALLOC_") for name in os.environ)
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # Only glibc has it.
    if is_set or "GLIBC_TUNABLES" in os.environ or mallopt is None:
        return
    for parameter, value in _SETTINGS.items():
        mallopt(parameter, value)
