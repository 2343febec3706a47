"""Tables in PostgreSQL or SQLite, with one asynchronous interface.

A part calls a :class:`Store` with functions. Each runs with a :class:`Connection` in one of the
store's threads, in one transaction::

    rows = await store.read(lambda connection: connection.query("SELECT ..."))
    await store.transaction(write_batch, timeout=10)

The tables come from the numbered files in ``migrations/``.
"""

from monitor.store.interface import Connection, Dialect, Row, Store, TablesError
from monitor.store.open import open_store
from monitor.store.settings import DatabaseSettings

__all__ = [
    "Connection",
    "DatabaseSettings",
    "Dialect",
    "Row",
    "Store",
    "TablesError",
    "open_store",
]
