"""Ensures that a group has one consumer per topic of a spool, across processes.

The consumer holds a lock on a file next to the spool. The kernel releases it even after a kill -9.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
from pathlib import Path

__all__ = ["GroupLock"]


class GroupLock:
    """The lock of the only consumer of a group for a topic of this spool, on this machine."""

    def __init__(self, spool: Path, topic: str, group: str) -> None:
        digest = hashlib.sha256(f"{topic}\0{group}".encode()).hexdigest()[:16]
        self._path = spool.with_name(f"{spool.name}-{digest}.lock")
        self._fd: int | None = None

    def acquire(self) -> bool:
        """Try to get the lock; True if it is held now. May raise OSError."""
        if self._fd is not None:
            return True
        fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(fd)
            return False
        self._fd = fd
        return True

    def release(self) -> None:
        """Release the lock."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None
