"""Tables in PostgreSQL or SQLite, with one asynchronous interface.

A part calls a :class:`Store` with functions. Each runs with a :class:`Connection` in one of the
store's threads, in one transaction::

    rows = await store.read(lambda connection: connection.query("SELECT ..."))
    await store.transaction(write_batch, timeout=10)

The tables come from the numbered files in ``migrations/``.
"""

from monitor.libraries import needed_by
from monitor.store.interface import (
    RETRY_S,
    Connection,
    Dialect,
    JsonText,
    LoginError,
    Row,
    Store,
    TablesError,
    expect_rows,
)
from monitor.store.settings import DatabaseSettings

__all__ = [
    "RETRY_S",
    "Connection",
    "DatabaseSettings",
    "Dialect",
    "JsonText",
    "LoginError",
    "Row",
    "Store",
    "TablesError",
    "expect_rows",
    "open_store",
]


def open_store(settings: DatabaseSettings | None = None) -> Store:
    """Return the store: PostgreSQL if a URL is set, else the SQLite file.

    It connects at the first use, in a thread. Raises MissingPackageError without psycopg2, and
    SettingError if the password cannot be read.
    """
    settings = settings or DatabaseSettings()
    if settings.url is None:
        from monitor.store.sqlite import SqliteStore

        return SqliteStore(settings.sqlite_file())
    with needed_by("database"):
        from monitor.store.postgres import PostgresStore
    return PostgresStore(settings)
