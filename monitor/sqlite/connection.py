"""Connections to SQLite: their write-ahead log, and transactions that write."""

from __future__ import annotations

import contextlib
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final
from urllib.parse import quote

__all__ = ["settle", "transaction", "write_ahead"]

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


def settle(path: Path, *, patience: float) -> None:
    """Copy the write-ahead log into the file and delete it, unless another process has it open.

    For the end, once all connections are closed: SQLite deletes the log with the last one, but not
    where two are closed at once. A failure leaves the log, which is read at the next start. Waits
    for at most ``patience`` s for a lock; blocks.
    """
    if not Path(f"{path}-wal").exists():
        return
    with contextlib.suppress(sqlite3.Error):
        # Never create a file that was deleted meanwhile.
        raw = sqlite3.connect(
            f"file:{quote(str(path))}?mode=rw", uri=True, timeout=patience, isolation_level=None
        )
        with contextlib.closing(raw):
            raw.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()


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
