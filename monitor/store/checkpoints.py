"""Copies the write-ahead log of an SQLite file into the file, beside the one that writes.

A checkpoint takes longer than a commit may, by two fsyncs and however many pages: done by whoever
commits the page that fills the log, as SQLite does by itself, everyone waits for it
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

# Between a commit and the next checkpoint.
_PAUSE_S: Final = 0.2
# Pages in the log from which on it should begin anew.
_RESTART_PAGES: Final = 1000
_CLOSE_S: Final = 0.45


def copy_log(raw: sqlite3.Connection) -> tuple[int, int]:
    """Return the pages in the log, and how many of them are in the file now."""
    _, pages, copied = raw.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
    return pages, copied


class Checkpoints:
    """A thread with a connection from ``connect``, which may raise MonitorError.

    The log begins anew where a commit finds all of it copied. While there is always another
    commit, only the writer can see to that: it looks at :attr:`behind` and copies the few
    pages that are left.
    """

    def __init__(self, connect: Callable[[], sqlite3.Connection]) -> None:
        self._connect = connect
        # So that who ends it finds it either not there at all, or running.
        self._starting = threading.Lock()
        self._thread: threading.Thread | None = None
        self._raw: sqlite3.Connection | None = None
        self._committed = threading.Event()
        self._stop = threading.Event()
        self.behind = False

    def committed(self) -> None:
        """Have what was just committed copied soon; for the writer's thread."""
        if self._thread is None:
            with self._starting:
                if not self._stop.is_set():
                    thread = threading.Thread(
                        target=self._run, name="sqlite-checkpoints", daemon=True
                    )
                    # Where the system has no thread to give, the next commit asks again.
                    with contextlib.suppress(RuntimeError):
                        thread.start()
                        self._thread = thread
        self._committed.set()

    def close(self) -> None:
        """End the thread, for at most half a second; blocks."""
        with self._starting:
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
                # A disk that takes nothing is told by the commits, the next of which tries again.
                with contextlib.suppress(sqlite3.Error, MonitorError):
                    if self._raw is None:
                        self._raw = self._connect()
                    pages, copied = copy_log(self._raw)
                    self.behind = copied < pages and pages >= _RESTART_PAGES
        finally:
            if self._raw is not None:
                self._raw.close()
