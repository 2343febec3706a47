"""Reads what is published to a spool, in its order, past the daemon."""

from __future__ import annotations

import contextlib
import json
import sqlite3
import threading
from pathlib import Path
from typing import Any

from tests.aggregation.plain import TOPIC

__all__ = ["SpoolTail"]

_LOOK_S = 0.5


class SpoolTail(threading.Thread):
    """Collects the results; the spool keeps the newest 1000 messages, which take half a minute."""

    def __init__(self, file: Path) -> None:
        super().__init__(name="spool-tail", daemon=True)
        self.results: list[dict[str, Any]] = []
        self._file = file
        self._next = 0
        self._ended = threading.Event()

    def run(self) -> None:
        while not self._ended.wait(_LOOK_S):
            self._look()

    def finish(self) -> None:
        """Read the last ones."""
        self._ended.set()
        self.join()
        self._look()

    def _look(self) -> None:
        # Whatever fails on a disk that is full is there at the next look.
        with (
            contextlib.suppress(sqlite3.Error),
            contextlib.closing(
                sqlite3.connect(f"file:{self._file}?mode=ro", uri=True, timeout=10)
            ) as connection,
        ):
            rows = connection.execute(
                "SELECT m.offset, m.value FROM message m JOIN topic t ON t.id = m.topic"
                " WHERE t.name = ? AND m.offset >= ? ORDER BY m.offset",
                (TOPIC, self._next),
            ).fetchall()
            for offset, value in rows:
                self._next = offset + 1
                self.results.append(json.loads(value))
