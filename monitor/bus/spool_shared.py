"""What one consumer of the spool has read, for the others of the topic in the same process.

They wake up together, and most of them read the same messages.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from monitor.bus.interface import Record

__all__ = ["SharedReads"]

# Bytes of messages that are kept for other consumers.
_MOST_BYTES = 4 * 1024 * 1024


class SharedReads:
    """The last read of one topic; called in the threads of its consumers."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._consumers = 0
        self._start = 0
        self._records: list[Record] = []
        # How many consumers have not taken them.
        self._missing = 0

    def join(self) -> None:
        """Add a consumer."""
        with self._lock:
            self._consumers += 1

    def leave(self) -> None:
        """Remove a consumer."""
        with self._lock:
            self._consumers -= 1
            self._records = []

    def read(self, start: int, limit: int, read: Callable[[], list[Record]]) -> list[Record]:
        """Return up to ``limit`` messages from offset ``start`` on; calls ``read`` if it must.

        A consumer waits while another one reads: what that finds is probably what it wants.
        """
        with self._lock:
            if self._records and start == self._start and len(self._records) <= limit:
                found = list(self._records)
                self._missing -= 1
                if not self._missing:
                    self._records = []
                return found
            found = read()
            if found and self._consumers > 1:
                small = sum(len(record.value) for record in found) <= _MOST_BYTES
                self._start, self._records = start, found if small else []
                self._missing = self._consumers - 1
            return found
