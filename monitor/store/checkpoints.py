"""Copies the write-ahead log of an SQLite file into the file, in a separate thread.

A checkpoint takes much longer than a commit: two fsyncs, and the writes of all pages. By default,
SQLite runs it in the commit that fills the log, and all other writers wait for it
(https://sqlite.org/wal.html#ckpt).
"""

from __future__ import annotations

import contextlib
import sqlite3
import threading
from collections.abc import Callable
from typing import Final

from monitor.errors import MonitorError

__all__ = ["Checkpoints", "copy_log"]

# From a commit to the next checkpoint.
_PAUSE_S: Final = 0.2
# From this many pages on, the log should restart.
_RESTART_PAGES: Final = 1000
_CLOSE_S: Final = 0.45


def copy_log(raw: sqlite3.Connection) -> tuple[int, int]:
    """Copy what is possible; return the pages in the log, and how many of them are copied."""
    _, pages, copied = raw.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
    return pages, copied


class Checkpoints:
    """A thread with a connection from ``connect``, which may raise MonitorError.

    The log restarts when a commit finds all of it copied. Under a steady load of commits only the
    writer can achieve this: if :attr:`behind` is set, it copies the few pages that are left.
    """

    def __init__(self, connect: Callable[[], sqlite3.Connection]) -> None:
        self._connect = connect
        self._thread: threading.Thread | None = None
        self._raw: sqlite3.Connection | None = None
        self._committed = threading.Event()
        self._stop = threading.Event()
        self.behind = False

    def committed(self) -> None:
        """Schedule a checkpoint after a commit; called in the thread of the writer."""
        if self._thread is None and not self._stop.is_set():
            thread = threading.Thread(target=self._run, name="sqlite-checkpoints", daemon=True)
            # If the system cannot start a thread, the next commit tries again.
            with contextlib.suppress(RuntimeError):
                thread.start()
                self._thread = thread
        self._committed.set()

    def close(self) -> None:
        """Stop the thread, waiting at most half a second; blocks."""
        self._stop.set()
        self._committed.set()
        raw, thread = self._raw, self._thread
        if raw is not None:
            with contextlib.suppress(sqlite3.ProgrammingError):  # closed meanwhile
                raw.interrupt()
        if thread is not None:
            thread.join(_CLOSE_S)

    def _run(self) -> None:
        try:
            while self._committed.wait() and not self._stop.wait(_PAUSE_S):
                self._committed.clear()
                # Commits report a disk that cannot be written. The next commit tries again.
                with contextlib.suppress(sqlite3.Error, MonitorError):
                    if self._raw is None:
                        self._raw = self._connect()
                    pages, copied = copy_log(self._raw)
                    self.behind = copied < pages and pages >= _RESTART_PAGES
        finally:
            if self._raw is not None:
                self._raw.close()
