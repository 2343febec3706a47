"""The SQLite file in which histories survive a restart. It blocks, and needs a thread of its own.

A channel is a row; a chunk of its messages is a row, too: those that came between two
transactions. So saving costs a few slices and one transaction, however many messages there were,
and after kill -9 the file holds exactly what the last transaction left. Every chunk has a
checksum, since SQLite itself has none.
"""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
import zlib
from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from monitor.relay.channel import Channel, End
from monitor.sqlite.file import OpenFile

__all__ = [
    "ChannelRow",
    "ChunkRow",
    "CorruptHistoryError",
    "ForeignFileError",
    "HistoryFile",
    "SaveBatch",
    "Saved",
    "set_aside",
]

# "RxHi", the PRAGMA application_id of a history file.
_APPLICATION_ID = 0x52784869
_VERSION = 1
# The beginning of every SQLite file: https://sqlite.org/fileformat.html#magic_header_string
_MAGIC = b"SQLite format 3\0"
_FREED_PAGES = 2000
# How SQLite's error codes begin if the content of the file is wrong.
_DAMAGE = (
    "SQLITE_CORRUPT",
    "SQLITE_NOTADB",
    "SQLITE_ERROR",
    "SQLITE_FORMAT",
    "SQLITE_MISMATCH",
    "SQLITE_IOERR_SHORT_READ",
)
# How many earlier epochs a channel keeps; each is a crash.
_ANCESTORS = 4

_SCHEMA = """
CREATE TABLE channel (
    key INTEGER PRIMARY KEY,
    name BLOB NOT NULL,
    epoch TEXT NOT NULL,
    ancestors TEXT NOT NULL,
    first INTEGER NOT NULL,
    ended TEXT,
    failed INTEGER NOT NULL,
    at REAL NOT NULL
);
CREATE TABLE chunk (
    channel INTEGER NOT NULL,
    first INTEGER NOT NULL,
    frames BLOB NOT NULL,
    sizes BLOB NOT NULL,
    times BLOB NOT NULL,
    checksum INTEGER NOT NULL
);
CREATE UNIQUE INDEX chunk_place ON chunk (channel, first);
CREATE TABLE saved (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    at REAL NOT NULL,
    clean INTEGER NOT NULL,
    outages TEXT NOT NULL
);
"""


class CorruptHistoryError(Exception):
    """The file is damaged; its text says how."""


class ForeignFileError(Exception):
    """The file is another program's, or of a version to come."""


class ChannelRow(NamedTuple):
    """A channel as it is saved; ``at`` is when it got its last message, or ended."""

    key: int
    name: bytes
    epoch: str
    ancestors: str
    first: int
    ended: str | None
    failed: bool
    at: float


class ChunkRow(NamedTuple):
    """Messages of a channel from position ``first`` on: frames, their sizes, their times."""

    channel: int
    first: int
    frames: bytes
    sizes: bytes
    times: bytes

    def checksum(self) -> int:
        """Return the checksum to store."""
        value = zlib.crc32(b"%d %d" % (self.channel, self.first))
        for part in (self.frames, self.sizes, self.times):
            value = zlib.crc32(part, value)
        return value


@dataclass(slots=True)
class SaveBatch:
    """What one transaction saves; ``at`` is now, in s since the epoch."""

    at: float
    # when the feed was interrupted, as a JSON list of pairs
    outages: str = "[]"
    channels: list[ChannelRow] = field(default_factory=list)
    chunks: list[ChunkRow] = field(default_factory=list)
    forgotten: list[int] = field(default_factory=list)


class Saved(NamedTuple):
    """The content of a file: channels, each with the time of its last message or end."""

    channels: list[tuple[Channel, float]]
    # when it was last written; None for a new file
    at: float | None
    # whether nothing can be missing: the relay was stopped cleanly
    clean: bool
    # when the feed was interrupted: since when, and until when (None: until the end)
    outages: list[tuple[float, float | None]]


