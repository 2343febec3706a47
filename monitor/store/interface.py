"""What a store is to the parts that keep their tables in it.

SQL is written once for both databases where it can be: ``%s`` stands for a parameter
(and, where there are parameters, ``%%`` for a percent sign), tables have no schema in
front, JSON columns take and give text. Where the two differ a function asks
``connection.dialect``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
from typing import Any, ClassVar, Literal, TypeVar

from monitor.errors import MonitorError
from monitor.sqlite.file import OpenFile

__all__ = ["Connection", "Dialect", "Row", "Store", "TablesError"]

Dialect = Literal["postgresql", "sqlite"]
Row = tuple[Any, ...]
T = TypeVar("T")


class TablesError(MonitorError):
    """The tables are missing, or of another version than this program needs."""

    def __init__(self, server: str, problem: str) -> None:
        self.server = server
        self.problem = problem

    def __str__(self) -> str:
        return f"{self.server}: {self.problem}"


class Connection(ABC):
    """One transaction's hold on the database; used only in the thread that made it."""

    dialect: ClassVar[Dialect]
    raw: Any
    """The DB-API connection (psycopg2 or sqlite3), for COPY and the like. Never commit on it."""

    took_s: float = 0.0
    """How long a transaction took with its commit, once it is committed, from when it began."""

    @abstractmethod
    def query(self, sql: str, parameters: Sequence[Any] = ()) -> list[Row]:
        """Run one statement and return all its rows."""

    @abstractmethod
    def execute(self, sql: str, parameters: Sequence[Any] = ()) -> int:
        """Run one statement and return how many rows it changed."""

    @abstractmethod
    def insert(
        self, table: str, columns: Sequence[str], rows: Iterable[Sequence[Any]], suffix: str = ""
    ) -> None:
        """Insert many rows; ``suffix`` may say ``ON CONFLICT ...``. Names are SQL, not input."""

    @abstractmethod
    def notify(self, channel: str, payload: str) -> None:
        """Tell :meth:`Store.listen`-ers once this transaction is committed.

        PostgreSQL's listeners may be in any process, SQLite's are in this one. A payload
        is at most 7999 bytes.
        """


class Store(ABC):
    """The database, for the parts. All methods are for the loop's thread."""

    dialect: ClassVar[Dialect]
    server: str
    """Names the database in messages, without secrets."""

    @abstractmethod
    async def start(self) -> None:
        """Open an SQLite file, so that one that can't be used is found at once.

        Not needed before other methods, which open what they use. A PostgreSQL that is away
        raises nothing.
        """

    @abstractmethod
    async def transaction(self, function: Callable[[Connection], T], *, timeout: float = 30.0) -> T:
        """Run ``function`` in one transaction of its own and return what it returns.

        Committed when this returns; an exception of ``function`` rolls back and is raised.
        Raises UnavailableError when the database is away or ``timeout`` (s, with the wait
        for a free thread) is over: then it may or may not have been committed, which only
        a look at the data can tell. Raises TablesError when the tables are missing or old.
        On SQLite one such function runs at a time and all others wait: keep it under 50 ms.
        """

    async def timed(
        self, function: Callable[[Connection], T], *, timeout: float = 30.0
    ) -> tuple[T, float]:
        """Run a transaction; return also how long it took with its commit (s), once it had begun.

        That is how long others may have waited for it, with no wait for others in it.
        """
        used: list[Connection] = []

        def run(connection: Connection) -> T:
            used.append(connection)
            return function(connection)

        result = await self.transaction(run, timeout=timeout)
        return result, used[0].took_s

    @abstractmethod
    async def read(self, function: Callable[[Connection], T], *, timeout: float = 30.0) -> T:
        """Run ``function``, which changes nothing, on one snapshot.

        As :meth:`transaction` otherwise; on SQLite it neither waits for writers nor
        blocks them.
        """

    @abstractmethod
    def listen(self, channel: str) -> AsyncGenerator[str | None, None]:
        """Yield the payloads of :meth:`Connection.notify` on ``channel``, in order.

        Yields None when it has begun to listen, and again after each gap (the connection
        was lost, or the listener is 10,000 payloads behind): only what is told after a None
        is sure to follow. A server that is away is waited for. Close the
        generator (``contextlib.aclosing``) to stop listening.
        """

    @abstractmethod
    async def migrate(self, *, owner: str | None = None) -> list[str]:
        """Create or upgrade the tables and return the names of the migrations applied.

        May run in several processes at once. An administrator names the PostgreSQL role that
        shall own the schema and everything in it. Raises TablesError for tables of a newer
        program. SQLite needs no such call: its file is migrated when it is opened.
        """

    @abstractmethod
    async def reset(self) -> None:
        """Drop all tables with what is in them, and create them anew."""

    def open_files(self) -> Sequence[OpenFile]:
        """Return the SQLite files that must stay at their paths."""
        return ()

    @abstractmethod
    async def close(self) -> None:
        """Let what runs end, for at most 1 s, end the threads, close the connections."""
