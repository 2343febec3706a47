"""Makes the C library return free memory to the system.

glibc allocates large blocks directly from the system, and returns them when they are freed. But
each time it raises the threshold for large blocks, up to 32 MiB, and keeps up to twice the
threshold at the end of each thread's arena (mallopt(3), M_MMAP_THRESHOLD). So after a few large
messages or batches, a daemon with many threads keeps tens of megabytes of free memory. Fixed
thresholds prevent that.

It also makes an arena for each thread, up to eight for each CPU, and what is free in one is of no
use to the others. Python's lock lets one thread at a time allocate most of what there is, so two
are enough.
"""

from __future__ import annotations

from typing import Final

__all__ = ["give_memory_back"]

# From malloc.h.
_TRIM_THRESHOLD: Final = -1
_MMAP_THRESHOLD: Final = -3
_ARENA_MAX: Final = -8
# Such blocks are rare; each costs about 0.1 ms per MiB for new pages.
_LARGE_BYTES: Final = 1 << 20
_ARENAS: Final = 2
_LIMITS: Final = (
    (_MMAP_THRESHOLD, _LARGE_BYTES),
    (_TRIM_THRESHOLD, _LARGE_BYTES),
    (_ARENA_MAX, _ARENAS),
)


def give_memory_back() -> bool:
    """Set the limits of this process; return whether its C library supports that."""
    try:
        import ctypes

        mallopt = ctypes.CDLL(None).mallopt
    except (ImportError, OSError, AttributeError, MemoryError):  # musl, or no writable code
        return False
    return all(mallopt(what, limit) for what, limit in _LIMITS)
