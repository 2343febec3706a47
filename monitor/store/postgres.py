"""The store in PostgreSQL, with psycopg2 in a few threads."""

# ruff: noqa: D102 - interface.py documents the methods

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import socket
import time
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import Any, ClassVar, TypeVar

import psycopg2
import psycopg2.errorcodes
import psycopg2.extensions
import psycopg2.extras

from monitor.errors import MonitorError, UnavailableError
from monitor.store import locks, migrate, pooling, sequences
from monitor.store.columns import Columns
from monitor.store.escapes import escape
from monitor.store.interface import (
    Connection,
    Dialect,
    Row,
    Store,
    TablesError,
    expect_rows,
)
from monitor.store.notifications import NotificationThread
from monitor.store.postgres_connecting import Connector, place_of
from monitor.store.postgres_errors import is_lost
from monitor.store.settings import DatabaseSettings
from monitor.store.silence import Silence
from monitor.store.threads import Session, Threads, TimedOutError

__all__ = ["PostgresConnection", "PostgresStore"]

T = TypeVar("T")

_INSERT_PAGE = 1000
# Of a transaction's time, the most that one wait for a lock may take.
_LOCK_SHARE = 0.9
# The same for a statement. A server that answers says that it gave up, before the client does.
_STATEMENT_SHARE = 0.95
# For how long (s) a session in which something failed is used: what its role or database sets, such
# as a tablespace, is only mended for new ones. Not less: a thousand uploads may fail.
_KEEP_FAILED_S = 1.0
# How often the tables are dropped and created again, if that ends in deadlocks.
_DEADLOCKS = 5


class PostgresConnection(Connection):
    """A transaction on PostgreSQL."""

    dialect: ClassVar[Dialect] = "postgresql"
    raw: psycopg2.extensions.connection

    def __init__(self, raw: psycopg2.extensions.connection) -> None:
        self.raw = raw
        self.notified: list[tuple[str, str]] = []
        """The channels and payloads of :meth:`notify` in this transaction."""

    def query(self, sql: str, parameters: Sequence[Any] = ()) -> list[Row]:
        with self.raw.cursor() as cursor:
            cursor.execute(sql, parameters or None)
            return cursor.fetchall()

    def execute(self, sql: str, parameters: Sequence[Any] = ()) -> int:
        with self.raw.cursor() as cursor:
            cursor.execute(sql, parameters or None)
            return cursor.rowcount

    def insert(
        self, table: str, columns: Sequence[str], rows: Iterable[Sequence[Any]], suffix: str = ""
    ) -> None:
        statement = f"INSERT INTO {table} ({', '.join(columns)}) VALUES %s {suffix}"  # noqa: S608
        left_out = 0
        waiting = iter(rows)
        with self.raw.cursor() as cursor:
            while page := list(islice(waiting, _INSERT_PAGE)):
                psycopg2.extras.execute_values(cursor, statement, page, page_size=len(page))
                left_out += len(page) - cursor.rowcount
        if "DO NOTHING" not in suffix:
            expect_rows(table, left_out)

    def notify(self, channel: str, payload: str) -> None:
        self.query("SELECT pg_notify(%s, %s)", (channel, payload))
        self.notified.append((channel, payload))


class _PostgresSession(Session):
    """One connection in autocommit mode: statements begin and end transactions."""

    def __init__(self, raw: pooling.MarkedConnection) -> None:
        self.raw = raw
        self.place = place_of(raw)
        self._failed_at: float | None = None
        self.checked = False
        """Whether the tables were checked and are what this program needs."""
        self.advanced = False
        """Whether the sequences were checked."""
        self.columns = Columns(raw)
        escape(raw)
        # A duplicate: the descriptor of the original may be closed and reused for another socket
        # while interrupt() runs in another thread.
        self._socket = socket.socket(fileno=os.dup(raw.fileno()))

    def usable(self) -> bool:
        failed_s = 0.0 if self._failed_at is None else time.monotonic() - self._failed_at
        if self.raw.closed or failed_s > _KEEP_FAILED_S:
            return False
        # Between statements a server only sends something when it closes the connection.
        # Not select(), which does not support descriptors above 1023.
        waiting = select.poll()
        waiting.register(self._socket, select.POLLIN)
        return not waiting.poll(0)

    def interrupt(self) -> None:
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)

    def failed(self) -> None:
        """Note a fault of the tables or the server: a later try gets a new session."""
        if self._failed_at is None:
            self._failed_at = time.monotonic()

    def close(self) -> None:
        with contextlib.suppress(psycopg2.Error):
            self.raw.close()
        self._socket.close()


