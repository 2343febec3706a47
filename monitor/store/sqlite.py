"""The embedded store: one SQLite file in WAL mode, one thread that writes, two that read.

A fourth thread copies the write-ahead log into the file.
"""

# ruff: noqa: D102 - interface.py documents the methods

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import sqlite3
import time
from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from monitor.errors import MonitorError, UnavailableError
from monitor.files.owner import owner_remark
from monitor.files.reading import file_kind
from monitor.sqlite.connection import settle, transaction, write_ahead
from monitor.sqlite.file import OpenFile
from monitor.sqlite.own_file import create
from monitor.store import migrate
from monitor.store.checkpoints import Checkpoints, copy_log
from monitor.store.interface import Connection, Dialect, Row, Store, TablesError, expect_rows
from monitor.store.listeners import Listeners
from monitor.store.threads import Session, Threads

__all__ = ["SqliteConnection", "SqliteStore"]

T = TypeVar("T")

_BUSY_S = 10.0  # another process (a consumer with its own unit) may hold the write lock of the file
_SETTLE_S = 0.2
# If the checkpoints fall behind, the commit that fills the log copies it.
_MOST_PAGES = 16_000
_JOURNAL_LIMIT_BYTES = 67_108_864


class SqliteConnection(Connection):
    """A transaction on the SQLite file."""

    dialect: ClassVar[Dialect] = "sqlite"
    raw: sqlite3.Connection

    def __init__(self, raw: sqlite3.Connection) -> None:
        self.raw = raw
        self.notifications: list[tuple[str, str]] = []

    def query(self, sql: str, parameters: Sequence[Any] = ()) -> list[Row]:
        return self.raw.execute(_native(sql, bool(parameters)), parameters).fetchall()

    def execute(self, sql: str, parameters: Sequence[Any] = ()) -> int:
        return self.raw.execute(_native(sql, bool(parameters)), parameters).rowcount

    def insert(
        self, table: str, columns: Sequence[str], rows: Iterable[Sequence[Any]], suffix: str = ""
    ) -> None:
        values = ", ".join("?" * len(columns))
        statement = f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({values}) {suffix}"  # noqa: S608
        given = list(rows)
        left_out = len(given) - self.raw.executemany(statement, given).rowcount if given else 0
        if "DO NOTHING" not in suffix:
            expect_rows(table, left_out)

    def notify(self, channel: str, payload: str) -> None:
        self.notifications.append((channel, payload))


@functools.lru_cache(maxsize=512)
def _native(sql: str, has_parameters: bool) -> str:
    if not has_parameters:
        return sql
    return "%".join(piece.replace("%s", "?") for piece in sql.split("%%"))


class _SqliteSession(Session):
    def __init__(self, raw: sqlite3.Connection) -> None:
        self.raw = raw

    def usable(self) -> bool:
        return True

    def interrupt(self) -> None:
        self.raw.interrupt()

    def close(self) -> None:
        with contextlib.suppress(sqlite3.Error):
            self.raw.close()