class HistoryFile:
    """One connection to the file, which no other process may have at the same time.

    Every method may raise sqlite3.Error: the disk is full, or fails.
    """

    def __init__(self, path: Path) -> None:
        """Open, or create; raises CorruptHistoryError, ForeignFileError or sqlite3.Error."""
        new = not path.exists() or not path.stat().st_size
        if not new and not _is_sqlite(path):
            raise ForeignFileError("is not a history file of this daemon; name another")
        if new:
            # Readable by the group, and by nobody else, independently of the umask.
            os.close(os.open(path, os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o640))
        # Opened, used and closed by several threads, one at a time.
        self._database = sqlite3.connect(
            path, timeout=0.5, isolation_level=None, check_same_thread=False
        )
        try:
            self._prepare(new=new)
        except BaseException:
            self._database.close()
            raise
        self.opened = OpenFile(path)

    def _prepare(self, *, new: bool) -> None:
        execute = self._database.execute
        try:
            # The lock lasts as long as the process, and no shared-memory file is needed.
            execute("PRAGMA locking_mode = EXCLUSIVE")
            if new:
                execute("PRAGMA auto_vacuum = INCREMENTAL")
            execute("PRAGMA journal_mode = WAL")
            execute("PRAGMA synchronous = NORMAL")
            execute("PRAGMA journal_size_limit = 16777216")
            if new:
                execute("BEGIN IMMEDIATE")
                for statement in _SCHEMA.split(";"):
                    execute(statement)
                execute(f"PRAGMA application_id = {_APPLICATION_ID}")
                execute(f"PRAGMA user_version = {_VERSION}")
                execute("COMMIT")
            self._recognize()
            problem = execute("PRAGMA quick_check(1)").fetchone()[0]
            if problem != "ok":
                raise CorruptHistoryError(problem.splitlines()[-1])
        except sqlite3.Error as error:
            _raise_if_damaged(error)
            raise

    def _recognize(self) -> None:
        execute = self._database.execute
        found = execute("PRAGMA application_id").fetchone()[0]
        version = execute("PRAGMA user_version").fetchone()[0]
        tables = {name for (name,) in execute("SELECT name FROM sqlite_schema")}
        if found != _APPLICATION_ID and not tables & {"chunk", "channel", "saved"}:
            raise ForeignFileError("is another program's SQLite file; name another")
        if (found, version) != (_APPLICATION_ID, _VERSION):
            raise CorruptHistoryError(f"its version is {version}, this program's is {_VERSION}")

    def load(self) -> Saved:
        """Return what is saved, and note that from now on something may be missing."""
        execute = self._database.execute
        try:
            saved = execute("SELECT at, clean, outages FROM saved").fetchone()
            outages = [(s, u) for s, u in json.loads(saved[2])] if saved is not None else []
            channels = self._channels()
            # An orphan is the result of a defect; nobody could ever read it.
            execute("DELETE FROM chunk WHERE channel NOT IN (SELECT key FROM channel)")
            execute("UPDATE saved SET clean = 0")
        except sqlite3.Error as error:
            _raise_if_damaged(error)
            raise
        except (ValueError, TypeError) as error:
            raise CorruptHistoryError(str(error)) from None
        if saved is None:
            return Saved(channels, None, True, [])
        return Saved(channels, saved[0], bool(saved[1]), outages)

    def write(self, batch: SaveBatch) -> None:
        """Save a batch, all of it or nothing; the same batch may be written twice."""
        with self._transaction() as execute:
            for key in batch.forgotten:
                execute("DELETE FROM channel WHERE key = ?", (key,))
                execute("DELETE FROM chunk WHERE channel = ?", (key,))
            many = self._database.executemany
            many("INSERT OR REPLACE INTO channel VALUES (?, ?, ?, ?, ?, ?, ?, ?)", batch.channels)
            many(
                "INSERT OR REPLACE INTO chunk VALUES (?, ?, ?, ?, ?, ?)",
                [(*chunk, chunk.checksum()) for chunk in batch.chunks],
            )
            # Delete what was trimmed, as far as it is whole rows.
            many(
                "DELETE FROM chunk WHERE channel = ? AND first + length(sizes) / 4 <= ?",
                [(row.key, row.first) for row in batch.channels if row.first],
            )
            execute("INSERT OR REPLACE INTO saved VALUES (1, ?, 0, ?)", (batch.at, batch.outages))
        # Return the space of deleted rows to the file system little by little.
        self._database.execute(f"PRAGMA incremental_vacuum({_FREED_PAGES})").fetchall()

    def close(self, clean_at: float | None) -> None:
        """Close; with ``clean_at`` note that at this time everything was saved."""
        with contextlib.closing(self._database):
            if clean_at is not None:
                with self._transaction() as execute:
                    execute("INSERT OR IGNORE INTO saved VALUES (1, ?, 1, '[]')", (clean_at,))
                    execute("UPDATE saved SET at = ?, clean = 1", (clean_at,))

    @contextlib.contextmanager
    def _transaction(self):  # type: ignore[no-untyped-def]
        self._database.execute("BEGIN IMMEDIATE")
        try:
            yield self._database.execute
            self._database.execute("COMMIT")
        except BaseException:
            if self._database.in_transaction:
                self._database.execute("ROLLBACK")
            raise

    def _channels(self) -> list[tuple[Channel, float]]:
        found: dict[int, tuple[Channel, ChannelRow]] = {}
        for values in self._database.execute("SELECT * FROM channel"):
            row = ChannelRow(*values)
            channel = Channel(bytes(row.name), row.epoch)
            channel.key = row.key
            channel.ancestors = tuple(
                (str(old), int(end)) for old, end in json.loads(row.ancestors)
            )
            channel.end_kind = None if row.ended is None else End(row.ended)
            channel.failed = bool(row.failed)
            found[row.key] = channel, row
        chunks = self._database.execute("SELECT * FROM chunk ORDER BY channel, first")
        for *values, checksum in chunks:
            chunk = ChunkRow(*values)
            if chunk.checksum() != checksum:
                raise CorruptHistoryError("a checksum is wrong")
            if chunk.channel in found:
                _extend(found[chunk.channel][0], chunk)
        for channel, row in found.values():
            if row.first > channel.end:
                # All was trimmed, down to the last row of messages.
                channel.restart(row.first)
            elif row.first > channel.first:
                channel.trim(row.first - channel.first)
            channel.saved = channel.end
        return [(channel, float(row.at)) for channel, row in found.values()]


