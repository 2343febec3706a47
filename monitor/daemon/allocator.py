"""Has the C library give memory back that was needed for a moment.

glibc takes what is large directly from the system, and gives it back as soon as it is free. But
each time that it does so it raises the bound of what is large, up to 32 MiB, and keeps up to
twice that bound at the end of each thread's arena (mallopt(3), M_MMAP_THRESHOLD). So a few large
messages or batches leave a daemon of many threads with tens of megabytes that are free, and never
the same. Bounds that are set stay.
"""

from __future__ import annotations

from typing import Final

__all__ = ["give_memory_back"]

# From malloc.h.
_TRIM_THRESHOLD: Final = -1
_MMAP_THRESHOLD: Final = -3
# Rarely met; each piece costs its pages anew, about 0.1 ms for a MiB.
_LARGE_BYTES: Final = 1 << 20


def give_memory_back() -> bool:
    """Set the bounds for this process; return whether its C library has such."""
    try:
        import ctypes

        mallopt = ctypes.CDLL(None).mallopt
    except (ImportError, OSError, AttributeError, MemoryError):  # musl; no writable code
        return False
    return all(mallopt(what, _LARGE_BYTES) for what in (_MMAP_THRESHOLD, _TRIM_THRESHOLD))
