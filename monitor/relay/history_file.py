"""The SQLite file in which histories survive a restart. It blocks, and needs a thread of its own.

A channel is a row; a chunk of its messages is a row, too: those that came between two
transactions. So saving costs a few slices and one transaction, however many messages there were,
and after kill -9 the file holds exactly what the last transaction left. Every chunk has a
checksum, since SQLite itself has none.
"""

from __future__ import annotations

import contextlib
import json
import sqlite3
import zlib
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from monitor.relay.channel import Channel, End
from monitor.sqlite import own_file
from monitor.sqlite.connection import transaction, write_ahead
from monitor.sqlite.file import OpenFile
from monitor.sqlite.own_file import DamagedFileError, ForeignFileError

__all__ = [
    "ChannelRow",
    "ChunkRow",
    "HistoryFile",
    "SaveBatch",
    "Saved",
    "after_a_crash",
]

# "RxHi", the PRAGMA application_id of a history file.
_APPLICATION_ID = 0x52784869
_VERSION = 1
_TABLES = {"channel", "chunk", "saved"}
_FREED_PAGES = 2000
# How long another process may have the file locked: a backup, or a daemon that is stopping.
_BUSY_S = 5.0

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
        """Open, or create; raises DamagedFileError, ForeignFileError, OSError or sqlite3.Error."""
        own_file.create(path)
        if path.stat().st_size and not own_file.has_header(path):
            raise ForeignFileError("it is not an SQLite database")
        self._path = path
        # Opened, used and closed by several threads, one at a time.
        self._database = sqlite3.connect(
            path, timeout=_BUSY_S, isolation_level=None, check_same_thread=False
        )
        try:
            with self._damage():
                self._prepare()
        except BaseException:
            self._database.close()
            raise
        self.opened = OpenFile(path)

    def _prepare(self) -> None:
        database, execute = self._database, self._database.execute
        # The lock lasts as long as the process, and no shared-memory file is needed.
        execute("PRAGMA locking_mode = EXCLUSIVE")
        new = not own_file.recognize(database, application_id=_APPLICATION_ID, tables=_TABLES)
        if new:
            execute("PRAGMA auto_vacuum = INCREMENTAL")
        write_ahead(database, patience=_BUSY_S)
        execute("PRAGMA synchronous = NORMAL")
        execute("PRAGMA journal_size_limit = 16777216")
        if new:
            with transaction(database):
                for statement in _SCHEMA.split(";"):
                    execute(statement)
                execute(f"PRAGMA application_id = {_APPLICATION_ID}")
                execute(f"PRAGMA user_version = {_VERSION}")
        (version,) = execute("PRAGMA user_version").fetchone()
        if version != _VERSION:
            raise DamagedFileError(f"its version is {version}, this program's is {_VERSION}")
        own_file.check_pages(database)

    @contextlib.contextmanager
    def _damage(self) -> Iterator[None]:
        """Raise DamagedFileError for any error that the file's content is to blame for."""
        try:
            yield
        except (sqlite3.Error, ValueError, TypeError) as error:
            # A ValueError or TypeError comes from a value that the relay never writes.
            if isinstance(error, sqlite3.Error) and not own_file.is_damage(error):
                raise
            raise DamagedFileError(str(error)) from None

    def load(self) -> Saved:
        """Return what is saved, and note that from now on something may be missing."""
        execute = self._database.execute
        with self._damage():
            saved = execute("SELECT at, clean, outages FROM saved").fetchone()
            outages = [(s, u) for s, u in json.loads(saved[2])] if saved is not None else []
            channels = self._channels()
            # An orphan is the result of a defect; nobody could ever read it.
            execute("DELETE FROM chunk WHERE channel NOT IN (SELECT key FROM channel)")
            execute("UPDATE saved SET clean = 0")
        if saved is None:
            return Saved(channels, None, True, [])
        return Saved(channels, saved[0], bool(saved[1]), outages)

    def write(self, batch: SaveBatch) -> None:
        """Save a batch, all of it or nothing; the same batch may be written twice."""
        execute = self._database.execute
        with transaction(self._database):
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
                execute = self._database.execute
                with transaction(self._database):
                    execute("INSERT OR IGNORE INTO saved VALUES (1, ?, 1, '[]')", (clean_at,))
                    execute("UPDATE saved SET at = ?, clean = 1", (clean_at,))

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
                raise DamagedFileError("a checksum is wrong")
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


def _extend(channel: Channel, chunk: ChunkRow) -> None:
    if not len(channel) and not channel.end:
        channel.restart(chunk.first)
    if chunk.first != channel.end:
        raise DamagedFileError("messages are missing in the middle")
    sizes, times = array("I", chunk.sizes), array("d", chunk.times)
    if len(sizes) != len(times) or sum(sizes) != len(chunk.frames):
        raise DamagedFileError("sizes that do not fit their messages")
    channel.extend(chunk.frames, sizes, times)


def after_a_crash(channels: Sequence[Channel], new_epoch: str) -> None:
    """Give channels that may lack their last messages a new epoch, beginning where they end.

    Up to there the old epoch is the same: a client that has no more than that can resume exactly,
    and a client that has more learns that it cannot.
    """
    for number, channel in enumerate(channels):
        if not channel.ended:
            channel.continue_as(
                f"{new_epoch}.{number:x}", (*channel.ancestors, (channel.epoch, channel.end))
            )
