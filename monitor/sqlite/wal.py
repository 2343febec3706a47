"""Turns on SQLite's write-ahead log, by which readers and a writer do not wait for each other."""

from __future__ import annotations

import sqlite3
import time
from typing import Final

__all__ = ["write_ahead"]

_ASK_AGAIN_S: Final = 0.02


def write_ahead(raw: sqlite3.Connection, *, patience: float) -> None:
    """Turn WAL mode on; ``patience`` is for how many seconds others may be in the way.

    Raises sqlite3.Error. SQLite does not wait for a lock here where two processes at once turn
    it on: each holds what the other needs, so one of them is refused, however long its timeout.
    """
    until = time.monotonic() + patience
    while True:
        try:
            raw.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as error:
            busy = getattr(error, "sqlite_errorname", "").startswith("SQLITE_BUSY")
            if not busy or time.monotonic() > until:
                raise
        time.sleep(_ASK_AGAIN_S)
