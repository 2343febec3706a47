"""Notices that an SQLite file was deleted, moved or replaced while it is open.

SQLite keeps using the file it has opened: commits succeed, and are gone with the process
(https://sqlite.org/howtocorrupt.html, 2.4). The daemon looks about once a second, and ends.
"""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path

__all__ = ["OpenFile", "Writing"]

# A write that takes longer is one of a disk that hangs.
_LATE_S = 10.0


class OpenFile:
    """The database file of a connection, to be made once the connection has read from it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._database = _identity(path)
        # SQLite finds them by name.
        self._others = {
            other: _identity(other) for other in (Path(f"{path}-wal"), Path(f"{path}-shm"))
        }

    def lost(self) -> bool:
        """Return whether another file, or none, is at the path now."""
        return _identity(self.path) != self._database

    def discard_log(self) -> None:
        """Delete the write-ahead log and its index: SQLite would apply them to a replacement."""
        for path, opened in self._others.items():
            if _identity(path) == opened:
                with contextlib.suppress(OSError):
                    path.unlink()


class Writing:
    """When the write that is under way began, if one is; for a thread and the loop."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._began: float | None = None

    def __enter__(self) -> None:
        self._began = time.monotonic()

    def __exit__(self, *_: object) -> None:
        self._began = None

    def problem(self) -> str | None:
        """Return what is wrong if the disk does not answer."""
        began = self._began
        if began is None or time.monotonic() < began + _LATE_S:
            return None
        return f"cannot write {self._path}: no answer from its disk for over {_LATE_S:g} s"


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        found = os.stat(path)  # noqa: PTH116 - some microseconds less than by a Path
    except OSError:
        return None
    return found.st_dev, found.st_ino
