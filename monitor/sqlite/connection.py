"""Connections to SQLite: their write-ahead log, and transactions that write."""

from __future__ import annotations

import contextlib
import sqlite3
import time
from collections.abc import Iterator
from typing import Final

__all__ = ["transaction", "write_ahead"]

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


@contextlib.contextmanager
def transaction(raw: sqlite3.Connection) -> Iterator[None]:
    """Hold SQLite's write lock, and commit; roll back after an error."""
    raw.execute("BEGIN IMMEDIATE")
    try:
        yield
        raw.execute("COMMIT")
    except BaseException:
        # After some errors (a full disk, an interrupt) SQLite has already rolled back by itself.
        if raw.in_transaction:
            with contextlib.suppress(sqlite3.Error):
                raw.execute("ROLLBACK")
        raise
