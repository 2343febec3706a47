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
from typing import Any, ClassVar, TypeVar
from urllib.parse import urlsplit

import psycopg2
import psycopg2.errorcodes
import psycopg2.extensions
import psycopg2.extras

from monitor.errors import MonitorError, SettingError, UnavailableError
from monitor.store import migrate
from monitor.store.interface import Connection, Dialect, Row, Store, TablesError
from monitor.store.notifications import NotificationThread
from monitor.store.settings import DatabaseSettings
from monitor.store.threads import Session, Threads

__all__ = ["PostgresConnection", "PostgresStore"]

T = TypeVar("T")

# What every session sets, whatever the server, database, role or pooler has: locks of a client that
# vanished must not stay, and numbers and times must come back exactly as they were written. They
# are set by a query, since poolers drop startup parameters.
_SESSION = {
    "bytea_output": "hex",
    "client_min_messages": "warning",
    "DateStyle": "ISO, YMD",
    "default_transaction_deferrable": "off",
    "default_transaction_isolation": "read committed",
    "extra_float_digits": "3",
    "idle_in_transaction_session_timeout": "60000",
    "IntervalStyle": "postgres",
    "lock_timeout": "0",
    "row_security": "on",
    "standard_conforming_strings": "on",
    "statement_timeout": "0",
    "tcp_keepalives_count": "3",
    "tcp_keepalives_idle": "15",
    "tcp_keepalives_interval": "5",
    "TimeZone": "UTC",
}
_CONNECTION: dict[str, Any] = {
    "application_name": "recodex-monitor",
    "client_encoding": "UTF8",
    "keepalives": 1,
    "keepalives_idle": 15,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 30_000,
}
_INSERT_PAGE = 1000


class PostgresConnection(Connection):
    """A transaction on PostgreSQL."""

    dialect: ClassVar[Dialect] = "postgresql"
    raw: psycopg2.extensions.connection

    def __init__(self, raw: psycopg2.extensions.connection) -> None:
        self.raw = raw

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
        with self.raw.cursor() as cursor:
            psycopg2.extras.execute_values(cursor, statement, rows, page_size=_INSERT_PAGE)

    def notify(self, channel: str, payload: str) -> None:
        self.query("SELECT pg_notify(%s, %s)", (channel, payload))


class _PostgresSession(Session):
    """One connection in autocommit mode: statements begin and end transactions."""

    def __init__(self, raw: psycopg2.extensions.connection) -> None:
        self.raw = raw
        self.checked = False
        """Whether the tables were checked and are what this program needs."""
        # A duplicate: the descriptor of the original may be closed and reused for another socket
        # while interrupt() runs in another thread.
        self._socket = socket.socket(fileno=os.dup(raw.fileno()))

    def usable(self) -> bool:
        if self.raw.closed:
            return False
        # Between statements a server only sends something when it closes the connection.
        # Not select(), which does not support descriptors above 1023.
        waiting = select.poll()
        waiting.register(self._socket, select.POLLIN)
        return not waiting.poll(0)

    def interrupt(self) -> None:
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        with contextlib.suppress(psycopg2.Error):
            self.raw.close()
        self._socket.close()