def _is_sqlite(path: Path) -> bool:
    """Return whether a file is SQLite's, even if damaged."""
    with path.open("rb") as file:
        return file.read(len(_MAGIC)) == _MAGIC


def _raise_if_damaged(error: sqlite3.Error) -> None:
    """Raise CorruptHistoryError if the cause is the file, not the disk or another process."""
    name = getattr(error, "sqlite_errorname", "SQLITE_ERROR")
    if name.startswith(_DAMAGE):
        raise CorruptHistoryError(str(error)) from None


def _extend(channel: Channel, chunk: ChunkRow) -> None:
    if not len(channel) and not channel.end:
        channel.restart(chunk.first)
    if chunk.first != channel.end:
        raise CorruptHistoryError("messages are missing in the middle")
    sizes, times = array("I", chunk.sizes), array("d", chunk.times)
    if len(sizes) != len(times) or sum(sizes) != len(chunk.frames):
        raise CorruptHistoryError("sizes that do not fit their messages")
    channel.extend(chunk.frames, sizes, times)


def after_a_crash(channels: Sequence[Channel], new_epoch: str) -> None:
    """Give channels that may lack their last messages a new epoch, beginning where they end.

    Up to there the old epoch is the same: a client that has no more than that can resume exactly,
    and a client that has more learns that it cannot.
    """
    for number, channel in enumerate(channels):
        if not channel.ended:
            channel.ancestors = (*channel.ancestors, (channel.epoch, channel.end))[-_ANCESTORS:]
            channel.epoch = f"{new_epoch}.{number:x}"


def set_aside(path: Path) -> Path:
    """Move a file, and its log, out of the way; return where to (an older one goes)."""
    aside = path.with_name(f"{path.name}.corrupt")
    for suffix in ("-wal", "-shm"):
        Path(f"{aside}{suffix}").unlink(missing_ok=True)
        with contextlib.suppress(FileNotFoundError):
            Path(f"{path}{suffix}").replace(f"{aside}{suffix}")
    path.replace(aside)
    return aside
