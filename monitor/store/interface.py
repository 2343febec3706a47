"""The interface of the store to the parts that keep tables in it.

Most SQL works with both databases: ``%s`` is a parameter (and in statements with parameters,
``%%`` is a percent sign), table names have no schema, and values of JSON columns are text.
Functions with different SQL for the two check ``connection.dialect``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
from typing import Any, ClassVar, Literal, TypeVar

from monitor.errors import MonitorError, UnavailableError
from monitor.sqlite.file import OpenFile

__all__ = [
    "RETRY_S",
    "Connection",
    "Dialect",
    "JsonText",
    "LoginError",
    "Row",
    "Store",
    "TablesError",
    "expect_rows",
]

RETRY_S = (0.2, 4.0)
"""The first and the longest pause (s) until another try of what the database did not do.

With the time that a try may take, everything continues within 10 s of the database being well.
"""

Dialect = Literal["postgresql", "sqlite"]
Row = tuple[Any, ...]
T = TypeVar("T")


class JsonText(str):
    """JSON for a column of the type jsonb."""

    __slots__ = ()


class TablesError(MonitorError):
    """The tables are missing or have another version than this program needs."""

    def __init__(self, server: str, problem: str) -> None:
        self.server = server
        self.problem = problem

    def __str__(self) -> str:
        return f"{self.server}: {self.problem}"


def expect_rows(table: str, left_out: int) -> None:
    """Raise TablesError if a table took fewer rows than it was given, and said nothing."""
    if left_out:
        rows = "a row" if left_out == 1 else f"{left_out} rows"
        raise TablesError(f"table {table}", f"a trigger, rule or policy of it left out {rows}")


class LoginError(UnavailableError):
    """The server is there and refuses the login: password, role, database or pg_hba.conf.

    A daemon tries again, since a password may be rotated. For a command it is bad config.
    """

    exit_status = 78


class Connection(ABC):
    """The database during one transaction; used only in the thread that created it."""

    dialect: ClassVar[Dialect]
    raw: Any
    """The DB-API connection (psycopg2 or sqlite3), for COPY and similar. Never commit it."""

    took_s: float = 0.0
    """Duration of the transaction in s, including its commit; set after the commit."""

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
        """Insert many rows; ``suffix`` may be ``ON CONFLICT ...``. Names are SQL, not input.

        Raises TablesError if the table left out rows, unless the suffix says DO NOTHING.
        """

    @abstractmethod
    def notify(self, channel: str, payload: str) -> None:
        """Notify listeners (:meth:`Store.listen`) once this transaction is committed.

        With PostgreSQL they may be in any process, with SQLite they are in this one. A payload
        is at most 7999 bytes.
        """


class Store(ABC):
    """The database, for the parts. Call all methods in the thread of the loop."""

    dialect: ClassVar[Dialect]
    server: str
    """The name of the database in messages, without secrets."""

    copying: bool = False
    """Whether tables may be used to which a copy from SQLite is not complete."""

    @abstractmethod
    async def start(self) -> None:
        """Open an SQLite file, to find out at once whether it can be used.

        Other methods do not need this: they open what they use. An unavailable PostgreSQL is not
        an error here.
        """

    @abstractmethod
    async def transaction(self, function: Callable[[Connection], T], *, timeout: float = 30.0) -> T:
        """Run ``function`` in its own transaction and return its result.

        The transaction is committed when this returns. An exception in ``function`` rolls it back
        and is raised. Raises UnavailableError if the database is unavailable or ``timeout`` (s,
        including the wait for a free thread) expires: the transaction may be committed or not, and
        only the data can show it. Raises TablesError if the tables are missing or old.
        With SQLite one transaction runs at a time and all others wait: keep it under 50 ms.
        """

    async def timed(
        self, function: Callable[[Connection], T], *, timeout: float = 30.0
    ) -> tuple[T, float]:
        """Run a transaction; also return its duration (s), from its begin through its commit.

        This is how long it may have delayed others. The time that it waited itself is not included.
        """
        used: list[Connection] = []

        def run(connection: Connection) -> T:
            used.append(connection)
            return function(connection)

        result = await self.transaction(run, timeout=timeout)
        return result, used[0].took_s

    @abstractmethod
    async def read(self, function: Callable[[Connection], T], *, timeout: float = 30.0) -> T:
        """Run ``function``, which only reads, on one snapshot.

        Otherwise like :meth:`transaction`. With SQLite it neither waits for writers nor blocks
        them.
        """

    @abstractmethod
    def listen(self, channel: str) -> AsyncGenerator[str | None, None]:
        """Yield the payloads of :meth:`Connection.notify` on ``channel``, in order.

        Yields None once it listens, and again after each gap (after a lost connection, or when the
        listener is 10,000 payloads behind): all payloads sent after a None arrive, until the next
        None. Waits while the server is unavailable. Close the generator
        (``contextlib.aclosing``) to stop listening.
        """

    def deaf(self) -> str | None:
        """Return why :meth:`listen` hears nothing now, such as on a standby; None if it does."""
        return None

    @abstractmethod
    async def migrate(self, *, owner: str | None = None) -> list[str]:
        """Create or upgrade the tables and return the names of the applied migrations.

        Several processes may run it at once. ``owner`` is the PostgreSQL role that will own the
        schema and everything in it, if an administrator runs this. Raises TablesError for tables
        of a newer program. SQLite does not need this: its file is migrated when it is opened.
        """

    @abstractmethod
    async def reset(self) -> None:
        """Drop all tables with their data, and create them again."""

    def open_files(self) -> Sequence[OpenFile]:
        """Return the SQLite files that must stay at their paths."""
        return ()

    @abstractmethod
    async def close(self) -> None:
        """Wait at most 1 s for running functions, stop the threads, close the connections."""
