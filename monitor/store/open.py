"""Selects the store for the settings."""

from __future__ import annotations

from monitor.libraries import needed_by
from monitor.store.interface import Store
from monitor.store.settings import DatabaseSettings

__all__ = ["open_store"]


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