class SqliteStore(Store):
    """The tables in one file, which is created and migrated when it is first used.

    A commit is on the disk (synchronous=FULL): the spool forgets what its consumers have
    committed, so this file must not fall behind it in a power cut.
    """

    dialect: ClassVar[Dialect] = "sqlite"

    def __init__(self, file: Path) -> None:
        self.file = file
        self.server = f"database {file}"
        self._listeners = Listeners()
        self._writer = Threads("sqlite-writer", self.server, self._open_writer)
        self._readers = Threads("sqlite-reader", self.server, self._open_reader, count=2)
        self._checkpoints = Checkpoints(self._open_copier)
        self._opened: OpenFile | None = None
        self._migrated = False
        self._applied: list[str] = []

    async def start(self) -> None:
        await self.migrate()

    async def transaction(self, function: Callable[[Connection], T], *, timeout: float = 30.0) -> T:
        def job(session: _SqliteSession) -> tuple[T, list[tuple[str, str]]]:
            raw = session.raw
            with self._errors():
                connection = SqliteConnection(raw)
                with transaction(raw):
                    begun = time.monotonic()
                    result = function(connection)
                connection.took_s = time.monotonic() - begun
            self._checkpoints.committed()
            if self._checkpoints.behind:
                self._checkpoints.behind = False
                # Ignore errors: the transaction is committed.
                with contextlib.suppress(sqlite3.Error):
                    copy_log(raw)
            return result, connection.notifications

        result, notifications = await self._writer.run(job, timeout=timeout)
        for channel, payload in notifications:
            self._listeners.tell(channel, payload)
        return result

    async def read(self, function: Callable[[Connection], T], *, timeout: float = 30.0) -> T:
        def job(session: _SqliteSession) -> T:
            with self._errors():
                session.raw.execute("BEGIN")
                try:
                    return function(SqliteConnection(session.raw))
                finally:
                    # After an interrupt SQLite may have already rolled back by itself.
                    if session.raw.in_transaction:
                        with contextlib.suppress(sqlite3.Error):
                            session.raw.execute("ROLLBACK")

        if not self._migrated:  # readers cannot create tables
            await self._writer.run(lambda _: None, timeout=timeout)
        return await self._readers.run(job, timeout=timeout)

    async def listen(self, channel: str) -> AsyncGenerator[str | None, None]:
        with self._listeners.listener(channel) as listener:
            listener.tell(None)
            while True:
                yield await listener.next()

    async def migrate(self, *, owner: str | None = None) -> list[str]:
        del owner
        # The thread migrates when it opens the file, before it runs a function.
        await self._writer.run(lambda _: None, timeout=600.0)
        applied, self._applied = self._applied, []
        return applied

    async def reset(self) -> None:
        await self.transaction(
            lambda connection: migrate.reset(connection, self.server), timeout=600.0
        )

    def open_files(self) -> Sequence[OpenFile]:
        return () if self._opened is None else (self._opened,)

    async def close(self) -> None:
        await asyncio.gather(
            self._writer.close(),
            self._readers.close(),
            asyncio.to_thread(self._checkpoints.close),
        )
        if self._opened is not None and not self._opened.lost():
            await asyncio.to_thread(settle, self.file, patience=_SETTLE_S)

    def _open_writer(self) -> _SqliteSession:
        raw = self._open()
        try:
            with self._errors():
                self._prepare(raw)
                raw.execute(f"PRAGMA wal_autocheckpoint={_MOST_PAGES}")
                raw.execute(f"PRAGMA journal_size_limit={_JOURNAL_LIMIT_BYTES}")
        except BaseException:
            raw.close()
            raise
        self._opened = OpenFile(self.file)
        return _SqliteSession(raw)

    def _open_copier(self) -> sqlite3.Connection:
        return self._open("PRAGMA synchronous=FULL")

    def _open_reader(self) -> _SqliteSession:
        return _SqliteSession(self._open("PRAGMA query_only=ON", "PRAGMA cache_size=-2000"))

    def _open(self, *settings: str) -> sqlite3.Connection:
        with self._errors():
            with contextlib.suppress(OSError):
                # The rows have secrets of jobs, and logs.
                create(self.file)
            raw = sqlite3.connect(
                self.file, timeout=_BUSY_S, isolation_level=None, check_same_thread=False
            )
            try:
                raw.execute("PRAGMA cache_size=-4000")
                raw.execute("PRAGMA temp_store=MEMORY")
                # By default Debian's SQLite overwrites and writes the pages that a purge frees,
                # most of its work. FAST skips them, and still overwrites data in used pages.
                raw.execute("PRAGMA secure_delete=FAST")
                for setting in settings:
                    raw.execute(setting)
            except BaseException:
                raw.close()
                raise
            return raw

    def _prepare(self, raw: sqlite3.Connection) -> None:
        """Create or upgrade the tables."""
        # Lets a purge return pages to the file system; only has an effect before there are tables.
        raw.execute("PRAGMA auto_vacuum=INCREMENTAL")
        write_ahead(raw, patience=_BUSY_S)
        raw.execute("PRAGMA synchronous=FULL")
        with transaction(raw):
            self._applied = migrate.apply(SqliteConnection(raw), self.server)
        self._migrated = True

    @contextlib.contextmanager
    def _errors(self) -> Any:
        try:
            yield
        except sqlite3.OperationalError as error:
            text = str(error)
            if text.startswith(("no such table", "no such column")):
                raise TablesError(self.server, text) from error
            problem = self._unusable()
            if problem is not None:
                raise MonitorError(f"{self.server}: {problem}") from error
            raise UnavailableError(self.server, text) from error
        except (sqlite3.DatabaseError, UnicodeDecodeError) as error:
            # "file is not a database", "malformed", or with a damaged text in its own error.
            if type(error) in (sqlite3.DatabaseError, UnicodeDecodeError):
                raise MonitorError(
                    f"{self.server}: {error}; move it aside and start again, with new tables"
                ) from error
            if isinstance(error, sqlite3.IntegrityError):
                problem = f"{error}; nothing is lost: this resumes once the table accepts the row"
                raise TablesError(self.server, problem) from error
            raise

    def _unusable(self) -> str | None:
        """Return a problem of the directory or the file that does not go away by itself."""
        directory = self.file.parent
        try:
            directory.stat()
        except FileNotFoundError:
            return f"there is no directory {directory}"
        except OSError:
            return f"cannot write in {directory}{owner_remark(directory)}"
        if not os.access(directory, os.W_OK | os.X_OK):
            return f"cannot write in {directory}{owner_remark(directory)}"
        kind = file_kind(self.file)
        if kind is not None:
            return f"this is {kind}, not a file"
        if self.file.exists() and not os.access(self.file, os.R_OK | os.W_OK):
            return f"cannot write in {self.file}{owner_remark(self.file)}"
        return None