class PostgresStore(Store):
    """The tables in one schema of a PostgreSQL database."""

    dialect: ClassVar[Dialect] = "postgresql"

    def __init__(self, settings: DatabaseSettings) -> None:
        assert settings.url is not None
        self.settings = settings
        self.server = _describe(settings.url)
        # Read again for each connection, so that a rotated password needs no restart.
        self._password = settings.password()
        self._threads = Threads("postgres", self.server, self._open, count=settings.connections)
        self._notifications: NotificationThread | None = None

    async def start(self) -> None:
        pass

    async def transaction(self, function: Callable[[Connection], T], *, timeout: float = 30.0) -> T:
        return await self._run(function, timeout, "BEGIN")

    async def read(self, function: Callable[[Connection], T], *, timeout: float = 30.0) -> T:
        return await self._run(function, timeout, "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")

    async def listen(self, channel: str) -> AsyncGenerator[str | None, None]:
        if self._notifications is None:
            self._notifications = NotificationThread(self.server, self.connect)
        async with contextlib.aclosing(self._notifications.listen(channel)) as payloads:
            async for payload in payloads:
                yield payload

    async def migrate(self, *, owner: str | None = None) -> list[str]:
        def create_schema_and_apply(connection: Connection) -> list[str]:
            self._create_schema(connection, owner)
            self._require_schema(connection)
            return migrate.apply(connection, self.server)

        try:
            return await self._run(create_schema_and_apply, 600.0, "BEGIN", check=False)
        except psycopg2.Error as error:  # a missing role, a table of another owner
            raise TablesError(self.server, self._text(error)) from error

    async def reset(self) -> None:
        def reset(connection: Connection) -> None:
            self._require_schema(connection)
            migrate.reset(connection, self.server)

        try:
            await self._run(reset, 600.0, "BEGIN", check=False)
        except psycopg2.Error as error:  # another program's view of a table
            raise TablesError(self.server, self._text(error)) from error

    async def close(self) -> None:
        waits = [self._threads.close()]
        if self._notifications is not None:
            waits.append(self._notifications.close())
        await asyncio.gather(*waits)

    def connect(self) -> psycopg2.extensions.connection:
        """Return a new connection in autocommit mode; blocks for at most connect_timeout.

        Raises UnavailableError, and MonitorError for a URL that libpq cannot parse.
        """
        settings = self.settings
        try:
            self._password = settings.password()
        except SettingError as error:
            raise UnavailableError(self.server, str(error.under("database"))) from None
        password: dict[str, Any] = {} if self._password is None else {"password": self._password}
        with self._errors():
            try:
                raw: psycopg2.extensions.connection = psycopg2.connect(
                    settings.url,
                    **password,
                    connect_timeout=max(2, round(settings.connect_timeout)),
                    **_CONNECTION,
                )
            except psycopg2.ProgrammingError:
                # Its text repeats parts of the URL, which may include the password.
                raise MonitorError(
                    f"{self.server}: libpq cannot parse database.url; run check-config for details"
                ) from None
            try:
                raw.autocommit = True
                pinned = {**_SESSION, "search_path": settings.schema}
                with raw.cursor() as cursor:
                    cursor.execute(
                        "SELECT set_config(name, value, false)"
                        " FROM unnest(%s, %s) AS pinned (name, value)",
                        (list(pinned), list(pinned.values())),
                    )
                psycopg2.extras.register_default_json(raw, loads=_as_text)
                psycopg2.extras.register_default_jsonb(raw, loads=_as_text)
            except BaseException:
                raw.close()
                raise
        return raw

    def _open(self) -> _PostgresSession:
        return _PostgresSession(self.connect())

    async def _run(
        self, function: Callable[[Connection], T], timeout: float, begin: str, *, check: bool = True
    ) -> T:
        deadline = time.monotonic() + timeout

        def job(session: _PostgresSession) -> T:
            connection = PostgresConnection(session.raw)
            limit_ms = max(1, round((deadline - time.monotonic()) * 1000))
            with self._errors(session):
                try:
                    if check and not session.checked:
                        migrate.check(connection, f"{self.server}, schema {self.settings.schema}")
                        session.checked = True
                    connection.execute(f"{begin}; SET LOCAL statement_timeout = {limit_ms}")
                    begun = time.monotonic()
                    result = function(connection)
                    connection.execute("COMMIT")
                    connection.took_s = time.monotonic() - begun
                except BaseException:
                    self._roll_back(session)
                    raise
            return result

        return await self._threads.run(job, timeout=timeout)

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
            raise TablesError(self.server, f"the role cannot use the schema {name}: grant USAGE")

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
    def _errors(self, session: _PostgresSession | None = None) -> Iterator[None]:
        """Convert those errors of psycopg2 that an operator can act on."""
        try:
            yield
        except psycopg2.Error as error:
            translated = self._translate(error)
            if isinstance(translated, TablesError) and session is not None:
                session.checked = False
            if error.pgcode == psycopg2.errorcodes.READ_ONLY_SQL_TRANSACTION and session:
                # The address may lead to the new primary by now; this connection never will.
                session.close()
            if translated is None:
                raise
            raise translated from error

    def _translate(self, error: psycopg2.Error) -> MonitorError | None:
        text = self._text(error)
        codes = psycopg2.errorcodes
        code = error.pgcode
        if code in {codes.UNDEFINED_TABLE, codes.UNDEFINED_COLUMN, codes.UNDEFINED_FUNCTION}:
            return TablesError(self.server, f"{text}; run: {migrate.COMMAND}")
        if code == codes.INSUFFICIENT_PRIVILEGE:
            return TablesError(self.server, text)
        if code == codes.READ_ONLY_SQL_TRANSACTION:
            return UnavailableError(self.server, f"a standby, or read-only: {text}")
        if isinstance(error, psycopg2.OperationalError | psycopg2.InterfaceError):
            return UnavailableError(self.server, text)
        return None

    def _text(self, error: psycopg2.Error) -> str:
        text = " ".join(str(error).split()) or type(error).__name__
        return text.replace(self._password, "***") if self._password else text


def _as_text(value: str) -> str:
    return value


def _describe(url: str) -> str:
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2] or "the local socket"
    return f"database {parts.path.strip('/')} at {host}"
