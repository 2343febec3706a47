"""Which error of a database is the fault of a message, and not of the tables."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from monitor.store import Connection, TablesError

__all__ = ["RefusedError", "blaming_the_tables", "refusing"]


class RefusedError(Exception):
    """A value of a message cannot be stored, in whatever table."""


@contextlib.contextmanager
def refusing(connection: Connection) -> Iterator[None]:
    """Raise RefusedError for values that the types of the columns cannot hold.

    Only to be used with columns that nobody else may change.
    """
    try:
        yield
    except (connection.raw.DataError, OverflowError, UnicodeEncodeError) as error:
        raise RefusedError(str(error).partition("\n")[0]) from error


@contextlib.contextmanager
def blaming_the_tables(connection: Connection) -> Iterator[None]:
    """Raise TablesError for values that :func:`refusing` let pass, and the tables do not hold."""
    try:
        yield
    except connection.raw.DataError as error:
        # Not refused by the columns as they should be: somebody changed them.
        problem = f"{str(error).partition(chr(10))[0]}; were the columns changed? nothing is lost"
        raise TablesError("the tables of the results", problem) from error