class PostgresStore(Store):
    """The tables in one schema of a PostgreSQL database."""

    dialect: ClassVar[Dialect] = "postgresql"

    def __init__(self, settings: DatabaseSettings) -> None:
        self.settings = settings
        self._connector = Connector(settings)
        self.server = self._connector.server
        self._threads = Threads("postgres", self.server, self._open, count=settings.connections)
        self._silence = Silence(
            self._connector,
            lambda: [session.place for session in self._threads.busy()],
            self._threads.interrupt,
        )
        self._notifications: NotificationThread | None = None

    async def start(self) -> None:
        self._connector.reported = True

    async def transaction(self, function: Callable[[Connection], T], *, timeout: float = 30.0) -> T:
        return await self._run(function, timeout, "BEGIN")

    async def read(self, function: Callable[[Connection], T], *, timeout: float = 30.0) -> T:
        return await self._run(function, timeout, "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")

    async def listen(self, channel: str) -> AsyncGenerator[str | None, None]:
        if self._notifications is None:
            self._notifications = NotificationThread(self._connector)
        async with contextlib.aclosing(self._notifications.listen(channel)) as payloads:
            async for payload in payloads:
                yield payload

    def deaf(self) -> str | None:
        return None if self._notifications is None else self._notifications.problem

    async def migrate(self, *, owner: str | None = None) -> list[str]:
        def create_schema_and_apply(connection: Connection) -> list[str]:
            self._create_schema(connection, owner)
            self._require_schema(connection)
            return migrate.apply(connection, self.server)

        # A missing role, a table of another owner.
        with self._in_full():
            return await self._run(create_schema_and_apply, 600.0, "BEGIN", check=False)

    async def reset(self) -> None:
        def reset(connection: Connection) -> None:
            self._require_schema(connection)
            migrate.reset(connection, self.server)

        # Another program's view of a table.
        with self._in_full():
            for left in reversed(range(_DEADLOCKS)):
                try:
                    await self._run(reset, 600.0, "BEGIN", check=False)
                    break
                except UnavailableError as error:
                    # Others, such as the parts of this daemon, lock the tables in another order.
                    code = getattr(error.__cause__, "pgcode", None)
                    if not left or code != psycopg2.errorcodes.DEADLOCK_DETECTED:
                        raise

    async def close(self) -> None:
        self._silence.close()
        waits = [self._threads.close()]
        if self._notifications is not None:
            waits.append(self._notifications.close())
        await asyncio.gather(*waits)

    def _open(self) -> _PostgresSession:
        return _PostgresSession(self._connector.connect())

    async def _run(
        self, function: Callable[[Connection], T], timeout: float, begin: str, *, check: bool = True
    ) -> T:
        deadline = time.monotonic() + timeout
        writes = begin == "BEGIN"

        def job(session: _PostgresSession) -> T:
            connection = PostgresConnection(session.raw)
            left_ms = (deadline - time.monotonic()) * 1000
            # The server gives up first, and says why.
            limit_ms = max(1, round(left_ms * _STATEMENT_SHARE))
            lock_ms = max(1, round(left_ms * _LOCK_SHARE))
            with self._errors(session, writes=writes, timeout=timeout):
                try:
                    seen = connection.query(
                        f"{begin}; SET LOCAL statement_timeout = {limit_ms};"
                        f" SET LOCAL lock_timeout = {lock_ms}; {pooling.LOOK}"
                    )
                    if seen != [(session.raw.mark,)]:
                        session.close()
                        self._threads.renew()
                        raise self._connector.shared(session.raw)
                    if check:
                        self._check(session, connection, writes=writes)
                    begun = time.monotonic()
                    result = function(connection)
                    if writes and self._connector.read_only:
                        self._look_for_writes(connection)
                    connection.execute("COMMIT")
                    connection.took_s = time.monotonic() - begun
                    self._connector.answered()
                    if connection.notified and self._notifications is not None:
                        self._notifications.sent(connection.notified)
                except BaseException as error:
                    self._roll_back(session)
                    if check and (changed := self._changed(session, error)):
                        raise changed from error
                    raise
            return result

        try:
            with self._silence.watching():
                return await self._threads.run(job, timeout=timeout)
        except TimedOutError as error:
            raise await self._silence.explain(error) from error.__cause__

    def _check(self, session: _PostgresSession, connection: Connection, *, writes: bool) -> None:
        if not session.checked:
            usage = "SELECT has_schema_privilege(oid, 'USAGE') FROM pg_namespace WHERE nspname = %s"
            if (False,) in connection.query(usage, (self.settings.schema,)):
                raise self._no_usage()
            where = f"{self.server}, schema {self.settings.schema}"
            migrate.check(connection, where, partial=self.copying)
            session.checked = True
        session.columns.look()
        if writes and not session.advanced:
            sequences.advance_if_possible(connection)
            session.advanced = True

    @staticmethod
    def _changed(session: _PostgresSession, error: BaseException) -> TablesError | None:
        """Return what an error came from, if that is a column that somebody changed."""
        elsewhere = isinstance(error, MonitorError | psycopg2.Error) and not isinstance(
            error, TablesError | psycopg2.DataError | psycopg2.ProgrammingError
        )
        if elsewhere or not isinstance(error, Exception) or not session.usable():
            return None
        return session.columns.explain(error)

    def _look_for_writes(self, connection: Connection) -> None:
        ((read_only,),) = connection.query("SELECT current_setting('transaction_read_only')")
        if read_only == "off":
            self._connector.takes_writes()

    def _create_schema(self, connection: Connection, owner: str | None) -> None:
        # CREATE SCHEMA IF NOT EXISTS needs a privilege on the database even if the schema exists.
        name = self.settings.schema
        connection.query(
            "SELECT pg_advisory_xact_lock(hashtext('recodex-monitor ' || %s))", (name,)
        )
        role = None if owner is None else '"' + owner.replace('"', '""') + '"'
        if not connection.query("SELECT 1 FROM pg_namespace WHERE nspname = %s", (name,)):
            authorization = "" if role is None else f" AUTHORIZATION {role}"
            connection.execute(f"CREATE SCHEMA {name}{authorization}")
        if role is not None:
            connection.execute(f"SET LOCAL ROLE {role}")

    def _require_schema(self, connection: Connection) -> None:
        """Look names up in the configured schema alone, for the rest of the transaction."""
        name = self.settings.schema
        connection.execute(f"SET LOCAL search_path = {name}")
        ((found,),) = connection.query("SELECT current_schema()")
        if found != name:
            raise self._no_usage()

    def _no_usage(self) -> TablesError:
        name = self.settings.schema
        return TablesError(self.server, f"the role cannot use the schema {name}: grant USAGE")

    @staticmethod
    def _roll_back(session: _PostgresSession) -> None:
        status = session.raw.info.transaction_status
        if session.raw.closed or status == psycopg2.extensions.TRANSACTION_STATUS_IDLE:
            return
        try:
            with session.raw.cursor() as cursor:
                cursor.execute("ROLLBACK")
        except psycopg2.Error:
            session.close()

    @contextlib.contextmanager
    def _errors(self, session: _PostgresSession, *, writes: bool, timeout: float) -> Iterator[None]:
        """Convert those errors of psycopg2 that an operator can act on."""
        connector = self._connector
        try:
            yield
        except TablesError:
            session.failed()
            raise
        except UnicodeDecodeError as error:
            session.close()
            text = ascii(bytes(error.object)[:100])
            raise UnavailableError(self.server, f"it sent text that is not UTF-8: {text}") from None
        except psycopg2.Error as error:
            if session.interrupted:
                session.close()
                # A server would have cancelled the statement. This one may be gone for the others.
                self._threads.renew()
                silent = not connector.answers_logins
                problem = "no answer" if silent else f"still busy after {timeout:g} s: interrupted"
                raise TimedOutError(self.server, problem) from error
            translated = connector.translate(error, session.raw)
            if translated is None:
                raise
            if isinstance(translated, TablesError):
                session.checked = session.advanced = False
            elif error.pgcode == psycopg2.errorcodes.READ_ONLY_SQL_TRANSACTION and writes:
                # The address may lead to another server by now. These connections never will.
                session.close()
                self._threads.renew()
                translated = connector.takes_no_writes(translated)
            elif error.pgcode == psycopg2.errorcodes.LOCK_NOT_AVAILABLE:
                text = f"waited too long for a lock: {connector.text(error)}"
                translated = self._named(session, translated, text)
            elif is_lost(error):
                self._threads.renew()
                translated = connector.away(translated)
            session.failed()
            raise translated from error

    @contextlib.contextmanager
    def _in_full(self) -> Iterator[None]:
        """Raise what the server said with its details, as no rows are involved."""
        try:
            yield
        except (psycopg2.Error, TablesError) as error:
            cause = error if isinstance(error, psycopg2.Error) else error.__cause__
            if not isinstance(cause, psycopg2.Error):
                raise
            raise TablesError(self.server, self._connector.text(cause)) from cause

    def _named(self, session: _PostgresSession, error: MonitorError, text: str) -> MonitorError:
        """Add who holds the lock, as far as that is known."""
        try:
            holder = locks.holder(PostgresConnection(session.raw))
        except psycopg2.Error:
            return error
        return UnavailableError(self.server, f"{text}; {holder}") if holder else error
