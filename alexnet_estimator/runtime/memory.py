"""How the C library hands out memory."""

import ctypes
import os

# Parameters of mallopt, see malloc.h of glibc.
_TRIM_THRESHOLD = -1
_TOP_PAD = -2
_MMAP_MAX = -4
_ARENA_MAX = -8
_SETTINGS = {
    _ARENA_MAX: 1,  # Other arenas than the first take large blocks from mmap.
    _MMAP_MAX: 0,
    _TRIM_THRESHOLD: -1,  # Nothing is given back.
    _TOP_PAD: 64 << 20,
}


def keep_freed_memory() -> None:
    """Let this process use its memory again instead of giving it back.

    Every step on a CPU asks for the same blocks of up to 100 MiB.  Left alone, glibc
    maps and unmaps them, and the kernel clears each page anew: a sixth of the step
    (docs/performance.md).  The user's own settings of ``malloc`` stay.
    """
    is_set = any(name.startswith("MALLOC_") for name in os.environ)
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # Only glibc has it.
    if is_set or "GLIBC_TUNABLES" in os.environ or mallopt is None:
        return
    for parameter, value in _SETTINGS.items():
        mallopt(parameter, value)
