"""The SQLite file of the spool: append, read, acknowledge, trim. Blocks; for threads.

Several processes may share one file (the units of a producer and a consumer): SQLite in WAL mode
allows that.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec

from monitor.bus.interface import Record
from monitor.sqlite.connection import transaction, write_ahead
from monitor.sqlite.file import OpenFile
from monitor.sqlite.own_file import (
    DamagedFileError,
    ForeignFileError,
    check_pages,
    recognize,
)

__all__ = ["UNREADABLE", "Outgoing", "SpoolFile"]

# "RxSp": the application_id of a spool, which distinguishes it from other SQLite files.
_APPLICATION_ID = 0x52785370
_TABLES = {"topic", "message", "committed"}
_KEPT_FOR_A_LOOK = 1000
_TRIM_ROWS = 2000
_BUSY_S = 5.0
_READ_BYTES = 33_554_432
_DELETE_ROWS = 500

_SCHEMA = """
CREATE TABLE topic (
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE
);
CREATE TABLE message (
    offset INTEGER PRIMARY KEY AUTOINCREMENT,
    topic INTEGER NOT NULL REFERENCES topic (id),
    key TEXT,
    headers BLOB NOT NULL,
    value BLOB NOT NULL,
    timestamp REAL NOT NULL
);
CREATE INDEX message_topic ON message (topic);
CREATE TABLE committed (
    topic INTEGER NOT NULL REFERENCES topic (id),
    consumer_group TEXT NOT NULL,
    next_offset INTEGER NOT NULL,
    PRIMARY KEY (topic, consumer_group)
) WITHOUT ROWID;
"""

_SELECT = (
    "SELECT t.name, m.offset, m.key, m.headers, m.value, m.timestamp"
    " FROM message m JOIN topic t ON t.id = m.topic"
)

_INSERT = "INSERT INTO message (topic, key, headers, value, timestamp) VALUES "
_ONE_ROW = "(?,?,?,?,?)"
# Rows per statement. Each statement releases the interpreter lock to the loop and takes it again,
# so many small statements cost both threads more than the rows themselves.
_INSERT_ROWS = (256, 32, 8, 1)


UNREADABLE = (sqlite3.Error, UnicodeDecodeError, DamagedFileError, ForeignFileError)
"""What the methods of :class:`SpoolFile` raise."""


class Outgoing(NamedTuple):
    """A message to append."""

    topic: str
    key: str | None
    headers: bytes
    value: bytes
    timestamp: float


_decode_headers = msgspec.json.Decoder(dict[str, str]).decode


class SpoolFile:
    """One connection to the spool; used by one thread at a time.

    Every method may raise sqlite3.Error: for a full disk, a file that is locked for too long, or a
    damaged one; for the last also UnicodeDecodeError and DamagedFileError (see ``is_damage``).
    """

    def __init__(self, path: Path, *, max_bytes: int) -> None:
        """Open or create the file."""
        self._max_bytes = max_bytes
        self._topics: dict[str, int] = {}
        # WAL recovery, or creating the tables, may run in two processes at once: the locks of
        # SQLite serialize them, with this timeout.
        self._db = sqlite3.connect(
            path, timeout=_BUSY_S, isolation_level=None, check_same_thread=False
        )
        try:
            _prepare(self._db)
        except BaseException:
            self._db.close()
            raise
        self.opened = OpenFile(path)

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    # Writing.

    def append(self, messages: Sequence[Outgoing]) -> int:
        """Append messages in one transaction; return how many unread ones it deleted for them."""
        db = self._db
        with transaction(db):
            dropped = self._make_room()
            ids = {name: self._topic(name) for name in {message.topic for message in messages}}
            first = 0
            for rows in _INSERT_ROWS:
                while len(messages) - first >= rows:
                    values: list[object] = []
                    for topic, *rest in messages[first : first + rows]:
                        values += (ids[topic], *rest)
                    db.execute(_INSERT + ",".join([_ONE_ROW] * rows), values)
                    first += rows
        return dropped

    def _topic(self, name: str) -> int:
        known = self._known_topic(name)
        if known is not None:
            return known
        # Not among the known ones yet: a rollback would remove it.
        return int(self._db.execute("INSERT INTO topic (name) VALUES (?)", (name,)).lastrowid or 0)

    def used_bytes(self) -> int:
        """Return the size of the file without its free pages."""
        (size,) = self._db.execute("PRAGMA page_size").fetchone()
        (pages,) = self._db.execute("PRAGMA page_count").fetchone()
        (free,) = self._db.execute("PRAGMA freelist_count").fetchone()
        return int(size * (pages - free))

    def _make_room(self) -> int:
        """Delete the oldest messages while the file is too large; return how many were unread."""
        dropped = 0
        while self.used_bytes() > self._max_bytes:
            rows = self._db.execute(
                "SELECT m.offset, m.offset >= coalesce("
                "  (SELECT min(next_offset) FROM committed c WHERE c.topic = m.topic), 0)"
                " FROM message m ORDER BY m.offset LIMIT ?",
                (_TRIM_ROWS,),
            ).fetchall()
            if not rows:
                break
            dropped += sum(unread for _, unread in rows)
            self._db.execute("DELETE FROM message WHERE offset <= ?", (rows[-1][0],))
        return dropped

    def trim_read(self) -> None:
        """Delete messages that all groups have read, except for the newest of each topic."""
        for topic, read in self._db.execute(
            "SELECT topic, min(next_offset) FROM committed GROUP BY topic"
        ).fetchall():
            newest = self._db.execute(
                "SELECT offset FROM message WHERE topic = ? ORDER BY offset DESC LIMIT 1 OFFSET ?",
                (topic, _KEPT_FOR_A_LOOK - 1),
            ).fetchone()
            if newest is not None:
                self._delete_below(topic, min(read, newest[0]))
        self._db.execute("PRAGMA incremental_vacuum(1000)").fetchall()

    def _delete_below(self, topic: int, offset: int) -> None:
        # In small transactions, so that readers and other processes never wait long for the lock.
        while True:
            done = self._db.execute(
                "DELETE FROM message WHERE offset IN (SELECT offset FROM message"
                " WHERE topic = ? AND offset < ? ORDER BY offset LIMIT ?)",
                (topic, offset, _TRIM_ROWS),
            ).rowcount
            if done < _TRIM_ROWS:
                return

    def delete(self, topic: str, offsets: Sequence[int]) -> None:
        """Delete acknowledged messages of a topic."""
        found = self._known_topic(topic)
        with transaction(self._db):
            for start in range(0, len(offsets), _DELETE_ROWS):
                some = offsets[start : start + _DELETE_ROWS]
                marks = ",".join("?" * len(some))
                self._db.execute(
                    f"DELETE FROM message WHERE topic = ? AND offset IN ({marks})",  # noqa: S608
                    (found, *some),
                )

    def commit(self, topic: str, group: str, next_offset: int) -> None:
        """Store the offset that the group reads next."""
        with transaction(self._db):
            self._db.execute(
                "INSERT OR REPLACE INTO committed (topic, consumer_group, next_offset)"
                " VALUES (?, ?, ?)",
                (self._topic(topic), group, next_offset),
            )

    # Reading.

    def read(self, topic: str, start: int, limit: int) -> list[Record]:
        """Return messages from offset ``start`` on: up to ``limit``, and about 32 MiB."""
        found = self._known_topic(topic)
        if found is None:
            return []
        rows = self._db.execute(
            f"{_SELECT} WHERE m.topic = ? AND m.offset >= ? ORDER BY m.offset LIMIT ?",
            (found, start, limit),
        )
        records = []
        size = 0
        try:
            for name, offset, key, headers, value, timestamp in rows:
                records.append(
                    Record(name, 0, offset, key, _decode_headers(headers), value, timestamp)
                )
                size += len(value)
                if size > _READ_BYTES:
                    break
            return records
        except msgspec.DecodeError as error:
            raise DamagedFileError(f"the headers of a message: {error}") from None

    def before(self, topic: str, offset: int, count: int) -> int:
        """Return the offset of a topic's message ``count`` before ``offset``, or of its first."""
        (found,) = self._db.execute(
            "SELECT min(offset) FROM (SELECT offset FROM message WHERE topic = ? AND offset < ?"
            " ORDER BY offset DESC LIMIT ?)",
            (self._known_topic(topic), offset, count),
        ).fetchone()
        return offset if found is None else int(found)

    def newest(self, topic: str, limit: int) -> list[Record]:
        """Return the newest messages of a topic, oldest first; bounded as :meth:`read`."""
        row = self._db.execute(
            "SELECT min(offset) FROM (SELECT offset FROM message WHERE topic = ?"
            " ORDER BY offset DESC LIMIT ?)",
            (self._known_topic(topic), limit),
        ).fetchone()
        return [] if row[0] is None else self.read(topic, row[0], limit)

    def _known_topic(self, name: str) -> int | None:
        found = self._topics.get(name)
        if found is None:
            row = self._db.execute("SELECT id FROM topic WHERE name = ?", (name,)).fetchone()
            if row is None:
                return None
            found = self._topics[name] = row[0]
        return found

    def committed(self, topic: str, group: str) -> int | None:
        """Return the offset that the group reads next, or None if it never committed."""
        row = self._db.execute(
            "SELECT next_offset FROM committed JOIN topic ON topic.id = committed.topic"
            " WHERE topic.name = ? AND consumer_group = ?",
            (topic, group),
        ).fetchone()
        return None if row is None else int(row[0])

    def commits(self) -> list[tuple[str, str, int]]:
        """Return topic, group and the offset that the group reads next, of all groups."""
        return self._db.execute(
            "SELECT name, consumer_group, next_offset FROM committed"
            " JOIN topic ON topic.id = committed.topic"
        ).fetchall()

    def end(self) -> int:
        """Return the lowest offset that the next message can have."""
        row = self._db.execute("SELECT seq FROM sqlite_sequence WHERE name = 'message'").fetchone()
        return int(row[0]) + 1

    def count(self, topic: str | None = None, start: int = 0) -> int:
        """Return the number of messages from offset ``start`` on; of all topics for None."""
        if topic is None:
            return int(self._db.execute("SELECT count(*) FROM message").fetchone()[0])
        row = self._db.execute(
            "SELECT count(*) FROM message WHERE topic = (SELECT id FROM topic WHERE name = ?)"
            " AND offset >= ?",
            (topic, start),
        ).fetchone()
        return int(row[0])

    def check(self) -> None:
        """Look for damage that keeps the spool from being opened."""
        self.end()
        check_pages(self._db)

    def waiting_topics(self) -> list[str]:
        """Return the topics that have messages."""
        return [
            name
            for (name,) in self._db.execute(
                "SELECT name FROM topic WHERE EXISTS"
                " (SELECT 1 FROM message WHERE message.topic = topic.id)"
            )
        ]

    def topics(self) -> list[str]:
        """Return the topics' names."""
        return [name for (name,) in self._db.execute("SELECT name FROM topic ORDER BY name")]


def _prepare(db: sqlite3.Connection) -> None:
    # In one transaction, because another process may create the tables in between.
    db.execute("BEGIN")
    try:
        tables = recognize(db, application_id=_APPLICATION_ID, tables=_TABLES)
    finally:
        if db.in_transaction:
            db.execute("ROLLBACK")
    if not tables:
        db.execute("PRAGMA auto_vacuum = INCREMENTAL")
    write_ahead(db, patience=_BUSY_S)
    # Offsets that consumers have stored elsewhere must not be assigned again after a power cut:
    # FULL syncs each commit, a few per second.
    db.execute("PRAGMA synchronous = FULL")
    db.execute("PRAGMA journal_size_limit = 8388608")
    db.execute("PRAGMA cache_size = -2048")
    if tables:
        return
    with transaction(db):
        if not recognize(db, application_id=_APPLICATION_ID, tables=_TABLES):
            for statement in _SCHEMA.split(";"):
                db.execute(statement)
            db.execute(f"PRAGMA application_id = {_APPLICATION_ID}")
            db.execute(
                "INSERT INTO sqlite_sequence (name, seq) VALUES ('message', ?)",
                (time.time_ns() // 1000,),
            )
